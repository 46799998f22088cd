"""A collector of traces in this very process: OTLP over HTTP comes in, spans are there to be asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PATH = "/v1/traces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """A span as it arrived."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    links: tuple[tuple[str, str], ...]
    """(trace, span) of each"""
    start_ns: int
    end_ns: int
    error: str
    attributes: dict[str, Any]
    service: dict[str, Any]


@dataclass(slots=True)
class Collector:
    """Use as a context manager. `answers`: the status of each request to come; 200 when it is empty."""

    answers: list[int] = field(default_factory=list)
    spans: list[Got] = field(default_factory=list)
    requests: int = 0
    _news: threading.Condition = field(default_factory=threading.Condition)
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Collector:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = collector.take(self.path, body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Nothing is said."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_port}"

    def take(self, path: str, body: bytes) -> int:
        with self._news:
            self.requests += 1
            status = self.answers.pop(0) if self.answers else 200
            if path != PATH:
                status = 404
            if status == 200:
                self.spans += _spans(ExportTraceServiceRequest.FromString(body))
            self._news.notify_all()
        return status

    def until(self, what: Callable[[list[Got]], Any], deadline_s: float = 20.0) -> Any:
        """Wait until `what` gives something true of the spans."""
        with self._news:
            assert self._news.wait_for(lambda: what(self.spans), deadline_s), [span.name for span in self.spans]
            return what(self.spans)


def _spans(request: ExportTraceServiceRequest) -> list[Got]:
    return [
        Got(
            name=span.name, kind=span.kind, trace=span.trace_id.hex(), id=span.span_id.hex(),
            parent=span.parent_span_id.hex(), start_ns=span.start_time_unix_nano, end_ns=span.end_time_unix_nano,
            links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
            error=span.status.message if span.status.code == 2 else "", attributes=_plain(span.attributes),
            service=_plain(resource.resource.attributes),
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]  # fmt: skip


def _plain(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}
