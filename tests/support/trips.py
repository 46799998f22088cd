"""A small pipeline like the demo's: a departure comes in with its delay, `late` or `on-time` goes out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from mendstream.agents.pipeline.decision import DecisionAgent
from mendstream.agents.pipeline.feature import FeatureAgent
from mendstream.agents.pipeline.ingestion import IngestionAgent, Limits
from mendstream.agents.pipeline.model import ModelAgent
from mendstream.contracts.models import Models
from mendstream.contracts.pipeline import Array, Columns, Event, Mean, Pipeline


class Trip(Event, frozen=True):
    id: Annotated[str, Meta(min_length=1, max_length=32)]
    plane: str
    hour: Annotated[int, Meta(ge=0, le=23)]
    delay: Annotated[float, Meta(ge=-60, le=1440)]
    seats: int | None
    poison: bool = False


trips = Pipeline(
    "trips",
    event=Trip,
    id="id",
    key="plane",
    windows={"usual": Mean("delay", last=3), "places": Mean("seats", last=2)},
    positive="late",
    negative="on-time",
)


@trips.features
def features(events: Columns, windows: Columns) -> Columns:
    if np.any(events["poison"] > 0):
        raise ValueError("poison")
    return {
        "hour": events["hour"],
        "delay": events["delay"],
        "seats": events["seats"],
        "usual": np.nan_to_num(windows["usual"]),
        "places": windows["places"],
    }


@trips.fallback
def rule(features: Columns) -> Array:
    return np.where(features["delay"] > 15, 0.9, 0.1)


class Reading(Event, frozen=True):
    """No id of its own, a number for a key, and a time."""

    meter: int
    value: float
    at: float


readings = Pipeline("readings", event=Reading, key="meter", time="at")


@readings.features
def reading_features(events: Columns, windows: Columns) -> Columns:
    return {"value": events["value"]}


@readings.fallback
def high(features: Columns) -> Array:
    return np.where(features["value"] > 10, 1.0, 0.0)


def trip(n: int, **fields: Any) -> bytes:
    """The n-th departure as a line of JSON; planes come round in turn, with delays that no two have in common."""
    event = {"id": f"t{n}", "plane": f"N{n % 11}", "hour": n % 24, "delay": (n * 37) % 91 - 30.0,
             "seats": None if n % 5 == 0 else 100 + n % 3}  # fmt: skip
    return json.dumps({**event, **fields}).encode()


def trip_lines(count: int, start: int = 0) -> list[bytes]:
    return [trip(n) for n in range(start, start + count)]


def stages(
    models: Models, *, pipeline: Pipeline = trips, partitions: int = 1, limits: Limits | None = None,
    only: Iterable[str] = ("ingestion", "feature", "model", "decision"), max_keys: int = 200_000,
) -> list[Any]:  # fmt: skip
    """Fresh agents, in the order of the pipeline."""
    made = {
        "ingestion": lambda: IngestionAgent(pipeline, partitions=partitions, limits=limits),
        "feature": lambda: FeatureAgent(pipeline, max_keys=max_keys),
        "model": lambda: ModelAgent(pipeline, models),
        "decision": lambda: DecisionAgent(pipeline),
    }
    return [made[name]() for name in only]
