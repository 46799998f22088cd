"""The bus as a verb sees it: opened for a moment, read as records, written as a person. Positions never leave here."""

from __future__ import annotations

import getpass
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mendstream.contracts.errors import CouldNot
from mendstream.contracts.knobs import Fold, LiveConfig, fold
from mendstream.contracts.ports import Bus, Out
from mendstream.contracts.records import ConfigChange, Record, decode_block, encode_block
from mendstream.contracts.topics import Stream, Topic, Wing, streams_of
from mendstream.settings import Settings

ROWS, BYTES = 10_000, 8 << 20
"""Of one read."""
_TRIES = 20
_ordinals = itertools.count(1)


@contextmanager
def opened(settings: Settings, wing: Wing = Wing.CONTROL, *, readonly: bool = True) -> Iterator[Bus]:
    """The bus of the data directory. A verb that writes says which wing."""
    from mendstream.runtime.ground import embedded, open_bus

    if not embedded(settings):
        from mendstream.cli.work.log import log_aside

        log_aside()
    bus = open_bus(settings, wing, readonly=readonly)
    try:
        yield bus
    finally:
        bus.close()


def records(bus: Bus, stream: Stream, *, newest: int | None = None) -> Iterator[Record]:
    """Every record that is kept, or the newest ones, up to the end as it is now. Of JSON topics only."""
    first, end = bus.bounds(stream)
    position = first if newest is None else max(first, end - newest)
    while position < end:
        blocks = bus.read(stream, position, max_rows=ROWS, max_bytes=BYTES)
        if not blocks:
            return
        for block in blocks:
            yield from decode_block(stream.topic, bytes(block.value))
            position = block.next


def topic_records(bus: Bus, topic: Topic, partitions: int = 1, *, newest: int | None = None) -> Iterator[Record]:
    """The same of all partitions of `topic`, one after the other."""
    for stream in streams_of(topic, partitions):
        yield from records(bus, stream, newest=newest)


def publish(bus: Bus, stream: Stream, given: Sequence[Record]) -> None:
    bus.publish([Out(stream, encode_block(given), len(given))])


def live_config(bus: Bus) -> LiveConfig:
    """The knobs as config-updates have them now."""
    config = LiveConfig()
    for _, applied in changes(bus):
        config = applied or config
    return config


def changes(bus: Bus) -> Iterator[tuple[ConfigChange, LiveConfig | None]]:
    """Every change ever asked for, and the config that it made; None if it was stale or invalid."""
    config = LiveConfig()
    for record in records(bus, Stream(Topic.CONFIG_UPDATES, 0)):
        if isinstance(record, ConfigChange):
            config, what = fold(config, record)
            yield record, config if what is Fold.APPLIED else None


Wish = Callable[[LiveConfig], dict[str, Any]]


def turn_knobs(bus: Bus, wish: Wish, reason: str) -> LiveConfig | None:
    """Make one forced change, as a person; None if `wish` finds nothing to change.

    Others change knobs too: a change that turned out stale is asked for again, on what is there then.
    """
    for _ in range(_TRIES):
        config = live_config(bus)
        wanted = wish(config)
        if not wanted:
            return None
        change = ConfigChange(
            id=person_id(bus), base_version=config.version, changes=wanted, actor=person(), reason=reason,
            at_us=bus.now_us(), forced=True,
        )  # fmt: skip
        publish(bus, Stream(Topic.CONFIG_UPDATES, 0), [change])
        made = next((applied for asked, applied in changes(bus) if asked.id == change.id), None)
        if made is not None:
            return made
    raise CouldNot(f"the config changed {_TRIES} times before this change got in", hint="try again in a moment")


def person() -> str:
    """Who runs this command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in this container
        return f"uid-{os.getuid()}"


def person_id(bus: Bus) -> str:
    """An id for a record of a person: incarnation/task/turn/ordinal, where the task is this very process."""
    return f"{bus.incarnation}/cli.{person()}.{os.getpid()}/{bus.now_us()}/{next(_ordinals)}"
