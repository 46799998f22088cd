"""No event is lost, none is decided twice, nothing goes back, and what is refused is kept as it came."""

from __future__ import annotations

import json
import math
from collections import Counter

from mendstream.contracts.agent import TaskId
from mendstream.contracts.ports import TaskCommit
from mendstream.contracts.records import DeadReason, Decision
from mendstream.contracts.topics import Stream, Topic
from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.log import Append
from mendstream.simulation.machine import Machine
from mendstream.simulation.story import Story
from mendstream.simulation.trail import STAGES, records_of

_READS = {stage: reads for stage, reads, _ in STAGES}
_WRITES = {(stage, writes) for stage, _, writes in STAGES}


class NoBug(Invariant):
    """A step that fails as only a bug can takes its process down again and again: nothing would be served."""

    name = "no bug"

    def tick(self) -> None:
        for crash in self.machine.crashes:
            self.broken(f"{crash.process}: {crash}")


class Decided(Invariant):
    """Each accepted event has exactly one decision or dead letter: else a customer has no answer, or two."""

    name = "each event once"
    topics = (Topic.DECISIONS,)

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._decided: set[str] = set()

    def appended(self, append: Append) -> None:
        for record in append.records:
            if isinstance(record, Decision):
                if record.event_id in self._decided:
                    self.broken(f"{record.event_id} was decided twice")
                self._decided.add(record.event_id)

    def forgot(self) -> None:
        streams = [Stream(Topic.DECISIONS, p) for p in range(self.machine.settings.run.partitions)]
        self._decided = {
            record.event_id
            for stream in streams
            for record in records_of(self.machine.log, stream)
            if isinstance(record, Decision)
        }

    def end(self) -> None:
        trail = self.story.trail(self.machine)
        due = self.machine.tape.due(self.machine.clock.now_us())
        if trail.read < due:
            self.broken(f"ingestion has read {trail.read} of {due} events")
        ended = Counter(self._decided)
        ended.update(event_id for stage in trail.set_aside.values() for event_id in stage)
        wanted = trail.outcomes.accepted
        missing = [event_id for event_id in wanted if not ended[event_id]]
        if missing:
            self.broken(f"{len(missing)} of {len(wanted)} events have no decision, such as {missing[0]}")
        twice = [event_id for event_id, n in ended.items() if n > 1]
        if twice:
            self.broken(f"{twice[0]} has a decision and a dead letter, or two")
        unknown = sorted(ended.keys() - wanted.keys())
        if unknown:
            self.broken(f"{unknown[0]} was decided and never accepted")


class DeadLetters(Invariant):
    """What is refused is kept with its bytes, its place and the reason: else nobody can mend it and send it again."""

    name = "dead letters are whole"

    def end(self) -> None:
        trail, made = self.story.trail(self.machine), self.machine.tape.made
        letters = trail.outcomes.letters
        for position in range(trail.read):
            found = letters.get(position, [])
            if len(found) > 1:
                self.broken(f"{len(found)} dead letters of the event at {position}")
            if not made[position].event_id:
                if not found:
                    self.broken(f"the malformed event at {position} is in no dead letter")
                elif found[0].reason not in (_reason_of(made[position].line), DeadReason.QUARANTINED):
                    self.broken(f"the malformed event at {position} is {found[0].reason}: {made[position].line!r}")
            elif found and found[0].reason is not DeadReason.QUARANTINED:
                self.broken(f"the event at {position} is whole, and a dead letter says {found[0].reason}")
        for letter in trail.outcomes.labels:
            known = {line.value for line in self.machine.tape.known(letter.position, letter.position + 1)}
            if letter.value not in known:
                self.broken(f"a dead letter holds what nobody sent: {letter.value!r} at {letter.position}")
        for letter in trail.letters:
            if letter.stage in ("feature", "model", "decision") and letter.reason is not DeadReason.QUARANTINED:
                self.broken(f"{letter.stage} refused a good event: {letter.reason} {letter.detail}")


def _reason_of(line: bytes) -> DeadReason:
    """Why a malformed event of the tape has to be refused."""
    try:
        fields = json.loads(line, parse_constant=_no_number)
    except ValueError:
        return DeadReason.MALFORMED
    endless = any(isinstance(value, float) and math.isinf(value) for value in fields.values())
    return DeadReason.NOT_FINITE if endless else DeadReason.INVALID


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


class OffsetsGrow(Invariant):
    """Positions never go back: else what was read is read again, and decided again."""

    name = "offsets never go back"

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._at: dict[tuple[TaskId, Stream], int] = {}

    def committed(self, commit: TaskCommit, process: str, generation: int) -> None:
        for stream, position in commit.positions.items():
            held = self._at.get((commit.task, stream), 0)
            if position < held:
                self.broken(f"{commit.task} goes back from {held} to {position} of {stream}")
            self._at[commit.task, stream] = position

    def forgot(self) -> None:
        self._at = {
            (task, stream): position
            for task, held in self.machine.log.tasks.items()
            for stream, position in held.positions.items()
        }


class Whole(Invariant):
    """What a turn writes and how far it has read are in the log together: else events are lost or decided twice."""

    name = "a turn is whole"
    topics = tuple(writes for _, _, writes in STAGES)

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._written: dict[TaskId, int] = {}
        """Rows of the turn that is told of now."""

    def appended(self, append: Append) -> None:
        if append.task is not None and (append.task.agent, append.stream.topic) in _WRITES:
            self._written[append.task] = self._written.get(append.task, 0) + append.rows

    def committed(self, commit: TaskCommit, process: str, generation: int) -> None:
        written = self._written.pop(commit.task, 0)
        reads = _READS.get(commit.task.agent)
        if reads is None or any(out.stream.topic is Topic.DEAD_LETTERS for out in commit.outputs):
            return
        stream = Stream(reads, commit.task.partition)
        if stream in commit.positions:
            read = commit.positions[stream] - commit.before[stream]
            if read != written:
                self.broken(f"{commit.task} has read {read} rows in one turn and written {written}")

    def end(self) -> None:
        trail = self.story.trail(self.machine)
        for stage, reads, writes in STAGES:
            for p in range(trail.partitions):
                done = trail.ids(Stream(reads, p))[: trail.position(stage, p, Stream(reads, p))]
                wanted, found = Counter(done), Counter(trail.ids(Stream(writes, p)))
                found.update(event_id for event_id in trail.set_aside.get(stage, ()) if event_id in wanted)
                if wanted != found:
                    event_id = min((wanted - found) + (found - wanted))
                    times = f"{wanted[event_id]} times and written it {found[event_id]} times"
                    self.broken(f"{stage}/{p} has read {event_id} {times}")


class Order(Invariant):
    """Events of one key stay in order down to the decisions: else the newest decision is not about the newest event."""

    name = "order within a key"

    def end(self) -> None:
        trail = self.story.trail(self.machine)
        made, accepted = self.machine.tape.made, trail.outcomes.accepted
        for topic in (Topic.RAW_EVENTS, *(writes for _, _, writes in STAGES)):
            newest: dict[str, tuple[int, int]] = {}
            for p in range(trail.partitions):
                for event_id in trail.ids(Stream(topic, p)):
                    place = accepted.get(event_id)
                    if place is None:
                        continue  # what was never accepted is for another invariant
                    before = newest.get(made[place].key)
                    if before is not None and before[1] > place:
                        self.broken(f"{topic}/{p}: {event_id} of {made[place].key} comes behind a later event")
                    if before is not None and before[0] != p:
                        self.broken(f"{topic}: {made[place].key} is in partitions {before[0]} and {p}")
                    newest[made[place].key] = p, place
