"""`mendstream dead-letters list|show|replay`: records that could not be used."""

from pathlib import Path

import click

from mendstream.cli.options import Door, json_option, settings_options

_REASON = click.option("--reason", help="Only this reason, as MALFORMED.")
_STAGE = click.option("--stage", help="Only this stage, as ingestion.")


@click.group
def letters() -> None:
    """Records that could not be used, with their bytes and the reason."""


@letters.command("list")
@click.option("-n", "count", default=50, type=click.IntRange(1), show_default=True, help="The newest so many.")
@_REASON
@_STAGE
@settings_options
@json_option
def list_(door: Door, count: int, reason: str | None, stage: str | None, as_json: bool) -> int:
    """List them, oldest first."""
    from mendstream.cli.work.letters import list_letters

    return list_letters(door.settings(), reason, stage, count, as_json=as_json)


@letters.command
@click.argument("letter")
@click.option("--bytes", "raw", is_flag=True, help="Its bytes alone, as they came.")
@settings_options
@json_option
def show(door: Door, letter: str, raw: bool, as_json: bool) -> int:
    """Everything about one, its bytes included."""
    from mendstream.cli.work.letters import show_letter

    return show_letter(door.settings(), letter, raw=raw, as_json=as_json)


@letters.command
@click.argument("names", nargs=-1, metavar="[LETTER]...")
@click.option("--all", "everything", is_flag=True, help="All that match and were not replayed before.")
@_REASON
@_STAGE
@click.option("--again", is_flag=True, help="Also those that were replayed before.")
@click.option(
    "--to", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False), metavar="FILE",
    help="Append source lines to FILE (- is standard output).",
)  # fmt: skip
@settings_options
@json_option
def replay(
    door: Door, names: tuple[str, ...], everything: bool, reason: str | None, stage: str | None, again: bool,
    to: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Give them to the stage that refused them once more, after its cause was mended.

    What came from outside goes to the running HTTP source, or with --to into a file to feed in again.
    """
    from mendstream.cli.work.letters import Choice, replay_letters

    choice = Choice(names=names, everything=everything, reason=reason, stage=stage, again=again)
    return replay_letters(door.settings(), choice, to, as_json=as_json)
