"""The picture and the lines of a story that is told by literal records at literal times."""

import io

import pytest
from rich.console import Console

from mendstream.chaos.faults import fault
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.records import (
    Action,
    ActionKind,
    ActionRow,
    DriftVital,
    IncidentHead,
    IncidentStep,
    Status,
    TaskState,
    TaskVital,
    Vitals,
)
from mendstream.demo import result
from mendstream.demo.accounting import Accounting
from mendstream.demo.scenario import ORDER, Attempt, Ending, Story, tell
from mendstream.demo.view import Lines, render, times

S = 1_000_000
START = 1_700_000_000 * S


def vitals(**changed):
    given = {
        "pane": 1, "at_us": START, "n": 125, "rate": 501.0, "p50_ms": 2.0, "p95_ms": 5.0, "mode": "NORMAL",
        "model": "v1", "config": 1, "accuracy": 0.8974, "labels": 500, "backlog": 0,
        "tasks": tuple(task(stage) for stage in ("ingestion", "feature", "model", "decision")),
        "drift": (DriftVital(feature="hour", model="v1", n=1000, psi=0.05, ks=0.1, js=0.1, limit=0.2),
                  DriftVital(feature="seats", model="v1", n=1000, psi=0.001, ks=0.1, js=0.1, limit=0.1)),
    }  # fmt: skip
    return Vitals(**{**given, **changed})


def task(stage, state=TaskState.OK, backlog=0):
    return TaskVital(task=f"{stage}/0", process=f"{stage}-0", generation=1, pid=1, epoch=1, turns=1, backlog=backlog,
                     config=1, pulse_age_ms=10, state=state)  # fmt: skip


def head(status, *, resolved=None, kind="LATENCY_SLO_BREACH", incident="inc-1", detected=13):
    ended = resolved and START + resolved * S
    return IncidentHead(incident_id=incident, type=kind, subject="model", status=status, metrics_snapshot={},
                        detected_at_us=START + detected * S, resolved_at_us=ended)  # fmt: skip


def step(name, at, status=Status.MITIGATING, *, phase="VERIFYING", resolved=None, action=None, data=None, **of):
    return IncidentStep(id=f"i/healing/0/{at}/{name}", seq=0, incident=head(status, resolved=resolved, **of), step=name,
                        phase=phase, text=f"{name} it is", actor="healing", at_us=START + int(at * S), action=action,
                        data=data or {})  # fmt: skip


def row(kind=ActionKind.SAFE_MODE_ON, result=None, at=14, verdict="APPROVED"):
    action = Action(id=f"a-{kind}", kind=kind, target="model")
    return ActionRow(action_id=action.id, rung=0, is_undo=False, proposed_action=action, agl_decision=verdict,
                     approved_action=action, executed_at_us=at and START + at * S, result=result)  # fmt: skip


HEALED = (
    step("detection", 13, Status.OPEN, phase="DETECTED"),
    step("logging", 13, Status.OPEN, phase="LOGGED"),
    step("planning", 13, Status.OPEN, phase="PLANNED"),
    step("approval", 13.5, phase="APPROVED"),
    step("execution", 14, phase="EXECUTING", action=row()),
    step("verification", 17, Status.RESOLVED, phase="RESOLVED", resolved=17, action=row(result="SUCCESS")),
    step("memory", 17, Status.RESOLVED, phase="RESOLVED", resolved=17),
)


def story_of(steps=(), ending=None, now=18):
    story = Story(ORDER, started_us=START, now_us=START + now * S, chapter="hurt by a slow model")
    story.first_decision_us = START + S
    story.control_from_us, story.control_until_us = START + S, START + 11 * S
    story.news.vitals = vitals()
    for one in steps:
        story.news.take(one)
    attempt = Attempt(fault("slow-model"), onset_us=START + 12 * S)
    attempt.case = story.news.cases.get("inc-1")
    attempt.ending = ending
    story.attempts.append(attempt)
    return story


def seen(renderable, width=110):
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None)
    console.print(renderable)
    return console.export_text()


COUNTED = Accounting(events=9000, decisions=9000, dead_letters=0, missing=0, duplicated=0, repeats_dropped=0,
                     first=0, last=8999)  # fmt: skip


def test_the_strip_shows_stages_and_what_they_serve():
    text = seen(render(story_of()))
    assert "ingestion > feature > model > decision" in text
    for part in ("501 events/s", "p95 5 ms", "accuracy 0.897", "drift 0.25 of its limit", "mode NORMAL", "model v1"):
        assert part in text


def test_a_stage_that_is_not_well_says_so_in_words():
    story = story_of()
    story.news.vitals = vitals(
        mode="SAFE_MODE", tasks=(task("model", TaskState.DOWN, backlog=70), task("decision")), accuracy=None, drift=()
    )
    text = seen(render(story))
    assert "model DOWN (70 waiting)" in text
    assert "mode SAFE_MODE" in text
    assert "accuracy no labels yet" in text
    assert "drift measuring" in text


