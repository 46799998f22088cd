"""Planted bugs of healing, governance, config and watching."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec

from mendstream.agents.healing import agent, chain, due, effects, inbox, nodes, proposing
from mendstream.agents.healing import log as healing_log
from mendstream.agents.healing.playbooks import proofs
from mendstream.agents.healing.playbooks.base import Draft, Found, Measure
from mendstream.agents.healing.playbooks.base import Finding as Proof
from mendstream.agents.healing.state import Act, Incident
from mendstream.agents.healing.turn import Turn
from mendstream.agents.monitoring.detectors.liveness import Liveness
from mendstream.agents.monitoring.view import Finding, PaneView
from mendstream.agents.monitoring.watch import ProcessSeen, Watch
from mendstream.agents.policy import agent as policy
from mendstream.agents.policy.agent import PolicyAgent
from mendstream.agents.policy.engine import Facts
from mendstream.agents.policy.state import PolicyState
from mendstream.chaos.plan import Injection, Plan
from mendstream.contracts.agent import Batch, Outputs
from mendstream.contracts.incident import Phase
from mendstream.contracts.knobs import Fold, LiveConfig, fold
from mendstream.contracts.ports import TaskCommit
from mendstream.contracts.records import ActionKind, ConfigChange, IncidentStep, Verdict
from mendstream.runtime import leg, supervision
from mendstream.runtime.leg import Leg
from mendstream.simulation.bugs.base import Bug, Patch, replaced
from mendstream.simulation.dice import Dice
from mendstream.simulation.log import SimLog
from mendstream.simulation.machine import SimWorld

# --- plans that lead to the seam -------------------------------------------------------------------------------------


def _plan(
    name: str, draw: Callable[[random.Random], tuple[Injection, ...]], chaos_ms: int = 8_000, **settings: Any
) -> Callable[[int], Plan]:
    """seed -> the plan that is drawn with it. In names of settings a double underscore stands for the dot."""
    held = {key.replace("__", "."): value for key, value in settings.items()}

    def make(seed: int) -> Plan:
        injections = draw(Dice(seed).of(f"bug {name}"))
        return Plan(seed=seed, name=name, settings=held, injections=injections, chaos_ms=chaos_ms)

    return make


def _dead(dice: random.Random) -> tuple[Injection, ...]:
    return (_hit("dead-agent", dice.choice(("model-0", "decision-0")), dice.randrange(2_000)),)


def _hit(fault: str, target: str, at_ms: int, for_ms: int | None = None, point: str = "") -> Injection:
    return Injection(fault=fault, params={"target": target}, at_ms=at_ms, for_ms=for_ms, point=point)


def _interrupted(step: str) -> Callable[[random.Random], tuple[Injection, ...]]:
    """Healing dies just after it has written that step; a process of the pipeline had died before."""

    def draw(dice: random.Random) -> tuple[Injection, ...]:
        return (*_dead(dice), _hit("dead-agent", "healing-0", 0, point=f"done:step:{step}"))

    return draw


def _two_ills(dice: random.Random) -> tuple[Injection, ...]:
    """A bad model, and a slow one just when the first remedy is out: two incidents that want the same target."""
    slow = Injection(
        fault="slow-model", params={"call_ms": dice.uniform(350.0, 450.0)}, for_ms=9_000, point="done:step:execution"
    )
    return (Injection(fault="bad-model"), slow)


def _slow(dice: random.Random) -> tuple[Injection, ...]:
    return (Injection(fault="slow-model", params={"call_ms": 400.0}, at_ms=dice.randrange(1_000), for_ms=7_000),)


def _drift(dice: random.Random) -> tuple[Injection, ...]:
    return (Injection(fault="drift", at_ms=dice.randrange(500), for_ms=11_000),)


def _many_deaths(dice: random.Random) -> tuple[Injection, ...]:
    """One process again and again, and the policy in between."""
    deaths = [_hit("dead-agent", "model-0", 6_000 * n + dice.randrange(500)) for n in range(6)]
    return (*deaths, _hit("dead-agent", "policy-0", 10_000 + dice.randrange(6_000)))


def _stands_still(dice: random.Random) -> tuple[Injection, ...]:
    return (_hit("paused-agent", "decision-0", dice.randrange(3_000, 4_000), 10_000),)


def _hung(dice: random.Random) -> tuple[Injection, ...]:
    return (_hit("paused-agent", dice.choice(("judge-0", "healing-0")), dice.randrange(1_000), 28_000),)


def _bad(dice: random.Random) -> tuple[Injection, ...]:
    return (Injection(fault="bad-model", at_ms=dice.randrange(500)),)


def _no_faults(dice: random.Random) -> tuple[Injection, ...]:
    return ()


def _twice_owned(dice: random.Random) -> tuple[Injection, ...]:
    return (_hit("double", dice.choice(("model-0", "decision-0")), dice.randrange(2_000)),)


# --- healing ---------------------------------------------------------------------------------------------------------


def _skips_a_phase() -> AbstractContextManager[None]:
    def go(turn: Turn, incident: Incident, to: Phase) -> None:
        healing_log.go(turn, incident, to)
        if to is Phase.APPROVED:
            incident.phase = Phase.EXECUTING

    return replaced(proposing, "go", go)


def _holds_nothing() -> AbstractContextManager[None]:
    return replaced(due, "held", lambda incident, turn: frozenset())


def _missing_is_good() -> AbstractContextManager[None]:
    return replaced(proofs, "missing", lambda watch, turn: "")


def _forgets_the_undo() -> AbstractContextManager[None]:
    return replaced(Act, "in_force", property(lambda act: False))


@contextmanager
def _on_resume(then: Callable[[Turn, Incident], None]) -> Iterator[None]:
    """What a new owner of healing's task does with each incident before anything else."""
    real = inbox.fold

    def patched(turn: Turn, batch: Batch) -> None:
        if batch.resumed:
            for incident in turn.state.incidents.values():
                then(turn, incident)
        real(turn, batch)

    with replaced(inbox, "fold", patched):
        yield


