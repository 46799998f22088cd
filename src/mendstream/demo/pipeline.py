"""The demo's pipeline: a departure from New York comes in, goes out as late (over 15 minutes at arrival) or on time.

Nothing here is special to the demo: `flights` uses what any user's pipeline has. The late rates are a frozen table,
made by tools/build_demo_models.py, so that training and serving see the same numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from mendstream.contracts.pipeline import Array, Columns, Event, Mean, Pipeline, codes

Code = Annotated[str, Meta(min_length=1, max_length=8)]


class Flight(Event, frozen=True):
    """One departure, as known when the plane leaves the gate."""

    id: Annotated[str, Meta(min_length=1, max_length=32)]
    tailnum: Code
    carrier: Code
    origin: Code
    dest: Code
    hour: Annotated[int, Meta(ge=0, le=23)]
    """Of the scheduled departure, local."""
    minute: Annotated[int, Meta(ge=0, le=59)]
    distance: Annotated[float, Meta(ge=0, le=12_000)]
    """Miles."""
    dep_delay: Annotated[float, Meta(ge=-60, le=1440)]
    """Minutes; negative when early."""
    seats: Annotated[int, Meta(ge=1, le=1000)] | None
    plane_year: Annotated[int, Meta(ge=1900, le=2100)] | None


class Rates(msgspec.Struct, frozen=True):
    """demo/data/rates.json: what January and February 2013 taught once and for all."""

    late_share: float
    usual_delay: float
    """Mean of the clipped delays: stands in for a plane that was not seen yet."""
    carrier: dict[str, float]
    dest: dict[str, float]
    origin: dict[str, float]
    route_air_min: dict[str, float]
    """Median minutes in the air by `origin-dest` over the year; the stream's drift is made with it, no feature is."""


RATES = msgspec.json.decode((Path(__file__).parent / "data" / "rates.json").read_bytes(), type=Rates)

flights = Pipeline(
    "flights",
    event=Flight,
    id="id",
    key="tailnum",
    windows={"tail_delay4": Mean("dep_delay", last=4)},
    positive="late",
    negative="on-time",
)


@flights.features
def features(events: Columns, windows: Columns) -> Columns:
    delay = events["dep_delay"]
    clipped = np.clip(delay, *DELAY_BOUNDS)
    usual = np.clip(_or(windows["tail_delay4"], RATES.usual_delay), *DELAY_BOUNDS)
    return {
        "hour": events["hour"] + events["minute"] / 60,
        "distance": events["distance"],
        # Missing for a plane in seven, which the model fills in and monitoring counts.
        "seats": events["seats"],
        "plane_year": events["plane_year"],
        "carrier_rate": _rate(events["carrier"], CARRIERS, CARRIER_RATES),
        "dest_rate": _rate(events["dest"], DESTS, DEST_RATES),
        "origin_rate": _rate(events["origin"], ORIGINS, ORIGIN_RATES),
        "dep_delay": clipped,
        "delay_log": np.log1p(np.clip(delay, 0, 1440)),
        "is_delayed": delay > 0,
        "leaves_late": delay > LATE_MIN,
        # The plane's own recent delays weigh a tenth only: windows fill slowly (3,400 planes), and a new stream must
        # not look like drift until they have.
        "delay_smoothed": 0.9 * clipped + 0.1 * usual,
    }


@flights.fallback
def leaves_late(features: Columns) -> Array:
    """Who leaves late arrives late: right for nine of ten."""
    return np.where(features["leaves_late"] > 0, 0.9, 0.1)


LATE_MIN = 15
DELAY_BOUNDS = (-20, 120)
"""Delays are clipped to these minutes: a storm's extremes say no more than two hours do."""


def _table(rates: dict[str, float]) -> tuple[tuple[str, ...], Array]:
    """The vocabulary, and its rates with the overall share at the end, for what is not in it."""
    return tuple(rates), np.array([*rates.values(), RATES.late_share])


CARRIERS, CARRIER_RATES = _table(RATES.carrier)
DESTS, DEST_RATES = _table(RATES.dest)
ORIGINS, ORIGIN_RATES = _table(RATES.origin)


def _rate(column: object, vocabulary: tuple[str, ...], rates: Array) -> Array:
    return rates.take(_or(codes(column, vocabulary), len(vocabulary)).astype(np.int64))


def _or(values: Array, missing: float) -> Array:
    return np.where(np.isnan(values), missing, values)
