"""What the command line asks."""

from __future__ import annotations

import json

import pytest
from tests.unit.store.literal_log import FakeBus, chained, head, memory, step, whole_log

from mendstream.adapters.store import queries
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.records import Status

KIND = "LATENCY_SLO_BREACH"


@pytest.fixture
def filled(url, recorder_of):
    recorder_of(whole_log()).pump()
    return url


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


def test_a_database_without_tables_says_which_command_makes_them(tmp_path):
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(CouldNot, match="no such table") as caught:
        queries.incidents(f"sqlite:///{path}")
    assert "mendstream db upgrade" in caught.value.hint
