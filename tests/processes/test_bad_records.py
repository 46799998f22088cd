"""Records that nobody can use, labels that stay away, and an event that kills whoever works on it: no event is lost."""

from __future__ import annotations

import json

import pytest
from tests.processes.house import Running, working_in
from tests.processes.pipelines import LETHAL

from mendstream.contracts.records import DeadLetter, decode_block
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo.accounting import account

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    with working_in(root), Running(root / "house", pipeline="tests.processes.pipelines:lethal") as running:
        running.warm_up(seconds=4)
        yield running


@pytest.fixture(scope="module")
def poisoned(house):
    """The dead letters of a while in which one event in fifty was malformed, in eight ways."""
    house.hurt("poison")
    house.until(lambda: house.end(Topic.DEAD_LETTERS) >= 40, why="bad records are set aside")
    house.hurt("poison", on=False)
    house.go_on(1)
    return _letters(house)


@pytest.fixture(scope="module")
def unlabelled(house, poisoned):
    """Labels known at the start and at the end of a label outage."""
    house.hurt("no-labels")
    house.go_on(1)
    before = sum(row.labels for row in house.vitals.served)
    house.go_on(6)
    after = sum(row.labels for row in house.vitals.served)
    return before, after


@pytest.fixture(scope="module")
def killed(house, unlabelled):
    """(the lethal event, the generation that met it, the incident, ended)"""
    house.hurt("no-labels", on=False)
    house.until(house.calm)
    event = f"f{house.end(Topic.RAW_EVENTS) + 500}"
    generation, since = house.shown("feature-0")["generation"], house.now_us
    LETHAL.write_text(event)
    case = house.ended(house.incident(since, "AGENT_DOWN"), 120)
    return event, generation, case


def _letters(house):
    found = house.bus.read(Stream(Topic.DEAD_LETTERS, 0), 0, max_rows=1 << 20, max_bytes=1 << 40)
    letters = [letter for block in found for letter in decode_block(Topic.DEAD_LETTERS, bytes(block.value))]
    return [letter for letter in letters if isinstance(letter, DeadLetter)]


def test_bad_records_become_dead_letters_with_their_bytes_and_the_reason(poisoned):
    assert {letter.reason for letter in poisoned} >= {"MALFORMED", "INVALID", "TOO_LARGE", "NOT_FINITE"}
    assert {letter.stage for letter in poisoned} == {"ingestion"}
    assert {letter.topic for letter in poisoned} == {"source"}
    assert all(letter.value and letter.detail for letter in poisoned)
    assert max(len(letter.value) for letter in poisoned) > 1 << 20, "also of one that is far too long"


def test_bad_records_stop_nobody_and_are_no_incident(house, poisoned):
    assert house.until(house.serving)
    assert [case.head for case in house.news.cases.values() if case.head.type != "AGENT_DOWN"] == []
    assert all(house.shown(name)["generation"] == 1 for name in ("ingestion-0", "model-0", "decision-0"))


def test_people_can_list_what_was_set_aside(house, poisoned):
    listed = json.loads(house.told("dead-letters", "list", "--json"))
    assert len(listed) >= 20


def test_a_label_outage_is_no_incident_and_nothing_is_judged_meanwhile(house, unlabelled):
    before, after = unlabelled
    assert after - before < 500, "what was on its way may still come"
    assert [alert for alert in house.news.alerts if alert.kind in ("PERF_DROP", "DATA_DRIFT")] == []


def test_an_event_that_kills_its_process_three_times_is_set_aside_alone(house, killed):
    event, generation, _ = killed
    (letter,) = [letter for letter in _letters(house) if letter.reason == "QUARANTINED"]
    assert (letter.topic, letter.stage, letter.attempts) == ("raw-events", "feature", 3)
    assert event.encode() in letter.value
    # Three times alone; before that it may have died together with its neighbours.
    assert generation + 3 <= house.shown("feature-0")["generation"] <= generation + 4


def test_each_death_is_answered_at_once_by_an_action_of_its_own(house, killed):
    _, generation, case = killed
    named = [row.proposed_action.params["generation"] for row in case.actions.values()]
    assert named == list(range(generation, generation + len(named)))
    assert len(named) >= 3
    ended = [step for step in case.steps if step.step == "verification" and "did not last" in step.text]
    assert len(ended) == len(named) - 1


def test_the_house_serves_again_after_the_lethal_event(house, killed):
    _, _, case = killed
    assert case.resolved
    house.until(house.calm)
    LETHAL.unlink()


def test_every_other_event_was_decided_once(house, killed):
    house.drain()
    house.stop()
    letters = account(house.root)
    assert letters.exact, letters.text
    assert letters.dead_letters >= 41
