"""One task as its owner holds it: config in log order, restart, suspects, what cannot be read."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.support.house import ListSource, Stopwatch, change, dead, pump, set_config
from tests.support.log import BothWings, out, records, records_out
from tests.support.marks import MemoryMarks
from tests.support.same import difference
from tests.support.scripted import Adding, Controlling, Scripted

from mendstream.contracts import frame as frames
from mendstream.contracts.agent import Batch
from mendstream.contracts.errors import Fenced
from mendstream.contracts.frame import Frame, FrameMeta
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.ports import Bus, Out
from mendstream.contracts.records import DeadLetter, DeadReason, Feedback, encode
from mendstream.contracts.topics import CONFIG, Stream, Topic, Wing
from mendstream.runtime.driver import Driver
from mendstream.runtime.leg import QUARANTINE_AFTER, SNAPSHOT_TURNS, Leg

RAW = Stream(Topic.RAW_EVENTS, 0)
FEEDBACK = Stream(Topic.FEEDBACK, 0)
KINDS = pytest.mark.parametrize("kind", [Scripted, Adding])


def raw_frame(*ids: str) -> Out:
    meta = FrameMeta(partition=0, born_us=1, made_us=1)
    frame = frames.make({"event_id": list(ids), "key": list(ids), "event_time_us": [1] * len(ids)}, {}, meta)
    return Out(RAW, frame.encode(), len(ids))


def feedback(event_id: str) -> bytes:
    return encode(Feedback(event_id=event_id, key="k", label=1.0, at_us=1))


class Owner:
    """A task's owners, one after the other: the marks outlive them, the agent object does not."""

    def __init__(self, bus: Bus, clock: Any, make: Any, *, wing: Wing = Wing.DATA, **options: Any) -> None:
        self.bus, self.clock, self.make, self.wing, self.options = bus, clock, make, wing, options
        self.marks = MemoryMarks()
        self.next()

    def next(self) -> Owner:
        """Somebody else takes the task."""
        self.agent = self.make()
        self.leg = Leg(self.bus, self.agent, 0, self.wing, marks=self.marks, **self.options)
        self.driver = Driver(self.bus, self.clock, [self.leg], stopwatch=Stopwatch())
        return self

    def run(self) -> Owner:
        pump([self.driver], self.clock)
        return self

    def live_through(self, error: type[Exception], most: int = 100) -> int:
        """Run, and let the next owner take over whenever `error` ends one; how many died."""
        for deaths in range(most):
            try:
                self.run()
                return deaths
            except error:
                self.next()
        raise AssertionError("nobody survived")


# --- config ----------------------------------------------------------------------------------------------------------


def test_config_is_folded_in_log_order_and_stale_changes_change_nothing(bus, clock):
    set_config(
        bus,
        change(0, decision_threshold=0.6),
        change(0, decision_threshold=0.9),  # stale: somebody else was first
        change(1, sampling=0.5),
        change(1, healing_paused=True),  # stale
        change(2, decision_threshold=7.0),  # out of bounds
    )
    owner = Owner(bus, clock, Scripted).run()
    assert owner.leg.config == LiveConfig(version=2, decision_threshold=0.6, sampling=0.5)
    assert owner.leg.positions[CONFIG] == 5


@KINDS
def test_the_applied_config_is_part_of_the_state(bus, clock, kind):
    set_config(bus, change(0, decision_threshold=0.6))
    owner = Owner(bus, clock, kind).run()
    set_config(bus, change(1, decision_threshold=0.7))
    owner.run()
    assert owner.next().leg.config == LiveConfig(version=2, decision_threshold=0.7)
    assert owner.leg.positions[CONFIG] == 2


def test_a_change_is_in_effect_from_the_next_batch_on(bus, clock):
    owner = Owner(bus, clock, Scripted)
    bus.publish([raw_frame("a")])
    owner.run()
    set_config(bus, change(0, decision_threshold=0.6))
    bus.publish([raw_frame("b")])
    owner.run()
    assert [(d.event_id, d.config) for d in records(bus, Topic.DECISIONS)] == [("a", 0), ("b", 1)]


def test_a_config_that_is_not_ready_holds_back_while_data_go_on(bus, clock):
    at_hand: set[str] = {"", "v1"}
    owner = Owner(bus, clock, Scripted, ready=lambda config: config.model_version in at_hand)
    set_config(bus, change(0, model_version="v1"))
    owner.run()
    set_config(bus, change(1, model_version="v2"), change(2, decision_threshold=0.7))
    bus.publish([raw_frame("a")])
    owner.run()
    assert owner.leg.unready
    assert owner.leg.config.version == 1
    at_hand.add("v2")
    bus.publish([raw_frame("b")])
    owner.run()
    assert not owner.leg.unready
    assert owner.leg.config == LiveConfig(version=3, model_version="v2", decision_threshold=0.7)
    assert [(d.event_id, d.config) for d in records(bus, Topic.DECISIONS)] == [("a", 1), ("b", 3)]


