"""`mendstream crashtest`: real processes are killed, or the power is cut, and then everything is counted."""

from __future__ import annotations

import click

from mendstream.cli.options import json_option

KILLS = 50


@click.command
@click.option("--kills", type=click.IntRange(1), metavar="N", help=f"Kill N processes of a real house [{KILLS}].")
@click.option("--powercut", type=click.IntRange(1), metavar="N", help="Cut the power at N moments of a log's life.")
@click.option("--fuse", is_flag=True, help="The pipeline as one process.")
@click.option("--seed", default=0, show_default=True, help="Seed of the stream and of all dice.")
@json_option
def crashtest(kills: int | None, powercut: int | None, fuse: bool, seed: int, as_json: bool) -> int:
    """Kill a real house, or cut its power, and count what was lost, done twice or decided otherwise.

    Exit code 0 if that is nothing. Ctrl-C ends the killing; what was covered by then is counted.
    """
    from mendstream.cli.late import late

    wanted = KILLS if kills is None and powercut is None else kills
    run = late("mendstream.cli.work.crashtest:run")
    return int(run(kills=wanted, cuts=powercut, fuse=fuse, seed=seed, json=as_json))
