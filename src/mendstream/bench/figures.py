"""Measured runs in; figures with their bounds, worst, median and verdict out. Nothing here measures."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was measured several times, and what is wanted of it.

    A run that gave no number (the incident was not healed, the process did not start) is None: it reaches no bound,
    and nothing is worse.
    """

    what: str
    unit: str
    runs: tuple[float | None, ...]
    most: float | None = None
    """The bound: no run may be above it. None, and no `least` either: the figure is reported only."""
    least: float | None = None
    """The bound: no run may be below it."""

    @property
    def worst(self) -> float | None:
        if not self.runs or None in self.runs:
            return None
        numbers = [run for run in self.runs if run is not None]
        return min(numbers) if self.least is not None else max(numbers)

    @property
    def median(self) -> float | None:
        numbers = [run for run in self.runs if run is not None]
        return statistics.median(numbers) if numbers else None

    @property
    def reached(self) -> bool | None:
        """Whether the worst run is within the bound; None without a bound."""
        if self.most is None and self.least is None:
            return None
        worst = self.worst
        if worst is None:
            return False
        return (self.most is None or worst <= self.most) and (self.least is None or worst >= self.least)

    @property
    def wanted(self) -> str:
        """The bound for people."""
        if self.most is not None:
            return f"<= {shown(self.most)}"
        return f">= {shown(self.least)}" if self.least is not None else "-"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one bench has found. `details`: what explains the figures, as plain values."""

    bench: str
    figures: dict[str, Figure]
    details: dict[str, Any] = {}

    @property
    def reached(self) -> bool:
        """Whether every bound was reached."""
        return all(figure.reached is not False for figure in self.figures.values())


def document(name: str, machine: dict[str, Any], reports: Sequence[Report]) -> dict[str, Any]:
    """One document: of a single bench its figures at the top, of `all` the same under `benches`."""
    head = {"bench": name, "reached": all(report.reached for report in reports), "machine": machine}
    if name == "all":
        return {**head, "benches": {report.bench: _told(report) for report in reports}}
    return {**head, **_told(reports[0])}


def _told(report: Report) -> dict[str, Any]:
    return {"reached": report.reached, "figures": {n: _figure(f) for n, f in report.figures.items()}, **report.details}


def _figure(figure: Figure) -> dict[str, Any]:
    bound = {"least": figure.least} if figure.least is not None else {"most": figure.most}
    return {
        "what": figure.what, "unit": figure.unit, "worst": rounded(figure.worst), "median": rounded(figure.median),
        "wanted": bound if figure.reached is not None else None, "reached": figure.reached,
        "runs": [rounded(run) for run in figure.runs],
    }  # fmt: skip


HEADER = ("figure", "unit", "worst", "median", "wanted", "reached", "what")


def rows(report: Report) -> list[tuple[str, ...]]:
    """A table for people."""
    words = {True: "yes", False: "NO", None: "-"}
    return [
        (name, f.unit, shown(f.worst), shown(f.median), f.wanted, words[f.reached], f.what)
        for name, f in report.figures.items()
    ]


def rounded(value: float | None) -> float | None:
    """Five significant digits: more is noise."""
    return None if value is None else float(f"{value:.5g}")


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
