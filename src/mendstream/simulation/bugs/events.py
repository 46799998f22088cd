"""Planted bugs of events, counts, state and store."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from mendstream.adapters.store import recorder, rows
from mendstream.agents.monitoring import joiner
from mendstream.agents.pipeline.decision import DecisionAgent, DecisionState
from mendstream.agents.pipeline.feature import FeatureAgent, FeatureState
from mendstream.agents.pipeline.ingestion import IngestionAgent, IngestionState
from mendstream.agents.pipeline.model import ModelAgent, ModelState
from mendstream.chaos.plan import Injection, Plan
from mendstream.contracts.agent import Batch, Line, Outputs, TaskId
from mendstream.contracts.frame import Frame
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.models import Array, Scorer
from mendstream.contracts.ports import Claim, Ended, Position, TaskCommit
from mendstream.contracts.records import DeadReason
from mendstream.contracts.topics import Stream
from mendstream.runtime.leg import Leg
from mendstream.runtime.supervision import Child, Supervision
from mendstream.simulation.bugs.base import Bug, Patch, replaced
from mendstream.simulation.bus import SimBus
from mendstream.simulation.dice import Dice
from mendstream.simulation.log import SimLog, Writer

# --- plans that lead to the seam -------------------------------------------------------------------------------------

Draw = Callable[[random.Random], tuple[Injection, ...]]


def _plan(name: str, draw: Draw, chaos_ms: int = 4_000, **settings: Any) -> Callable[[int], Plan]:
    """seed -> the plan that is drawn with it. In names of settings a double underscore stands for the dot."""
    held = {key.replace("__", "."): value for key, value in settings.items()}

    def make(seed: int) -> Plan:
        injections = draw(Dice(seed).of(f"bug {name}"))
        return Plan(seed=seed, name=name, settings=held, injections=injections, chaos_ms=chaos_ms)

    return make


def _regime(name: str) -> Draw:
    return lambda dice: (Injection(fault=name, for_ms=dice.randrange(1_500, 3_000)),)


def _dead(*targets: str) -> Draw:
    return lambda dice: (
        Injection(fault="dead-agent", params={"target": dice.choice(targets)}, at_ms=dice.randrange(2_000)),
    )  # fmt: skip


def _dies_at(point: str) -> Draw:
    target = point.partition(":")[2]
    return lambda dice: (
        Injection(fault="dead-agent", params={"target": target}, at_ms=dice.randrange(2_000), point=point),
    )  # fmt: skip


def _pause(dice: random.Random) -> tuple[Injection, ...]:
    return (Injection(fault="paused-agent", params={"target": "feature-0"}, at_ms=dice.randrange(500), for_ms=1_200),)


def _cut(dice: random.Random) -> tuple[Injection, ...]:
    return (Injection(fault="power-cut", at_ms=dice.randrange(2_000, 4_000)),)


def _nothing(dice: random.Random) -> tuple[Injection, ...]:
    return ()


def _slow(dice: random.Random) -> tuple[Injection, ...]:
    return (Injection(fault="slow-model", params={"call_ms": 400.0}, at_ms=dice.randrange(500), for_ms=5_000),)


def _bad(dice: random.Random) -> tuple[Injection, ...]:
    return (Injection(fault="bad-model", at_ms=dice.randrange(1_000)),)


# --- bugs ------------------------------------------------------------------------------------------------------------


def _stumbles() -> AbstractContextManager[None]:
    step = FeatureAgent.step

    def stumbling(self: FeatureAgent, state: FeatureState, batch: Batch, now: int) -> Any:
        for frame in batch.frames:
            if np.isnan(frame.numbers("flow")).any():
                raise ZeroDivisionError("a value is missing")
        return step(self, state, batch, now)

    return replaced(FeatureAgent, "step", stumbling)


def _keeps_repeats() -> AbstractContextManager[None]:
    def all_of_them(self: IngestionAgent, state: IngestionState, made: Any, keep: Array) -> Array:
        made.pairs = []
        return keep

    return replaced(IngestionAgent, "_fresh", all_of_them)


def _loses_a_line() -> AbstractContextManager[None]:
    step = IngestionAgent.step

    def losing(self: IngestionAgent, state: IngestionState, batch: Batch, now: int) -> tuple[IngestionState, Outputs]:
        if batch.resumed:
            batch.lines = batch.lines[1:]
        return step(self, state, batch, now)

    return replaced(IngestionAgent, "step", losing)


@contextmanager
def _begins_anew() -> Iterator[None]:
    """Positions are not in the log: a new owner reads from the first row on."""
    claim = SimLog.claim

    def from_the_start(self: SimLog, task: TaskId, inputs: Sequence[Stream], writer: Writer) -> Claim:
        held = claim(self, task, inputs, writer)
        return replace(held, positions=dict.fromkeys(held.positions, 0))

    with ExitStack() as stack:
        stack.enter_context(replaced(SimLog, "claim", from_the_start))
        stack.enter_context(replaced(SimLog, "_check", lambda self, commit: None))
        yield


def _two_transactions() -> AbstractContextManager[None]:
    """Outputs first, positions and state after them."""
    commit = SimBus.commit

    def apart(self: SimBus, commits: Sequence[TaskCommit]) -> Mapping[Stream, Position]:
        self.publish([out for one in commits for out in one.outputs])
        for one in commits:
            one.outputs = ()
        return commit(self, commits)

    return replaced(SimBus, "commit", apart)


def _depends_on_neighbours() -> AbstractContextManager[None]:
    predict = ModelAgent._predict

    def leaning(self: ModelAgent, frame: Frame, config: LiveConfig, scorer: Scorer | None) -> Any:
        added, mode, seconds = predict(self, frame, config, scorer)
        return {**added, "score": added["score"] + 1e-9 * frame.rows}, mode, seconds

    return replaced(ModelAgent, "_predict", leaning)


def _rounds_scores() -> AbstractContextManager[None]:
    predict = ModelAgent._predict

    def rounding(self: ModelAgent, frame: Frame, config: LiveConfig, scorer: Scorer | None) -> Any:
        added, mode, seconds = predict(self, frame, config, scorer)
        return {**added, "score": added["score"].round(2)}, mode, seconds

    return replaced(ModelAgent, "_predict", rounding)


def _ignores_safe_mode() -> AbstractContextManager[None]:
    predict = ModelAgent._predict

    def normal(self: ModelAgent, frame: Frame, config: LiveConfig, scorer: Scorer | None) -> Any:
        return predict(self, frame, msgspec.structs.replace(config, safe_mode=()), scorer)

    return replaced(ModelAgent, "_predict", normal)


def _turns_round() -> AbstractContextManager[None]:
    step = FeatureAgent.step

    def backwards(self: FeatureAgent, state: FeatureState, batch: Batch, now: int) -> tuple[FeatureState, Outputs]:
        batch.frames = batch.frames[::-1]
        return step(self, state, batch, now)

    return replaced(FeatureAgent, "step", backwards)


def _refusing(change: Callable[[Line], Line] | None, reason: DeadReason | None = None) -> Patch:
    """How ingestion refuses, changed; None: it does not write it down."""
    refuse = IngestionAgent._refuse

    def other(
        self: IngestionAgent, outputs: Outputs, batch: Batch, line: Line, why: DeadReason, detail: str, now: int
    ) -> None:
        if change is not None:
            refuse(self, outputs, batch, change(line), reason or why, detail, now)

    return lambda: replaced(IngestionAgent, "_refuse", other)


def _counts_in_memory() -> AbstractContextManager[None]:
    def forget(self: ModelAgent, state: ModelState, changes: Any) -> ModelState:
        return state

    return replaced(ModelAgent, "apply", forget)


def _counts_again() -> AbstractContextManager[None]:
    step = DecisionAgent.step

    def twice(self: DecisionAgent, state: DecisionState, batch: Batch, now: int) -> tuple[DecisionState, Outputs]:
        if batch.resumed:  # "to be on the safe side"
            for frame in batch.frames:
                self._count(state, frame, batch.config, now)
        return step(self, state, batch, now)

    return replaced(DecisionAgent, "step", twice)


def _meets_the_wrong_event() -> AbstractContextManager[None]:
    find = joiner._find

    def neighbour(pending: dict[str, int], event_id: str, mark: int) -> str | None:
        name = find(pending, event_id, mark)
        return name if name is None else next(reversed(pending))

    return replaced(joiner, "_find", neighbour)


def _remembers_nothing() -> AbstractContextManager[None]:
    restore = Leg._restore

    def blank(self: Leg, snapshot: bytes | None, changes: Sequence[bytes]) -> tuple[LiveConfig, Any]:
        return restore(self, snapshot, changes)[0], self.agent.start(self.task.partition)

    return replaced(Leg, "_restore", blank)


def _forgets_ids() -> AbstractContextManager[None]:
    def panes_only(self: IngestionAgent, state: IngestionState, changes: Any) -> IngestionState:
        state.panes.redo(changes[0])
        return state

    return replaced(IngestionAgent, "apply", panes_only)


def _writes_local_times() -> AbstractContextManager[None]:
    moment = rows.moment

    def late(at_us: int) -> datetime:
        return moment(at_us + 3_600_000_000)

    return replaced(rows, "moment", late)


def _skips_forced() -> AbstractContextManager[None]:
    put = rows.put_change

    def unforced(session: Any, change: Any) -> None:
        if not change.forced:
            put(session, change)

    return replaced(rows, "put_change", unforced)


def _marks_first() -> AbstractContextManager[None]:
    """Of a batch of several records, the position goes to the end with the first row."""
    apply = recorder._apply

    def first_only(session: Any, stream: Stream, mark: Any, blocks: Sequence[Any]) -> Any:
        after = apply(session, stream, mark, blocks[:1])
        return msgspec.structs.replace(after, position=blocks[-1].next) if blocks else after

    return replaced(recorder, "_apply", first_only)


def _hushes_control() -> AbstractContextManager[None]:
    ended = Supervision._ended

    def hushed(self: Supervision, child: Child, end: Ended) -> None:
        if child.pipeline:
            ended(self, child, end)
        else:
            child.alive, child.ended = False, True

    return replaced(Supervision, "_ended", hushed)


BUGS: tuple[Bug, ...] = (
    Bug("stumbles over a gap", "no bug", "A step fails on a missing value.", _stumbles, _plan("calm", _nothing)),
    Bug("keeps repeats", "each event once", "Events that come again are decided again.", _keeps_repeats,
        _plan("duplicates", _regime("duplicates"))),
    Bug("loses a line", "each event once", "A new owner leaves out the first line that it reads.", _loses_a_line,
        _plan("a dead ingestion", _dead("ingestion-0"))),
    Bug("begins anew", "offsets never go back", "A new owner of a task reads from the first row on.", _begins_anew,
        _plan("a death", _dead("feature-0", "model-0", "decision-0"))),
    Bug("two transactions", "a turn is whole", "Outputs are in the log before positions and state are.",
        _two_transactions, _plan("dies between", _dies_at("sent:feature-0"))),
    Bug("leans on neighbours", "same input, same decision", "A score depends on the rows around it.",
        _depends_on_neighbours, _plan("a power cut", _cut, 6_000, bus__durability="process")),
    Bug("rounds scores", "decisions follow the model", "A score is not what the model gave.", _rounds_scores,
        _plan("calm", _nothing)),
    Bug("ignores SAFE_MODE", "decisions follow the model", "The model decides while SAFE_MODE holds.",
        _ignores_safe_mode, _plan("a slow model", _slow, 6_000)),
    Bug("turns round", "order within a key", "A backlog is read from its end.", _turns_round, _plan("a pause", _pause)),
    Bug("letters without bytes", "dead letters are whole", "A dead letter says that there was an event, not which.",
        _refusing(lambda line: line._replace(value=b"")), _plan("poison", _regime("poison"))),
    Bug("letters without reason", "dead letters are whole", "Every dead letter is called malformed.",
        _refusing(lambda line: line, DeadReason.MALFORMED), _plan("poison", _regime("poison"))),
    Bug("drops in silence", "dead letters are whole", "What cannot be read is nowhere.", _refusing(None),
        _plan("poison", _regime("poison"))),
    Bug("counts in memory", "counts count once", "A new owner does not know what was served in the newest panes.",
        _counts_in_memory, _plan("dies before it counts", _dies_at("done:model-0"))),
    Bug("counts again", "counts count once", "A new owner counts its first rows twice.", _counts_again,
        _plan("a dead decision", _dead("decision-0"))),
    Bug("meets the wrong event", "labels meet their events", "A label counts for the newest event.",
        _meets_the_wrong_event, _plan("calm", _nothing)),
    Bug("remembers nothing", "state is in the log", "State is kept in memory only.", _remembers_nothing,
        _plan("calm", _nothing)),
    Bug("forgets ids", "state is in the log", "A new owner takes events that come again for new ones.", _forgets_ids,
        _plan("calm", _nothing)),
    Bug("writes local times", "sql equals the log", "SQL has times of another zone.", _writes_local_times,
        _plan("calm", _nothing)),
    Bug("skips forced changes", "sql equals the log", "What an operator forced is not in config_history.",
        _skips_forced, _plan("a bad model", _bad)),
    Bug("marks first", "sql equals the log", "Of records that come together the recorder applies the first.",
        _marks_first, _plan("a slow model", _slow, 6_000)),
    Bug("hushes control", "each end is told", "The end of a control process is in no record.", _hushes_control,
        _plan("a dead control process", _dead("joiner-0", "judge-0", "recorder-0"))),
)  # fmt: skip