def _chooses_again(turn: Turn, incident: Incident) -> None:
    if incident.phase is Phase.PLANNED:
        incident.phase, incident.acts = Phase.LOGGED, []
        incident.attempt += 1


def _orders_again(turn: Turn, incident: Incident) -> None:
    if incident.phase in (Phase.EXECUTING, Phase.VERIFYING) and incident.act.action.kind is ActionKind.RESTART:
        effects.publish_command(turn, incident, incident.act.approved or incident.act.action)


def _forgets_the_way_back() -> AbstractContextManager[None]:
    def retire(turn: Turn, incident: Incident) -> None:
        del turn.state.incidents[incident.key]

    return replaced(agent, "retire", retire)


@contextmanager
def _waits_for_no_gate() -> Iterator[None]:
    real = due.finding

    def finding(incident: Incident, turn: Turn) -> Proof:
        if incident.act.action.kind is ActionKind.SHADOW:
            return Proof(Found.PROVEN, "it was trained, was it not", {})
        return real(incident, turn)

    with replaced(due, "finding", finding), replaced(nodes, "finding", finding):
        yield


# --- governance ------------------------------------------------------------------------------------------------------


def _acts_unasked() -> AbstractContextManager[None]:
    real = proposing.propose

    def propose(turn: Turn, incident: Incident, measure: Measure, draft: Draft) -> None:
        real(turn, incident, measure, draft)
        incident.act.approved = incident.act.action
        healing_log.go(turn, incident, Phase.APPROVED)

    return replaced(proposing, "propose", propose)


def _does_more() -> AbstractContextManager[None]:
    real = effects.changes

    def changes(action: Any, config: LiveConfig) -> dict[str, Any]:
        found = real(action, config)
        return found | {"decision_threshold": 0.4} if found else found

    return replaced(effects, "changes", changes)


def _policy(also: Callable[[PolicyState, Batch, Outputs], None]) -> Patch:
    """`also` comes before the policy's step with empty outputs, and after it."""

    def patch() -> AbstractContextManager[None]:
        real = PolicyAgent.step

        def step(self: PolicyAgent, state: PolicyState, batch: Batch, now: int) -> tuple[PolicyState, Outputs]:
            also(state, batch, Outputs(batch.turn))
            state, outputs = real(self, state, batch, now)
            also(state, batch, outputs)
            return state, outputs

        return replaced(PolicyAgent, "step", step)

    return patch


