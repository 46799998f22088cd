"""The log's file is larger than what is used of it, so that a turn does not have to make it grow."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import lmdb
import pytest

from mendstream.adapters.bus import ahead
from mendstream.adapters.bus.ahead import Ahead

MAP_BYTES = 32 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes room ahead")


@pytest.fixture
def env(tmp_path):
    with lmdb.open(str(tmp_path), map_size=MAP_BYTES, sync=False) as env:
        yield env


def fill(env, size):
    with env.begin(write=True) as txn:
        txn.put(b"%d" % env.stat()["entries"], bytes(size))


def used(env):
    return (env.info()["last_pgno"] + 1) * env.stat()["psize"]


def size(env):
    return os.stat(os.path.join(env.path(), "data.mdb")).st_size


def test_half_as_much_again_is_taken_and_kept_while_it_is_being_used(env):
    kept = Ahead(env)
    fill(env, 8 << 20)
    kept.keep()
    taken = size(env)
    assert taken == used(env) + used(env) // 2
    fill(env, 1 << 20)
    kept.keep()
    assert size(env) == taken
    fill(env, 2 << 20)
    kept.keep()
    assert size(env) == used(env) + used(env) // 2


def test_a_small_log_takes_little(env):
    Ahead(env).keep()
    assert size(env) == used(env) + ahead._LEAST


def test_no_more_is_taken_than_the_log_may_ever_use(env):
    fill(env, 28 << 20)
    Ahead(env).keep()
    assert size(env) == MAP_BYTES


def test_a_disk_that_is_nearly_full_is_left_alone(env, monkeypatch):
    monkeypatch.setattr(os, "fstatvfs", lambda fd: SimpleNamespace(f_bavail=1 << 10, f_frsize=1 << 10))
    before = size(env)
    Ahead(env).keep()
    assert size(env) == before


def test_a_disk_that_refuses_costs_no_turn(env, monkeypatch):
    def refuse(fd, start, length):
        raise OSError

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    Ahead(env).keep()
    fill(env, 1 << 20)


def test_what_was_written_is_still_there_and_what_follows_fits_in(env):
    kept = Ahead(env)
    for n in range(1, 5):
        fill(env, n << 20)
        kept.keep()
    with env.begin() as txn:
        assert [len(txn.get(b"%d" % n)) for n in range(4)] == [n << 20 for n in range(1, 5)]
