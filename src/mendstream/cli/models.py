"""`mendstream models list|show|promote|rollback|history`."""

import click

from mendstream.cli.options import Door, json_option, settings_options

_REASON = click.option("--reason", default="", help="Why; kept with the change.")


@click.group
def models() -> None:
    """Model versions: which there are, which is live, which was live when."""


@models.command("list")
@settings_options
@json_option
def list_(door: Door, as_json: bool) -> int:
    """The versions on disk, and which of them is live."""
    from mendstream.cli.work.models import list_versions

    return list_versions(door.settings(), as_json=as_json)


@models.command
@click.argument("version")
@settings_options
@json_option
def show(door: Door, version: str, as_json: bool) -> int:
    """The card of VERSION; its file is checked against the digest."""
    from mendstream.cli.work.models import show_version

    return show_version(door.settings(), version, as_json=as_json)


@models.command
@click.argument("version")
@_REASON
@click.option("--lift", is_flag=True, help="Lift the exclusion that a rollback has put on it.")
@settings_options
@json_option
def promote(door: Door, version: str, reason: str, lift: bool, as_json: bool) -> int:
    """Make VERSION live by force: no gates, no shadow run. The record says so."""
    from mendstream.cli.work.models import promote_version

    return promote_version(door.settings(), version, reason or "promoted by a person", lift=lift, as_json=as_json)


@models.command
@click.argument("version", required=False)
@_REASON
@settings_options
@json_option
def rollback(door: Door, version: str | None, reason: str, as_json: bool) -> int:
    """Go back to VERSION, or to the one that was live before, and exclude the one that is live now."""
    from mendstream.cli.work.models import roll_back

    return roll_back(door.settings(), version, reason or "rolled back by a person", as_json=as_json)


@models.command
@click.option("--at", metavar="TIME", help="Only the version that was live then (ISO 8601, local time if no zone).")
@settings_options
@json_option
def history(door: Door, at: str | None, as_json: bool) -> int:
    """Which version was live when, and who made it so."""
    from mendstream.cli.work.models import show_history

    return show_history(door.settings(), at, as_json=as_json)
