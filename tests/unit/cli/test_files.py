"""Verbs on files alone: policies, the store, incidents in it, this machine."""

import json
import socket
from datetime import UTC, datetime

import pytest
from sqlalchemy.orm import Session

from mendstream.adapters.store.database import engine
from mendstream.adapters.store.models import Incident
from mendstream.adapters.store.schema import init_db
from mendstream.cli.work.doctor import Sign

# --- policy ----------------------------------------------------------------------------------------------------------


def test_the_shipped_policies_are_well_and_pass_their_cases(run):
    assert run("policy", "check").code == 0
    ran = run("policy", "test", "--json")
    assert (ran.code, ran.json["failed"], ran.json["uncovered"]) == (0, 0, [])


@pytest.fixture
def own(folder):
    (folder / "rules").mkdir()
    return folder / "rules" / "own.cedar"


def test_what_is_wrong_with_a_policy_is_told_with_file_and_line(run, own):
    own.write_text('// mine\n@id("a")\n@reason("b")\npermit (principal, action, resource) when { nonsense };\n')
    ran = run("policy", "check", "rules", "--json")
    assert ran.code == 1
    assert [(p["file"], p["line"], p["policy"]) for p in ran.json["problems"]] == [("own.cedar", 2, "a")]
    assert "own.cedar:2" in run("policy", "check", "--set", "policy.dir=rules").err
    assert run("policy", "test", "rules").code == 2


def test_a_case_whose_verdict_differs_is_a_no(run, own):
    own.write_text('@id("all")\n@reason("anything goes")\npermit (principal, action, resource);\n')
    ran = run("policy", "test", "rules")
    assert ran.code == 1
    assert "DENIED" in ran.out


def test_a_policy_folder_that_is_not_there_is_a_usage_error(run):
    assert run("policy", "check", "nowhere").code == 2
    assert run("policy", "check", "--set", "policy.dir=nowhere").code == 2


# --- db, incidents ---------------------------------------------------------------------------------------------------


def test_upgrade_makes_the_database_and_current_says_whether_it_is_the_newest(run, folder):
    ran = run("db", "current", "--json")
    assert (ran.code, ran.json["revision"]) == (1, None)
    assert not (folder / ".mendstream").exists()
    assert run("db", "upgrade", "--json").json["before"] is None
    ran = run("db", "current", "--json")
    assert (ran.code, ran.json["revision"]) == (0, ran.json["newest"])


def test_incidents_without_a_database_could_not(run):
    ran = run("incidents")
    assert ran.code == 3
    assert "no database" in ran.err


@pytest.fixture
def store(folder):
    """One incident that was resolved, and one a day later that is open."""
    url = f"sqlite:///{folder}/x.db"
    init_db(url)
    made = engine(url)
    with Session(made) as session, session.begin():
        for number, status in enumerate(("RESOLVED", "OPEN")):
            at = datetime(2026, 1, number + 1, tzinfo=UTC)
            session.add(
                Incident(
                    incident_id=f"inc-{number}", type="AGENT_DOWN", detected_at=at, status=status, metrics_snapshot={},
                    created_at=at, updated_at=at, subject="model-0", cause="", outcome="", phase="LOGGED",
                    step="logging", text="noted", seq=number,
                )
            )  # fmt: skip
    made.dispose()
    return url


def test_incidents_are_listed_newest_first_and_shown_by_their_id(run, store):
    assert [row["incident_id"] for row in run("incidents", "--json", "--store", store).json] == ["inc-1", "inc-0"]
    assert [row["incident_id"] for row in run("incidents", "--open", "--json", "--store", store).json] == ["inc-1"]
    assert "AGENT_DOWN" in run("incidents", "--store", store).out
    facts = run("incidents", "inc-0", "--json", "--store", store).json
    assert (facts["incident"]["status"], facts["actions"], facts["steps"]) == ("RESOLVED", [], [])
    assert "no action was proposed" in run("incidents", "inc-0", "--store", store).out
    assert run("incidents", "inc-7", "--store", store).code == 2


# --- doctor ----------------------------------------------------------------------------------------------------------


def signs(ran) -> dict[str, Sign]:
    return {sign["check"]: Sign(**sign) for sign in json.loads(ran.out)}


def test_doctor_finds_nothing_to_mend_on_a_machine_that_is_well(run):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        free = one.getsockname()[1]
    ran = run("doctor", "--json", "--set", "metrics.enabled=false", "--set", f"ingestion.http_port={free}")
    assert ran.code == 0
    assert {sign.state for sign in signs(ran).values()} <= {"ok", "warn"}
    assert "packages" in run("doctor").out


def test_doctor_tells_what_to_mend(run, folder):
    (folder / "file").write_text("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = run("doctor", "--json", "--data", "file/x", "--set", "policy.dir=none",
                  "--set", "metrics.enabled=false", "--set", "ingestion.source=http",
                  "--set", f"ingestion.http_port={port}")  # fmt: skip
    assert ran.code == 1, ran.err
    found = signs(ran)
    assert found["data directory"].state == "fail"
    assert found["policies"].state == "fail"
    assert (found["ports"].state, str(port) in found["ports"].what) == ("warn", True)


def test_doctor_tells_wrong_settings_instead_of_stopping_at_them(run):
    found = signs(run("doctor", "--json", "--set", "run.fused=true"))
    assert found["settings"].state == "fail"
    assert "did you mean run.fuse?" in found["settings"].fix
