"""A working folder of one's own, a bus in memory, and `run("status", "--json")`."""

import json
from dataclasses import dataclass

import pytest
from tests.unit.cli.fake_bus import FakeBus

from mendstream.cli import main

NOW = 1_700_000_100_000_000


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "KAFKA_BOOTSTRAP_SERVERS", "DB_HOST", "DB_PASSWORD", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def bus(folder, monkeypatch):
    """The bus of the data directory `.mendstream`."""
    fake = FakeBus()
    fake.now = NOW

    def open_bus(settings, wing="control", *, readonly=False):
        fake.opened.append((str(wing), readonly))
        return fake

    (folder / ".mendstream" / "control").mkdir(parents=True)
    monkeypatch.setattr("mendstream.runtime.ground.open_bus", open_bus)
    monkeypatch.setattr("mendstream.cli.work.bus.person", lambda: "ada")
    monkeypatch.setattr("mendstream.runtime.inject.open_bus", lambda settings: open_bus(settings))
    for module in ("answers", "operate", "incidents"):
        monkeypatch.setattr(f"mendstream.cli.work.{module}.person", lambda: "ada")
    return fake


@pytest.fixture
def run(capsys):
    def call(*args: str) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(args))
        out, err = capsys.readouterr()
        return Ran(ended.value.code, out, err)

    return call
