"""MLflow is told of every version and of what is live, but never while anything more urgent may be going on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.unit.models import onnx_files
from tests.unit.models.world import START_US, Hand, card

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.registrar import MadeWay, Registrar
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.models import ModelCard

QUIET_S = 20.0


class Told:
    """An MLflow that remembers what it was told, or refuses it."""

    def __init__(self) -> None:
        self.registered: list[str] = []
        self.champions: list[str] = []
        self.refusal: CouldNot | None = None

    def register(self, catalogue: Catalogue, card: ModelCard) -> str:
        if self.refusal is not None:
            raise self.refusal
        self.registered.append(card.version)
        return f"run-{card.version}"

    def champion(self, card: ModelCard) -> bool:
        self.champions.append(card.version)
        return True

    def close(self) -> None: ...


class Desk:
    """A registrar with all that it looks at; `v1` is old and live."""

    def __init__(self, folder: Path) -> None:
        self.told = Told()
        self.clock = Hand()
        self.live = "v1"
        self.catalogue = Catalogue(folder)
        self.add("v1", made_us=START_US - 10**9)
        self.registrar = Registrar(self.told, self.catalogue, self.clock, lambda: self.live, quiet_s=QUIET_S)

    def add(self, version: str, *, made_us: int) -> None:
        made = msgspec.structs.replace(card(version), created_at_us=made_us)
        self.catalogue.add(onnx_files.linear(), made)

    def after(self, seconds: float) -> Told:
        """What was told once so much time has passed."""
        self.clock.pass_s(seconds)
        while self.registrar.pump():
            pass
        return self.told


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_nothing_is_told_while_the_house_starts(desk):
    assert desk.after(QUIET_S - 1).registered == []
    told = desk.after(1)
    assert (told.registered, told.champions) == (["v1"], ["v1"])
    assert desk.catalogue.fetch("v1").run_id == "run-v1"


def test_a_new_version_waits_until_its_proof_is_over_and_so_does_the_alias(desk):
    desk.after(QUIET_S)
    desk.add("v2", made_us=desk.clock.now_us())
    desk.live = "v2"
    told = desk.after(QUIET_S - 1)
    assert (told.registered, told.champions) == (["v1"], ["v1"])
    told = desk.after(6)
    assert (told.registered, told.champions) == (["v1", "v2"], ["v1", "v2"])


def test_a_refusal_is_tried_again_later_each_time(desk):
    desk.told.refusal = CouldNot("no")
    desk.after(QUIET_S)
    desk.after(2)  # the second refusal: now it waits for twice as long
    desk.told.refusal = None
    assert desk.after(3).registered == []
    assert desk.after(1).registered == ["v1"]


def test_after_it_made_way_for_a_training_it_waits_for_the_proof(desk):
    desk.told.refusal = MadeWay("made way")
    desk.after(QUIET_S)
    desk.told.refusal = None
    assert desk.after(QUIET_S - 1).registered == []
    assert desk.after(1).registered == ["v1"]
