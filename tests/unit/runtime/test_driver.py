"""One turn: what makes it due, what it writes and when, and what is sent outside of it."""

from __future__ import annotations

import pytest
from tests.support.house import (
    STAGES,
    ListSource,
    Stages,
    Stopwatch,
    change,
    dead,
    decided,
    metrics,
    pump,
    serve,
    set_config,
)
from tests.support.log import out, records
from tests.support.marks import MemoryMarks
from tests.support.models import LinearScorer, Shelf
from tests.support.scripted import Counted, Scripted
from tests.support.trips import stages, trip, trip_lines

from mendstream.contracts.agent import Batch, Line
from mendstream.contracts.errors import Fenced, TooLarge
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.ports import Out
from mendstream.contracts.records import Counts
from mendstream.contracts.topics import Stream, Topic, Wing
from mendstream.runtime.driver import Driver
from mendstream.runtime.leg import Leg

RAW = Stream(Topic.RAW_EVENTS, 0)
METRICS = Stream(Topic.AGENT_METRICS, 0)


def one(bus, clock, agent, source=None, **options) -> Driver:
    leg = Leg(bus, agent, 0, Wing.DATA, marks=MemoryMarks(), source=source)
    return Driver(bus, clock, [leg], stopwatch=Stopwatch(), **options)


class Narrow:
    """A bus that takes no turn of more rows than `most`."""

    def __init__(self, bus, most):
        self._bus, self._most, self.refused = bus, most, 0

    def __getattr__(self, name):
        return getattr(self._bus, name)

    def commit(self, commits):
        if any(out.rows > self._most for commit in commits for out in commit.outputs):
            self.refused += 1
            raise TooLarge("too large", hint="make it larger")
        return self._bus.commit(commits)


# --- what is due -----------------------------------------------------------------------------------------------------


def test_without_input_nothing_is_due_after_the_first_turn(bus, clock):
    driver = one(bus, clock, Scripted())
    assert driver.pump()  # a new owner introduces itself
    assert not driver.pump()
    assert driver.wait_s(5.0) <= 5.0


def test_a_wake_up_is_a_tick_when_its_time_has_come(bus, clock):
    agent = Scripted(wake_us=250_000)
    driver = one(bus, clock, agent)
    driver.pump()
    clock.advance(ms=249)
    assert not driver.pump()
    assert driver.wait_s(5.0) == pytest.approx(0.001)
    clock.advance(ms=1)
    assert driver.pump()
    assert [batch.empty for batch in agent.batches] == [True, True]


def test_the_first_step_of_an_owner_is_told_that_it_is(bus, clock):
    agent = Scripted()
    driver = one(bus, clock, agent, source=None)
    driver.pump()
    set_config(bus, change(0, sampling=0.5))
    driver.pump()
    assert [batch.resumed for batch in agent.batches] == [True, False]


def test_a_batch_is_cut_to_what_the_step_is_predicted_to_manage(bus, clock):
    watch = Stopwatch()
    agent = Scripted(reads=(Topic.SOURCE,), hook=lambda batch: watch.spend(0.001 * len(batch.lines)))
    source = ListSource([b"%d" % n for n in range(3000)])
    leg = Leg(bus, agent, 0, Wing.DATA, marks=MemoryMarks(), source=source, max_rows=1000)
    driver = Driver(bus, clock, [leg], stopwatch=watch)
    pump([driver], clock)
    sizes = [len(batch.lines) for batch in agent.batches if batch.lines]
    assert sizes[0] == 128  # of what a row costs nothing is known yet
    assert max(sizes[1:]) <= 101
    assert sum(sizes) == 3000


@pytest.mark.parametrize("way", ["apart", "fused"])
def test_a_turn_that_is_too_large_for_the_log_is_done_in_smaller_ones(bus, clock, way):
    narrow = Narrow(bus, 20)
    house = Stages(narrow, clock, ListSource(trip_lines(300)), models=Shelf(MODEL))
    pump(getattr(house, way)(), clock)
    assert [d["event_id"] for d in decided(bus)] == [f"t{n}" for n in range(300)]
    assert 0 < narrow.refused < 20


def test_what_is_too_large_even_alone_ends_the_process_with_what_to_do(bus, clock):
    narrow = Narrow(bus, 0)
    driver = one(narrow, clock, Scripted(reads=(Topic.SOURCE,)), source=ListSource([b"a", b"b", b"c"]))
    with pytest.raises(TooLarge) as caught:
        pump([driver], clock, most=50)
    assert caught.value.hint
    assert narrow.refused < 10


