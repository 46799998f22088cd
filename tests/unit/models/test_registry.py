"""A real MLflow store (SQLite) gets runs, versions, files and the alias; a repeat changes nothing."""

from __future__ import annotations

import socket
import traceback
from pathlib import Path

import pytest
from tests.unit.models import onnx_files
from tests.unit.models.world import card

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.registry import Registry, connect
from mendstream.contracts.errors import CouldNot


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_store_from_nothing_to_a_champion(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "models")
    for version in ("v1", "v2"):
        catalogue.add(onnx_files.linear(), card(version), {"action.json": b"{}"})
    registry = Registry(tmp_path, name="flights")
    runs = {}
    for version in ("v1", "v2"):
        runs[version] = registry.register(catalogue, catalogue.fetch(version))
        catalogue.set_run(version, runs[version])
    assert registry.champion(catalogue.fetch("v2"))

    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    champion = client.get_model_version_by_alias("flights", "champion")
    assert champion.run_id == runs["v2"]
    assert champion.tags["mendstream.version"] == "v2"
    assert champion.tags["mendstream.digest"] == catalogue.fetch("v2").digest
    run = client.get_run(runs["v2"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"accuracy": 0.9, "error_level": 0.12, "error_phi": 1.5}
    assert run.data.params["features"] == "a,b,c"
    files = {file.path for file in client.list_artifacts(runs["v2"], "model")}
    assert files == {"model/model.onnx", "model/card.json", "model/action.json"}
    stored = list((tmp_path / "mlartifacts").rglob("model.onnx"))
    assert stored[0].read_bytes() == onnx_files.linear()

    # After a crash the same version is told again, by another process.
    again = Registry(tmp_path, name="flights")
    assert again.register(catalogue, catalogue.fetch("v1")) == runs["v1"]
    assert len(client.search_model_versions("name = 'flights'")) == 2
    assert client.get_run(runs["v1"]).data.metrics["accuracy"] == 0.9
    assert not again.champion(card("v9"))
    assert again.champion(catalogue.fetch("v1"))
    assert client.get_model_version_by_alias("flights", "champion").run_id == runs["v1"]


@pytest.mark.slow
def test_a_store_that_cannot_be_opened_is_refused_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    catalogue = Catalogue(tmp_path / "models")
    catalogue.add(onnx_files.linear(), card("v1"))
    with pytest.raises(CouldNot, match=r"MLflow store sqlite:///.* refused"):
        Registry(tmp_path / "file").register(catalogue, catalogue.fetch("v1"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    password = "hunter2"
    uri = f"http://me:{password}@127.0.0.1:{port}"
    with pytest.raises(CouldNot) as caught:
        Registry(tmp_path, uri=uri).register(catalogue, catalogue.fetch("v1"))
    told = "".join(traceback.format_exception(caught.value))
    assert password not in told
    assert f"MLflow store http://127.0.0.1:{port} refused" in told
    assert "MLFLOW_TRACKING_URI" in caught.value.hint
