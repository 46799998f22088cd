"""The ground gives way: a full map, a directory that may not be written, a newer log, a model file that is torn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import lmdb
import msgspec
import pytest
from tests.processes.house import (
    FIRST_MODELS,
    MENDSTREAM,
    Running,
    Spawned,
    house_settings,
    mendstream,
    run_options,
    wait_for,
)

from mendstream.adapters.bus.lmdb_bus import create
from mendstream.adapters.models.catalogue import Catalogue
from mendstream.contracts.models import ModelCard
from mendstream.contracts.ports import Out
from mendstream.contracts.records import ConfigChange, Decision, decode_block, encode_block
from mendstream.contracts.topics import CONFIG, Stream, Topic
from mendstream.demo.accounting import account
from mendstream.simulation.spawned import living

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

TINY_MB = 16


# --- full ------------------------------------------------------------------------------------------------------------


def test_a_full_map_stops_the_house_with_a_message_and_a_larger_one_loses_nothing(tmp_path):
    for attempt in ("first", "again"):  # the same map is no larger the second time
        with Spawned(tmp_path, bus__map_size_mb=TINY_MB, ingestion__rate=20_000.0) as house:
            family = house.open().note_family()
            code = house.wait(90)
            said = house.rest()
            wait_for(lambda: not living(family), 5, why="no process is left")  # noqa: B023 - called here
        assert code == 3, (attempt, said)
        assert "is full" in said
        assert "nothing is lost" in said
        assert "bus.map_size_mb" in said
        assert "Traceback" not in said
    with Running(tmp_path, bus__map_size_mb=256) as larger:
        larger.until(larger.serving, why="it goes on in the larger map")
        larger.drain()
    counted = account(tmp_path)
    assert counted.exact, counted.text
    assert counted.events > 5000


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """What small_disk.py says of a house whose disk was full, and then was not."""
    own = ["unshare", "--mount", "--propagation", "private"]
    try:
        subprocess.run([*own, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a disk of one's own takes Linux and the right to mount")
    place = tmp_path_factory.mktemp("small-disk")
    repository = Path(__file__).parents[2]
    found = subprocess.run(
        [*own, sys.executable, "-m", "tests.processes.small_disk", str(place)],
        capture_output=True, text=True, timeout=170, check=False, cwd=repository,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_a_full_disk_stops_the_house_and_a_larger_one_loses_nothing(small_disk):
    assert [run["code"] for run in small_disk["runs"]] == [3, 3]
    assert small_disk["exact"], small_disk["text"]
    assert small_disk["events"] > 5000


@pytest.mark.parametrize("run", [0, 1], ids=["when it fills", "when it is full already"])
def test_a_full_disk_is_told_in_words_and_once(small_disk, run):
    said = small_disk["runs"][run]["said"]
    assert "Traceback" not in said
    (told,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert small_disk["root"] in told
    assert "is full" in told
    assert "nothing is lost" in said
    assert "hint: make room on the disk" in said


# --- a directory that cannot be used ---------------------------------------------------------------------------------


def test_a_read_only_data_directory_is_refused_and_named(tmp_path):
    root = tmp_path / "read-only"
    root.mkdir()
    root.chmod(0o555)
    found = _without_overriding(str(MENDSTREAM), "run", *run_options(house_settings(root), {}))
    assert found.returncode == 3, found.stderr
    assert f"cannot write to the data directory {root}" in found.stderr
    assert "--data DIR" in found.stderr
    assert "Traceback" not in found.stderr
    assert list(root.iterdir()) == []


def _without_overriding(*command):
    """Run it; root may write anywhere, so it gives that right up first."""
    if os.geteuid() == 0:
        give_up = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
        command = (sys.executable, "-c", give_up, *command)
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_data_directory_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path):
    create(tmp_path, incarnation="feed01", map_bytes=64 << 20)
    with lmdb.open(str(tmp_path / "control"), max_dbs=8) as env, env.begin(write=True) as txn:
        txn.put(b"format", b"99", db=env.open_db(b"meta", txn=txn))
    before = (tmp_path / "data" / "data.mdb").read_bytes()
    found = mendstream("run", *run_options(house_settings(tmp_path), {}))
    assert found.returncode == 3, found.stderr
    assert "was written by a newer mendstream (format 99" in found.stderr
    assert "upgrade mendstream" in found.stderr
    assert "Traceback" not in found.stderr
    assert (tmp_path / "data" / "data.mdb").read_bytes() == before


# --- a torn model file -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torn(tmp_path_factory):
    """(house, config version) after the promotion of v3, whose file was cut after it was registered."""
    with Running(tmp_path_factory.mktemp("torn")) as house:
        house.warm_up()
        catalogue = Catalogue(house.root / "models")
        onnx = (FIRST_MODELS / "v1" / "model.onnx").read_bytes() + b"\x00"
        card = msgspec.json.decode((FIRST_MODELS / "v1" / "card.json").read_bytes(), type=ModelCard)
        added = catalogue.add(onnx, msgspec.structs.replace(card, version="v3"))
        catalogue.path("v3").write_bytes(onnx[: len(onnx) // 2])
        config = house.config
        change = ConfigChange(
            id="test/torn", base_version=config.version, actor="test", reason="a torn file", at_us=house.now_us,
            changes={"model_version": "v3", "model_digest": added.digest}, forced=True,
        )  # fmt: skip
        house.bus.publish([Out(CONFIG, encode_block([change]), 1)])
        house.until(lambda: house.task("model/0").config > config.version, why="the change is folded")
        yield house, config.version + 1


@pytest.fixture(scope="module")
def restarted(torn):
    """The incident of the model's process, which was killed while config names the torn model."""
    house, _ = torn
    return house.ended(house.incident(house.hurt("dead-agent"), "AGENT_DOWN"))


def _newest(house, count=50):
    end = house.end(Topic.DECISIONS)
    blocks = house.bus.read(Stream(Topic.DECISIONS, 0), end - count, max_rows=count, max_bytes=1 << 20)
    found = [record for block in blocks for record in decode_block(Topic.DECISIONS, bytes(block.value))]
    return [record for record in found if isinstance(record, Decision)]


def _served_by(house, version):
    """What decided the newest events, once those of before the change are behind."""
    decided = house.end(Topic.DECISIONS)
    house.until(lambda: house.end(Topic.DECISIONS) > decided + 600, why="decisions come out")
    newest = _newest(house)
    assert all(record.config >= version for record in newest)
    return {(record.model, record.mode) for record in newest}


def test_a_torn_model_file_is_not_served_the_one_before_goes_on_and_the_log_says_so(torn):
    house, version = torn
    assert _served_by(house, version) == {("v1", "NORMAL")}
    assert "model cannot be used" in house.process_log("model-0")
    assert house.process_log("model-0").count("model cannot be used") == 1
    assert house.news.cases == {}


def test_the_one_before_goes_on_even_in_a_new_process(torn, restarted):
    house, version = torn
    assert restarted.resolved
    assert _served_by(house, version) == {("v1", "NORMAL")}


def test_going_back_to_the_good_version_is_one_command(torn, restarted):
    house, _ = torn
    house.told("models", "promote", "v1", "--reason", "v3 is torn")
    house.until(lambda: house.config.model_version == "v1" and house.vitals.config == house.config.version)
    assert _served_by(house, house.config.version) == {("v1", "NORMAL")}
    house.until(house.calm)
