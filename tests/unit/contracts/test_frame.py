"""Frames over the wire and back, cut and joined; bytes that are no frame."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.events import frame
from tests.support.same import difference

from mendstream.contracts import frame as frames
from mendstream.contracts.errors import BadRecord
from mendstream.contracts.frame import HEAD, Frame, FrameMeta

metas = st.builds(
    FrameMeta, partition=st.integers(0, 9), born_us=st.integers(0, 2**60), made_us=st.integers(0, 2**60),
    config=st.integers(0, 99), model=st.text(max_size=5), digest=st.text(max_size=5),
    mode=st.sampled_from(["NORMAL", "SAFE_MODE"]), shadow=st.text(max_size=5), trace=st.text(max_size=5),
)  # fmt: skip
rows = st.lists(
    st.tuples(st.text(max_size=8), st.text(max_size=8), st.integers(-(2**62), 2**62), st.floats(), st.text(max_size=4)),
    max_size=30,
)


def built(rows, meta: FrameMeta) -> Frame:
    ids, keys, times, numbers, words = ([row[place] for row in rows] for place in range(5))
    head = {"event_id": pa.array(ids, pa.string()), "key": pa.array(keys, pa.string()),
            "event_time_us": np.array(times, dtype=np.int64)}  # fmt: skip
    return frames.make(head, {"number": np.array(numbers, dtype=float), "word": pa.array(words, pa.string())}, meta)


def table(given: Frame) -> dict:
    return given.batch.to_pydict()


@given(rows, metas)
def test_a_frame_comes_back_from_the_wire_as_it_was(rows, meta):
    sent = built(rows, meta)
    wire = sent.encode()
    assert type(wire) is bytes
    for value in (wire, memoryview(wire), memoryview(b"x" * 12 + wire)[12:]):
        got = Frame.decode(value)
        assert got.meta == meta
        assert difference(table(sent), table(got)) == ""
        assert got.batch.schema.equals(sent.batch.schema)


@given(rows, metas, st.data())
def test_a_slice_is_those_rows_also_over_the_wire(rows, meta, data):
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    part = built(rows, meta).slice(start, stop)
    assert difference(table(part), table(built(rows[start:stop], meta))) == ""
    again = Frame.decode(part.encode())
    assert difference(table(again), table(part)) == ""
    assert (again.rows, again.meta) == (stop - start, meta)


def test_a_slice_sends_its_own_rows_only():
    whole = frame({"x": np.arange(10_000.0)})
    assert len(whole.slice(5000, 5001).encode()) < 5_000


def test_the_head_comes_first_and_rows_are_born_with_the_frame():
    made = frame({"x": np.array([1.0])}, born_us=17)
    assert made.batch.schema.names == [*HEAD, "x"]
    assert made.numbers("born_us").tolist() == [17]


def test_a_derived_frame_keeps_the_head_and_nothing_else():
    parent = frame({"x": np.array([1.0, 2.0])}, born_us=17)
    made = frames.derive(parent, {"y": np.array([3.0, 4.0])}, parent.meta)
    assert made.batch.schema.names == [*HEAD, "y"]
    assert made.strings("event_id") == ["e0", "e1"]
    assert made.numbers("born_us").tolist() == [17, 17]


def test_numbers_with_gaps_come_with_nan_and_bools_as_they_are():
    given = frame({"n": pa.array([1, None, 3]), "b": pa.array([True, False, True])})
    assert str(given.numbers("n").tolist()) == "[1.0, nan, 3.0]"
    assert given.numbers("b").tolist() == [True, False, True]


# --- joined neighbours -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([1, 2]), st.sampled_from(["v1", "v2"])), max_size=8))
def test_neighbours_of_one_make_become_one_frame_and_rows_stay_in_order(parts):
    made, start = [], 0
    for size, config, model in parts:
        ids = [f"e{n}" for n in range(start, start + size)]
        made.append(frame({"x": np.arange(size)}, ids=ids, config=config, model=model, born_us=100 + start))
        start += size
    joined = frames.merged(made)
    assert [i for f in joined for i in f.strings("event_id")] == [f"e{n}" for n in range(start)]
    assert [b for f in joined for b in f.numbers("born_us")] == [b for f in made for b in f.numbers("born_us")]
    makes = [(f.meta.config, f.meta.model) for f in joined]
    assert all(one != other for one, other in itertools.pairwise(makes))
    for f in joined:
        assert f.meta.born_us == f.numbers("born_us").min()


def test_frames_of_other_columns_or_partitions_stay_apart():
    a, b, c = frame({"x": np.zeros(1)}), frame({"y": np.zeros(1)}), frame({"y": np.zeros(1)}, partition=1)
    assert [f.rows for f in frames.merged([a, b, c])] == [1, 1, 1]
    assert frames.merged([]) == []


# --- no frame --------------------------------------------------------------------------------------------------------


def _stream(batches: list[pa.RecordBatch], schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


BARE = pa.RecordBatch.from_arrays([pa.array([1])], names=["x"])
META = b'{"partition":0,"born_us":1,"made_us":1}'
NO_FRAMES = {
    "nothing": b"",
    "text": b"hello",
    "zeros": b"\0" * 100,
    "Arrow without our meta": _stream([BARE], BARE.schema),
    "Arrow with other meta": _stream([BARE], BARE.schema.with_metadata({"mendstream": "{"})),
    "a stream without a batch": _stream([], BARE.schema.with_metadata({"mendstream": META})),
    "Arrow without the head": _stream([BARE], BARE.schema.with_metadata({"mendstream": META})),
    "cut off": frame({"x": np.arange(100.0)}).encode()[:-500],
}


@pytest.mark.parametrize("value", NO_FRAMES.values(), ids=list(NO_FRAMES))
def test_bytes_that_are_no_frame_are_refused(value):
    with pytest.raises(BadRecord, match="not a frame"):
        Frame.decode(value)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_refused(value):
    with pytest.raises(BadRecord):
        Frame.decode(value)


WIRE = frame({"x": np.arange(5.0), "w": ["a", "b", "c", "d", "e"]}).encode()


@given(st.integers(0, len(WIRE) - 1), st.integers(1, 255))
def test_a_frame_with_a_changed_byte_is_a_frame_or_refused_and_never_anything_else(place, flip):
    value = bytearray(WIRE)
    value[place] ^= flip
    try:
        got = Frame.decode(bytes(value))
    except BadRecord:
        return
    assert got.rows >= 0
    assert len(got.batch.to_pydict()) == got.batch.num_columns


@given(st.integers(0, len(WIRE) - 1))
def test_a_frame_that_was_cut_off_is_refused_unless_all_of_its_rows_are_there(length):
    try:
        got = Frame.decode(WIRE[:length])
    except BadRecord:
        return
    assert difference(table(got), table(Frame.decode(WIRE))) == ""
