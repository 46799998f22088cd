"""Events that come as columns: what becomes of them is what would become of their rows as lines of JSON."""

from __future__ import annotations

import json
import math
from typing import Annotated

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta
from tests.support.trips import trip, trips

from mendstream.agents.pipeline.accepted import Acceptor
from mendstream.agents.pipeline.ingestion import IngestionAgent, Limits
from mendstream.contracts.agent import Batch, Line
from mendstream.contracts.frame import Frame
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.pipeline import Event, Pipeline
from mendstream.contracts.records import DeadReason
from mendstream.contracts.table import Piece, Table, joined

NOW = 1_700_000_000_000_000


class Reading(Event, frozen=True):
    """A bit of everything that a field may be."""

    id: Annotated[str, Meta(min_length=1, max_length=4)]
    key: str
    at: float
    count: Annotated[int, Meta(ge=0, lt=100)]
    level: Annotated[float, Meta(gt=-1.5, le=1e3)] | None
    spare: int | None
    on: bool
    told: bool | None
    note: Annotated[str, Meta(max_length=3)] | None


class Coded(Event, frozen=True):
    id: Annotated[str, Meta(pattern="^[a-z]+$")]
    number: int


class Careful(Event, frozen=True):
    id: str
    key: str

    def __post_init__(self) -> None:
        if self.id == "bad":
            raise ValueError("not this one")


readings = Pipeline("readings", event=Reading, id="id", key="key", time="at")
TYPES = {
    "id": pa.string(), "key": pa.string(), "at": pa.float64(), "count": pa.int64(), "level": pa.float64(),
    "spare": pa.int64(), "on": pa.bool_(), "told": pa.bool_(), "note": pa.string(),
}  # fmt: skip
OTHERS = {"count": [pa.int16(), pa.uint64(), pa.float64()], "level": [pa.float32(), pa.int32()], "at": [pa.int64()]}
numbers = st.floats(-2, 2) | st.sampled_from([math.nan, math.inf, -math.inf, 1e3, 1001.0, -1.5])
text = st.text(max_size=5)
rows = st.fixed_dictionaries(
    {
        "id": text | st.none(), "key": text | st.none(), "at": st.sampled_from([NOW / 1e6, NOW / 1e6 + 9e9, 0.0]),
        "count": st.integers(-3, 103) | st.none(), "level": numbers | st.none(),
        "spare": st.integers(-(2**63), 2**63 - 1) | st.none(), "on": st.booleans() | st.none(),
        "told": st.booleans() | st.none(), "note": text | st.none(),
    }
)  # fmt: skip


def batch_of(given, **types) -> pa.RecordBatch:
    kinds = {**TYPES, **types}
    return pa.RecordBatch.from_arrays(
        [pa.array([r[n] for r in given], type=kinds[n]) for n in kinds], names=list(kinds)
    )


def table_of(batch: pa.RecordBatch, position: int = 100, partition: int = 0) -> Table:
    return Table([Piece(batch, position, partition)])


def step(agent: IngestionAgent, lines, state=None):
    return agent.step(agent.start(0) if state is None else state, Batch("t/i/0/1", 0, LiveConfig(), lines=lines), NOW)


def told(outputs):
    """All that comes of a step, as plain values."""
    frames = [(topic, partition, frame.encode()) for topic, partition, frame in outputs.frames]
    return frames, [(d.reason, d.detail, d.value, d.position, d.partition) for d in outputs.dead]


def both(pipeline, batch, partitions=1, **limits):
    """(of the columns, of the same rows as lines)."""
    agents = [IngestionAgent(pipeline, partitions=partitions, limits=Limits(**limits)) for _ in range(2)]
    table = table_of(batch)
    return step(agents[0], table), step(agents[1], list(table))


def same(pipeline, batch, **more):
    (state, outputs), (other_state, other) = both(pipeline, batch, **more)
    frames, letters = told(outputs)
    other_frames, other_letters = told(other)
    assert frames == other_frames
    assert sorted(letters) == sorted(other_letters)
    assert (state.recent, state.older) == (other_state.recent, other_state.older)
    return outputs


# --- the same as lines ------------------------------------------------------------------------------------------------


@given(given=st.lists(rows, max_size=12), partitions=st.sampled_from([1, 3]))
def test_columns_become_what_their_rows_would_become_as_lines(given, partitions):
    same(readings, batch_of(given), partitions=partitions)


@given(data=st.data(), given=st.lists(rows, min_size=1, max_size=6))
def test_columns_of_other_types_too(data, given):
    name = data.draw(st.sampled_from(sorted(OTHERS)))
    kind = data.draw(st.sampled_from(OTHERS[name]))
    whole = pa.types.is_integer(kind)
    for row in given:
        found = row[name] if row[name] is not None and math.isfinite(row[name]) else 0
        row[name] = (abs(int(found)) if whole else float(found)) if row[name] is not None else None
    same(readings, batch_of(given, **{name: kind}))


@given(given=st.lists(rows, min_size=1, max_size=6), most=st.integers(100, 200))
def test_a_row_that_would_be_too_long_a_line_is_refused_as_that_line(given, most):
    for row in given:
        row["key"] = (row["key"] or "k") * 40
    same(readings, batch_of(given), max_record_bytes=most)


def good(**fields):
    return {"id": "a", "key": "k", "at": NOW / 1e6, "count": 1, "level": 0.5, "spare": 7, "on": True, "told": None,
            "note": None, **fields}  # fmt: skip


