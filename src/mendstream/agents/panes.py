"""Counting what was served: totals per (pane, model, config, arm), kept in an agent's state.

Totals live in the state, so each event is counted once whatever crashes; they are sent again until superseded.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from mendstream.contracts import state as states
from mendstream.contracts.records import LATENCY_EDGES_MS, PANE_US, Counts

Array = np.ndarray[Any, np.dtype[Any]]
_EDGES = np.asarray(LATENCY_EDGES_MS)


def pane_of(at_us: int) -> int:
    """The pane of serving time that `at_us` falls into."""
    return at_us // PANE_US


def latency_bucket(ms: float) -> int:
    """Index into a latency histogram of len(LATENCY_EDGES_MS) + 1 buckets; an edge belongs to the bucket below it."""
    return int(np.searchsorted(_EDGES, ms, side="left"))


class Totals(msgspec.Struct):
    """What one task served in one pane with one (model, config, arm)."""

    pane: int
    model: str
    config: int
    arm: str
    revision: int = 0
    n: int = 0
    hists: dict[str, Array] = {}
    losses: dict[str, list[int]] = {}

    def add_hist(self, name: str, counts: Array) -> None:
        """Add bin counts; shape [bins]."""
        held = self.hists.get(name)
        self.hists[name] = counts.astype(np.int64) if held is None else held + counts

    def add_latency(self, ms: float, n: int) -> None:
        """`n` events took `ms`."""
        held = self.hists.get("latency")
        if held is None:
            held = self.hists["latency"] = np.zeros(len(LATENCY_EDGES_MS) + 1, dtype=np.int64)
        held[latency_bucket(ms)] += n

    def add_latencies(self, ms: Array) -> None:
        """One event per element; float64 [events]."""
        self.add_hist("latency", np.bincount(np.searchsorted(_EDGES, ms, side="left"), minlength=len(_EDGES) + 1))

    def add_loss(self, name: str, n: int, bad: int) -> None:
        held = self.losses.setdefault(name, [0, 0])
        held[0] += n
        held[1] += bad


class PaneTable(msgspec.Struct):
    """The totals of the panes that may still change or still have to be sent."""

    revision: int = 0
    totals: dict[str, Totals] = {}

    def at(self, pane: int, model: str, config: int, arm: str) -> Totals:
        """The totals to add to; asking for them makes a new revision."""
        key = f"{pane}|{model}|{config}|{arm}"
        held = self.totals.get(key)
        if held is None:
            held = self.totals[key] = Totals(pane=pane, model=model, config=config, arm=arm)
        self.revision += 1
        held.revision = self.revision
        return held

    def drop_before(self, pane: int) -> None:
        """Forget panes older than `pane`: nothing can change them any more."""
        if any(held.pane < pane for held in self.totals.values()):
            self.totals = {key: held for key, held in self.totals.items() if held.pane >= pane}

    def settle(self, before: int, oldest: int) -> list[Any] | None:
        """End a step: forget panes older than `oldest`. What changed since revision `before`, for `redo`, or None."""
        held = len(self.totals)
        self.drop_before(oldest)
        touched = [totals for totals in self.totals.values() if totals.revision > before]
        return [self.revision, oldest, touched] if touched or len(self.totals) < held else None

    def redo(self, change: Any) -> None:
        """Do again what a step did that returned `change` from `settle`."""
        self.revision, oldest, touched = change
        for raw in touched:
            totals = states.convert(raw, Totals)
            self.totals[f"{totals.pane}|{totals.model}|{totals.config}|{totals.arm}"] = totals
        self.drop_before(oldest)

    def changed(self, task: str, after: int) -> tuple[list[Counts], int]:
        """The totals with a revision above `after`, as records, and the newest revision."""
        found = [
            Counts(
                task=task,
                pane=held.pane,
                model=held.model,
                config=held.config,
                arm=held.arm,
                revision=held.revision,
                n=held.n,
                hists={name: tuple(counts.tolist()) for name, counts in held.hists.items()},
                losses={name: (pair[0], pair[1]) for name, pair in held.losses.items()},
            )
            for held in self.totals.values()
            if held.revision > after
        ]
        return found, self.revision
