"""What became of every event, read from the log by somebody who shares no code with agents and driver."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from mendstream.contracts.agent import TaskId
from mendstream.contracts.knobs import Fold, LiveConfig, fold
from mendstream.contracts.ports import Block
from mendstream.contracts.records import (
    ConfigChange,
    Counts,
    DeadLetter,
    DeadReason,
    Decision,
    Exit,
    Feedback,
    Record,
    decode_each,
)
from mendstream.contracts.topics import CONFIG, Stream, Topic
from mendstream.simulation.log import SimLog
from mendstream.simulation.machine import Machine

STAGES = (("feature", Topic.RAW_EVENTS, Topic.FEATURES), ("model", Topic.FEATURES, Topic.PREDICTIONS),
          ("decision", Topic.PREDICTIONS, Topic.DECISIONS))  # fmt: skip
"""(stage, what it reads, what it writes)"""
SOURCE = Stream(Topic.SOURCE, 0)


class Part(NamedTuple):
    """One frame as it stands in the log."""

    meta: Mapping[str, Any]
    batch: pa.RecordBatch
    ids: list[str]


@dataclass
class Outcomes:
    """Of the tape's positions before the source position of ingestion."""

    accepted: dict[str, int] = field(default_factory=dict)
    """Event id -> the position that it was taken from."""
    repeats: int = 0
    letters: dict[int, list[DeadLetter]] = field(default_factory=dict)
    """Position -> letters of ingestion that have this position's event."""
    labels: list[DeadLetter] = field(default_factory=list)
    """Letters of ingestion that have a label."""


class Trail:
    """Everything in the log by the time that it is made."""

    def __init__(self, machine: Machine) -> None:
        self._log = machine.log
        self._tape = machine.tape
        self.partitions = machine.settings.run.partitions
        data = [Topic.RAW_EVENTS, Topic.FEATURES, Topic.PREDICTIONS]
        self.frames = {
            Stream(t, p): list(parts_of(machine.log, Stream(t, p))) for t in data for p in range(self.partitions)
        }
        self.decisions = {p: self._records(Stream(Topic.DECISIONS, p), Decision) for p in range(self.partitions)}
        self.feedback = {p: self._records(Stream(Topic.FEEDBACK, p), Feedback) for p in range(self.partitions)}
        self.letters = [
            letter for p in (0, 1) for letter in self._records(Stream(Topic.DEAD_LETTERS, p), DeadLetter)
        ]  # fmt: skip
        self.counts: dict[tuple[str, int, str, int, str], Counts] = {}
        """(task, pane, model, config, arm) -> the newest revision"""
        self.exits: set[tuple[str, int]] = set()
        """(process, generation)"""
        self._read_metrics()
        self.configs = self._read_configs()
        self.read = self.position("ingestion", 0, SOURCE)
        self.outcomes = self._outcomes()
        self.set_aside = self._set_aside()
        """Stage -> ids of events that it put to the dead letters."""
        self.unjoined = self._unjoined()
        """Ids of events whose prediction or label was before several joiners that died."""

    def ids(self, stream: Stream) -> list[str]:
        """Event ids in the order of the stream."""
        if stream.topic is Topic.DECISIONS:
            return [decision.event_id for decision in self.decisions[stream.partition]]
        return [event_id for part in self.frames[stream] for event_id in part.ids]

    def position(self, agent: str, partition: int, stream: Stream) -> int:
        held = self._log.task(TaskId(agent, partition))
        return 0 if held is None else held.positions.get(stream, 0)

    # --- reading -----------------------------------------------------------------------------------------------------

    def _records(self, stream: Stream, kind: type[Any]) -> list[Any]:
        return [record for record in records_of(self._log, stream) if isinstance(record, kind)]

    def _read_metrics(self) -> None:
        for p in (0, 1):
            for record in records_of(self._log, Stream(Topic.AGENT_METRICS, p)):
                if isinstance(record, Counts):
                    key = record.task, record.pane, record.model, record.config, record.arm
                    if key not in self.counts or self.counts[key].revision < record.revision:
                        self.counts[key] = record
                elif isinstance(record, Exit):
                    self.exits.add((record.process, record.generation))

    def _read_configs(self) -> dict[int, LiveConfig]:
        """Version -> what was live under it."""
        config = LiveConfig()
        found = {0: config}
        for record in records_of(self._log, CONFIG):
            if isinstance(record, ConfigChange):
                config, became = fold(config, record)
                if became is Fold.APPLIED:
                    found[config.version] = config
        return found

    # --- outcomes ----------------------------------------------------------------------------------------------------

    def _outcomes(self) -> Outcomes:
        found, made = Outcomes(), self._tape.made
        for letter in self.letters:
            if letter.stage == "ingestion":
                if 0 <= letter.position < len(made) and letter.value == made[letter.position].line:
                    found.letters.setdefault(letter.position, []).append(letter)
                else:
                    found.labels.append(letter)
        for position in range(self.read):
            event_id = made[position].event_id
            if not event_id or position in found.letters:
                continue
            if event_id in found.accepted:
                found.repeats += 1
            else:
                found.accepted[event_id] = position
        return found

    def _set_aside(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for letter in self.letters:
            if letter.stage in ("feature", "model", "decision"):
                found.setdefault(letter.stage, []).extend(_ids(letter))
        return found

    def _unjoined(self) -> set[str]:
        found: set[str] = set()
        for letter in self.letters:
            if letter.stage == "joiner" and letter.reason is DeadReason.QUARANTINED:
                if letter.topic == Topic.FEEDBACK:
                    found.add(msgspec.json.decode(letter.value, type=Feedback).event_id)
                else:
                    found.update(_ids(letter))
        return found


def _ids(letter: DeadLetter) -> list[str]:
    """Of the events in a letter that has a frame."""
    with pa.ipc.open_stream(pa.py_buffer(letter.value)) as reader:
        ids: list[str] = reader.read_next_batch().column("event_id").to_pylist()
    return ids


def everything(log: SimLog, stream: Stream) -> list[Block]:
    """All blocks of a stream."""
    return log.read(stream, 0, max_rows=1 << 30, max_bytes=1 << 40)


def parts_of(log: SimLog, stream: Stream) -> Iterator[Part]:
    """All frames of a stream."""
    for block in everything(log, stream):
        messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(block.value))
        schema = pa.ipc.read_schema(messages.read_next_message())
        batch = pa.ipc.read_record_batch(messages.read_next_message(), schema)
        meta = json.loads(schema.metadata[b"mendstream"])
        yield Part(meta, batch, batch.column("event_id").to_pylist())


def records_of(log: SimLog, stream: Stream) -> Iterator[Record]:
    """All records of a stream."""
    for block in everything(log, stream):
        for record in decode_each(stream.topic, bytes(block.value)):
            if record is not None:
                yield record
