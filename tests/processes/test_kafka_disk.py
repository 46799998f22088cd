"""A broker whose disk is full ends. The house waits for it, and once there is room again every event is there once."""

from __future__ import annotations

import contextlib
import subprocess
import time

import pytest
from tests.processes.house import Running
from tests.processes.monkey import BUDGET
from tests.support.services import service
from tools.services.kafka import QUICK

from mendstream.demo.accounting import Broker, account

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(300)]

SMALL, LARGE = "24m", "400m"


@pytest.fixture
def disk(tmp_path):
    """A folder with little room; `mount` again makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"not run: a small disk, because it cannot be mounted: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_house_whose_broker_ran_out_of_disk_goes_on_once_there_is_room(disk, tmp_path):
    properties = {"log.dirs": str(disk / "data"), "log.segment.bytes": "2000000", "log.index.size.max.bytes": "65536"}
    with service("kafka", jvm=QUICK, properties=properties) as broker:
        given = {"bus__kind": "kafka", "bus__bootstrap_servers": broker.address, "run__namespace": "full", **BUDGET}
        with Running(tmp_path / "house", **given, ingestion__rate=2000.0) as house:
            house.until(house.serving, 120)
            with contextlib.suppress(OSError):
                (disk / "other").write_bytes(bytes(64 << 20))  # of somebody else, up to the last block
            deadline = time.monotonic() + 120
            while broker.alive:  # its log is not read meanwhile, which would wait for the broker
                assert time.monotonic() < deadline, "the broker does not end"
                house.tick()
            (disk / "other").unlink()
            subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(disk)], check=True)
            broker.restart()
            since_us = house.now_us
            house.until(lambda: house.vitals.at_us > since_us and house.serving(), 120, why="it serves again")
            house.drain()
        counted = account(Broker(broker.address, "full"))
    assert (counted.missing, counted.duplicated) == (0, 0), counted.text
    assert counted.decisions > 1000
