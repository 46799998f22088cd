"""Nothing is done that nobody allowed, every question has its answer, and what was done stays on record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mendstream.contracts.hashes import plan_hash, step_hash
from mendstream.contracts.knobs import LiveConfig, fold
from mendstream.contracts.records import (
    Action,
    ActionKind,
    Command,
    CommandKind,
    CommandResult,
    ConfigChange,
    IncidentStep,
    Outcome,
    Proposal,
    Verdict,
    VerdictKind,
)
from mendstream.contracts.topics import Topic
from mendstream.simulation.invariants.folded import Folded
from mendstream.simulation.log import Append
from mendstream.simulation.machine import Machine
from mendstream.simulation.story import Story

_YES = (VerdictKind.APPROVED, VerdictKind.MODIFIED)
_POLICY = "policy"
_TEN_MINUTES_US = 600_000_000
_HOUR_US = 3_600_000_000


class Approvals:
    """Verdicts by what they answer, in the order of the log."""

    def __init__(self) -> None:
        self.by_id: dict[str, Verdict] = {}
        self.of_action: dict[str, list[Verdict]] = {}

    def fold(self, append: Append) -> None:
        if append.stream.topic is Topic.POLICY_DECISIONS:
            for record in append.records:
                if isinstance(record, Verdict):
                    self.by_id[record.id] = record
                    self.of_action.setdefault(record.action_id, []).append(record)

    def unfit(self, verdict: Verdict, proposal: Proposal | None) -> str:
        """Why `verdict` allows nothing, or an empty string."""
        if verdict.verdict not in _YES:
            return f"its verdict is {verdict.verdict}"
        if proposal is None:
            return "its verdict answers no proposal"
        wanted, granted = proposal.action, verdict.action
        if verdict.plan_hash != plan_hash(granted):
            return "the hash of its verdict is of another plan"
        if (granted.id, granted.kind, granted.target) != (wanted.id, wanted.kind, wanted.target):
            return "its verdict is about something else"
        asked = [held for held in self.of_action[granted.id] if held.verdict is VerdictKind.ESCALATED]
        if verdict.actor != _POLICY and not asked:
            return f"{verdict.actor} was never asked"
        known = {proposal.plan_hash, *(held.plan_hash for held in asked)}
        if verdict.verdict is VerdictKind.APPROVED and verdict.plan_hash not in known:
            return "its verdict approves a plan that nobody proposed"
        return ""


class Approved(Folded):
    """No act without an earlier, valid, matching approval: else the house would do to itself what nobody allowed.

    Undos go under the approval that named them; what operators force is marked so; the first config comes from `init`.
    """

    name = "approved before done"
    topics = (Topic.POLICY_DECISIONS, Topic.POLICY_REQUESTS, Topic.COMMANDS, Topic.CONFIG_UPDATES)

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._approvals = Approvals()
        self._proposals: dict[str, Proposal] = {}
        self._config = LiveConfig()
        self._done: set[str] = set()
        """Ids of actions that were put out."""

    def told(self, append: Append) -> None:
        self._approvals.fold(append)
        match append.stream.topic:
            case Topic.POLICY_REQUESTS:
                self._proposals |= {held.id: held for held in append.records if isinstance(held, Proposal)}
            case Topic.COMMANDS:
                for record in append.records:
                    if isinstance(record, Command):
                        self._command(record)
            case Topic.CONFIG_UPDATES:
                for record in append.records:
                    if isinstance(record, ConfigChange):
                        self._change(record)
                        self._config, _ = fold(self._config, record)

    def _command(self, command: Command) -> None:
        why = "nobody has answered its proposal"
        for verdict in self._approvals.of_action.get(command.action_id, ()):
            why = self._unfit(verdict, command.at_us) or _other_order(command, verdict.action)
            if not why:
                self._done.add(command.action_id)
                return
        self.broken(f"{command.kind} of {command.target} ({command.action_id}) is ordered: {why}")

    def _change(self, change: ConfigChange) -> None:
        if change.actor != "healing":
            if change.actor == "init":
                if self._config.version or change.base_version:
                    self.broken(f"{change.id} is a first config on top of version {self._config.version}")
            elif not change.forced:
                self.broken(
                    f"{change.id}: {change.actor} changes {sorted(change.changes)} and does not say that by force"
                )
            return
        why = self._healed(change)
        if why:
            self.broken(f"{change.changes} is set ({change.action_id}): {why}")
        self._done.add(change.action_id or "")

    def _healed(self, change: ConfigChange) -> str:
        """What is wrong with a change by healing."""
        verdict = self._approvals.by_id.get(change.approval or "")
        if verdict is None:
            return "it names no verdict"
        proposal = self._proposals.get(verdict.proposal_id)
        if change.action_id == verdict.action_id:
            again = change.action_id in self._done
            why = self._unfit(verdict, 0 if again else change.at_us)
        else:
            if proposal is None or proposal.undo is None or proposal.undo.id != change.action_id:
                return "its verdict is about something else"
            if proposal.action.id not in self._done:
                return "it undoes what was never done"
            return self._approvals.unfit(verdict, proposal)
        if why or change.base_version != self._config.version:  # a stale one changes nothing
            return why
        return _other_change(change.changes, verdict.action, self._config)

    def _unfit(self, verdict: Verdict, at_us: int) -> str:
        if verdict.expires_at_us <= at_us:
            return f"its verdict expired {(at_us - verdict.expires_at_us) / 1e6:.3f} s ago"
        return self._approvals.unfit(verdict, self._proposals.get(verdict.proposal_id))


def _other_order(command: Command, granted: Action) -> str:
    """In what an order differs from what was granted."""
    if (command.kind, command.target) != (CommandKind(granted.kind.value), granted.target):
        return f"{granted.kind} of {granted.target} was granted"
    if command.params != granted.params or command.generation != granted.params.get("generation"):
        return f"it was granted with {granted.params}"
    return ""


def _other_change(changes: dict[str, Any], granted: Action, config: LiveConfig) -> str:
    """In what a change differs from what was granted."""
    params = granted.params
    wanted: dict[str, Any]
    match granted.kind:
        case ActionKind.SAFE_MODE_ON:
            wanted = {"safe_mode": {*config.safe_mode, params["holder"]}}
        case ActionKind.SAFE_MODE_OFF:
            wanted = {"safe_mode": {*config.safe_mode} - {params["holder"]}}
        case ActionKind.SET_THRESHOLD:
            wanted = {"decision_threshold": params["value"]}
        case ActionKind.SHADOW:
            wanted = {"shadow_version": params["version"], "shadow_digest": params["digest"]}
        case ActionKind.ROLLBACK:
            wanted = {
                "model_version": params["version"], "model_digest": params["digest"],
                "excluded_models": {*config.excluded_models, params["bad_version"]},
            }  # fmt: skip
        case ActionKind.PROMOTE:
            wanted = {
                "model_version": params["version"], "model_digest": params["digest"], "shadow_version": "",
                "shadow_digest": "",
            }  # fmt: skip
            if params.get("threshold") is not None:
                wanted["decision_threshold"] = params["threshold"]
        case _:
            return f"{granted.kind} was granted, which sets nothing"
    set_to = {name: set(value) if isinstance(value, list) else value for name, value in changes.items()}
    return "" if set_to == wanted else f"{granted.kind} was granted, which sets {wanted}"


class Answered(Folded):
    """Every proposal is answered, or its incident says why not: else a fault goes on while everybody waits."""

    name = "every proposal is answered"
    topics = (Topic.POLICY_REQUESTS, Topic.POLICY_DECISIONS, Topic.INCIDENT_LOG)
    WITHIN_US = 3_000_000
    """Of the policy's healthy life."""
    SAID_WITHIN_US = 25_000_000
    """Of healing's: it asks twice, 15 s in all."""

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._waiting: dict[str, list[int]] = {}
        """proposal -> [healthy time of the policy, of healing] that has passed since"""
        self._incident: dict[str, str] = {}

    def told(self, append: Append) -> None:
        match append.stream.topic:
            case Topic.POLICY_REQUESTS:
                for record in append.records:
                    if isinstance(record, Proposal):
                        self._waiting[record.id] = [0, 0]
                        self._incident[record.id] = record.incident_id
            case Topic.POLICY_DECISIONS:
                for record in append.records:
                    if isinstance(record, Verdict):
                        self._waiting.pop(record.proposal_id, None)
            case Topic.INCIDENT_LOG if self._waiting:
                moved = {record.incident.incident_id for record in append.records if isinstance(record, IncidentStep)}
                for proposal, times in self._waiting.items():
                    if self._incident[proposal] in moved:
                        times[1] = 0

    def tick(self) -> None:
        health = self.story.health
        for proposal, times in self._waiting.items():
            for place, name in enumerate(("policy-0", "healing-0")):
                times[place] += health.passed_us if health.well_us(name) >= health.passed_us else 0
            if times[0] > self.WITHIN_US:
                self.broken(f"{proposal} has no verdict after {times[0] / 1e6:.1f} s of a healthy policy")
            last = self.story.cases[self._incident[proposal]].last
            if times[1] > self.SAID_WITHIN_US and last.phase == "PLANNED":
                self.broken(f"{proposal} has no verdict, and {last.incident.incident_id} does not say why")


