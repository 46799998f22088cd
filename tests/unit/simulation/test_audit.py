"""Decisions that differ and incidents that do not hold together are noticed: each is planted into a sound log."""

import contextlib
import sqlite3

import msgspec
import pytest

from mendstream.adapters.bus.lmdb_bus import LmdbBus, create
from mendstream.adapters.store.recorder import Recorder
from mendstream.adapters.store.schema import init_db
from mendstream.agents.healing.chain import seal
from mendstream.contracts import frame as frames
from mendstream.contracts.frame import FrameMeta
from mendstream.contracts.ports import Out
from mendstream.contracts.records import (
    Action,
    ActionKind,
    ActionRow,
    CommandResult,
    ConfigChange,
    DeadLetter,
    DeadReason,
    Decision,
    IncidentHead,
    IncidentStep,
    Outcome,
    Status,
    encode_block,
)
from mendstream.contracts.topics import Stream, Topic, Wing
from mendstream.runtime.clock import WallClock
from mendstream.simulation import audit

NOW = 1_700_000_000_000_000
PHASES = ("DETECTED", "LOGGED", "PLANNED", "APPROVED", "EXECUTING", "VERIFYING", "RESOLVED")
STEPS = ("detection", "logging", "planning", "approval", "execution", "verification", "memory")


def publish(root, wing, topic, records):
    create(root, incarnation="abc", map_bytes=16 << 20)
    bus = LmdbBus(root, wing, WallClock(), map_bytes=16 << 20)
    bus.publish([Out(Stream(topic, 0), encode_block(records), len(records))])
    bus.close()


# --- decisions -------------------------------------------------------------------------------------------------------


def decided(root, changed=None, **everywhere):
    """Ten decisions under config 1 in a new log; `changed`: event number -> fields."""
    usual = {"key": "N1", "outcome": "late", "score": 0.7, "model": "v1", "mode": "NORMAL", "config": 1,
             "reason": "score against 0.5", "at_us": NOW, **everywhere}  # fmt: skip
    records = [Decision(event_id=f"f{n}", **{**usual, **(changed or {}).get(n, {})}) for n in range(10)]
    first = ConfigChange(id="a", base_version=0, changes={"model_version": "v1"}, actor="init", reason="", at_us=NOW)
    publish(root, Wing.CONTROL, Topic.CONFIG_UPDATES, [first])
    publish(root, Wing.DATA, Topic.DECISIONS, records)
    return root


def compared(tmp_path, *args, **everywhere):
    one = decided(tmp_path / "one", *args, **everywhere)
    return audit.compare(audit.decisions(one), audit.decisions(decided(tmp_path / "other")))


def test_equal_decisions_do_not_differ_whenever_they_were_made(tmp_path):
    assert compared(tmp_path, at_us=NOW + 5) == audit.Compared(10, 0)


@pytest.mark.parametrize(
    "changed", [{"score": 0.7000001}, {"outcome": "on-time"}, {"key": "N2"}, {"reason": "rule fallback"}]
)
def test_a_planted_difference_is_noticed(tmp_path, changed):
    found = compared(tmp_path, {4: changed})
    ((name, value),) = changed.items()
    assert (found.events, found.different) == (10, 1)
    assert found.examples[0].startswith(f"f4: {name} {value!r} instead of ")


@pytest.mark.parametrize("changed", [{"model": "v2"}, {"mode": "SAFE_MODE"}])
def test_what_another_model_or_mode_decided_is_not_compared(tmp_path, changed):
    assert compared(tmp_path, {4: {**changed, "score": 0.1}}) == audit.Compared(9, 0)


def test_a_config_is_compared_by_what_it_says(tmp_path):
    one = decided(tmp_path / "one", {n: {"config": n % 3 + 1, "score": 0.1} for n in (4, 5)})
    same = ConfigChange(id="b", base_version=1, changes={"sampling": 0.5}, actor="x", reason="", at_us=NOW)
    stale = ConfigChange(id="c", base_version=1, changes={"decision_threshold": 0.9}, actor="x", reason="", at_us=NOW)
    lower = ConfigChange(id="d", base_version=2, changes={"decision_threshold": 0.4}, actor="x", reason="", at_us=NOW)
    publish(one, Wing.CONTROL, Topic.CONFIG_UPDATES, [same, stale, lower])
    found = audit.compare(audit.decisions(one), audit.decisions(decided(tmp_path / "other")))
    assert (found.events, found.different) == (9, 1)  # f5 was decided at 0.4, f4 at 0.5 under a higher number


def letter(stage, topic, value, reason):
    return DeadLetter(
        id=f"i/{stage}/1", topic=topic, partition=0, position=3, stage=stage, code_version="0", reason=reason,
        detail="", attempts=3, value=value, at_us=NOW,
    )  # fmt: skip


def test_a_key_whose_windows_lack_an_event_that_was_set_aside_is_not_compared(tmp_path):
    root = decided(tmp_path, {4: {"key": "N2"}, 5: {"key": "N3"}, 6: {"key": "N4"}})
    head = {"event_id": ["f4"], "key": ["N2"], "event_time_us": [NOW]}
    frame = bytes(frames.make(head, {}, FrameMeta(partition=0, born_us=NOW, made_us=NOW)).encode())
    letters = [
        letter("feature", "raw-events", frame, DeadReason.QUARANTINED),
        letter("ingestion", "source", b'{"id":"f5","tailnum":"N3"}', DeadReason.QUARANTINED),
        letter("ingestion", "source", b'{"id":"f6","tailnum":"N4",', DeadReason.MALFORMED),
    ]
    publish(root, Wing.DATA, Topic.DEAD_LETTERS, letters)
    assert audit.spoiled(root) == {"N2", "N3"}
    assert set(audit.without(audit.decisions(root), {"N2", "N3"})) == {f"f{n}" for n in range(10)} - {"f4", "f5"}


