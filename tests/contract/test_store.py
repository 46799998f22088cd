"""What the store keeps on every database that it runs on: schema, column types, the recorder, the brief's SQL, queries.

SQLite is a file, PostgreSQL a real server. What only one of them has is tested elsewhere (unit/store, test_postgres).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session
from tests.support.stores import SqliteStore, new_database
from tests.unit.store.literal_log import (
    CONFIG_UPDATES,
    INCIDENT_LOG,
    FakeBus,
    action,
    chained,
    change,
    changes,
    head,
    memory,
    other_incidents,
    slow_model,
    step,
    whole_log,
)

from mendstream.adapters.store import database, queries, rows, schema
from mendstream.adapters.store import recorder as module
from mendstream.adapters.store.models import Base, HealingAction, Incident, RecorderPosition
from mendstream.adapters.store.recorder import Recorder
from mendstream.contracts.errors import CouldNot, DataDirError
from mendstream.contracts.records import ActionKind, Status

ROOT = Path(__file__).parents[2]
TABLES = ("incidents", "healing_actions", "config_history", "memory_chunks", "recorder_positions")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KIND = "LATENCY_SLO_BREACH"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def empty(request, tmp_path):
    """A database with nothing in it."""
    if request.param == "sqlite":
        yield SqliteStore(tmp_path / "store.db")
        return
    with new_database(request.getfixturevalue("postgres").url) as store:
        yield store


@pytest.fixture
def store(empty):
    """One at the newest version."""
    schema.init_db(empty.url)
    return empty


@pytest.fixture
def url(store):
    return store.url


@pytest.fixture
def sql(store):
    return store.sql


@pytest.fixture
def recorder_of(url):
    """Makes recorders on the database and closes them."""
    made = []

    def make(bus):
        made.append(Recorder(bus, url))
        return made[-1]

    yield make
    for recorder in made:
        recorder.close()


@pytest.fixture
def everything(sql):
    return lambda: {table: sql(f"SELECT * FROM {table} ORDER BY 1") for table in TABLES}


@pytest.fixture
def engine(url):
    made = database.engine(url)
    yield made
    made.dispose()


@pytest.fixture
def filled(url, recorder_of):
    assert recorder_of(whole_log()).pump()
    return url


@pytest.fixture
def filled_sql(filled, sql):
    return sql


def drain(recorder):
    while recorder.pump():
        pass


def started(code, *args):
    """Another Python process, with the tests at hand."""
    return subprocess.Popen([sys.executable, "-c", code, *args], cwd=ROOT, env={"PYTHONPATH": str(ROOT)})


# --- schema ----------------------------------------------------------------------------------------------------------


def test_a_new_database_has_our_tables_and_the_newest_version(store):
    assert store.tables() == {*TABLES, "mendstream_version"}
    assert schema.current(store.url) == schema.HEAD


def test_an_empty_database_has_no_version(empty):
    assert schema.current(empty.url) is None


def test_the_migrations_leave_nothing_for_autogenerate_to_find(engine):
    with engine.connect() as connection:
        options = {"compare_type": True, "version_table": schema.VERSION_TABLE}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []


def test_upgrade_downgrade_and_upgrade_again(empty):
    schema.upgrade(empty.url)
    first = empty.tables()
    schema.downgrade(empty.url, "base")
    assert empty.tables() == {"mendstream_version"}
    assert schema.current(empty.url) is None
    schema.init_db(empty.url)
    assert empty.tables() == first
    assert schema.current(empty.url) == schema.HEAD


def test_init_db_twice_keeps_the_rows(store):
    store.sql("INSERT INTO recorder_positions VALUES ('s', 'i', 1, 1, '', '{}')")
    schema.init_db(store.url)
    assert len(store.sql("SELECT * FROM recorder_positions")) == 1


def test_processes_that_start_at_once_make_one_database(empty):
    code = "import sys; from mendstream.adapters.store.schema import init_db; init_db(sys.argv[1])"
    processes = [started(code, empty.url) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert empty.tables() == {*TABLES, "mendstream_version"}
    assert empty.sql("SELECT version_num FROM mendstream_version") == [{"version_num": schema.HEAD}]


def test_another_programs_migrations_in_the_same_database_are_none_of_ours(empty):
    empty.sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    empty.sql("INSERT INTO alembic_version VALUES ('of-mlflow')")
    schema.init_db(empty.url)
    schema.downgrade(empty.url, "base")
    schema.upgrade(empty.url)
    assert empty.sql("SELECT version_num FROM alembic_version") == [{"version_num": "of-mlflow"}]
    assert schema.current(empty.url) == schema.HEAD


@pytest.mark.parametrize("way", [schema.init_db, schema.upgrade])
def test_a_database_of_a_newer_version_is_refused_and_left_alone(store, way):
    store.sql("UPDATE mendstream_version SET version_num = '9999'")
    with pytest.raises(DataDirError, match="at version 9999, this mendstream knows versions up to 0001") as caught:
        way(store.url)
    assert "newer mendstream" in caught.value.hint
    assert schema.current(store.url) == "9999"


def test_tables_of_another_program_are_not_touched(empty):
    empty.sql("CREATE TABLE incidents (mine TEXT)")
    with pytest.raises(DataDirError, match="already exists") as caught:
        schema.init_db(empty.url)
    assert "name another" in caught.value.hint
    assert empty.tables() == {"incidents"}


# --- column types ----------------------------------------------------------------------------------------------------


def incident(**more):
    values = {
        "incident_id": "inc-1", "type": "PERF_DROP", "detected_at": NOON, "status": "OPEN", "metrics_snapshot": {},
        "created_at": NOON, "updated_at": NOON, "subject": "v2", "cause": "", "outcome": "", "phase": "DETECTED",
        "step": "detection", "text": "", "seq": 0,
    }  # fmt: skip
    return Incident(**{**values, **more})


def put(engine, row):
    with Session(engine) as session, session.begin():
        session.add(row)


def test_a_naive_time_is_refused(engine):
    with pytest.raises(StatementError, match="has no time zone"):
        put(engine, incident(detected_at=datetime(2026, 1, 1, 12)))


def test_a_time_of_another_zone_comes_back_as_the_same_moment_in_utc(engine):
    put(engine, incident(detected_at=datetime(2026, 1, 1, 17, 0, 0, 1, tzinfo=timezone(timedelta(hours=5)))))
    with Session(engine) as session:
        found = session.get_one(Incident, "inc-1").detected_at
    assert found == NOON + timedelta(microseconds=1)
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_postgresql_would_refuse_is_refused_on_sqlite_too(engine, value):
    with pytest.raises(StatementError, match="no number that JSON has"):
        put(engine, incident(metrics_snapshot={"p95_ms": value}))


def test_a_nul_in_a_text_is_stored_as_its_symbol(engine, sql):
    put(engine, incident(text="a\0b", metrics_snapshot={"of\0": ["\0", 1.5], "literal": "\\u0000"}))
    (found,) = sql("SELECT text, metrics_snapshot FROM incidents")
    assert found == {"text": "a\u2400b", "metrics_snapshot": {"of\u2400": ["\u2400", 1.5], "literal": "\\u0000"}}


def test_a_missing_json_value_is_null_and_not_the_word_null(engine, sql):
    put(engine, incident())
    action = HealingAction(
        action_id="a", incident_id="inc-1", proposed_action={}, approved_action=None, created_at=NOON, updated_at=NOON,
        kind="RESTART", target="model-0", rung=0, is_undo=False, decided_by="", policies=[], policy_reason="",
    )  # fmt: skip
    put(engine, action)
    assert sql("SELECT approved_action IS NULL AS empty FROM healing_actions") == [{"empty": 1}]


@pytest.mark.parametrize("wrong", ["DONE", "open", ""])
def test_a_word_that_is_not_in_the_list_is_refused(engine, wrong):
    with pytest.raises(StatementError, match="is not among the defined enum values"):
        put(engine, incident(status=wrong))


def test_a_further_kind_of_incident_needs_no_migration(engine, sql):
    put(engine, incident(type="LABEL_OUTAGE"))
    assert sql("SELECT type FROM incidents") == [{"type": "LABEL_OUTAGE"}]


def test_an_action_without_its_incident_is_refused(engine):
    action = HealingAction(
        action_id="a", incident_id="nobody", proposed_action={}, created_at=NOON, updated_at=NOON, kind="RESTART",
        target="model-0", rung=0, is_undo=False, decided_by="", policies=[], policy_reason="",
    )  # fmt: skip
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        put(engine, action)


def test_read_then_write_in_three_threads_loses_no_update(engine):
    put(engine, RecorderPosition(stream="s", incarnation="i", position=0, seq=0, hash="", live_config={}))

    def count():
        for _ in range(50):
            with Session(engine) as session, session.begin():
                before = session.scalars(select(RecorderPosition.position).with_for_update()).one()
                session.execute(update(RecorderPosition).values(position=before + 1))

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Session(engine) as session:
        assert session.scalars(select(RecorderPosition.position)).one() == 150


def test_a_reader_sees_one_snapshot_and_does_not_wait_for_a_writer(engine, url):
    put(engine, incident())
    with Session(engine) as writer, writer.begin():
        writer.execute(text("UPDATE incidents SET text = 'changed'"))
        with database.reading(url) as reader:
            assert reader.get_one(Incident, "inc-1").text == ""


def test_a_reader_cannot_write(engine, url):
    with pytest.raises(CouldNot, match=r"read-?only"), database.reading(url) as reader:
        reader.execute(text("DELETE FROM incidents"))


# --- what a record becomes --------------------------------------------------------------------------------------------


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
    assert row["plan"] == {"plan_hash": "ab12", "cost": 1.0}
    assert row["verdict"] == {"facts": {"open_incidents": 1}}
    assert row["proof"] == {"n": 240, "p95_ms": 96.0}
    assert row["policies"] == ["safe_mode_on"]
    assert row["approved_action"] == {
        "id": "act-1", "kind": "SAFE_MODE_ON", "target": "decision", "params": {"hold": "inc-1"},
    }  # fmt: skip
    assert row["executed_at"] == NOON + timedelta(seconds=2)
    assert row["created_at"] == NOON + timedelta(seconds=1.2)
    assert row["updated_at"] == NOON + timedelta(seconds=4.25)


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
    assert started(code, url).wait() == 9
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
    with pytest.raises(CouldNot, match=r"no such table|does not exist") as caught:
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


# --- the SQL of the original request, letter for letter ---------------------------------------------------------------


def test_the_briefs_check_of_incidents(filled_sql):
    found = filled_sql("""-- Check incidents
