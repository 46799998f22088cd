"""What MLflow gets to know of a model and of what is live: the same in the house's own store and on a server."""

from __future__ import annotations

import hashlib
import uuid

import msgspec
import pytest
from tests.support.clock import ManualClock
from tests.support.registries import Rest, Sqlite
from tests.unit.models import onnx_files
from tests.unit.models.world import card

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.registrar import Registrar
from mendstream.adapters.models.registry import CHAMPION, PREVIOUS
from mendstream.contracts.errors import CouldNot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ONNX = onnx_files.linear()
DIGEST = hashlib.sha256(ONNX).hexdigest()
STEPS = ("create_run", "log_batch", "log_artifacts", "set_terminated", "create_model_version")
"""Of a registration, in this order."""


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.services)])
def store(request, tmp_path):
    name = f"flights-{uuid.uuid4().hex[:8]}"  # the server is everybody's
    if request.param == "sqlite":
        return Sqlite(tmp_path, name)
    return Rest(request.getfixturevalue("mlflow_server").url, name)


@pytest.fixture
def catalogue(tmp_path):
    held = Catalogue(tmp_path / "models")
    for version in ("v1", "v2", "v3"):
        held.add(ONNX, msgspec.structs.replace(card(version), data_window=f"rows of {version}"), {"action.json": b"{}"})
    return held


def test_a_version_is_shown_with_its_card_metrics_and_the_file_that_we_serve(store, catalogue, tmp_path):
    run_id = store.registry(tmp_path).register(catalogue, catalogue.fetch("v1"))
    (shown,) = store.versions()
    assert (shown.version, shown.digest, shown.run_id, shown.status) == ("v1", DIGEST, run_id, "READY")
    for part in ("rows of v1", "| accuracy | 0.9 |", "| error_level | 0.12 |", DIGEST, "a, b, c"):
        assert part in shown.card
    run = store.run(run_id)
    assert run["status"] == "FINISHED"
    assert run["metrics"] == {"accuracy": 0.9, "error_level": 0.12, "error_phi": 1.5}
    assert run["params"]["features"] == "a,b,c"
    assert run["params"]["data_window"] == "rows of v1"
    assert (run["params"]["rows"], run["params"]["digest"]) == ("100", DIGEST)
    assert run["tags"]["mlflow.note.content"] == shown.card
    assert store.file(run_id, "model/model.onnx") == ONNX
    assert store.file(run_id, "model/card.json") == (tmp_path / "models" / "v1" / "card.json").read_bytes()
    assert store.file(run_id, "model/action.json") == b"{}"


def test_a_version_that_another_process_tells_again_is_there_once(store, catalogue, tmp_path):
    run_id = store.registry(tmp_path).register(catalogue, catalogue.fetch("v1"))
    before = store.versions(), store.run(run_id)
    assert store.registry(tmp_path).register(catalogue, catalogue.fetch("v1")) == run_id
    assert (store.versions(), store.run(run_id)) == before
    assert store.runs() == 1


def test_aliases_follow_promotions_and_rollbacks(store, catalogue, tmp_path):
    registry = store.registry(tmp_path)
    for version in ("v1", "v2"):
        registry.register(catalogue, catalogue.fetch(version))
    assert registry.alias(CHAMPION, catalogue.fetch("v1"))
    assert store.aliases() == {"champion": "v1"}
    for live, before in (("v2", "v1"), ("v1", "v2")):
        assert registry.alias(CHAMPION, catalogue.fetch(live))
        assert registry.alias(PREVIOUS, catalogue.fetch(before))
        assert store.aliases() == {"champion": live, "previous": before}


def test_no_alias_points_to_what_is_not_registered(store, catalogue, tmp_path):
    registry = store.registry(tmp_path)
    registry.register(catalogue, catalogue.fetch("v1"))
    registry.alias(CHAMPION, catalogue.fetch("v1"))
    assert not registry.alias(CHAMPION, catalogue.fetch("v2"))
    assert not registry.alias(CHAMPION, msgspec.structs.replace(catalogue.fetch("v1"), digest="0" * 64))
    assert store.aliases() == {"champion": "v1"}


def test_it_knows_what_is_registered_by_version_and_digest(store, catalogue, tmp_path):
    registry = store.registry(tmp_path)
    assert registry.known() == {}
    runs = {version: registry.register(catalogue, catalogue.fetch(version)) for version in ("v1", "v2")}
    assert store.registry(tmp_path).known() == {("v1", DIGEST): runs["v1"], ("v2", DIGEST): runs["v2"]}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_registration_that_ends_at_any_step_leaves_no_version_or_a_whole_one(
    store, catalogue, tmp_path, monkeypatch, step, late
):
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    right = getattr(MlflowClient, step)

    def end(*args, **named):
        if late:
            right(*args, **named)
        raise MlflowException("the end")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, step, end)
        with pytest.raises(CouldNot, match="the end"):
            store.registry(tmp_path).register(catalogue, catalogue.fetch("v1"))
    whole = late and step == "create_model_version"
    assert [one.version for one in store.versions()] == (["v1"] if whole else [])
    again = store.registry(tmp_path)
    assert again.alias(CHAMPION, catalogue.fetch("v1")) is whole
    run_id = again.register(catalogue, catalogue.fetch("v1"))
    (shown,) = store.versions()
    assert (shown.version, shown.run_id) == ("v1", run_id)
    assert store.run(run_id)["status"] == "FINISHED"
    assert store.file(run_id, "model/model.onnx") == ONNX
    assert store.runs() == 1


def test_a_catalogue_that_came_from_another_store_is_told_as_a_whole(store, catalogue, tmp_path):
    """Its cards have run ids; what counts is what this store knows."""
    for version in catalogue.versions():
        catalogue.set_run(version, "a-run-elsewhere")
    store.registry(tmp_path).register(catalogue, catalogue.fetch("v2"))
    clock = ManualClock()
    registrar = Registrar(
        _Closing(store.registry(tmp_path)), catalogue, clock, lambda: ("v3", "v1"), quiet_s=1.0
    )  # fmt: skip
    clock.advance(s=1)
    while registrar.pump():
        pass
    assert registrar.trouble == ""
    assert store.aliases() == {"champion": "v3", "previous": "v1"}
    runs = {one.version: one.run_id for one in store.versions()}
    assert runs == {version: catalogue.fetch(version).run_id for version in catalogue.versions()}


class _Closing:
    """As the registrar has it: one that may be closed."""

    def __init__(self, registry) -> None:
        self.known, self.register, self.alias = registry.known, registry.register, registry.alias

    def close(self) -> None: ...