def test_an_input_whose_rows_nobody_limits_does_not_try_for_ever(bus, clock):
    driver = one(Narrow(bus, 10), clock, Scripted(reads=(Topic.FEEDBACK,)))
    bus.publish([out(Stream(Topic.FEEDBACK, 0), *(b"no record" for _ in range(50)))])
    with pytest.raises(TooLarge):
        pump([driver], clock, most=50)


# --- a source --------------------------------------------------------------------------------------------------------


def test_a_source_hears_what_is_durable_and_only_after_the_commit(bus, clock):
    source = ListSource([b"a", b"b"])
    driver = one(bus, clock, Scripted(reads=(Topic.SOURCE,)), source=source)
    thief = one(bus, clock, Scripted(reads=(Topic.SOURCE,)), source=ListSource([b"a", b"b"]))
    with pytest.raises(Fenced):
        driver.pump()
    assert source.finished == 0
    thief.pump()
    assert records(bus, Topic.DECISIONS)[1].event_id == "b"
    assert thief.legs[0].source.finished == 2


def test_under_back_pressure_nothing_is_polled_but_config_is_folded(bus, clock):
    pressed = [True]
    source = ListSource([b"a"])
    source.due_in_s = lambda: 0.0  # type: ignore[method-assign]
    driver = one(bus, clock, Scripted(reads=(Topic.SOURCE,)), source=source, pressure=lambda: pressed[0])
    set_config(bus, change(0, sampling=0.5))
    pump([driver], clock)
    assert source.polls == 0
    assert driver.legs[0].config == LiveConfig(version=1, sampling=0.5)
    assert 0 < driver.wait_s(5.0) <= 0.02  # no spinning, and it looks again soon
    pressed[0] = False
    clock.advance(ms=20)
    pump([driver], clock)
    assert records(bus, Topic.DECISIONS)[0].event_id == "a"


def test_a_source_that_has_more_is_not_waited_for(bus, clock):
    source = ListSource([b"a"])
    source.due_in_s = lambda: 0.0  # type: ignore[method-assign]
    driver = one(bus, clock, Scripted(reads=(Topic.SOURCE,)), source=source)
    driver.pump()
    assert driver.wait_s(5.0) == 0.0


# --- counts ----------------------------------------------------------------------------------------------------------


def test_counts_go_out_at_most_every_100_ms_and_outside_of_turns(bus, clock):
    source = ListSource([b"%d" % n for n in range(100)], cuts=[1] * 100)
    driver = one(bus, clock, Counted(reads=(Topic.SOURCE,)), source=source)
    for _ in range(100):
        clock.advance(ms=10)
        driver.pump()
    found: list[Counts] = metrics(bus)
    assert 9 <= len(found) <= 11
    assert [counts.n for counts in found] == sorted({counts.n for counts in found})
    assert {counts.task for counts in found} == {"scripted/0"}
    turns = {block.at_us for block in bus.read(Stream(Topic.DECISIONS, 0), 0, max_rows=999, max_bytes=1 << 30)}
    assert len(turns) == 100


def test_the_last_counts_go_out_although_nothing_more_comes(bus, clock):
    source = ListSource([b"a", b"b"], cuts=[1, 1])
    driver = one(bus, clock, Counted(reads=(Topic.SOURCE,)), source=source)
    driver.pump()
    driver.pump()
    assert [counts.n for counts in metrics(bus)] == [1]
    assert driver.wait_s(5.0) == pytest.approx(0.1)
    clock.advance(ms=100)
    assert not driver.pump()
    assert [counts.n for counts in metrics(bus)] == [1, 2]


def test_a_new_owner_sends_all_totals_again(bus, clock):
    driver = one(bus, clock, Counted(reads=(Topic.SOURCE,)), source=ListSource([b"a", b"b"]))
    driver.pump()
    one(bus, clock, Counted(reads=(Topic.SOURCE,)), source=ListSource([b"a", b"b"])).pump()
    assert [counts.n for counts in metrics(bus)] == [2, 2]


def test_what_was_not_committed_is_not_counted(bus, clock):
    driver = one(bus, clock, Counted(reads=(Topic.SOURCE,)), source=ListSource([b"a"]))
    one(bus, clock, Counted(reads=(Topic.SOURCE,)), source=ListSource())
    with pytest.raises(Fenced):
        driver.pump()
    assert metrics(bus) == []


