"""A process's steps and records come in; spans go to the collector that the settings name."""

from __future__ import annotations

import importlib.util
import random
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mendstream import __version__
from mendstream.adapters.tracing.batches import Batches, BatchSpan
from mendstream.adapters.tracing.incidents import Incidents
from mendstream.adapters.tracing.outbox import Outbox, Send
from mendstream.adapters.tracing.span import Span
from mendstream.contracts.agent import Batch, TaskId
from mendstream.contracts.errors import SettingsError
from mendstream.contracts.records import Record
from mendstream.settings.groups import Tracing

if TYPE_CHECKING:
    from mendstream.adapters.tracing.otlp import Exporter

POLICY = "policy"
TELLERS = ("healing", POLICY)
"""The agents whose records tell of incidents."""


def check(settings: Tracing) -> None:
    """Raises SettingsError if traces cannot be sent as the settings say."""
    if not re.match(r"https?://.", settings.endpoint):
        raise SettingsError(
            "tracing.endpoint is no URL of http:// or https://",
            hint="4318 is the usual port of OTLP over HTTP; gRPC is not spoken",
        )
    if not _installed():
        raise SettingsError(
            "tracing.enabled is set, and the OpenTelemetry exporter is not installed",
            hint="pip install 'mendstream[otel]'",
        )


def _installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # a package on the way there
        return False


class Tracer:
    """The traces of one process. `step` before each step, `told` after each turn that is in the log."""

    def __init__(
        self,
        settings: Tracing,
        *,
        house: str,
        role: str,
        process: str,
        system: str,
        lost: Callable[[int], None],
        send: Send | None = None,
    ) -> None:
        """`lost`: told of spans that were dropped, by any thread. `send`: instead of the collector."""
        resource = {
            "service.name": f"mendstream-{role}",
            "service.namespace": house,
            "service.instance.id": process,
            "service.version": __version__,
        }
        self._outbox = Outbox(send or _Collector(settings.endpoint, resource), lost)
        dice = random.Random()
        self._batches = Batches(
            self._outbox.put, sample=settings.sample, dice=dice.random, bits=dice.getrandbits, system=system
        )
        self._incidents = Incidents(self._outbox.put)
        self._outbox.start()

    def step(self, task: TaskId, batch: Batch, now: int) -> BatchSpan | None:
        """One step is about to run; None if it is not traced."""
        if task.agent == POLICY:
            self._incidents.proposed(batch.records)
        return self._batches.step(task, batch, now)

    def told(self, agent: str, records: Iterable[Record]) -> None:
        """What a turn of `agent` that is in the log put out."""
        if agent in TELLERS:
            self._incidents.told(records)

    def recall(self, agent: str, records: Iterable[Record]) -> None:
        """What an earlier process of this agent put out, oldest first, before the first turn of this one."""
        self._incidents.recall(records)

    def close(self) -> None:
        self._outbox.close()


class _Collector:
    """The exporter, made when the first spans are to go out, in the thread that sends them: it takes long to import."""

    def __init__(self, endpoint: str, resource: dict[str, str]) -> None:
        self._endpoint = endpoint
        self._resource = resource
        self._exporter: Exporter | None = None

    def __call__(self, spans: Sequence[Span]) -> bool:
        if self._exporter is None:
            from mendstream.adapters.tracing.otlp import Exporter

            self._exporter = Exporter(self._endpoint, self._resource)
        return self._exporter.send(spans)
