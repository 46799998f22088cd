"""A person's wish in, a forced change of a knob or a fault out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import click

from mendstream.chaos import plan as plans
from mendstream.chaos.plan import Injection
from mendstream.cli.show import document, line
from mendstream.cli.work.bus import live_config, opened, person, turn_knobs
from mendstream.contracts.records import Scalar
from mendstream.runtime.hurt import hurt
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


def follow_plan(settings: Settings, path: Path, *, as_json: bool) -> int:
    """0 if all of it could be done, 1 if not."""
    began, done = time.monotonic(), []

    def wait_until(at_ms: int) -> None:
        time.sleep(max(0.0, began + at_ms / 1000 - time.monotonic()))

    def put(injection: Injection, on: bool) -> str:
        return inject(settings, injection.fault, injection.params, on, person())

    for step in hurt(plans.read(path), put, wait_until):
        done.append(step)
        if as_json:
            line(step._asdict())
        else:
            click.echo(f"{step.at_ms / 1000:7.1f} s  {step.told}")
    return 0 if all(step.ok for step in done) else 1


def put_fault(settings: Settings, name: str, params: Mapping[str, Scalar], *, on: bool, as_json: bool) -> int:
    done = inject(settings, name, params, on, person())
    if as_json:
        document({"fault": name, "on": on, "done": done})
    else:
        click.echo(done)
    return 0
