"""What every catalogue has to keep, whatever holds its files."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from tests.support.models_kept import WORLDS, Death
from tests.unit.models.world import card

from mendstream.adapters.models.versions import CARD_FILE, MODEL_FILE
from mendstream.contracts.errors import ModelError
from mendstream.contracts.models import Catalogue

ONNX = b"any bytes: the catalogue does not look inside"
DIGEST = hashlib.sha256(ONNX).hexdigest()


@pytest.fixture(params=WORLDS)
def world(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture
def catalogue(world) -> Catalogue:
    return world.catalogue()


def test_what_was_added_is_found_by_version_and_digest(world, catalogue):
    added = catalogue.add(ONNX, card("v1"))
    assert added.digest == DIGEST
    assert catalogue.versions() == ("v1",)
    assert catalogue.model("v1", DIGEST) == ONNX
    assert world.catalogue().fetch("v1") == added


def test_an_empty_house_has_no_versions_and_begins_with_v1(catalogue):
    assert catalogue.versions() == ()
    assert catalogue.next_version() == "v1"


def test_versions_are_ordered_by_number(catalogue):
    for version in ("v10", "v9", "v2"):
        catalogue.add(ONNX, card(version))
    assert catalogue.versions() == ("v2", "v9", "v10")
    assert catalogue.next_version() == "v11"


def test_a_card_is_known_only_after_it_was_fetched(world, catalogue):
    catalogue.add(ONNX, card("v1"))
    other = world.catalogue()
    assert other.card("v1") is None
    fetched = other.fetch("v1")
    world.lose("v1", CARD_FILE)
    assert other.card("v1") == fetched
    with pytest.raises(ModelError, match="cannot be read"):
        world.catalogue().fetch("v1")


def test_the_same_content_is_accepted_again_and_any_other_is_refused(world, catalogue):
    first = catalogue.add(ONNX, card("v1"))
    again = world.catalogue().add(ONNX, msgspec.structs.replace(card("v1"), created_at_us=99))
    assert again == first
    with pytest.raises(ModelError, match="already holds another model") as caught:
        catalogue.add(b"other", card("v1"))
    assert "v2" in caught.value.hint
    with pytest.raises(ModelError, match="already holds another model"):
        catalogue.add(ONNX, msgspec.structs.replace(card("v1"), error_level=0.5))
    assert catalogue.model("v1", DIGEST) == ONNX


def test_notes_stand_beside_the_model(world, catalogue):
    catalogue.add(ONNX, card("v1"), {"action.json": b"{}"})
    assert world.catalogue().note("v1", "action.json") == b"{}"
    assert catalogue.note("v1", "nothing.json") is None
    assert catalogue.note("v2", "action.json") is None


def test_an_adder_that_dies_before_the_version_is_in_leaves_none(world, catalogue):
    catalogue.add(ONNX, card("v1"))
    with world.deadly("adding"), pytest.raises(Death):
        catalogue.add(b"second", card("v2"), {"action.json": b"{}"})
    other = world.catalogue()
    assert other.versions() == ("v1",)
    assert other.note("v2", "action.json") is None
    assert other.next_version() == "v2"
    assert other.add(b"third", card("v2")).digest == hashlib.sha256(b"third").hexdigest()


def test_an_adder_that_dies_once_the_version_is_in_leaves_all_of_it(world, catalogue):
    with world.deadly("added"), pytest.raises(Death):
        catalogue.add(ONNX, card("v1"), {"action.json": b"{}"})
    other = world.catalogue()
    assert other.versions() == ("v1",)
    assert other.fetch("v1").digest == DIGEST
    assert other.model("v1", DIGEST) == ONNX
    assert other.note("v1", "action.json") == b"{}"


def test_a_full_disk_is_said_and_leaves_no_version(world, catalogue):
    with world.full(), pytest.raises(ModelError, match=r"cannot write model v1 to .*No space left") as caught:
        catalogue.add(ONNX, card("v1"))
    assert "full" in caught.value.hint
    assert catalogue.versions() == ()
    assert catalogue.card("v1") is None
    assert catalogue.add(ONNX, card("v1")).digest == DIGEST


def test_a_changed_file_is_refused_by_its_digest(world, catalogue):
    catalogue.add(ONNX, card("v1"))
    world.write("v1", MODEL_FILE, ONNX + b"!")
    with pytest.raises(ModelError, match="has SHA-256") as caught:
        catalogue.model("v1", DIGEST)
    assert "put the right one back" in caught.value.hint
    world.write("v1", MODEL_FILE, ONNX)
    assert catalogue.model("v1", DIGEST) == ONNX


def test_half_a_version_is_refused_by_card_and_by_file(world, catalogue):
    catalogue.add(ONNX, card("v1"))
    world.write("v1", MODEL_FILE, ONNX[: len(ONNX) // 2])
    world.lose("v1", CARD_FILE)
    other = world.catalogue()
    with pytest.raises(ModelError, match="the card of model v1 cannot be read"):
        other.fetch("v1")
    with pytest.raises(ModelError, match="has SHA-256"):
        other.model("v1", DIGEST)
    assert other.next_version() == "v2"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"{", "is no model card"),
        (b'{"version": 1}', "is no model card"),
        (b"\xff", "no model card"),
    ],
)
def test_a_broken_card_is_named_with_its_place(world, catalogue, content, says):
    catalogue.add(ONNX, card("v1"))
    world.write("v1", CARD_FILE, content)
    with pytest.raises(ModelError, match=says) as caught:
        world.catalogue().fetch("v1")
    assert "v1/card.json" in str(caught.value)
    assert caught.value.hint


def test_a_card_of_another_version_is_refused(world, catalogue):
    catalogue.add(ONNX, card("v1"))
    catalogue.add(ONNX, card("v2"))
    world.write("v2", CARD_FILE, world.read("v1", CARD_FILE))
    with pytest.raises(ModelError, match="it says version 'v1'"):
        world.catalogue().fetch("v2")


def test_an_empty_or_missing_model_file_is_named_with_its_place(world, catalogue):
    catalogue.add(ONNX, card("v1"))
    world.write("v1", MODEL_FILE, b"")
    with pytest.raises(ModelError, match=r"is empty: .*v1/model\.onnx"):
        catalogue.model("v1", DIGEST)
    world.lose("v1", MODEL_FILE)
    with pytest.raises(ModelError, match=r"cannot be read: .*v1/model\.onnx: No such file"):
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
    with pytest.raises(ModelError, match="is no model version"):
        catalogue.model(name, DIGEST)
    with pytest.raises(ModelError, match="is no model version"):
        catalogue.note(name, "action.json")
    with pytest.raises(ModelError, match="is no model version"):
        catalogue.add(ONNX, card(name))


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
