"""Keys that hurt the house of mendstream.toml: 1 latency, 2 bad model, 3 agent down, 4 drift (1 and 4 again: out).

Start that house first: `mendstream run --config experiments/mendstream.toml`. What is given behind the name of any of
these scripts goes on to `mendstream inject`.
"""

import sys
from dataclasses import replace
from pathlib import Path

import click

from mendstream.cli import main
from mendstream.cli.options import Door, settings_options
from mendstream.demo.scenario import register_bad_model

CONFIG = Path(__file__).parent / "mendstream.toml"
KEYS = {"1": "slow-model", "2": "bad-model", "3": "dead-agent", "4": "drift"}


def inject(fault: str, *more: str) -> int:
    """`mendstream inject FAULT`; returns its exit code."""
    try:
        main(["inject", fault, "--config", str(CONFIG), *more, *sys.argv[1:]])
    except SystemExit as ended:
        return int(ended.code or 0)


@click.command
@settings_options
def loop(door: Door) -> None:
    """Wait for keys."""
    settings = replace(door, config=door.config or CONFIG).settings()
    put_in: set[str] = set()
    click.echo("1 latency   2 bad model   3 agent down   4 drift   (1 and 4 again: out)   q end")
    while (key := click.getchar()) not in ("q", "\x04"):
        fault = KEYS.get(key)
        if fault in put_in:
            put_in.discard(fault)
            inject(fault, "--off")
        elif fault == "bad-model":
            inject(fault, "--param", f"version={register_bad_model(settings)}")
        elif fault and inject(fault) == 0 and fault != "dead-agent":
            put_in.add(fault)


if __name__ == "__main__":
    loop()
