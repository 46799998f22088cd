"""What the tests of models stand on: a log in memory, a clock that is set by hand, streams with a known truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mendstream.adapters.bus.search import first_since
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import Fenced
from mendstream.contracts.frame import FrameMeta, make
from mendstream.contracts.models import FeatureReference, ModelCard
from mendstream.contracts.ports import Block, Claim, Out, TaskCommit
from mendstream.contracts.records import (
    Command,
    CommandKind,
    CommandResult,
    ConfigChange,
    Feedback,
    decode_block,
    encode_block,
)
from mendstream.contracts.topics import SPECS, Codec, Stream, Topic

START_US = 1_700_000_000_000_000
SECOND_US = 1_000_000
COMMANDS = Stream(Topic.COMMANDS, 0)
RESULTS = Stream(Topic.COMMAND_RESULTS, 0)
CONFIG = Stream(Topic.CONFIG_UPDATES, 0)
NAMES = ("a", "b", "c")


class Hand:
    """A clock that stands until it is moved."""

    def __init__(self, now_us: int = START_US) -> None:
        self.us = now_us

    def now_us(self) -> int:
        return self.us

    def pass_s(self, seconds: float) -> None:
        self.us += int(seconds * SECOND_US)


class MemoryBus:
    """The part of the bus port that a sink uses, with fencing."""

    incarnation = "test"

    def __init__(self, clock: Hand) -> None:
        self.clock = clock
        self.log: dict[Stream, list[tuple[int, int, bytes, int]]] = {}
        self.tasks: dict[TaskId, tuple[int, int, dict[Stream, int]]] = {}
        self.reads = 0

    def claim(self, task: TaskId, inputs: Sequence[Stream]) -> Claim:
        epoch, turns, positions = self.tasks.get(task, (0, 0, {}))
        positions = {stream: positions.get(stream, 0) for stream in inputs}
        self.tasks[task] = (epoch + 1, turns, dict(positions))
        return Claim(task, epoch + 1, turns, positions, None, [])

    def bounds(self, stream: Stream) -> tuple[int, int]:
        blocks = self.log.get(stream, [])
        return 0, blocks[-1][0] + blocks[-1][1] if blocks else 0

    def since(self, stream: Stream, at_us: int) -> int:
        return first_since(self, stream, at_us)

    def read(self, stream: Stream, position: int, *, max_rows: int, max_bytes: int) -> list[Block]:
        self.reads += 1
        found: list[Block] = []
        for start, rows, value, at_us in self.log.get(stream, []):
            skip = max(0, position - start)
            take = min(rows - skip, max_rows)
            if take <= 0:
                continue
            if found and max_bytes < len(value):
                break
            if SPECS[stream.topic].codec is Codec.JSON:
                cut = b"\n".join(value.split(b"\n")[skip : skip + take])
                found.append(Block(stream, start + skip, take, cut, at_us))
            else:
                found.append(Block(stream, start + skip, take, value, at_us, skip))
            max_rows -= take
        return found

    def commit(self, commits: Sequence[TaskCommit]) -> dict[Stream, int]:
        for commit in commits:
            epoch, turns, positions = self.tasks[commit.task]
            if epoch != commit.epoch or any(positions[s] != p for s, p in commit.before.items()):
                raise Fenced(str(commit.task))
            assert commit.turn == turns + 1
            self.tasks[commit.task] = (epoch, commit.turn, {**positions, **commit.positions})
            self.publish(commit.outputs)
        return {}

    def publish(self, outs: Sequence[Out]) -> None:
        for out in outs:
            blocks = self.log.setdefault(out.stream, [])
            blocks.append((self.bounds(out.stream)[1], out.rows, out.value, self.clock.now_us()))

    def results(self) -> list[CommandResult]:
        return [r for _, _, value, _ in self.log.get(RESULTS, []) for r in decode_block(Topic.COMMAND_RESULTS, value)]


def population(rows: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Three columns and a label that hangs on the first two; with `shift` the population moves and the rule turns.

    Column c is missing in a tenth of the rows. About 3 % of the labels cannot be known from the columns.
    """
    dice = np.random.default_rng(seed)
    matrix = dice.normal(size=(rows, 3)).astype(np.float32)
    matrix[:, 0] += shift
    turn = 1.0 if not shift else -1.0
    labels = (matrix[:, 0] - shift + turn * matrix[:, 1] > 0) != (dice.random(rows) < 0.03)
    matrix[dice.random(rows) < 0.1, 2] = np.nan
    return matrix, labels.astype(np.float64)


def serve(
    bus: MemoryBus, matrix: np.ndarray, labels: np.ndarray, *, first: int = 0, partition: int = 0, labelled: float = 1.0
) -> None:
    """Ten frames of features, and feedback for the first `labelled` of the rows, now."""
    ids = np.array([f"e{first + row}" for row in range(len(matrix))])
    meta = FrameMeta(partition=partition, born_us=bus.clock.now_us(), made_us=bus.clock.now_us())
    outs = []
    for part in np.array_split(np.arange(len(matrix)), 10):
        head = {
            "event_id": ids[part].tolist(),
            "key": [f"k{i}" for i in part],
            "event_time_us": part.astype(np.int64),
        }
        columns = {name: matrix[part, column] for column, name in enumerate(NAMES)}
        frame = make(head, {"extra": matrix[part, 0], **columns}, meta)
        outs.append(Out(Stream(Topic.FEATURES, partition), frame.encode(), frame.rows))
    bus.publish(outs)
    known = range(int(len(matrix) * labelled))
    feedback(bus, [(str(ids[i]), f"k{i}", float(labels[i])) for i in known], partition)


def feedback(bus: MemoryBus, labels: Sequence[tuple[str, str, float]], partition: int = 0) -> None:
    now = bus.clock.now_us()
    records = [Feedback(event_id=e, key=k, label=float(v), at_us=now) for e, k, v in labels]
    if records:
        bus.publish([Out(Stream(Topic.FEEDBACK, partition), encode_block(records), len(records))])


def promote(bus: MemoryBus, version: str, digest: str, base: int = 0) -> None:
    change = ConfigChange(
        id=f"test/healing/{base}/1",
        base_version=base,
        changes={"model_version": version, "model_digest": digest},
        actor="test",
        reason="first model",
        at_us=bus.clock.now_us(),
    )
    bus.publish([Out(CONFIG, encode_block([change]), 1)])


def order(
    bus: MemoryBus, action_id: str = "action-1", command_id: str = "test/healing/7/1", **params: int | float | str
) -> None:
    """Command a retraining."""
    command = Command(
        id=command_id,
        action_id=action_id,
        incident_id="incident-1",
        addressee="trainer",
        kind=CommandKind.RETRAIN,
        target="trainer",
        generation=None,
        params={"since_us": START_US, **params},
        at_us=bus.clock.now_us(),
    )
    bus.publish([Out(COMMANDS, encode_block([command]), 1)])


def card(version: str = "v1", features: tuple[str, ...] = NAMES, digest: str = "") -> ModelCard:
    return ModelCard(
        version=version,
        digest=digest,
        created_at_us=START_US,
        features=features,
        data_window="by hand",
        rows=100,
        metrics={"accuracy": 0.9},
        error_level=0.12,
        error_phi=1.5,
        reference={features[0]: FeatureReference(edges=(0.0, 1.0), counts=(30, 40, 30, 0), phi=1.2)},
    )