# --- telling ---------------------------------------------------------------------------------------------------------


def test_observers_hear_of_turns_that_are_in_the_log(bus, clock):
    heard: list[tuple[str, int, int]] = []

    def observe(agent, rows, seconds, outputs) -> None:
        heard.append((agent, rows, bus.bounds(Stream(Topic.DECISIONS, 0))[1]))

    driver = one(bus, clock, Scripted(reads=(Topic.SOURCE,)), source=ListSource([b"a", b"b"]), observe=observe)
    driver.pump()
    assert heard == [("scripted", 2, 2)]


def test_a_pulse_shows_progress_backlog_and_the_step_that_is_on(bus, clock):
    shown: list[int | None] = []
    agent = Scripted(hook=lambda batch: shown.append(driver.pulses()[0].step_started_us))
    driver = one(bus, clock, agent)
    (stage,) = stages(Shelf(), only=["ingestion"])
    lines = [Line(value, n) for n, value in enumerate(trip_lines(5))]
    _, outputs = stage.step(stage.start(0), Batch("t", 0, LiveConfig(), lines=lines), clock.now_us())
    ((topic, partition, frame),) = outputs.frames
    bus.publish([Out(Stream(topic, partition), frame.encode(), frame.rows)])
    assert driver.pulses()[0].backlog == 5
    driver.pump()
    (pulse,) = driver.pulses()
    assert (pulse.task, pulse.turns, pulse.backlog, pulse.step_started_us) == ("scripted/0", 1, 0, None)
    assert shown == [clock.now_us()]


class DueSource(ListSource):
    """A line is due now."""

    def due_in_s(self) -> float | None:
        return 0.0


@pytest.mark.parametrize(
    ("source", "pressed", "waits"), [(DueSource, False, 1), (DueSource, True, 0), (ListSource, False, 0)]
)
def test_what_is_due_at_the_source_waits_unless_the_stage_behind_has_too_much(bus, clock, source, pressed, waits):
    """The first stage, or a fused worker, that stands still is seen by nothing else."""
    (agent,) = stages(Shelf(), only=["ingestion"])
    driver = one(bus, clock, agent, source(), pressure=lambda: pressed)
    clock.advance(ms=20)
    driver.pump()
    assert driver.pulses()[0].backlog == waits


def test_what_waits_behind_a_turn_and_a_turn_to_be_done_again_are_due_at_once(bus, clock):
    driver = one(bus, clock, Scripted())
    assert driver.pump()
    assert not driver.behind
    driver.legs[0].again()
    assert driver.behind
    assert driver.pump()
    assert not driver.behind
    bus.publish([ingested(clock, trip(500))])
    assert driver.behind


# --- a fused chain ---------------------------------------------------------------------------------------------------


MODEL = LinearScorer("v1", {"delay": 0.1, "usual": 0.01})


def ingested(clock, *lines: bytes) -> Out:
    """What another ingestion would have put into raw-events: a replay of dead letters does so."""
    (agent,) = stages(Shelf(), only=["ingestion"])
    given = [Line(value, n) for n, value in enumerate(lines)]
    _, outputs = agent.step(agent.start(0), Batch("t", 0, LiveConfig(), lines=given), clock.now_us())
    ((topic, partition, frame),) = outputs.frames
    return Out(Stream(topic, partition), frame.encode(), frame.rows)


def test_a_fused_turn_writes_every_stage_in_one_transaction(bus, clock):
    drivers = Stages(bus, clock, ListSource(trip_lines(10)), models=Shelf(MODEL)).fused()
    drivers[0].pump()
    for topic in (Topic.RAW_EVENTS, Topic.FEATURES, Topic.PREDICTIONS, Topic.DECISIONS):
        assert bus.bounds(Stream(topic, 0)) == (0, 10)
    for name, topic in (("feature", Topic.RAW_EVENTS), ("model", Topic.FEATURES), ("decision", Topic.PREDICTIONS)):
        (leg,) = [leg for leg in drivers[0].legs if leg.agent.name == name]
        assert bus.position(leg.task, Stream(topic, 0)) == leg.positions[Stream(topic, 0)] == 10


