"""The live machine as one process sees it: LMDB log, files, threads, wall clock, and the sinks that touch the world."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mendstream.adapters.bus.marks import MappedMarks
from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.sources import open_source
from mendstream.contracts.ports import Bus, Sink, Source, StepMarks
from mendstream.contracts.topics import Topic, Wing
from mendstream.runtime import aside
from mendstream.runtime.assignment import read_assignment
from mendstream.runtime.beat import Beat
from mendstream.runtime.clock import HouseClock
from mendstream.runtime.ground import cluster_of, data_dir, open_bus
from mendstream.runtime.roster import Place, agents_of
from mendstream.settings import Settings, mlflow_uri, models_dir, store_url

if TYPE_CHECKING:  # only a process with a model needs ONNX Runtime
    from mendstream.adapters.bus.kafka.members import Members
    from mendstream.adapters.models.onnx import LoadedModels

LEADS = {
    "feature": Topic.RAW_EVENTS,
    "model": Topic.FEATURES,
    "decision": Topic.PREDICTIONS,
    "fused": Topic.RAW_EVENTS,
    "joiner": Topic.PREDICTIONS,
    # Topics of one partition: who is given it works, and the others stand by.
    "ingestion": Topic.CONFIG_UPDATES,
    "judge": Topic.VITALS,
    "healing": Topic.ALERTS,
    "policy": Topic.POLICY_REQUESTS,
}
"""By whose partitions the work of a role is shared."""
REGISTER_AFTER_S = 20.0
"""MLflow's first contact stays clear of a retraining and of the proof that follows it."""


class LocalWorld:
    """`runtime.world.World`."""

    def __init__(self, settings: Settings, place: Place) -> None:
        self._settings = settings
        self._place = place
        self._root = data_dir(settings)
        self.clock = HouseClock(self._root)
        self.pid = os.getpid()
        self.cards = Catalogue(models_dir(settings).absolute())

    def bus(self, wing: Wing) -> Bus:
        chain = agents_of(self._place.role, self._settings.run.partitions)
        return open_bus(self._settings, wing, chain=chain if len(chain) > 1 else ())

    def models(self) -> LoadedModels:
        from mendstream.adapters.models.onnx import LoadedModels

        return LoadedModels(self.cards)

    def marks(self, agent: str, partition: int) -> StepMarks:
        return MappedMarks(self._root / "run" / f"step-{agent}-{partition}")

    def source(self, regime: Callable[[], str]) -> Source:
        return open_source(self._settings, self.clock, regime)

    def sink(self, role: str, bus: Bus) -> Sink:
        return self._recorder(bus) if role == "recorder" else self._trainer(bus)

    def stopwatch(self) -> float:
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def memory_mb(self) -> float:
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
        except OSError:  # no /proc (macOS): the peak, which getrusage knows everywhere
            import resource

            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def beat(self, turn_us: int) -> None:
        self._beat.beat(self.clock.now_us(), turn_us)

    @cached_property
    def _beat(self) -> Beat:
        return Beat(self._root / "run" / f"beat-{self._place.process}")

    def assigned(self) -> Sequence[int] | None:
        if self._settings.run.assignment == "group":
            return self._members.partitions
        return read_assignment(self._root).get(self._place.process)

    @cached_property
    def _members(self) -> Members:
        from mendstream.adapters.bus.kafka.members import Members

        return Members(cluster_of(self._settings), self._place.role, self._place.process, LEADS[self._place.role])

    def aside(self, name: str, work: Callable[[], None]) -> Callable[[], bool]:
        return aside.once(name, work)

    def every(self, name: str, seconds: float, work: Callable[[], None]) -> Callable[[], None]:
        thread = aside.Every(name, seconds, work)
        thread.start()
        return thread.stop

    # --- sinks -------------------------------------------------------------------------------------------------------

    def _recorder(self, bus: Bus) -> Sink:
        from mendstream.adapters.store.recorder import Recorder

        return Recorder(bus, store_url(self._settings), known=self._root / "run" / "store")

    def _trainer(self, bus: Bus) -> Sink:
        from mendstream.adapters.models.apart import LearnerApart, RegistryApart, Turn
        from mendstream.adapters.models.registrar import Background, LiveModel, Registrar
        from mendstream.adapters.models.trainer import Trainer
        from mendstream.runtime.assembly import load_pipeline

        uri = mlflow_uri(self._settings) if self._settings.models.mlflow_uri else ""
        turn = Turn()
        registry = RegistryApart(turn, self._root, uri=uri, name=load_pipeline(self._settings).name)
        models, live = Catalogue(self.cards.directory), LiveModel(bus).versions
        registrar = Registrar(registry, models, self.clock, live, quiet_s=REGISTER_AFTER_S)
        Background(registrar).start()
        return Trainer(
            bus,
            self.cards,
            LearnerApart(turn),
            self.clock,
            stopwatch=self.stopwatch,
            partitions=self._settings.run.partitions,
            seed=self._settings.run.seed,
            trouble=lambda: registrar.trouble,
        )
