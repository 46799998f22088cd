"""Plans for the moments that dice rarely hit: one function a moment, a seed in, a plan out."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from mendstream.chaos.plan import Injection, Plan
from mendstream.contracts.agent import STAGES
from mendstream.contracts.records import Scalar
from mendstream.simulation.dice import Dice

STEPS = ("detection", "logging", "planning", "approval", "execution", "verification", "memory")
CAUSES = (
    Injection(fault="slow-model", for_ms=4_000),
    Injection(fault="bad-model"),
    Injection(fault="dead-agent", params={"target": "model-0"}),
    Injection(fault="dead-agent", params={"target": "feature-0"}),
    Injection(fault="drift", for_ms=9_000),
    Injection(fault="stuck-agent", params={"target": "decision-0"}, for_ms=6_000),
)
"""Faults that begin an incident, for what then happens to the incident."""
_SLOWLY_US = 20_000_000
"""So long people take who come too late."""
_NO_INTERIM: tuple[dict[str, str], ...] = ({}, {"SET_THRESHOLD": "observe"})
"""With the threshold as it was nothing is in force yet when a training fails."""
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
    """Healing is killed before or after the commit of one of the seven steps, whoever decides."""
    moment = dice.choice(("sent", "done"))
    cause = dice.choice(CAUSES)
    return _plan(
        "crash in a step", dice, cause,
        *(
            Injection(fault="dead-agent", params={"target": "healing-0"}, point=f"{moment}:step:{step}")
            for step in dice.sample(STEPS, k=dice.choice((1, 1, 2)))
        ),
        policy__modes=dice.choice(({}, {"RESTART": "ask", "SAFE_MODE_ON": "ask", "ROLLBACK": "ask"})),
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
        chaos_ms=14_000, policy__modes=dice.choice(_NO_INTERIM),
    )  # fmt: skip


def trainer_dies(dice: random.Random) -> Plan:
    """The trainer dies between the model and its answer."""
    return _plan(
        "trainer dies", dice, Injection(fault="drift"),
        Injection(fault="dead-agent", params={"target": "trainer-0"},
                  point=dice.choice(("sent:trainer-0", "done:trainer-0"))),
        chaos_ms=14_000, policy__modes=dice.choice(_NO_INTERIM),
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


def closed_early(dice: random.Random) -> Plan:
    """A person closes what is only logged, then only planned, in force, being done, and being proven."""
    target: dict[str, Scalar] = {"target": dice.choice(("model-0", "decision-0"))}
    slow = [
        Injection(fault="slow-model", at_ms=at_ms, for_ms=dice.randrange(2_000, 3_000))
        for at_ms in (100, 8_100, 17_100)
    ]
    return _plan(
        "closed early", dice, *slow,
        Injection(fault="pause-healing", for_ms=4_000),
        Injection(fault="close-by-hand", point="done:step:logging", at_ms=200),
        Injection(fault="open-transaction", params={"topic": "policy-requests"}, at_ms=8_000, for_ms=5_000),
        Injection(fault="close-by-hand", point="done:step:planning", at_ms=8_200),
        Injection(fault="close-by-hand", point="done:step:execution", at_ms=17_200),
        Injection(fault="dead-agent", params=target, at_ms=26_000),
        Injection(fault="close-by-hand", point="done:step:execution", at_ms=25_900),
        Injection(fault="dead-agent", params=target, at_ms=29_000),
        Injection(fault="close-by-hand", at_ms=30_500),
        chaos_ms=31_000,
    )  # fmt: skip


def well_by_itself(dice: random.Random) -> Plan:
    """It passes before anybody acts: while healing is paused, while the policy hears nothing, while people think."""
    begins = (100, 13_000, 26_000)
    slow = [Injection(fault="slow-model", at_ms=at_ms, for_ms=dice.randrange(1_500, 2_500)) for at_ms in begins]
    plan = _plan(
        "well by itself", dice, *slow,
        Injection(fault="pause-healing", for_ms=11_000),
        Injection(fault="open-transaction", params={"topic": "policy-requests"}, at_ms=12_900, for_ms=11_000),
        chaos_ms=38_000, policy__modes={"SAFE_MODE_ON": "ask"},
    )  # fmt: skip
    return msgspec.structs.replace(plan, people={"answer_us": _SLOWLY_US})


def well_without_help(dice: random.Random) -> Plan:
    """Nothing may be done, and it is over before anybody has come."""
    plan = _plan(
        "well without help", dice, Injection(fault="slow-model", for_ms=dice.randrange(2_000, 4_000)),
        policy__modes={"SAFE_MODE_ON": "observe", "RESTART": "observe"},
    )  # fmt: skip
    return msgspec.structs.replace(plan, people={"answer_us": _SLOWLY_US})


def hung_control(dice: random.Random) -> Plan:
    """The work of a control process stands still for long, its heart beats on; and something is ill meanwhile."""
    target = dice.choice(("joiner-0", "judge-0", "policy-0", "healing-0"))
    return _plan(
        "hung control", dice,
        Injection(fault="paused-agent", params={"target": target}, at_ms=dice.randrange(1_000), for_ms=28_000),
        msgspec.structs.replace(dice.choice(CAUSES), at_ms=dice.randrange(26_000)), chaos_ms=29_000,
    )  # fmt: skip


def said_no(dice: random.Random) -> Plan:
    """People are asked about everything, and want nothing of it; healing may die when it hears so."""
    death = Injection(fault="dead-agent", params={"target": "healing-0"}, point="sent:step:approval")
    plan = _plan(
        "said no", dice, dice.choice((CAUSES[0], CAUSES[2], CAUSES[3])), *([death] if dice.random() < 0.5 else []),
        policy__modes={"SAFE_MODE_ON": "ask", "RESTART": "ask"},
    )  # fmt: skip
    return msgspec.structs.replace(plan, people={"yes": 0.0})


def closed_while_asked(dice: random.Random) -> Plan:
    """People who are asked close the incident instead."""
    plan = _plan(
        "closed while asked", dice, dice.choice((CAUSES[0], CAUSES[2], CAUSES[3])),
        policy__modes={"SAFE_MODE_ON": "ask", "RESTART": "ask"},
    )  # fmt: skip
    return msgspec.structs.replace(plan, people={"answer_us": _SLOWLY_US, "closing": dice.choice((0.3, 1.0))})


def late_policy(dice: random.Random) -> Plan:
    """A proposal reaches the policy when it has expired, and its incident with it."""
    return _plan(
        "late policy", dice, dice.choice((CAUSES[0], CAUSES[2], CAUSES[3])),
        Injection(fault="open-transaction", params={"topic": "policy-requests"}, for_ms=dice.randrange(17_000, 20_000)),
        chaos_ms=22_000,
    )  # fmt: skip


def half_granted(dice: random.Random) -> Plan:
    """The policy grants less of the first measure than was asked for, and refuses the second: the first is undone."""
    return _half_a_remedy("half granted", dice, policy__modes={"RETRAIN": "observe"})


def half_answered(dice: random.Random) -> Plan:
    """So it does, and asks a person about the second, who says no, or nothing."""
    timeout_s = dice.choice((3, 3600))
    return _half_a_remedy(
        "half answered", dice, 20_000, policy__modes={"RETRAIN": "ask"}, healing__person_timeout_s=timeout_s
    )  # fmt: skip


def half_paid(dice: random.Random) -> Plan:
    """The budget of actions ends with the first measure."""
    return _half_a_remedy("half paid", dice, healing__actions_per_hour=1)


def _half_a_remedy(name: str, dice: random.Random, chaos_ms: int = 15_000, **settings: Any) -> Plan:
    plan = _plan(
        name, dice, Injection(fault="low-threshold", params={"value": dice.choice((0.25, 0.29))}),
        Injection(fault="drift", at_ms=500), chaos_ms=chaos_ms, **settings,
    )  # fmt: skip
    return msgspec.structs.replace(plan, people={"yes": 0.0, "answer_us": dice.choice((1_500_000, 6_000_000))})


def promotion(dice: random.Random) -> Plan:
    """A new version is trained, passes the gate in the shadow, and is promoted; sometimes somebody dies on the way."""
    death = Injection(
        fault="dead-agent", params={"target": dice.choice(("model-0", "healing-0", "judge-0", "joiner-0"))},
        at_ms=dice.randrange(10_000, 28_000),
    )  # fmt: skip
    deaths = [death] if dice.random() < 0.5 else []
    return _plan(
        "promotion", dice, Injection(fault="drift", at_ms=9_000), *deaths, chaos_ms=29_000, ingestion__rate=150.0,
    )  # fmt: skip


def nothing(dice: random.Random) -> Plan:
    """Nothing happens, and nobody may cry wolf."""
    return _plan("nothing", dice, run__fuse=dice.random() < 0.5, run__partitions=dice.choice((1, 2)))


DIRECTED: tuple[Draw, ...] = (
    crash_before_the_answer, crash_in_a_step, policy_down, healing_and_more, two_supervisors, late_verdict,
    late_config, rollback_and_promotion, second_incident, full_disk_in_training, trainer_dies, clock_in_proof,
    lock_holder, hidden_records, replaced_owner, split_owners, older_copy, closed_early, well_by_itself,
    well_without_help, hung_control, said_no, closed_while_asked,
    late_policy, half_granted, half_answered, half_paid, promotion, nothing,
)  # fmt: skip


def plan_of(draw: Draw, seed: int) -> Plan:
    return msgspec.structs.replace(draw(Dice(seed).of("directed")), seed=seed)
