"""The job of `bench peers` in Quix Streams, exactly once: a streaming data frame with state of each plane."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from quixstreams import Application, State

SERVERS, GROUP, SOURCE, TARGET, MODEL, RATES, FOLDER = sys.argv[1:]
rates = json.loads(Path(RATES).read_bytes())
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(MODEL, options)
probabilities = session.get_outputs()[1].name


def smoothed(flight: dict, state: State) -> dict:
    """Mean of the plane's last four delays, without this one; remembers this one."""
    delays = state.get("delays", [])
    flight["usual"] = sum(delays) / len(delays) if delays else rates["usual_delay"]
    state.set("delays", [*delays, flight["dep_delay"]][-4:])
    return flight


def decided(flight: dict) -> dict:
    delay = flight["dep_delay"]
    clipped = min(max(delay, -20), 120)
    row = [
        flight["hour"] + flight["minute"] / 60, flight["distance"], number(flight["seats"]),
        number(flight["plane_year"]), share("carrier", flight), share("dest", flight), share("origin", flight),
        clipped, math.log1p(min(max(delay, 0), 1440)), delay > 0, delay > 15,
        0.9 * clipped + 0.1 * min(max(flight["usual"], -20), 120),
    ]  # fmt: skip
    score = float(session.run([probabilities], {"features": np.array([row], dtype=np.float32)})[0][0, 1])
    return {"event_id": flight["id"], "outcome": "late" if score >= 0.5 else "on-time", "score": score}


def number(value: float | None) -> float:
    return math.nan if value is None else value


def share(name: str, flight: dict) -> float:
    return rates[name].get(flight[name], rates["late_share"])


app = Application(
    SERVERS, consumer_group=GROUP, auto_offset_reset="earliest", processing_guarantee="exactly-once",
    commit_interval=0.1, state_dir=FOLDER, loglevel="WARNING",
)  # fmt: skip
flights = app.dataframe(app.topic(SOURCE, key_deserializer="str", value_deserializer="json"))
flights.apply(smoothed, stateful=True).apply(decided).to_topic(
    app.topic(TARGET, key_serializer="str", value_serializer="json")
)
app.run()
