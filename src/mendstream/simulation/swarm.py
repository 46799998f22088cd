"""A seed in, a plan out: which faults, when, on whom, how awkward the machine is. Each seed leaves most kinds out."""

from __future__ import annotations

import random
from typing import Any

from mendstream.chaos.plan import Injection, Plan
from mendstream.contracts.records import Scalar
from mendstream.runtime.roster import places
from mendstream.simulation import directed
from mendstream.simulation.dice import Dice
from mendstream.simulation.faults import FAULTS, SimFault

CHAOS_MS = 8_000
_WEIGHTS = [fault.weight for fault in FAULTS]
_MODES: tuple[dict[str, str], ...] = (
    {}, {}, {"RESTART": "ask", "SAFE_MODE_ON": "ask"}, {"RESTART": "ask"}, {"SAFE_MODE_ON": "ask", "ROLLBACK": "ask"},
    {"SAFE_MODE_OFF": "ask"},
    {"RETRAIN": "ask", "PROMOTE": "ask"}, {"RESTART": "observe"}, {"SET_THRESHOLD": "observe"}, {"RETRAIN": "observe"},
)  # fmt: skip
"""How much the policy may decide alone."""
_TOPICS = ("features", "predictions", "alerts", "config-updates", "policy-decisions", "vitals")


def plan_of(seed: int) -> Plan:
    if seed % 3 == 0:  # a third of the seeds goes to the moments that dice rarely hit
        return directed.plan_of(directed.DIRECTED[seed // 3 % len(directed.DIRECTED)], seed)
    dice = Dice(seed).of("swarm")
    settings = _settings(dice)
    targets = _targets(settings)
    kinds = [dice.choices(FAULTS, _WEIGHTS)[0] for _ in range(dice.randint(1, 3))]
    injections = [_injection(dice, dice.choice(kinds), targets) for _ in range(dice.randint(1, 4))]
    return Plan(
        seed=seed, settings=settings, habits=_habits(dice), people=_people(dice), chaos_ms=CHAOS_MS,
        injections=tuple(sorted(injections, key=lambda held: held.at_ms)),
    )  # fmt: skip


def _settings(dice: random.Random) -> dict[str, Any]:
    """Awkward ones among them: a batch of one row, a queue of one."""
    return {
        "run.fuse": dice.random() < 0.5,
        "run.partitions": dice.choice((1, 1, 1, 2)),
        "bus.durability": dice.choice(("process", "power")),
        "bus.max_batch_rows": dice.choice((2000, 2000, 2000, 7)),
        "bus.max_backlog": dice.choice((5000, 5000, 20)),
        "models.trainer": dice.choice(("resident", "on-demand")),
        "policy.modes": dice.choice(_MODES),
        "policy.restarts_per_10min": dice.choice((3, 3, 3, 1, 0)),
        "healing.actions_per_hour": dice.choice((30, 30, 30, 8)),
        "healing.person_timeout_s": dice.choice((3600, 3)),
    }


def _targets(settings: dict[str, Any]) -> list[str]:
    found = places(fuse=settings["run.fuse"], partitions=settings["run.partitions"], replicas={}, trainer=False)
    return [place.process for place in found]


def _injection(dice: random.Random, fault: SimFault, targets: list[str]) -> Injection:
    params: dict[str, Scalar] = {}
    if "target" in fault.params:
        params["target"] = dice.choice(targets)
    match fault.name:
        case "open-transaction":
            params["topic"] = dice.choice(_TOPICS)
        case "clock-jump":
            params["by_ms"] = dice.choice((-1, 1)) * dice.choice((200, 3_000, 60_000, 3_600_000))
        case "slow-model":
            params["call_ms"] = dice.choice((200.0, 350.0, 900.0))
        case "commit-late" | "commit-orphaned":
            params["delay_ms"] = dice.choice((1, 300, 700, 2_500))
    at_ms = dice.randrange(CHAOS_MS)
    return Injection(
        fault=fault.name, params=params, at_ms=at_ms,
        for_ms=None if fault.take is None else dice.randrange(100, CHAOS_MS - at_ms + 101),
    )  # fmt: skip


def _habits(dice: random.Random) -> dict[str, Any]:
    return {"latency_us": dice.choice(((30, 400), (30, 400), (1_000, 8_000)))}


def _people(dice: random.Random) -> dict[str, Any]:
    found = {"yes": dice.choice((0.0, 0.8, 1.0)), "away": dice.random() < 0.2}
    if dice.random() < 0.2:  # later than the house may wait, and to what is not asked any more
        found |= {"blind": True, "answer_us": dice.choice((1_500_000, 6_000_000))}
    if dice.random() < 0.2:
        found["closing"] = dice.choice((0.1, 0.5))
    return found