def test_before_the_first_vitals_the_pipeline_is_starting():
    story = Story(ORDER, started_us=START, now_us=START)
    text = seen(render(story))
    assert "the pipeline is starting" in text
    assert text.count("to come") == 4


def test_steps_tick_by_with_the_time_since_the_fault():
    text = seen(render(story_of(HEALED[:5])))
    assert "✓ detection    1.0" in text
    assert "✓ approval     1.5" in text
    assert "✓ execution    2.0" in text
    assert "· verification" in text
    assert "MITIGATING" in text


def test_verification_is_done_only_with_the_proof():
    in_between = step("verification", 15, phase="VERIFYING")
    assert "… verification" in seen(render(story_of((*HEALED[:5], in_between))))
    text = seen(render(story_of(HEALED, Ending.RESOLVED)))
    assert "✓ verification 5.0" in text
    assert "✓ memory       5.0" in text
    assert "RESOLVED" in text


def test_the_way_back_does_not_tick_the_cards_steps_again():
    back = step("execution", 25, Status.RESOLVED, resolved=17, phase="EXECUTING", data={"way_back": True})
    assert "✓ execution    2.0" in seen(render(story_of((*HEALED, back), Ending.RESOLVED)))


def test_the_picture_fits_a_narrow_terminal():
    lines = seen(render(story_of(HEALED), ["a line " * 40]), width=60).splitlines()
    assert max(map(len, lines)) <= 60


def test_the_table_sets_the_times_beside_those_of_the_brief():
    text = seen(times(story_of(HEALED, Ending.RESOLVED)), width=80)
    for part in ("slow-model", "1.0 s", "2.0 s", "5.0 s", "15-30 s", "safe mode on"):
        assert part in text


def test_plain_lines_are_one_an_event_and_end_with_table_proof_and_what_next():
    out = io.StringIO()
    story = story_of(HEALED, Ending.RESOLVED)
    lines = Lines(story, out)
    lines.note("FAULT slow-model")
    lines.step(HEALED[3])
    lines.show()
    lines.end(COUNTED, result.Memory(), kept="house")
    text = out.getvalue()
    assert text.startswith(" 18.0 s  FAULT slow-model\n 18.0 s  inc-1 LATENCY_SLO_BREACH approval: approval it is\n")
    assert "proof: no event was lost, none decided twice. 9000 events accepted" in text
    assert "mendstream incidents --data house" in text
    assert "first decision after 1.0 s, first healed incident after 17.0 s" in text


def test_the_document_has_the_fields_of_the_issue():
    story = story_of(HEALED, Ending.RESOLVED)
    found = result.document(story, COUNTED, result.Memory())
    assert found["scenarios"] == [
        {
            "fault": "slow-model",
            "incident_type": "LATENCY_SLO_BREACH",
            "status": "RESOLVED",
            "onset_to_detected_s": 1.0,
            "onset_to_acted_s": 2.0,
            "onset_to_verified_s": 5.0,
            "actions": [{"action": "SAFE_MODE_ON", "verdict": "APPROVED", "result": "SUCCESS"}],
            "extra": [],
        }
    ]
    assert found["control"] == {"seconds": 10.0, "incidents": 0}
    assert found["accounting"]["events"] == 9000
    assert found["start"] == {"first_decision_s": 1.0, "first_healed_s": 17.0}
    assert {"memory_mb", "lmdb_map_mb"} <= set(found)


def good_story():
    story = story_of(HEALED, Ending.RESOLVED)
    story.faults, story.over = ("slow-model",), True
    return story


def test_a_story_is_good_only_if_all_was_healed_and_counted():
    assert result.good(good_story(), COUNTED)


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        (lambda story: setattr(story.attempts[0], "ending", Ending.UNHEALED), COUNTED),
        (lambda story: setattr(story, "faults", ORDER), COUNTED),
        (lambda story: story.news.take(step("detection", 14, incident="inc-0", detected=5)), COUNTED),
        (lambda story: setattr(story, "control_until_us", START + 9 * S), COUNTED),
        (lambda story: setattr(story, "over", False), COUNTED),
        (lambda story: None, Accounting(events=9, decisions=8, dead_letters=0, missing=1, duplicated=0,
                                        repeats_dropped=0, first=0, last=8)),
    ],
)  # fmt: skip
def test_anything_less_is_not_good(change, counted):
    story = good_story()
    change(story)
    assert not result.good(story, counted)


