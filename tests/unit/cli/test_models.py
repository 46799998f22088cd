"""Model versions by hand: which there are, which was live when, and forced changes of it."""

import pytest
from tests.unit.cli.conftest import NOW
from tests.unit.cli.fake_bus import FakeBus

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.contracts.models import FeatureReference, ModelCard
from mendstream.contracts.records import ConfigChange
from mendstream.contracts.topics import Topic

HOUR = 3600 * 1_000_000


def card(version: str) -> ModelCard:
    return ModelCard(
        version=version, digest="", created_at_us=NOW, features=("amount",), data_window="January", rows=1000,
        metrics={"accuracy": 0.9}, error_level=0.12, error_phi=1.0,
        reference={"amount": FeatureReference(edges=(1.0,), counts=(1, 2, 0))},
    )  # fmt: skip


@pytest.fixture
def digests(folder, bus) -> dict[str, str]:
    catalogue = Catalogue(folder / ".mendstream" / "models")
    return {version: catalogue.add(b"onnx " + version.encode(), card(version)).digest for version in ("v1", "v2", "v3")}


@pytest.fixture
def live(bus, digests) -> FakeBus:
    """v1 was live, v2 is; a change to v3 lost the race."""

    def change(base: int, version: str, at_us: int, actor: str = "healing") -> ConfigChange:
        changes = {"model_version": version, "model_digest": digests[version]}
        return ConfigChange(
            id=f"{base}{version}", base_version=base, changes=changes, actor=actor, reason=f"to {version}", at_us=at_us
        )

    bus.put(Topic.CONFIG_UPDATES, change(0, "v1", NOW - 3 * HOUR, "init"), change(1, "v2", NOW - HOUR))
    bus.put(Topic.CONFIG_UPDATES, change(1, "v3", NOW - HOUR // 2))
    return bus


def test_the_list_says_which_version_is_live(run, live):
    rows = run("models", "list", "--json").json
    assert [(row["version"], row["state"], row["accuracy"]) for row in rows] == [
        ("v1", "ready", 0.9), ("v2", "live", 0.9), ("v3", "ready", 0.9),
    ]  # fmt: skip
    assert "January" in run("models", "list").out


def test_versions_can_be_listed_before_anything_has_run(run, folder):
    Catalogue(folder / "kept").add(b"onnx", card("v1"))
    rows = run("models", "list", "--set", "models.dir=kept", "--json").json
    assert [(row["version"], row["state"]) for row in rows] == [("v1", "ready")]


def test_show_gives_the_card_and_checks_the_file(run, live, folder):
    facts = run("models", "show", "v2", "--json").json
    assert (facts["state"], facts["features"]) == ("live", ["amount"])
    assert "1 features" in run("models", "show", "v2").out
    (folder / ".mendstream/models/v2/model.onnx").write_bytes(b"changed")
    ran = run("models", "show", "v2")
    assert ran.code == 3
    assert "SHA-256" in ran.err
    assert run("models", "show", "v9").code == 3


def test_the_history_answers_which_version_was_live_when(run, live):
    spans = run("models", "history", "--json").json
    assert [(span["version"], span["until_us"], span["actor"]) for span in spans] == [
        ("v1", NOW - HOUR, "init"), ("v2", None, "healing"),
    ]  # fmt: skip
    # NOW is 2023-11-14T22:15:00Z
    at = ("models", "history", "--at")
    assert [span["version"] for span in run(*at, "2023-11-14T20:00:00Z", "--json").json] == ["v1"]
    assert [span["version"] for span in run(*at, "2023-11-14T22:00:00Z", "--json").json] == ["v2"]
    assert run(*at, "2023-11-14T10:00:00Z").code == 1
    assert run(*at, "yesterday").code == 2


def test_promote_is_one_forced_change_with_the_digest_of_the_card(run, live, digests):
    ran = run("models", "promote", "v3", "--reason", "it is better")
    assert (ran.code, ran.out) == (0, "v3 is live from config 3 on\n")
    made = live.held(Topic.CONFIG_UPDATES)[-1]
    assert made.changes == {"model_version": "v3", "model_digest": digests["v3"]}
    assert (made.base_version, made.forced, made.actor, made.reason) == (2, True, "ada", "it is better")
    assert run("models", "promote", "v3", "--json").json == {"model": "v3", "changed": False, "config": None}


def test_a_file_that_was_changed_is_not_promoted(run, live, folder):
    (folder / ".mendstream/models/v3/model.onnx").write_bytes(b"")
    before = len(live.held(Topic.CONFIG_UPDATES))
    assert run("models", "promote", "v3").code == 3
    assert len(live.held(Topic.CONFIG_UPDATES)) == before


def test_rollback_goes_to_the_version_before_and_excludes_the_one_that_was_live(run, live, digests):
    assert run("models", "rollback").out == "v1 is live from config 3 on\n"
    made = live.held(Topic.CONFIG_UPDATES)[-1]
    assert made.changes == {"model_version": "v1", "model_digest": digests["v1"], "excluded_models": ["v2"]}
    # Neither back to the excluded one nor further back: there is none.
    assert run("models", "rollback").code == 3
    assert run("models", "promote", "v2").code == 1
    assert run("models", "promote", "v2", "--lift", "--json").json["config"] == 4
    assert live.held(Topic.CONFIG_UPDATES)[-1].changes["excluded_models"] == []


def test_rollback_to_a_version_that_never_was_live_is_refused(run, live):
    ran = run("models", "rollback", "v3")
    assert ran.code == 1
    assert "never live" in ran.err
