"""`mendstream pause|resume|inject`: what a person changes in a running house, as forced records."""

import click

from mendstream.cli.options import Door, json_option, param_pairs, settings_options

_REASON = click.option("--reason", default="", help="Why; kept with the change.")


@click.command
@_REASON
@settings_options
@json_option
def pause(door: Door, reason: str, as_json: bool) -> int:
    """Block new remedies (never an undo)."""
    from mendstream.cli.work.operate import set_paused

    return set_paused(door.settings(), True, reason or "paused by a person", as_json=as_json)


@click.command
@_REASON
@settings_options
@json_option
def resume(door: Door, reason: str, as_json: bool) -> int:
    """Allow remedies again."""
    from mendstream.cli.work.operate import set_paused

    return set_paused(door.settings(), False, reason or "resumed by a person", as_json=as_json)


@click.command
@click.argument("name")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the fault.")
@click.option("--off", is_flag=True, help="Take the fault out again.")
@settings_options
@json_option
def inject(door: Door, name: str, params: tuple[str, ...], off: bool, as_json: bool) -> int:
    """Put fault NAME in, or take it out, in a house where chaos is enabled."""
    from mendstream.cli.work.operate import put_fault

    return put_fault(door.settings(), name, param_pairs(params, "--param"), on=not off, as_json=as_json)
