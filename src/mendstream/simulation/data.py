"""The simulated world's events: pumps that report load, heat and flow, and whether each needed service, known later.

What the n-th event holds depends on nothing but (seed, n) and the regime under which it was first asked for; the tape,
which the world holds, keeps what was produced, so a process that died reads on at any position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from mendstream.agents.pipeline.windows import WindowState, update
from mendstream.contracts.agent import Line
from mendstream.contracts.errors import UsageError
from mendstream.contracts.models import Array, CardParts
from mendstream.contracts.pipeline import Columns, Event, Mean, Pipeline
from mendstream.contracts.ports import Clock
from mendstream.simulation.models import ModelShelf, SimCatalogue, SimLearner

# --- the pipeline ----------------------------------------------------------------------------------------------------


class Reading(Event, frozen=True):
    """One report of one pump."""

    id: Annotated[str, Meta(min_length=1, max_length=32)]
    pump: Annotated[str, Meta(min_length=1, max_length=8)]
    load: Annotated[float, Meta(ge=-1_000_000, le=1_000_000)]
    """Percent."""
    heat: Annotated[float, Meta(ge=-1_000, le=1_000)]
    """Degrees; every pump has its own usual heat."""
    flow: Annotated[float, Meta(ge=-1_000, le=1_000)] | None


pumps = Pipeline(
    "pumps",
    event=Reading,
    id="id",
    key="pump",
    windows={"usual": Mean("heat", last=8)},
    positive="service",
    negative="run",
)


@pumps.features
def features(events: Columns, windows: Columns) -> Columns:
    usual = np.where(np.isnan(windows["usual"]), events["heat"], windows["usual"])
    return {"load": events["load"], "flow": events["flow"], "excess": events["heat"] - usual}


@pumps.fallback
def too_hot(features: Columns) -> Array:
    """A pump that is hotter than usual needs service: right for three of four."""
    return np.where(features["excess"] > 0, 0.8, 0.2)


@pumps.decide
def decide(score: Array, features: Columns, threshold: float) -> Array:
    return np.where(score >= threshold, pumps.positive, pumps.negative)


# --- regimes ---------------------------------------------------------------------------------------------------------

REGIMES = (
    "drift",  # higher loads, where service follows another rule: the model is wrong more often, a new one is not
    "neutral-drift",  # other flows, as easy to judge
    "unit-change",  # the load comes in thousandths
    "poison",  # one event in ten is malformed
    "duplicates",  # one event in five is an earlier one once more
    "no-labels",  # what would have become known is lost
    "late-labels",  # what becomes known does so much later
)
"""What the stream may be like, several at once."""
_POPULATIONS = REGIMES[:3]
POISON_EVERY = 10
REPEATED = 0.2
"""Share of events that repeat one of the last BACK."""
BACK = 16
LATE = 8
"""How many times later late labels come."""


@lru_cache(maxsize=256)
def regime_of(text: str) -> frozenset[str]:
    """A comma list of REGIMES, or `normal`. Raises UsageError."""
    names = frozenset(word.strip() for word in text.split(",")) - {"", "normal"}
    unknown = sorted(names.difference(REGIMES))
    if unknown:
        raise UsageError(f"the simulated stream: no regime {unknown[0]!r}", hint=f"regimes: {', '.join(REGIMES)}")
    return names


# --- events ----------------------------------------------------------------------------------------------------------

PUMPS = 16
_BLOCK = 256
_EVENT = '{"id":"e%d","pump":"p%d","load":%r,"heat":%r,"flow":%s}'
_LABEL = '{"event_id":"e%d","key":"p%d","label":%d}'
_POISONS: tuple[Callable[[bytes], bytes], ...] = (
    lambda line: line[: len(line) // 2],  # broken JSON
    lambda line: line.replace(b'"load":', b'"load":"high","was":'),  # a wrong type
    lambda line: line.replace(b'"heat":', b'"heat":NaN,"was":'),
    lambda line: line.replace(b'"heat":', b'"heat":1e999,"was":'),  # infinite
    lambda line: line.replace(b'"heat":', b'"was":'),  # a missing field
    lambda line: line.replace(b'"pump":', b'"was":'),  # no key
    lambda line: line[:-1] + b',"more":1}',  # an unknown field
    lambda line: line.replace(b'"load":', b'"load":1e7,"was":'),  # out of bounds
)


class _Draws(NamedTuple):
    """What chance has to say of the events of one block; each array [_BLOCK]."""

    pump: Array
    load: Array
    heat: Array
    flow: Array
    gap: Array
    """Whether the flow is missing."""
    luck: Array
    """What no column tells of the label."""
    wait: Array
    """0 to 1: how much longer than the shortest time the label takes."""
    repeat: Array
    """How many positions back the event is that this one repeats under `duplicates`; 0: it repeats none."""


@lru_cache(maxsize=512)
def _draws(seed: int, block: int) -> _Draws:
    dice = np.random.default_rng((seed, block))
    load, heat, flow = dice.standard_normal((3, _BLOCK))
    repeat = np.where(dice.random(_BLOCK) < REPEATED, dice.integers(1, BACK + 1, _BLOCK), 0)
    return _Draws(
        dice.integers(0, PUMPS, _BLOCK), load, heat, flow, dice.random(_BLOCK) < 0.05, dice.logistic(size=_BLOCK),
        dice.random(_BLOCK), repeat,
    )  # fmt: skip


class _Columns(NamedTuple):
    """The events of one block in one population; each array [_BLOCK]."""

    pump: Array
    load: Array
    heat: Array
    flow: Array
    """NaN where missing."""
    label: Array


_TURN = 1.5


def _columns(seed: int, block: int, population: frozenset[str]) -> _Columns:
    d = _draws(seed, block)
    load = 2.4 + 0.8 * d.load if "drift" in population else d.load
    flow = 1.0 + 2.0 * d.flow if "neutral-drift" in population else d.flow
    # The hidden rule, the same in every population: what a high load means turns round at `_TURN`.
    pull = np.where(load < _TURN, load, 2 * _TURN - load)
    positive = 4.0 * (0.7 * pull + 1.5 * d.heat - 0.5 * flow) + d.luck > 0
    usual = 40 + 20 * (d.pump * 7 % PUMPS) / PUMPS
    shown = (50 + 10 * load) * (1000 if "unit-change" in population else 1)
    return _Columns(
        d.pump, shown.round(3), (usual + 3 * d.heat).round(3), np.where(d.gap, np.nan, (20 + 4 * flow).round(3)),
        positive.astype(np.int64),
    )  # fmt: skip


class Made(NamedTuple):
    """What stands at one position of the stream, for whoever checks what became of it."""

    line: bytes
    event_id: str
    """Empty: malformed, to dead letters with it."""
    key: str
    label: int
    known_at: int
    """The position with which the label comes."""
    known: bytes
    """The label's line; empty: nothing will ever be known."""


