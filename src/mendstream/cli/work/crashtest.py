"""Kills and power cuts in; a bar or lines on the way, and one table or JSON document at the end, out."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from mendstream.cli.show import document, note, pairs
from mendstream.cli.work.interrupt import noted
from mendstream.simulation.crash import BUDGETS, Progress, Report, crash
from mendstream.simulation.powercut import DURABILITIES, Cuts, cut_power

_LINE_EVERY = 10
_INTERRUPTED = 130
_TOLD = "interrupted: counting what was covered; once more ends it at once"


def run(*, kills: int | None, cuts: int | None, fuse: bool, servers: str, seed: int, json: bool) -> int:
    """0 if nothing went wrong, 1 if something did, 130 if it was interrupted."""
    if kills is not None:
        note(f"restart budgets are raised for this run: {_budgets()}")
    with noted([signal.SIGINT, signal.SIGTERM], _TOLD) as seen, _progress() as progress:

        def stop() -> bool:
            return bool(seen)

        killed = None
        if kills is not None:
            killed = crash(kills, fuse=fuse, seed=seed, servers=servers, progress=progress, stop=stop)
        cut = [] if cuts is None else [cut_power(cuts, one, seed=seed, progress=progress, stop=stop)
                                       for one in DURABILITIES if not seen]  # fmt: skip
    _tell(killed, cut, json=json)
    if seen:
        return _INTERRUPTED
    return 0 if (killed is None or killed.exact) and all(one.sound for one in cut) else 1


# --- the end ---------------------------------------------------------------------------------------------------------


def _tell(killed: Report | None, cut: list[Cuts], *, json: bool) -> None:
    found = {**(_killed(killed) if killed else {}), **({"powercut": [asdict(one) for one in cut]} if cut else {})}
    if json:
        document(found)
        return
    pairs({name: value for name, value in found.items() if name != "powercut"})
    for one in cut:
        pairs(asdict(one))


def _killed(report: Report) -> dict[str, Any]:
    counted, compared, incidents = report.counted, report.compared, report.incidents
    return {
        "kills": report.kills,
        "killed": report.killed,
        "events": counted.events,
        "decisions": counted.decisions,
        "dead_letters": counted.dead_letters,
        "repeats_dropped": counted.repeats_dropped,
        "lost": counted.missing,
        "duplicated": counted.duplicated,
        "compared": compared.events,
        "different": compared.different,
        "spoiled_keys": report.spoiled,
        "orphans": len(report.orphans),
        "incidents": incidents.total,
        "incidents_open": incidents.open,
        "actions": incidents.actions,
        "flaws": list(incidents.flaws),
        "examples": [*counted.missing_examples, *counted.duplicated_examples, *compared.examples, *report.orphans],
        "starts": report.starts,
        "gave_up": list(report.gave_up),
        "fuse": report.fuse,
        "seed": report.seed,
        "budgets_raised": BUDGETS,
        "interrupted": report.interrupted,
        "seconds": {name: round(took, 1) for name, took in report.seconds.items()},
    }


def _budgets() -> str:
    return ", ".join(f"{name} = {value}" for name, value in BUDGETS.items())


# --- on the way ------------------------------------------------------------------------------------------------------


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal, lines elsewhere; both on standard error."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Bar(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def show(chapter: str, done: int, most: int) -> None:
            if chapter not in tasks:
                tasks[chapter] = bar.add_task(chapter, total=most or None)
            bar.update(tasks[chapter], completed=done)

        yield show


def _lines() -> Callable[[str, int, int], None]:
    def show(chapter: str, done: int, most: int) -> None:
        if not done:
            note(chapter)
        elif done % _LINE_EVERY == 0 or done == most:
            note(f"{chapter}: {done} of {most}")

    return show
