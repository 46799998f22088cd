"""`mendstream simulate`: the whole house on one thread, one clock and one seed, hurt in every way, many times."""

from __future__ import annotations

from pathlib import Path

import click

from mendstream.cli.options import json_option

SEEDS = 200
MANY = 10_000_000
"""Where only time ends a run."""
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command
@click.option("--seeds", type=click.IntRange(1), metavar="N", help=f"Run N seeds [{SEEDS}].")
@click.option("--from", "first", type=click.IntRange(0), default=0, show_default=True, help="The first seed.")
@click.option("--fresh", is_flag=True, help="Begin with seeds that nobody has run: they are named after the time.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Stop after so long, whatever --seeds says.")
@click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="Processes that share the seeds [cores].")
@click.option("--resume", type=_FILE, help="Go on where this file says, and keep it up to date.")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Run this one seed, and print its timeline.")
@click.option("--replay", type=_FILE, help="Run the plan in this file, and print its timeline.")
@click.option("--save", type=_FILE, help="With --seed: write its plan to this file and run nothing.")
@click.option("--planted", is_flag=True, help="Plant each known bug and find it, to see that it can be found.")
@click.option("--bug", metavar="NAME", help="With --planted: only this one; with --seed or --replay: plant it there.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Where failing plans go.")
@json_option
def simulate(
    seeds: int | None, first: int, fresh: bool, minutes: float | None, workers: int | None, resume: Path | None,
    seed: int | None, replay: Path | None, save: Path | None, planted: bool, bug: str | None, out: Path, as_json: bool,
) -> int:  # fmt: skip
    """Run the real agents, driver, healing and policies on a simulated machine, hurt them, and check what we promise.

    Exit code 0 if every promise held, 1 if one was broken; then the plan is shrunk and written down, and the way to
    see it again is printed. Ctrl-C ends it; what was covered by then is told.
    """
    from mendstream.cli.late import late
    from mendstream.contracts.errors import UsageError

    if sum((seed is not None, replay is not None, planted)) > 1:
        raise UsageError("--seed, --replay and --planted exclude one another", hint="choose one")
    if save is not None and seed is None:
        raise UsageError("--save needs --seed", hint="mendstream simulate --seed N --save FILE")
    work = "mendstream.cli.work.simulate"
    if planted:
        return int(late(f"{work}:plant")(bug, as_json=as_json))
    if seed is not None or replay is not None:
        return int(late(f"{work}:one")(seed, replay, save, bug, as_json=as_json))
    run = late(f"{work}:many")
    most = seeds or (MANY if minutes else SEEDS)
    begin = None if fresh else first
    return int(run(most, begin, minutes=minutes, workers=workers, resume=resume, out=out, as_json=as_json))
