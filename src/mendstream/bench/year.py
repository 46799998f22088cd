"""The year in natural order, storms and seasons included: every alert that the demo's settings raise, with its day.

Nobody heals here: one alert of a kind stays open until its data are well again. Nothing is wanted of the number, for
the year holds real storms, and the model was trained on two months.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mendstream.bench import ground
from mendstream.bench.figures import Figure, Report
from mendstream.bench.virtual import VirtualHouse, catalogue_of
from mendstream.contracts.records import AlertState
from mendstream.demo.scenario import FIRST_MODELS, demo_settings
from mendstream.demo.source import FLIGHTS, natural_order

RATE = 500
"""Departures per virtual second, as in the MTTR figures."""
STEP = 62
"""Departures per turn: two turns a pane."""
STORM_SHARE = 0.45
"""A storm day is one on which more than this share of the flights was late; the year's share is 0.24."""
_START_US = 1_800_000_000_000_000


class Seen(NamedTuple):
    day: str
    kind: str
    subject: str
    statistic: str
    storm: bool


def measure(runs: int, note: Callable[[str], None]) -> Report:
    storms = storm_days()
    seen = list(_alerts(storms, note))
    days = {alert.day for alert in seen}
    figures = {
        "alerts": Figure(what="alerts raised in the year", unit="", runs=(float(len(seen)),)),
        "days_with_alerts": Figure(what="days on which one was raised", unit="days", runs=(float(len(days)),)),
        "of_these_storm_days": Figure(what="of these, storm days", unit="days", runs=(float(len(days & storms)),)),
        "storm_days": Figure(
            what=f"days with more than {STORM_SHARE:.0%} late", unit="days", runs=(float(len(storms)),)
        ),
    }
    return Report(bench="year", figures=figures, details={"alerts": [alert._asdict() for alert in seen]})


def storm_days() -> set[str]:
    """Days of the year, as in `2013-03-08`, on which more than STORM_SHARE of the labelled departures was late."""
    table = pq.read_table(FLIGHTS, columns=["dep_ts", "late"])
    late = pc.fill_null(table["late"].cast("float64"), np.nan).to_numpy()
    day = table["dep_ts"].to_numpy() // 86_400
    known = ~np.isnan(late)
    shares = {int(d): float(late[known & (day == d)].mean()) for d in np.unique(day)}
    return {_day(d * 86_400) for d, share in shares.items() if share > STORM_SHARE}


def _alerts(storms: set[str], note: Callable[[str], None]) -> Iterator[Seen]:
    with ground.folder() as root:
        settings = demo_settings(str(root), fuse=False, seed=0, metrics=False)
        house = VirtualHouse(catalogue_of(root, FIRST_MODELS), settings)
        served, month = 0, ""
        for at_s, events, labels in _turns():
            served += len(events)
            now = _START_US + served * 1_000_000 // RATE
            day = _day(at_s)
            if day[:7] != month:
                month = day[:7]
                note(f"at {month}")
            for alert in house.feed(events, labels, now):
                if alert.state is AlertState.FIRING:
                    text = f"{alert.statistic} {alert.value:.3g} (limit {alert.limit:.3g}, n {alert.n})"
                    named = f" {alert.evidence['feature_1']}" if "feature_1" in alert.evidence else ""
                    yield Seen(day, alert.kind.value, alert.subject, text + named, day in storms)


def _turns() -> Iterator[tuple[int, Sequence[bytes], Sequence[bytes]]]:
    events: list[bytes] = []
    labels: list[bytes] = []
    for moment in natural_order():
        labels += moment.labels
        if moment.event is not None:
            events.append(moment.event)
        if len(events) == STEP:
            yield moment.at_s, events, labels
            events, labels = [], []


def _day(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")
