"""What the supervisor decides, on processes that a test ends and silences as it likes, and on a clock that it turns."""

from __future__ import annotations

import pytest
from tests.support.log import open_log, records, records_out
from tests.support.restarter import FakeNotices, FakeRestarter

from mendstream.agents.policy.state import PolicyState, fold
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import Fenced
from mendstream.contracts.ports import Ended
from mendstream.contracts.records import (
    Action,
    ActionKind,
    ActionRow,
    Command,
    CommandKind,
    ConfigChange,
    Exit,
    IncidentHead,
    IncidentStep,
    Outcome,
    Status,
)
from mendstream.contracts.topics import CONFIG, Stream, Topic, Wing
from mendstream.runtime.answers import UNANSWERED_US
from mendstream.runtime.exits import COULD_NOT, FULL
from mendstream.runtime.roster import SINK_S, STEP_S, Place, places
from mendstream.runtime.supervision import (
    BACKOFF_US,
    BEAT_US,
    COMMANDS,
    INTENSITY,
    SILENT_US,
    START_US,
    STOP_US,
    TICK_US,
    TRAINER_AFTER_US,
    Supervision,
)

INCIDENTS = Stream(Topic.INCIDENT_LOG, 0)
MODEL, HEALING = "model-0", "healing-0"
EVERYBODY = places(fuse=False, partitions=1, replicas={}, trainer=False)
SECOND_US = 1_000_000


