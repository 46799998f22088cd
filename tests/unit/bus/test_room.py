"""A full disk is told in words, and what has to be written on it all the same takes no more room."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import lmdb
import msgspec
import pytest
from tests.support.log import open_log, out

from mendstream.adapters import room
from mendstream.adapters.bus import boot
from mendstream.adapters.bus.mapped import mapped
from mendstream.adapters.store.refusals import refusal
from mendstream.contracts.errors import CouldNot, LogFull
from mendstream.contracts.topics import Stream, Topic

FEATURES = Stream(Topic.FEATURES, 0)
NO_ROOM = [errno.ENOSPC, errno.EDQUOT]


@pytest.fixture
def left(monkeypatch):
    """left(bytes): so much is left on every disk."""

    def leave(size: int) -> None:
        found = SimpleNamespace(f_bavail=size // 4096, f_frsize=4096)
        monkeypatch.setattr(os, "statvfs", lambda path: found)

    return leave


# --- what the system says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NO_ROOM)
def test_what_the_system_refuses_for_want_of_room_names_the_place_the_cause_and_the_remedy(tmp_path, number):
    with pytest.raises(LogFull, match="is full") as failure, room.told(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / "run" / "x"))
    assert str(tmp_path / "run" / "x") in str(failure.value)
    assert os.strerror(number) in str(failure.value)
    assert "nothing is lost" in str(failure.value)
    assert "make room" in failure.value.hint


def test_what_the_system_refuses_for_another_reason_stays_what_it_is(tmp_path):
    with pytest.raises(PermissionError), room.told(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


# --- what LMDB and SQLite say ----------------------------------------------------------------------------------------


class _Refusing:
    """Stands for an LMDB environment whose commits fail."""

    def __init__(self, said: str) -> None:
        self._said = said

    def begin(self, **options):
        raise lmdb.Error(f"mdb_txn_commit: {self._said}")

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def published(tmp_path, clock, monkeypatch):
    """published(said): what a publish raises while LMDB says that."""
    bus = open_log(tmp_path, clock)

    def publish(said: str) -> CouldNot:
        with monkeypatch.context() as patch:
            patch.setattr(bus._mine, "env", _Refusing(said))
            with pytest.raises(CouldNot) as failure:
                bus.publish([out(FEATURES, b"a")])
        return failure.value

    yield publish
    bus.publish([out(FEATURES, b"a")])  # the lock was given back
    bus.close()


@pytest.mark.parametrize("number", NO_ROOM)
def test_a_commit_without_room_is_a_full_log(published, tmp_path, number):
    error = published(os.strerror(number))
    assert isinstance(error, LogFull)
    assert f"the disk of {tmp_path} is full" in str(error)
    assert "make room" in error.hint


def test_a_commit_of_which_only_a_part_was_taken_is_a_full_log_where_hardly_any_room_is_left(published, left):
    left(8192)
    assert isinstance(published(os.strerror(errno.EIO)), LogFull)


def test_an_error_of_the_disk_itself_is_not_called_full(published, left):
    left(1 << 30)
    error = published(os.strerror(errno.EIO))
    assert not isinstance(error, LogFull)
    assert "refused a write" in str(error)


@pytest.mark.parametrize(("size", "full"), [(8192, True), (1 << 30, False)])
def test_an_error_of_sqlite_that_may_be_either_is_told_apart_by_the_room_that_is_left(tmp_path, left, size, full):
    left(size)
    error = refusal(f"sqlite:///{tmp_path}/m.db", "disk I/O error")
    assert isinstance(error, LogFull) is full
    assert ("is full" in str(error)) is full


# --- what takes no more room -----------------------------------------------------------------------------------------


def test_what_is_overwritten_keeps_its_size_and_leaves_nothing_of_what_was_there(tmp_path):
    path = tmp_path / "note"
    for content in (b"", b"x" * 40, b"short"):
        room.overwrite(path, content, 64)
        assert path.read_bytes() == content.ljust(64)
    room.overwrite(path, b"y" * 100, 64)
    room.overwrite(path, b"short", 64)
    assert path.read_bytes() == b"short".ljust(64)


def test_the_note_of_a_clean_end_takes_the_place_of_the_one_of_the_start(tmp_path):
    path = tmp_path / "run" / "boot.json"
    boot.opened(tmp_path, "process")
    before = path.stat()
    boot.closed(tmp_path)
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    assert msgspec.json.decode(path.read_bytes(), type=boot.Boot).clean


def test_shared_memory_has_its_room_from_the_start(tmp_path):
    """In a hole of the file the first write would kill the process, if the disk is full by then."""
    mapped(tmp_path / "beat", 8).close()
    assert (tmp_path / "beat").stat().st_blocks > 0


def test_a_turn_that_is_done_is_not_undone_because_nobody_can_be_told(tmp_path, clock, monkeypatch):
    bus = open_log(tmp_path, clock)

    def mkdir(path, *args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.mkdir", mkdir)
    bus.publish([out(FEATURES, b"a")])
    assert bus.bounds(FEATURES) == (0, 1)
    bus.close()
