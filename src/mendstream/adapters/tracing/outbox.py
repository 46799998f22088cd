"""Spans on their way out: a bounded queue, and a thread that sends it. A turn never waits for either."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from mendstream.adapters.tracing.span import Span

MOST = 2048
"""Spans that may wait; what comes on top is dropped."""
TOGETHER = 512
"""Spans in one request."""
EVERY_S = 1.0
CLOSE_S = 1.0
"""How long the end of a process waits for the last spans to go out."""
Send = Callable[[Sequence[Span]], bool]
_log = structlog.get_logger("tracing")


class Outbox:
    """`send` tells whether they have arrived; those that have not are dropped. `lost`: told how many, of any thread."""

    def __init__(self, send: Send, lost: Callable[[int], None], *, most: int = MOST) -> None:
        self._send = send
        self._lost = lost
        self._most = most
        self._queue: deque[Span] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._away = False
        self._thread = threading.Thread(target=self._run, name="tracing", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, span: Span) -> None:
        if len(self._queue) >= self._most:
            self._lost(1)
            return
        self._queue.append(span)
        if len(self._queue) >= TOGETHER:
            self._wake.set()

    def flush(self) -> None:
        """Send what waits now."""
        for _ in range(-(-len(self._queue) // TOGETHER)):
            spans = [self._queue.popleft() for _ in range(min(TOGETHER, len(self._queue)))]
            arrived = self._send(spans)
            if not arrived:
                self._lost(len(spans))
            self._tell(arrived)

    def close(self) -> None:
        """Send the last ones, if that takes no longer than CLOSE_S."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(EVERY_S)
            self._wake.clear()
            self.flush()

    def _tell(self, arrived: bool) -> None:
        if arrived == self._away:
            self._away = not arrived
            if arrived:
                _log.warning("traces arrive again")
            else:
                _log.warning("traces do not arrive: they are dropped until they do", hint="see tracing.endpoint")
