"""The job of `bench kafka` as one writes it by hand: flights in, late or on time out, exactly once, in batches."""

import json
import sys
from collections import defaultdict, deque
from pathlib import Path

import numpy as np
import onnxruntime
from confluent_kafka import Consumer, Producer, TopicPartition

SERVERS, GROUP, SOURCE, TARGET, CHANGELOG, MODEL, RATES = sys.argv[1:]
BATCH, LATE_MIN = 2000, 15
rates = json.loads(Path(RATES).read_bytes())
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(MODEL, options)
probabilities = session.get_outputs()[1].name
delays: dict[int, defaultdict[str, deque[float]]] = {}
common = {"bootstrap.servers": SERVERS, "isolation.level": "read_committed", "enable.auto.commit": False}
producer = Producer({"bootstrap.servers": SERVERS, "transactional.id": GROUP, "compression.type": "lz4",
                     "linger.ms": 5, "retry.backoff.ms": 2, "retry.backoff.max.ms": 10})  # fmt: skip


def restore(partition: int) -> defaultdict[str, deque[float]]:
    """The last four delays of each plane, as the changelog has them."""
    state: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=4))
    reader = Consumer(common | {"group.id": f"{GROUP}-restore", "enable.partition.eof": True})
    reader.assign([TopicPartition(CHANGELOG, partition, 0)])
    while (message := reader.poll(10)) is not None and message.error() is None:
        state[message.key().decode()] = deque(json.loads(message.value()), maxlen=4)
    reader.close()
    return state


def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
    for place in partitions:
        delays[place.partition] = restore(place.partition)


def smoothed(state: defaultdict[str, deque[float]], flight: dict) -> float:
    """Mean of the plane's last delays, without this one; remembers this one."""
    window = state[flight["tailnum"]]
    mean = sum(window) / len(window) if window else rates["usual_delay"]
    window.append(flight["dep_delay"])
    return mean


def matrix(flights: list[dict], usual: list[float]) -> np.ndarray:
    def share(name: str) -> list[float]:
        return [rates[name].get(flight[name], rates["late_share"]) for flight in flights]

    rows = [(f["hour"] + f["minute"] / 60, f["distance"], f["seats"], f["plane_year"], f["dep_delay"]) for f in flights]
    hour, distance, seats, year, delay = np.array(rows, dtype=float).T
    clipped = np.clip(delay, -20, 120)
    return np.column_stack([
        hour, distance, seats, year, share("carrier"), share("dest"), share("origin"), clipped,
        np.log1p(np.clip(delay, 0, 1440)), delay > 0, delay > LATE_MIN, 0.9 * clipped + 0.1 * np.clip(usual, -20, 120),
    ]).astype(np.float32)  # fmt: skip


consumer = Consumer(common | {"group.id": GROUP, "group.instance.id": "0", "auto.offset.reset": "earliest"})
producer.init_transactions(10)
consumer.subscribe([SOURCE], on_assign=assigned)
while True:
    messages = [message for message in consumer.consume(BATCH, 0.01) if message.error() is None]
    if not messages:
        continue
    flights = [json.loads(message.value()) for message in messages]
    usual = [smoothed(delays[m.partition()], flight) for m, flight in zip(messages, flights, strict=True)]
    scores = session.run([probabilities], {"features": matrix(flights, usual)})[0][:, 1]
    producer.begin_transaction()
    for message, flight, score in zip(messages, flights, scores.tolist(), strict=True):
        found = {"event_id": flight["id"], "outcome": "late" if score >= 0.5 else "on-time", "score": score}
        producer.produce(TARGET, json.dumps(found), flight["tailnum"], message.partition())
    for partition, plane in {(m.partition(), f["tailnum"]) for m, f in zip(messages, flights, strict=True)}:
        producer.produce(CHANGELOG, json.dumps(list(delays[partition][plane])), plane, partition)
    producer.flush()  # before the offsets: librdkafka would wait 100 ms
    producer.send_offsets_to_transaction(consumer.position(consumer.assignment()), consumer.consumer_group_metadata())
    producer.commit_transaction()
