"""A person's wish in, a forced record on config-updates out."""

from __future__ import annotations

from collections.abc import Mapping

import click

from mendstream.cli.show import document, note
from mendstream.cli.work.bus import live_config, now_us, opened, person, person_id, publish, turn_knobs
from mendstream.contracts.records import Fault, Scalar, encode
from mendstream.contracts.topics import Stream, Topic
from mendstream.settings import Settings


def set_paused(settings: Settings, paused: bool, reason: str, *, as_json: bool) -> int:
    with opened(settings, readonly=False) as bus:
        made = turn_knobs(
            bus, lambda config: {} if config.healing_paused is paused else {"healing_paused": paused}, reason
        )
        config = made or live_config(bus)
    if as_json:
        document({"healing_paused": paused, "changed": made is not None, "config": config.version})
    else:
        word = "paused" if paused else "on"
        click.echo(f"healing is {word}, config {config.version}" + ("" if made else " (it was already)"))
    return 0


def put_fault(settings: Settings, name: str, params: Mapping[str, Scalar], *, on: bool, as_json: bool) -> int:
    with opened(settings, readonly=False) as bus:
        fault = Fault(id=person_id(bus), name=name, on=on, params=dict(params), actor=person(), at_us=now_us())
        publish(bus, Stream(Topic.CONFIG_UPDATES, 0), [fault])
    if not settings.chaos.enabled:
        note("note: chaos.enabled is false in these settings; a house that runs with them ignores the fault")
    if as_json:
        click.echo(encode(fault))
    else:
        click.echo(f"fault {name} {'in' if on else 'out'}")
    return 0
