"""`mendstream demo|run|agent|bench`: the verbs that start the house. What they start is imported when they do."""

from __future__ import annotations

import click

from mendstream.cli.options import Door, json_option, settings_options

_FUSE = click.option("--fuse/--no-fuse", default=None, help="The pipeline as one process, or a process each.")


@click.command
@click.option("--fuse", is_flag=True, help="The pipeline as one process.")
@click.option("--fault", metavar="NAME", help="Only this fault.")
@click.option("--seed", default=0, show_default=True, help="Seed of all dice.")
@click.option("--data", metavar="DIR", help="Data directory to make and keep [a temporary one].")
@click.option("--seconds", type=click.FloatRange(min=1), help="Stop after so long, whatever was shown by then.")
@json_option
def demo(fuse: bool, fault: str | None, seed: int, data: str | None, seconds: float | None, as_json: bool) -> int:
    """Hurt a real pipeline in four ways and watch it heal; takes at most two minutes."""
    from mendstream.cli.late import late

    run_demo = late("mendstream.demo.main:demo")
    return int(run_demo(fuse=fuse, fault=fault, seed=seed, data=data, json=as_json, seconds=seconds))


@click.command
@_FUSE
@click.option("--partitions", type=int, help="Partitions of the data topics.")
@click.option("--durability", type=click.Choice(["power", "process"]), help="What a committed turn survives.")
@settings_options
def run(door: Door, fuse: bool | None, partitions: int | None, durability: str | None) -> int:
    """Run the house: pipeline, monitoring, healing, policy. Ctrl-C or SIGTERM stops it."""
    from mendstream.cli.late import late

    settings = door.settings(run__fuse=fuse, run__partitions=partitions, bus__durability=durability)
    return int(late("mendstream.runtime.supervisor:run")(settings))


@click.command
@click.argument("name")
@click.option("--replica", type=click.IntRange(0), default=0, show_default=True, help="Which of its replicas.")
@_FUSE
@settings_options
def agent(door: Door, name: str, replica: int, fuse: bool | None) -> int:
    """Run one agent as a process; `mendstream run` starts and watches all of them."""
    from mendstream.cli.late import late

    return int(late("mendstream.runtime.worker:run_agent")(door.settings(run__fuse=fuse), name, replica))


@click.command
@click.argument("name", default="all")
@click.option(
    "--bus", metavar="KIND", default="", help="kafka://HOST:PORT, for the benches that run on Kafka, and mttr."
)
@click.option("--store", metavar="URL", default="", help="postgresql://USER@HOST:PORT/NAME, for mttr.")
@json_option
def bench(name: str, bus: str, store: str, as_json: bool) -> int:
    """Measure: pipeline, latency, counts, mttr, start, help, or all of them; kafka with a broker."""
    from mendstream.cli.late import late

    return int(late("mendstream.bench:run")(name, as_json, bus, store))
