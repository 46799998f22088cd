"""`mendstream policy check|test`: policy files, without running anything."""

from pathlib import Path

import click

from mendstream.cli.options import Door, json_option, settings_options

_FOLDER = click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False, exists=True))


@click.group
def policy() -> None:
    """Check policy files, or test them on a table of cases.

    FOLDER holds .cedar files; without it, policy.dir of the settings, or the shipped policies.
    """


@policy.command
@_FOLDER
@settings_options
@json_option
def check(door: Door, folder: Path | None, as_json: bool) -> int:
    """Read the files as the policy agent would, and say all that is wrong. Exit code 1 if anything is."""
    from mendstream.cli.work.policy import check_files

    return check_files(door.load().settings, folder, as_json=as_json)


@policy.command
@_FOLDER
@click.option(
    "--cases", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
    help="Table of cases [cases.toml of the folder, else the shipped one].",
)  # fmt: skip
@settings_options
@json_option
def test(door: Door, folder: Path | None, cases: Path | None, as_json: bool) -> int:
    """Run a table of cases. Exit code 1 if a verdict differs from the expected one."""
    from mendstream.cli.work.policy import test_files

    return test_files(door.load().settings, folder, cases, as_json=as_json)
