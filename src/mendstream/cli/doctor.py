"""`mendstream doctor`: this machine and this data directory, and what to mend."""

import click

from mendstream.cli.options import Door, json_option, settings_options


@click.command
@settings_options
@json_option
def doctor(door: Door, as_json: bool) -> int:
    """Look at this machine and the data directory, and say what to mend. Exit code 1 if anything must be."""
    from mendstream.cli.work.doctor import examine

    return examine(door, as_json=as_json)
