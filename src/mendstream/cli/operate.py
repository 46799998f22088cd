"""`mendstream pause|resume|inject`: what a person changes in a running house, as forced records."""

from pathlib import Path

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
@click.argument("name", required=False)
@click.option("--plan", type=click.Path(dir_okay=False, path_type=Path), help="A file of faults with their moments.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the fault.")
@click.option("--off", is_flag=True, help="Take the fault out again.")
@settings_options
@json_option
def inject(door: Door, name: str | None, plan: Path | None, params: tuple[str, ...], off: bool, as_json: bool) -> int:
    """Put fault NAME in, or take it out, in a house where chaos is enabled; or follow a plan of several."""
    from mendstream.cli.work.operate import follow_plan, put_fault
    from mendstream.contracts.errors import UsageError

    if (name is None) == (plan is None):
        raise UsageError("name a fault, or a file with --plan, and not both", hint="mendstream inject slow-model")
    if plan is not None:
        return follow_plan(door.settings(), plan, as_json=as_json)
    assert name is not None
    return put_fault(door.settings(), name, param_pairs(params, "--param"), on=not off, as_json=as_json)
