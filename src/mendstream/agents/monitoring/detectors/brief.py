"""The original request's plain threshold rules (`rules = "brief"`): the evaluation compares ours with them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np

from mendstream.agents.monitoring.detectors.drift import moved
from mendstream.agents.monitoring.ledger import slow_from
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.agents.monitoring.view import Finding, PaneView
from mendstream.contracts.agent import STAGES
from mendstream.contracts.records import PANE_US, AlertKind


class Run(msgspec.Struct):
    n: int = 0
    since_pane: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowInARow:
    """More than `slo_ms` for `events` consecutive events. Counts have no order inside a pane, so what is added up are
    panes in a row whose events are all slow."""

    slo_ms: float = 300.0
    events: int = 100

    name = "slow-in-a-row"
    kind = AlertKind.LATENCY_SLO_BREACH
    eager = False
    state_type = Run

    def tuned(self, settings: JudgeSettings) -> SlowInARow:
        return replace(self, slo_ms=settings.slo_ms)

    def start(self) -> Run:
        return Run()

    def step(self, run: Run, view: PaneView, now: int) -> tuple[Run, tuple[Finding, ...]]:
        n, slow = int(view.latency.sum()), int(view.latency[slow_from(self.slo_ms) :].sum())
        if n:
            run = Run(run.n + n, run.since_pane if run.n else view.pane) if slow == n else Run(0, view.pane)
        if 0 < run.n < self.events or not (n or run.n):
            return run, ()
        return run, (
            Finding(
                kind=self.kind, subject="model", firing=run.n > 0, statistic="slow_in_a_row", value=float(run.n),
                limit=float(self.events), n=run.n, window_us=(run.since_pane * PANE_US, view.end_us),
                evidence={"slo_ms": self.slo_ms},
            ),
        )  # fmt: skip


class Window(msgspec.Struct):
    model: str = ""
    low: bool = False
    rows: list[list[int]] = []
    """[pane, labels, errors], newest last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyBelow:
    """Accuracy below `floor` over the last `labels` feedback events of the live model, to the pane."""

    floor: float = 0.75
    labels: int = 200

    name = "accuracy-below"
    kind = AlertKind.PERF_DROP
    eager = False
    state_type = Window

    def tuned(self, settings: JudgeSettings) -> AccuracyBelow:
        return replace(self, floor=settings.accuracy_floor)

    def start(self) -> Window:
        return Window()

    def step(self, window: Window, view: PaneView, now: int) -> tuple[Window, tuple[Finding, ...]]:
        findings: list[Finding] = []
        if window.model != view.model:
            if window.low:
                findings.append(self._finding(window, view, False, 1.0, 0))
            window = Window(model=view.model)
        if view.labels[0]:
            window.rows.append([view.pane, *view.labels])
        while len(window.rows) > 1 and sum(row[1] for row in window.rows[1:]) >= self.labels:
            window.rows.pop(0)
        n, bad = sum(row[1] for row in window.rows), sum(row[2] for row in window.rows)
        if n >= self.labels:
            window.low = 1 - bad / n < self.floor
            findings.append(self._finding(window, view, window.low, 1 - bad / n, n))
        return window, tuple(findings)

    def _finding(self, window: Window, view: PaneView, firing: bool, accuracy: float, n: int) -> Finding:
        first = window.rows[0][0] if window.rows else view.pane
        return Finding(
            kind=self.kind, subject=window.model, firing=firing, statistic="accuracy", value=round(accuracy, 4),
            limit=self.floor, n=n, window_us=(first * PANE_US, view.end_us),
        )  # fmt: skip


class Nothing(msgspec.Struct):
    """No state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoHeartbeat:
    """No pulse of a pipeline process that owns a task for `silence_us`."""

    silence_us: int = 30_000_000
    watched: tuple[str, ...] = (*STAGES, "fused")

    name = "no-heartbeat"
    kind = AlertKind.AGENT_DOWN
    eager = False
    state_type = Nothing

    def tuned(self, settings: JudgeSettings) -> NoHeartbeat:
        return replace(self, watched=settings.watched)

    def start(self) -> Nothing:
        return Nothing()

    def step(self, state: Nothing, view: PaneView, now: int) -> tuple[Nothing, tuple[Finding, ...]]:
        findings = []
        for name, process in view.watch.processes.items():
            if process.agent not in self.watched or (process.exit_expected and process.exit_code is not None):
                continue
            silence = view.watch.silence_us(process)
            firing = silence >= self.silence_us and bool(view.watch.owned(name))
            findings.append(
                Finding(
                    kind=self.kind, subject=name, firing=firing, statistic="silence_ms", value=silence / 1000,
                    limit=self.silence_us / 1000, n=1, window_us=(process.pulse_at_us, now),
                    evidence={"reason": "silent", "generation": process.generation, "pid": process.pid},
                )
            )  # fmt: skip
        return state, tuple(findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftAbove:
    """PSI or KS of any feature above `limit`, on the widest window with enough events."""

    limit: float = 0.2
    min_n: int = 256

    name = "drift-above"
    kind = AlertKind.DATA_DRIFT
    eager = False
    state_type = Nothing

    def tuned(self, settings: JudgeSettings) -> DriftAbove:
        return replace(self, min_n=settings.drift_min_n)

    def start(self) -> Nothing:
        return Nothing()

    def step(self, state: Nothing, view: PaneView, now: int) -> tuple[Nothing, tuple[Finding, ...]]:
        look = view.drift
        if look is None or not len(look.widths):
            return state, ()
        d = look.distances
        score = np.where(d.n >= self.min_n, np.maximum(d.psi, d.ks), 0.0)[-1]
        if not score.any():
            return state, ()
        place = int(score.argmax())
        by_psi = bool(d.psi[-1, place] >= d.ks[-1, place])
        return state, (
            Finding(
                kind=self.kind, subject="data", firing=bool(score[place] > self.limit),
                statistic="psi" if by_psi else "ks", value=round(float(score[place]), 4), limit=self.limit,
                n=int(d.n[-1, place]),
                window_us=((view.pane + 1 - look.widths[-1]) * PANE_US, view.end_us),
                evidence=moved(look, np.where(d.n >= self.min_n, d.psi, 0.0), len(look.widths) - 1),
            ),
        )  # fmt: skip
