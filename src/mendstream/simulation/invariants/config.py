"""Everybody comes to have the same config, the newest, and nobody who was replaced goes on."""

from __future__ import annotations

from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import ModelError
from mendstream.contracts.knobs import Fold, LiveConfig, fold
from mendstream.contracts.ports import TaskCommit
from mendstream.contracts.records import ConfigChange, Pulse
from mendstream.contracts.topics import Topic
from mendstream.runtime.ground import current_config
from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.invariants.folded import Folded
from mendstream.simulation.log import Append
from mendstream.simulation.machine import Machine
from mendstream.simulation.models import SimCatalogue
from mendstream.simulation.story import Story

_PULSE = b'{"record":"pulse"'


class EpochsGrow(Invariant):
    """A task's epoch only grows, and only its newest owner commits: else two owners would decide the same events."""

    name = "epochs only grow"

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._epoch: dict[TaskId, int] = {}
        self._owner: dict[TaskId, tuple[str, int]] = {}

    def forgot(self) -> None:
        self._epoch = {task: held.epoch for task, held in self.machine.log.tasks.items()}
        self._owner.clear()

    def claimed(self, task: TaskId, epoch: int, process: str, generation: int) -> None:
        held = self._epoch.get(task, 0)
        if epoch <= held:
            self.broken(f"{task} goes from epoch {held} to {epoch}")
        self._epoch[task], self._owner[task] = epoch, (process, generation)

    def committed(self, commit: TaskCommit, process: str, generation: int) -> None:
        held = self._epoch.get(commit.task, 0)
        if commit.epoch != held or self._owner.get(commit.task) != (process, generation):
            self.broken(f"{process} (generation {generation}) commits {commit.task} in epoch {commit.epoch} of {held}")


class ConfigGrows(Folded):
    """Versions grow by one, and no owner of a task goes back: else nobody could say by which config it was decided."""

    name = "config versions grow by one"
    topics = (Topic.CONFIG_UPDATES, Topic.AGENT_METRICS)

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._config = LiveConfig()
        self._newest: dict[tuple[str, int], int] = {}
        """(task, epoch) -> version"""

    def told(self, append: Append) -> None:
        if append.stream.topic is Topic.CONFIG_UPDATES:
            for record in append.records:
                if isinstance(record, ConfigChange):
                    self._fold(record)
        elif append.value.startswith(_PULSE):
            for record in append.records:
                if isinstance(record, Pulse):
                    self._pulse(record)

    def _fold(self, change: ConfigChange) -> None:
        before = self._config.version
        self._config, became = fold(self._config, change)
        if self._config.version != before + (became is Fold.APPLIED):
            self.broken(f"{change.id} takes the config from version {before} to {self._config.version}")
        elif change.base_version > before:
            self.broken(f"{change.id} builds on version {change.base_version}, and the newest is {before}")

    def _pulse(self, pulse: Pulse) -> None:
        for task in pulse.tasks:
            held = self._newest.get((task.task, task.epoch), 0)
            if not held <= task.config <= self._config.version:
                self.broken(f"{task.task} has version {task.config}, after {held}, of {self._config.version}")
            self._newest[task.task, task.epoch] = task.config


class ConfigReaches(Folded):
    """Every live agent has the newest config within 5 s: else a slow or bad model goes on serving somewhere."""

    name = "config reaches everybody"
    topics = (Topic.CONFIG_UPDATES, Topic.AGENT_METRICS)
    WITHIN_US = 5_000_000

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._config = LiveConfig()
        self._since_us = machine.kernel.now_us
        self._told: dict[str, tuple[int, str]] = {}
        """process -> (lowest version, of which task) in its newest pulse"""

    def told(self, append: Append) -> None:
        if append.stream.topic is Topic.CONFIG_UPDATES:
            for record in append.records:
                if isinstance(record, ConfigChange):
                    self._config, became = fold(self._config, record)
                    if became is Fold.APPLIED:
                        self._since_us = self.now_us
        elif append.value.startswith(_PULSE):
            for record in append.records:
                if isinstance(record, Pulse):
                    low = min(((task.config, task.task) for task in record.tasks), default=(self._config.version, ""))
                    self._told[record.process] = low

    def tick(self) -> None:
        now, health = self.machine.kernel.now_us, self.story.health
        if now - self._since_us <= self.WITHIN_US:
            return
        for process, (version, task) in self._told.items():
            if version >= self._config.version or process not in health.processes:
                continue
            if health.well_us(process) > self.WITHIN_US and self._loadable():
                self.broken(
                    f"{task} has version {version}, and {self._config.version} is out for "
                    f"{(now - self._since_us) / 1e6:.1f} s"
                )

    def _loadable(self) -> bool:
        """Whether the models that the config names can be had; until then everybody keeps what it has."""
        catalogue, config = SimCatalogue(self.machine.shelf), self._config
        try:
            for version, digest in (
                (config.model_version, config.model_digest),
                (config.shadow_version, config.shadow_digest),
            ):
                if version:
                    catalogue.fetch(version)
                    catalogue.model(version, digest)
        except ModelError:
            return False
        return True


class ConfigReplays(Invariant):
    """The log from its start makes the config that every task holds: else history does not say what was live."""

    name = "config replays"

    def end(self) -> None:
        config = current_config(self.machine.log)
        for name, process in self.machine.processes.items():
            if process.work is None:
                continue
            for driver in process.work.parts.drivers.values():
                for leg in driver.legs:
                    if leg.config != config:
                        self.broken(f"{leg.task} of {name} holds {leg.config}, the log makes {config}")