SELECT incident_id, type, status, mttr_seconds, detected_at, resolved_at 
FROM incidents ORDER BY detected_at DESC LIMIT 10;""")  # noqa: W291
    assert [tuple(row.values())[:4] for row in found] == [
        ("inc-5", "DATA_DRIFT", "MITIGATING", None),
        ("inc-4", "PERF_DROP", "FAILED", 30.0),
        ("inc-3", "AGENT_DOWN", "RESOLVED", 1.0),
        ("inc-2", "LATENCY_SLO_BREACH", "RESOLVED", 4.75),
        ("inc-1", "LATENCY_SLO_BREACH", "RESOLVED", 3.25),
    ]
    assert (found[-1]["detected_at"], found[-1]["resolved_at"]) == (
        NOON + timedelta(seconds=1),
        NOON + timedelta(seconds=4.25),
    )


def test_the_briefs_check_of_actions(filled_sql):
    found = filled_sql("""-- Check actions
SELECT a.action_id, a.incident_id, a.agl_decision, a.result
FROM healing_actions a JOIN incidents i ON a.incident_id = i.incident_id
ORDER BY a.created_at DESC LIMIT 10;""")
    assert [tuple(row.values()) for row in found] == [
        ("act-5", "inc-5", None, None),
        ("act-4", "inc-4", "DENIED", "FAIL"),
        ("act-3", "inc-3", "MODIFIED", "SUCCESS"),
        ("act-1", "inc-1", "APPROVED", "SUCCESS"),
    ]


def test_the_briefs_average_mttr(filled_sql):
    found = filled_sql("""-- Average MTTR