def test_what_somebody_else_writes_between_fused_turns_is_served_first_and_nothing_is_lost(bus, clock):
    """The turn that runs into it is undone, state and all: its ids must not count as seen."""
    lines = trip_lines(20)
    source = ListSource(lines, cuts=[10, 10, 10, 10])
    drivers = Stages(bus, clock, source, models=Shelf(MODEL)).fused()
    drivers[0].pump()
    bus.publish([ingested(clock, trip(500))])
    pump(drivers, clock)
    found = [d["event_id"] for d in decided(bus)]
    assert found == [f"t{n}" for n in range(10)] + ["t500"] + [f"t{n}" for n in range(10, 20)]
    assert dead(bus) == []
    (ingestion,) = [leg for leg in drivers[0].legs if leg.agent.name == "ingestion"]
    assert sum(totals.n for totals in ingestion.state.panes.totals.values()) == 20


def test_what_somebody_else_writes_is_served_although_nothing_else_comes(bus, clock):
    drivers = Stages(bus, clock, ListSource(trip_lines(3)), models=Shelf(MODEL)).fused()
    pump(drivers, clock)
    bus.publish([ingested(clock, trip(500))])
    pump(drivers, clock)
    assert [d["event_id"] for d in decided(bus)] == ["t0", "t1", "t2", "t500"]
    assert all(pulse.backlog == 0 for pulse in drivers[0].pulses())


def test_a_slow_stage_makes_the_whole_chain_take_less(bus, clock):
    """Only the model is slow; the lines that ingestion takes are what has to become fewer."""
    source = ListSource(trip_lines(2000))
    house = Stages(bus, clock, source, models=Shelf(MODEL), max_rows=500)
    legs = [house.leg(name) for name in STAGES]
    watch = Stopwatch()
    driver = Driver(bus, clock, legs, stopwatch=watch)
    quick = legs[2].agent.step

    def step(state, batch, now):
        watch.spend(0.002 * sum(frame.rows for frame in batch.frames))
        return quick(state, batch, now)

    legs[2].agent.step = step
    sizes = []
    while legs[0].positions[legs[0].inputs[0]] < 2000:
        before = legs[0].positions[legs[0].inputs[0]]
        driver.pump()
        sizes.append(legs[0].positions[legs[0].inputs[0]] - before)
    assert sizes[0] == 128
    assert max(sizes[2:]) <= 60
    assert len(decided(bus)) == 2000


def test_a_fused_chain_waits_for_the_first_model(bus, clock):
    at_hand: set[str] = {""}
    house = Stages(
        bus, clock, ListSource(trip_lines(3)), models=Shelf(MODEL), ready=lambda config: config.model_version in at_hand
    )
    set_config(bus, serve(MODEL))
    drivers = house.fused()
    pump(drivers, clock)
    assert decided(bus) == []
    at_hand.add("v1")
    pump(drivers, clock)
    assert {d["model"] for d in decided(bus)} == {"v1"}
    assert len(decided(bus)) == 3


def test_a_record_that_kills_a_fused_process_is_set_aside_as_a_line(bus, clock):
    class Bug(BaseException):
        """Not an Exception: what user code raises would be a dead letter; this stands for a crash."""

    source = ListSource(trip_lines(8))
    house = Stages(bus, clock, source, models=Shelf(MODEL))

    def owners():
        (driver,) = house.fused()
        model = driver.legs[2].agent
        predict = model._predict

        def crash(frame, *rest):
            if "t5" in frame.strings("event_id"):
                raise Bug
            return predict(frame, *rest)

        model._predict = crash
        return driver

    driver, deaths = owners(), 0
    while True:
        try:
            pump([driver], clock)
            break
        except Bug:
            deaths += 1
            driver = owners()
    assert deaths == 4
    assert [d["event_id"] for d in decided(bus)] == [f"t{n}" for n in range(8) if n != 5]
    assert [letter.value for letter in dead(bus)] == [trip(5)]


def test_metrics_of_a_full_chain_name_their_tasks(bus, clock):
    pump(Stages(bus, clock, ListSource(trip_lines(10)), models=Shelf(MODEL)).fused(), clock)
    clock.advance(ms=200)
    assert {counts.task for counts in metrics(bus)} == {"ingestion/0", "model/0", "decision/0"}


def test_a_stage_apart_is_woken_by_its_input_and_by_config(bus, clock):
    house = Stages(bus, clock, ListSource())
    driver = house.driver("feature")
    assert set(driver.streams) == {RAW, Stream(Topic.CONFIG_UPDATES, 0)}
    bell = bus.listen("feature-0", driver.streams)
    bus.publish([out(RAW, b"x")])
    assert bell.wait(0)
    bell.close()