class House:
    """A supervision with all that it works on."""

    def __init__(self, root, clock, *, places=EVERYBODY, partitions=1):
        self.clock = clock
        self.bus = open_log(root, clock, Wing.CONTROL)
        self.restarter = FakeRestarter(clock)
        self.notices = FakeNotices()
        self._partitions = partitions
        self._places = places
        self._steps = 0
        self._changes = 0
        self.enter()

    def enter(self):
        """Start a supervision, the first one or one more."""
        self.supervision = Supervision(
            bus=self.bus, clock=self.clock, restarter=self.restarter, notices=self.notices, places=self._places,
            partitions=self._partitions,
        )  # fmt: skip
        self.supervision.start()

    # --- time --------------------------------------------------------------------------------------------------------

    def step(self, count=1):
        for _ in range(count):
            self.supervision.step()

    def go_on(self, us):
        """Step for so long, in time that the supervision is awake for."""
        self.step(us // TICK_US + 1)

    # --- what happens ------------------------------------------------------------------------------------------------

    def end(self, process, code=1):
        self.restarter.end(process, code)
        self.step()

    def order(self, target=MODEL, generation=1, *, id="c1", addressee="supervisor"):  # noqa: A002 - as the field
        kind = CommandKind.RETRAIN if addressee == "trainer" else CommandKind.RESTART
        command = Command(
            id=id, action_id=f"{id}-action", incident_id="inc-1", addressee=addressee, kind=kind, target=target,
            generation=generation, params={}, at_us=self.clock.now_us(),
        )  # fmt: skip
        self.bus.publish([records_out(COMMANDS, [command])])

    def incident(self, phase, status=Status.OPEN, *, said=None, kind="AGENT_DOWN", subject=MODEL, id="inc-1"):  # noqa: A002
        """One step of an incident; `said`: the verdict on its restart."""
        head = IncidentHead(
            incident_id=id, type=kind, subject=subject, status=status, detected_at_us=0, resolved_at_us=None,
            metrics_snapshot={},
        )  # fmt: skip
        action = Action(id="a1", kind=ActionKind.RESTART, target=subject)
        row = ActionRow(
            action_id="a1", rung=1, is_undo=False, proposed_action=action, agl_decision=said, approved_action=None
        )  # fmt: skip
        step = IncidentStep(
            id=f"s{self._steps}", seq=self._steps, incident=head, step="planning", phase=phase, text="",
            actor="healing", at_us=self.clock.now_us(), action=row if said else None,
        )  # fmt: skip
        self._steps += 1
        self.bus.publish([records_out(INCIDENTS, [step])])

    def pause(self, paused):
        change = ConfigChange(
            id=f"x{self._changes}", base_version=self._changes, changes={"healing_paused": paused}, actor="ann",
            reason="", at_us=0,
        )  # fmt: skip
        self._changes += 1
        self.bus.publish([records_out(CONFIG, [change])])

    # --- what came of it ---------------------------------------------------------------------------------------------

    def shown(self, process=MODEL):
        return self.supervision.shown()[process]

    def lives(self, process=MODEL):
        return self.shown(process)["alive"]

    @property
    def generation(self):
        return self.shown()["generation"]

    @property
    def results(self):
        return records(self.bus, Topic.COMMAND_RESULTS)

    @property
    def exits(self):
        return [r for r in records(self.bus, Topic.AGENT_METRICS, 1) if isinstance(r, Exit)]


@pytest.fixture
def house(tmp_path, clock):
    house = House(tmp_path, clock)
    yield house
    house.bus.close()


# --- starts and ends -------------------------------------------------------------------------------------------------


def test_everybody_is_started_and_shown(house):
    assert list(house.restarter.alive) == [place.process for place in EVERYBODY]
    assert house.shown() == {"generation": 1, "pid": 103, "alive": True, "role": "model"}
    assert house.notices.shown == house.supervision.shown()


def test_an_end_is_reported_and_not_answered(house):
    house.end(MODEL, -11)
    (said,) = house.exits
    assert (said.process, said.agent, said.generation, said.pid, said.code) == (MODEL, "model", 1, 103, -11)
    assert not said.expected
    assert said.at_us == house.clock.now_us()
    house.go_on(UNANSWERED_US // 2)
    assert not house.lives()
    assert house.notices.shown[MODEL]["alive"] is False


@pytest.mark.parametrize("code", [COULD_NOT, FULL])
def test_a_process_that_could_not_go_on_stops_the_house_in_its_own_words(house, code):
    house.restarter.words[MODEL] = ("the log is full", "make room")
    house.end(MODEL, code)
    assert str(house.supervision.failure) == "model-0: the log is full"
    assert house.supervision.failure.hint == "make room"


def test_a_process_that_could_not_even_say_why_stops_the_house_too(house):
    house.end(MODEL, FULL)
    assert "could not say why" in str(house.supervision.failure)


def test_the_end_of_an_earlier_life_is_not_taken_for_one_of_this_life_however_late_it_is_told(house):
    house.order(generation=1)
    house.step(2)
    house.restarter.report(Ended(MODEL, 1, 103, -9))
    house.step()
    assert house.lives()
    assert [said.generation for said in house.exits] == [1]


def test_any_other_end_leaves_the_house_going(house):
    house.restarter.words[MODEL] = ("of an earlier life", "")
    house.end(MODEL, 1)
    assert house.supervision.failure is None


def test_the_resident_trainer_starts_when_the_house_serves(tmp_path, clock):
    house = House(tmp_path, clock, places=places(fuse=True, partitions=1, replicas={}, trainer=True))
    house.go_on(TRAINER_AFTER_US - 2 * TICK_US)
    assert not house.lives("trainer-0")
    house.go_on(2 * TICK_US)
    assert house.lives("trainer-0")
    house.bus.close()


# --- commands --------------------------------------------------------------------------------------------------------


def test_a_restart_ends_the_generation_that_it_names_and_says_so(house):
    house.order(generation=1)
    house.step(2)
    assert house.restarter.killed == [MODEL]
    (done,) = house.results
    assert (done.outcome, done.data["generation"], done.data["pid"]) == (Outcome.DONE, 2, house.shown()["pid"])
    assert (done.command_id, done.action_id, done.incident_id) == ("c1", "c1-action", "inc-1")
    assert [said.expected for said in house.exits] == [True]


def test_a_dead_process_is_started_by_command(house):
    house.end(MODEL)
    house.order(generation=1)
    house.step()
    assert house.generation == 2
    assert house.restarter.killed == []


def test_a_stale_command_is_refused(house):
    house.order(generation=1)
    house.order(generation=1, id="c2")
    house.step(3)
    assert [(r.command_id, r.outcome) for r in house.results] == [("c1", Outcome.DONE), ("c2", Outcome.REFUSED)]
    assert house.results[1].detail == "stale: generation 1 was named, 2 is there"
    assert house.generation == 2


def test_a_dead_process_is_started_although_a_later_generation_is_named(house):
    """Somebody ran it by hand beside the house, as generation 7; both have ended."""
    house.end(MODEL)
    house.order(generation=7)
    house.step()
    (done,) = house.results
    assert done.outcome is Outcome.DONE


def test_a_living_process_is_not_ended_for_a_later_generation(house):
    house.order(generation=7)
    house.step(2)
    (refused,) = house.results
    assert refused.outcome is Outcome.REFUSED
    assert house.restarter.killed == []


def test_a_supervisor_that_was_replaced_does_nothing_more_to_anybody(house):
    house.order(generation=1)
    house.bus.claim(TaskId("supervisor", 0), [COMMANDS])
    alive = house.restarter.alive.copy()
    with pytest.raises(Fenced):
        house.step()
    assert (house.restarter.killed, house.restarter.alive) == ([], alive)


def test_a_command_for_nobody_is_refused_and_names_who_is_there(house):
    house.order("modle-0")
    house.step()
    (refused,) = house.results
    assert refused.outcome is Outcome.REFUSED
    assert MODEL in refused.detail


def test_a_command_is_obeyed_once_whoever_reads_it_again(house):
    house.order()
    house.step(2)
    house.restarter.alive.clear()
    house.enter()
    house.step(3)
    assert len(house.results) == 1


def test_a_second_supervisor_fences_the_first_which_can_do_no_more(house):
    first = house.supervision
    house.restarter.alive.clear()
    house.enter()
    house.end(MODEL)
    house.order(generation=2)
    with pytest.raises(Fenced):
        first.step()


def test_a_command_for_the_trainer_starts_it_if_it_does_not_run(house):
    house.order("trainer", addressee="trainer")
    house.step()
    assert house.lives("trainer-0")
    assert house.results == [], "the trainer answers for itself"


def test_a_trainer_that_had_nothing_to_do_may_end(house):
    house.order("trainer", addressee="trainer")
    house.step()
    house.end("trainer-0", 0)
    house.go_on(BACKOFF_US[1])
    assert not house.lives("trainer-0")
    assert house.exits[-1].expected


# --- control processes -----------------------------------------------------------------------------------------------


def test_a_control_process_is_restarted_later_and_later(house):
    waits = []
    for _ in range(4):
        house.end(HEALING)
        before = house.clock.now_us()
        while not house.lives(HEALING):
            house.step()
        waits.append(house.clock.now_us() - before)
    assert waits == sorted(waits)
    assert waits[0] < BACKOFF_US[0] + 2 * TICK_US < waits[-1]


def test_a_control_process_that_keeps_ending_stops_the_house(house):
    for _ in range(INTENSITY[0]):
        house.end(HEALING)
        while not house.lives(HEALING):
            house.step()
    assert house.supervision.failure is None
    house.end(HEALING)
    assert "healing-0 ended 6 times within 60 s" in str(house.supervision.failure)


def test_ends_that_lie_far_apart_stop_nobody(house):
    for _ in range(2 * INTENSITY[0]):
        house.end(HEALING)
        house.go_on(INTENSITY[1])
        assert house.lives(HEALING)
    assert house.supervision.failure is None


def test_a_silent_control_process_is_killed_and_started_again(house):
    house.step()
    house.restarter.silent.add(HEALING)
    house.go_on(SILENT_US - 2 * TICK_US)
    assert house.restarter.killed == []
    house.go_on(2 * TICK_US)
    assert house.restarter.killed == [HEALING]
    house.restarter.silent.clear()
    house.go_on(SECOND_US)
    assert house.lives(HEALING)


def test_a_start_may_take_longer_than_a_silence(house):
    house.step()
    house.end(HEALING)
    house.restarter.silent.add(HEALING)
    house.go_on(START_US - TICK_US)
    assert house.restarter.killed == []
    house.go_on(2 * SECOND_US)
    assert house.restarter.killed == [HEALING]


def test_silence_of_a_pipeline_process_is_the_judges_business(house):
    house.step()
    house.restarter.silent.add(MODEL)
    house.go_on(2 * START_US)
    assert house.lives()
    assert house.restarter.killed == []


@pytest.mark.parametrize("missed_us", [3600 * SECOND_US, -3600 * SECOND_US])
def test_nobody_is_called_silent_for_time_that_the_supervisor_missed(house, missed_us):
    """A machine that slept, or a clock that was set: the next beats come later than the next look."""
    house.step()
    house.clock.advance(us=missed_us)
    house.restarter.silent.update(place.process for place in EVERYBODY)
    house.go_on(SECOND_US)
    house.restarter.silent.clear()
    house.go_on(START_US)
    assert house.restarter.killed == []
    house.end(HEALING)
    house.go_on(SECOND_US)
    assert house.lives(HEALING)


# --- turns that do not end -------------------------------------------------------------------------------------------

STEP_US, SINK_US = round(STEP_S * 1e6), round(SINK_S * 1e6)


@pytest.mark.parametrize("process", ["joiner-0", "judge-0", "policy-0", HEALING])
def test_a_control_process_whose_turn_does_not_end_is_killed_and_started_again(house, process):
    house.step()
    house.restarter.hung.add(process)
    house.go_on(STEP_US - TICK_US)
    assert house.restarter.killed == []
    house.go_on(2 * TICK_US)
    assert house.restarter.killed == [process]
    house.restarter.hung.clear()
    house.go_on(STEP_US + SECOND_US)
    assert house.lives(process)
    assert house.restarter.killed == [process]
    assert [(end.process, end.code, end.expected) for end in house.exits] == [(process, -9, False)]


def test_one_that_hangs_in_every_life_is_ended_in_every_life(house):
    house.step()
    house.restarter.hung.add(HEALING)
    house.go_on(4 * STEP_US)
    assert len(house.restarter.killed) == 3
    assert house.supervision.failure is None, "its ends lie far apart"


def test_a_sink_may_take_long_over_a_turn_but_not_for_ever(house):
    house.step()
    house.restarter.hung.add("recorder-0")
    house.go_on(SINK_US - TICK_US)
    assert house.restarter.killed == []
    house.go_on(2 * TICK_US)
    assert house.restarter.killed == ["recorder-0"]


def test_a_turn_lasts_only_while_its_process_is_awake(house):
    """On a machine that has no time for it, its signs of life come late too: not it is slow, everything is."""
    house.step()
    house.restarter.hung.add(HEALING)
    house.restarter.late_us[HEALING] = 8 * BEAT_US
    house.go_on(4 * STEP_US)
    assert house.restarter.killed == []
    del house.restarter.late_us[HEALING]
    house.go_on(STEP_US)
    assert house.restarter.killed == [HEALING]


@pytest.mark.parametrize("missed_us", [3600 * SECOND_US, -3600 * SECOND_US])
def test_nobody_is_called_hung_for_time_that_the_supervisor_missed(house, missed_us):
    house.step()
    house.restarter.hung.update(place.process for place in EVERYBODY)
    house.go_on(SECOND_US)
    house.clock.advance(us=missed_us)
    house.go_on(SECOND_US)
    house.restarter.hung.clear()
    house.go_on(STEP_US)
    assert house.restarter.killed == []


def test_a_pipeline_process_that_hangs_is_the_judges_business(house):
    house.step()
    house.restarter.hung.add(MODEL)
    house.go_on(2 * SINK_US)
    assert house.lives()
    assert house.restarter.killed == []


# --- ends that nobody answers ----------------------------------------------------------------------------------------


def _dead(house):
    """For a moment longer than healing may take, if nobody is on it."""
    house.go_on(UNANSWERED_US + TICK_US)
    return not house.lives()


def test_an_end_that_nobody_answers_is_made_good_and_recorded(house):
    house.end(MODEL)
    house.go_on(UNANSWERED_US - 2 * TICK_US)
    assert not house.lives()
    house.go_on(2 * TICK_US)
    assert house.lives()
    (done,) = house.results
    assert (done.outcome, done.command_id, done.action_id, done.incident_id) == (Outcome.DONE, "", "", "")
    assert done.detail == "nobody answered the end of generation 1: generation 2 runs"
    assert done.data == {"kind": "RESTART", "target": MODEL, "generation": 2, "pid": house.shown()["pid"]}


def test_the_budget_of_restarts_counts_what_the_supervisor_did_by_itself(house):
    for _ in range(2):
        house.end(MODEL)
        assert not _dead(house)
    first, second = house.results
    assert first.id != second.id
    state = PolicyState()
    for record in (first, second, first):
        fold(state, record)
    now = house.clock.now_us()
    counted = [deed for deed in state.deeds.values() if deed.counts(now, 600 * SECOND_US)]
    assert [(deed.kind, deed.target) for deed in counted] == [("RESTART", MODEL)] * 2


def test_commands_go_on_after_a_start_by_itself(house):
    house.end(MODEL)
    assert not _dead(house)
    house.order(generation=2)
    house.step(2)
    assert [r.outcome for r in house.results] == [Outcome.DONE, Outcome.DONE]
    assert house.generation == 3


def test_an_incident_that_moves_on_answers(house):
    house.end(MODEL)
    for phase in ("LOGGED", "PLANNED", "EXECUTING", "VERIFYING"):
        house.go_on(UNANSWERED_US - 2 * SECOND_US)
        house.incident(phase)
    assert not house.lives()
    assert house.results == []


def test_an_incident_that_stands_still_answers_no_more(house):
    house.end(MODEL)
    house.incident("PLANNED")
    assert not _dead(house), "healing or the policy is stuck"
    assert house.results[0].incident_id == "inc-1"


def test_while_a_person_is_asked_nothing_is_started(house):
    house.end(MODEL)
    house.incident("ASKED", Status.MITIGATING)
    assert _dead(house)
    assert _dead(house)


def test_a_restart_that_was_denied_is_not_done_by_the_back_door(house):
    house.end(MODEL)
    house.incident("LOGGED", said="DENIED")
    house.incident("ESCALATED", Status.MITIGATING)
    assert _dead(house)
    assert _dead(house)


def test_after_a_denied_incident_was_closed_nobody_is_on_it_any_more(house):
    house.end(MODEL)
    house.incident("ESCALATED", Status.MITIGATING, said="DENIED")
    assert _dead(house)
    house.incident("FAILED", Status.FAILED)
    house.go_on(UNANSWERED_US // 2)
    assert not house.lives()
    assert not _dead(house)
    assert house.results[0].incident_id == "", "it has ended"


def test_an_incident_out_of_rungs_that_nobody_said_no_to_leaves_the_process_to_the_supervisor(house):
    house.end(MODEL)
    house.incident("VERIFYING", Status.MITIGATING, said="APPROVED")
    house.incident("ESCALATED", Status.MITIGATING)
    assert not _dead(house)


def test_a_new_proposal_lifts_an_older_no(house):
    house.end(MODEL)
    house.incident("LOGGED", said="DENIED")
    house.incident("VERIFYING", Status.MITIGATING, said="APPROVED")
    assert not _dead(house)


def test_incidents_of_others_and_of_other_kinds_answer_nothing(house):
    house.end(MODEL)
    house.incident("ASKED", subject="feature-0", id="inc-2")
    house.incident("ASKED", kind="LATENCY_SLO_BREACH", id="inc-3")
    assert not _dead(house)


def test_while_healing_is_paused_nothing_is_started_and_afterwards_healing_has_its_time(house):
    house.pause(True)
    house.end(MODEL)
    assert _dead(house)
    assert _dead(house)
    house.pause(False)
    house.go_on(UNANSWERED_US - 2 * TICK_US)
    assert not house.lives()
    house.go_on(2 * TICK_US)
    assert house.lives()


def test_a_long_history_is_read_before_anything_is_called_unanswered(house, monkeypatch):
    monkeypatch.setattr("mendstream.runtime.answers._ROWS", 1)
    for n in range(UNANSWERED_US // TICK_US * 2):
        house.incident("RESOLVED", Status.RESOLVED, id=f"old-{n}", subject="feature-0")
    house.incident("ASKED")
    house.end(MODEL)
    assert _dead(house)
    assert _dead(house)
    assert _dead(house), "by now it has read that a person is asked"


def test_time_that_the_supervisor_missed_is_not_time_without_an_answer(house):
    house.end(MODEL)
    house.clock.advance(s=3600)
    house.step(2)
    assert not house.lives()


# --- replicas --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path, clock):
    """Two models, four partitions."""
    house = House(tmp_path, clock, places=(Place("model", 0), Place("model", 1), Place("healing")), partitions=4)
    yield house
    house.bus.close()


def test_partitions_are_spread_over_the_replicas(pair):
    assert pair.notices.partitions == {"model-0": [0, 2], "model-1": [1, 3]}


def test_the_survivor_gets_all_partitions_and_gives_them_back(pair):
    pair.end("model-1")
    assert pair.notices.partitions == {"model-0": [0, 1, 2, 3]}
    pair.go_on(UNANSWERED_US)
    assert pair.notices.partitions == {"model-0": [0, 2], "model-1": [1, 3]}


def test_where_nobody_survives_everybody_keeps_what_it_had(pair):
    pair.end("model-0")
    pair.end("model-1")
    assert pair.notices.partitions == {"model-0": [0, 2], "model-1": [1, 3]}


# --- the end of the house --------------------------------------------------------------------------------------------


def test_everybody_is_asked_to_end_and_that_is_no_fault_of_theirs(house):
    house.supervision.stop()
    house.step()
    assert house.supervision.stopped
    assert house.restarter.killed == []
    assert all(said.expected and said.code == 0 for said in house.exits)
    assert len(house.exits) == len(EVERYBODY)


def test_who_does_not_end_in_time_is_killed(house):
    house.restarter.stubborn = True
    house.supervision.stop()
    before = house.clock.now_us()
    while not house.supervision.stopped:
        house.step()
    assert house.clock.now_us() - before <= STOP_US + TICK_US
    assert len(house.restarter.killed) == len(EVERYBODY)


def test_nobody_is_started_while_the_house_ends(house):
    house.end(HEALING)
    house.order(generation=1)
    house.restarter.stubborn = True
    house.supervision.stop()
    house.step(2)
    assert not house.lives(HEALING)
    assert house.results == []
