"""What a person says and sees through the bus: answers, pause, faults, status, tail, dead letters, closing."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import numpy as np
import pytest
from tests.unit.cli.conftest import NOW
from tests.unit.cli.fake_bus import FakeBus

from mendstream.contracts import frame as frames
from mendstream.contracts.frame import FrameMeta
from mendstream.contracts.records import (
    Action,
    ActionKind,
    Alert,
    AlertKind,
    AlertState,
    Closing,
    ConfigChange,
    DeadLetter,
    DeadReason,
    Exit,
    Fault,
    Feedback,
    IncidentHead,
    IncidentStep,
    Proposal,
    Pulse,
    Status,
    TaskPulse,
    Verdict,
    VerdictKind,
    Vitals,
    encode,
)
from mendstream.contracts.topics import Stream, Topic

SECOND = 1_000_000
ACTION = Action(id="act-1", kind=ActionKind.RESTART, target="model-0", params={"generation": 3})


def step(seq=0, phase="ASKED", status=Status.MITIGATING, at_us=NOW - 10 * SECOND, incident_id="inc-1") -> IncidentStep:
    head = IncidentHead(
        incident_id=incident_id, type="AGENT_DOWN", subject="model-0", status=status, detected_at_us=NOW - 60 * SECOND,
        resolved_at_us=None, metrics_snapshot={},
    )  # fmt: skip
    return IncidentStep(
        id=f"s{seq}", seq=seq, incident=head, step="approval", phase=phase, text=f"step {seq}", actor="healing",
        at_us=at_us,
    )  # fmt: skip


def proposal(name="prop-1", incident_id="inc-1") -> Proposal:
    return Proposal(
        id=name, incident_id=incident_id, incident_type="AGENT_DOWN", action=ACTION, plan_hash="hash-1", rung=0,
        expected_effect="pulses", impact="low", cost=1.0, undo=None, is_undo=False, at_us=NOW - 12 * SECOND,
        expires_at_us=NOW + SECOND,
    )  # fmt: skip


def verdict(kind=VerdictKind.ESCALATED, name="prop-1", **more) -> Verdict:
    given = Verdict(
        id="v1", proposal_id=name, incident_id="inc-1", action_id="act-1", verdict=kind, action=ACTION,
        plan_hash="hash-1", policies=("ask-first",), reason="a person decides", facts={"n": 3}, actor="policy",
        at_us=NOW - 11 * SECOND, expires_at_us=NOW - SECOND,
    )  # fmt: skip
    return msgspec.structs.replace(given, **more)


@pytest.fixture
def asked(bus) -> FakeBus:
    """A restart that the policy has escalated and healing has put to a person."""
    bus.put(Topic.INCIDENT_LOG, step(0, "PLANNED"), step(1, "ASKED"))
    bus.put(Topic.POLICY_REQUESTS, proposal())
    bus.put(Topic.POLICY_DECISIONS, verdict())
    return bus


# --- approve, deny ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", ["prop-1", "inc-1", "act-1"])
@pytest.mark.parametrize(("verb", "word"), [("approve", "APPROVED"), ("deny", "DENIED")])
def test_a_persons_answer_binds_to_the_plan_that_was_asked_about(run, asked, request_, verb, word):
    ran = run(verb, request_, "--reason", "seen it")
    assert (ran.code, ran.out) == (0, f"{word.lower()}: RESTART on model-0, incident inc-1\n")
    answer = asked.held(Topic.POLICY_DECISIONS)[-1]
    assert isinstance(answer, Verdict)
    assert (answer.verdict, answer.actor, answer.reason) == (word, "ada", "seen it")
    assert (answer.proposal_id, answer.action_id, answer.plan_hash) == ("prop-1", "act-1", "hash-1")
    assert answer.action == ACTION
    assert answer.expires_at_us == NOW + 300 * SECOND
    assert answer.id.startswith("abc123/cli.ada.")
    assert asked.opened[-1] == ("control", False)


def test_a_modified_action_is_approved_as_modified(run, asked):
    smaller = msgspec.structs.replace(ACTION, params={"generation": 3, "wait_s": 5})
    asked.put(Topic.POLICY_DECISIONS, verdict(action=smaller, plan_hash="hash-2"))
    answer = run("approve", "prop-1", "--json").json
    assert (answer["plan_hash"], answer["action"]["params"]["wait_s"]) == ("hash-2", 5)


def test_a_silent_policy_leaves_the_proposal_itself_to_approve(run, bus):
    bus.put(Topic.INCIDENT_LOG, step())
    bus.put(Topic.POLICY_REQUESTS, proposal())
    assert run("approve", "inc-1").code == 0
    assert bus.held(Topic.POLICY_DECISIONS)[0].plan_hash == "hash-1"


def test_without_a_request_what_waits_is_listed(run, asked):
    assert "prop-1" in run("approve").out
    (ask,) = run("deny", "--json").json
    assert (ask["proposal"]["id"], ask["asked"]["reason"]) == ("prop-1", "a person decides")
    assert ask["expires_at_us"] == NOW - 10 * SECOND + 3600 * SECOND
    assert asked.opened[-1] == ("control", True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda bus: bus.put(Topic.POLICY_DECISIONS, verdict(VerdictKind.DENIED, actor="eve")), "was DENIED by eve"),
        (lambda bus: bus.put(Topic.INCIDENT_LOG, step(2, "RESOLVED", Status.RESOLVED)), "its incident has gone on"),
        (lambda bus: bus.put(Topic.INCIDENT_LOG, step(2, "LOGGED")), "its incident has gone on"),
    ],
)
def test_what_waits_no_longer_is_a_no_with_its_reason(run, asked, change, why):
    change(asked)
    before = len(asked.held(Topic.POLICY_DECISIONS))
    ran = run("approve", "prop-1")
    assert ran.code == 1
    assert why in ran.err
    assert run("approve", "prop-1", "--json").json["answered"] is False
    assert len(asked.held(Topic.POLICY_DECISIONS)) == before


def test_a_proposal_waits_for_a_person_no_longer_than_set(run, asked):
    assert run("approve", "prop-1", "--set", "healing.person_timeout_s=10").code == 1


def test_an_unknown_request_is_a_usage_error(run, asked):
    ran = run("approve", "prop-9")
    assert ran.code == 2
    assert "no request prop-9" in ran.err


# --- pause, resume, inject -------------------------------------------------------------------------------------------


def change(base: int, **changes) -> ConfigChange:
    return ConfigChange(id=f"c{base}", base_version=base, changes=changes, actor="healing", reason="", at_us=NOW)


def test_pause_is_one_forced_change_on_the_current_version(run, bus):
    bus.put(Topic.CONFIG_UPDATES, change(0, sampling=0.5), change(1, decision_threshold=0.4))
    ran = run("pause", "--reason", "release day", "--json")
    assert ran.json == {"healing_paused": True, "changed": True, "config": 3}
    made = bus.held(Topic.CONFIG_UPDATES)[-1]
    assert (made.base_version, made.changes, made.forced) == (2, {"healing_paused": True}, True)
    assert (made.actor, made.reason) == ("ada", "release day")


def test_a_pause_that_lost_the_race_is_asked_for_again(run, bus):
    bus.put(Topic.CONFIG_UPDATES, change(0, sampling=0.5))
    bus.before_publish = lambda bus: bus.put(Topic.CONFIG_UPDATES, change(1, sampling=0.25))
    assert run("pause", "--json").json["config"] == 3
    asked = [record for record in bus.held(Topic.CONFIG_UPDATES) if record.actor == "ada"]
    assert [record.base_version for record in asked] == [1, 2]
    assert asked[0].id != asked[1].id


def test_pausing_twice_changes_nothing_the_second_time_and_resume_undoes_it(run, bus):
    run("pause")
    ran = run("pause")
    assert (ran.code, ran.out) == (0, "healing is paused, config 1 (it was already)\n")
    assert run("resume", "--json").json == {"healing_paused": False, "changed": True, "config": 2}
    assert len(bus.held(Topic.CONFIG_UPDATES)) == 2


CHAOS = ("--set", "chaos.enabled=true")


def test_inject_puts_the_fault_in_with_its_parameters_and_takes_it_out(run, bus):
    assert run("inject", "slow-model", "--param", "call_ms=800", *CHAOS).code == 0
    ran = run("inject", "slow-model", "--off", "--json", *CHAOS)
    assert ran.json["on"] is False
    put, out = bus.held(Topic.CONFIG_UPDATES)
    assert isinstance(put, Fault)
    assert (put.name, put.on, put.params["call_ms"], put.actor) == ("slow-model", True, 800, "ada")
    assert out.on is False


def test_a_fault_where_chaos_is_off_and_an_unknown_fault_are_usage_errors(run, bus):
    ran = run("inject", "slow-model")
    assert ran.code == 2
    assert "chaos.enabled" in ran.err
    assert run("inject", "slow-modle", *CHAOS).code == 2
    assert not bus.blocks


def test_a_malformed_parameter_is_a_usage_error(run, bus):
    assert run("inject", "slow-model", "--param", "800").code == 2
    assert not bus.blocks


# --- status ----------------------------------------------------------------------------------------------------------


def pulse(process: str, age_s: float, generation: int = 1, backlog: int = 5) -> Pulse:
    task = TaskPulse(task="model/0", epoch=1, turns=7, backlog=backlog, config=2)
    return Pulse(
        process=process, agent=process.rpartition("-")[0], generation=generation, pid=41, rss_mb=88.4, tasks=(task,),
        at_us=NOW - int(age_s * SECOND),
    )  # fmt: skip


@pytest.fixture
def house(bus) -> FakeBus:
    """A house in which one model process has died, one stage is silent, and the judge is well."""
    bus.put(Topic.AGENT_METRICS, pulse("model-0", 1.0), pulse("feature-0", 9.0), pulse("decision-0", 0.1))
    ended = Exit(process="model-0", agent="model", generation=1, pid=41, code=-9, expected=False, at_us=NOW - SECOND)
    bus.put(Topic.AGENT_METRICS, pulse("judge-0", 0.2), ended, partition=1)
    vitals = Vitals(
        pane=1, at_us=NOW - SECOND, n=125, rate=500.0, p50_ms=2.0, p95_ms=4.5, mode="NORMAL", model="v1", config=2,
        accuracy=0.91, labels=400, backlog=12,
    )  # fmt: skip
    bus.put(Topic.VITALS, msgspec.structs.replace(vitals, p95_ms=1.0), vitals)
    bus.put(Topic.CONFIG_UPDATES, change(0, model_version="v1"))
    bus.put(Topic.INCIDENT_LOG, step(0), step(1, "RESOLVED", Status.RESOLVED, incident_id="inc-0"))
    return bus


def test_status_says_how_each_process_is_and_what_is_open(run, house):
    ran = run("status", "--json")
    facts = ran.json
    assert ran.code == 0
    assert {p["process"]: p["state"] for p in facts["processes"]} == {
        "decision-0": "OK", "feature-0": "SILENT", "judge-0": "OK", "model-0": "DOWN",
    }  # fmt: skip
    assert facts["running"] is True
    assert facts["vitals"]["p95_ms"] == 4.5
    assert [incident["incident_id"] for incident in facts["incidents"]] == ["inc-1"]
    assert (facts["config"]["model_version"], facts["mode"]) == ("v1", "NORMAL")


def test_status_is_readable_for_people(run, house):
    text = run("status").out
    assert "model-0     DOWN" in text
    assert "0.910 over 400 labels" in text
    assert "inc-1" in text


def test_a_sink_that_waits_for_a_server_is_shown_with_what_it_waits_for(run, house):
    why = "postgresql://me@db/house: Connection refused"
    house.put(Topic.AGENT_METRICS, msgspec.structs.replace(pulse("recorder-0", 0.1), waits_for=why), partition=1)
    shown = {p["process"]: (p["state"], p["waits_for"]) for p in run("status", "--json").json["processes"]}
    assert shown["recorder-0"] == ("WAITING", why)
    assert shown["judge-0"] == ("OK", "")
    assert f"recorder-0 waits: {why}" in run("status").out.splitlines()


def test_status_gives_a_verdict_only_when_asked_for_one(run, house, bus):
    assert run("status", "--exit-code").code == 1


def test_a_restarted_process_is_not_down_any_more(run, house):
    house.put(Topic.AGENT_METRICS, pulse("model-0", 0.1, generation=2))
    states = {p["process"]: p["state"] for p in run("status", "--json").json["processes"]}
    assert states["model-0"] == "OK"


def test_a_house_that_has_never_run_is_told_plainly(run, bus):
    text = run("status").out
    assert "not running" in text
    assert "no process has given a sign of life lately" in text


# --- tail ------------------------------------------------------------------------------------------------------------


def alert(n: int, subject: str = "pipeline") -> Alert:
    return Alert(
        id=f"a{n}", alert_id=f"a{n}", kind=AlertKind.LATENCY_SLO_BREACH, subject=subject, state=AlertState.FIRING,
        detector="latency", statistic="share", value=0.5, limit=0.1, n=100, window_us=(1, 2), at_us=NOW,
    )  # fmt: skip


def lines(text: str) -> list[dict]:
    return [msgspec.json.decode(line) for line in text.splitlines()]


def test_tail_shows_the_newest_records_or_all_of_them(run, bus):
    bus.put(Topic.ALERTS, *(alert(n) for n in range(8)))
    bus.put(Topic.ALERTS, *(alert(n) for n in range(8, 12)))
    rows = lines(run("tail", "alerts", "-n", "5", "--json").out)
    assert [(row["position"], row["record"]["id"]) for row in rows] == [(n, f"a{n}") for n in range(7, 12)]
    assert len(lines(run("tail", "alerts", "--from-beginning", "--json").out)) == 12
    assert len(run("tail", "alerts").out.splitlines()) == 10


def test_tail_shows_a_frame_as_records_with_what_made_it(run, bus):
    meta = FrameMeta(partition=0, born_us=1, made_us=2, model="v1", config=3)
    head = {"event_id": ["e1", "e2", "e3"], "key": ["a", "b", "c"], "event_time_us": [1, 2, 3]}
    frame = frames.make(head, {"score": np.array([0.5, np.nan, 0.75])}, meta)
    bus.append(Stream(Topic.PREDICTIONS, 0), frame.encode(), 3)
    rows = lines(run("tail", "predictions", "-n", "2", "--json").out)
    assert [(row["position"], row["record"]["event_id"], row["record"]["score"]) for row in rows] == [
        (1, "e2", None),
        (2, "e3", 0.75),
    ]
    assert rows[0]["meta"]["model"] == "v1"
    assert "event_id=e1" in run("tail", "predictions").out


def test_a_line_that_is_no_record_is_shown_as_it_is(run, bus):
    bus.append(Stream(Topic.ALERTS, 0), b"{nonsense\n" + encode(alert(1)) + b"\n", 2)
    bad, good = lines(run("tail", "alerts", "--json").out)
    assert (bad["record"], bad["bytes"]) == (None, "{nonsense")
    assert good["record"]["id"] == "a1"
    bus.append(Stream(Topic.FEATURES, 0), b"no frame", 2)
    assert [row["record"] for row in lines(run("tail", "features", "--json").out)] == [None, None]


def test_a_terminal_gets_no_control_characters(run, bus):
    bus.put(Topic.ALERTS, alert(1, subject="\x1b]0;owned\x07"))
    out = run("tail", "alerts").out
    assert "\x1b" not in out
    assert "owned" in out


def test_following_goes_on_with_what_comes_until_interrupted(run, bus):
    bus.put(Topic.ALERTS, alert(0))

    def wait() -> None:
        if len(bus.held(Topic.ALERTS)) > 2:
            raise KeyboardInterrupt
        bus.put(Topic.ALERTS, alert(len(bus.held(Topic.ALERTS))))

    bus.on_wait = wait
    ran = run("tail", "alerts", "--follow", "--json")
    assert ran.code == 130
    assert [row["record"]["id"] for row in lines(ran.out)] == ["a0", "a1", "a2"]


def test_partitions_are_read_one_by_one_or_alone(run, bus):
    for partition in (0, 1):
        bus.put(Topic.FEEDBACK, Feedback(event_id=f"e{partition}", key="k", label=1.0, at_us=NOW), partition=partition)
    two = ("--set", "run.partitions=2", "--json")
    assert [row["partition"] for row in lines(run("tail", "feedback", *two).out)] == [0, 1]
    assert [row["partition"] for row in lines(run("tail", "feedback", "--partition", "1", *two).out)] == [1]
    assert run("tail", "feedback", "--partition", "2", *two).code == 2


def test_an_unknown_topic_is_a_usage_error(run, bus):
    assert run("tail", "alarms").code == 2


# --- dead letters ----------------------------------------------------------------------------------------------------


def letter(name: str, topic: str, value: bytes, reason=DeadReason.MALFORMED, stage="ingestion", at=0) -> DeadLetter:
    return DeadLetter(
        id=name, topic=topic, partition=0, position=7, stage=stage, code_version="0.1.0", reason=reason,
        detail="why", attempts=1, value=value, at_us=NOW + at,
    )  # fmt: skip


FEEDBACK = Feedback(event_id="e1", key="k", label=1.0, at_us=NOW)


@pytest.fixture
def dead(bus) -> FakeBus:
    """Two lines from outside, one feedback, one byte string that is no feedback; in both wings."""
    bus.put(Topic.DEAD_LETTERS, letter("d1", "source", b'{"id": 1'), letter("d2", "source", b"\xff\x1b[2J\n", at=1))
    late = letter("d3", "feedback", encode(FEEDBACK), DeadReason.UNKNOWN_EVENT, "joiner", at=2)
    bad = letter("d4", "feedback", b"nonsense", DeadReason.UNKNOWN_EVENT, "joiner", at=3)
    bus.put(Topic.DEAD_LETTERS, late, bad, partition=1)
    return bus


def test_dead_letters_of_both_wings_are_listed_by_time_and_chosen_by_reason_and_stage(run, dead):
    assert [row["id"] for row in run("dead-letters", "list", "--json").json] == ["d1", "d2", "d3", "d4"]
    assert [row["id"] for row in run("dead-letters", "list", "-n", "1", "--json").json] == ["d4"]
    assert [row["id"] for row in run("dead-letters", "list", "--reason", "malformed", "--json").json] == ["d1", "d2"]
    assert [row["id"] for row in run("dead-letters", "list", "--stage", "joiner", "--json").json] == ["d3", "d4"]
    assert "MALFORMED" in run("dead-letters", "list").out


def test_one_letter_is_shown_with_its_bytes_and_a_terminal_is_safe_from_them(run, dead):
    assert run("dead-letters", "show", "d1", "--json").json["value"] == '{"id": 1'
    shown = run("dead-letters", "show", "d2").out
    assert "\x1b" not in shown
    assert "\\xff" in shown
    assert run("dead-letters", "show", "d9").code == 2


def test_a_letter_of_the_bus_is_published_where_it_came_from_and_only_once(run, dead):
    assert run("dead-letters", "replay", "d3", "--json").json == {
        "replayed": ["d3"],
        "refused": {},
        "replayed_before": 0,
    }
    assert dead.held(Topic.FEEDBACK) == [FEEDBACK]
    assert dead.opened[-1] == ("data", False)
    ran = run("dead-letters", "replay", "d3", "--json")
    assert (ran.code, ran.json["replayed_before"]) == (1, 1)
    assert len(dead.held(Topic.FEEDBACK)) == 1
    assert run("dead-letters", "replay", "d3", "--again").code == 0
    assert run("dead-letters", "list", "--json").json[2]["replayed"] is True


def test_bytes_that_are_no_record_of_their_topic_are_refused(run, dead):
    ran = run("dead-letters", "replay", "--stage", "joiner", "--json")
    assert (ran.code, ran.json["replayed"], list(ran.json["refused"])) == (1, ["d3"], ["d4"])


def test_lines_from_outside_go_to_a_file_to_be_fed_in_again(run, dead, folder):
    ran = run("dead-letters", "replay", "--reason", "MALFORMED")
    assert ran.code == 3
    assert "--to FILE" in ran.err
    assert run("dead-letters", "replay", "--reason", "MALFORMED", "--to", "again.jsonl").code == 0
    assert (folder / "again.jsonl").read_bytes() == b'{"id": 1\n\xff\x1b[2J\n'


@pytest.mark.parametrize("value", [b"\0\0\0\0\x01\x0aQF1", b"one\ntwo\n"])
def test_bytes_that_are_no_line_are_refused_and_can_be_had_as_they_came(run, dead, folder, value):
    dead.put(Topic.DEAD_LETTERS, letter("d7", "source", value))
    ran = run("dead-letters", "replay", "d1", "d7", "--to", "again.jsonl")
    assert ran.code == 1
    assert "d7 cannot be replayed: its bytes are no line of text: `mendstream dead-letters show" in ran.err
    assert (folder / "again.jsonl").read_bytes() == b'{"id": 1\n'
    assert run("dead-letters", "show", "d7", "--bytes").out.encode() == value


def test_lines_from_outside_go_to_the_http_source_where_there_is_one(run, dead):
    dead.put(
        Topic.DEAD_LETTERS,
        msgspec.structs.replace(letter("d6", "source", b"{}", DeadReason.INVALID, at=9), detail="feedback: no label"),
    )
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        port = server.server_address[1]
        http = ("--set", "ingestion.source=http", "--set", f"ingestion.http_port={port}")
        assert run("dead-letters", "replay", "d1", "d6", *http).code == 0
        server.shutdown()
        thread.join()
    assert got == [("/events", b'{"id": 1\n'), ("/feedback", b"{}\n")]
    ran = run("dead-letters", "replay", "d2", *http)
    assert ran.code == 3
    assert "no HTTP source answers" in ran.err
    # What could not be delivered is not marked as replayed.
    assert [row["replayed"] for row in run("dead-letters", "list", "--json").json] == [True, False, False, False, True]


def test_replay_wants_to_be_told_which(run, dead):
    assert run("dead-letters", "replay").code == 2


def test_a_frame_of_a_refused_row_is_published_again(run, bus):
    head = {"event_id": ["e1"], "key": ["a"], "event_time_us": [1]}
    value = bytes(frames.make(head, {"amount": [1.0]}, FrameMeta(partition=0, born_us=1, made_us=2)).encode())
    bus.put(Topic.DEAD_LETTERS, letter("d5", "raw-events", value, DeadReason.STEP_FAILED, "feature"))
    assert run("dead-letters", "replay", "--all").code == 0
    (block,) = bus.blocks[Stream(Topic.RAW_EVENTS, 0)]
    assert (block.rows, block.value) == (1, value)


# --- incidents close -------------------------------------------------------------------------------------------------


def test_a_person_closes_an_open_incident_with_a_reason(run, bus):
    bus.put(Topic.INCIDENT_LOG, step(0, "ESCALATED"))
    assert run("incidents", "close", "inc-1").code == 2  # no reason
    assert run("incidents", "close", "inc-1", "--reason", "disk swapped").code == 0
    (closing,) = bus.held(Topic.POLICY_DECISIONS)
    assert isinstance(closing, Closing)
    assert (closing.incident_id, closing.actor, closing.reason) == ("inc-1", "ada", "disk swapped")


def test_a_person_releases_the_hold_of_one_incident_and_no_other(run, bus):
    bus.put(Topic.INCIDENT_LOG, step(0, "RESOLVED", Status.RESOLVED))
    bus.put(Topic.CONFIG_UPDATES, change(0, safe_mode=["inc-1", "inc-2"]))
    ran = run("incidents", "release", "inc-1", "--reason", "the storm is over", "--json")
    assert ran.json == {"incident_id": "inc-1", "released": True, "config": 2, "mode": "SAFE_MODE"}
    made = bus.held(Topic.CONFIG_UPDATES)[-1]
    assert (made.changes, made.forced, made.reason) == ({"safe_mode": ["inc-2"]}, True, "the storm is over")
    assert run("incidents", "release", "inc-1", "--reason", "again").code == 1
    assert run("incidents", "release", "inc-9", "--reason", "x").code == 2


def test_an_incident_that_has_ended_is_not_closed_again(run, bus):
    bus.put(Topic.INCIDENT_LOG, step(0, "FAILED", Status.FAILED))
    ran = run("incidents", "close", "inc-1", "--reason", "x", "--json")
    assert (ran.code, ran.json) == (1, {"incident_id": "inc-1", "closed": False, "status": "FAILED"})
    assert run("incidents", "close", "inc-9", "--reason", "x").code == 2
