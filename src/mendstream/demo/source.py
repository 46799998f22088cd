"""The demo's stream: flights.parquet comes in; an endless, seeded sequence of event and feedback lines goes out.

A virtual day is 850 real flights drawn at random and put in order of their time of day; rows and labels are real, only
the correlation between days (storms) is gone. An event's position is its number, and what stands there depends on
nothing but (seed, regime, number): a restarted process goes on at any position. A label is published with the first
event after its flight has landed, also across a restart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mendstream.contracts.agent import Line
from mendstream.contracts.errors import UsageError
from mendstream.contracts.ports import Clock
from mendstream.demo.pipeline import RATES

Array = np.ndarray[Any, np.dtype[Any]]
FLIGHTS = Path(__file__).parent / "data" / "flights.parquet"
DAY = 850
"""Events of a virtual day. A flight lands within half a day, so its label comes on that day or the next."""
DAY_S = 86_400
POISON_EVERY = 50

_EVENT = (
    b'{"id":"f%d","tailnum":%b,"carrier":%b,"origin":%b,"dest":%b,"hour":%b,"minute":%b,"distance":%b,'
    b'"dep_delay":%b,"seats":%b,"plane_year":%b}'
)
_FIELDS = ("tailnum", "carrier", "origin", "dest", "hour", "minute", "distance", "dep_delay", "seats", "plane_year")
_LABEL = b'{"event_id":"f%d","key":%b,"label":%d}'


class Regime(NamedTuple):
    """What the stream is like: which flights come, and what goes wrong at its edge."""

    population: str = "normal"
    poison: bool = False
    labels: bool = True


@lru_cache(maxsize=64)
def regime_of(text: str) -> Regime:
    """A comma list of REGIMES; empty: normal. Raises UsageError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    populations = [word for word in words if word in _POPULATIONS and word != "normal"]
    unknown = [word for word in words if word not in REGIMES]
    if unknown or len(set(populations)) > 1:
        what = f"no regime {unknown[0]!r}" if unknown else f"{' and '.join(populations)} exclude each other"
        raise UsageError(f"the demo's stream: {what}", hint=f"regimes: {', '.join(REGIMES)}; a comma joins several")
    return Regime(populations[0] if populations else "normal", "poison" in words, "no-labels" not in words)


