"""The demo's stream: endless, seeded, paced, and the same from wherever one starts."""

import itertools

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mendstream.contracts.errors import UsageError
from mendstream.demo.pipeline import Flight
from mendstream.demo.source import (
    DAY,
    FLIGHTS,
    FlightsSource,
    bench_lines,
    natural_order,
    regime_of,
)

ALL = 1 << 40


class Clock:
    def __init__(self):
        self.us = 1_000_000_000

    def now_us(self):
        return self.us


class Turn:
    """A regime that a test turns."""

    def __init__(self, text="normal"):
        self.text = text

    def __call__(self):
        return self.text


def unpaced(regime="normal", seed=1):
    return FlightsSource(seed, 0, regime if callable(regime) else lambda: regime, Clock())


def number(label):
    return int(msgspec.json.decode(label.value)["event_id"][1:])


def flight(line):
    return msgspec.json.decode(line.value, type=Flight)


@pytest.fixture(scope="module")
def stream():
    """Four days in one go."""
    events, labels, _ = unpaced().poll(0, 4 * DAY, ALL)
    return events, labels


def test_events_are_numbered_without_a_gap_by_their_position(stream):
    events, _ = stream
    assert [line.position for line in events] == list(range(4 * DAY))
    assert [flight(line).id for line in events] == [f"f{n}" for n in range(4 * DAY)]


def test_a_day_goes_through_its_hours_in_order(stream):
    events, _ = stream
    leaves = [(f.hour * 60 + f.minute + int(f.dep_delay)) % 1440 for f in map(flight, events[:DAY])]
    assert leaves == sorted(leaves)


def test_every_label_comes_once_after_its_event_with_its_key(stream):
    events, labels = stream
    numbers = [number(line) for line in labels]
    assert len(set(numbers)) == len(numbers)
    for line, n in zip(labels, numbers, strict=True):
        assert n < line.position <= n + DAY
        assert msgspec.json.decode(line.value)["key"] == flight(events[n]).tailnum
    missing = set(range(3 * DAY)) - set(numbers)
    assert len(missing) < 0.01 * 3 * DAY  # diverted


def test_labels_are_true(stream):
    events, labels = stream
    table = pq.read_table(FLIGHTS).slice(0, 51_000).to_pylist()
    fields = ("tailnum", "carrier", "origin", "dest", "hour", "minute", "dep_delay")
    real = {}
    for row in table:
        real.setdefault(tuple(row[name] for name in fields), set()).add(row["late"])
    for line in labels:
        event = flight(events[number(line)])
        assert bool(msgspec.json.decode(line.value)["label"]) in real[tuple(getattr(event, name) for name in fields)]


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 3 * DAY), cuts=st.lists(st.integers(1, 1_100), min_size=1, max_size=6))
def test_a_restart_anywhere_and_any_batching_give_the_same_lines(stream, start, cuts):
    events, labels = stream
    source, position = unpaced(), start
    for cut in cuts:
        before = position
        got, known, position = source.poll(before, cut, ALL)
        assert position == before + cut
        stop = min(position, 4 * DAY)
        assert [line for line in got if line.position < stop] == events[before:stop]
        assert [line for line in known if line.position < stop] == [
            line for line in labels if before <= line.position < stop
        ]


def test_what_was_not_kept_is_read_again_the_same():
    source = unpaced()
    first = source.poll(700, 400, ALL)
    source.poll(1_100, 5_000, ALL)
    assert source.poll(700, 400, ALL) == first


def test_another_seed_is_another_stream(stream):
    assert [line.value for line in stream[0][:DAY]] != bench_lines(DAY, seed=2)
    assert [line.value for line in stream[0][:DAY]] == bench_lines(DAY, seed=1)


# --- limits and pace -------------------------------------------------------------------------------------------------


def test_a_poll_stays_within_its_bytes_but_gives_at_least_one_event():
    source = unpaced()
    events, _, position = source.poll(0, 1_000, 20_000)
    assert 50 < len(events) < 200
    assert sum(len(line.value) for line in events) <= 20_000
    assert position == len(events)
    events, _, position = source.poll(position, 1_000, 1)
    assert len(events) == 1
    assert source.poll(position, 0, ALL) == ([], [], position)


def test_five_hundred_events_a_second_of_the_clock():
    clock = Clock()
    source = FlightsSource(1, 500, lambda: "normal", clock)
    assert source.due_in_s() == 0.0
    events, _, position = source.poll(0, 10_000, ALL)
    assert len(events) == 1
    assert source.due_in_s() == pytest.approx(0.002)
    clock.us += 1_000
    assert source.poll(position, 10_000, ALL) == ([], [], position)
    assert source.due_in_s() == pytest.approx(0.001)
    clock.us += 999_000
    events, _, position = source.poll(position, 10_000, ALL)
    assert len(events) == 500
    clock.us += 10_000
    assert source.due_in_s() == 0.0


def test_a_reader_that_fell_behind_finds_all_that_was_due():
    clock = Clock()
    source = FlightsSource(1, 500, lambda: "normal", clock)
    source.poll(0, 1, ALL)
    clock.us += 4_000_000
    events, _, position = source.poll(1, 600, ALL)
    assert len(events) == 600
    assert len(source.poll(position, 10_000, ALL)[0]) == 1_400


