"""`mendstream approve|deny REQUEST`: a person's verdict on a proposal that the policy has escalated."""

import click

from mendstream.cli.options import Door, json_option, settings_options

_REQUEST = click.argument("request", required=False)
_REASON = click.option("--reason", default="", help="Why; kept with the verdict.")


@click.command
@_REQUEST
@_REASON
@settings_options
@json_option
def approve(door: Door, request: str | None, reason: str, as_json: bool) -> int:
    """Approve a proposal that waits for a person.

    REQUEST is the proposal's id, or the id of its incident. Without it, what waits is listed.
    """
    from mendstream.cli.work.answers import answer

    return answer(door.settings(), request, "APPROVED", reason or "approved by a person", as_json=as_json)


@click.command
@_REQUEST
@_REASON
@settings_options
@json_option
def deny(door: Door, request: str | None, reason: str, as_json: bool) -> int:
    """Deny a proposal that waits for a person.

    REQUEST is the proposal's id, or the id of its incident. Without it, what waits is listed.
    """
    from mendstream.cli.work.answers import answer

    return answer(door.settings(), request, "DENIED", reason or "denied by a person", as_json=as_json)
