"""A refusal of an MLflow store says which one and why, and nothing that is secret; see also tests/contract."""

from __future__ import annotations

import socket
import traceback
from pathlib import Path

import pytest
from tests.unit.models import onnx_files
from tests.unit.models.world import card

from mendstream.adapters.models.apart import RegistryApart, Turn
from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.entry import text
from mendstream.adapters.models.registry import Registry, hidden
from mendstream.contracts.errors import CouldNot

PASSWORD = "hunter2"


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    held = Catalogue(tmp_path / "models")
    held.add(onnx_files.linear(), card("v1"))
    return held


@pytest.mark.slow
def test_a_store_that_cannot_be_opened_is_refused(tmp_path, catalogue):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CouldNot, match=r"MLflow store sqlite:///.* refused"):
        Registry(tmp_path / "file").register(catalogue, catalogue.fetch("v1"))


@pytest.mark.slow
def test_a_server_that_is_away_is_named_without_its_password(tmp_path, catalogue, monkeypatch):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # put back afterwards
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(CouldNot) as caught:
        Registry(tmp_path, uri=f"http://me:{PASSWORD}@127.0.0.1:{port}").register(catalogue, catalogue.fetch("v1"))
    told = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in told
    assert f"MLflow store http://127.0.0.1:{port} refused: " in told
    assert "Connection refused" in told
    assert "MLFLOW_TRACKING_URI" in caught.value.hint


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_process_for_it_does_without_what_mlflow_only_likes_to_have(tmp_path, catalogue):
    there = RegistryApart(Turn(), tmp_path, uri="", name="flights")
    try:
        run_id = there.register(catalogue, catalogue.fetch("v1"))
        assert there.known() == {("v1", catalogue.fetch("v1").digest): run_id}
        maps = Path(f"/proc/{there._there.pid}/maps").read_text()
        assert "sqlite" in maps
        assert "pyarrow" not in maps
        assert "numpy" not in maps
    finally:
        there.close()


def test_what_is_secret_is_hidden_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", PASSWORD)
    told = hidden(f"postgresql://me:secret@host/db said: Bearer {PASSWORD}")
    assert told == "postgresql://host/db said: Bearer ***"


def test_a_card_with_many_features_fits_into_what_mlflow_takes():
    wide = card("v1", tuple(f"feature_number_{number}" for number in range(2000)))
    told = text(wide)
    assert len(told) == 5000
    assert "| accuracy | 0.9 |" in told
