"""Threads beside the turns: one that does something once, one that does it again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable


def once(name: str, work: Callable[[], None]) -> Callable[[], bool]:
    """The answer tells whether it is still at it."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread.is_alive


class Every(threading.Thread):
    def __init__(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._seconds = seconds
        self._work = work
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(self._seconds):
            self._work()

    def stop(self) -> None:
        """Returns once it has ended, or when that takes too long: a probe of a slow model, a commit on a slow disk."""
        self._ended.set()
        self.join(1)
