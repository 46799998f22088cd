"""`mendstream check`: settings and pipeline, without running them."""

from pathlib import Path

import click

from mendstream.cli.options import Door, json_option, settings_options


@click.command
@click.option(
    "--events", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
    help="Real events (JSON lines) to try the functions on, instead of made-up ones.",
)  # fmt: skip
@settings_options
@json_option
def check(door: Door, events: Path | None, as_json: bool) -> int:
    """Validate settings and pipeline without running them.

    Exit codes: 0 all is well, 1 something is wrong with the pipeline or its files, 2 the settings are wrong.
    """
    from mendstream.cli.work.check import check_all

    return check_all(door.load(), events, as_json=as_json)
