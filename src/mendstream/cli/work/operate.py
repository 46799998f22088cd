"""A person's wish in, a forced change of a knob or a fault out."""

from __future__ import annotations

from collections.abc import Mapping

import click

from mendstream.cli.show import document
from mendstream.cli.work.bus import live_config, opened, person, turn_knobs
from mendstream.contracts.records import Scalar
from mendstream.runtime.inject import inject
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
    done = inject(settings, name, params, on, person())
    if as_json:
        document({"fault": name, "on": on, "done": done})
    else:
        click.echo(done)
    return 0
