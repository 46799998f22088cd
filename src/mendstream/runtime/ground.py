"""A data directory made ready and opened: the part of the assembly that the supervisor and the command line need.

Imports neither Arrow nor any agent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mendstream.adapters.bus import boot
from mendstream.adapters.bus.lmdb_bus import LmdbBus, create
from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.room import told
from mendstream.contracts.errors import SettingsError
from mendstream.contracts.knobs import LiveConfig, fold
from mendstream.contracts.ports import Block, Bus, Out, Position
from mendstream.contracts.records import ConfigChange, decode_each, encode_block
from mendstream.contracts.topics import CONFIG, Stream, Topic, Wing
from mendstream.runtime.clock import HouseClock, set_clock
from mendstream.settings import Settings, models_dir

if TYPE_CHECKING:  # the client of a broker is imported by who has one
    from mendstream.adapters.bus.kafka.client import Cluster


def data_dir(settings: Settings) -> Path:
    return Path(settings.run.data_dir).absolute()


class HouseBus(Bus, Protocol):
    """The bus as a house opens it."""

    def ring(self, stream: Stream) -> None:
        """Wake who listens to `stream` on this machine, for what grows outside the log: a source's spool."""

    def sync(self) -> None:
        """Bring what was committed to the disk, whatever the durability."""


def embedded(settings: Settings) -> bool:
    """Whether the log is in the data directory."""
    return settings.bus.kind == "lmdb"


def cluster_of(settings: Settings) -> Cluster:
    """The brokers that the settings name; raises SettingsError if they name none."""
    from mendstream.adapters.bus.kafka.client import Cluster

    bus = settings.bus
    if not bus.bootstrap_servers:
        raise SettingsError("bus.kind = kafka, and no broker is named", hint="run with --bus kafka://HOST:PORT")
    return Cluster(
        bus.bootstrap_servers, settings.run.namespace, bus.client, bus.replication, bus.min_insync_replicas
    )  # fmt: skip


def open_bus(
    settings: Settings, wing: str | Wing = Wing.CONTROL, *, readonly: bool = False, chain: Sequence[str] = ()
) -> HouseBus:
    """The bus of a house that is ready; raises CouldNot if there is none. `chain`: the stages of a fused process."""
    if embedded(settings) and settings.run.assignment == "group":
        raise SettingsError(
            "run.assignment = group shares the work by Kafka's consumer groups, and the bus is embedded",
            hint='run with --bus kafka://HOST:PORT, or with run.assignment = "house"',
        )
    if not embedded(settings):
        from mendstream.adapters.bus.kafka.kafka_bus import KafkaBus

        root = data_dir(settings)
        return KafkaBus(
            cluster_of(settings), root, HouseClock(root), partitions=settings.run.partitions, chain=chain
        )  # fmt: skip
    return LmdbBus(
        data_dir(settings),
        Wing(wing),
        HouseClock(data_dir(settings)),
        map_bytes=settings.bus.map_size_mb << 20,
        durability=settings.bus.durability,
        readonly=readonly,
    )


def prepare(settings: Settings) -> None:
    """Make the house ready: its log, the first model, and config version 1 if there is no config yet."""
    if settings.tracing.enabled:
        from mendstream.adapters import tracing

        tracing.check(settings.tracing)
    with told(data_dir(settings)):
        _prepare(settings, data_dir(settings))


def _prepare(settings: Settings, root: Path) -> None:
    if embedded(settings):
        new = hashlib.sha256(f"{time.time_ns()}{os.getpid()}".encode()).hexdigest()[:6]
        create(root, incarnation=new, map_bytes=settings.bus.map_size_mb << 20)
        if boot.unclean(root):
            boot.recover(root)
        boot.opened(root, settings.bus.durability)
    else:
        from mendstream.adapters.bus.kafka import topics

        (root / "run").mkdir(parents=True, exist_ok=True)
        topics.make(cluster_of(settings), settings.run.partitions)
    catalogue = Catalogue(models_dir(settings).absolute())
    if settings.models.initial:
        catalogue.import_dir(Path(settings.models.initial))
    with contextlib.closing(open_bus(settings)) as bus:
        set_clock(root, _newest_us(bus))
        if bus.bounds(CONFIG)[1] == 0:
            bus.publish([Out(CONFIG, encode_block([_first_config(catalogue, bus.incarnation, bus.now_us())]), 1)])


def close(settings: Settings, bus: HouseBus) -> None:
    """The house has ended, and nobody writes any more."""
    bus.sync()
    bus.close()
    if embedded(settings):
        boot.closed(data_dir(settings))


def _newest_us(bus: Bus) -> int:
    """The latest stamp in the log, as far as the streams tell that grow all the time; 0 in a new one."""
    newest = 0
    for stream in (Stream(Topic.AGENT_METRICS, 0), Stream(Topic.AGENT_METRICS, 1), Stream(Topic.INCIDENT_LOG, 0)):
        end = bus.bounds(stream)[1]
        for block in bus.read(stream, max(0, end - 1), max_rows=1, max_bytes=1 << 20):
            newest = max(newest, block.at_us)
    return newest


def _first_config(catalogue: Catalogue, incarnation: str, now: int) -> ConfigChange:
    """Which model is live from the first event on; none, and the fallback serves until one is promoted."""
    changes: dict[str, Any] = {}
    versions = catalogue.versions()
    if versions:
        card = catalogue.fetch(versions[0])
        changes = {"model_version": card.version, "model_digest": card.digest}
    return ConfigChange(
        id=f"{incarnation}/init/0/1", base_version=0, changes=changes, actor="init", reason="first start", at_us=now
    )


class Readable(Protocol):
    """The part of a bus, or of a log, that it takes to read a stream."""

    def bounds(self, stream: Stream) -> tuple[Position, Position]: ...
    def read(self, stream: Stream, position: Position, *, max_rows: int, max_bytes: int) -> list[Block]: ...


def current_config(bus: Readable) -> LiveConfig:
    """The knobs as the log has them now."""
    config, position = LiveConfig(), bus.bounds(CONFIG)[0]
    while blocks := bus.read(CONFIG, position, max_rows=5000, max_bytes=4 << 20):
        for block in blocks:
            for record in decode_each(Topic.CONFIG_UPDATES, bytes(block.value)):
                if isinstance(record, ConfigChange):
                    config, _ = fold(config, record)
            position = block.next
    return config
