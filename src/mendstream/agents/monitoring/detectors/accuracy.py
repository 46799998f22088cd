"""Labels of the live model in, as they arrive; PERF_DROP out when its error level is above what its card promises."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import msgspec

from mendstream.agents.monitoring import betting
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.agents.monitoring.view import Finding, PaneView
from mendstream.contracts.records import PANE_US, AlertKind, Scalar


class Believed(msgspec.Struct):
    """What is known of one model version's errors."""

    model: str = ""
    bets: betting.Bets = msgspec.field(default_factory=betting.start)
    dropped: bool = False
    log_evidence: float = 0.0
    newest: list[list[int]] = []
    """[labels, errors] of the newest panes since the drop: it is over when they are good again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Betting e-detector on the error share of the live arm; tolerated: the card's upper bound and `margin`.

    At most one false alarm in `false_alarm_s` on average, whatever the dependence between labels that the card's phi
    covers, as long as the error level stays within what is tolerated. A model that is not live is not accused.
    """

    margin: float = 0.02
    floor: float = 0.75
    """Accuracy that is expected of a model without a card."""
    false_alarm_s: float = 6 * 3600.0
    back_labels: int = 800
    """So many labels within the card's own level, without the margin, end the drop: fewer would by chance."""

    name = "accuracy"
    kind = AlertKind.PERF_DROP
    eager = False
    state_type = Believed

    def tuned(self, settings: JudgeSettings) -> Accuracy:
        return replace(self, floor=settings.accuracy_floor, false_alarm_s=settings.false_alarm_s)

    def start(self) -> Believed:
        return Believed()

    def step(self, state: Believed, view: PaneView, now: int) -> tuple[Believed, tuple[Finding, ...]]:
        findings: tuple[Finding, ...] = ()
        tolerated = view.card.error_level + self.margin if view.card else 1.0 - self.floor
        if state.model != view.model:
            if state.dropped:
                findings = (self._finding(state, view, tolerated, False, {"reason": "not live any more"}),)
            state = Believed(model=view.model)
        n, bad = view.labels
        if n and state.dropped:
            self._look_back(state, n, bad)
        elif n:
            phi = max(1.0, view.card.error_phi) if view.card else 1.0
            state.log_evidence = betting.bet(state.bets, n, bad, tolerated=tolerated, phi=phi, pane=view.pane)
            state.dropped = state.log_evidence >= self.log_limit
        if state.dropped:
            return state, (*findings, self._judge(state, view, tolerated))
        return state, findings

    @property
    def log_limit(self) -> float:
        return math.log(self.false_alarm_s * 1e6 / PANE_US)

    def _look_back(self, state: Believed, n: int, bad: int) -> None:
        state.newest.append([n, bad])
        while sum(row[0] for row in state.newest[1:]) >= self.back_labels:
            state.newest.pop(0)

    def _judge(self, state: Believed, view: PaneView, tolerated: float) -> Finding:
        n, bad = (sum(column) for column in zip(*state.newest, strict=True)) if state.newest else (0, 0)
        if n < self.back_labels or bad / n > tolerated - (self.margin if view.card else 0.0):
            return self._finding(state, view, tolerated, True, {})
        back = replace(view, labels=(n, bad))
        state.dropped, state.bets, state.newest = False, betting.start(), []
        return self._finding(state, back, tolerated, False, {"labels_back": n, "errors_back": bad})

    def _finding(
        self, state: Believed, view: PaneView, tolerated: float, firing: bool, evidence: dict[str, Scalar]
    ) -> Finding:  # fmt: skip
        bets = state.bets
        n, bad = (bets.n, bets.bad) if firing else view.labels
        return Finding(
            kind=self.kind, subject=state.model, firing=firing, statistic="error_share",
            value=round(bad / n, 4) if n else 0.0, limit=round(tolerated, 4), n=n,
            window_us=((bets.since_pane if firing else view.pane) * PANE_US, view.end_us),
            evidence={"log_evidence": round(state.log_evidence, 2), "log_limit": round(self.log_limit, 2), **evidence},
        )  # fmt: skip
