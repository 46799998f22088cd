"""`mendstream crashtest`: real processes are killed, or the power is cut, and then everything is counted."""

from __future__ import annotations

import click

from mendstream.cli.options import json_option
from mendstream.contracts.errors import UsageError

KILLS = 50


@click.command
@click.option("--kills", type=click.IntRange(1), metavar="N", help=f"Kill N processes of a real house [{KILLS}].")
@click.option("--powercut", type=click.IntRange(1), metavar="N", help="Cut the power at N moments of a log's life.")
@click.option("--fuse", is_flag=True, help="The pipeline as one process.")
@click.option(
    "--bus", metavar="KIND", default="lmdb", help="Bus of the house that is killed: lmdb, or kafka://HOST:PORT."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the stream and of all dice.")
@json_option
def crashtest(kills: int | None, powercut: int | None, fuse: bool, bus: str, seed: int, as_json: bool) -> int:
    """Kill a real house, or cut its power, and count what was lost, done twice or decided otherwise.

    Exit code 0 if that is nothing. Ctrl-C ends the killing; what was covered by then is counted. On a broker the house
    has topics of its own, which are deleted afterwards; what it decided is compared with an embedded run.
    """
    from mendstream.cli.late import late

    kind, _, servers = bus.partition("://")
    if (kind, bool(servers)) not in (("lmdb", False), ("kafka", True)):
        raise UsageError(f"--bus {bus} is no bus", hint="write it as --bus kafka://HOST:PORT, or leave it out")

    wanted = KILLS if kills is None and powercut is None else kills
    run = late("mendstream.cli.work.crashtest:run")
    return int(run(kills=wanted, cuts=powercut, fuse=fuse, servers=servers, seed=seed, json=as_json))
