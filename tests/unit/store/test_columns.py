"""Column types and the engine: what SQLite would take silently is refused, and no update is lost."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from mendstream.adapters.store import database
from mendstream.adapters.store.models import HealingAction, Incident, RecorderPosition

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def engine(url):
    made = database.engine(url)
    yield made
    made.dispose()


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
    with pytest.raises(StatementError, match="JSON compliant"):
        put(engine, incident(metrics_snapshot={"p95_ms": value}))


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
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        put(engine, action)


def test_read_then_write_in_three_threads_loses_no_update(engine):
    put(engine, RecorderPosition(stream="s", incarnation="i", position=0, seq=0, hash="", live_config={}))

    def count():
        for _ in range(50):
            with Session(engine) as session, session.begin():
                before = session.scalars(select(RecorderPosition.position)).one()
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
    with pytest.raises(database.CouldNot, match="readonly"), database.reading(url) as reader:
        reader.execute(text("DELETE FROM incidents"))
