"""Agents that do as a test says: one that is snapshot whole every turn, one that is incremental."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from mendstream.contracts.agent import Batch, Outputs
from mendstream.contracts.records import Alert, AlertKind, AlertState, Counts, Decision
from mendstream.contracts.topics import Topic


class Seen(msgspec.Struct):
    events: list[str] = []
    """What came in, in order: event ids, record ids, lines."""
    configs: list[int] = []
    """The config version at each step."""
    steps: int = 0


class Scripted:
    """Answers each event with a decision that names the config version. `hook` is called in every step."""

    def __init__(
        self, name: str = "scripted", reads: tuple[Topic, ...] = (Topic.RAW_EVENTS,), *,
        hook: Callable[[Batch], None] = lambda batch: None, wake_us: int | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.reads = reads
        self.state_type = Seen
        self.hook = hook
        self.wake_us = wake_us
        self.batches: list[Batch] = []

    def start(self, partition: int) -> Seen:
        return Seen()

    def step(self, state: Seen, batch: Batch, now: int) -> tuple[Seen, Outputs]:
        outputs = Outputs(batch.turn)
        self.batches.append(batch)
        found = self.names(batch)
        state.events.extend(found)
        state.configs.append(batch.config.version)
        state.steps += 1
        self.hook(batch)
        for name in found:
            outputs.records.append(self.answer(outputs, name, batch, now))
        if self.wake_us is not None:
            outputs.wake_at_us = now + self.wake_us
        return state, outputs

    def answer(self, outputs: Outputs, name: str, batch: Batch, now: int) -> Any:
        return Decision(
            event_id=name, key="", outcome="seen", score=0.0, model="", mode="NORMAL", config=batch.config.version,
            reason="", at_us=now,
        )  # fmt: skip

    @staticmethod
    def names(batch: Batch) -> list[str]:
        """What is in the batch: lines first, then frames, then records."""
        records: list[Any] = list(batch.records)
        return [
            *(line.value.decode() for line in (*batch.lines, *batch.feedback)),
            *(event_id for frame in batch.frames for event_id in frame.strings("event_id")),
            *(getattr(record, "event_id", "") or record.id for record in records),
        ]


class Controlling(Scripted):
    """The same in the control wing: it answers with alerts."""

    def answer(self, outputs: Outputs, name: str, batch: Batch, now: int) -> Alert:
        return Alert(
            id=outputs.id(), alert_id=name, kind=AlertKind.PERF_DROP, subject="", state=AlertState.FIRING,
            detector="", statistic="", value=0.0, limit=0.0, n=0, window_us=(0, 0), at_us=now,
        )  # fmt: skip


class Adding(Scripted):
    """Incremental: commits what it added."""

    def step(self, state: Seen, batch: Batch, now: int) -> tuple[Seen, Outputs]:
        state, outputs = super().step(state, batch, now)
        outputs.changes = [self.names(batch), batch.config.version]
        return state, outputs

    def apply(self, state: Seen, changes: Any) -> Seen:
        events, config = changes
        state.events.extend(events)
        state.configs.append(config)
        state.steps += 1
        return state


class Counted(Scripted):
    """Counts what it serves: one total, whose revision is the number of events."""

    def counts(self, state: Seen, after: int) -> tuple[list[Counts], int]:
        n = len(state.events)
        found = [Counts(task="", pane=1, model="m", config=0, arm="live", revision=n, n=n)] if n > after else []
        return found, n
