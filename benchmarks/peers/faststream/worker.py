"""The job of `bench peers` in FastStream, at least once: batches of pydantic models in and out, state in memory."""

import asyncio
import json
import sys
from collections import defaultdict, deque
from pathlib import Path

import numpy as np
import onnxruntime
from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker
from pydantic import BaseModel

SERVERS, GROUP, SOURCE, TARGET, MODEL, RATES = sys.argv[1:]
BATCH, LATE_MIN = 500, 15
rates = json.loads(Path(RATES).read_bytes())
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(MODEL, options)
probabilities = session.get_outputs()[1].name
delays: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=4))
broker = KafkaBroker(SERVERS, allow_auto_create_topics=False)
app = FastStream(broker)


class Flight(BaseModel):
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


class Decision(BaseModel):
    event_id: str
    outcome: str
    score: float


def smoothed(flight: Flight) -> float:
    """Mean of the plane's last delays, without this one; remembers this one."""
    window = delays[flight.tailnum]
    mean = sum(window) / len(window) if window else rates["usual_delay"]
    window.append(flight.dep_delay)
    return mean


def matrix(flights: list[Flight], usual: list[float]) -> np.ndarray:
    def share(name: str) -> list[float]:
        return [rates[name].get(getattr(flight, name), rates["late_share"]) for flight in flights]

    rows = [(f.hour + f.minute / 60, f.distance, f.seats, f.plane_year, f.dep_delay) for f in flights]
    hour, distance, seats, year, delay = np.array(rows, dtype=float).T
    clipped = np.clip(delay, -20, 120)
    return np.column_stack([
        hour, distance, seats, year, share("carrier"), share("dest"), share("origin"), clipped,
        np.log1p(np.clip(delay, 0, 1440)), delay > 0, delay > LATE_MIN, 0.9 * clipped + 0.1 * np.clip(usual, -20, 120),
    ]).astype(np.float32)  # fmt: skip


@broker.subscriber(
    SOURCE, group_id=GROUP, batch=True, max_records=BATCH, auto_offset_reset="earliest",
    ack_policy=AckPolicy.NACK_ON_ERROR,
)  # fmt: skip
@broker.publisher(TARGET, batch=True)
async def decide(flights: list[Flight]) -> list[Decision]:
    usual = [smoothed(flight) for flight in flights]
    scores = session.run([probabilities], {"features": matrix(flights, usual)})[0][:, 1].tolist()
    return [
        Decision(event_id=flight.id, outcome="late" if score >= 0.5 else "on-time", score=score)
        for flight, score in zip(flights, scores, strict=True)
    ]


asyncio.run(app.run())