@KINDS
def test_a_change_applied_just_before_one_that_is_not_ready_survives_a_restart(bus, clock, kind):
    owner = Owner(bus, clock, kind, ready=lambda config: config.model_version != "v2")
    bus.publish([raw_frame("a")])
    owner.run()
    set_config(bus, change(0, decision_threshold=0.6), change(1, model_version="v2"))
    owner.run()
    assert owner.leg.config.version == 1
    owner.next()
    assert owner.leg.config == LiveConfig(version=1, decision_threshold=0.6)
    assert owner.leg.positions[CONFIG] == 1


def test_nothing_is_served_before_the_first_config_is_ready(bus, clock):
    at_hand = {""}
    owner = Owner(bus, clock, Scripted, ready=lambda config: config.model_version in at_hand)
    set_config(bus, change(0, model_version="v1"))
    bus.publish([raw_frame("a")])
    owner.run()
    assert records(bus, Topic.DECISIONS) == []
    at_hand.add("v1")
    owner.run()
    assert [(d.event_id, d.config) for d in records(bus, Topic.DECISIONS)] == [("a", 1)]


def test_a_new_owner_serves_nothing_before_it_has_what_its_config_needs(bus, clock):
    """In a new process the model is not loaded: without it, SAFE_MODE's rule would decide instead."""
    at_hand = {"", "v1"}
    owner = Owner(bus, clock, Scripted, ready=lambda config: config.model_version in at_hand)
    set_config(bus, change(0, model_version="v1"))
    owner.run()
    at_hand.clear()
    bus.publish([raw_frame("a")])
    owner.next().run()
    assert owner.leg.starting
    assert records(bus, Topic.DECISIONS) == []
    assert owner.driver.wait_s(10) <= 0.01
    at_hand.add("v1")
    owner.run()
    assert [(d.event_id, d.config) for d in records(bus, Topic.DECISIONS)] == [("a", 1)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_in_config_updates_that_is_no_record_is_passed_over(bus, clock, place):
    changes = [encode(change(0, decision_threshold=0.6)), encode(change(1, decision_threshold=0.7))]
    changes.insert(place, b'{"record":"config-change","oh":"\xff"}')
    bus.elsewhere(out(CONFIG, *changes))
    owner = Owner(bus, clock, Scripted).run()
    assert owner.leg.config.version == 2
    assert owner.leg.positions[CONFIG] == 3
    assert not owner.driver.pump()


# --- an agent that reads config-updates itself -----------------------------------------------------------------------


@pytest.fixture
def control(tmp_path, clock):
    log = BothWings(tmp_path, clock, Wing.CONTROL)
    yield log
    log.close()


def reader(bus: Any, clock: Any, **options: Any) -> Owner:
    make = lambda: Controlling("healing", (Topic.VITALS, Topic.CONFIG_UPDATES))  # noqa: E731
    return Owner(bus, clock, make, wing=Wing.CONTROL, **options)


def test_who_reads_config_updates_sees_each_record_once_and_folded(control, clock):
    owner = reader(control, clock)
    seen: list[tuple[str, int]] = []

    def note(batch: Batch) -> None:
        seen.extend((record.id, batch.config.version) for record in batch.records)  # type: ignore[attr-defined]

    owner.agent.hook = note
    for version in range(4):
        control.publish([records_out(CONFIG, [change(version, decision_threshold=0.5 + version / 10)])])
        owner.run()
    assert seen == [("c0", 1), ("c1", 2), ("c2", 3), ("c3", 4)]
    assert owner.next().leg.config.version == 4


def test_a_config_record_that_comes_between_fold_and_poll_is_neither_lost_nor_seen_twice(control, clock):
    owner = reader(control, clock).run()
    leg = owner.leg
    control.publish([records_out(CONFIG, [change(0, sampling=0.5)])])
    leg.fold_config()
    control.publish([records_out(CONFIG, [change(1, sampling=0.6)])])
    owner.run()
    assert leg.state.events == ["c0", "c1"]
    control.publish([records_out(CONFIG, [change(2, sampling=0.7)])])
    batch, after, _ = leg.poll()  # without a fold: not yet
    assert batch.records == []
    assert after == {}
    owner.next().run()
    assert owner.leg.config.version == 3
    assert owner.leg.state.events == ["c0", "c1", "c2"]


def test_config_records_that_are_not_ready_are_not_given_out_either(control, clock):
    at_hand = {""}
    owner = reader(control, clock, ready=lambda config: config.model_version in at_hand)
    control.publish([records_out(CONFIG, [change(0, sampling=0.5), change(1, model_version="v2")])])
    owner.run()
    assert owner.leg.state.events == ["c0"]
    owner.next().run()
    assert owner.leg.config.version == 1
    at_hand.add("v2")
    owner.run()
    assert owner.leg.state.events == ["c0", "c1"]
    assert owner.next().leg.config.version == 2


# --- restart ---------------------------------------------------------------------------------------------------------


@KINDS
def test_the_next_owner_has_the_same_state_after_every_turn(bus, clock, kind):
    owner = Owner(bus, clock, kind)
    for n in range(12):
        bus.publish([raw_frame(f"e{n}", f"f{n}"), records_out(FEEDBACK, [])] if n % 4 else [raw_frame(f"e{n}")])
        owner.run()
        held = owner.leg.state
        assert difference(held, owner.next().leg.state) == ""
        assert owner.leg.turn == n + 1
        assert owner.leg.positions[RAW] == bus.bounds(RAW)[1]


def test_a_snapshot_is_taken_now_and_then(bus, clock):
    owner = Owner(bus, clock, Adding)
    for n in range(SNAPSHOT_TURNS + 20):
        bus.publish([raw_frame(f"e{n}")])
        owner.driver.pump()
    claim = bus.claim(owner.leg.task, [RAW, CONFIG])
    assert claim.snapshot is not None
    assert len(claim.changes) < 30
    assert owner.next().leg.state.events == [f"e{n}" for n in range(SNAPSHOT_TURNS + 20)]


def test_an_owner_that_was_replaced_is_fenced(bus, clock):
    first = Owner(bus, clock, Scripted)
    Owner(bus, clock, Scripted)
    bus.publish([raw_frame("a")])
    with pytest.raises(Fenced):
        first.run()
    assert records(bus, Topic.DECISIONS) == []


class Bug(Exception):
    pass


def raising(*poison: str, kind: Any = Scripted, **options: Any) -> Any:
    """Agents that die on some events."""

    def hook(batch: Batch) -> None:
        if set(poison) & set(Scripted.names(batch)):
            raise Bug(poison)

    return lambda: kind(hook=hook, **options)


@KINDS
def test_an_exception_in_a_step_leaves_the_turn_undone_and_the_next_owner_does_it(bus, clock, kind):
    broken = [True]

    def hook(batch: Batch) -> None:
        if broken[0] and batch.frames:
            raise Bug

    owner = Owner(bus, clock, lambda: kind(hook=hook)).run()
    bus.publish([raw_frame("a", "b")])
    with pytest.raises(Bug):
        owner.run()
    assert records(bus, Topic.DECISIONS) == []
    broken[0] = False
    owner.next().run()
    assert [d.event_id for d in records(bus, Topic.DECISIONS)] == ["a", "b"]
    assert owner.leg.state.events == ["a", "b"]


# --- records that kill -----------------------------------------------------------------------------------------------


def test_a_record_that_kills_three_times_is_set_aside_and_its_neighbours_survive(bus, clock):
    bus.publish([raw_frame("a", "b", "poison", "d"), raw_frame("e")])
    owner = Owner(bus, clock, raising("poison"))
    deaths = owner.live_through(Bug)
    assert deaths == QUARANTINE_AFTER + 1  # the whole batch once, then the record alone
    assert [d.event_id for d in records(bus, Topic.DECISIONS)] == ["a", "b", "d", "e"]
    (letter,) = dead(bus)
    assert (letter.reason, letter.attempts, letter.topic, letter.position) == (
        DeadReason.QUARANTINED,
        QUARANTINE_AFTER,
        "raw-events",
        2,
    )
    assert Frame.decode(letter.value).strings("event_id") == ["poison"]
    assert letter.stage == "scripted"
    assert owner.next().run().leg.state.events == ["a", "b", "d", "e"]


def test_each_of_several_records_that_kill_is_set_aside(bus, clock):
    bus.publish([raw_frame("poison", "b", "venom", "d")])
    owner = Owner(bus, clock, raising("poison", "venom"))
    owner.live_through(Bug)
    assert [d.event_id for d in records(bus, Topic.DECISIONS)] == ["b", "d"]
    assert [Frame.decode(letter.value).strings("event_id") for letter in dead(bus)] == [["poison"], ["venom"]]


def test_a_line_from_outside_that_kills_is_set_aside_as_it_came(bus, clock):
    source = ListSource([b"a", b"poison", b"c"])
    owner = Owner(bus, clock, raising("poison", reads=(Topic.SOURCE,)), source=source)
    owner.live_through(Bug)
    assert [d.event_id for d in records(bus, Topic.DECISIONS)] == ["a", "c"]
    (letter,) = dead(bus)
    assert (letter.topic, letter.position, letter.value) == ("source", 1, b"poison")


def test_a_json_record_that_kills_is_set_aside_alone_while_others_keep_coming(bus, clock):
    lines = [feedback(name) for name in ("a", "poison", "c")]
    bus.publish([out(FEEDBACK, *lines)])
    owner = Owner(bus, clock, raising("poison", reads=(Topic.FEEDBACK, Topic.RAW_EVENTS)))
    for n in range(50):
        bus.publish([out(FEEDBACK, feedback(f"f{n}")), raw_frame(f"e{n}")])
        try:
            owner.driver.pump()
        except Bug:
            owner.next()
    owner.run()
    events = [d.event_id for d in records(bus, Topic.DECISIONS)]
    assert sorted(events) == sorted(["a", "c", *(f"f{n}" for n in range(50)), *(f"e{n}" for n in range(50))])
    assert [event for event in events if event[0] == "f"] == [f"f{n}" for n in range(50)]
    (letter,) = dead(bus)
    assert (letter.topic, letter.position, letter.reason) == ("feedback", 1, DeadReason.QUARANTINED)
    assert letter.value.strip() == lines[1]


def test_a_task_that_died_between_steps_suspects_nothing(bus, clock):
    bus.publish([raw_frame("a", "b")])
    owner = Owner(bus, clock, Scripted).run()
    bus.publish([raw_frame("c", "d")])
    owner.next().run()
    assert [len(Scripted.names(batch)) for batch in owner.agent.batches] == [2]


def test_a_new_owner_goes_on_in_whole_batches_once_the_suspect_lies_behind(bus, clock):
    bus.publish([raw_frame("a", "b")])
    dying = [True]

    def hook(batch: Batch) -> None:
        if dying[0] and batch.frames:
            raise Bug

    owner = Owner(bus, clock, lambda: Scripted(hook=hook))
    with pytest.raises(Bug):
        owner.run()
    dying[0] = False
    owner.next().run()
    bus.publish([raw_frame("c", "d", "e")])
    owner.run()
    sizes = [len(Scripted.names(batch)) for batch in owner.agent.batches]
    assert sizes == [1, 1, 3]


# --- what cannot be read ---------------------------------------------------------------------------------------------


def test_lines_that_are_no_records_become_dead_letters_with_their_bytes_and_the_rest_goes_on(bus, clock):
    bad = [b"{", b'{"record":"feedback"}', b"\xff\xfe", b"[" * 100_000]
    lines = [feedback("a"), bad[0], bad[1], feedback("b"), bad[2], feedback("c"), bad[3]]
    bus.publish([out(FEEDBACK, *lines), out(FEEDBACK, feedback("d"))])
    owner = Owner(bus, clock, lambda: Scripted(reads=(Topic.FEEDBACK,))).run()
    assert owner.leg.state.events == ["a", "b", "c", "d"]
    assert owner.leg.positions[FEEDBACK] == 8
    letters: list[DeadLetter] = dead(bus)
    assert [letter.value for letter in letters] == bad
    assert [letter.position for letter in letters] == [1, 2, 4, 6]
    assert len({letter.id for letter in letters}) == 4
    assert {letter.reason for letter in letters} == {DeadReason.MALFORMED}
    assert not owner.driver.pump()


@pytest.mark.parametrize("max_rows", [2000, 3])
def test_a_frame_that_cannot_be_decoded_is_one_dead_letter_and_the_partition_goes_on(bus, clock, max_rows):
    broken = dataclasses.replace(raw_frame("x", "y"), value=b"no Arrow at all", rows=10)
    bus.publish([raw_frame("a"), broken, raw_frame("b")])
    owner = Owner(bus, clock, Scripted, max_rows=max_rows).run()
    assert owner.leg.state.events == ["a", "b"]
    assert owner.leg.positions[RAW] == 12
    (letter,) = dead(bus)
    assert (letter.value, letter.position, letter.topic) == (b"no Arrow at all", 1, "raw-events")


# --- dead letters and outputs ----------------------------------------------------------------------------------------


def test_a_turn_writes_its_dead_letters_in_the_same_transaction(bus, clock):
    bus.publish([out(FEEDBACK, b"{")])
    first = Owner(bus, clock, lambda: Scripted(reads=(Topic.FEEDBACK,)))
    second = Owner(bus, clock, lambda: Scripted(reads=(Topic.FEEDBACK,)))
    with pytest.raises(Fenced):
        first.run()
    assert dead(bus) == []
    second.run()
    assert len(dead(bus)) == 1


def test_ids_of_control_records_name_incarnation_task_turn_and_ordinal(control, clock):
    owner = Owner(control, clock, lambda: Controlling(reads=(Topic.VITALS, Topic.CONFIG_UPDATES)), wing=Wing.CONTROL)
    control.publish([records_out(CONFIG, [change(0), change(1)])])
    owner.run()
    assert [alert.id for alert in records(control, Topic.ALERTS)] == ["feed01/scripted/0/1/1", "feed01/scripted/0/1/2"]
