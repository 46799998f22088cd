"""`mendstream topics`: the table of topics."""

from __future__ import annotations

import click

from mendstream.cli.options import json_option
from mendstream.cli.show import document, table
from mendstream.contracts.topics import TOPICS, Spread, TopicSpec

_SPREAD = {Spread.DATA: "run.partitions", Spread.ONE: "1", Spread.WINGS: "2"}


@click.command
@json_option
def topics(as_json: bool) -> None:
    """The table of topics: what travels where, written and read by whom."""
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


def _row(spec: TopicSpec) -> dict[str, object]:
    names = ("topic", "codec", "key", "retention_s", "retention_bytes", "writers", "readers", "purpose", "brief")
    return {name: getattr(spec, name) for name in names} | {"partitions": _SPREAD[spec.spread]}


def _kept(spec: TopicSpec) -> str:
    if not spec.retention_s and not spec.retention_bytes:
        return "for ever"
    hours = spec.retention_s // 3600
    age = f"{hours // 24} d" if hours >= 48 else f"{hours} h"
    return f"{age}, {spec.retention_bytes >> 20} MiB"
