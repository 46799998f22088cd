"""Labelled rows straight from the log: feature frames and feedback since a time come in, a training matrix goes out.

Labels are cheap to read and arrive later than features, so a harvest counts labels first and reads frames only when
there may be enough: waiting costs next to nothing however wide the frames are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mendstream.contracts.errors import BadRecord, ModelError
from mendstream.contracts.frame import HEAD, Frame
from mendstream.contracts.models import Array
from mendstream.contracts.ports import Bus, Position
from mendstream.contracts.records import Feedback, decode
from mendstream.contracts.topics import Stream, Topic, streams_of

LABELS_KEPT = 100_000
"""The newest labels that a harvest holds; a bound on memory."""
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
        self._frames = streams_of(Topic.FEATURES, partitions)
        self._labels: dict[Key, float] = {}
        self._read_to: dict[Stream, Position] = {}
        for stream in streams_of(Topic.FEEDBACK, partitions):
            first = seek(bus, stream, since_us)
            self._read_to[stream] = max(first, bus.bounds(stream)[1] - LABELS_KEPT)
        self._enough = rows_min
        self.found = 0
        """Rows with a label, when frames were last read."""
        self.unreadable = 0
        """Feedback lines and frames that could not be decoded."""

    @property
    def labels(self) -> int:
        return len(self._labels)

    def rows(self) -> Rows | None:
        """The newest `rows_max` labelled rows; None while there are fewer than `rows_min`.

        Raises ModelError if the frames lack a feature that is wanted.
        """
        self._read_labels()
        if len(self._labels) < self._enough:
            return None
        parts = self._join()
        if self.found < self._rows_min:
            # Labels of events from before `since_us`: at least as many more as are missing must come.
            self._enough = len(self._labels) + self._rows_min - self.found
            return None
        return _newest(parts, self._rows_max)

    def count(self) -> int:
        """Labelled rows right now, however few."""
        self._read_labels()
        self._join()
        return self.found

    def _join(self) -> list[Rows]:
        parts = list(self._matched()) if self._labels else []
        self.found = sum(len(part.labels) for part in parts)
        return parts

    def _read_labels(self) -> None:
        for stream in self._read_to:
            while blocks := self._bus.read(stream, self._read_to[stream], max_rows=_READ_ROWS, max_bytes=_READ_BYTES):
                for block in blocks:
                    self._take(bytes(block.value))
                    self._read_to[stream] = block.next
        for old in list(self._labels)[: max(0, len(self._labels) - LABELS_KEPT)]:
            del self._labels[old]

    def _take(self, lines: bytes) -> None:
        for line in lines.splitlines():
            try:
                record = decode(Topic.FEEDBACK, line)
            except BadRecord:
                self.unreadable += 1  # the joiner, whose stream this is, puts it to the dead letters
                continue
            if isinstance(record, Feedback) and np.isfinite(record.label):
                key = (record.event_id, record.key)
                self._labels.pop(key, None)  # a repeat counts as new: the newest label is the one that holds
                self._labels[key] = record.label

    def _matched(self) -> Iterator[Rows]:
        ids = pa.array({event_id for event_id, _ in self._labels}, type=pa.string())
        for stream in self._frames:
            position = seek(self._bus, stream, self._since_us)
            while blocks := self._bus.read(stream, position, max_rows=_READ_ROWS, max_bytes=_READ_BYTES):
                for block in blocks:
                    position = block.next
                    try:
                        frame = Frame.decode(block.value).slice(block.skip, block.skip + block.rows)
                    except BadRecord:
                        self.unreadable += 1
                        continue
                    part = self._labelled(frame, ids) if frame.meta.made_us >= self._since_us else None
                    if part is not None:
                        yield part

    def _labelled(self, frame: Frame, ids: pa.Array) -> Rows | None:
        found = np.flatnonzero(pc.is_in(frame.batch.column("event_id"), value_set=ids).to_numpy(zero_copy_only=False))
        if not len(found):
            return None
        event_ids, keys = frame.strings("event_id"), frame.strings("key")
        labels = [self._label(event_ids[row], keys[row]) for row in found.tolist()]
        known = [index for index, label in enumerate(labels) if label is not None]
        if not known:
            return None
        missing = [name for name in self._features if name not in frame.batch.schema.names]
        if missing:
            raise ModelError(
                f"feature frames lack {', '.join(missing)}, which the live model wants",
                hint=f"they have: {', '.join(n for n in frame.batch.schema.names if n not in HEAD)}; train a new model "
                "on them with `mendstream train`",
            )
        rows = found[known]
        matrix = np.column_stack([frame.numbers(name)[rows] for name in self._features]).astype(np.float32)
        return Rows(
            matrix,
            np.asarray([labels[index] for index in known], dtype=np.float64),
            np.full(len(rows), frame.meta.made_us, dtype=np.int64),
        )

    def _label(self, event_id: str, key: str) -> float | None:
        held = self._labels.get((event_id, key))
        return held if held is not None else self._labels.get((event_id, ""))


def seek(bus: Bus, stream: Stream, since_us: int) -> Position:
    """The first position of `stream` whose block was appended at `since_us` or later (its end if none was)."""
    low, high = bus.bounds(stream)
    while low < high:
        middle = (low + high) // 2
        blocks = bus.read(stream, middle, max_rows=1, max_bytes=1)
        if not blocks or blocks[0].at_us >= since_us:
            high = middle
        else:
            low = blocks[0].next
    return low


def _newest(parts: Sequence[Rows], rows_max: int) -> Rows:
    matrix = np.concatenate([part.matrix for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    made_us = np.concatenate([part.made_us for part in parts])
    order = np.argsort(made_us, kind="stable")[-rows_max:]
    return Rows(matrix[order], labels[order], made_us[order])