def test_a_bad_row_is_a_dead_letter_with_its_json_and_the_rest_goes_on():
    batch = batch_of([good(), good(id="b", count=100), good(id="c", level=math.nan), good(id="d")])
    _, outputs = step(IngestionAgent(readings), table_of(batch, position=7 << 16, partition=3))
    ((_, _, frame),) = outputs.frames
    assert frame.strings("event_id") == ["a", "d"]
    assert [(d.reason, d.position, d.partition) for d in outputs.dead] == [
        (DeadReason.INVALID, (7 << 16) + 1, 3), (DeadReason.NOT_FINITE, (7 << 16) + 2, 3)
    ]  # fmt: skip
    assert json.loads(outputs.dead[0].value) == good(id="b", count=100)
    assert b'"level": NaN' in outputs.dead[1].value


def test_good_rows_are_taken_by_columns_even_where_others_are_bad(monkeypatch):
    agent = IngestionAgent(readings)
    seen = []
    decode = agent._decode
    monkeypatch.setattr(agent, "_decode", lambda value: seen.append(value) or decode(value))
    rows = [good(id=f"{n}") for n in range(100)] + [good(id="bad", count=-1)]
    step(agent, table_of(batch_of(rows)))
    assert len(seen) == 1


def test_an_id_that_came_as_a_line_is_known_when_it_comes_in_a_frame():
    agent = IngestionAgent(readings)
    state, _ = step(agent, [Line(msgspec.json.encode(good()), 1)])
    _, outputs = step(agent, table_of(batch_of([good(), good(id="b"), good(id="b")])), state)
    ((_, _, frame),) = outputs.frames
    assert frame.strings("event_id") == ["b"]


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: batch.drop_columns(["note"]),
        lambda batch: batch.append_column("more", pa.array([1] * batch.num_rows)),
        lambda batch: batch.set_column(4, "level", pa.array(["x"] * batch.num_rows)),
        lambda batch: batch.select(list(reversed(batch.schema.names))),
        lambda batch: batch.set_column(8, "note", pa.nulls(batch.num_rows)),
        lambda batch: batch.slice(0, 0),
    ],
)
def test_other_columns_than_the_events_are_what_their_rows_would_be(change):
    same(readings, change(batch_of([good(), good(id="b", count=-1)])))


def test_an_event_that_looks_at_itself_is_decoded_row_by_row():
    batch = pa.RecordBatch.from_pydict({"id": ["a", "bad"], "key": ["k", "k"]})
    outputs = same(Pipeline("careful", event=Careful, id="id", key="key"), batch)
    assert [d.reason for d in outputs.dead] == [DeadReason.INVALID]


def test_a_pattern_is_decoded_row_by_row_and_a_number_may_be_the_key():
    batch = pa.RecordBatch.from_pydict({"id": ["a", "B"], "number": [5, 6]})
    outputs = same(Pipeline("coded", event=Coded, id="id", key="number"), batch)
    assert [d.value for d in outputs.dead] == [b'{"id":"B","number":6}']


def test_a_pipeline_without_an_id_gives_the_rows_of_a_frame_ids():
    lines = [trip(n) for n in range(5)]
    own = Pipeline("numbered", event=trips.event, key="plane")
    batch = pa.RecordBatch.from_pylist([{**json.loads(line), "poison": False} for line in lines])
    outputs = same(own, batch)
    assert sum(frame.rows for _, _, frame in outputs.frames) == 5


def test_columns_are_taken_as_they_are_wherever_that_can_be_told():
    acceptor = Acceptor(Reading, max_record_bytes=1 << 20)
    found = acceptor.columns(batch_of([good(), good(spare=None, told=True)]))
    assert found is not None
    columns, suspect = found
    assert not suspect.any()
    assert (columns["count"].dtype, columns["spare"].dtype, columns["on"].dtype) == (np.int64, np.float64, np.float64)
    assert np.isnan(columns["spare"]).tolist() == [False, True]


# --- tables as lines --------------------------------------------------------------------------------------------------


def test_a_table_is_its_rows_as_lines():
    pieces = [
        Piece(pa.RecordBatch.from_pydict({"a": [1, 2]}), 10, 5),
        Piece(pa.RecordBatch.from_pydict({"a": [3]}), 20, 5),
    ]
    table = Table(pieces)
    assert [(line.value, line.position, line.partition) for line in table] == [
        (b'{"a":1}', 10, 5), (b'{"a":2}', 11, 5), (b'{"a":3}', 20, 5)
    ]  # fmt: skip
    assert (len(table), table[-1].position, [line.position for line in table[1:]]) == (3, 20, [11, 20])
    assert [line.position for line in table.chosen([0, 2])] == [10, 20]
    with pytest.raises(IndexError):
        table[3]


def test_tables_of_one_make_are_joined_as_columns_and_any_others_as_lines():
    one, other = (table_of(pa.RecordBatch.from_pydict({"a": [n]}), position=n) for n in (1, 2))
    both = joined(one, other)
    assert isinstance(both, Table)
    assert both.batch.column("a").to_pylist() == [1, 2]
    strange = table_of(pa.RecordBatch.from_pydict({"a": ["x"]}))
    assert [line.value for line in joined(one, strange)] == [b'{"a":1}', b'{"a":"x"}']
    assert [line.value for line in joined([Line(b"x", 1)], one)] == [b"x", b'{"a":1}']


def test_frames_of_events_from_columns_can_be_read_again():
    _, outputs = step(IngestionAgent(readings), table_of(batch_of([good(), good(id="b")]).slice(1, 1)))
    ((_, _, frame),) = outputs.frames
    assert Frame.decode(frame.encode()).strings("event_id") == ["b"]
