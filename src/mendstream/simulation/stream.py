"""The demo's flights as a careless sender gives them: some events come twice, some are cut off.

What stands at a position depends on nothing but the seed and the position, so that a run with kills and one without
read the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mendstream.contracts.agent import Line
from mendstream.contracts.ports import Clock
from mendstream.demo.source import FlightsSource

REPEAT_EVERY = 7
"""Every so many events, an earlier one comes once more."""
REPEAT_BACK = (1, 40, 900)
"""How many events earlier it came first: within its batch, in one of the last, before a restart."""
CUT_EVERY = 97
"""Every so many events, one ends in the middle of a field: ingestion has to set it aside."""


class CarelessFlights:
    """`contracts.ports.Source`: `FlightsSource` with repeats and cut events."""

    replayable = True

    def __init__(self, seed: int, rate: float, regime: Callable[[], str], clock: Clock) -> None:
        self._flights = FlightsSource(seed, rate, regime, clock)
        # A second one, so that looking back does not move the first one's pace.
        self._earlier = FlightsSource(seed, 0, regime, clock)

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        most = max(1, max_lines * REPEAT_EVERY // (REPEAT_EVERY + 1) - 1)
        events, labels, following = self._flights.poll(position, most, max_bytes)
        return [line for event in events for line in self._lines(event)], labels, following

    def _lines(self, event: Line) -> list[Line]:
        lines = [_cut(event) if _is_cut(event.position) else event]
        if event.position % REPEAT_EVERY == REPEAT_EVERY - 1:
            back = REPEAT_BACK[event.position // REPEAT_EVERY % len(REPEAT_BACK)]
            lines += self._again(event.position - back, event.position)
        return lines

    def _again(self, number: int, position: int) -> list[Line]:
        """Event `number` as it came the first time. One that was cut would be set aside twice, and is left out."""
        if number < 0 or _is_cut(number):
            return []
        events, _, _ = self._earlier.poll(number, 1, 1 << 20)
        return [Line(events[0].value, position)]

    def due_in_s(self) -> float:
        return self._flights.due_in_s()

    def wake_by(self, ring: Callable[[], None]) -> None:
        """It knows when its next line is due."""

    def done(self, position: int) -> None:
        self._flights.done(position)

    def close(self) -> None:
        self._flights.close()
        self._earlier.close()


def _is_cut(number: int) -> bool:
    return number % CUT_EVERY == CUT_EVERY - 1


def _cut(event: Line) -> Line:
    return Line(event.value[: len(event.value) // 2], event.position)
