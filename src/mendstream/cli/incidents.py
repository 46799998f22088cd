"""`mendstream incidents [ID]`, `mendstream incidents close|release ID --reason TEXT`."""

import click

from mendstream.cli.options import Door, json_option, settings_options


class Shows(click.Group):
    """A group whose first word may be an incident instead of a command: that one is shown."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Shows)
def incidents() -> None:
    """List incidents, show one (`mendstream incidents ID`), close one, or release its hold of SAFE_MODE.

    Options: see `mendstream incidents show --help`.
    """


@incidents.command
@click.argument("incident", required=False)
@click.option("--open", "open_only", is_flag=True, help="Only those that have not ended.")
@click.option("-n", "count", default=20, type=click.IntRange(1), show_default=True, help="The newest so many.")
@settings_options
@json_option
def show(door: Door, incident: str | None, open_only: bool, count: int, as_json: bool) -> int:
    """List the newest incidents, or show all about one."""
    from mendstream.cli.work.incidents import list_incidents, show_incident

    settings = door.settings()
    if incident is None:
        return list_incidents(settings, open_only=open_only, count=count, as_json=as_json)
    return show_incident(settings, incident, as_json=as_json)


@incidents.command
@click.argument("incident")
@click.option("--reason", required=True, help="How it ended; kept with the incident.")
@settings_options
@json_option
def close(door: Door, incident: str, reason: str, as_json: bool) -> int:
    """End an incident that the house could not end itself."""
    from mendstream.cli.work.incidents import close_incident

    return close_incident(door.settings(), incident, reason, as_json=as_json)


@incidents.command
@click.argument("incident")
@click.option("--reason", required=True, help="Why the model may decide again; kept with the change.")
@settings_options
@json_option
def release(door: Door, incident: str, reason: str, as_json: bool) -> int:
    """Let go of SAFE_MODE, where an incident holds it and healing sees no way back by itself."""
    from mendstream.cli.work.incidents import release_hold

    return release_hold(door.settings(), incident, reason, as_json=as_json)
