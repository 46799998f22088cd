"""Labelled rows straight from the log: feature frames and feedback since a time come in, a training matrix goes out.

Labels are cheap to read and arrive later than features, so a harvest counts labels first and reads frames only when
there may be enough: waiting costs next to nothing however wide the frames are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from mendstream.contracts.errors import BadRecord, ModelError
from mendstream.contracts.frame import HEAD, Frame
from mendstream.contracts.models import Array
from mendstream.contracts.ports import Bus
from mendstream.contracts.records import Feedback, Record, decode, decode_block
from mendstream.contracts.topics import Stream, Topic, streams_of

_READ_ROWS = 65_536
_READ_BYTES = 8 << 20

Key = tuple[str, str]
"""(event id, key): ids are unique per key. Feedback for ids that we issued may leave the key empty."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled rows, oldest first."""

    matrix: Array
    """float32 [rows, features]"""
    labels: Array
    """float64 [rows]"""
    made_us: Array
    """int64 [rows]: serving time"""

    @property
    def from_us(self) -> int:
        return int(self.made_us[0])

    @property
    def until_us(self) -> int:
        return int(self.made_us[-1])

    @property
    def window(self) -> str:
        """For people."""
        return f"{len(self.labels)} labelled rows served {when(self.from_us)} to {when(self.until_us)}"


class Harvest:
    """What has been labelled since `since_us`; ask again as the log grows."""

    def __init__(
        self, bus: Bus, partitions: int, features: Sequence[str], *, since_us: int, rows_min: int, rows_max: int
    ) -> None:
        self._bus = bus
        self._features = tuple(features)
        self._since_us = since_us
        self._rows_min = rows_min
        self._rows_max = rows_max
        # The newest labels that are held of a partition: a bound on memory, and no more than can be used.
        self._kept = max(rows_min, 2 * rows_max // partitions)
        self._labels: list[dict[Key, float]] = [{} for _ in range(partitions)]
        self._read_to = [
            max(bus.since(stream, since_us), bus.bounds(stream)[1] - self._kept)
            for stream in streams_of(Topic.FEEDBACK, partitions)
        ]
        # Counted as they arrive: what is held stops growing at `_kept`.
        self._arrived = 0
        self._enough = rows_min
        self.found = 0
        """Rows with a label, when frames were last read."""
        self.unreadable = 0
        """Feedback lines and frames that could not be decoded."""

    @property
    def labels(self) -> int:
        return sum(map(len, self._labels))

    def rows(self) -> Rows | None:
        """The newest `rows_max` labelled rows; None while there are fewer than `rows_min`.

        Raises ModelError if the frames lack a feature that is wanted.
        """
        self._read_labels()
        if self._arrived < self._enough:
            return None
        parts = self._join()
        if self.found < self._rows_min:
            # Labels of events from before `since_us`: at least as many more as are missing must come.
            self._enough = self._arrived + self._rows_min - self.found
            return None
        return _newest(parts, self._rows_max)

    def count(self) -> int:
        """Labelled rows right now, however few."""
        self._read_labels()
        self._join()
        return self.found

    def _join(self) -> list[Rows]:
        parts = [part for partition, labels in enumerate(self._labels) for part in self._matched(partition, labels)]
        self.found = sum(len(part.labels) for part in parts)
        return parts

    def _read_labels(self) -> None:
        for partition, labels in enumerate(self._labels):
            stream = Stream(Topic.FEEDBACK, partition)
            while blocks := self._bus.read(
                stream, self._read_to[partition], max_rows=_READ_ROWS, max_bytes=_READ_BYTES
            ):
                for block in blocks:
                    self._take(labels, bytes(block.value))
                    self._read_to[partition] = block.next
            for old in list(itertools.islice(labels, max(0, len(labels) - self._kept))):
                del labels[old]

    def _take(self, labels: dict[Key, float], lines: bytes) -> None:
        for record in self._decoded(lines):
            if isinstance(record, Feedback) and math.isfinite(record.label):
                key = (record.event_id, record.key)
                labels.pop(key, None)  # a repeat counts as new: the newest label is the one that holds
                labels[key] = record.label
                self._arrived += 1

    def _decoded(self, lines: bytes) -> Sequence[Record]:
        try:
            return decode_block(Topic.FEEDBACK, lines)
        except BadRecord:
            pass  # line by line then
        records: list[Record] = []
        for line in lines.splitlines():
            try:
                records.append(decode(Topic.FEEDBACK, line))
            except BadRecord:
                self.unreadable += 1  # the joiner, whose stream this is, puts it to the dead letters
        return records

    def _matched(self, partition: int, labels: dict[Key, float]) -> Iterator[Rows]:
        """The labelled rows of one partition; an event and its feedback are always in the same one."""
        if not labels:
            return
        stream = Stream(Topic.FEATURES, partition)
        ids = {event_id for event_id, _ in labels}
        position = self._bus.since(stream, self._since_us)
        while blocks := self._bus.read(stream, position, max_rows=_READ_ROWS, max_bytes=_READ_BYTES):
            for block in blocks:
                position = block.next
                try:
                    frame = Frame.decode(block.value).slice(block.skip, block.skip + block.rows)
                except BadRecord:
                    self.unreadable += 1
                    continue
                part = self._labelled(frame, labels, ids) if frame.meta.made_us >= self._since_us else None
                if part is not None:
                    yield part

    def _labelled(self, frame: Frame, labels: dict[Key, float], ids: set[str]) -> Rows | None:
        # Arrow's is_in would build its table of ids anew for each frame, which is dearer than a set.
        event_ids = frame.strings("event_id")
        maybe = [row for row, event_id in enumerate(event_ids) if event_id in ids]
        if not maybe:
            return None
        keys = frame.strings("key")
        rows, values = [], []
        for row in maybe:
            value = labels.get((event_ids[row], keys[row]), labels.get((event_ids[row], "")))
            if value is not None:
                rows.append(row)
                values.append(value)
        if not rows:
            return None
        matrix = self._matrix(frame, rows)
        return Rows(matrix, np.asarray(values), np.full(len(rows), frame.meta.made_us, dtype=np.int64))

    def _matrix(self, frame: Frame, rows: list[int]) -> Array:
        missing = [name for name in self._features if name not in frame.batch.schema.names]
        if missing:
            raise ModelError(
                f"feature frames lack {', '.join(missing)}, which the live model wants",
                hint=f"they have: {', '.join(n for n in frame.batch.schema.names if n not in HEAD)}; train a new model "
                "on them with `mendstream train`",
            )
        return np.column_stack([frame.numbers(name)[rows] for name in self._features]).astype(np.float32)


def when(at_us: int) -> str:
    """A log time for people."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _newest(parts: Sequence[Rows], rows_max: int) -> Rows:
    matrix = np.concatenate([part.matrix for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    made_us = np.concatenate([part.made_us for part in parts])
    order = np.argsort(made_us, kind="stable")[-rows_max:]
    return Rows(matrix[order], labels[order], made_us[order])