class FlightsSource:
    """A replayable source that is paced by a clock and turned by a regime."""

    replayable = True

    def __init__(self, seed: int, rate: float, regime: Callable[[], str], clock: Clock) -> None:
        """`rate`: events per second (0: as fast as they are read), counted from the first position polled.
        `regime`: asked at every poll; a change holds from the first event that is read after it.
        """
        self._seed = seed
        self._rate = rate
        self._regime = regime
        self._clock = clock
        self._anchor: tuple[int, int] | None = None
        self._next = 0
        self._spans: list[_Span] = []
        self._days: dict[int, _Day] = {}

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        """At most `max_lines` events and about `max_bytes`, but at least one, and the labels that came with them."""
        regime = regime_of(self._regime())
        self._turn(position, regime)
        stop = position + min(max_lines, self._due(position))
        events: list[Line] = []
        labels: list[Line] = []
        while position < stop and (max_bytes > 0 or not events):
            day = self._day(position // DAY)
            end = min(stop, (position // DAY + 1) * DAY)
            lines = day.events(position, end)
            end = position + _fitting(lines, max_bytes, at_least=not events)
            del lines[end - position :]
            known = day.labels(position, end) if regime.labels else []
            max_bytes -= sum(len(line.value) for line in lines) + sum(len(line.value) for line in known)
            if not lines:
                break
            events += lines
            labels += known
            position = end
        self._next = position
        return events, labels, position

    def due_in_s(self) -> float:
        if self._anchor is None or self._due(self._next):
            return 0.0
        at, first = self._anchor
        return max(0.0, (self._next - first) / self._rate - (self._clock.now_us() - at) / 1e6)

    def wake_by(self, ring: Callable[[], None]) -> None:
        """It knows when its next line is due."""

    def done(self, position: int) -> None:
        """Forget the regimes that nothing can be asked of any more."""
        while len(self._spans) > 1 and self._spans[1].start < position - 3 * DAY:
            del self._spans[0]
            self._spans[0] = self._spans[0]._replace(start=0)

    def close(self) -> None:
        self._days.clear()

    def _due(self, position: int) -> int:
        """How many events from `position` on are due. Their first one is when nothing was read before it."""
        if self._rate <= 0:
            return 1 << 62
        now = self._clock.now_us()
        if self._anchor is None or position > self._next:
            self._anchor, self._next = (now, position), position
        at, first = self._anchor
        return max(0, first + int((now - at) * self._rate / 1e6) + 1 - position)

    def _turn(self, position: int, regime: Regime) -> None:
        """Note a change of regime. Events that were read behind `position` and not kept are made anew."""
        if not self._spans:
            # Of the time before this process we know nothing. Had the regime changed within the last day, the labels
            # that are due would carry other planes' keys, and match no event.
            self._spans = [_Span(0, regime)]
        elif self._spans[-1].regime[:2] != regime[:2]:
            self._spans = [span for span in self._spans if span.start < position] + [_Span(position, regime)]
            self._days = {number: day for number, day in self._days.items() if number < position // DAY}

    def _day(self, number: int) -> _Day:
        day = self._days.get(number)
        if day is None:
            rows = np.concatenate([self._rows(n) for n in range(max(0, number - 1), number + 1)])
            day = self._days[number] = _Day(number, rows, self._poisoned(number))
            for old in sorted(self._days)[:-3]:
                del self._days[old]
        return day

    def _rows(self, number: int) -> Array:
        """The rows of one virtual day, as regimes come and go during it; shape [DAY]."""
        first = number * DAY
        rows = np.empty(DAY, dtype=np.int64)
        for span, end in self._spans_of(first, first + DAY):
            part = slice(max(0, span.start - first), end - first)
            rows[part] = _draw(self._seed, span.regime.population, number)[part]
        return rows

    def _poisoned(self, number: int) -> Array:
        """Numbers of the malformed events of this day and the one before; they get no label."""
        found = []
        for span, end in self._spans_of(max(0, number - 1) * DAY, (number + 1) * DAY):
            numbers = np.arange(max(span.start, (number - 1) * DAY), end)
            found.append(numbers[_is_poison(numbers) & span.regime.poison])
        return np.concatenate(found)

    def _spans_of(self, first: int, end: int) -> Iterator[tuple[_Span, int]]:
        """The spans that touch first..end, each with where it ends."""
        ends = [span.start for span in self._spans[1:]] + [end]
        for span, stop in zip(self._spans, ends, strict=True):
            if span.start < end and stop > first:
                yield span, min(stop, end)


def bench_lines(n: int, seed: int = 0) -> list[bytes]:
    """`n` event lines of the normal stream."""
    source = FlightsSource(seed, 0, lambda: "normal", _NoClock())
    events, _, _ = source.poll(0, n, 1 << 62)
    return [line.value for line in events]


class Moment(NamedTuple):
    """One departure of the real year, and the labels that came in since the one before."""

    at_s: int
    """Seconds since 1970."""
    event: bytes | None
    """None at the end: only labels are left."""
    labels: list[bytes]


def natural_order() -> Iterator[Moment]:
    """The year as it was: every departure in order, storms included; each label when its flight had landed."""
    table = _Table(None)
    known = np.flatnonzero(table.late >= 0)
    landed = known[np.argsort(table.departed[known] + table.lag[known], kind="stable")]
    when = (table.departed + table.lag)[landed].tolist()
    done = 0
    tails, late = table.tokens["tailnum"], table.late
    for first in range(0, len(table.departed), DAY):
        rows = np.arange(first, min(first + DAY, len(table.departed)))
        departed = table.departed[rows].tolist()
        for n, at, *tokens in zip(rows.tolist(), departed, *table.fields(rows), strict=True):
            stop = bisect_left(when, at + 1, done)
            labels = [_LABEL % (row, tails[table.codes["tailnum"][row]], late[row]) for row in landed[done:stop]]
            done = stop
            yield Moment(at, _EVENT % (n, *tokens), labels)
    rest = [_LABEL % (row, tails[table.codes["tailnum"][row]], late[row]) for row in landed[done:]]
    yield Moment(when[-1], None, rest)


class _Span(NamedTuple):
    """A stretch of events under one regime."""

    start: int
    regime: Regime


class _Day:
    """One virtual day, ready to be read: the events' fields, and the labels by the event that they come with."""

    def __init__(self, number: int, rows: Array, poisoned: Array) -> None:
        """`rows` and the numbers `poisoned`: of the day before (if there is one) and of this day."""
        table = _table(int(rows.max()))
        first = (number + 1) * DAY - len(rows)
        numbers = np.arange(first, first + len(rows))
        # A change of regime may put the clock back a little: what has landed stays landed.
        departed = (numbers // DAY) * DAY_S + table.departed[rows] % DAY_S
        now = np.maximum.accumulate(departed)
        due = np.maximum(np.searchsorted(now, departed + table.lag[rows], side="left"), numbers - first + 1)
        mine = (due >= len(rows) - DAY) & (due < len(rows)) & (table.late[rows] >= 0) & ~np.isin(numbers, poisoned)
        order = np.flatnonzero(mine)
        order = order[np.lexsort((order, due[order]))]
        self._first = number * DAY
        self._poisoned: list[int] = poisoned.tolist()
        self._fields = list(zip(*table.fields(rows[-DAY:]), strict=True))
        self._due = (due[order] + first).tolist()
        tails = table.texts("tailnum", rows[order])
        self._labels = list(zip(numbers[order].tolist(), tails, table.late[rows[order]].tolist(), strict=True))

    def events(self, start: int, stop: int) -> list[Line]:
        fields = self._fields[start - self._first : stop - self._first]
        lines = [Line(_EVENT % (n, *tokens), n) for n, tokens in enumerate(fields, start)]
        for n in self._poisoned[bisect_left(self._poisoned, start) : bisect_left(self._poisoned, stop)]:
            lines[n - start] = Line(_malformed(n, lines[n - start].value), n)
        return lines

    def labels(self, start: int, stop: int) -> list[Line]:
        """The labels that come with the events start..stop."""
        first, last = bisect_left(self._due, start), bisect_left(self._due, stop)
        pairs = zip(self._labels[first:last], self._due[first:last], strict=True)
        return [Line(_LABEL % label, due) for label, due in pairs]


class _Table:
    """Rows of flights.parquet: what lines are made of, and what the draws look at."""

    def __init__(self, stop: int | None) -> None:
        """The first `stop` rows; None: all of them."""
        file = pq.ParquetFile(FLIGHTS, memory_map=True)
        groups: list[int] = []
        rows = 0
        while len(groups) < file.metadata.num_row_groups and (stop is None or rows < stop):
            rows += file.metadata.row_group(len(groups)).num_rows
            groups.append(len(groups))

        def column(name: str) -> pa.Array:
            # One at a time, so that only what is kept takes memory.
            table = file.read_row_groups(groups, columns=[name], use_threads=False).slice(0, stop)
            return table[name].combine_chunks()

        self.codes: dict[str, Array] = {}
        self.tokens: dict[str, Array] = {}
        for name in _FIELDS:
            self.codes[name], self.tokens[name] = _encoded(column(name))
        self.departed = column("dep_ts").to_numpy()
        self.air = column("air_time").cast(pa.float32()).to_numpy(zero_copy_only=False)
        """Minutes; NaN for a diverted flight."""
        self.lag = np.nan_to_num(self.air).astype(np.int32) * 60 + 25 * 60
        """Seconds from departure to label."""
        self.late = pc.fill_null(column("late").cast(pa.int8()), -1).to_numpy()
        """1 or 0; -1: diverted, never known."""
        pa.default_memory_pool().release_unused()

    def texts(self, name: str, rows: Array) -> list[bytes]:
        """A column as JSON."""
        texts: list[bytes] = self.tokens[name][self.codes[name][rows]].tolist()
        return texts

    def fields(self, rows: Array) -> list[list[bytes]]:
        return [self.texts(name, rows) for name in _FIELDS]

    def hour(self) -> Array:
        """Of the scheduled departure, with its fraction."""
        return self.values("hour") + self.values("minute") / 60

    def values(self, name: str) -> Array:
        """A column of numbers; nulls are 0."""
        values = np.array([float(token) if token != b"null" else 0.0 for token in self.tokens[name]])
        return values[self.codes[name]]


def _encoded(column: pa.Array) -> tuple[Array, Array]:
    """(code of each row, JSON text of each code)."""
    coded = column.dictionary_encode(null_encoding="encode")
    texts = np.empty(len(coded.dictionary), dtype=object)
    texts[:] = [msgspec.json.encode(value) for value in coded.dictionary.to_pylist()]
    return coded.indices.to_numpy().astype(np.uint16), texts


REFERENCE_ROWS = 50_173
"""January and February: what the models know and the normal stream draws from."""
DRIFT_ROWS = 134_041
"""Up to the end of May: drift draws from March to May, flights that no model has seen."""


@lru_cache(maxsize=2)
def _rows_up_to(stop: int) -> _Table:
    return _Table(stop)


def _table(highest: int) -> _Table:
    """A table with row `highest` in it; spring is read when it first comes."""
    return _rows_up_to(REFERENCE_ROWS if highest < REFERENCE_ROWS else DRIFT_ROWS)


class _Population(NamedTuple):
    """Rows to draw from."""

    first: int
    cumulative: Array
    """Running sum of their weights, up to 1."""
    time_of_day: Array


def _normal() -> tuple[int, Array]:
    return 0, np.ones(REFERENCE_ROWS)


def _drift() -> tuple[int, Array]:
    """Spring flights, more of them far, late in the day, with tail wind (it makes up time), 10-40 minutes late."""
    table, spring = _rows_up_to(DRIFT_ROWS), slice(REFERENCE_ROWS, DRIFT_ROWS)
    origins, dests = (table.tokens[name].tolist() for name in ("origin", "dest"))
    usual = np.array([[RATES.route_air_min.get(f"{_text(o)}-{_text(d)}", 0.0) for d in dests] for o in origins])
    usual_air = usual[table.codes["origin"][spring], table.codes["dest"][spring]]
    head_wind = np.nan_to_num(table.air[spring] - usual_air)
    distance, delay, hour = (
        values[spring] for values in (table.values("distance"), table.values("dep_delay"), table.hour())
    )
    weights = np.exp((distance - 1000) / 1000 + 0.2 * (hour - 13) - 0.5 * ((head_wind + 18) / 8) ** 2)
    return spring.start, weights * np.where((delay >= 10) & (delay <= 40), 3.0, 1.0)


def _neutral_drift() -> tuple[int, Array]:
    """The reference flights, more of them very far and after four: other flights, equally easy to judge."""
    table = _rows_up_to(REFERENCE_ROWS)
    return 0, np.where(table.values("distance") > 2000, 12.0, 1.0) * np.where(table.hour() >= 16, 3.0, 1.0)


_POPULATIONS = {"normal": _normal, "drift": _drift, "neutral-drift": _neutral_drift}
REGIMES = (*_POPULATIONS, "no-labels", "poison")


@lru_cache(maxsize=len(_POPULATIONS))
def _population(name: str) -> _Population:
    first, weights = _POPULATIONS[name]()
    stop = first + len(weights)
    return _Population(first, np.cumsum(weights) / weights.sum(), _table(stop - 1).departed[first:stop] % DAY_S)


@lru_cache(maxsize=8)
def _draw(seed: int, name: str, number: int) -> Array:
    """The rows of one virtual day, in the order of their time of day; shape [DAY]."""
    population = _population(name)
    dice = np.random.default_rng((seed, number, list(_POPULATIONS).index(name)))
    drawn = np.searchsorted(population.cumulative, dice.random(DAY), side="right")
    drawn = np.minimum(drawn, len(population.cumulative) - 1)
    rows: Array = drawn[np.argsort(population.time_of_day[drawn], kind="stable")] + population.first
    return rows


def _text(token: bytes) -> str:
    return msgspec.json.decode(token, type=str)


# --- poison ----------------------------------------------------------------------------------------------------------

_POISONS: tuple[Callable[[bytes], bytes], ...] = (
    lambda line: line[: len(line) // 2],  # broken JSON
    lambda line: line.replace(b'"hour":', b'"hour":"soon","was":'),  # a wrong type
    lambda line: line.replace(b'"dep_delay":', b'"dep_delay":NaN,"was":'),
    lambda line: line.replace(b'"dep_delay":', b'"dep_delay":1e999,"was":'),  # infinite
    lambda line: line.replace(b'"distance":', b'"was":'),  # a missing field
    lambda line: line[:-1] + b',"deep":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    lambda line: line[:-1] + b',"long":"' + b"x" * 2_000_000 + b'"}',
    lambda line: line.replace(b'"tailnum":', b'"was":'),  # no key
)


def _is_poison(numbers: Array) -> Array:
    last: Array = numbers % POISON_EVERY == POISON_EVERY - 1
    return last


def _malformed(number: int, line: bytes) -> bytes:
    return _POISONS[number // POISON_EVERY % len(_POISONS)](line)


# --- small parts -----------------------------------------------------------------------------------------------------


def _fitting(lines: Sequence[Line], max_bytes: int, at_least: int) -> int:
    """How many of the lines fit into `max_bytes`."""
    for n, line in enumerate(lines):
        max_bytes -= len(line.value)
        if max_bytes < 0:
            return max(n, at_least)
    return len(lines)


class _NoClock:
    def now_us(self) -> int:
        return 0