# --- incidents -------------------------------------------------------------------------------------------------------


def told(phases=PHASES, *, way_back=()):
    """The steps of one incident, chained."""
    row = ActionRow(
        action_id="act-1", rung=0, is_undo=False, agl_decision="APPROVED", approved_action=None, result="SUCCESS",
        proposed_action=Action(id="act-1", kind=ActionKind.RESTART, target="model-0"),
    )  # fmt: skip
    steps, held = [], ""
    for seq, phase in enumerate([*phases, *way_back]):
        head = IncidentHead(
            incident_id="inc-1", type="AGENT_DOWN", subject="model-0", detected_at_us=NOW, resolved_at_us=None,
            status=Status(phase) if phase in ("RESOLVED", "FAILED") else Status.OPEN, metrics_snapshot={},
        )  # fmt: skip
        step = seal(
            IncidentStep(
                id=f"i/{seq}", seq=seq, incident=head, step=STEPS[seq % 7], phase=phase, text="", actor="healing",
                at_us=NOW + seq, prev_hash=held, action=row if phase == "EXECUTING" else None,
                data={"way_back": True} if seq >= len(phases) else {},
            )
        )  # fmt: skip
        steps.append(step)
        held = step.hash
    return steps


def recorded(root, steps, results=()):
    """The same in SQL, as the recorder puts it."""
    publish(root, Wing.CONTROL, Topic.INCIDENT_LOG, steps)
    if results:
        publish(root, Wing.CONTROL, Topic.COMMAND_RESULTS, results)
    url = f"sqlite:///{root / 'mendstream.db'}"
    init_db(url)
    bus = LmdbBus(root, Wing.CONTROL, WallClock(), map_bytes=16 << 20, readonly=True)
    recorder = Recorder(bus, url)
    while recorder.pump():
        pass
    recorder.close()
    bus.close()
    return root


def changed_in_sql(root, statement):
    with contextlib.closing(sqlite3.connect(root / "mendstream.db")) as store, store:
        assert store.execute(statement).rowcount == 1


def test_a_sound_log_has_no_flaw(tmp_path):
    found = audit.incidents(recorded(tmp_path, told()))
    assert found == audit.Incidents(total=1, open=0, actions=1)


def test_an_incident_that_is_still_open_is_counted_and_no_flaw(tmp_path):
    assert audit.incidents(recorded(tmp_path, told(PHASES[:4]))) == audit.Incidents(total=1, open=1, actions=0)


def test_a_house_without_incidents_has_no_flaw(tmp_path):
    publish(tmp_path, Wing.CONTROL, Topic.COMMAND_RESULTS, [done("r1")])
    assert audit.incidents(tmp_path) == audit.Incidents(total=0, open=0, actions=0)


def test_a_way_back_after_the_end_is_legal(tmp_path):
    found = audit.incidents(recorded(tmp_path, told(way_back=("PLANNED", "APPROVED", "EXECUTING", "VERIFYING"))))
    assert found.flaws == ()


@pytest.mark.parametrize(
    ("phases", "flaw"),
    [
        (("DETECTED", "LOGGED", "RESOLVED", "EXECUTING"), "inc-1 goes from RESOLVED to EXECUTING"),
        (("DETECTED", "LOGGED", "PLANNED", "DETECTED"), "inc-1 goes from PLANNED to DETECTED"),
    ],
)
def test_an_illegal_move_is_noticed(tmp_path, phases, flaw):
    assert flaw in audit.incidents(recorded(tmp_path, told(phases))).flaws


def test_a_record_that_was_changed_breaks_the_chain(tmp_path):
    steps = told()
    steps[3] = msgspec.structs.replace(steps[3], text="nobody said so")
    publish(tmp_path, Wing.CONTROL, Topic.INCIDENT_LOG, steps)
    assert audit.incidents(tmp_path).flaws == ("incident-log: the hash of seq 3 is not its own",)


def test_a_record_that_is_missing_breaks_the_chain(tmp_path):
    steps = told()
    publish(tmp_path, Wing.CONTROL, Topic.INCIDENT_LOG, steps[:3] + steps[4:])
    (flaw,) = audit.incidents(tmp_path).flaws
    assert "seq 4 stands where 3 should be" in flaw


@pytest.mark.parametrize(
    ("statement", "flaw"),
    [
        ("update incidents set status = 'FAILED'", "SQL: inc-1"),
        ("delete from healing_actions", "SQL: action act-1"),
        ("update healing_actions set result = 'FAIL'", "SQL: action act-1"),
    ],
)
def test_sql_that_says_otherwise_is_noticed(tmp_path, statement, flaw):
    root = recorded(tmp_path, told())
    changed_in_sql(root, statement)
    (found,) = audit.incidents(root).flaws
    assert found.startswith(flaw)


def done(name, action="act-1"):
    return CommandResult(
        id=name, command_id="c", action_id=action, incident_id="inc-1", outcome=Outcome.DONE, detail="", data={},
        at_us=NOW,
    )  # fmt: skip


def test_an_action_that_was_done_twice_is_noticed(tmp_path):
    results = [done("r1"), done("r2"), done("r3", ""), done("r4", "")]  # the last two: by the supervisor itself
    root = recorded(tmp_path, told(), results=results)
    assert audit.incidents(root).flaws == ("action act-1 was done 2 times",)


def test_the_audit_decodes_with_no_code_of_the_house():
    with open(audit.__file__) as file:
        imports = [line for line in file if "mendstream" in line and "import" in line]
    assert imports == [
        "from mendstream.contracts.incident import MOVES, Phase\n",
        "from mendstream.demo.accounting import Place, payloads\n",
    ]
