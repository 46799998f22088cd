"""What was served is counted once, and labels count for the event and the version that they are about."""

from __future__ import annotations

from collections import Counter

import msgspec

from mendstream.contracts.agent import TaskId
from mendstream.contracts.ports import TaskCommit
from mendstream.contracts.records import DeadReason, Feedback
from mendstream.contracts.topics import Stream, Topic
from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.log import SimLog
from mendstream.simulation.machine import Machine
from mendstream.simulation.story import Story
from mendstream.simulation.trail import Trail

KEPT_US = 9_000_000
"""Totals are sent again for ten seconds after they were served; an owner that comes later does not have them."""
PATIENCE_US = 20_000_000
"""A joiner that cannot see the predictions for so long may take them for missing."""
_COUNTING = ("ingestion", "model", "decision", "joiner")


class Gaps:
    """Tasks that nobody owned for so long that their newest totals may have been forgotten unsent."""

    def __init__(self) -> None:
        self._turns: dict[TaskId, list[tuple[int, int]]] = {}
        """task -> (number, when) of its turns, as far as the log has them"""
        self.tasks: set[str] = set()

    def turn(self, commit: TaskCommit, now_us: int) -> None:
        if commit.task.agent in _COUNTING:
            turns = self._turns.setdefault(commit.task, [])
            if turns and now_us - turns[-1][1] > KEPT_US:
                self.tasks.add(str(commit.task))
            turns.append((commit.turn, now_us))

    def forgot(self, log: SimLog) -> None:
        for task, turns in self._turns.items():
            held = log.task(task)
            while turns and turns[-1][0] > (0 if held is None else held.turns):
                turns.pop()


class _Watching(Invariant):
    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self.gaps = Gaps()

    def committed(self, commit: TaskCommit, process: str, generation: int) -> None:
        self.gaps.turn(commit, self.machine.clock.now_us())

    def forgot(self) -> None:
        self.gaps.forgot(self.machine.log)

    def compare(self, task: str, what: str, found: Counter[str], wanted: Counter[str]) -> None:
        """`found` is exact, or less where the newest totals may have been forgotten."""
        for name in sorted(found.keys() | wanted.keys()):
            if found[name] > wanted[name] or (found[name] < wanted[name] and task not in self.gaps.tasks):
                self.broken(f"{task}: {found[name]} {what} of {name!r} are counted, {wanted[name]} there were")


class CountedOnce(_Watching):
    """The totals of each task are those of the rows that it served: else every rate and every alarm is wrong."""

    name = "counts count once"

    def end(self) -> None:
        trail = self.story.trail(self.machine)
        outcomes = trail.outcomes
        refused = sum(
            letter.reason is not DeadReason.QUARANTINED
            for letters in (*outcomes.letters.values(), outcomes.labels)
            for letter in letters
        )  # fmt: skip
        self.compare("ingestion/0", "events", _served(trail, "ingestion/0"), Counter({"": len(outcomes.accepted)}))
        for loss, wanted in (("repeat", outcomes.repeats), ("dead", refused)):
            self.compare("ingestion/0", f"losses `{loss}`", _bad(trail, "ingestion/0", loss), Counter({"": wanted}))
        for p in range(trail.partitions):
            predicted = Counter[str]()
            for part in trail.frames[Stream(Topic.PREDICTIONS, p)]:
                predicted[part.meta.get("model", "")] += len(part.ids)
            self.compare(f"model/{p}", "events", _served(trail, f"model/{p}"), predicted)
            decided = Counter(decision.model for decision in trail.decisions[p])
            self.compare(f"decision/{p}", "events", _served(trail, f"decision/{p}"), decided)


class LabelsJoined(_Watching):
    """A label counts for its own event, under the version that served it: else a good model is called bad."""

    name = "labels meet their events"

    def end(self) -> None:
        trail = self.story.trail(self.machine)
        made, accepted = self.machine.tape.made, trail.outcomes.accepted
        for p in range(trail.partitions):
            read = trail.position("joiner", p, Stream(Topic.FEEDBACK, p))
            ttl_us = self.machine.settings.monitoring.label_ttl_s * 1_000_000
            given_up = _given_up(trail)
            labelled = {feedback.event_id for feedback in trail.feedback[p][:read]} - given_up.keys() - trail.unjoined
            judged, wrong = Counter[str](), Counter[str]()
            for part in trail.frames[Stream(Topic.PREDICTIONS, p)]:
                model = part.meta.get("model", "")
                for event_id, score in zip(part.ids, part.batch.column("score").to_pylist(), strict=True):
                    waited = given_up.get(event_id, 0) - part.meta["made_us"]
                    if PATIENCE_US < waited < ttl_us:
                        self.broken(f"the label of {event_id} is in a dead letter, and the event had been served")
                    if event_id in labelled:
                        judged[model] += 1
                        wrong[model] += (score >= 0.5) != (made[accepted[event_id]].label == 1)
            task = f"joiner/{p}"
            self.compare(task, "labels", _n(trail, task, "error"), judged)
            if task not in self.gaps.tasks:
                self.compare(task, "errors", _bad(trail, task, "error"), wrong)


def _given_up(trail: Trail) -> dict[str, int]:
    """Event id -> when the joiner put its label to the dead letters: nobody had predicted it for long."""
    return {
        msgspec.json.decode(letter.value, type=Feedback).event_id: letter.at_us
        for letter in trail.letters
        if letter.stage == "joiner" and letter.reason is DeadReason.UNKNOWN_EVENT
    }  # fmt: skip


def _served(trail: Trail, task: str) -> Counter[str]:
    """Model -> events."""
    found = Counter[str]()
    for (name, _, model, _, arm), counts in trail.counts.items():
        if name == task and arm in ("live", "fallback"):
            found[model] += counts.n
    return found


def _n(trail: Trail, task: str, loss: str) -> Counter[str]:
    return _loss(trail, task, loss, 0)


def _bad(trail: Trail, task: str, loss: str) -> Counter[str]:
    return _loss(trail, task, loss, 1)


def _loss(trail: Trail, task: str, loss: str, column: int) -> Counter[str]:
    found = Counter[str]()
    for (name, _, model, _, arm), counts in trail.counts.items():
        if name == task and arm in ("live", "fallback") and loss in counts.losses:
            found[model] += counts.losses[loss][column]
    return found
