"""Steps over batches come in; a span for each sampled one goes out, linked with those that made its frames.

The dice fall once, where events come in. A frame of a sampled batch bears the name of the span that made it, so the
stages behind know what is traced without asking anybody, and frames of other batches are not one byte longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import structlog

from mendstream.adapters.tracing.names import Name, parse
from mendstream.adapters.tracing.span import Span, Value
from mendstream.contracts.agent import Batch, Outputs, TaskId
from mendstream.contracts.frame import Frame
from mendstream.contracts.topics import Topic

LINKS_MAX = 128
"""As many as OpenTelemetry allows a span by default; a turn may take in more frames."""
FIRST = "ingestion"
Put = Callable[[Span], None]


class Batches:
    """`dice`: a number from 0 to 1. `bits`: as many random ones. `system`: the broker, as the conventions call it."""

    def __init__(
        self, put: Put, *, sample: float, dice: Callable[[], float], bits: Callable[[int], int], system: str
    ) -> None:
        self._put = put
        self._sample = sample
        self._dice = dice
        self._bits = bits
        self._system = system
        self._current = False

    def step(self, task: TaskId, batch: Batch, now: int) -> BatchSpan | None:
        """One step is about to run; None if it is not traced."""
        self._leave()  # a turn that was not finished has left its span
        links: tuple[Name, ...] = ()
        if task.agent == FIRST:
            if not batch.lines or self._dice() >= self._sample:
                return None
        else:
            links = _made_by(batch.frames)
            if not links:
                return None
        own = Name(links[0].trace if links else self._some(128), self._some(64))
        self._enter(own)
        return BatchSpan(self, own, links, task, batch, now)

    def finished(self, span: Span) -> None:
        self._leave()
        self._put(span)

    @property
    def system(self) -> str:
        return self._system

    def _some(self, bits: int) -> int:
        return self._bits(bits) or 1  # zero names nothing

    def _enter(self, own: Name) -> None:
        self._current = True
        structlog.contextvars.bind_contextvars(trace_id=f"{own.trace:032x}", span_id=f"{own.span:016x}")

    def _leave(self) -> None:
        if self._current:
            self._current = False
            structlog.contextvars.unbind_contextvars("trace_id", "span_id")


class BatchSpan:
    """`runtime.driver.StepSpan`: one step over a traced batch, until its turn is in the log."""

    def __init__(
        self, batches: Batches, own: Name, links: tuple[Name, ...], task: TaskId, batch: Batch, now: int
    ) -> None:  # fmt: skip
        self._batches = batches
        self._own = own
        self._links = links
        self._task = task
        self._batch = batch
        self._start_us = now

    def made(self, outputs: Outputs) -> None:
        """Frames of traced events name this span as the one that made them."""
        header = self._own.header
        outputs.frames[:] = [
            (topic, partition, _named(frame, header) if frame.meta.trace or self._task.agent == FIRST else frame)
            for topic, partition, frame in outputs.frames
        ]

    def done(self, rows: int, seconds: float, now: int) -> None:
        """The turn is in the log."""
        topic = Topic.RAW_EVENTS if self._task.agent == FIRST else self._batch.topics[0]
        operation = "send" if self._task.agent == FIRST else "process"
        config = self._batch.config
        attributes: dict[str, Value] = {
            "messaging.system": self._batches.system,
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": topic.value,
            "messaging.destination.partition.id": str(self._task.partition),
            "messaging.batch.message_count": rows,
            "mendstream.task": str(self._task),
            "mendstream.turn": self._batch.turn,
            "mendstream.step_ms": round(seconds * 1e3, 3),
            "mendstream.config": config.version,
            "mendstream.model": config.model_version,
            "mendstream.mode": config.mode.value,
        }
        span = Span(
            name=f"{operation} {topic.value}", own=self._own, parent=self._links[0] if self._links else None,
            start_us=self._start_us, end_us=now, attributes=attributes,
            kind="producer" if self._task.agent == FIRST else "consumer", links=self._links[:LINKS_MAX],
        )  # fmt: skip
        self._batches.finished(span)


def _made_by(frames: Iterable[Frame]) -> tuple[Name, ...]:
    """The traced spans that made these frames, each once, in order."""
    headers = dict.fromkeys(frame.meta.trace for frame in frames if frame.meta.trace)
    return tuple(name for name in map(parse, headers) if name is not None)


def _named(frame: Frame, header: str) -> Frame:
    return Frame(frame.batch, msgspec.structs.replace(frame.meta, trace=header))
