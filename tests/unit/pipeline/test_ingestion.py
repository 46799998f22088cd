"""Whatever comes in: what is an event becomes one, what is none becomes a dead letter with its bytes."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta
from tests.support.trips import readings, trip, trips

from mendstream.agents.panes import PANE_US
from mendstream.agents.pipeline.ingestion import IngestionAgent, Limits
from mendstream.contracts.agent import Batch, Line, Outputs, Unreadable
from mendstream.contracts.errors import UsageError
from mendstream.contracts.ids import partitions_of
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.pipeline import Event, Pipeline
from mendstream.contracts.records import DeadReason, decode_block
from mendstream.contracts.topics import Topic

NOW = 1_700_000_000_000_000
YEAR_S = 365 * 24 * 3600


def run(
    agent: IngestionAgent, *lines: bytes, state=None, feedback: tuple[bytes, ...] = (), turn: str = "i/ingestion/0/7"
):
    """(state, outputs) of one step."""
    batch = Batch(
        turn, 0, LiveConfig(version=3), lines=[Line(line, 100 + n) for n, line in enumerate(lines)],
        feedback=[Line(line, 900 + n) for n, line in enumerate(feedback)],
    )  # fmt: skip
    return agent.step(agent.start(0) if state is None else state, batch, NOW)


def ids(outputs: Outputs) -> list[str]:
    return [event_id for _, _, frame in outputs.frames for event_id in frame.strings("event_id")]


def reasons(outputs: Outputs) -> list[DeadReason]:
    return [letter.reason for letter in outputs.dead]


GOOD = {"id": "a", "plane": "N1", "hour": 5, "delay": 3.5, "seats": None}


def but(**fields) -> bytes:
    """GOOD with other fields."""
    return json.dumps({**GOOD, **fields}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


# --- what the source could not read ----------------------------------------------------------------------------------


def test_what_its_source_could_not_read_is_a_dead_letter_with_its_own_bytes_and_reason():
    agent = IngestionAgent(trips)
    unreadable = Unreadable(b"\0\0\0\0\7", DeadReason.NOT_FINITE, "NaN")
    lines = [Line(but(), 1), Line(b"", 2, unreadable=unreadable), Line(but(id="b"), 3)]
    feedback = [Line(b"", 9, unreadable=unreadable._replace(reason=DeadReason.MALFORMED))]
    _, outputs = agent.step(agent.start(0), Batch("t", 0, LiveConfig(), lines=lines, feedback=feedback), NOW)
    assert ids(outputs) == ["a", "b"]
    assert [(d.reason, d.value, d.detail, d.position) for d in outputs.dead] == [
        (DeadReason.NOT_FINITE, b"\0\0\0\0\7", "NaN", 2), (DeadReason.MALFORMED, b"\0\0\0\0\7", "NaN", 9)
    ]  # fmt: skip


# --- good events -----------------------------------------------------------------------------------------------------


def test_an_event_becomes_a_row_with_id_key_times_and_its_own_columns():
    _, outputs = run(IngestionAgent(trips), trip(5), trip(6))
    ((topic, partition, frame),) = outputs.frames
    assert (topic, partition, outputs.dead) == (Topic.RAW_EVENTS, 0, [])
    assert frame.strings("event_id") == ["t5", "t6"]
    assert frame.strings("key") == ["N5", "N6"]
    assert frame.numbers("event_time_us").tolist() == frame.numbers("born_us").tolist() == [NOW, NOW]
    assert frame.strings("plane") == ["N5", "N6"]
    assert frame.numbers("hour").tolist() == [5, 6]
    assert frame.numbers("seats").tolist()[1] == 100.0
    assert str(frame.numbers("seats")[0]) == "nan"
    assert (frame.meta.born_us, frame.meta.made_us, frame.meta.config, frame.meta.partition) == (NOW, NOW, 3, 0)


def test_order_is_kept():
    _, outputs = run(IngestionAgent(trips), *(trip(n) for n in range(50)))
    assert ids(outputs) == [f"t{n}" for n in range(50)]


def test_keys_go_to_the_partition_that_murmur2_names_in_order():
    _, outputs = run(IngestionAgent(trips, partitions=3), *(trip(n) for n in range(60)))
    assert [partition for _, partition, _ in outputs.frames] == [0, 1, 2]
    for _, partition, frame in outputs.frames:
        assert set(partitions_of(frame.batch.column("key"), 3).tolist()) == {partition}
        numbers = [int(event_id[1:]) for event_id in frame.strings("event_id")]
        assert numbers == sorted(numbers)
    assert sorted(ids(outputs)) == sorted(f"t{n}" for n in range(60))


def test_issued_ids_carry_their_partition_and_repeat_in_no_turn():
    agent = IngestionAgent(readings, partitions=3)
    lines = [json.dumps({"meter": n, "value": 1.0, "at": NOW / 1e6}).encode() for n in range(30)]
    state, first = run(agent, *lines, turn="feed01/ingestion/0/7")
    _, second = run(agent, *lines, state=state, turn="feed01/ingestion/0/8")
    for _, partition, frame in first.frames:
        assert {event_id.split(".")[0] for event_id in frame.strings("event_id")} == {str(partition)}
    found = ids(first) + ids(second)
    assert len(set(found)) == len(found) == 60
    assert "feed01.ingestion.0.7" in found[0]


def test_an_event_time_is_taken_from_the_event():
    line = json.dumps({"meter": 7, "value": 1.0, "at": 1_699_999_999.25}).encode()
    _, outputs = run(IngestionAgent(readings), line)
    ((_, _, frame),) = outputs.frames
    assert frame.numbers("event_time_us").tolist() == [1_699_999_999_250_000]
    assert frame.numbers("born_us").tolist() == [NOW]


def test_a_number_as_key_or_id_is_written_as_the_event_has_it():
    class Numbered(Event, frozen=True):
        id: int
        meter: int | None

    pipeline = Pipeline("numbered", event=Numbered, id="id", key="meter")
    _, outputs = run(IngestionAgent(pipeline), b'{"id":9007199254740993,"meter":12}', b'{"id":2,"meter":null}')
    ((_, _, frame),) = outputs.frames
    assert frame.strings("event_id") == ["9007199254740993"]
    assert frame.strings("key") == ["12"]
    assert reasons(outputs) == [DeadReason.NO_KEY]


def test_an_empty_batch_is_harmless():
    agent = IngestionAgent(trips)
    state, outputs = agent.step(agent.start(0), Batch("t", 0, LiveConfig()), NOW)
    assert (outputs.frames, outputs.dead, outputs.changes) == ([], [], None)
    assert state == agent.start(0)


# --- bad input -------------------------------------------------------------------------------------------------------

BAD = {
    "empty": (b"", DeadReason.MALFORMED, ""),
    "not json": (b"hello", DeadReason.MALFORMED, "invalid character"),
    "cut off": (trip(1)[:-5], DeadReason.MALFORMED, "truncated"),
    "two in one line": (trip(1) + trip(2), DeadReason.MALFORMED, ""),
    "not utf-8": (but(plane="N").replace(b"N", b"\xff"), DeadReason.MALFORMED, "utf-8"),
    "half a surrogate": (but().replace(b"N1", b"\\ud800"), DeadReason.MALFORMED, "surrogate"),
    "a list": (b"[1,2,3]", DeadReason.INVALID, "Expected `object`"),
    "null": (b"null", DeadReason.INVALID, "Expected `object`"),
    "a number": (b"42", DeadReason.INVALID, "Expected `object`"),
    "wrong type": (but(hour="five"), DeadReason.INVALID, "$.hour"),
    "a float for an int": (but(hour=5.5), DeadReason.INVALID, "$.hour"),
    "a bool for a number": (but(delay=True), DeadReason.INVALID, "$.delay"),
    "null where none may be": (but(plane=None), DeadReason.INVALID, "$.plane"),
    "missing field": (without("delay"), DeadReason.INVALID, "`delay`"),
    "missing key": (without("plane"), DeadReason.INVALID, "`plane`"),
    "missing id": (without("id"), DeadReason.INVALID, "`id`"),
    "unknown field": (but(extra=1), DeadReason.INVALID, "`extra`"),
    "out of bounds": (but(hour=24), DeadReason.INVALID, "<= 23"),
    "below bounds": (but(delay=-61), DeadReason.INVALID, ">= -60"),
    "an integer that no column holds": (but(seats=10**400), DeadReason.INVALID, "out of range"),
    "infinity": (but().replace(b"3.5", b"1e999"), DeadReason.NOT_FINITE, "out of range"),
    "minus infinity": (but().replace(b"3.5", b"-1e999"), DeadReason.NOT_FINITE, "out of range"),
    "the word NaN": (but(delay=float("nan")), DeadReason.MALFORMED, "invalid character"),
    "the word Infinity": (but(delay=float("inf")), DeadReason.MALFORMED, "invalid character"),
    "10 MB": (but(plane="x" * 10_000_000), DeadReason.TOO_LARGE, "ingestion.max_record_bytes"),
    "10 MB of nothing": (b" " * 10_000_000, DeadReason.TOO_LARGE, "10000000 bytes"),
    "deep arrays": (b"[" * 500_000, DeadReason.INVALID, "Expected `object`"),
    "deep arrays inside": (but().replace(b"3.5", b"[" * 500_000), DeadReason.INVALID, "$.delay"),
    "deep objects": (b'{"id":' * 100_000, DeadReason.INVALID, "$.id"),
    "deep arrays in an unknown field": (b'{"x":' + b"[" * 500_000, DeadReason.INVALID, "`x`"),
}


@pytest.mark.parametrize(("line", "reason", "detail"), BAD.values(), ids=list(BAD))
def test_a_bad_line_is_a_dead_letter_with_its_bytes_and_its_neighbours_go_on(line, reason, detail):
    state, outputs = run(IngestionAgent(trips), trip(1), line, trip(2))
    assert ids(outputs) == ["t1", "t2"]
    (letter,) = outputs.dead
    assert (letter.value, letter.reason) == (line, reason)
    assert (letter.topic, letter.partition, letter.position, letter.stage) == ("source", 0, 101, "ingestion")
    assert detail in letter.detail
    assert letter.id == "i/ingestion/0/7/1"
    (totals,) = state.panes.totals.values()
    assert (totals.n, totals.losses) == (2, {"dead": [3, 1], "repeat": [3, 0]})


def test_all_bad_lines_at_once_are_told_apart():
    lines = [line for line, _, _ in BAD.values() if len(line) < 1_000_000]
    _state, outputs = run(IngestionAgent(trips), *lines)
    assert outputs.frames == []
    assert [letter.value for letter in sorted(outputs.dead, key=lambda letter: letter.position)] == lines
    assert len({letter.id for letter in outputs.dead}) == len(lines)


def test_an_integer_of_more_than_64_bits_in_an_int_column_is_out_of_range():
    class Wide(Event, frozen=True):
        key: str
        n: int

    lines = [b'{"key":"a","n":%d}' % n for n in (1, 10**30, 2**63, -(2**63), 2)]
    _, outputs = run(IngestionAgent(Pipeline("wide", event=Wide, key="key")), *lines)
    ((_, _, frame),) = outputs.frames
    assert frame.numbers("n").tolist() == [1, -(2**63), 2]
    assert reasons(outputs) == [DeadReason.INVALID, DeadReason.INVALID]
    assert [letter.position for letter in outputs.dead] == [101, 102]


SHORT = [line for line, _, _ in BAD.values() if len(line) < 200]


@given(st.lists(st.one_of(st.binary(max_size=60), st.just(trip(1)), st.sampled_from(SHORT)), max_size=12))
def test_every_line_is_either_an_event_a_repeat_or_a_dead_letter(lines):
    state, outputs = run(IngestionAgent(trips), *lines)
    events = len(ids(outputs))
    repeats = sum(totals.losses["repeat"][1] for totals in state.panes.totals.values())
    assert events + repeats + len(outputs.dead) == len(lines)


@pytest.mark.parametrize(
    ("at", "word"),
    [
        (NOW / 1e6 + 301, "ahead of the clock"),
        (NOW / 1e6 - YEAR_S - 1, "too old"),
        (1e300, "ahead of the clock"),
        (-1e300, "too old"),
    ],
)
def test_a_time_that_cannot_be_is_a_dead_letter(at, word):
    lines = [json.dumps({"meter": 7, "value": 1.0, "at": value}).encode() for value in (NOW / 1e6, at, NOW / 1e6 + 299)]
    _, outputs = run(IngestionAgent(readings), *lines)
    assert len(ids(outputs)) == 2
    (letter,) = outputs.dead
    assert (letter.reason, letter.value) == (DeadReason.BAD_TIME, lines[1])
    assert word in letter.detail
    assert "ingestion.max_ahead_s" in letter.detail


def test_a_time_may_be_almost_a_year_old():
    line = json.dumps({"meter": 7, "value": 1.0, "at": NOW / 1e6 - YEAR_S + 60}).encode()
    assert run(IngestionAgent(readings), line)[1].dead == []


def test_a_missing_time_is_a_dead_letter():
    class Timed(Event, frozen=True):
        key: str
        at: float | None

    _, outputs = run(IngestionAgent(Pipeline("timed", event=Timed, key="key", time="at")), b'{"key":"a","at":null}')
    assert reasons(outputs) == [DeadReason.BAD_TIME]
    assert "missing" in outputs.dead[0].detail


def test_a_time_that_is_no_number_is_refused_when_the_agent_is_made():
    class Timed(Event, frozen=True):
        key: str
        at: str

    with pytest.raises(UsageError, match="time = 'at' is no number"):
        IngestionAgent(Pipeline("timed", event=Timed, key="key", time="at"))


def test_limits_are_the_users():
    agent = IngestionAgent(trips, limits=Limits(max_record_bytes=len(trip(1))))
    _, outputs = run(agent, trip(1), trip(1, plane="N" * 20))
    assert ids(outputs) == ["t1"]
    assert reasons(outputs) == [DeadReason.TOO_LARGE]


def test_very_long_keys_do_not_need_memory_for_the_whole_batch():
    """Each line is within its limit; as a matrix of bytes they would take gigabytes."""
    agent = IngestionAgent(trips, partitions=4)
    lines = [trip(n, plane="x" * 900_000 if n == 7 else f"N{n}") for n in range(2000)]
    _, outputs = run(agent, *lines)
    assert len(ids(outputs)) == 2000


# --- repeats ---------------------------------------------------------------------------------------------------------


def test_a_repeat_inside_a_batch_is_dropped_the_first_one_stays():
    state, outputs = run(IngestionAgent(trips), trip(1), trip(2), trip(1, delay=99.0), trip(3))
    assert ids(outputs) == ["t1", "t2", "t3"]
    assert outputs.dead == []
    ((_, _, frame),) = outputs.frames
    assert 99.0 not in frame.numbers("delay").tolist()
    (totals,) = state.panes.totals.values()
    assert (totals.n, totals.losses) == (3, {"dead": [4, 0], "repeat": [4, 1]})


def test_a_repeat_in_a_later_batch_is_dropped():
    agent = IngestionAgent(trips)
    state, _ = run(agent, trip(1), trip(2))
    _, outputs = run(agent, trip(2), trip(3), state=state)
    assert ids(outputs) == ["t3"]


def test_a_repeat_after_a_restart_is_dropped():
    agent = IngestionAgent(trips)
    _, first = run(agent, trip(1), trip(2))
    _, outputs = run(agent, trip(1), trip(3), state=agent.apply(agent.start(0), first.changes))
    assert ids(outputs) == ["t3"]


def test_the_same_id_under_another_key_is_another_event():
    _, outputs = run(IngestionAgent(trips), trip(1, plane="N1"), trip(1, plane="N2"))
    assert ids(outputs) == ["t1", "t1"]


def test_a_line_that_was_refused_does_not_make_its_repeat_one():
    _, outputs = run(IngestionAgent(trips), trip(1, hour=99), trip(1))
    assert ids(outputs) == ["t1"]


def test_repeats_are_known_within_the_window_and_memory_is_bounded():
    agent = IngestionAgent(trips, limits=Limits(dedupe_window=10))
    state, _ = run(agent, *(trip(n) for n in range(10)))
    for n in range(10, 100):
        state, outputs = run(agent, trip(n), trip(n - 9), state=state)
        assert ids(outputs) == [f"t{n}"]
        assert len(state.recent) + len(state.older) <= 20
    _, outputs = run(agent, trip(0), state=state)
    assert ids(outputs) == ["t0"]


@pytest.mark.parametrize("pipeline", [trips, readings])
def test_events_are_counted_with_and_without_a_window_for_repeats(pipeline):
    agent = IngestionAgent(pipeline, limits=Limits(dedupe_window=0))
    line = trip(1) if pipeline is trips else json.dumps({"meter": 1, "value": 1.0, "at": NOW / 1e6}).encode()
    state, outputs = run(agent, line, line)
    assert len(ids(outputs)) == 2
    (totals,) = state.panes.totals.values()
    assert (totals.pane, totals.n) == (NOW // PANE_US, 2)


# --- feedback --------------------------------------------------------------------------------------------------------


def test_feedback_goes_to_its_events_partition():
    agent = IngestionAgent(trips, partitions=3)
    given = [json.dumps({"event_id": f"t{n}", "label": n % 2, "key": f"N{n % 11}"}).encode() for n in range(30)]
    _, outputs = run(agent, feedback=tuple(given))
    homes = {f"N{n}": partition for _, partition, frame in run(agent, *(trip(n) for n in range(30)))[1].frames
             for n in range(11) if f"N{n}" in frame.strings("key")}  # fmt: skip
    found = [
        (partition, record)
        for topic, partition, block, _ in outputs.blocks
        for record in decode_block(Topic.FEEDBACK, block)
        if topic is Topic.FEEDBACK
    ]
    assert len(found) == 30
    assert all(homes[record.key] == partition for partition, record in found)
    assert outputs.dead == []


def test_feedback_by_an_issued_id_needs_no_key():
    agent = IngestionAgent(readings, partitions=3)
    _, outputs = run(agent, feedback=(b'{"event_id":"2.feed01.ingestion.0.7.11","label":true}',))
    ((topic, partition, block, rows),) = outputs.blocks
    assert (topic, partition, rows) == (Topic.FEEDBACK, 2, 1)
    (record,) = decode_block(Topic.FEEDBACK, block)
    assert (record.event_id, record.label, record.at_us) == ("2.feed01.ingestion.0.7.11", 1.0, NOW)


def test_feedback_keeps_its_own_time():
    _, outputs = run(IngestionAgent(trips), feedback=(b'{"event_id":"a","label":0.5,"key":"k","at_us":17}',))
    ((_, _, block, _),) = outputs.blocks
    assert decode_block(Topic.FEEDBACK, block)[0].at_us == 17


BAD_FEEDBACK = {
    "malformed": (b"{", DeadReason.MALFORMED),
    "not utf-8": (b'{"event_id":"\xff","label":1,"key":"k"}', DeadReason.MALFORMED),
    "without label": (b'{"event_id":"a","key":"k"}', DeadReason.INVALID),
    "without id": (b'{"label":1,"key":"k"}', DeadReason.INVALID),
    "label of text": (b'{"event_id":"a","label":"late","key":"k"}', DeadReason.INVALID),
    "label above 1": (b'{"event_id":"a","label":1.5,"key":"k"}', DeadReason.INVALID),
    "label below 0": (b'{"event_id":"a","label":-1,"key":"k"}', DeadReason.INVALID),
    "label infinite": (b'{"event_id":"a","label":1e999,"key":"k"}', DeadReason.NOT_FINITE),
    "label NaN": (b'{"event_id":"a","label":NaN,"key":"k"}', DeadReason.MALFORMED),
    "unknown field": (b'{"event_id":"a","label":1,"key":"k","x":1}', DeadReason.INVALID),
    "without key for an own id": (b'{"event_id":"t1","label":1}', DeadReason.NO_KEY),
    "own id that looks issued": (b'{"event_id":"0.x","label":1}', DeadReason.NO_KEY),
    "a time beyond all times": (b'{"event_id":"a","label":1,"key":"k","at_us":%d}' % 10**40, DeadReason.INVALID),
    "10 MB": (b'{"event_id":"' + b"x" * 10_000_000 + b'","label":1,"key":"k"}', DeadReason.TOO_LARGE),
    "deep": (b'{"event_id":' + b"[" * 100_000, DeadReason.INVALID),
}


@pytest.mark.parametrize(("line", "reason"), BAD_FEEDBACK.values(), ids=list(BAD_FEEDBACK))
def test_bad_feedback_is_a_dead_letter_and_the_rest_goes_on(line, reason):
    good = b'{"event_id":"a","label":1,"key":"k"}'
    _, outputs = run(IngestionAgent(trips), trip(1), feedback=(good, line, good))
    assert [rows for _, _, _, rows in outputs.blocks] == [2]
    assert ids(outputs) == ["t1"]
    (letter,) = outputs.dead
    assert (letter.reason, letter.value, letter.position) == (reason, line, 901)


@pytest.mark.parametrize("head", ["3", "-1", "01", "²", "٣", "x", "", "9" * 5000])
def test_an_issued_id_of_no_partition_of_ours_needs_a_key(head):
    line = json.dumps({"event_id": f"{head}.feed01.ingestion.0.7.1", "label": 1}).encode()
    _, outputs = run(IngestionAgent(readings, partitions=3), feedback=(line,))
    assert reasons(outputs) == [DeadReason.NO_KEY]


# --- the event type --------------------------------------------------------------------------------------------------


def test_a_field_type_without_a_column_is_refused_when_the_agent_is_made():
    class Odd(Event, frozen=True):
        key: str
        tags: list[str]

    with pytest.raises(UsageError, match=r"Odd\.tags.*no column type"):
        IngestionAgent(Pipeline("odd", event=Odd, key="key"))


def test_every_field_type_that_is_allowed_has_its_column():
    class Every(Event, frozen=True):
        key: str
        s: Annotated[str, Meta(max_length=9)] | None
        i: int
        j: Annotated[int, Meta(ge=0)] | None
        f: float
        g: float | None
        b: bool
        c: bool | None

    lines = [
        b'{"key":"k","s":"x","i":1,"j":2,"f":3,"g":4.5,"b":true,"c":false}',
        b'{"key":"k","s":null,"i":-1,"j":null,"f":0.5,"g":null,"b":false,"c":null}',
    ]
    _, outputs = run(IngestionAgent(Pipeline("every", event=Every, key="key")), *lines)
    ((_, _, frame),) = outputs.frames
    assert frame.strings("s") == ["x", None]
    assert [frame.numbers(n).dtype.str for n in "ijfgbc"] == ["<i8"] + ["<f8"] * 5
    assert {n: str(frame.numbers(n).tolist()) for n in "ijfgbc"} == {
        "i": "[1, -1]", "j": "[2.0, nan]", "f": "[3.0, 0.5]", "g": "[4.5, nan]", "b": "[1.0, 0.0]", "c": "[0.0, nan]",
    }  # fmt: skip
