"""A log on disk for one test, and short ways to write to it and read from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mendstream.adapters.bus.lmdb_bus import LmdbBus, create
from mendstream.contracts.frame import Frame
from mendstream.contracts.ports import Block, Clock, Out
from mendstream.contracts.records import Record, decode_block, encode_block
from mendstream.contracts.topics import SPECS, Codec, Stream, Topic, Wing

MAP_BYTES = 256 << 20
INCARNATION = "feed01"


def open_log(
    root: Path, clock: Clock, wing: Wing = Wing.DATA, *, map_bytes: int = MAP_BYTES, **options: Any
) -> LmdbBus:
    """Made if it is missing. One process may have one open at a time."""
    create(root, incarnation=INCARNATION, map_bytes=map_bytes)
    return LmdbBus(root, wing, clock, map_bytes=map_bytes, **options)


def out(stream: Stream, *lines: bytes) -> Out:
    return Out(stream, b"\n".join(lines) + b"\n", len(lines))


def records_out(stream: Stream, records: Sequence[Record]) -> Out:
    return Out(stream, encode_block(records), len(records))


def blocks(bus: Any, stream: Stream, position: int = 0, *, max_rows: int = 1 << 30) -> list[Block]:
    return bus.read(stream, position, max_rows=max_rows, max_bytes=1 << 40)


def lines(bus: Any, stream: Stream, position: int = 0) -> list[bytes]:
    """All JSON lines from `position` on."""
    return [line for block in blocks(bus, stream, position) for line in bytes(block.value).split(b"\n") if line]


def records(bus: Any, topic: Topic, partition: int = 0) -> list[Any]:
    stream = Stream(topic, partition)
    return [r for block in blocks(bus, stream) for r in decode_block(topic, bytes(block.value))]


def frames(bus: Any, topic: Topic, partition: int = 0) -> list[Frame]:
    assert SPECS[topic].codec is Codec.FRAME
    return [Frame.decode(block.value) for block in blocks(bus, Stream(topic, partition))]


def shrink(monkeypatch: Any, topic: Topic, **changes: int) -> None:
    """Other retention for one topic, for the length of a test."""
    monkeypatch.setitem(SPECS, topic, dataclasses.replace(SPECS[topic], **changes))


class BothWings:
    """A bus of the data wing that can also be handed what the control wing writes: config, to begin with.

    One process may have a log open once, so it is closed, opened for the other wing, and opened again.
    """

    def __init__(self, root: Path, clock: Clock, wing: Wing = Wing.DATA) -> None:
        self._root = root
        self._clock = clock
        self._wing = wing
        self._bus = open_log(root, clock, wing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def elsewhere(self, *outs: Out) -> None:
        """Publish as a process of the other wing."""
        self._bus.close()
        other = open_log(self._root, self._clock, Wing.DATA if self._wing is Wing.CONTROL else Wing.CONTROL)
        other.publish(outs)
        other.close()
        self._bus = open_log(self._root, self._clock, self._wing)
