"""Plans for the moments that dice rarely hit: one function a moment, a seed in, a plan out."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from mendstream.chaos.plan import Injection, Plan
from mendstream.simulation.dice import Dice

STEPS = ("detection", "logging", "planning", "approval", "execution", "verification", "memory")
STAGES = ("ingestion", "feature", "model", "decision")
CAUSES = (
    Injection(fault="slow-model", for_ms=4_000),
    Injection(fault="bad-model"),
    Injection(fault="dead-agent", params={"target": "model-0"}),
    Injection(fault="dead-agent", params={"target": "feature-0"}),
    Injection(fault="drift", for_ms=9_000),
    Injection(fault="stuck-agent", params={"target": "decision-0"}, for_ms=6_000),
)
"""Faults that begin an incident, for what then happens to the incident."""
Draw = Callable[[random.Random], Plan]


def _plan(name: str, dice: random.Random, *injections: Injection, chaos_ms: int = 12_000, **settings: Any) -> Plan:
    return Plan(
        seed=0, name=name, injections=injections, chaos_ms=chaos_ms,
        settings={key.replace("__", "."): value for key, value in settings.items()},
        habits={"latency_us": dice.choice(((30, 400), (1_000, 8_000)))},
    )  # fmt: skip


def crash_before_the_answer(dice: random.Random) -> Plan:
    """Crash between commit sent and commit acknowledged; it arrives when somebody else may own the task."""
    stage = dice.choice(STAGES)
    fate = Injection(
        fault="commit-orphaned", params={"target": f"{stage}-0", "chance": 1.0, "delay_ms": dice.randrange(1, 1500)},
        at_ms=500, for_ms=dice.randrange(50, 400),
    )  # fmt: skip
    return _plan("crash before the answer", dice, fate)


def crash_in_a_step(dice: random.Random) -> Plan:
    """Healing is killed before or after the commit of one of the seven steps."""
    moment = dice.choice(("sent", "done"))
    cause = dice.choice(CAUSES)
    return _plan(
        "crash in a step", dice, cause,
        *(
            Injection(fault="dead-agent", params={"target": "healing-0"}, point=f"{moment}:step:{step}")
            for step in dice.sample(STEPS, k=dice.choice((1, 1, 2)))
        ),
    )  # fmt: skip


def policy_down(dice: random.Random) -> Plan:
    """The policy agent dies at the moment of a proposal, or with its verdict under way."""
    point = dice.choice(("sent:step:planning", "done:step:planning", "sent:policy-0", "done:policy-0"))
    return _plan(
        "policy down", dice, dice.choice(CAUSES),
        Injection(fault="dead-agent", params={"target": "policy-0"}, point=point, at_ms=10),
    )  # fmt: skip


def healing_and_more(dice: random.Random) -> Plan:
    """Healing dies together with whoever else is needed: supervisor, judge, policy or trainer."""
    other = dice.choice(("judge-0", "policy-0", "trainer-0", "recorder-0"))
    point = f"{dice.choice(('sent', 'done'))}:step:{dice.choice(STEPS)}"
    both = [Injection(fault="dead-agent", params={"target": name}, point=point) for name in (other, "healing-0")]
    if dice.random() < 0.3:
        both = [Injection(fault="dead-supervisor", point=point)]
    return _plan("healing and more", dice, dice.choice(CAUSES), *both)


def two_supervisors(dice: random.Random) -> Plan:
    """Another supervisor takes over while a restart is under way."""
    return _plan(
        "two supervisors", dice, dice.choice(CAUSES),
        Injection(fault="second-supervisor", point=f"{dice.choice(('sent', 'done'))}:step:execution"),
    )  # fmt: skip


def late_verdict(dice: random.Random) -> Plan:
    """A person closes the incident while a verdict, or a retraining, is under way."""
    return _plan(
        "late verdict", dice, dice.choice(CAUSES),
        Injection(fault="paused-agent", params={"target": "policy-0"}, at_ms=0, for_ms=dice.randrange(1_000, 6_000)),
        Injection(fault="close-by-hand", at_ms=dice.randrange(500, 6_000)),
    )  # fmt: skip


def late_config(dice: random.Random) -> Plan:
    """A change of config reaches one owner and not the other."""
    target = dice.choice(("model-0", "decision-0"))
    return _plan(
        "late config", dice, dice.choice((CAUSES[0], CAUSES[1])),
        Injection(fault=dice.choice(("cut-off", "paused-agent")), params={"target": target},
                  point="done:step:execution", for_ms=dice.randrange(500, 5_000)),
        run__partitions=dice.choice((1, 2)),
    )  # fmt: skip


def rollback_and_promotion(dice: random.Random) -> Plan:
    """A person promotes while healing rolls back."""
    moment = dice.choice(("sent:step:execution", "done:step:planning", "done:step:execution", "sent:step:verification"))
    return _plan(
        "rollback and promotion", dice, CAUSES[1],
        Injection(fault=dice.choice(("bad-model", "promote-by-hand")), point=moment),
    )  # fmt: skip


def second_incident(dice: random.Random) -> Plan:
    """Another kind of incident on a target that is under repair."""
    first, second = dice.sample(CAUSES, k=2)
    later = Injection(fault=second.fault, params=second.params, for_ms=second.for_ms,
                      point=f"done:step:{dice.choice(('execution', 'planning', 'verification'))}")  # fmt: skip
    return _plan("second incident", dice, first, later, chaos_ms=15_000)


def full_disk_in_training(dice: random.Random) -> Plan:
    """The disk fills while a model is trained."""
    return _plan(
        "full disk in training", dice, Injection(fault="drift"), Injection(fault="slow-training"),
        Injection(fault=dice.choice(("full-disk", "torn-add")), at_ms=dice.randrange(2_000, 9_000), for_ms=2_000),
        chaos_ms=14_000,
    )  # fmt: skip


def trainer_dies(dice: random.Random) -> Plan:
    """The trainer dies between the model and its answer."""
    return _plan(
        "trainer dies", dice, Injection(fault="drift"),
        Injection(fault="dead-agent", params={"target": "trainer-0"},
                  point=dice.choice(("sent:trainer-0", "done:trainer-0"))),
        chaos_ms=14_000,
    )  # fmt: skip


def clock_in_proof(dice: random.Random) -> Plan:
    """The clock jumps during a verification, and somebody starts after it; sometimes the whole house."""
    by = dice.choice((-1, 1)) * dice.choice((500, 5_000, 60_000, 3_600_000))
    return _plan(
        "clock in proof", dice, dice.choice(CAUSES),
        Injection(fault="clock-jump", params={"by_ms": by}, point="done:step:execution"),
        dice.choice(
            (
                Injection(fault="dead-agent", params={"target": "healing-0"}, point="done:step:execution"),
                Injection(fault="dead-agent", params={"target": "judge-0"}, point="done:step:execution"),
                Injection(fault="dead-agent", params={"target": "model-0"}, point="done:step:execution"),
                Injection(fault="dead-supervisor", point="done:step:execution"),
            )
        ),
    )  # fmt: skip


def lock_holder(dice: random.Random) -> Plan:
    """A process is stopped while it holds the write lock."""
    target = dice.choice((*(f"{stage}-0" for stage in STAGES), "judge-0", "healing-0", "recorder-0"))
    stopped = Injection(fault="stopped-with-lock", params={"target": target}, at_ms=dice.randrange(3_000))
    return _plan("lock holder", dice, stopped)


def hidden_records(dice: random.Random) -> Plan:
    """An open transaction hides what comes after it."""
    topic = dice.choice(("features", "predictions", "alerts", "config-updates", "policy-decisions", "vitals"))
    return _plan(
        "hidden records", dice, dice.choice(CAUSES),
        Injection(fault="open-transaction", params={"topic": topic}, at_ms=dice.randrange(3_000),
                  for_ms=dice.randrange(300, 5_000)),
    )  # fmt: skip


def replaced_owner(dice: random.Random) -> Plan:
    """An owner that was replaced wakes and takes a turn: with work, idle, or by its timer."""
    target = dice.choice((*(f"{stage}-0" for stage in STAGES), "judge-0", "healing-0", "policy-0", "joiner-0"))
    return _plan(
        "replaced owner", dice,
        Injection(fault="paused-agent", params={"target": target}, at_ms=1_000, for_ms=dice.randrange(500, 3_000)),
        Injection(fault="double", params={"target": target}, at_ms=dice.randrange(1_000, 2_000)),
    )  # fmt: skip


def split_owners(dice: random.Random) -> Plan:
    """Replicas take over each other's partitions, some of an agent's tasks here and some there."""
    stage = dice.choice(("feature", "model", "decision"))
    faults = [
        Injection(fault=dice.choice(("dead-agent", "paused-agent", "cut-off")), at_ms=dice.randrange(4_000),
                  params={"target": f"{stage}-{dice.choice((0, 1))}"}, for_ms=dice.randrange(300, 3_000))
        for _ in range(dice.choice((1, 2, 3)))
    ]  # fmt: skip
    return _plan("split owners", dice, *faults, run__partitions=3, run__replicas={stage: 2})


def older_copy(dice: random.Random) -> Plan:
    """The power fails in a house of durability `process`: the log is an older copy of itself."""
    return _plan(
        "older copy", dice, dice.choice(CAUSES), Injection(fault="power-cut", at_ms=dice.randrange(500, 8_000)),
        bus__durability=dice.choice(("process", "power")),
    )  # fmt: skip


def nothing(dice: random.Random) -> Plan:
    """Nothing happens, and nobody may cry wolf."""
    return _plan("nothing", dice, run__fuse=dice.random() < 0.5, run__partitions=dice.choice((1, 2)))


DIRECTED: tuple[Draw, ...] = (
    crash_before_the_answer, crash_in_a_step, policy_down, healing_and_more, two_supervisors, late_verdict,
    late_config, rollback_and_promotion, second_incident, full_disk_in_training, trainer_dies, clock_in_proof,
    lock_holder, hidden_records, replaced_owner, split_owners, older_copy, nothing,
)  # fmt: skip


def plan_of(draw: Draw, seed: int) -> Plan:
    return msgspec.structs.replace(draw(Dice(seed).of("directed")), seed=seed)
