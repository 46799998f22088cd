"""A process that was killed while it read must not pin old pages: a log would grow until it is full."""

from __future__ import annotations

import subprocess
import sys

import lmdb
import pytest
from tests.support.log import open_log

from mendstream.adapters.bus.lmdb_bus import LmdbBus
from mendstream.contracts.topics import Wing

READ_FOR_EVER = """
import lmdb, sys, time
txn = lmdb.open(sys.argv[1], readonly=True, max_dbs=8).begin()
print("reading", flush=True)
time.sleep(60)
"""


@pytest.mark.processes
def test_whoever_opens_the_log_sweeps_up_behind_dead_readers(tmp_path, clock):
    open_log(tmp_path, clock).close()
    folder = str(tmp_path / Wing.DATA.value)
    command = [sys.executable, "-c", READ_FOR_EVER, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "reading\n"
        reader.kill()
    bus = LmdbBus(tmp_path, Wing.CONTROL, clock)
    bus.close()
    with lmdb.open(folder, readonly=True, max_dbs=8) as env:
        assert str(reader.pid) not in env.readers()
