"""Counts in, merged by revision; totals per (task, model, config, arm) and rings of panes out.

A record carries the totals of one (task, pane, model, config, arm). The one with the highest revision counts, and what
it adds to the one before is added everywhere; so repeats, in any order and after any restart, change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.contracts.models import Cards, FeatureReference, ModelCard
from mendstream.contracts.records import LATENCY_EDGES_MS, PANE_US, Counts

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]
else:
    Array = np.ndarray  # contracts.state reads a field back by isinstance(), which refuses a parameterised type
BUCKETS = len(LATENCY_EDGES_MS) + 1
MIDDLE_MS = np.array(
    [
        (low + high) / 2
        for low, high in zip((0.0, *LATENCY_EDGES_MS), (*LATENCY_EDGES_MS, LATENCY_EDGES_MS[-1]), strict=True)
    ]
)
"""What an event of a latency bucket is taken to have taken."""
RING = 80
"""Panes at hand: the widest window and those that are still open."""
OPEN_PANES = 8
"""Panes whose histograms may still be revised; later revisions count in the totals only."""
KEEP_PANES = 120
"""Revisions are remembered for this long; what comes later is too late."""
PRUNE_EVERY = 40
IDLE_US = 600_000_000
"""A (model, config) that has not grown for this long leaves the table."""
RECENT_LABELS = 500
"""Accuracy is shown over about this many labels."""


class Source(msgspec.Struct):
    """One (task, model, config, arm): its totals, and what the newest revision of each pane said."""

    task: str
    model: str
    config: int
    arm: str
    n: int = 0
    bad: int = 0
    """Slow events or calls; for a joiner: errors (and `n` are labels)."""
    ms: float = 0.0
    grown_us: int = 0
    seen: dict[int, tuple[int, int, int, float]] = {}
    """Pane -> (revision, n, bad, ms)."""
    open: dict[int, Array] = {}
    """Pane -> its histograms, int32 [buckets (+ bins)]."""


class Layout(msgspec.Struct):
    """Which bins lie where in the features ring: those of the live model's reference."""

    model: str = ""
    names: list[str] = []
    sizes: list[int] = []
    carded: bool = False
    """Whether the model's card was at hand: without it there is no reference yet."""
    first: int = 0
    """The first pane in which this model served; 0: none yet."""

    @property
    def bins(self) -> int:
        return sum(self.sizes)


class Serving(msgspec.Struct):
    """The newest versions that decided."""

    pane: int = 0
    model: str = ""
    config: int = 0
    arm: str = "live"


def _buckets() -> Array:
    return np.zeros((RING, BUCKETS), dtype=np.int32)


