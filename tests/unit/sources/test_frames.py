"""Frames on the wire: what our client sends is read as it was, what is no frame is told to be none."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from mendstream.adapters.sources.frames import MOST_ROWS, encode, read
from mendstream.client import FrameProducer, _split
from mendstream.contracts.errors import BadRecord, UsageError
from mendstream.contracts.pipeline import Event


class Order(Event, frozen=True):
    id: str
    amount: Annotated[float, Meta(ge=0)]
    count: int | None
    vip: bool


COLUMNS = {"id": ["a", "b"], "amount": np.array([1.0, 2.0]), "count": np.array([3.0, np.nan]), "vip": [True, False]}


def stream(table: pa.Table, **options) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, **options)
    return sink.getvalue().to_pybytes()


@given(values=st.lists(st.tuples(st.text(), st.integers(-9, 9) | st.none()), max_size=5))
def test_what_is_written_is_read(values):
    batch = pa.RecordBatch.from_arrays(
        [pa.array([a for a, _ in values], pa.string()), pa.array([b for _, b in values], pa.int64())], names=["a", "b"]
    )
    assert read(encode(batch)).equals(batch)


def test_whatever_writes_arrow_can_be_the_producer():
    table = pa.table(
        {"a": pa.array(["x", "y", "x"]).dictionary_encode(), "b": pa.array(["u", None, "v"], pa.large_string())}
    )
    found = read(stream(table, max_chunksize=2))
    assert found.to_pydict() == {"a": ["x", "y", "x"], "b": ["u", None, "v"]}
    assert set(found.schema.types) == {pa.string()}
    assert read(stream(pa.table({"a": pa.array([], pa.int64())}))).num_rows == 0


@given(cut=st.integers(0, 500), flips=st.lists(st.tuples(st.integers(0, 500), st.integers(1, 255)), max_size=3))
def test_torn_bytes_are_refused_or_are_a_frame(cut, flips):
    whole = bytearray(encode(pa.RecordBatch.from_pydict({"a": ["x", "yy"], "b": [1, 2]})))
    for at, change in flips:
        whole[at % len(whole)] ^= change
    try:
        found = read(bytes(whole[: len(whole) - cut % len(whole)]))
    except BadRecord:
        return
    found.to_pylist()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "not a frame"),
        (b'{"id":"a"}', "not a frame"),
        (
            encode(pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])),
            "two columns of one name",
        ),
        (encode(pa.RecordBatch.from_pydict({"a": [[1]]})), "column a of a frame is of list"),
        (encode(pa.RecordBatch.from_pydict({"a": [b"x"]})), "column a of a frame is of binary"),
        (encode(pa.RecordBatch.from_arrays([pa.nulls(MOST_ROWS + 1)], names=["a"])), "at most 65536"),
    ],
)
def test_what_is_no_frame_of_events_is_refused_with_the_reason(value, why):
    with pytest.raises(BadRecord, match=why):
        read(value)


# --- what the client makes of events ---------------------------------------------------------------------------------


class Unsent(FrameProducer):
    """Without a broker: what would be produced is kept."""

    def __init__(self, *, partitions=1, **more):
        self._partitions = partitions
        self.sent: list[tuple[int, pa.RecordBatch]] = []
        super().__init__("127.0.0.1:1", "orders", event=Order, **more)

    def _count(self):
        return self._partitions

    def _produce(self, partition, value):
        self.sent.append((partition, read(value)))


def test_columns_are_sent_as_the_event_has_them_and_nan_as_missing():
    out = Unsent()
    out.send(COLUMNS)
    out.send([Order("a", 1.0, None, True)])
    out.send([])
    assert [batch.to_pylist() for _, batch in out.sent] == [
        [
            {"id": "a", "amount": 1.0, "count": 3, "vip": True},
            {"id": "b", "amount": 2.0, "count": None, "vip": False},
        ],
        [{"id": "a", "amount": 1.0, "count": None, "vip": True}],
    ]


def test_rows_of_a_key_go_to_one_partition_in_order():
    out = Unsent(partitions=3, key="id")
    out.send([Order(str(n % 7), float(n), None, True) for n in range(70)])
    homes: dict[str, int] = {}
    for partition, batch in out.sent:
        assert {homes.setdefault(name, partition) for name in batch.column("id").to_pylist()} == {partition}
        amounts = batch.column("amount").to_pylist()
        assert amounts == sorted(amounts)
    assert len(homes) == 7


def test_without_a_key_frames_take_turns_among_the_partitions():
    out = Unsent(partitions=3)
    for _ in range(6):
        out.send(COLUMNS)
    assert sorted(partition for partition, _ in out.sent) == [0, 0, 1, 1, 2, 2]


def test_many_or_large_rows_become_several_frames():
    out = Unsent(rows=10)
    out.send([Order(str(n), 1.0, None, True) for n in range(25)])
    assert [batch.num_rows for _, batch in out.sent] == [10, 10, 5]
    large = pa.RecordBatch.from_pydict({"a": ["x" * 500_000, "y", "z" * 500_000, "w" * 2_000_000, "v"]})
    frames = list(_split(large, 2000))
    assert [name[0] for frame in frames for name in frame.column("a").to_pylist()] == list("xyzwv")
    assert all(frame.num_rows == 1 or frame.nbytes <= 900_000 for frame in frames)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"id": ["a"]}, "columns id"),
        ({**COLUMNS, "more": [1, 2]}, "more"),
        ({**COLUMNS, "amount": ["x", "y"]}, "not the columns of Order"),
        ({**COLUMNS, "amount": [1.0]}, "not the columns of Order"),
        ({**COLUMNS, "count": [1.5, 2.0]}, "not the columns of Order"),
        ({**COLUMNS, "count": ["1", "2"]}, "string where the event has int64"),
        ({**COLUMNS, "id": [1, 2]}, "int64 where the event has string"),
        ({**COLUMNS, "vip": [1, 0]}, "int64 where the event has bool"),
    ],
)
def test_columns_that_no_event_could_have_are_refused_at_once(columns, why):
    with pytest.raises(UsageError, match=why):
        Unsent().send(columns)


def test_a_key_that_is_no_field_is_refused():
    with pytest.raises(UsageError, match="no field of Order"):
        Unsent(key="nothing")
