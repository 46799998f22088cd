"""A frame: an Arrow record batch of events of one partition, with the versions that made it.

Columns `event_id` (string), `key` (string), `event_time_us` and `born_us` (int64; when the event was accepted, the
start of end-to-end latency) come first; the stage's own columns follow.
On the wire: one Arrow IPC stream of one batch; the versions travel in the schema's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mendstream.contracts.errors import BadRecord

HEAD = ("event_id", "key", "event_time_us", "born_us")
_META = b"mendstream"
_END = b"\xff\xff\xff\xff\0\0\0\0"
"""How an Arrow IPC stream ends."""
_POOL = pa.system_memory_pool()
"""Arrow's usual one gives large blocks back to the kernel soon, and gets them again page by page for the next frame."""
_NO_FRAME = (pa.ArrowException, StopIteration, KeyError, TypeError, ValueError, OSError)
"""What Arrow and msgspec raise for bytes that are something else, or were torn."""


class FrameMeta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What made the frame, and when; the same for all of its rows."""

    partition: int
    born_us: int
    """When the first of its events was accepted."""
    made_us: int
    """When this stage made the frame: the serving time of its pane."""
    config: int = 0
    model: str = ""
    digest: str = ""
    mode: str = "NORMAL"
    shadow: str = ""
    trace: str = ""
    """W3C traceparent."""


_encode_meta = msgspec.json.Encoder().encode
_decode_meta = msgspec.json.Decoder(FrameMeta).decode


class Frame:
    """Rows of one partition. Immutable."""

    __slots__ = ("batch", "meta")

    def __init__(self, batch: pa.RecordBatch, meta: FrameMeta) -> None:
        self.batch = batch
        self.meta = meta

    @property
    def rows(self) -> int:
        return int(self.batch.num_rows)

    def slice(self, start: int, stop: int) -> Frame:
        """Rows start..stop, sharing the memory."""
        return Frame(self.batch.slice(start, stop - start), self.meta)

    def strings(self, name: str) -> list[str]:
        return self.batch.column(name).to_pylist()  # type: ignore[no-any-return]

    def numbers(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        """A numeric column as numpy, without a copy where Arrow allows it."""
        column = self.batch.column(name)
        return column.to_numpy(zero_copy_only=column.null_count == 0 and not pa.types.is_boolean(column.type))  # type: ignore[no-any-return]

    def encode(self) -> bytes:
        # What a stream writer writes, message by message: without a writer, and without a buffer that has to grow.
        schema = self.batch.schema.with_metadata({_META: _encode_meta(self.meta)})
        return b"".join((schema.serialize(), self.batch.serialize(memory_pool=_POOL), _END))

    @classmethod
    def decode(cls, value: bytes | memoryview) -> Frame:
        """Raises BadRecord if `value` is not a frame."""
        try:
            # Message by message, as it is written: a stream reader costs twice the reading of a small frame.
            messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(value))
            schema = pa.ipc.read_schema(messages.read_next_message())
            batch = pa.ipc.read_record_batch(messages.read_next_message(), schema)
            batch.validate(full=True)  # else a torn one could bring the process down later
            if tuple(batch.schema.names[: len(HEAD)]) != HEAD:
                raise BadRecord(f"not a frame: its columns begin with {batch.schema.names[: len(HEAD)]}, not {HEAD}")
            return cls(batch, _decode_meta(schema.metadata[_META]))
        except _NO_FRAME as error:
            raise BadRecord(f"not a frame: {error}") from error


def make(head: Mapping[str, Any], columns: Mapping[str, Any], meta: FrameMeta) -> Frame:
    """A frame from Arrow arrays, numpy arrays or lists; `head` holds the columns of HEAD.

    Without `born_us`, all rows were born at the frame's own.
    """
    if "born_us" not in head:
        head = {**head, "born_us": np.full(len(head["event_id"]), meta.born_us, dtype=np.int64)}
    names = [*HEAD, *columns]
    arrays = [_arrow(head[name]) for name in HEAD] + [_arrow(values) for values in columns.values()]
    return Frame(pa.RecordBatch.from_arrays(arrays, names=names), meta)


def merged(frames: Sequence[Frame]) -> list[Frame]:
    """Neighbours of one make as one frame, in order: what is done per frame is then done once."""
    found: list[Frame] = []
    run: list[Frame] = []
    for frame in frames:
        if run and not _alike(run[-1], frame):
            found.append(_joined(run))
            run = []
        run.append(frame)
    return [*found, _joined(run)] if run else found


def _alike(one: Frame, other: Frame) -> bool:
    a, b = one.meta, other.meta
    same = (a.partition, a.config, a.model, a.digest, a.mode, a.shadow, a.trace)
    return same == (b.partition, b.config, b.model, b.digest, b.mode, b.shadow, b.trace) and one.batch.schema.equals(
        other.batch.schema
    )


def _joined(frames: list[Frame]) -> Frame:
    if len(frames) == 1:
        return frames[0]
    meta = msgspec.structs.replace(frames[-1].meta, born_us=min(frame.meta.born_us for frame in frames))
    return Frame(pa.concat_batches([frame.batch for frame in frames]), meta)


def derive(parent: Frame, columns: Mapping[str, Any], meta: FrameMeta) -> Frame:
    """A frame of the same events with other columns."""
    return make({name: parent.batch.column(name) for name in HEAD}, columns, meta)


def _arrow(values: Any) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values)