def test_after_a_restart_the_pace_starts_at_the_position():
    clock = Clock()
    clock.us = 10**15
    source = FlightsSource(1, 500, lambda: "normal", clock)
    events, _, position = source.poll(123_456, 10_000, ALL)
    assert [line.position for line in events] == [123_456]
    clock.us += 100_000
    assert len(source.poll(position, 10_000, ALL)[0]) == 50


# --- regimes ---------------------------------------------------------------------------------------------------------


def test_drift_begins_with_the_next_event():
    turn = Turn()
    source = unpaced(turn)
    before, known, position = source.poll(0, DAY + 300, ALL)
    turn.text = "drift"
    after, later, _ = source.poll(position, 3_000, ALL)
    assert [line.position for line in before + after] == list(range(DAY + 3_300))
    assert sum(flight(line).distance for line in after[:500]) / 500 > 1_300
    labels = list(known) + list(later)
    numbers = [number(line) for line in labels]
    assert len(set(numbers)) == len(numbers)
    events = {line.position: flight(line) for line in before + after}
    assert all(msgspec.json.decode(line.value)["key"] == events[number(line)].tailnum for line in labels)
    due = set(range(3_000))
    assert len(due - set(numbers)) < 30  # diverted ones: nothing is lost at the seam


def test_a_read_across_a_change_of_regime_repeats_too():
    turn = Turn()
    source = unpaced(turn)
    source.poll(0, 1_000, ALL)
    turn.text = "drift,poison"
    source.poll(1_000, 1_500, ALL)
    again = source.poll(900, 1_600, ALL)
    assert source.poll(900, 1_600, ALL) == again
    assert again[0][:100] == unpaced().poll(900, 100, ALL)[0]


def test_changes_at_the_same_positions_give_the_same_stream():
    def run():
        turn = Turn()
        source, got, position = unpaced(turn), [], 0
        for turn.text, n in (("normal", 900), ("drift", 1_000), ("normal", 50), ("neutral-drift", 2_000)):
            events, labels, position = source.poll(position, n, ALL)
            got += [*events, *labels]
            source.done(position)
        return got

    assert run() == run()


def test_what_was_forgotten_does_not_change_what_comes():
    turn = Turn("drift")
    plain, tidy = unpaced(turn), unpaced(turn)
    position = 0
    for turn.text in ("drift", "normal", "drift,poison", "normal", "drift", "normal"):
        for _ in range(4):
            wanted = plain.poll(position, 700, ALL)
            assert tidy.poll(position, 700, ALL) == wanted
            position = wanted[2]
            tidy.done(position)


def test_labels_of_an_outage_never_come():
    turn = Turn()
    source = unpaced(turn)
    reference = unpaced()
    position, got, wanted = 0, [], []
    for turn.text, n in (("normal", 1_000), ("no-labels", 1_000), ("normal", 2_000)):
        events, labels, after = source.poll(position, n, ALL)
        same, all_labels, _ = reference.poll(position, n, ALL)
        assert events == same
        got += labels
        wanted += all_labels if turn.text == "normal" else []
        position = after
    assert got == wanted


def test_every_fiftieth_event_is_poison_of_each_kind_and_gets_no_label():
    source = unpaced("poison")
    events, labels, _ = source.poll(0, 2 * DAY, ALL)
    clean = unpaced().poll(0, 2 * DAY, ALL)[0]
    bad = [line for line in events if line.position % 50 == 49]
    assert [line for line in events if line.position % 50 != 49] == [line for line in clean if line.position % 50 != 49]
    errors = set()
    for line in bad:
        with pytest.raises((msgspec.DecodeError, RecursionError)) as caught:
            flight(line)
        errors.add(str(caught.value))
    assert len(errors) >= 7
    assert max(len(line.value) for line in bad) > 2_000_000
    assert all(number(line) % 50 != 49 for line in labels)


def test_two_megabytes_do_not_stop_a_stream_of_small_polls():
    source, position = unpaced("poison"), 0
    while position < 500:
        events, _, position = source.poll(position, 100, 10_000)
        assert events


def test_regimes_combine_and_a_wrong_one_is_named():
    assert regime_of("") == regime_of("normal")
    assert regime_of("drift, poison,no-labels") == ("drift", True, False)
    with pytest.raises(UsageError, match="'dirft'"):
        regime_of("dirft")
    with pytest.raises(UsageError, match="exclude"):
        regime_of("drift,neutral-drift")


# --- the real year ---------------------------------------------------------------------------------------------------


def test_the_years_first_days_come_in_order_with_their_labels():
    moments = list(itertools.islice(natural_order(), 3_000))
    assert [moment.at_s for moment in moments] == sorted(moment.at_s for moment in moments)
    assert msgspec.json.decode(moments[0].event, type=Flight).id == "f0"
    known = [msgspec.json.decode(label)["event_id"] for moment in moments for label in moment.labels]
    assert len(set(known)) == len(known)
    for n, moment in enumerate(moments):
        assert all(int(msgspec.json.decode(label)["event_id"][1:]) < n for label in moment.labels)


@pytest.mark.slow
def test_the_year_is_complete():
    events = labels = 0
    for moment in natural_order():
        events += moment.event is not None
        labels += len(moment.labels)
    assert (events, labels) == (328_521, 328_521 - 1_175)
