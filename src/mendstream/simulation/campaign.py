"""Many seeds on several processes: plans in; violations, counts and one digest out. It can be resumed."""

from __future__ import annotations

import gc
import hashlib
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import structlog

from mendstream.contracts.errors import UsageError
from mendstream.simulation.schedule import Outcome, Run
from mendstream.simulation.swarm import plan_of

CHUNK = 10
TIDY_EVERY = 50
"""Seeds. Runs leave circles, which with the thresholds of `be_quiet` nobody finds: 1 MB a seed, 3 GB in 4,000."""
_VERSION = 1


class Failed(msgspec.Struct, frozen=True):
    """One broken promise."""

    seed: int
    plan: str
    invariant: str
    at_s: float
    text: str


class Totals(msgspec.Struct):
    """What the seeds so far have told. As a file, it is where a run is taken up again."""

    first: int
    """Seeds `first` to `next` - 1 were run."""
    next: int
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    events: int = 0
    counted: dict[str, int] = {}
    failed: list[Failed] = []
    digest: str = ""
    """Of the digests of all runs, in the order of the seeds: equal for equal code, whatever the machine."""
    version: int = _VERSION

    @property
    def seeds(self) -> int:
        return self.next - self.first

    def add(self, seed: int, outcome: Outcome) -> None:
        self.next = seed + 1
        self.simulated_s += outcome.simulated_s
        self.cpu_s += outcome.cpu_s
        self.events += outcome.events
        self.counted = dict(Counter(self.counted) + Counter(outcome.counted))
        self.digest = hashlib.blake2b(f"{self.digest}{outcome.digest}".encode(), digest_size=16).hexdigest()
        self.failed += [
            Failed(seed, outcome.plan.name, broken.invariant, broken.at_s, broken.text) for broken in outcome.violations
        ]


def load(path: Path, first: int) -> Totals:
    """Where a run stopped; a new one if there is no such file. Raises UsageError for what is no such file."""
    try:
        totals = msgspec.json.decode(path.read_bytes(), type=Totals)
    except FileNotFoundError:
        return Totals(first, first)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"{path} does not tell where a run stopped: {error}", hint="name another file") from error
    if totals.version != _VERSION:
        raise UsageError(
            f"{path} is of version {totals.version}, this is version {_VERSION}", hint="begin anew in another file"
        )
    return totals


def save(totals: Totals, path: Path) -> None:
    fresh = path.with_suffix(f"{path.suffix}.new")
    fresh.write_bytes(msgspec.json.encode(totals))
    fresh.rename(path)


def run_seeds(
    totals: Totals, until: int, *, workers: int, told: Callable[[int, Outcome], None], stop: Callable[[], bool]
) -> None:
    """Seeds `totals.next` to `until` - 1, in order; `told` of each. `stop`: whether to end after the present ones."""
    seeds = range(totals.next, until)
    for seed, outcome in _outcomes(seeds, workers):
        totals.add(seed, outcome)
        told(seed, outcome)
        if stop():
            return


def _outcomes(seeds: Iterable[int], workers: int) -> Iterator[tuple[int, Outcome]]:
    if workers == 1:
        be_quiet()
        for seed in seeds:
            yield seed, outcome_of(seed)
        return
    with multiprocessing.get_context("spawn").Pool(workers, initializer=be_quiet) as pool:
        yield from pool.imap(_numbered, seeds, chunksize=CHUNK)


def _numbered(seed: int) -> tuple[int, Outcome]:
    return seed, outcome_of(seed)


def outcome_of(seed: int) -> Outcome:
    if seed % TIDY_EVERY == 0:
        gc.collect()
    return Run(plan_of(seed))()


def be_quiet() -> None:
    """Nobody reads the log lines of simulated processes; and what a run leaves goes by reference count."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
