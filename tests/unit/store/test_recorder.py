"""The recorder: the log becomes rows, exactly once, whatever happens between."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import event
from tests.unit.store.literal_log import (
    CONFIG_UPDATES,
    INCIDENT_LOG,
    FakeBus,
    action,
    chained,
    change,
    changes,
    head,
    other_incidents,
    slow_model,
    step,
    whole_log,
)

from mendstream.adapters.store import database, rows
from mendstream.adapters.store import recorder as module
from mendstream.contracts import records
from mendstream.contracts.errors import CouldNot, DataDirError, NoAnswer
from mendstream.contracts.records import ActionKind, Status

TABLES = ("incidents", "healing_actions", "config_history", "memory_chunks", "recorder_positions")


@pytest.fixture
def everything(sql):
    return lambda: {table: sql(f"SELECT * FROM {table} ORDER BY 1") for table in TABLES}


def drain(recorder):
    while recorder.pump():
        pass


# --- what a record becomes -------------------------------------------------------------------------------------------


def test_an_incident_is_followed_step_by_step(recorder_of, sql):
    bus, steps = FakeBus(), chained(slow_model())
    recorder, seen = recorder_of(bus), []
    for one in steps:
        bus.append(one)
        assert recorder.pump()
        (row,) = sql("SELECT step, phase, status, mttr_seconds, cause, seq FROM incidents")
        seen.append(tuple(row.values()))
    assert seen == [
        ("detection", "DETECTED", "OPEN", None, "", 0),
        ("logging", "LOGGED", "OPEN", None, "", 1),
        ("planning", "PLANNED", "OPEN", None, "", 2),
        ("approval", "APPROVED", "MITIGATING", None, "infrastructure", 3),
        ("execution", "VERIFYING", "MITIGATING", None, "infrastructure", 4),
        ("verification", "RESOLVED", "RESOLVED", 3.25, "infrastructure", 5),
        ("memory", "RESOLVED", "RESOLVED", 3.25, "infrastructure", 6),
    ]
    assert not recorder.pump()


def test_an_action_keeps_plan_verdict_and_proof(recorder_of, sql):
    drain(recorder_of(whole_log()))
    (row,) = sql("SELECT * FROM healing_actions WHERE action_id = 'act-1'")
    assert msgspec.json.decode(row["plan"]) == {"plan_hash": "ab12", "cost": 1.0}
    assert msgspec.json.decode(row["verdict"]) == {"facts": {"open_incidents": 1}}
    assert msgspec.json.decode(row["proof"]) == {"n": 240, "p95_ms": 96.0}
    assert msgspec.json.decode(row["policies"]) == ["safe_mode_on"]
    assert msgspec.json.decode(row["approved_action"]) == {
        "id": "act-1", "kind": "SAFE_MODE_ON", "target": "decision", "params": {"hold": "inc-1"},
    }  # fmt: skip
    assert row["executed_at"] == "2026-01-01 12:00:02.000000"
    assert row["created_at"] == "2026-01-01 12:00:01.200000"
    assert row["updated_at"] == "2026-01-01 12:00:04.250000"


@pytest.mark.parametrize("said", ["APPROVED", "DENIED", "MODIFIED"])
def test_the_decision_is_empty_while_a_person_is_asked_and_then_what_the_person_said(recorder_of, sql, said):
    bus = FakeBus()
    asked = head("inc-1", "DATA_DRIFT", Status.MITIGATING, 1)
    steps = chained(
        [
            step(asked, "approval", "ASKED", 2, action=action("a", ActionKind.RETRAIN, "trainer", "ESCALATED")),
            step(asked, "approval", "APPROVED", 9, action=action("a", ActionKind.RETRAIN, "trainer", said)),
        ]
    )
    recorder = recorder_of(bus)
    for one, expected in zip(steps, (None, said), strict=True):
        bus.append(one)
        recorder.pump()
        assert sql("SELECT agl_decision FROM healing_actions") == [{"agl_decision": expected}]


def test_a_kind_of_incident_that_this_version_does_not_know_is_recorded(recorder_of, sql):
    bus = FakeBus()
    bus.append(*chained([step(head("inc-1", "LABEL_OUTAGE", Status.OPEN, 1), "detection", "DETECTED", 1)]))
    drain(recorder_of(bus))
    assert sql("SELECT type FROM incidents") == [{"type": "LABEL_OUTAGE"}]


def test_a_change_may_come_before_the_incident_that_it_belongs_to(recorder_of, sql):
    bus = FakeBus()
    bus.append(change("cfg-1", 0, 1, {"sampling": 0.5}, incident_id="not-yet"))
    drain(recorder_of(bus))
    assert sql("SELECT incident_id FROM config_history") == [{"incident_id": "not-yet"}]


def test_only_changes_that_applied_are_history_also_across_a_restart(recorder_of, sql):
    bus, (first, *rest) = FakeBus(), changes()
    bus.append(first)
    drain(recorder_of(bus))
    bus.append(*rest)
    drain(recorder_of(bus))
    assert sql("SELECT config_id, version FROM config_history ORDER BY version") == [
        {"config_id": "cfg-1", "version": 1},
        {"config_id": "cfg-2", "version": 2},
    ]


def test_times_keep_their_last_microsecond():
    assert rows.moment(1_767_268_800_000_001).isoformat() == "2026-01-01T12:00:00.000001+00:00"


# --- crashes, repeats, replays ---------------------------------------------------------------------------------------


def test_a_death_before_any_commit_loses_nothing_and_repeats_nothing(recorder_of, everything):
    calm = recorder_of(whole_log())
    drain(calm)
    expected = everything()
    calm.rebuild()
    bus = FakeBus()

    def die(_connection):
        raise SystemExit("killed before the commit")

    for one in [*chained([*slow_model(), *other_incidents()]), *changes()]:
        bus.append(one)
        unlucky = recorder_of(bus)
        unlucky._load()
        before = everything()
        event.listen(unlucky._engine, "commit", die)
        with pytest.raises(SystemExit):
            unlucky.pump()
        assert everything() == before
        event.remove(unlucky._engine, "commit", die)
        assert unlucky.pump()  # the same recorder can go on, and so can a new one
    assert everything() == expected


def test_a_process_that_ends_inside_the_transaction_leaves_what_was_there(url, recorder_of, everything):
    drain(recorder_of(whole_log()))
    expected = everything()
    recorder_of(whole_log()).rebuild()
    empty = everything()
    code = """if True:
        import os, sys
        from sqlalchemy import event
        from mendstream.adapters.store.recorder import Recorder
        from tests.unit.store.literal_log import whole_log
        recorder = Recorder(whole_log(), sys.argv[1])
        recorder._load()
        event.listen(recorder._engine, "commit", lambda connection: os._exit(9))
        recorder.pump()
    """
    root = Path(__file__).parents[3]
    died = subprocess.run([sys.executable, "-c", code, url], cwd=root, env={"PYTHONPATH": str(root)}, check=False)
    assert died.returncode == 9
    found = everything()
    assert {**found, "recorder_positions": []} == empty
    assert [row["position"] for row in found["recorder_positions"]] == [0, 0]
    drain(recorder_of(whole_log()))
    assert everything() == expected


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_the_size_of_a_batch_makes_no_difference(recorder_of, everything, monkeypatch, batch):
    recorder = recorder_of(whole_log())
    drain(recorder)
    expected = everything()
    recorder.rebuild()
    monkeypatch.setattr(module, "BATCH_ROWS", batch)
    drain(recorder)
    assert everything() == expected


def test_a_replay_from_the_first_record_gives_the_same_rows(recorder_of, everything):
    recorder = recorder_of(whole_log())
    drain(recorder)
    expected = everything()
    recorder.rebuild()
    assert {table: len(found) for table, found in everything().items()} == dict.fromkeys(TABLES, 0)
    drain(recorder)
    assert everything() == expected


def test_records_that_are_applied_again_over_their_rows_change_nothing(recorder_of, everything, sql):
    drain(recorder_of(whole_log()))
    expected = everything()
    sql("UPDATE recorder_positions SET position = 0, seq = 0, hash = '', live_config = '{}'")
    drain(recorder_of(whole_log()))
    assert everything() == expected


def test_two_recorders_share_the_work_and_repeat_none(recorder_of, everything):
    drain(recorder_of(whole_log()))
    expected = everything()
    recorder_of(whole_log()).rebuild()
    bus = FakeBus()
    one, other = recorder_of(bus), recorder_of(bus)
    assert not other.pump()
    for record in [*chained([*slow_model(), *other_incidents()]), *changes()]:
        bus.append(record)
        assert one.pump()
        assert other.pump()  # finds that its position is not the newest any more, and reads it again
        assert not other.pump()
    assert everything() == expected


def test_a_database_that_is_locked_for_long_is_asked_again(recorder_of, everything, path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
    recorder = recorder_of(whole_log())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not recorder.pump()
        assert not recorder.pump()
        with pytest.raises(NoAnswer, match="locked"):
            recorder.apply()
        other.execute("ROLLBACK")
    drain(recorder)
    assert len(everything()["incidents"]) > 0


def test_a_log_of_another_incarnation_is_refused_until_a_rebuild(recorder_of, everything, sql):
    drain(recorder_of(whole_log()))
    before = everything()
    restored = FakeBus("log-2")
    restored.append(*chained(slow_model()))
    recorder = recorder_of(restored)
    with pytest.raises(CouldNot, match="filled from log log-1, and this log is log-2") as caught:
        recorder.pump()
    assert "mendstream db upgrade --rebuild" in caught.value.hint
    assert everything() == before
    recorder.rebuild()
    drain(recorder)
    assert [row["incident_id"] for row in everything()["incidents"]] == ["inc-1"]
    assert {row["incarnation"] for row in everything()["recorder_positions"]} == {"log-2"}


@pytest.mark.parametrize("at", [0, 3, 11])
def test_a_changed_record_breaks_the_chain_and_is_named(recorder_of, everything, at):
    bus = whole_log()
    bus.lines[INCIDENT_LOG][at] = bus.lines[INCIDENT_LOG][at].replace(b'"actor":"healing"', b'"actor":"heeling"')
    recorder = recorder_of(bus)
    for _ in range(2):
        with pytest.raises(DataDirError, match=f"the chain breaks at seq {at}: its hash does not match") as caught:
            recorder.pump()
    assert "restore the data directory" in caught.value.hint
    assert everything()["incidents"] == []


def test_a_lost_record_breaks_the_chain(recorder_of):
    bus = whole_log()
    del bus.lines[INCIDENT_LOG][4]
    with pytest.raises(DataDirError, match="breaks at seq 4: found seq 5 where 4 should be"):
        recorder_of(bus).pump()


def test_the_chain_is_followed_across_a_restart(recorder_of):
    bus, steps = FakeBus(), chained(slow_model())
    bus.append(*steps[:3])
    drain(recorder_of(bus))
    forged = chained([slow_model()[3]], seq=3, prev_hash="0" * 64)
    bus.append(*forged)
    with pytest.raises(DataDirError, match="breaks at seq 3: the hash of the record before it"):
        recorder_of(bus).pump()


@pytest.mark.parametrize("stream", [INCIDENT_LOG, CONFIG_UPDATES])
@pytest.mark.parametrize("line", [b"{", b'{"record":"from-the-future"}', b'{"record":"incident-step","new":1}'])
def test_a_record_that_cannot_be_read_is_named(recorder_of, stream, line):
    bus = whole_log()
    bus.lines[stream].append(line)
    with pytest.raises(DataDirError, match=f"{stream}: a record at or behind position"):
        recorder_of(bus).pump()


def test_tables_that_are_missing_are_said_with_the_command_that_makes_them(recorder_of, sql):
    sql("DROP TABLE recorder_positions")
    with pytest.raises(CouldNot, match="no such table") as caught:
        recorder_of(whole_log()).pump()
    assert "mendstream db upgrade" in caught.value.hint


def test_blocks_of_many_lines_are_taken_apart(recorder_of, everything):
    recorder = recorder_of(whole_log())
    drain(recorder)
    expected = everything()
    recorder.rebuild()

    class Blocks(FakeBus):
        def read(self, stream, position, *, max_rows, max_bytes):
            blocks = super().read(stream, position, max_rows=max_rows, max_bytes=max_bytes)
            if not blocks:
                return []
            value = memoryview(b"".join(block.value for block in blocks))
            return [one_block(blocks[0], len(blocks), value)]

    bus = Blocks()
    bus.lines = whole_log().lines
    recorder.close()
    drain(recorder_of(bus))
    assert everything() == expected


def one_block(first, count, value):
    return module.Block(stream=first.stream, position=first.position, rows=count, value=value, at_us=first.at_us)


def test_the_recorder_is_a_sink_of_the_two_logs(recorder_of):
    recorder = recorder_of(FakeBus())
    assert (recorder.name, recorder.reads) == ("recorder", (INCIDENT_LOG, CONFIG_UPDATES))
    assert all(records.TOPIC_OF[kind] in {s.topic for s in recorder.reads} for kind in (records.IncidentStep,))