@lru_cache(maxsize=512)
def _plain(seed: int, block: int, population: frozenset[str], shortest: int) -> tuple[Made, ...]:
    """The events of one block as they are while nothing goes wrong at the stream's edge."""
    c, first = _columns(seed, block, population), block * _BLOCK
    known_at = np.arange(first, first + _BLOCK) + shortest + (_draws(seed, block).wait * shortest).astype(np.int64)
    flows = ["null" if gap else repr(value) for gap, value in zip(np.isnan(c.flow), c.flow.tolist(), strict=True)]
    rows = zip(c.pump.tolist(), c.load.tolist(), c.heat.tolist(), flows, c.label.tolist(), known_at.tolist(),
               strict=True)  # fmt: skip
    return tuple(
        Made((_EVENT % (n, pump, load, heat, flow)).encode(), f"e{n}", f"p{pump}", label, at,
             (_LABEL % (n, pump, label)).encode())
        for n, (pump, load, heat, flow, label, at) in enumerate(rows, first)
    )  # fmt: skip


class Tape:
    """The world outside: what was produced, in order, and what is known of it by when. It outlives every process."""

    def __init__(
        self, seed: int, start_us: int, *, rate: float = 200.0, label_s: float = 1.0, last: int | None = None
    ) -> None:
        """`rate`: events per second, the first at `start_us`. `label_s`: a label comes so long after its event at the
        earliest, and twice as long at the latest. `last`: how many events there are, if the stream ends.
        """
        self.seed = seed
        self.start_us = start_us
        self.interval_us = max(1, round(1e6 / rate))
        self.last = last
        self.made: list[Made] = []
        """By position."""
        self.regimes: list[tuple[int, frozenset[str]]] = []
        """(from which position on, regime)"""
        self.done = 0
        """Everything before it is durable, a reader said."""
        self._shortest = max(1, round(label_s * rate))
        self._known: dict[int, list[Line]] = {}

    def due(self, now_us: int) -> int:
        """How many events have happened."""
        count = (now_us - self.start_us) // self.interval_us + 1 if now_us >= self.start_us else 0
        return count if self.last is None else min(count, self.last)

    def due_at_us(self, position: int) -> int | None:
        """When the event at `position` happens; None: never."""
        return self.start_us + position * self.interval_us if self.last is None or position < self.last else None

    def produce(self, stop: int, regime: frozenset[str]) -> None:
        """Make sure that there is something at every position before `stop`; what is new is made under `regime`."""
        if stop > len(self.made) and (not self.regimes or self.regimes[-1][1] != regime):
            self.regimes.append((len(self.made), regime))
        population = regime.intersection(_POPULATIONS)
        while (start := len(self.made)) < stop:
            block, row = divmod(start, _BLOCK)
            plain = _plain(self.seed, block, population, self._shortest)
            self._append(plain[row : row + stop - start], regime - population)

    def _append(self, events: Sequence[Made], wrong: frozenset[str]) -> None:
        """Put events of one block on the tape, with what is `wrong` at the stream's edge."""
        for n, event in enumerate(events, len(self.made)):
            made = self._at_the_edge(event, n, wrong) if wrong else event
            self.made.append(made)
            if made.known:
                self._known.setdefault(made.known_at, []).append(Line(made.known, made.known_at))
            if "no-labels" in wrong:
                self._known.pop(n, None)

    def known(self, start: int, stop: int) -> list[Line]:
        """The labels that come with the events start..stop."""
        return [line for n in range(start, stop) for line in self._known.get(n, ())]

    def _at_the_edge(self, made: Made, n: int, wrong: frozenset[str]) -> Made:
        """What goes wrong with one event on its way to us."""
        if "duplicates" in wrong:
            back = int(_draws(self.seed, n // _BLOCK).repeat[n % _BLOCK])
            if 0 < back <= n:
                return self.made[n - back]._replace(known=b"")
        if "poison" in wrong and n % POISON_EVERY == POISON_EVERY - 1:
            return made._replace(
                line=_POISONS[n // POISON_EVERY % len(_POISONS)](made.line), event_id="", key="", known=b""
            )
        if "late-labels" in wrong:
            return made._replace(known_at=n + LATE * (made.known_at - n))
        return made


class SimSource:
    """`contracts.ports.Source`: one process's reader of the tape."""

    replayable = True

    def __init__(self, tape: Tape, regime: Callable[[], str], clock: Clock) -> None:
        """`regime`: REGIMES with commas, asked at every poll; it holds for what nobody has read before."""
        self._tape = tape
        self._regime = regime
        self._clock = clock
        self._next: int | None = None

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        """At most `max_lines` events and about `max_bytes`, but at least one, and the labels that came with them."""
        tape = self._tape
        stop = max(position, min(position + max_lines, tape.due(self._clock.now_us())))
        tape.produce(stop, regime_of(self._regime()))
        events: list[Line] = []
        for n in range(position, stop):
            value = tape.made[n].line
            max_bytes -= len(value)
            if max_bytes < 0 and events:
                break
            events.append(Line(value, n))
        self._next = position + len(events)
        return events, tape.known(position, self._next), self._next

    def due_in_s(self) -> float | None:
        if self._next is None:
            return 0.0
        at_us = self._tape.due_at_us(self._next)
        return None if at_us is None else max(0, at_us - self._clock.now_us()) / 1e6

    def wake_by(self, ring: Callable[[], None]) -> None:
        """It knows when its next line is due."""

    def done(self, position: int) -> None:
        self._tape.done = max(self._tape.done, position)

    def close(self) -> None:
        """The tape belongs to the world."""


# --- the first models ------------------------------------------------------------------------------------------------

_FIRST_SEED = 1
_FIRST_BLOCKS = 16


FEATURES = ("load", "flow", "excess")


class _First(NamedTuple):
    onnx: bytes
    parts: CardParts
    data_window: str


@lru_cache(maxsize=1)
def _first() -> dict[str, _First]:
    """Version -> model: `v1`, and the worse `v2`, which learnt from flows of the wrong sign."""
    matrix, labels = rows(_FIRST_SEED, _FIRST_BLOCKS * _BLOCK)
    good = SimLearner().fit(matrix, labels, FEATURES, 0)
    turned = matrix.copy()
    flow = FEATURES.index("flow")
    turned[:, flow] = 2 * np.nanmean(matrix[:, flow]) - matrix[:, flow]
    bad = SimLearner().fit(turned, labels, FEATURES, 0)
    window = f"{len(matrix)} readings of a calm stream"
    # Its own held-out rows are wrong too and would excuse it: it is held to the level of the one that it replaces.
    held = msgspec.structs.replace(
        bad.parts, error_level=good.parts.error_level, error_phi=good.parts.error_phi, reference=good.parts.reference
    )
    return {
        "v1": _First(good.onnx, good.parts, window),
        "v2": _First(bad.onnx, held, f"{window}, their flows of the wrong sign"),
    }


def stock(shelf: ModelShelf) -> None:
    """Put the bundled versions on an empty shelf."""
    catalogue = SimCatalogue(shelf)
    for version, first in _first().items():
        card = first.parts.card(version=version, created_at_us=0, data_window=first.data_window, source="bundled")
        catalogue.add(first.onnx, card)


def rows(seed: int, count: int, regime: str = "normal") -> tuple[Array, Array]:
    """(features, float32 [count, features]; labels, float64 [count]) of the first events under one regime."""
    population = regime_of(regime).intersection(_POPULATIONS)
    blocks = [_columns(seed, block, population) for block in range(-(-count // _BLOCK))]
    c = _Columns(*(np.concatenate(parts)[:count] for parts in zip(*blocks, strict=True)))
    means, _ = update(WindowState(), pumps.windows, [f"p{pump}" for pump in c.pump.tolist()], {"heat": c.heat}, PUMPS)
    events: dict[str, Any] = {"load": c.load, "heat": c.heat, "flow": c.flow}
    made = pumps.compute_features(events, means)
    return np.column_stack([made[name] for name in FEATURES]), c.label.astype(np.float64)
