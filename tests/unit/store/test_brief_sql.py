"""The SQL statements of the original request, letter for letter, as another program would run them on the file."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.store.literal_log import whole_log

pytestmark = pytest.mark.usefixtures("filled")


@pytest.fixture
def filled(recorder_of):
    assert recorder_of(whole_log()).pump()


def test_the_briefs_check_of_incidents(sql):
    found = sql("""-- Check incidents
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
        "2026-01-01 12:00:01.000000",
        "2026-01-01 12:00:04.250000",
    )


def test_the_briefs_check_of_actions(sql):
    found = sql("""-- Check actions
SELECT a.action_id, a.incident_id, a.agl_decision, a.result
FROM healing_actions a JOIN incidents i ON a.incident_id = i.incident_id
ORDER BY a.created_at DESC LIMIT 10;""")
    assert [tuple(row.values()) for row in found] == [
        ("act-5", "inc-5", None, None),
        ("act-4", "inc-4", "DENIED", "FAIL"),
        ("act-3", "inc-3", "MODIFIED", "SUCCESS"),
        ("act-1", "inc-1", "APPROVED", "SUCCESS"),
    ]


def test_the_briefs_average_mttr(sql):
    found = sql("""-- Average MTTR
SELECT type, AVG(mttr_seconds) as avg_mttr, COUNT(*) as count
FROM incidents WHERE status = 'RESOLVED'
GROUP BY type;""")
    assert {row["type"]: (row["avg_mttr"], row["count"]) for row in found} == {
        "LATENCY_SLO_BREACH": (4.0, 2),
        "AGENT_DOWN": (1.0, 1),
    }


def test_the_briefs_look_at_all_incidents(sql):
    found = sql("SELECT * FROM incidents;")
    assert len(found) == 5
    assert list(found[0])[:8] == [
        "incident_id", "type", "detected_at", "resolved_at", "status", "metrics_snapshot", "mttr_seconds", "created_at",
    ]  # fmt: skip


def test_the_demos_newest_latency_breach(sql):
    (found,) = sql("SELECT * FROM incidents WHERE type = 'LATENCY_SLO_BREACH' ORDER BY detected_at DESC LIMIT 1;")
    assert (found["incident_id"], found["status"], found["mttr_seconds"]) == ("inc-2", "RESOLVED", 4.75)
    assert msgspec.json.decode(found["metrics_snapshot"]) == {"p95_ms": 412.5, "n": 200}


def test_the_demos_newest_config_change_is_one_that_applied(sql):
    (found,) = sql("SELECT * FROM config_history ORDER BY created_at DESC LIMIT 1;")
    assert list(found)[:6] == ["config_id", "changed_by", "changes", "reason", "incident_id", "created_at"]
    assert found == {
        "config_id": "cfg-2", "changed_by": "healing", "changes": '{"safe_mode": ["inc-1"]}',
        "reason": "LATENCY_SLO_BREACH", "incident_id": "inc-1", "created_at": "2026-01-01 12:00:02.000000",
        "base_version": 1, "version": 2, "action_id": "act-1", "approval": "verdict-1", "forced": 0,
    }  # fmt: skip


def test_the_demos_newest_memory(sql):
    (found,) = sql("SELECT * FROM memory_chunks ORDER BY created_at DESC LIMIT 1;")
    assert list(found)[:9] == [
        "memory_id", "incident_type", "incident_summary", "action_taken", "outcome", "metrics_before", "metrics_after",
        "mttr_seconds", "created_at",
    ]  # fmt: skip
    assert (found["memory_id"], found["mttr_seconds"]) == ("mem-1", 3.25)
    assert msgspec.json.decode(found["features"]) == {"p95_ms": 412.5, "cpu": 0.2}
