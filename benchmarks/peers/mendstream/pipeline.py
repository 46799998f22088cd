"""The job of `bench peers` on mendstream: all of the user's own code."""

import json
from pathlib import Path

import numpy as np

from mendstream import Event, Mean, Pipeline, codes

rates = json.loads((Path(__file__).parents[3] / "src/mendstream/demo/data/rates.json").read_bytes())


class Flight(Event, frozen=True):
    id: str
    tailnum: str
    carrier: str
    origin: str
    dest: str
    hour: int
    minute: int
    distance: float
    dep_delay: float
    seats: int | None
    plane_year: int | None


flights = Pipeline("flights", event=Flight, id="id", key="tailnum", windows={"usual": Mean("dep_delay", last=4)},
                   positive="late", negative="on-time")  # fmt: skip


@flights.features
def features(events: dict, windows: dict) -> dict:
    def share(name: str) -> np.ndarray:
        place = np.nan_to_num(codes(events[name], tuple(rates[name])), nan=-1).astype(int)
        return np.array([*rates[name].values(), rates["late_share"]])[place]

    delay = events["dep_delay"]
    clipped = np.clip(delay, -20, 120)
    usual = np.nan_to_num(windows["usual"], nan=rates["usual_delay"])
    return {
        "hour": events["hour"] + events["minute"] / 60, "distance": events["distance"], "seats": events["seats"],
        "plane_year": events["plane_year"], "carrier_rate": share("carrier"), "dest_rate": share("dest"),
        "origin_rate": share("origin"), "dep_delay": clipped, "delay_log": np.log1p(np.clip(delay, 0, 1440)),
        "is_delayed": delay > 0, "leaves_late": delay > 15,
        "delay_smoothed": 0.9 * clipped + 0.1 * np.clip(usual, -20, 120),
    }  # fmt: skip