class Ledger(msgspec.Struct):
    sources: dict[str, Source] = {}
    closed: int = 0
    """The newest closed pane; 0: none yet."""
    head: int = 0
    """The newest pane in the rings."""
    latency: Array = msgspec.field(default_factory=_buckets)
    model_ms: Array = msgspec.field(default_factory=_buckets)
    features: Array = msgspec.field(default_factory=lambda: np.zeros((RING, 0), dtype=np.int32))
    late_latency: Array = msgspec.field(default_factory=lambda: np.zeros(BUCKETS, dtype=np.int32))
    late_model_ms: Array = msgspec.field(default_factory=lambda: np.zeros(BUCKETS, dtype=np.int32))
    """What came for panes that were closed already: shown with the next one."""
    layout: Layout = msgspec.field(default_factory=Layout)
    live_pane: int = 0
    """The newest pane in which the model of `layout` served."""
    serving: Serving = msgspec.field(default_factory=Serving)
    fresh: dict[str, list[int]] = {}
    """`model|arm` -> [labels, errors] since the last pane."""
    recent: dict[str, list[list[int]]] = {}
    """`model|arm` -> [[pane, labels, errors], ...] of the newest labels."""

    # --- in ----------------------------------------------------------------------------------------------------------

    def merge(self, counts: Counts, now: int, settings: JudgeSettings, wanted: str, cards: Cards) -> None:
        """`wanted` is the live model by config; `cards` has its reference."""
        agent = counts.task.partition("/")[0]
        if agent not in ("decision", "model", "joiner") or counts.pane <= self.closed - keep_panes(agent, settings):
            return
        key = f"{counts.task}|{counts.model}|{counts.config}|{counts.arm}"
        source = self.sources.get(key)
        if source is None:
            source = self.sources[key] = Source(counts.task, counts.model, counts.config, counts.arm)
        before = source.seen.get(counts.pane, (-1, 0, 0, 0.0))
        if counts.revision <= before[0]:
            return
        n, bad, ms = _totals(agent, counts, settings.slo_ms)
        source.seen[counts.pane] = (counts.revision, n, bad, ms)
        added, errors = n - before[1], bad - before[2]
        source.n += added
        source.bad += errors
        source.ms += ms - before[3]
        source.grown_us = now
        if agent == "joiner":
            fresh = self.fresh.setdefault(f"{counts.model}|{counts.arm}", [0, 0])
            fresh[0] += added
            fresh[1] += errors
        elif counts.arm in ("live", "fallback"):
            self._follow(agent, counts, wanted, cards)
            self._into_rings(agent, counts, source, known=before[0] >= 0, now=now)

    def _follow(self, agent: str, counts: Counts, wanted: str, cards: Cards) -> None:
        """Keep track of which versions serve. The layout follows once the wanted model really does."""
        if agent == "decision":
            if (counts.config, counts.pane) >= (self.serving.config, self.serving.pane):
                self.serving = Serving(pane=counts.pane, model=counts.model, config=counts.config, arm=counts.arm)
            return
        known = counts.model == self.layout.model
        if known:
            self.live_pane = max(self.live_pane, counts.pane)
        if known and self.layout.carded:
            return
        if known or counts.model == wanted or counts.pane > self.live_pane + OPEN_PANES:
            card = cards.card(counts.model)
            if card is not None or not known:
                self._lay_out(counts.model, card, counts.pane)

    def _lay_out(self, model: str, card: ModelCard | None, pane: int) -> None:
        """Begin anew with the reference of `model`; without one until its card has come."""
        references = reference_rows(card) if card is not None else {}
        sizes = [len(reference.counts) for reference in references.values()]
        self.layout = Layout(model, list(references), sizes, carded=card is not None)
        self.features = np.zeros((RING, self.layout.bins), dtype=np.int32)
        self.live_pane = pane
        for source in self.sources.values():
            if source.task.startswith("model/"):
                source.open = {}

    def _into_rings(self, agent: str, counts: Counts, source: Source, *, known: bool, now: int) -> None:
        pane = counts.pane
        if not self.head:
            self.head = pane
        if pane <= self.head - RING or pane > now // PANE_US + OPEN_PANES:
            return
        self._advance(pane)
        held = source.open.get(pane)
        if known and held is None:
            return
        hists = self._histograms(agent, counts)
        source.open[pane] = hists
        added = hists if held is None else hists - held
        ring, late = (
            (self.latency, self.late_latency) if agent == "decision" else (self.model_ms, self.late_model_ms)
        )  # fmt: skip
        ring[pane % RING] += added[:BUCKETS]
        if pane <= self.closed:
            late += added[:BUCKETS]
        if len(added) > BUCKETS:
            self.features[pane % RING] += added[BUCKETS:]
            if not self.layout.first or pane < self.layout.first:
                self.layout.first = pane

    def _histograms(self, agent: str, counts: Counts) -> Array:
        if agent == "decision":
            return np.array(_hist(counts, "latency", BUCKETS), dtype=np.int32)
        values = list(_hist(counts, "model_ms", BUCKETS))
        if counts.model == self.layout.model:
            for name, size in zip(self.layout.names, self.layout.sizes, strict=True):
                values += _hist(counts, name, size)
        return np.array(values, dtype=np.int32)

    def _advance(self, pane: int) -> None:
        """Make `pane` part of the rings."""
        if pane <= self.head:
            return
        fresh = [p % RING for p in range(max(self.head + 1, pane - RING + 1), pane + 1)]
        for ring in (self.latency, self.model_ms, self.features):
            ring[fresh] = 0
        self.head = pane
        for source in self.sources.values():
            for old in [held for held in source.open if held <= pane - OPEN_PANES]:
                del source.open[old]

    # --- out ---------------------------------------------------------------------------------------------------------

    def close(self, pane: int, settings: JudgeSettings, now: int) -> tuple[Array, Array, dict[str, list[int]]]:
        """End `pane`: (latency, model_ms, labels by `model|arm`) that were not shown before."""
        if not self.head:
            self.head = pane
        self._advance(pane)
        inside = pane > self.head - RING
        latency = self.late_latency + (self.latency[pane % RING] if inside else 0)
        model_ms = self.late_model_ms + (self.model_ms[pane % RING] if inside else 0)
        self.late_latency = np.zeros(BUCKETS, dtype=np.int32)
        self.late_model_ms = np.zeros(BUCKETS, dtype=np.int32)
        fresh, self.fresh = self.fresh, {}
        for key, (n, bad) in fresh.items():
            self.recent.setdefault(key, []).append([pane, n, bad])
        self.closed = pane
        if pane % PRUNE_EVERY == 0:
            self._prune(settings, now)
        return latency, model_ms, fresh

    def skip_to(self, pane: int) -> None:
        """Leave out the panes before `pane`: too old to judge."""
        self.closed = max(self.closed, pane - 1)

    def windows(self, pane: int, widths: tuple[int, ...]) -> tuple[tuple[int, ...], Array]:
        """The widths that lie wholly in the live model's time, and their counts [widths, bins]."""
        first = max(self.layout.first, self.head - RING + 1)
        usable = tuple(w for w in widths if self.layout.first and pane - w + 1 >= first)
        if not usable:
            return (), np.zeros((0, self.layout.bins), dtype=np.int64)
        newest_first = self.features[np.arange(pane, pane - usable[-1], -1) % RING]
        return usable, np.stack([newest_first[:w].sum(axis=0, dtype=np.int64) for w in usable])

    def rate(self, pane: int) -> float:
        """Decisions per second, over the last second of panes."""
        panes = [p % RING for p in range(max(pane - 3, self.head - RING + 1), pane + 1)]
        return float(self.latency[panes].sum()) * 1e6 / (4 * PANE_US)

    def accuracy(self, model: str, arm: str) -> tuple[float | None, int]:
        """(accuracy, labels) over the newest labels."""
        n = bad = 0
        for _, labels, errors in reversed(self.recent.get(f"{model}|{arm}", [])):
            if n >= RECENT_LABELS:
                break
            n, bad = n + labels, bad + errors
        return (1 - bad / n if n else None), n

    def _prune(self, settings: JudgeSettings, now: int) -> None:
        for source in self.sources.values():
            oldest = self.closed - keep_panes(source.task.partition("/")[0], settings)
            source.seen = {pane: last for pane, last in source.seen.items() if pane > oldest}
        grown: dict[tuple[str, int], int] = {}
        for source in self.sources.values():
            pair = (source.model, source.config)
            grown[pair] = max(grown.get(pair, 0), source.grown_us)
        newest = max((source.config for source in self.sources.values()), default=0)
        self.sources = {
            key: source
            for key, source in self.sources.items()
            if source.config == newest or grown[source.model, source.config] > now - IDLE_US
        }
        horizon = self.closed - keep_panes("joiner", settings)
        self.recent = {
            key: [row for row in rows if row[0] > horizon][-RING:]
            for key, rows in self.recent.items()
            if rows[-1][0] > horizon
        }


