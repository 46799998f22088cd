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
    "kafka": "CPU per event on Kafka, exactly once, against a hand-written client; needs --bus",
    "kafka-latency": "event produced to decision readable on Kafka; needs --bus",
    "kafka-scale": "replicas of the fused chain on Kafka: CPU per event, and how fast together; needs --bus",
    "kafka-recovery": "kill -9 of a worker to its next decision on Kafka; needs --bus",
    "peers": "the same job in Kafka Streams, Quix Streams, FastStream and by hand on Kafka; needs --bus",
}
"""Each is a module of this package with `measure(runs, note) -> Report`."""
ON_KAFKA = ("kafka", "kafka-latency", "kafka-scale", "kafka-recovery", "peers")
"""Benches that need a broker: `measure` gets its `servers`, as that of EITHER does."""
EITHER = ("mttr",)
APART = ("calm", *ON_KAFKA)
"""Not part of `all`."""
RUNS = {
    "pipeline": 5, "latency": 3, "counts": 5, "mttr": 5, "start": 3, "help": 5, "year": 1, "calm": 1,
    "kafka": 3, "kafka-latency": 3, "kafka-scale": 3, "kafka-recovery": 10, "peers": 3,
}  # fmt: skip
RUNS_ENV = "BENCH_RUNS"
"""Environment variable: fewer or more runs than usual."""
Note = Callable[[str], None]


def run(name: str, json: bool, bus: str = "", store: str = "") -> int:
    """Measure `name` (or `all`); 0 if every bound was reached, 1 if not. `bus`: kafka://HOST:PORT, for those that run
    on it. `store`: a PostgreSQL server's URL, for mttr. Raises UsageError for an unknown name, and for a bus or store
    that the bench has no use for, or lacks.
    """
    from mendstream.bench import machine
    from mendstream.bench.telling import tell

    chosen = _chosen(name)
    servers = _servers(name, bus)
    if store and name not in EITHER:
        raise UsageError(f"bench {name} has no use for a store", hint=f"those that have: {', '.join(EITHER)}")
    known = machine.facts()
    reports = [_measure(bench, servers, store) for bench in chosen]
    tell(name, known, reports, json=json)
    return 0 if all(report.reached for report in reports) else 1


def _measure(bench: str, servers: str, store: str) -> Report:
    note(f"{bench}: {BENCHES[bench]}")
    measure: Callable[..., Report] = importlib.import_module(module_of(bench)).measure
    more = {"servers": servers} if bench in ON_KAFKA + EITHER else {}
    more |= {"store": store} if bench in EITHER else {}
    return measure(runs_of(bench), lambda text: note(f"{bench}: {text}"), **more)


def module_of(bench: str) -> str:
    return f"mendstream.bench.{bench.replace('-', '_')}"


def _servers(name: str, bus: str) -> str:
    kind, _, servers = bus.partition("://")
    if bus and (kind != "kafka" or not servers):
        raise UsageError(f"--bus {bus} is no broker", hint="write it as --bus kafka://HOST:PORT")
    if servers and name not in ON_KAFKA + EITHER:
        raise UsageError(f"bench {name} has no use for a broker", hint=f"on Kafka: {', '.join(ON_KAFKA + EITHER)}")
    if not servers and name in ON_KAFKA:
        raise UsageError(
            f"bench {name} needs a Kafka broker",
            hint=f"scripts/services up kafka; then mendstream bench {name} --bus kafka://HOST:PORT",
        )
    return servers


def _chosen(name: str) -> list[str]:
    if name == "all":
        return [bench for bench in BENCHES if bench not in APART]
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
