"""End-to-end latency per pane in; LATENCY_SLO_BREACH out when slow panes go on, not when one or two are slow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from mendstream.agents.monitoring.ledger import slow_from
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.agents.monitoring.view import Finding, PaneView
from mendstream.contracts.records import LATENCY_EDGES_MS, PANE_US, AlertKind, Scalar


class SlowRun(msgspec.Struct):
    score: float = 0.0
    gap: int = 0
    """Panes in which rows waited and none came out, since the last one with events."""
    n: int = 0
    slow: int = 0
    since_pane: int = 0
    good: int = 0
    """Good panes in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A sum over panes: up by as much as a pane is slow, down by one for a pane that is not; fires at `limit`.

    So one stall, which makes the events of one pane late (two when it falls on a boundary), fires nothing, and three
    slow panes do. Where the model itself took longer than half the SLO for most of its rows, a pane weighs `blame`
    times as much: two such panes are enough, since a stall of the machine hits one of many calls. Panes in which rows
    wait and nothing comes out count a little (`gap`) if slow ones stand on both sides. What a process that has just
    started finds waiting is late through no fault of its own: the sum starts anew.

    It is Page's sum (1954) over panes and not over events: at these sample sizes every test on events is sure that a
    single slow pane is no accident, and still it is one.
    """

    slo_ms: float = 300.0
    share: float = 0.20
    """More slow events than this make a pane slow."""
    share_good: float = 0.05
    limit: float = 2.2
    blame: float = 1.5
    least_blamed: float = 0.75
    """What such a pane weighs at least, however few its events."""
    gap: float = 0.3
    full_n: int = 20
    """Panes with fewer events weigh less."""
    good_panes: int = 8
    """So many in a row end the breach."""
    watched: tuple[str, ...] = ()

    name = "latency"
    kind = AlertKind.LATENCY_SLO_BREACH
    eager = False
    state_type = SlowRun

    def tuned(self, settings: JudgeSettings) -> Latency:
        return replace(self, slo_ms=settings.slo_ms, watched=settings.watched)

    def start(self) -> SlowRun:
        return SlowRun()

    def step(self, run: SlowRun, view: PaneView, now: int) -> tuple[SlowRun, tuple[Finding, ...]]:
        n, slow = int(view.latency.sum()), int(view.latency[slow_from(self.slo_ms) :].sum())
        if view.watch.young(self.watched):
            return SlowRun(), ()
        if not n:
            run.gap += view.backlog > 0
            return run, self._findings(run, view)
        weight = min(1.0, n / self.full_n)
        share = slow / n
        if share > self.share:
            self._add_slow(run, view, n, slow, weight)
        else:
            run.score = max(0.0, run.score - weight)
        if run.score == 0.0:
            run.n = run.slow = 0
        run.good = run.good + 1 if share < self.share_good else 0
        run.gap = 0
        return run, self._findings(run, view)

    def _add_slow(self, run: SlowRun, view: PaneView, n: int, slow: int, weight: float) -> None:
        if run.score == 0.0:
            run.since_pane = view.pane
        else:
            run.score += self.gap * min(run.gap, 3)
        blame = 1.0
        if self._model_slow(view):
            # A slow call lets few rows through before the slices have learnt that cutting does not help.
            blame, weight = self.blame, max(weight, self.least_blamed)
        gain = weight * (slow / n - self.share) / (1 - self.share)
        run.score = min(self.limit + 1.0, run.score + gain * blame)
        run.n += n
        run.slow += slow

    def _model_slow(self, view: PaneView) -> bool:
        """Whether the model took longer than half the SLO for most of its rows."""
        rows = int(view.model_ms.sum())
        half = next(place for place, edge in enumerate(LATENCY_EDGES_MS) if edge >= self.slo_ms / 2)
        return rows > 0 and 2 * int(view.model_ms[half + 1 :].sum()) >= rows

    def _findings(self, run: SlowRun, view: PaneView) -> tuple[Finding, ...]:
        firing = run.score >= self.limit
        if not firing and run.good < self.good_panes:
            return ()
        evidence: dict[str, Scalar] = {"slo_ms": self.slo_ms, "score": round(run.score, 2)}
        if firing:
            evidence["cause"] = "model" if self._model_slow(view) else "pipeline"
        return (
            Finding(
                kind=self.kind, subject="model", firing=firing, statistic="slow_share",
                value=round(run.slow / run.n, 4) if run.n else 0.0, limit=self.share, n=run.n,
                window_us=((run.since_pane if firing else view.pane - self.good_panes + 1) * PANE_US, view.end_us),
                evidence=evidence,
            ),
        )  # fmt: skip