SELECT type, AVG(mttr_seconds) as avg_mttr, COUNT(*) as count
FROM incidents WHERE status = 'RESOLVED'
GROUP BY type;""")
    assert {row["type"]: (row["avg_mttr"], row["count"]) for row in found} == {
        "LATENCY_SLO_BREACH": (4.0, 2),
        "AGENT_DOWN": (1.0, 1),
    }


def test_the_briefs_look_at_all_incidents(filled_sql):
    found = filled_sql("SELECT * FROM incidents;")
    assert len(found) == 5
    assert list(found[0])[:8] == [
        "incident_id", "type", "detected_at", "resolved_at", "status", "metrics_snapshot", "mttr_seconds", "created_at",
    ]  # fmt: skip


def test_the_demos_newest_latency_breach(filled_sql):
    asked = "SELECT * FROM incidents WHERE type = 'LATENCY_SLO_BREACH' ORDER BY detected_at DESC LIMIT 1;"
    (found,) = filled_sql(asked)
    assert (found["incident_id"], found["status"], found["mttr_seconds"]) == ("inc-2", "RESOLVED", 4.75)
    assert found["metrics_snapshot"] == {"p95_ms": 412.5, "n": 200}


def test_the_demos_newest_config_change_is_one_that_applied(filled_sql):
    (found,) = filled_sql("SELECT * FROM config_history ORDER BY created_at DESC LIMIT 1;")
    assert list(found)[:6] == ["config_id", "changed_by", "changes", "reason", "incident_id", "created_at"]
    assert found == {
        "config_id": "cfg-2", "changed_by": "healing", "changes": {"safe_mode": ["inc-1"]},
        "reason": "LATENCY_SLO_BREACH", "incident_id": "inc-1", "created_at": NOON + timedelta(seconds=2),
        "base_version": 1, "version": 2, "action_id": "act-1", "approval": "verdict-1", "forced": 0,
    }  # fmt: skip


def test_the_demos_newest_memory(filled_sql):
    (found,) = filled_sql("SELECT * FROM memory_chunks ORDER BY created_at DESC LIMIT 1;")
    assert list(found)[:9] == [
        "memory_id", "incident_type", "incident_summary", "action_taken", "outcome", "metrics_before", "metrics_after",
        "mttr_seconds", "created_at",
    ]  # fmt: skip
    assert (found["memory_id"], found["mttr_seconds"]) == ("mem-1", 3.25)
    assert found["features"] == {"p95_ms": 412.5, "cpu": 0.2}


# --- what the command line asks ---------------------------------------------------------------------------------------


@pytest.fixture
def remember(url, recorder_of):
    """Ended incidents of one type with the features and causes given, oldest first."""

    def fill(*cases, kind=KIND):
        bus, steps = FakeBus(), []
        for i, (cause, features) in enumerate(cases):
            ended = head(f"inc-{i}", kind, Status.RESOLVED, i, i + 0.5, cause=cause)
            steps.append(
                step(ended, "memory", "RESOLVED", i, memory=memory(f"mem-{i}", f"inc-{i}", kind, cause, features))
            )
        bus.append(*chained(steps))
        recorder_of(bus).pump()

    return fill


def causes(found):
    return [similar.memory.cause for similar in found]


def test_the_newest_incidents_come_first(filled):
    assert [row.incident_id for row in queries.incidents(filled)] == ["inc-5", "inc-4", "inc-3", "inc-2", "inc-1"]
    assert [row.incident_id for row in queries.incidents(filled, limit=2)] == ["inc-5", "inc-4"]


def test_open_incidents_are_those_that_have_not_ended(filled):
    assert [row.incident_id for row in queries.incidents(filled, open_only=True)] == ["inc-5"]


def test_an_incident_comes_with_its_actions_changes_and_memory(filled):
    found = queries.incident(filled, "inc-1")
    assert found.incident.mttr_seconds == 3.25
    assert [row.action_id for row in found.actions] == ["act-1"]
    assert [row.config_id for row in found.changes] == ["cfg-2"]
    assert found.memory.memory_id == "mem-1"


def test_an_unknown_incident_is_none(filled):
    assert queries.incident(filled, "nobody") is None


def test_a_row_can_be_printed_as_json(filled):
    row = queries.plain(queries.incident(filled, "inc-1").incident)
    assert row["detected_at"] == "2026-01-01T12:00:01+00:00"
    assert row["metrics_snapshot"] == {"p95_ms": 412.5, "n": 200}
    assert json.loads(json.dumps(row)) == row
    assert type(row["status"]) is str


def test_the_mean_time_to_repair_counts_resolved_incidents_alone(filled):
    assert queries.average_mttr(filled) == [
        queries.Mttr("AGENT_DOWN", 1.0, 1),
        queries.Mttr("LATENCY_SLO_BREACH", 4.0, 2),
    ]


def test_of_two_incidents_of_one_type_the_one_with_the_same_cause_comes_first(url, remember):
    # The load case is the newer one, and nearer in the feature with the largest numbers.
    remember(
        ("infrastructure", {"p95_ms": 900.0, "rate_ratio": 1.0, "backlog_ratio": 1.1, "model_ms_ratio": 8.0}),
        ("load", {"p95_ms": 520.0, "rate_ratio": 4.0, "backlog_ratio": 9.0, "model_ms_ratio": 1.0}),
    )
    slow = {"p95_ms": 500.0, "rate_ratio": 1.1, "backlog_ratio": 1.0, "model_ms_ratio": 7.0}
    busy = {"p95_ms": 880.0, "rate_ratio": 3.7, "backlog_ratio": 8.0, "model_ms_ratio": 1.1}
    assert causes(queries.similar_memories(url, KIND, slow, 2)) == ["infrastructure", "load"]
    assert causes(queries.similar_memories(url, KIND, busy, 2)) == ["load", "infrastructure"]


def test_the_unit_of_a_feature_makes_no_difference(url, remember):
    remember(
        ("near", {"x": 1.0, "mb": 9000.0, "bytes": 9e9}),
        ("far", {"x": 9.0, "mb": 7900.0, "bytes": 7.9e9}),
    )
    by_bytes = queries.similar_memories(url, KIND, {"x": 1.5, "bytes": 8e9})
    by_mb = queries.similar_memories(url, KIND, {"x": 1.5, "mb": 8000.0})
    assert causes(by_bytes) == causes(by_mb) == ["near", "far"]
    assert [similar.distance for similar in by_bytes] == pytest.approx([similar.distance for similar in by_mb])


def test_the_same_case_has_distance_zero_and_the_newer_of_equals_comes_first(url, remember):
    remember(("older", {"x": 1.0}), ("newer", {"x": 1.0}), ("other", {"x": 2.0}))
    found = queries.similar_memories(url, KIND, {"x": 1.0}, 2)
    assert [(similar.memory.cause, similar.distance) for similar in found] == [("newer", 0.0), ("older", 0.0)]


def test_the_only_memory_is_near_if_its_numbers_are(url, remember):
    remember(("load", {"p95_ms": 412.5, "psi": 0.01}))
    assert queries.similar_memories(url, KIND, {"p95_ms": 400.0, "psi": 0.01})[0].distance < 0.3
    assert queries.similar_memories(url, KIND, {"p95_ms": 4000.0, "psi": 0.5})[0].distance > 1.4


def test_one_matching_feature_does_not_beat_many_that_nearly_match(url, remember):
    near = {"a": 1.1, "b": 2.1, "c": 3.1, "d": 4.1}
    remember(("thin", {"a": 1.0}), ("near", near), ("far", {"a": 9.0, "b": 9.0, "c": 9.0, "d": 9.0}))
    found = queries.similar_memories(url, KIND, {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0})
    assert causes(found)[0] == "near"


def test_memories_of_another_type_or_without_a_shared_feature_are_left_out(url, remember):
    remember(("drift", {"psi": 0.4}), kind="DATA_DRIFT")
    assert queries.similar_memories(url, KIND, {"psi": 0.4}) == []
    assert queries.similar_memories(url, "DATA_DRIFT", {"p95_ms": 500.0}) == []
    assert queries.similar_memories(url, "DATA_DRIFT", {}) == []


def test_a_database_without_tables_says_which_command_makes_them(empty):
    empty.sql("CREATE TABLE mine (x INTEGER)")
    with pytest.raises(CouldNot, match=r"no such table|does not exist") as caught:
        queries.incidents(empty.url)
    assert "mendstream db upgrade" in caught.value.hint