def test_memory_is_the_peak_with_the_maps_of_the_log_apart():
    library = b"7f00-7f10 r-xp 0 fe:00 1  /usr/lib/libc.so\nSize: 9000 kB\nPss:  2000 kB\nSwapPss: 7 kB\n"
    log = b"7f20-7f30 r--s 0 fe:00 2  /tmp/house/data/data.mdb\nSize: 4194304 kB\nPss:  500 kB\n"
    memory = result.Memory()
    memory.take([library + log, library, b""])
    memory.take([library + log])
    assert memory.peak_mb == pytest.approx(4000 * 1024 / 1e6)
    assert memory.lmdb_map_mb == pytest.approx(500 * 1024 / 1e6)


# --- the story itself ------------------------------------------------------------------------------------------------


def play(story, *, puts, happens, until_s=200):
    """Tell a story in steps of a quarter of a second; `happens`: seconds since the start -> steps that are read."""
    notes = []
    story.started_us = story.now_us = START
    telling = tell(story, lambda name, on: puts.append((name, on, (story.now_us - START) / S)) or "done", notes.append)
    waiting = sorted(happens.items())
    while story.now_us < START + until_s * S and not story.over:
        story.now_us += S // 4
        story.first_decision_us = START + S
        story.news.vitals = vitals()
        while waiting and START + waiting[0][0] * S <= story.now_us:
            for one in waiting.pop(0)[1]:
                story.news.take(one)
        next(telling, None)
    return notes


def test_a_fault_goes_in_after_the_control_and_out_once_it_is_healed():
    puts = []
    story = Story(("slow-model",))
    play(story, puts=puts, happens={13: HEALED[:5], 17: HEALED[5:]})
    assert story.over
    assert story.control_s >= 10
    assert story.control_incidents == 0
    assert [(name, on) for name, on, _ in puts] == [("slow-model", True), ("slow-model", False)]
    assert story.attempts[0].ending is Ending.RESOLVED
    assert puts[1][2] == pytest.approx(17, abs=0.5)


def test_the_next_fault_waits_until_the_way_out_of_safe_mode_is_proven():
    puts = []
    under_way = step("planning", 20, Status.RESOLVED, resolved=17, phase="PLANNED", data={"way_back": True})
    proven = step("memory", 22, Status.RESOLVED, resolved=17, phase="RESOLVED", data={"way_back": True})
    story = Story(("slow-model", "dead-agent"))
    play(story, puts=puts, happens={13: HEALED[:5], 17: [*HEALED[5:], under_way], 22: [proven]}, until_s=30)
    assert [(name, on) for name, on, _ in puts][2] == ("dead-agent", True)
    assert puts[2][2] == pytest.approx(22 + 1.5, abs=0.6)


def test_an_incident_of_another_kind_is_no_answer_and_is_listed():
    other = step("detection", 13, Status.OPEN, phase="DETECTED", kind="AGENT_DOWN", incident="inc-9")
    story = Story(("slow-model",))
    play(story, puts=[], happens={13: [other]})
    attempt = story.attempts[0]
    assert attempt.ending is Ending.UNDETECTED
    assert [case.head.type for case in attempt.extra] == ["AGENT_DOWN"]


def test_an_incident_in_the_control_is_counted_even_if_it_is_told_of_later():
    early = step("detection", 5, Status.OPEN, phase="DETECTED", detected=5)
    story = Story(("poison",))
    play(story, puts=[], happens={14: [early]})
    assert story.control_incidents == 1


@pytest.mark.parametrize(("happens", "ending"), [({}, Ending.CALM), ({13: HEALED[:1]}, Ending.ALARMED)])
def test_a_fault_that_must_cause_no_incident_is_watched_for_a_while(happens, ending):
    story = Story(("poison",))
    play(story, puts=[], happens=happens)
    assert story.attempts[0].ending is ending


def test_when_the_time_is_up_the_rest_is_skipped():
    story = Story(("slow-model", "drift", "dead-agent"))
    play(story, puts=[], happens={})
    assert [attempt.ending for attempt in story.attempts][-1] is Ending.SKIPPED
    assert (story.now_us - START) / S < 120


def test_a_fault_that_cannot_be_put_in_is_skipped_and_said_so():
    def refuse(name, on):
        raise CouldNot("model-0 is not alive")

    notes = []
    story = Story(("dead-agent",), started_us=START, now_us=START, first_decision_us=START)
    telling = tell(story, refuse, notes.append)
    while not story.over:
        story.now_us += S
        next(telling, None)
    assert story.attempts[0].ending is Ending.SKIPPED
    assert "dead-agent: could not be put in: model-0 is not alive" in notes


def test_a_house_that_never_decides_is_given_up():
    story = Story(ORDER, started_us=START, now_us=START)
    telling = tell(story, lambda name, on: "", lambda text: None)
    next(telling)
    story.now_us = START + 31 * S
    with pytest.raises(CouldNot, match="nothing was decided within 30 s"):
        next(telling)