class Chain(Folded):
    """The incident log is chained by hashes without a gap: else what was done could be denied afterwards."""

    name = "the audit chain verifies"
    topics = (Topic.INCIDENT_LOG,)

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._seq, self._hash = 0, ""

    def told(self, append: Append) -> None:
        if append.stream.topic is not Topic.INCIDENT_LOG:
            return
        for step in append.records:
            if not isinstance(step, IncidentStep):
                continue
            if step.seq != self._seq or step.prev_hash != self._hash:
                self.broken(f"step {step.seq} of {step.incident.incident_id} does not follow step {self._seq - 1}")
            elif step.hash != step_hash(step):
                self.broken(f"step {step.seq} of {step.incident.incident_id} is not what its hash says")
            self._seq, self._hash = step.seq + 1, step.hash


class Budgets(Folded):
    """Budgets hold, whoever was restarted meanwhile: else a confused house would do harm without an end.

    Restarts of one target in 10 minutes, and actions in an hour; what a person allowed goes beyond them.
    """

    name = "budgets hold"
    topics = (Topic.POLICY_DECISIONS, Topic.COMMANDS, Topic.COMMAND_RESULTS, Topic.CONFIG_UPDATES)

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._approvals = Approvals()
        self._restarts: dict[str, tuple[str, int]] = {}
        """action -> (target, when)"""
        self._actions: dict[str, int] = {}
        """action -> when it was first put out"""

    def told(self, append: Append) -> None:
        self._approvals.fold(append)
        match append.stream.topic:
            case Topic.COMMANDS:
                for record in append.records:
                    if isinstance(record, Command):
                        self._act(record.action_id, self.now_us)
                        if record.kind is CommandKind.RESTART and record.action_id not in self._restarts:
                            self._restart(record, self.now_us)
            case Topic.COMMAND_RESULTS:
                for record in append.records:
                    if isinstance(record, CommandResult) and record.outcome is Outcome.REFUSED:
                        self._restarts.pop(record.action_id, None)  # nothing was done
            case Topic.CONFIG_UPDATES:
                for record in append.records:
                    if isinstance(record, ConfigChange) and record.actor == "healing":
                        verdict = self._approvals.by_id.get(record.approval or "")
                        if verdict is not None and verdict.action_id == record.action_id:
                            self._act(record.action_id, self.now_us)

    def _restart(self, command: Command, now: int) -> None:
        limit = self.machine.settings.policy.restarts_per_10min
        done = sum(target == command.target and now - at < _TEN_MINUTES_US for target, at in self._restarts.values())
        if done >= limit and not self._person(command.action_id):
            self.broken(f"restart {done + 1} of {command.target} within 10 minutes, the limit is {limit}")
        self._restarts[command.action_id] = (command.target, now)

    def _act(self, action_id: str, now: int) -> None:
        if action_id in self._actions:
            return
        limit = self.machine.settings.healing.actions_per_hour
        done = sum(now - at < _HOUR_US for at in self._actions.values())
        if done >= limit and not self._person(action_id):
            self.broken(f"{action_id} is action {done + 1} within an hour, the limit is {limit}")
        self._actions[action_id] = now

    def _person(self, action_id: str) -> bool:
        return any(verdict.actor != _POLICY for verdict in self._yes(action_id))

    def _yes(self, action_id: str) -> Iterator[Verdict]:
        return (held for held in self._approvals.of_action.get(action_id, ()) if held.verdict in _YES)
