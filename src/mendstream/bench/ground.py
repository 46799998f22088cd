"""Where benches run: a throw-away folder, settings that no file or environment changes, and real processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from mendstream.contracts.errors import CouldNot
from mendstream.contracts.ports import Bus
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo.scenario import FIRST_MODELS
from mendstream.settings import Settings, load, to_environment

DECISIONS = Stream(Topic.DECISIONS, 0)
STOP_S = 5.0
START_S = 30.0
"""How long processes may take to their first decision before the bench gives up."""


def settings(
    root: Path, *, fuse: bool, source: str, rate: float = 0.0, linger_ms: float = 0.0,
    durability: Literal["power", "process"] = "process",
) -> Settings:  # fmt: skip
    """The flights pipeline without chaos and without metrics."""
    return load(
        env={},
        dotenv=None,
        overrides={
            "pipeline": "mendstream.demo.pipeline:flights",
            "run.data_dir": str(root),
            "run.fuse": fuse,
            "bus.durability": durability,
            "ingestion.source": source,
            "ingestion.rate": rate,
            "ingestion.linger_ms": linger_ms,
            "metrics.enabled": False,
            "models.initial": str(FIRST_MODELS),
        },
    ).settings


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A data directory for one run, away afterwards."""
    root = Path(tempfile.mkdtemp(prefix="mendstream-bench-"))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def command(*words: str) -> list[str]:
    """`mendstream WORDS` of the very Python that runs this."""
    script = Path(sys.executable).parent / "mendstream"
    head = [str(script)] if script.exists() else [sys.executable, "-c", "from mendstream.cli import main; main()"]
    return [*head, *words]


def environment(house: Settings) -> dict[str, str]:
    """For a child process."""
    return {**one_thread(), **to_environment(house)}


def one_thread() -> dict[str, str]:
    """One thread for numerical libraries, as the supervisor has it."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def processes(house: Settings, commands: Sequence[Sequence[str]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Each command as a process; all are stopped at the end, whatever happens."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.extend(
            subprocess.Popen(
                command(*words), env=environment(house), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            for words in commands
        )
        yield started
    finally:
        stop(started)


def stop(started: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    limit = time.monotonic() + STOP_S
    for process in started:
        try:
            process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(
    what: str, there: Callable[[], bool], started: Sequence[subprocess.Popen[bytes]], *, seconds: float = START_S
) -> None:  # fmt: skip
    """Until `there()`; raises CouldNot if a process ends before or time is up."""
    limit = time.monotonic() + seconds
    while not there():
        ended = next((process for process in started if process.poll() is not None), None)
        if ended is not None:
            raise CouldNot(f"bench: a process ended with code {ended.returncode} before {what}", hint="run it alone")
        if time.monotonic() > limit:
            raise CouldNot(f"bench: no {what} within {seconds:.0f} s", hint="is the machine overloaded?")
        time.sleep(0.01)


def cpu_s(started: Sequence[subprocess.Popen[bytes]]) -> float | None:
    """CPU time that the processes have used so far; None where the system does not tell (no /proc)."""
    if sys.platform != "linux":
        return None
    total = 0
    for process in started:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def cpu_told_s(started: Sequence[subprocess.Popen[bytes]]) -> float:
    """The same, for a bench that is nothing without it. Raises CouldNot where the system does not tell."""
    told = cpu_s(started)
    if told is None:
        raise CouldNot("bench: this system does not tell the CPU time of a process", hint="run it on Linux")
    return told


def first_decision_us(bus: Bus) -> int | None:
    """When the first decision was appended."""
    blocks = bus.read(DECISIONS, 0, max_rows=1, max_bytes=1)
    return blocks[0].at_us if blocks else None