def keep_panes(agent: str, settings: JudgeSettings) -> int:
    """How many closed panes of an agent may still be revised; the joiner's for as long as labels may come."""
    return settings.label_ttl_us // PANE_US + KEEP_PANES if agent == "joiner" else KEEP_PANES


def reference_rows(card: ModelCard) -> dict[str, FeatureReference]:
    """Name of the histogram -> its reference, in the order of the card; the score last."""
    rows = {f"feature:{name}": reference for name, reference in card.reference.items()}
    return rows if card.score_reference is None else {**rows, "score": card.score_reference}


def slow_from(slo_ms: float) -> int:
    """The first latency bucket above the SLO."""
    return LATENCY_EDGES_MS.index(slo_ms) + 1


def _totals(agent: str, counts: Counts, slo_ms: float) -> tuple[int, int, float]:
    if agent == "joiner":
        n, bad = counts.losses.get("error", (0, 0))
        return n, bad, 0.0
    hist = _hist(counts, "latency" if agent == "decision" else "model_ms", BUCKETS)
    return counts.n, sum(hist[slow_from(slo_ms) :]), float(MIDDLE_MS @ hist)


def _hist(counts: Counts, name: str, size: int) -> tuple[int, ...]:
    """A histogram with the bins of its reference, or zeros: what was binned otherwise cannot be compared."""
    hist = counts.hists.get(name, ())
    return hist if len(hist) == size else (0,) * size
