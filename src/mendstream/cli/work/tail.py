"""Blocks of a topic in, one line a record out: JSON or text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
import msgspec

from mendstream.cli.show import cell, line
from mendstream.cli.work.bus import opened
from mendstream.contracts.errors import BadRecord, UsageError
from mendstream.contracts.frame import Frame
from mendstream.contracts.ports import Block, Bus
from mendstream.contracts.records import decode
from mendstream.contracts.topics import SPECS, Codec, Stream, Topic, streams_of
from mendstream.settings import Settings


def tail_topic(
    settings: Settings, topic: str, partition: int | None, newest: int | None, *, follow: bool, as_json: bool
) -> int:
    """The `newest` records of each partition, or all (None); then, if asked, what comes."""
    streams = _streams(Topic(topic), settings.run.partitions, partition)
    with opened(settings) as bus:
        at = {}
        for stream in streams:
            first, end = bus.bounds(stream)
            at[stream] = first if newest is None else max(first, end - newest)
        if not follow:
            _print(bus, at, as_json)
            return 0
        bell = bus.listen(f"tail-{os.getpid()}", streams)
        try:
            while True:
                if not _print(bus, at, as_json):
                    bell.wait(1.0)
        finally:
            bell.close()


def _streams(topic: Topic, partitions: int, partition: int | None) -> tuple[Stream, ...]:
    streams = streams_of(topic, partitions)
    if partition is None:
        return streams
    if partition >= len(streams):
        raise UsageError(f"{topic} has no partition {partition}", hint=f"it has 0 to {len(streams) - 1}")
    return (streams[partition],)


def _print(bus: Bus, at: dict[Stream, int], as_json: bool) -> bool:
    """Print up to the end as it is now; True if there was anything."""
    any_printed = False
    for stream, position in at.items():
        _, end = bus.bounds(stream)
        while position < end:
            blocks = bus.read(stream, position, max_rows=2_000, max_bytes=4 << 20)
            if not blocks:
                break
            for block in blocks:
                for row in rows_of(block):
                    line(row) if as_json else click.echo(text_of(row))
                position = block.next
                any_printed = True
        at[stream] = position
    return any_printed


def rows_of(block: Block) -> Iterator[dict[str, Any]]:
    """One dict a row: topic, partition, position, at_us, record, and a frame's meta or why a row is none."""
    head = {"topic": block.stream.topic, "partition": block.stream.partition}
    rows = _frame_rows(block) if SPECS[block.stream.topic].codec is Codec.FRAME else _lines(block)
    for offset, row in enumerate(rows):
        yield {**head, "position": block.position + offset, "at_us": block.at_us, **row}


def _lines(block: Block) -> Iterator[dict[str, Any]]:
    for text in bytes(block.value).split(b"\n")[: block.rows]:
        try:
            yield {"record": msgspec.to_builtins(decode(block.stream.topic, text))}
        except BadRecord as error:
            yield {"record": None, "bytes": text.decode(errors="backslashreplace"), "error": str(error)}


def _frame_rows(block: Block) -> Iterator[dict[str, Any]]:
    try:
        frame = Frame.decode(block.value)
    except BadRecord as error:
        for _ in range(block.rows):
            yield {"record": None, "error": str(error)}
        return
    meta = msgspec.to_builtins(frame.meta)
    for row in frame.slice(block.skip, block.skip + block.rows).batch.to_pylist():
        yield {"record": row, "meta": meta}


def text_of(row: dict[str, Any]) -> str:
    """A row for a person: time, place, name=value."""
    time = datetime.fromtimestamp(row["at_us"] / 1e6).astimezone().strftime("%H:%M:%S.%f")[:-3]
    facts = {**(row["record"] or {}), **row.get("meta", {})}
    facts.pop("at_us", None)
    facts |= {name: row[name] for name in ("error", "bytes") if name in row}
    words = " ".join(f"{name}={cell(value)}" for name, value in facts.items())
    return f"{time}  {row['topic']}/{row['partition']}@{row['position']}  {words}"
