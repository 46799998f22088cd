"""What is the disk's own of the catalogue on disk; the rest is in tests/contract/test_catalogue.py."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import pytest
from tests.unit.models.world import card

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.contracts.errors import ModelError

ONNX = b"any bytes: the catalogue does not look inside"
DIGEST = hashlib.sha256(ONNX).hexdigest()


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "models")


def test_the_model_is_a_plain_file(catalogue):
    catalogue.add(ONNX, card("v1"))
    assert catalogue.path("v1").read_bytes() == ONNX
    assert [entry.name for entry in catalogue.directory.iterdir()] == ["v1"]  # moved into place, not copied
    with pytest.raises(ModelError, match="is no model version"):
        catalogue.path("../v1")


def test_a_run_id_is_written_down_without_touching_the_rest(catalogue):
    before = catalogue.add(ONNX, card("v1"))
    catalogue.set_run("v1", "run-7")
    assert Catalogue(catalogue.directory).fetch("v1") == msgspec.structs.replace(before, run_id="run-7")
    assert catalogue.add(ONNX, card("v1")).run_id == "run-7"


def test_bundled_versions_are_taken_over_once(catalogue, tmp_path):
    bundle = Catalogue(tmp_path / "bundle")
    bundle.add(ONNX, card("v1"))
    bundle.add(b"worse", card("v2"))
    assert [c.version for c in catalogue.import_dir(bundle.directory)] == ["v1", "v2"]
    assert [c.version for c in catalogue.import_dir(bundle.directory)] == ["v1", "v2"]
    assert catalogue.card("v2") == bundle.fetch("v2")


def test_what_a_killed_add_left_behind_is_swept_later(catalogue):
    catalogue.directory.mkdir()
    torn = catalogue.directory / ".new-abc"
    torn.mkdir()
    (torn / "model.onnx").write_bytes(ONNX)
    assert catalogue.versions() == ()
    catalogue.add(ONNX, card("v1"))
    assert torn.exists()  # it may be another process at work
    os.utime(torn, (1, 1))
    catalogue.add(ONNX, card("v2"))
    assert not torn.exists()


def test_what_is_wrong_is_named_with_its_whole_path(catalogue):
    catalogue.add(ONNX, card("v1"))
    catalogue.path("v1").write_bytes(ONNX + b"!")
    with pytest.raises(ModelError) as caught:
        catalogue.model("v1", DIGEST)
    assert str(catalogue.path("v1")) in str(caught.value)
    place = catalogue.path("v1").with_name("card.json")
    place.write_bytes(b"{")
    with pytest.raises(ModelError) as caught:
        Catalogue(catalogue.directory).fetch("v1")
    assert str(place) in str(caught.value)


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "models").write_text("a file is in the way")
    with pytest.raises(ModelError, match="cannot write model v1 to") as caught:
        Catalogue(tmp_path / "models").add(ONNX, card("v1"))
    assert "read-only" in caught.value.hint
