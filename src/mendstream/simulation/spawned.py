"""A real house as processes of its own: started as a user starts it, known by name, killed, stopped, looked after.

Whoever starts one here stands outside of it, as a terminal does, and sees what the system and `run/processes.json`
tell.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil

from mendstream.settings import Settings, to_environment

SUPERVISOR = "supervisor"
_STARTS = "from mendstream.cli import main; main()"
# A harness that is killed takes its house with it.
_ENDS_WITH_US = f"import ctypes; ctypes.CDLL(None).prctl(1, {int(signal.SIGTERM)}); " if sys.platform == "linux" else ""


def start(settings: Settings, *words: str, said: Path) -> subprocess.Popen[bytes]:
    """`mendstream WORDS` of the very Python that runs this; what it prints goes to the end of the file `said`.

    In a session of its own: Ctrl-C is for the harness, which then stops it.
    """
    with said.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-c", _ENDS_WITH_US + _STARTS, *words],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **to_environment(settings)},
            cwd=settings.run.data_dir, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip


class Spawned:
    """`mendstream run` on one data directory, started as often as it takes."""

    def __init__(self, settings: Settings) -> None:
        self.root = Path(settings.run.data_dir)
        self.root.mkdir(parents=True, exist_ok=True)
        self.starts = 0
        self.family: dict[int, psutil.Process] = {}
        """Every process of this start that was seen so far, by pid."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, settings: Settings) -> None:
        self.family = {}
        self._process = start(settings, "run", said=self.said)
        self.starts += 1

    @property
    def said(self) -> Path:
        """The file with what it has printed."""
        return self.root / "run.txt"

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._running.poll()

    def living(self) -> dict[str, int]:
        """Who lives, by name of the process, the supervisor included; their pids."""
        self.note_family()
        return {name: pid for name, pid in self._named().items() if _lives(pid)}

    def _named(self) -> dict[str, int]:
        if self.code is not None:
            return {}
        found = {SUPERVISOR: self.pid}
        with contextlib.suppress(FileNotFoundError):
            told: dict[str, Any] = msgspec.json.decode((self.root / "run" / "processes.json").read_bytes())
            if told["pid"] == self.pid:  # else the one before it has written that
                found |= {name: child["pid"] for name, child in told["children"].items() if child["alive"]}
        return found

    def kill(self, name: str, pid: int) -> None:
        """With SIGKILL. A supervisor is waited for, so that its place is free."""
        if name == SUPERVISOR:
            self.note_family()
            self._running.kill()
            self._running.wait()
        else:
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(pid, signal.SIGKILL)

    def stop(self, deadline_s: float = 10.0) -> int:
        """SIGTERM, and its exit code; killed if it takes too long."""
        self.note_family()
        if self.code is None:
            self._running.terminate()
        try:
            return self._running.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self._running.kill()
            return self._running.wait()

    def note_family(self) -> None:
        self.family |= {one.pid: one for one in family_of(self.pid)}

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process


def family_of(pid: int) -> list[psutil.Process]:
    """A process and all that it has started, as far as they live."""
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.Error:
        return []


def living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that are still there; one that nobody has waited for is not."""
    found = []
    for one in processes:
        with contextlib.suppress(psutil.Error):
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


def end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """SIGTERM for all of them, and SIGKILL for who does not mind it."""
    for process in started:
        process.terminate()
    for process in started:
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