def _leaves_open(state: PolicyState, batch: Batch, outputs: Outputs) -> None:
    outputs.records[:] = [
        held for held in outputs.records if not (isinstance(held, Verdict) and held.action.kind is ActionKind.RESTART)
    ]


def _counts_anew(state: PolicyState, batch: Batch, outputs: Outputs) -> None:
    if batch.resumed:
        state.deeds.clear()


@contextmanager
def _no_budget() -> Iterator[None]:
    """Neither side counts the actions of an hour."""
    real: Callable[..., Facts] = vars(policy)["facts_of"]

    def facts_of(*given: Any) -> Facts:
        facts = real(*given)
        return facts | {"house": {**facts["house"], "actions_1h": 0}}

    with replaced(proposing, "spent", lambda turn: False), replaced(policy, "facts_of", facts_of):
        yield


def _edits_the_record() -> AbstractContextManager[None]:
    real = chain.seal

    def seal(step: IncidentStep) -> IncidentStep:
        return msgspec.structs.replace(real(step), text=step.text.upper())

    return replaced(chain, "seal", seal)


def _starts_a_new_chain() -> AbstractContextManager[None]:
    def forget(turn: Turn, incident: Incident) -> None:
        turn.state.seq, turn.state.hash = 0, ""

    return _on_resume(forget)


# --- config and owners -----------------------------------------------------------------------------------------------


def _no_fence() -> AbstractContextManager[None]:
    def check(self: SimLog, commit: TaskCommit) -> None:
        """Whoever comes may write."""

    return replaced(SimLog, "_check", check)


def _counts_on() -> AbstractContextManager[None]:
    real = effects._send

    def send(turn: Turn, *given: Any) -> None:
        turn.base += 1
        real(turn, *given)

    return replaced(effects, "_send", send)


def _begins_without_config() -> AbstractContextManager[None]:
    real = Leg._restore

    def restore(self: Leg, *given: Any) -> tuple[LiveConfig, Any]:
        return LiveConfig(), real(self, *given)[1]

    return replaced(Leg, "_restore", restore)


def _overlooks_a_knob() -> AbstractContextManager[None]:
    def folded(config: LiveConfig, change: ConfigChange) -> tuple[LiveConfig, Fold]:
        changes = {name: value for name, value in change.changes.items() if name != "excluded_models"}
        return fold(config, msgspec.structs.replace(change, changes=changes))

    return replaced(leg, "fold", folded)


# --- watching --------------------------------------------------------------------------------------------------------


def _an_end_is_no_illness() -> AbstractContextManager[None]:
    real = Liveness._ill

    def ill(self: Liveness, name: str, process: ProcessSeen, view: PaneView, now: int) -> Finding | None:
        return None if process.exit_code is not None else real(self, name, process, view, now)

    return replaced(Liveness, "_ill", ill)


def _only_heartbeats() -> AbstractContextManager[None]:
    return replaced(Watch, "stall_us", lambda watch, task: 0)


def _hears_the_heart_only() -> AbstractContextManager[None]:
    return replaced(supervision, "BEAT_US", 0)


def _tells_no_turns() -> AbstractContextManager[None]:
    real = SimWorld.beat

    def beat(self: SimWorld, turn_us: int) -> None:
        real(self, 0)

    return replaced(SimWorld, "beat", beat)


def _blames_who_waits() -> AbstractContextManager[None]:
    return replaced(Watch, "explained", lambda watch, task, stall_us, pressure_rows: False)


def _hears_in_another_unit() -> AbstractContextManager[None]:
    real = Watch.silence_us
    return replaced(Watch, "silence_us", lambda watch, process: 20 * real(watch, process))


