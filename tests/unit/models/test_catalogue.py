"""A catalogue gives out what was put in, or says clearly why it cannot."""

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


def test_what_was_added_is_found_by_version_and_digest(catalogue):
    added = catalogue.add(ONNX, card("v1"))
    assert added.digest == DIGEST
    assert catalogue.versions() == ("v1",)
    assert catalogue.model("v1", DIGEST) == ONNX
    assert catalogue.path("v1").read_bytes() == ONNX
    assert Catalogue(catalogue.directory).fetch("v1") == added


def test_an_empty_house_has_no_versions_and_begins_with_v1(catalogue):
    assert catalogue.versions() == ()
    assert catalogue.next_version() == "v1"


def test_versions_are_ordered_by_number(catalogue):
    for version in ("v10", "v9", "v2"):
        catalogue.add(ONNX, card(version))
    assert catalogue.versions() == ("v2", "v9", "v10")
    assert catalogue.next_version() == "v11"


def test_a_card_is_known_only_after_it_was_fetched(catalogue):
    catalogue.add(ONNX, card("v1"))
    other = Catalogue(catalogue.directory)
    assert other.card("v1") is None
    fetched = other.fetch("v1")
    catalogue.path("v1").with_name("card.json").unlink()
    assert other.card("v1") == fetched


def test_the_same_content_is_accepted_again_and_any_other_is_refused(catalogue):
    first = catalogue.add(ONNX, card("v1"))
    again = catalogue.add(ONNX, msgspec.structs.replace(card("v1"), created_at_us=99))
    assert again == first
    with pytest.raises(ModelError, match="already holds another model") as caught:
        catalogue.add(b"other", card("v1"))
    assert "v2" in caught.value.hint
    with pytest.raises(ModelError, match="already holds another model"):
        catalogue.add(ONNX, msgspec.structs.replace(card("v1"), error_level=0.5))
    assert catalogue.model("v1", DIGEST) == ONNX


def test_notes_stand_beside_the_model(catalogue):
    catalogue.add(ONNX, card("v1"), {"action.json": b"{}"})
    assert catalogue.note("v1", "action.json") == b"{}"
    assert catalogue.note("v1", "nothing.json") is None


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


def test_a_killed_add_leaves_no_version_and_is_swept_later(catalogue):
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


def test_a_changed_file_is_refused_by_its_digest(catalogue):
    catalogue.add(ONNX, card("v1"))
    catalogue.path("v1").write_bytes(ONNX + b"!")
    with pytest.raises(ModelError, match="has SHA-256") as caught:
        catalogue.model("v1", DIGEST)
    assert str(catalogue.path("v1")) in str(caught.value)
    assert "put the right one back" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"{", "is no model card"),
        (b'{"version": 1}', "is no model card"),
        (b"\xff", "no model card"),
    ],
)
def test_a_broken_card_is_named_with_its_place(catalogue, content, says):
    catalogue.add(ONNX, card("v1"))
    place = catalogue.path("v1").with_name("card.json")
    place.write_bytes(content)
    with pytest.raises(ModelError, match=says) as caught:
        Catalogue(catalogue.directory).fetch("v1")
    assert str(place) in str(caught.value)
    assert caught.value.hint


def test_an_empty_model_file_is_named_with_its_place(catalogue):
    catalogue.add(ONNX, card("v1"))
    catalogue.path("v1").write_bytes(b"")
    with pytest.raises(ModelError, match=r"is empty: .*v1/model\.onnx"):
        catalogue.model("v1", DIGEST)


def test_a_missing_version_is_answered_with_those_that_are_there(catalogue):
    catalogue.add(ONNX, card("v1"))
    with pytest.raises(ModelError, match="v7") as caught:
        catalogue.fetch("v7")
    assert "v1" in caught.value.hint
    with pytest.raises(ModelError, match="cannot be read"):
        catalogue.model("v7", DIGEST)


@pytest.mark.parametrize("name", ["", "../v1", "v1/../../etc", "1", "v0", "V1", "v1\n"])
def test_a_version_that_is_no_plain_name_is_refused(catalogue, name):
    with pytest.raises(ModelError, match="is no model version"):
        catalogue.fetch(name)


def test_a_card_that_contradicts_itself_is_refused(catalogue):
    wrong = card("v1")
    with pytest.raises(ModelError, match="repeat a name"):
        catalogue.add(ONNX, msgspec.structs.replace(wrong, features=("a", "a")))
    reference = {"a": msgspec.structs.replace(wrong.reference["a"], counts=(1, 2))}
    with pytest.raises(ModelError, match="one count a bin"):
        catalogue.add(ONNX, msgspec.structs.replace(wrong, reference=reference))
    with pytest.raises(ModelError, match="is empty"):
        catalogue.add(b"", wrong)
    assert catalogue.versions() == ()


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "models").write_text("a file is in the way")
    with pytest.raises(ModelError, match="cannot write model v1 to") as caught:
        Catalogue(tmp_path / "models").add(ONNX, card("v1"))
    assert "read-only" in caught.value.hint
