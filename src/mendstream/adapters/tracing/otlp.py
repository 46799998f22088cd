"""Spans as OpenTelemetry has them, sent by OTLP over HTTP. Imported by the thread that sends, and by nobody else."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from mendstream import __version__
from mendstream.adapters.tracing.names import Name
from mendstream.adapters.tracing.span import Span

PATH = "/v1/traces"
_KINDS = {"internal": SpanKind.INTERNAL, "producer": SpanKind.PRODUCER, "consumer": SpanKind.CONSUMER}
_SCOPE = InstrumentationScope("mendstream", __version__)


class Exporter:
    """`endpoint`: as OTEL_EXPORTER_OTLP_ENDPOINT has it. Headers, certificates and time-outs come from OTEL_* too."""

    def __init__(self, endpoint: str, resource: Mapping[str, str]) -> None:
        # The outbox tells once that nothing arrives; the library would write each failure to standard error.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        self._resource = Resource(dict(resource))
        base = endpoint.rstrip("/")
        self._exporter = OTLPSpanExporter(endpoint=base if base.endswith(PATH) else base + PATH)

    def send(self, spans: Sequence[Span]) -> bool:
        found = [readable(span, self._resource) for span in spans]
        return self._exporter.export(found) is SpanExportResult.SUCCESS


def readable(span: Span, resource: Resource) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=_context(span.own, remote=False),
        parent=None if span.parent is None else _context(span.parent, remote=True),
        resource=resource,
        attributes=span.attributes,
        links=[Link(_context(name, remote=True)) for name in span.links],
        kind=_KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.failed) if span.failed else Status(StatusCode.UNSET),
        start_time=span.start_us * 1000,
        end_time=span.end_us * 1000,
        instrumentation_scope=_SCOPE,
    )


def _context(name: Name, *, remote: bool) -> SpanContext:
    return SpanContext(name.trace, name.span, is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED))
