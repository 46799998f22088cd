"""Calls that may never return, on a thread beside: after a while nobody waits for them any more.

librdkafka waits without an end for the coordinator of a group that goes away while offsets are sent, whatever time
limit it was given (issues 5456 and 5511 of confluentinc/librdkafka).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

_Call = tuple[Callable[[], None], "queue.SimpleQueue[Exception | None]"]


class Patience:
    """For one caller at a time."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call | None] | None = None

    def within(self, seconds: float, call: Callable[[], None]) -> None:
        """Raises what `call` raises, and TimeoutError if it takes longer: then it is left behind, with its thread."""
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(self._calls,), name="kafka-patience", daemon=True).start()
        answer: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._calls.put((call, answer))
        try:
            error = answer.get(timeout=seconds)
        except queue.Empty:
            self.close()
            raise TimeoutError(f"no answer within {seconds:.0f} s") from None
        if error is not None:
            raise error

    def close(self) -> None:
        """The thread ends once it has nothing to do."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None


def _serve(calls: queue.SimpleQueue[_Call | None]) -> None:
    while (order := calls.get()) is not None:
        call, answer = order
        try:
            call()
        except Exception as error:  # noqa: BLE001 - it belongs to who waits for it
            answer.put(error)
        else:
            answer.put(None)
