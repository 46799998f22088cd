"""`mendstream topics`: the table of topics. `mendstream topics create|check`: the topics of a Kafka cluster."""

from __future__ import annotations

import click

from mendstream.cli.options import Door, json_option, settings_options
from mendstream.cli.show import document, table
from mendstream.contracts.topics import TOPICS, Spread, TopicSpec

_SPREAD = {Spread.DATA: "run.partitions", Spread.ONE: "1", Spread.WINGS: "2"}


_PARTITIONS = click.option("--partitions", type=click.IntRange(1, 64), help="Partitions of the data topics.")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def topics(ctx: click.Context, as_json: bool) -> None:
    """The table of topics: what travels where, written and read by whom. On Kafka: make the topics, or check them."""
    if ctx.invoked_subcommand is not None:
        return
    if as_json:
        document([_row(spec) for spec in TOPICS])
        return
    table(
        ("topic", "codec", "key", "partitions", "keeps", "written by", "read by", "purpose"),
        (
            (spec.topic, spec.codec, spec.key, _SPREAD[spec.spread], _kept(spec), ", ".join(spec.writers),
             ", ".join(spec.readers), spec.purpose)
            for spec in TOPICS
        ),
        empty="no topics",
    )  # fmt: skip


@topics.command
@_PARTITIONS
@settings_options
@json_option
def create(door: Door, partitions: int | None, as_json: bool) -> int:
    """Make the topics that are missing on the Kafka cluster, and check all of them.

    Exit code 1 if one that was there is not as it should be. The embedded log needs no topics.
    """
    from mendstream.cli.work.topics import make_topics

    return make_topics(door.settings(run__partitions=partitions), as_json=as_json)


@topics.command
@_PARTITIONS
@settings_options
@json_option
def check(door: Door, partitions: int | None, as_json: bool) -> int:
    """Compare the topics of the Kafka cluster with the table, and print what mends each difference.

    Exit code 1 if there is one.
    """
    from mendstream.cli.work.topics import check_topics

    return check_topics(door.settings(run__partitions=partitions), as_json=as_json)


def _row(spec: TopicSpec) -> dict[str, object]:
    names = ("topic", "codec", "key", "retention_s", "retention_bytes", "writers", "readers", "purpose", "brief")
    return {name: getattr(spec, name) for name in names} | {"partitions": _SPREAD[spec.spread]}


def _kept(spec: TopicSpec) -> str:
    if not spec.retention_s and not spec.retention_bytes:
        return "for ever"
    hours = spec.retention_s // 3600
    age = f"{hours // 24} d" if hours >= 48 else f"{hours} h"
    return f"{age}, {spec.retention_bytes >> 20} MiB"
