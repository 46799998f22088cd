"""`mendstream status`: how the house is, from another terminal."""

import click

from mendstream.cli.options import Door, json_option, settings_options


@click.command
@click.option("--exit-code", is_flag=True, help="Exit with 1 unless all is well.")
@settings_options
@json_option
def status(door: Door, exit_code: bool, as_json: bool) -> int:
    """How the house is: processes, vitals, knobs, open incidents, what waits for a person."""
    from mendstream.cli.work.status import report

    well = report(door.settings(), as_json=as_json)
    return 1 if exit_code and not well else 0
