"""A house with an MLflow server that is away, ill and back: it serves and learns meanwhile, and MLflow gets it all."""

from __future__ import annotations

import hashlib
import json

import pytest
from tests.processes.house import Running
from tests.processes.monkey import BUDGET
from tests.support.registries import Rest, StubProxy
from tests.support.services import service

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.registrar import LiveModel
from mendstream.contracts.records import CommandResult, Outcome
from mendstream.contracts.topics import Topic
from mendstream.settings import models_dir

pytestmark = [pytest.mark.services, pytest.mark.processes, pytest.mark.timeout(420)]
SECRET = "canary-7f3a"
TOLD_S = 150.0
"""MLflow is told politely, and up to a minute after it is back."""


def waiting(house):
    """What `mendstream status` says that the trainer waits for."""
    found = json.loads(house.told("status", "--json"))
    assert found["running"]
    return next((p["waits_for"] for p in found["processes"] if p["process"] == "trainer-0"), "")


def in_the_log(house):
    """The aliases as they should be."""
    return dict(zip(("champion", "previous"), LiveModel(house.bus).versions(), strict=True))


def test_a_house_learns_without_its_mlflow_server_which_then_shows_what_was_made_and_what_is_live(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    with service("mlflow") as server, StubProxy(server.url).running() as proxy:
        proxy.spoil(lambda number, line: "500")
        uri = proxy.url.replace("://", f"://me:{SECRET}@")
        with Running(tmp_path, models__mlflow_uri=uri, **BUDGET) as house:
            shown = Rest(server.url, "flights")
            house.warm_up()
            house.until(lambda: waiting(house), why="the trainer says that MLflow does not answer")
            assert f"trainer-0 waits: MLflow store {proxy.url} refused: " in house.told("status")
            server.kill()

            # It learns, and what it learnt goes live, while nobody answers.
            since = house.hurt("drift")
            case = house.incident(since, "DATA_DRIFT")
            house.ended(case, 120)
            assert case.resolved
            results = [one for one in house.news.of(Topic.COMMAND_RESULTS, CommandResult) if "version" in one.data]
            assert results[0].outcome is Outcome.DONE
            assert house.config.model_version in [one.data["version"] for one in results]
            assert waiting(house)

            # The server is back: the trainer is killed at the first file, then MLflow gets everything.
            generation = house.shown("trainer-0")["generation"]

            def kill(number, line):
                if line.startswith("PUT ") and house.shown("trainer-0")["generation"] == generation:
                    house.kill("trainer-0")

            proxy.spoil(kill)
            server.restart()
            house.until(lambda: house.shown("trainer-0")["generation"] > generation, TOLD_S, why="it is killed")
            cards = Catalogue(models_dir(house.settings).absolute())
            house.until(
                lambda: (
                    {one.version for one in shown.versions()} >= {"v1", "v2", *cards.versions()}
                    and shown.aliases() == in_the_log(house)
                ),
                TOLD_S,
                why="every version is registered, and the aliases follow",
            )
            for one in shown.versions():
                card = cards.fetch(one.version)
                run = shown.run(one.run_id)
                assert (one.digest, one.status, run["status"]) == (card.digest, "READY", "FINISHED")
                assert hashlib.sha256(shown.file(one.run_id, "model/model.onnx")).hexdigest() == card.digest
                assert run["params"]["data_window"] == card.data_window
                assert run["metrics"]["accuracy"] == card.metrics["accuracy"]
                assert card.data_window in one.card
            house.until(lambda: not waiting(house), why="nothing is waited for")

            # A rollback by hand, which healing leaves as it is.
            house.told("pause", "--reason", "a test")
            made = house.config.model_version
            house.told("models", "rollback", "v1", "--reason", "a test")
            house.until(
                lambda: shown.aliases() == {"champion": "v1", "previous": made}, TOLD_S, why="the aliases turn round"
            )
            assert SECRET not in house.told("status", "--json")
            house.until(house.serving, why="it serves as usual")
    assert len(proxy.authorised) == 1
    written = [path for path in tmp_path.rglob("*") if path.suffix in (".log", ".json") and path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if SECRET in path.read_text()]