BUGS: tuple[Bug, ...] = (
    Bug("skips a phase", "legal moves only", "A yes leads straight into execution, past the table of moves.",
        _skips_a_phase, _plan("a death", _dead)),
    Bug("holds nothing", "one remedy per target", "An incident that acts does not keep others from its target.",
        _holds_nothing, _plan("two ills", _two_ills, 24_000)),
    Bug("missing data is good data", "resolved means proven", "A proof asks for no events at all.", _missing_is_good,
        _plan("a death", _dead)),
    Bug("forgets the undo", "harm is undone", "What did not help stays in force.", _forgets_the_undo,
        _plan("drift", _drift, 12_000)),
    Bug("chooses again", "chosen once", "A new owner of healing's task plans anew what was already proposed.",
        lambda: _on_resume(_chooses_again), _plan("interrupted", _interrupted("planning"))),
    Bug("orders again", "chosen once", "A new owner of healing's task orders again what was already ordered.",
        lambda: _on_resume(_orders_again), _plan("interrupted", _interrupted("execution"))),
    Bug("waits for no gate", "promoted through the gate", "A new model is promoted as soon as it is in the shadow.",
        _waits_for_no_gate, _plan("promotion", _drift, 20_000, ingestion__rate=150.0)),
    Bug("forgets the way back", "the house becomes well", "SAFE_MODE is entered and never left.",
        _forgets_the_way_back, _plan("a slow model", _slow)),
    Bug("acts unasked", "approved before done", "It is carried out before anybody has answered.", _acts_unasked,
        _plan("a death", _dead)),
    Bug("does more", "approved before done", "Along with what was approved another knob is set.", _does_more,
        _plan("a bad model", _bad, 12_000)),
    Bug("leaves questions open", "every proposal is answered", "The policy does not answer what it is asked.",
        _policy(_leaves_open), _plan("a death", _dead, 12_000)),
    Bug("counts per process", "budgets hold", "A new owner of the policy's task has forgotten what was done.",
        _policy(_counts_anew), _plan("many deaths", _many_deaths, 36_000)),
    Bug("no hourly budget", "budgets hold", "Nobody counts the actions of an hour.", _no_budget,
        _plan("many deaths", _many_deaths, 14_000, healing__actions_per_hour=1)),
    Bug("edits the record", "the audit chain verifies", "A step is changed after it was hashed.", _edits_the_record,
        _plan("a death", _dead)),
    Bug("starts a new chain", "the audit chain verifies", "A new owner of healing's task begins a chain of its own.",
        _starts_a_new_chain, _plan("interrupted", _interrupted("planning"))),
    Bug("no fence", "epochs only grow", "The log takes commits from an owner that was replaced.", _no_fence,
        _plan("twice owned", _twice_owned)),
    Bug("counts on", "config versions grow by one", "A change builds on a version that is not there.", _counts_on,
        _plan("a bad model", _bad, 12_000)),
    Bug("begins without config", "config reaches everybody", "A new owner of a task forgets the config that it had.",
        _begins_without_config, _plan("a death", _dead)),
    Bug("overlooks a knob", "config replays", "Tasks take a change for applied and leave a part of it out.",
        _overlooks_a_knob, _plan("a bad model", _bad, 12_000)),
    Bug("an end is no illness", "dead is reported", "The judge takes no notice of an exit.", _an_end_is_no_illness,
        _plan("a death", _dead)),
    Bug("only heartbeats", "stuck is reported", "Who gives signs of life is taken for well.", _only_heartbeats,
        _plan("stands still", _stands_still, 12_000)),
    Bug("blames who waits", "a healthy target never", "A stage that waits for a later one is taken for stuck.",
        _blames_who_waits, _plan("stands still", _stands_still, 12_000, bus__max_backlog=20)),
    Bug("hears the heart only", "hung is ended", "Who gives signs of life is taken for well by the supervisor too.",
        _hears_the_heart_only, _plan("hung", _hung, 29_000)),
    Bug("tells no turns", "a healthy target never", "A control process does not tell when a new turn begins.",
        _tells_no_turns, _plan("no faults", _no_faults, 22_000)),
    Bug("hears in another unit", "nothing without a fault", "Silence is measured in another unit.",
        _hears_in_another_unit, _plan("no faults", _no_faults)),
)  # fmt: skip
