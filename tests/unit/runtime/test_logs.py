"""Lines of logs: each in its file, and none that cannot be written ends anybody."""

from __future__ import annotations

import errno
import json
import os

import msgspec
import psutil
import pytest
import structlog

from mendstream.contracts.errors import CouldNot
from mendstream.contracts.records import Alert, AlertKind, AlertState
from mendstream.runtime.logs import Journal, LineFile, setup
from mendstream.runtime.words import LastWords

STDERR = 2


class Disk:
    """Takes `room` bytes more, from whoever writes."""

    def __init__(self) -> None:
        self.room = 1 << 30
        self.stderr_is_on_it = False
        self._write, self._pwrite = os.write, os.pwrite

    def write(self, fd: int, data: bytes) -> int:
        if fd == STDERR and not self.stderr_is_on_it:
            return self._write(fd, data)
        return self._write(fd, data[: self._take(len(data))])

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return self._pwrite(fd, data[: self._take(len(data))], offset)

    def _take(self, size: int) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = min(size, self.room)
        self.room -= taken
        return taken


@pytest.fixture
def disk(monkeypatch):
    disk = Disk()
    monkeypatch.setattr(os, "write", disk.write)
    monkeypatch.setattr(os, "pwrite", disk.pwrite)
    return disk


@pytest.fixture
def file(tmp_path):
    file = LineFile(tmp_path / "logs" / "x.log", "(%d lost)\n")
    yield file
    file.close()


@pytest.fixture
def log(tmp_path):
    """log(): structlog's lines as they are in the file."""
    with_file = setup(tmp_path / "logs", "model-0", "info")
    yield lambda: [json.loads(line) for line in (tmp_path / "logs" / "model-0.log").read_text().splitlines()]
    structlog.reset_defaults()
    with_file.close()


# --- one file --------------------------------------------------------------------------------------------------------


def test_lines_follow_those_of_the_process_before(tmp_path):
    for line in ("one\n", "two\n"):
        file = LineFile(tmp_path / "x.log", "")
        file.write(line)
        file.close()
    assert (tmp_path / "x.log").read_text() == "one\ntwo\n"


def test_lines_that_find_no_room_are_counted_before_the_next_one_that_does(file, disk, tmp_path):
    file.write("one\n")
    disk.room = 0
    file.write("two\n")
    file.write("three\n")
    assert file.lost == 2
    disk.room = 1 << 20
    file.write("four\n")
    file.write("five\n")
    assert file.lost == 0
    assert (tmp_path / "logs" / "x.log").read_text() == "one\n(2 lost)\nfour\nfive\n"


def test_a_line_that_was_cut_short_is_lost_and_spoils_no_other(file, disk, tmp_path):
    disk.room = 3
    file.write("first line\n")
    assert file.lost == 1
    disk.room = 1 << 20
    file.write("second line\n")
    assert (tmp_path / "logs" / "x.log").read_text() == "fir\n(1 lost)\nsecond line\n"


def test_the_first_line_that_is_lost_is_told_on_stderr_with_place_and_cause_and_no_other(file, disk, tmp_path, capfd):
    for _ in range(2):  # there was room in between
        disk.room = 0
        file.write("one\n")
        file.write("two\n")
        disk.room = 1 << 20
        file.write("three\n")
    (told,) = capfd.readouterr().err.splitlines()
    assert str(tmp_path / "logs" / "x.log") in told
    assert os.strerror(errno.ENOSPC) in told


def test_where_stderr_is_on_the_same_disk_lines_are_lost_all_the_same_and_end_nobody(file, disk):
    disk.room, disk.stderr_is_on_it = 0, True
    file.write("one\n")
    assert file.lost == 1


def test_a_folder_that_cannot_be_made_costs_lines_and_nothing_else(tmp_path, capfd):
    (tmp_path / "logs").write_text("a file where the folder should be")
    file = LineFile(tmp_path / "logs" / "x.log", "")
    file.write("one\n")
    assert file.lost == 1
    assert "cannot write to" in capfd.readouterr().err


def test_a_line_of_a_late_thread_comes_after_the_end_and_is_written(file, tmp_path):
    file.write("one\n")
    file.close()
    file.write("late\n")
    assert (tmp_path / "logs" / "x.log").read_text() == "one\nlate\n"


# --- structlog, and the files of the brief ---------------------------------------------------------------------------


def test_the_count_of_lost_lines_is_a_line_of_json_too(log, disk):
    logger = structlog.get_logger("test")
    disk.room = 0
    logger.info("lost")
    disk.room = 1 << 20
    logger.info("after")
    count, after = log()
    assert (count["lines"], count["level"]) == (1, "warning")
    assert after["event"] == "after"


def test_the_log_is_closed_when_its_process_is_through_with_it(tmp_path):
    with_file = setup(tmp_path, "model-0", "info")
    structlog.get_logger("test").info("x")
    path = str(tmp_path / "model-0.log")
    assert path in _open_files()
    with_file.close()
    structlog.reset_defaults()
    assert path not in _open_files()


def _open_files() -> list[str]:
    return [file.path for file in psutil.Process().open_files()]


def test_alerts_that_find_no_room_are_counted_in_their_file(tmp_path, disk):
    journal = Journal(tmp_path)
    alert = Alert(
        id="x/judge/0/1/1", alert_id="a1", state=AlertState.FIRING, kind=AlertKind.DATA_DRIFT, subject="data",
        detector="psi", statistic="psi", value=0.5, limit=0.2, n=100, window_us=(0, 0), at_us=1_000_000,
    )  # fmt: skip
    disk.room = 0
    journal.write([alert])
    disk.room = 1 << 20
    journal.write([alert])
    journal.close()
    lost, line = (tmp_path / "monitoring.log").read_text().splitlines()
    assert lost == "(1 lines before this one could not be written)"
    assert line == "1970-01-01T00:00:01.000+00:00 ALERT DATA_DRIFT data psi = 0.5 (limit 0.2, n = 100, by psi)"


# --- last words ------------------------------------------------------------------------------------------------------


def _left(root) -> dict[str, str]:
    return msgspec.json.decode((root / "run" / "error-model-0").read_bytes(), type=dict[str, str])


def test_the_last_words_of_a_process_take_no_room_that_it_had_not_from_its_start(tmp_path):
    words = LastWords(tmp_path, "model-0")
    path = tmp_path / "run" / "error-model-0"
    before = path.stat()
    words.leave(CouldNot("the port 8001 is taken", hint="name another one"))
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    assert _left(tmp_path) == {"message": "the port 8001 is taken", "hint": "name another one"}


def test_words_of_a_process_before_are_not_taken_for_ours(tmp_path):
    LastWords(tmp_path, "model-0").leave(CouldNot("a long time ago", hint="x"))
    LastWords(tmp_path, "model-0")
    assert (tmp_path / "run" / "error-model-0").read_bytes().strip() == b""


def test_where_there_is_no_room_for_words_there_are_none(tmp_path, disk):
    disk.room = 5
    words = LastWords(tmp_path, "model-0")
    words.leave(CouldNot("x"))
    assert not (tmp_path / "run" / "error-model-0").exists()
