"""Events and feedback over HTTP: a request is answered once its lines are in the log, so a client knows what counts."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec

from mendstream.contracts.agent import Line
from mendstream.contracts.errors import CouldNot

WAITING_LINES = 50_000
ANSWER_S = 30.0
_PATHS = ("/events", "/feedback")


@dataclass(slots=True)
class _Request:
    lines: list[bytes]
    feedback: bool
    done: threading.Event = field(default_factory=threading.Event)


class HttpSource:
    """POST /events and POST /feedback take JSON lines. 200: they are in the log. 503: too many wait, or no answer yet.

    Not replayable: what was not answered with 200 has to be sent again; a repeat of an id is dropped.
    """

    replayable = False

    def __init__(self, host: str, port: int, *, most_bytes: int) -> None:
        self._waiting: deque[_Request] = deque()
        self._first: int | None = None
        """The position of the first line that waits; None until somebody asks."""
        self._lines = 0
        self._lock = threading.Lock()
        self._ring: Callable[[], None] = lambda: None
        self._news = False
        """Lines wait that nobody has been given."""
        source, limit = self, most_bytes * 64

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                given = self.headers.get("Content-Length", "")
                length = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else None
                # A body that is left unread would be taken for the next request.
                closing, self.close_connection = self.close_connection, True
                if self.path not in _PATHS:
                    self._answer(404, {"error": f"POST to {' or '.join(_PATHS)}"})
                elif length is None:
                    self._answer(411, {"error": "say how long the body is: Content-Length"})
                elif length > limit:
                    self._answer(413, {"error": f"{length} bytes in one request; at most {limit}"})
                else:
                    self.close_connection = closing
                    body = self.rfile.read(length)
                    if len(body) < length:
                        self.close_connection = True  # the client is gone, and who knows what it wanted to say
                        return
                    lines = [line for line in body.splitlines() if line.strip()]
                    status = source.offer(lines, feedback=self.path == "/feedback")
                    self._answer(status, {"lines": len(lines)} if status == 200 else {"error": "busy: send it again"})

            def _answer(self, status: int, body: dict[str, object]) -> None:
                content = msgspec.json.encode(body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                if self.close_connection:
                    self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                """No line per request."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise CouldNot(
                f"cannot listen for events on {host}:{port}: {error.strerror}",
                hint="another program has the port: set ingestion.http_port",
            ) from error
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http-source", daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def offer(self, lines: list[bytes], *, feedback: bool) -> int:
        """Put lines in the queue and wait until they are in the log; the HTTP status that tells the client."""
        if not lines:
            return 200
        request = _Request(lines, feedback)
        with self._lock:
            if self._lines + len(lines) > WAITING_LINES and self._lines:
                return 503
            self._lines += len(lines)
            self._waiting.append(request)
            self._news = True
        self._ring()
        return 200 if request.done.wait(ANSWER_S) else 503

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        events: list[Line] = []
        feedback: list[Line] = []
        end, size = position, 0
        with self._lock:
            # All that is not durable waits here, so a turn that was not finished finds it again.
            at = self._first = position if self._first is None else self._first
            for request in self._waiting:
                target = feedback if request.feedback else events
                for value in request.lines[max(0, end - at) :]:
                    if end - position >= max_lines or (size and size + len(value) > max_bytes):
                        return events, feedback, end
                    target.append(Line(value, end))
                    end, size = end + 1, size + len(value)
                at += len(request.lines)
            self._news = False
        return events, feedback, end

    def due_in_s(self) -> float | None:
        return 0.0 if self._news else None

    def wake_by(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def done(self, position: int) -> None:
        with self._lock:
            while self._waiting and self._first is not None and self._first + len(self._waiting[0].lines) <= position:
                request = self._waiting.popleft()
                self._first += len(request.lines)
                self._lines -= len(request.lines)
                request.done.set()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
