"""Windows of the live model's features in; DATA_DRIFT out when one is too far from its reference for chance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np

from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.agents.monitoring.view import Array, DriftLook, Finding, PaneView
from mendstream.contracts.records import PANE_US, AlertKind, Scalar


class Beyond(msgspec.Struct):
    model: str = ""
    panes: int = 0
    """In a row beyond the limit."""
    calm: int = 0
    """In a row well within it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """PSI on dyadic windows, bias-corrected, against the noncentral chi-square limit; fires on `panes` panes in a row.

    The distances are computed once per pane for all (`distances.py`): this row decides. Only features count, not the
    score: what moves the score alone is the model, and labels judge that.
    """

    min_n: int = 256
    panes: int = 2
    calm_ratio: float = 0.8
    """Every window must be below this share of its limit ..."""
    calm_panes: int = 4
    """... so many panes in a row, to end the drift."""

    name = "drift"
    kind = AlertKind.DATA_DRIFT
    eager = False
    state_type = Beyond

    def tuned(self, settings: JudgeSettings) -> Drift:
        return replace(self, min_n=settings.drift_min_n)

    def start(self) -> Beyond:
        return Beyond()

    def step(self, state: Beyond, view: PaneView, now: int) -> tuple[Beyond, tuple[Finding, ...]]:
        look = view.drift
        if look is None:
            return state, ()
        if state.model != look.model:
            state = Beyond(model=look.model)
        ratio = ratios(look, self.min_n)
        if not (look.distances.n >= self.min_n).any():
            return state, ()
        worst = float(ratio.max())
        state.panes = state.panes + 1 if worst > 1.0 else 0
        state.calm = state.calm + 1 if worst < self.calm_ratio else 0
        if state.panes >= self.panes or state.calm >= self.calm_panes:
            return state, (self._finding(look, ratio, view, state.panes >= self.panes),)
        return state, ()

    def _finding(self, look: DriftLook, ratio: Array, view: PaneView, firing: bool) -> Finding:
        window, place = np.unravel_index(int(ratio.argmax()), ratio.shape)
        d = look.distances
        return Finding(
            kind=self.kind, subject="data", firing=firing, statistic="psi",
            value=round(float(d.psi[window, place]), 4), limit=round(float(d.limit[window, place]), 4),
            n=int(d.n[window, place]),
            window_us=((view.pane + 1 - look.widths[window]) * PANE_US, view.end_us),
            evidence=moved(look, ratio, int(window)),
        )  # fmt: skip


def ratios(look: DriftLook, min_n: int) -> Array:
    """PSI over its limit, 0 where there are too few events; the score left out; float64 [windows, features]."""
    counted = np.array([feature != "score" for feature in look.features])
    return np.where((look.distances.n >= min_n) & counted, look.distances.ratio, 0.0)


def moved(look: DriftLook, ratio: Array, window: int) -> dict[str, Scalar]:
    """The three features that moved most in `window`, with their distances."""
    d = look.distances
    evidence: dict[str, Scalar] = {"model": look.model}
    for rank, place in enumerate(np.argsort(-ratio[window])[:3], start=1):
        evidence |= {
            f"feature_{rank}": look.features[place],
            f"psi_{rank}": round(float(d.psi[window, place]), 4),
            f"limit_{rank}": round(float(d.limit[window, place]), 4),
            f"ks_{rank}": round(float(d.ks[window, place]), 4),
            f"js_{rank}": round(float(d.js[window, place]), 4),
        }
    return evidence
