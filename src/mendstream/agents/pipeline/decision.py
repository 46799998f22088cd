"""predictions in, decisions out: threshold and rules, one record per event, and the end-to-end latency counted."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import msgspec

from mendstream import __version__
from mendstream.agents.panes import PaneTable, pane_of
from mendstream.agents.pipeline.columns import columns_of
from mendstream.agents.pipeline.guard import guarded
from mendstream.contracts import frame as frames
from mendstream.contracts.agent import Batch, Outputs, dead_letter
from mendstream.contracts.errors import UsageError
from mendstream.contracts.frame import Frame
from mendstream.contracts.knobs import LiveConfig, Mode
from mendstream.contracts.pipeline import Pipeline
from mendstream.contracts.records import Counts, DeadReason
from mendstream.contracts.topics import Topic

KEEP_PANES = 40
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


class DecisionState(msgspec.Struct):
    panes: PaneTable


class DecisionAgent:
    """Incremental: a commit carries the pane totals that it touched."""

    name = "decision"
    reads = (Topic.PREDICTIONS,)
    state_type = DecisionState

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def start(self, partition: int) -> DecisionState:
        return DecisionState(panes=PaneTable())

    def step(self, state: DecisionState, batch: Batch, now: int) -> tuple[DecisionState, Outputs]:
        outputs = Outputs(batch.turn)
        before = state.panes.revision
        for frame in frames.merged(batch.frames):
            for part, outcomes, error in guarded(frame, lambda f: self._decide(f, batch.config)):
                if outcomes is None:
                    dead_letter(
                        outputs, topic=Topic.PREDICTIONS, partition=part.meta.partition, position=-1, stage=self.name,
                        code_version=__version__, reason=DeadReason.STEP_FAILED, detail=repr(error),
                        value=part.encode(), now=now,
                    )  # fmt: skip
                    continue
                self._check(part, outcomes)
                block = _records(part, outcomes, batch.config, now)
                outputs.blocks.append((Topic.DECISIONS, batch.partition, block, part.rows))
                self._count(state, part, batch.config, now)
        outputs.changes = state.panes.settle(before, pane_of(now) - KEEP_PANES)
        return state, outputs

    def apply(self, state: DecisionState, changes: Any) -> DecisionState:
        state.panes.redo(changes)
        return state

    def counts(self, state: DecisionState, after: int) -> tuple[list[Counts], int]:
        return state.panes.changed("", after)

    def _decide(self, frame: Frame, config: LiveConfig) -> list[str]:
        return list(self.pipeline.compute_outcome(frame.numbers("score"), columns_of(frame), config.decision_threshold))

    def _check(self, part: Frame, outcomes: list[str]) -> None:
        """Such outcomes are no fault of the data, so they are not looked for row by row."""
        if len(outcomes) != part.rows or not set(map(type, outcomes)) <= {str}:
            raise UsageError(
                f"pipeline {self.pipeline.name}: decide has to give one string per event",
                hint='for instance np.where(score >= threshold, "yes", "no")',
            )

    def _count(self, state: DecisionState, part: Frame, config: LiveConfig, now: int) -> None:
        arm = "live" if part.meta.mode == Mode.NORMAL.value else "fallback"
        # A version has served an event once both stages had it: that is what a remedy has to prove.
        version = min(part.meta.config, config.version)
        totals = state.panes.at(pane_of(now), part.meta.model, version, arm)
        totals.n += part.rows
        totals.add_latencies((now - part.numbers("born_us")) / 1000)


class _Line(msgspec.Struct, frozen=True, gc=False, tag_field="record", tag="decision"):
    """A `Decision`, with what differs from event to event first."""

    event_id: str
    key: str
    outcome: str
    score: float
    model: msgspec.Raw
    """And all fields behind it, as JSON: they are the same for a whole frame, so they are encoded once."""


class _Shared(msgspec.Struct, frozen=True):
    """The fields of `Decision` from `model` on, in its order."""

    model: str
    mode: str
    config: int
    reason: str
    at_us: int


def _records(frame: Frame, outcomes: list[str], config: LiveConfig, now: int) -> bytes:
    """One JSON line per event: model, mode and config version together are what made it."""
    meta = frame.meta
    reason = f"score against {config.decision_threshold:g}" if meta.mode == Mode.NORMAL.value else "rule fallback"
    shared = _encode(_Shared(meta.model, meta.mode, config.version, reason, now))
    rest = msgspec.Raw(shared.removeprefix(b'{"model":').removesuffix(b"}"))
    scores = frame.numbers("score").tolist()
    return _encode_lines(
        list(map(_Line, frame.strings("event_id"), frame.strings("key"), outcomes, scores, repeat(rest)))
    )
