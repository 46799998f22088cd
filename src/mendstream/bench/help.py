"""How long `--help` takes: of `mendstream` and of each of its verbs, as a person waits for it."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

from mendstream.bench.figures import Figure, Report, rounded
from mendstream.bench.ground import command
from mendstream.contracts.errors import CouldNot

WANTED_MS = 150.0


class Took(NamedTuple):
    """Milliseconds."""

    wall: float
    cpu: float


def measure(runs: int, note: Callable[[str], None]) -> Report:
    """The bound holds for the median of each verb's runs; the worst is the slowest verb."""
    found = {verb: [_once(verb) for _ in range(runs)] for verb in ["", *verbs()]}
    walls = {verb: statistics.median(took.wall for took in taken) for verb, taken in found.items()}
    cpus = {verb: statistics.median(took.cpu for took in taken) for verb, taken in found.items()}
    slowest = max(walls, key=walls.__getitem__)
    note(f"slowest: mendstream {slowest} --help, {walls[slowest]:.0f} ms")
    return Report(
        bench="help",
        figures={
            "help_ms": Figure(what=f"wall time of --help, median of {runs} for each verb", unit="ms",
                              runs=tuple(walls.values()), most=WANTED_MS),
            "help_cpu_ms": Figure(what="CPU time of the same", unit="ms", runs=tuple(cpus.values())),
        },
        details={"verbs": {
            f"mendstream {verb}".strip(): {"wall_ms": rounded(walls[verb]), "cpu_ms": rounded(cpus[verb])}
            for verb in walls
        }},
    )  # fmt: skip


def verbs() -> list[str]:
    """As `mendstream --help` lists them."""
    text = subprocess.run(command("--help"), capture_output=True, text=True, check=True).stdout
    lines = text.partition("Commands:\n")[2].splitlines()
    return [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")]


def _once(verb: str) -> Took:
    words = [verb, "--help"] if verb else ["--help"]
    begun = time.perf_counter()
    process = subprocess.Popen(command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CouldNot(f"mendstream {' '.join(words)} ended with code {process.returncode}", hint="run it by hand")
    return Took(wall * 1000, (used.ru_utime + used.ru_stime) * 1000)
