"""Seeds, a plan or planted bugs in; what was covered, what was broken and how to see it again out."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
import msgspec

from mendstream.chaos import plan as plans
from mendstream.chaos.plan import Plan
from mendstream.cli.show import document, note, pairs
from mendstream.cli.work.interrupt import noted
from mendstream.contracts.errors import UsageError
from mendstream.simulation import campaign
from mendstream.simulation.bugs import BUGS, Bug
from mendstream.simulation.campaign import Totals, be_quiet
from mendstream.simulation.invariants import INVARIANTS
from mendstream.simulation.schedule import Outcome, Run
from mendstream.simulation.shrink import shrink
from mendstream.simulation.sometimes import idle
from mendstream.simulation.swarm import plan_of

_KEEP_EVERY = 50
_TEXT_MOST = 300
_SHRUNK_MOST = 3
"""So many failures are shrunk; where everything fails, the first few tell why."""
_INTERRUPTED = 130
PLANTED_MOST = 500
"""Seeds within which a planted bug has to be found."""


# --- many seeds ------------------------------------------------------------------------------------------------------


def many(
    seeds: int,
    first: int | None,
    *,
    minutes: float | None,
    workers: int | None,
    resume: Path | None,
    out: Path,
    as_json: bool,
) -> int:
    """0 if every promise held and nothing was idle, 1 if not, 130 if it was interrupted."""
    if first is None:
        first = int(time.time()) * 1000
        note(f"fresh seeds, from {first} on")
    be_quiet()
    totals = Totals(first, first) if resume is None else campaign.load(resume, first)
    until = totals.first + seeds
    ends_at = float("inf") if minutes is None else time.monotonic() + minutes * 60
    began, before = time.monotonic(), totals.seeds
    with noted([signal.SIGINT]) as seen, _bar(until - totals.next) as step:

        def told(seed: int, outcome: Outcome) -> None:
            step(len(totals.failed))
            for broken in outcome.violations:
                note(f"seed {seed} ({outcome.plan.name}) breaks {broken.invariant!r}")
            if resume is not None and (seed + 1) % _KEEP_EVERY == 0:
                campaign.save(totals, resume)

        campaign.run_seeds(
            totals, until, workers=workers or os.cpu_count() or 1, told=told,
            stop=lambda: bool(seen) or time.monotonic() > ends_at,
        )  # fmt: skip
    if resume is not None:
        campaign.save(totals, resume)
    rare = idle(totals.counted, totals.seeds) if minutes is None else {}
    _tell(totals, rare, (totals.seeds - before) / max(time.monotonic() - began, 1e-9) * 60, as_json=as_json)
    for seed in sorted({failed.seed for failed in totals.failed})[:_SHRUNK_MOST]:
        _explain(totals, seed, out)
    if seen:
        return _INTERRUPTED
    return 1 if totals.failed or rare else 0


def _tell(totals: Totals, rare: dict[str, int], per_minute: float, *, as_json: bool) -> None:
    found: dict[str, Any] = {
        "seeds": totals.seeds,
        "first": totals.first,
        "violations": len(totals.failed),
        "schedules_per_minute": round(per_minute, 1),
        "schedules_per_cpu_minute": round(60 * totals.seeds / max(totals.cpu_s, 1e-9), 1),
        "simulated_hours": round(totals.simulated_s / 3600, 2),
        "speedup": round(totals.simulated_s / max(totals.cpu_s, 1e-9), 1),
        "digest": totals.digest,
    }
    if as_json:
        document({**found, "sometimes": dict(sorted(totals.counted.items())), "idle": rare, "failed": totals.failed})
        return
    pairs(found)
    for name, count in rare.items():
        click.echo(f"idle: {name} only {count} times")
    for failed in totals.failed:
        click.echo(
            f"seed {failed.seed} ({failed.plan}), {failed.at_s:.1f} s: {failed.invariant}: {failed.text[:_TEXT_MOST]}"
        )


def _explain(totals: Totals, seed: int, out: Path) -> None:
    """Shrink the plan of a failing seed, write it down, and say how to see it again."""
    failed = next(failed for failed in totals.failed if failed.seed == seed)
    note(f"seed {seed}: making its plan smaller ...")
    smaller = shrink(plan_of(seed), failed.invariant)
    path = out / f"simulate-{seed}.json"
    out.mkdir(parents=True, exist_ok=True)
    plans.write(smaller, path)
    for line in Run(smaller)().tail:
        note(line)
    note(f"seed {seed} breaks {failed.invariant!r}: {len(smaller.injections)} faults are enough")
    note(f"its plan, for a file of your own: {msgspec.json.encode(smaller).decode()}")
    note(f"to see it again: `mendstream simulate` with --replay {path}, or as it was with --seed {seed}")


# --- one plan --------------------------------------------------------------------------------------------------------


def one(seed: int | None, replay: Path | None, save: Path | None, bug: str | None, *, as_json: bool) -> int:
    """0 if every promise held, 1 if not."""
    be_quiet()
    plan = plan_of(seed) if seed is not None else plans.read(replay or Path())
    if save is not None:
        plans.write(plan, save)
        note(f"the plan of seed {plan.seed} is in {save}")
        return 0
    with _bug(bug).patch() if bug else nullcontext():
        outcome = Run(plan)()
    if as_json:
        document(
            {
                "plan": outcome.plan, "violations": [vars(broken) for broken in outcome.violations],
                "digest": outcome.digest, "events": outcome.events, "simulated_s": round(outcome.simulated_s, 3),
                "timeline": outcome.tail,
            }
        )  # fmt: skip
    else:
        _timeline(outcome)
    return 1 if outcome.violations else 0


def _timeline(outcome: Outcome) -> None:
    click.echo("\n".join(outcome.tail))
    word = f"{len(outcome.violations)} promises broken" if outcome.violations else "every promise held"
    click.echo(f"{word}; {outcome.simulated_s:.1f} s simulated, {outcome.events} events, digest {outcome.digest}")


# --- planted bugs ----------------------------------------------------------------------------------------------------


def plant(only: str | None, *, as_json: bool) -> int:
    """0 if each bug was found, 1 if one was missed."""
    be_quiet()
    found: list[dict[str, Any]] = []
    missed: list[str] = []
    for bug in BUGS if only is None else (_bug(only),):
        caught = _caught(bug)
        if caught is None:
            missed.append(bug.name)
            note(f"{bug.name}: MISSED in {PLANTED_MOST} seeds")
            continue
        plan, tries, invariant = caught
        found.append({"name": bug.name, "invariant": invariant, "seed": plan.seed, "plan": plan.name, "tries": tries})
        note(f"{bug.name}: {invariant}, after {tries} seeds")
    if as_json:
        document({"bugs": found, "missed": missed})
    else:
        pairs({"bugs": len(found), "missed": ", ".join(missed) or "none"})
    return 1 if missed else 0


def _caught(bug: Bug) -> tuple[Plan, int, str] | None:
    """The plan that found it, how many it took, and by which invariant; no other one looks, or might end it first."""
    looking = [kind for kind in INVARIANTS if kind.name == bug.invariant]
    for seed in range(PLANTED_MOST):
        plan = (bug.plan or plan_of)(seed)
        with bug.patch():
            violations = Run(plan, invariants=looking)().violations
        if any(broken.invariant == bug.invariant for broken in violations):
            return plan, seed + 1, bug.invariant
    return None


def _bug(name: str) -> Bug:
    for bug in BUGS:
        if bug.name == name:
            return bug
    raise UsageError(f"there is no bug {name!r}", hint=f"bugs: {', '.join(bug.name for bug in BUGS)}")


# --- on the way ------------------------------------------------------------------------------------------------------


@contextmanager
def _bar(seeds: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        done = 0

        def count(broken: int) -> None:
            nonlocal done
            done += 1
            if done % 100 == 0:
                note(f"{done} of {seeds} seeds, {broken} violations")

        yield count
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("seeds", total=seeds)
        yield lambda broken: progress.update(task, advance=1, description=f"seeds, {broken} violations")
