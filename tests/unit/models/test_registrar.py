"""MLflow is told of every version and of what is live, but never while anything more urgent may be going on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.unit.models import onnx_files
from tests.unit.models.world import START_US, Hand, MemoryBus, card, promote

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.registrar import LiveModel, MadeWay, Registrar
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.models import ModelCard

QUIET_S = 20.0


class Told:
    """An MLflow that remembers what it was told, or refuses it."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], str] = {}
        self.registered: list[str] = []
        self.aliases: list[str] = []
        """`alias=version`, in the order in which they were set."""
        self.asked = 0
        self.refusal: CouldNot | None = None

    def known(self) -> dict[tuple[str, str], str]:
        self._refuse()
        self.asked += 1
        return dict(self.runs)

    def register(self, catalogue: Catalogue, card: ModelCard) -> str:
        self._refuse()
        self.registered.append(card.version)
        run_id = self.runs[card.version, card.digest] = f"run-{card.version}"
        return run_id

    def alias(self, alias: str, card: ModelCard) -> bool:
        self._refuse()
        assert (card.version, card.digest) in self.runs, "an alias of what is not registered"
        self.aliases.append(f"{alias}={card.version}")
        return True

    def close(self) -> None: ...

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal


class Desk:
    """A registrar with all that it looks at; `v1` is old and live."""

    def __init__(self, folder: Path) -> None:
        self.told = Told()
        self.clock = Hand()
        self.live = "v1"
        self.before = ""
        self.catalogue = Catalogue(folder)
        self.add("v1", made_us=START_US - 10**9)
        self.registrar = self.new_registrar()

    def new_registrar(self) -> Registrar:
        """As a new process has it."""
        return Registrar(
            self.told,
            Catalogue(self.catalogue.directory),
            self.clock,
            lambda: (self.live, self.before),
            quiet_s=QUIET_S,
        )

    def add(self, version: str, *, made_us: int) -> None:
        made = msgspec.structs.replace(card(version), created_at_us=made_us)
        self.catalogue.add(onnx_files.linear(), made)

    def promote(self, version: str) -> None:
        self.live, self.before = version, self.live

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
    assert desk.told.asked == 0
    told = desk.after(1)
    assert (told.registered, told.aliases) == (["v1"], ["champion=v1"])
    assert Catalogue(desk.catalogue.directory).fetch("v1").run_id == "run-v1"


def test_a_new_version_waits_until_its_proof_is_over_and_so_do_the_aliases(desk):
    desk.after(QUIET_S)
    desk.add("v2", made_us=desk.clock.now_us())
    desk.promote("v2")
    told = desk.after(QUIET_S - 1)
    assert told.registered == ["v1"]
    assert "champion=v2" not in told.aliases
    told = desk.after(6)
    assert told.registered == ["v1", "v2"]
    assert told.aliases[-2:] == ["previous=v1", "champion=v2"]


def test_a_rollback_turns_the_aliases_round(desk):
    desk.add("v2", made_us=START_US - 10**9)
    desk.promote("v2")
    desk.after(QUIET_S)
    desk.promote("v1")
    assert desk.after(6).aliases[-2:] == ["champion=v1", "previous=v2"]


def test_a_refusal_is_tried_again_later_each_time(desk):
    desk.told.refusal = CouldNot("no")
    desk.after(QUIET_S)
    desk.after(2)  # the second refusal: now it waits for twice as long
    desk.told.refusal = None
    assert desk.after(3).registered == []
    assert desk.after(1).registered == ["v1"]


def test_a_minute_after_mlflow_is_back_it_is_told_however_long_it_was_away(desk):
    desk.told.refusal = CouldNot("no")
    for _ in range(60):
        desk.after(60)
    desk.told.refusal = None
    assert desk.after(60).registered == ["v1"]


def test_while_mlflow_refuses_the_reason_is_there_for_people(desk):
    assert desk.registrar.trouble == ""
    desk.told.refusal = CouldNot("MLflow is away")
    desk.after(QUIET_S)
    assert desk.registrar.trouble == "MLflow is away"
    desk.told.refusal = None
    desk.after(2)
    assert desk.registrar.trouble == ""


def test_what_was_missed_is_told_after_a_refusal_in_the_order_in_which_it_was_made(desk):
    desk.after(QUIET_S)
    desk.told.refusal = CouldNot("no")
    for version in ("v2", "v3"):
        desk.add(version, made_us=desk.clock.now_us())
        desk.promote(version)
    desk.after(QUIET_S + 5)
    desk.told.refusal = None
    told = desk.after(60)
    assert told.registered == ["v1", "v2", "v3"]
    assert told.aliases[-2:] == ["previous=v2", "champion=v3"]


def test_an_mlflow_that_comes_back_with_nothing_is_told_everything_again(desk):
    desk.after(QUIET_S)
    desk.told.refusal = CouldNot("no")
    desk.add("v2", made_us=desk.clock.now_us())
    desk.promote("v2")
    desk.after(QUIET_S + 5)
    desk.told.refusal = None
    desk.told.runs.clear()
    told = desk.after(60)
    assert told.registered == ["v1", "v1", "v2"]
    assert told.aliases[-2:] == ["previous=v1", "champion=v2"]


def test_a_new_process_asks_what_is_known_and_tells_nothing_twice(desk):
    desk.after(QUIET_S)
    desk.registrar = desk.new_registrar()
    told = desk.after(QUIET_S)
    assert told.registered == ["v1"]
    assert told.asked == 2


def test_a_version_that_another_process_registered_gets_its_run_id(desk):
    held = desk.catalogue.fetch("v1")
    desk.told.runs[held.version, held.digest] = "run-by-hand"
    told = desk.after(QUIET_S)
    assert told.registered == []
    assert Catalogue(desk.catalogue.directory).fetch("v1").run_id == "run-by-hand"


def test_a_card_that_cannot_be_written_is_waited_for_and_nothing_is_registered_twice(desk, monkeypatch):
    def full(place: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("mendstream.adapters.models.catalogue._write", full)
        desk.after(QUIET_S)
        assert "No space left on device" in desk.registrar.trouble
    told = desk.after(60)
    assert told.registered == ["v1"]
    assert Catalogue(desk.catalogue.directory).fetch("v1").run_id == "run-v1"


def test_after_it_made_way_for_a_training_it_waits_for_the_proof(desk):
    desk.told.refusal = MadeWay("made way")
    desk.after(QUIET_S)
    desk.told.refusal = None
    assert desk.after(QUIET_S - 1).registered == []
    assert desk.after(1).registered == ["v1"]


def test_what_was_live_before_is_read_from_the_log():
    bus = MemoryBus(Hand())
    live = LiveModel(bus)
    assert live.versions() == ("", "")
    promote(bus, "v1", "a" * 64)
    assert live.versions() == ("v1", "")
    promote(bus, "v2", "b" * 64, base=1)
    promote(bus, "v9", "c" * 64, base=0)  # stale: it came too late
    assert live.versions() == ("v2", "v1")
    promote(bus, "v1", "a" * 64, base=2)
    assert live.versions() == LiveModel(bus).versions() == ("v1", "v2")
