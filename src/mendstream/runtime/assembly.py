"""The only place that knows both wings: settings and a place in the roster in, drivers or a sink out."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mendstream import __version__
from mendstream.contracts.agent import Agent, TaskId
from mendstream.contracts.errors import ModelError, SettingsError
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.pipeline import Pipeline
from mendstream.contracts.ports import Sink
from mendstream.contracts.topics import Stream, Topic, source_place
from mendstream.runtime.driver import Driver, Observe, Trace
from mendstream.runtime.faults import Faults
from mendstream.runtime.fetch import ModelFetch
from mendstream.runtime.leg import Leg, Ready
from mendstream.runtime.roster import ROLE_OF, Place, agents_of, tasks_of
from mendstream.runtime.world import Loader, World
from mendstream.settings import Settings


def load_pipeline(settings: Settings) -> Pipeline:
    """The object that `pipeline` names; raises SettingsError if it is not one."""
    module, _, name = settings.pipeline.partition(":")
    if not module or not name:
        raise SettingsError(
            f"pipeline = {settings.pipeline!r} names no pipeline",
            hint='set pipeline = "module:object" in mendstream.toml; `mendstream init` writes a start',
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"pipeline = {settings.pipeline!r}: {error}", hint="it is imported from the working folder, as Python does"
        ) from error
    if not isinstance(found, Pipeline):
        raise SettingsError(f"{settings.pipeline} is a {type(found).__name__}, not a mendstream.Pipeline")
    return found


# --- one process ---------------------------------------------------------------------------------------------------


class Parts:
    """What one process runs: drivers of its tasks, or one sink."""

    def __init__(
        self, settings: Settings, place: Place, world: World, observe: Observe, trace: Trace | None = None
    ) -> None:
        self.settings = settings
        self.place = place
        self.world = world
        self.role = ROLE_OF[place.role]
        self.bus = world.bus(self.role.wing)
        self.faults = Faults(self.bus, enabled=settings.chaos.enabled)
        self.models: Loader | None = None
        self.sink: Sink | None = None
        self.drivers: dict[int, Driver] = {}
        self._observe = observe
        self._trace = trace
        self._pipeline: Pipeline | None = None

    @property
    def pipeline(self) -> Pipeline:
        if self._pipeline is None:
            self._pipeline = load_pipeline(self.settings)
        return self._pipeline

    def open_sink(self) -> None:
        """What a sink imports can take seconds: the process gives its signs of life meanwhile."""
        if not self.role.agents:
            self.sink = self.world.sink(self.place.role, self.bus)

    def own(self, partitions: tuple[int, ...]) -> bool:
        """Run the tasks of just these partitions from now on; True if that is a change."""
        if set(partitions) == set(self.drivers):
            return False
        for gone in set(self.drivers) - set(partitions):
            del self.drivers[gone]
        for partition in partitions:
            if partition not in self.drivers:
                self.drivers[partition] = self._driver(partition)
        return True

    def let_go(self, partition: int) -> None:
        """Another process owns it now."""
        self.drivers.pop(partition).close()

    def _driver(self, partition: int) -> Driver:
        legs = [self._leg(agent, partition) for agent in agents_of(self.place.role, self.settings.run.partitions)]
        return Driver(
            self.bus,
            self.world.clock,
            legs,
            stopwatch=self.world.stopwatch,
            pressure=self._pressure(legs[-1], partition),
            observe=self._observe,
            linger_us=int(self.settings.ingestion.linger_ms * 1000),
            trace=self._trace,
        )

    def _leg(self, name: str, partition: int) -> Leg:
        agent = self._agent(name)
        fetch = self._fetch_of(name)
        leg = Leg(
            self.bus,
            agent,
            partition,
            self.role.wing,
            marks=self.world.marks(name, partition),
            source=self.world.source(self.faults.regime) if name == "ingestion" else None,
            source_place=source_place(self.settings.ingestion.source),
            ready=fetch.ready if fetch is not None else self._ready(name),
            max_rows=self.settings.bus.max_batch_rows,
            code_version=__version__,
        )
        if fetch is not None:
            fetch.served_last = lambda: (leg.state.version, leg.state.digest)
        return leg

    def _fetch_of(self, name: str) -> ModelFetch | None:
        return ModelFetch(self.loaded_models(), self.world) if name == "model" else None

    def _pressure(self, last: Leg, partition: int) -> Callable[[], bool]:
        """Whether the stage behind the last leg has more than `bus.max_backlog` rows to read."""
        following = {"ingestion": ("feature", Topic.RAW_EVENTS), "feature": ("model", Topic.FEATURES),
                     "model": ("decision", Topic.PREDICTIONS)}.get(last.agent.name)  # fmt: skip
        if following is None:
            return lambda: False
        count = self.settings.run.partitions
        places = range(count) if last.agent.name == "ingestion" else (partition,)
        watched = [(TaskId(following[0], p), Stream(following[1], p)) for p in places]

        def pressed() -> bool:
            return any(
                self.bus.waiting(stream, self.bus.position(task, stream) or 0) > self.settings.bus.max_backlog
                for task, stream in watched
            )

        return pressed

    def _ready(self, agent: str) -> Ready:
        if agent in ("judge", "healing"):
            return self._fetch_cards
        return lambda config: True

    def _fetch_cards(self, config: LiveConfig) -> bool:
        for version in {config.model_version, config.shadow_version} - {""}:
            try:
                self.world.cards.fetch(version)
            except ModelError:
                continue  # no card, no reference: the judge says so in its vitals by having no drift rows
        return True

    def loaded_models(self) -> Loader:
        if self.models is None:
            self.models = self.world.models()
        return self.models

    # --- agents --------------------------------------------------------------------------------------

    def _agent(self, name: str) -> Agent[Any]:
        settings = self.settings
        match name:
            case "ingestion":
                from mendstream.agents.pipeline.ingestion import IngestionAgent, Limits

                s = settings.ingestion
                limits = Limits(s.max_record_bytes, s.max_ahead_s * 1_000_000, s.max_age_s * 1_000_000, s.dedupe_window)
                return IngestionAgent(self.pipeline, partitions=settings.run.partitions, limits=limits)
            case "feature":
                from mendstream.agents.pipeline.feature import FeatureAgent

                return FeatureAgent(self.pipeline)
            case "model":
                from mendstream.agents.pipeline.model import ModelAgent

                return ModelAgent(self.pipeline, self.faults.around(self.loaded_models(), self.world.sleep))
            case "decision":
                from mendstream.agents.pipeline.decision import DecisionAgent

                return DecisionAgent(self.pipeline)
            case "joiner":
                from mendstream.agents.monitoring.joiner import JoinerAgent

                return JoinerAgent(label_ttl_us=settings.monitoring.label_ttl_s * 1_000_000)
            case "judge":
                return self._judge()
            case "healing":
                return self._healing()
            case "policy":
                return self._policy()
        raise SettingsError(f"there is no agent {name!r}", hint=f"agents: {', '.join(ROLE_OF)}")

    def _judge(self) -> Agent[Any]:
        from mendstream.agents.monitoring.judge import JudgeAgent
        from mendstream.agents.monitoring.settings import JudgeSettings

        s = self.settings
        return JudgeAgent(
            settings=JudgeSettings(
                slo_ms=s.slo.latency_ms,
                accuracy_floor=s.slo.accuracy,
                rules=s.monitoring.rules,
                false_alarm_s=s.monitoring.arl_hours * 3600,
                season_us=int(s.monitoring.season_s * 1e6),
                drift_min_n=s.monitoring.season_events,
                pressure_rows=min(2000, s.bus.max_backlog),
                label_ttl_us=s.monitoring.label_ttl_s * 1_000_000,
                pipeline=tasks_of(partitions=s.run.partitions),
            ),
            cards=self.world.cards,
        )

    def _healing(self) -> Agent[Any]:
        from mendstream.agents.healing.agent import HealingAgent
        from mendstream.agents.healing.params import HealingParams

        s = self.settings.healing
        return HealingAgent(
            params=HealingParams(
                proof_us=int(s.proof_s * 1e6),
                proof_events=s.proof_events,
                proof_labels=s.proof_labels,
                release_after_us=int(s.release_after_s * 1e6),
                actions_per_hour=s.actions_per_hour,
                ask_timeout_us=s.person_timeout_s * 1_000_000,
            )
        )

    def _policy(self) -> Agent[Any]:
        from mendstream.agents.policy import PolicyAgent, PolicySettings, load_policies, shipped_policies
        from mendstream.agents.policy.policies import shipped

        if self.settings.policy.dir:
            files = sorted(Path(self.settings.policy.dir).glob("*.cedar"))
            policies = load_policies({path.name: path.read_text() for path in files}, shipped()[1])
        else:
            policies = shipped_policies()
        return PolicyAgent(
            policies=policies,
            settings=PolicySettings(
                modes=self.settings.policy.modes,
                restarts_per_10min=self.settings.policy.restarts_per_10min,
                actions_per_hour=self.settings.healing.actions_per_hour,
            ),
        )

    def close(self) -> None:
        if self.sink is not None:
            self.sink.close()
        for driver in self.drivers.values():
            driver.close()
        self.bus.close()
