"""Who is ill is reported soon, and nobody else ever is."""

from __future__ import annotations

from mendstream.contracts.records import Alert, AlertKind, AlertState, Command, CommandResult, ConfigChange
from mendstream.contracts.topics import Topic
from mendstream.runtime.roster import ROLE_OF
from mendstream.simulation.health import LATELY_US, Ended
from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.invariants.folded import Folded
from mendstream.simulation.log import Append
from mendstream.simulation.machine import SUPERVISOR, Machine
from mendstream.simulation.story import Story

_SETTLED_US = 1_000_000
"""Who has been well for so long has caught up."""


class _Reports(Folded):
    """Base of those that wait for an AGENT_DOWN."""

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._down: dict[str, dict[str, int]] = {}
        """process -> alert_id -> generation, of what fires"""
        self._fired: dict[str, tuple[int, int]] = {}
        """process -> (when it was last reported, generation)"""

    def told(self, append: Append) -> None:
        if append.stream.topic is not Topic.ALERTS:
            return
        for alert in append.records:
            if not isinstance(alert, Alert) or alert.kind is not AlertKind.AGENT_DOWN:
                continue
            held = self._down.setdefault(alert.subject, {})
            if alert.state is AlertState.FIRING:
                generation = alert.evidence.get("generation")
                held[alert.alert_id] = generation if isinstance(generation, int) else 0
                self._fired[alert.subject] = (self.now_us, held[alert.alert_id])
            else:
                held.pop(alert.alert_id, None)

    def watched_us(self) -> int:
        """How much of the newest look's time the watchers were able to report anything."""
        health = self.story.health
        return health.passed_us if health.well_us(SUPERVISOR, "judge-0") > _SETTLED_US else 0


class DeadReported(_Reports):
    """A dead process of the pipeline is reported within 2.5 s: else events wait, and nobody knows of it.

    The time runs while supervisor and judge are well. A new supervisor starts everybody anew, and who was started by
    hand beside the house does the work of the dead. What the supervisor has made good by itself, it has told of itself.
    """

    name = "dead is reported"
    topics = (Topic.ALERTS, Topic.COMMAND_RESULTS)
    WITHIN_US = 2_500_000

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._read = len(story.health.deaths)
        self._pending: dict[Ended, int] = {}
        self._made_good: dict[str, int] = {}
        """process -> the newest generation that was started by the supervisor itself"""

    def told(self, append: Append) -> None:
        super().told(append)
        if append.stream.topic is Topic.COMMAND_RESULTS:
            for record in append.records:
                if isinstance(record, CommandResult) and not record.command_id:
                    self._made_good[str(record.data["target"])] = int(record.data["generation"] or 0)

    def tick(self) -> None:
        health = self.story.health
        for death in health.deaths[self._read :]:
            if death.process in health.pipeline:
                self._pending[death] = 0
        self._read = len(health.deaths)
        for death, passed in list(self._pending.items()):
            if self._reported(death) or death.at_us < health.began_us or health.doubled(death.process):
                del self._pending[death]
                continue
            self._pending[death] = passed = passed + self.watched_us()
            if passed > self.WITHIN_US:
                self.broken(
                    f"{death.process} (generation {death.generation}) died "
                    f"{(health.looked_at_us - death.at_us) / 1e6:.2f} s ago, and nobody says so"
                )

    def _reported(self, death: Ended) -> bool:
        at_us, generation = self._fired.get(death.process, (0, 0))
        known = any(held >= death.generation for held in self._down.get(death.process, {}).values())
        made_good = self._made_good.get(death.process, 0) > death.generation
        return known or made_good or (at_us >= death.at_us and generation >= death.generation)


class StuckReported(_Reports):
    """A process that stands still with rows waiting is reported within 6 s: else they wait as long as it pleases.

    The time runs while supervisor and judge are well; where two stand still, the later stage explains the earlier.
    """

    name = "stuck is reported"
    topics = (Topic.ALERTS,)
    WITHIN_US = 6_000_000

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._stuck: dict[str, int] = {}

    def tick(self) -> None:
        health = self.story.health
        stuck = [name for name in health.pipeline if health.stuck(name) and health.backlog(name)]
        reported = any(self._down.get(name) for name in stuck)
        self._stuck = {
            name: 0 if reported else self._stuck.get(name, 0) + self.watched_us() for name in stuck
        }  # fmt: skip
        for name, passed in self._stuck.items():
            if passed > self.WITHIN_US:
                self.broken(f"{name} has stood still for {passed / 1e6:.2f} s, and nobody says so")


class HungEnded(Invariant):
    """A control process whose work stands still is ended within 6 s of its longest turn: else nobody watches or heals.

    The time runs while the supervisor is well.
    """

    name = "hung is ended"
    SLACK_US = 6_000_000

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._hung: dict[str, int] = {}

    def tick(self) -> None:
        health = self.story.health
        passed = health.passed_us if health.well_us(SUPERVISOR) > _SETTLED_US else 0
        self._hung = {name: self._hung.get(name, 0) + passed for name in health.control if health.stuck(name)}
        for name, stood in self._hung.items():
            if stood > ROLE_OF[name.rpartition("-")[0]].turn_s * 1e6 + self.SLACK_US:
                self.broken(f"{name} has stood still for {stood / 1e6:.2f} s, and nobody has ended it")


class HealthyLeftAlone(Invariant):
    """A healthy process is never reported, nor ended: else the house would restart what serves well."""

    name = "a healthy target never"
    topics = (Topic.ALERTS,)

    def tick(self) -> None:
        for ended in self.story.health.unjust:
            self.broken(f"{ended.process} (generation {ended.generation}) is ended, and was well")

    def appended(self, append: Append) -> None:
        health = self.story.health
        for alert in append.records:
            if not isinstance(alert, Alert) or alert.kind is not AlertKind.AGENT_DOWN:
                continue
            if alert.state is AlertState.FIRING and not health.why(alert.subject, LATELY_US):
                self.broken(
                    f"{alert.subject} is reported ({alert.evidence.get('reason')}), and has been well for "
                    f"{health.well_us(alert.subject) / 1e6:.1f} s"
                )


class CalmQuiet(Invariant):
    """No alert and no act before the first fault, and so none in a run without: else people learn not to listen."""

    name = "nothing without a fault"
    topics = (Topic.ALERTS, Topic.COMMANDS, Topic.CONFIG_UPDATES)

    def appended(self, append: Append) -> None:
        if self.story.injected:
            return
        for record in append.records:
            if isinstance(record, Alert):
                self.broken(f"{record.kind} of {record.subject}: {record.statistic} {record.value:.4g}")
            elif isinstance(record, Command):
                self.broken(f"{record.kind} of {record.target}")
            elif isinstance(record, ConfigChange) and record.actor != "init":
                self.broken(f"{record.actor} sets {record.changes}")
