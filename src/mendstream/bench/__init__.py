"""`mendstream bench`: a name comes in; measured figures against what is wanted of them go out.

Stands above the demo, whose pipeline and faults it measures; the command line it starts as a user does.
Everything is measured as it is: a bound that is not reached is a verdict (exit code 1) and hides no number.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable

from mendstream.bench.figures import Report
from mendstream.contracts.errors import UsageError

BENCHES: dict[str, str] = {
    "pipeline": "fused against no log at all, and against a process per agent",
    "latency": "event in to decision readable, a process per agent",
    "counts": "what monitoring's counts cost per event",
    "mttr": "fault onset to detected, acted, verified",
    "start": "start to first decision and to full supervision; peak memory",
    "help": "wall time and CPU of --help",
    "year": "alerts over the year in natural order, storms included",
    "calm": "false alarms in minutes of health (BENCH_MINUTES, 10); not part of `all`",
}
"""Each is a module of this package with `measure(runs, note) -> Report`."""
RUNS = {"pipeline": 5, "latency": 3, "counts": 5, "mttr": 5, "start": 3, "help": 5, "year": 1, "calm": 1}
RUNS_ENV = "BENCH_RUNS"
"""Environment variable: fewer or more runs than usual."""
Note = Callable[[str], None]


def run(name: str, json: bool) -> int:
    """Measure `name` (or `all`); 0 if every bound was reached, 1 if not. Raises UsageError for an unknown name."""
    from mendstream.bench import machine
    from mendstream.bench.telling import tell

    chosen = _chosen(name)
    known = machine.facts()
    reports = [_measure(bench) for bench in chosen]
    tell(name, known, reports, json=json)
    return 0 if all(report.reached for report in reports) else 1


def _measure(bench: str) -> Report:
    note(f"{bench}: {BENCHES[bench]}")
    measure: Callable[[int, Note], Report] = importlib.import_module(f"mendstream.bench.{bench}").measure
    return measure(runs_of(bench), lambda text: note(f"{bench}: {text}"))


def _chosen(name: str) -> list[str]:
    if name == "all":
        return [bench for bench in BENCHES if bench != "calm"]
    if name not in BENCHES:
        near = difflib.get_close_matches(name, [*BENCHES, "all"], n=1)
        said = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no bench {name!r}", hint=f"{said}benches: {', '.join(BENCHES)}, all")
    return [name]


def runs_of(bench: str) -> int:
    """How often `bench` is run; raises UsageError if the environment names no number."""
    given = os.environ.get(RUNS_ENV, "")
    if not given:
        return RUNS[bench]
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= 100:
        raise UsageError(f"{RUNS_ENV} = {given!r} is no number of runs", hint="1 to 100, or leave it out")
    return int(given)


def note(text: str) -> None:
    """Progress, for the person and not for the pipe."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
