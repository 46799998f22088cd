"""The first signal asks a long command to end after what it is at; the second one ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mendstream.cli.show import note


@contextmanager
def noted(numbers: Sequence[signal.Signals], said: str = "") -> Iterator[list[int]]:
    """A list that the first of these signals fills. `said`: what to tell people then."""
    seen: list[int] = []

    def stop(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        if said:
            note(said)

    held = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield seen
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
