"""A seed in, a plan out: which faults, when, on whom, how awkward the machine is. Each seed leaves most kinds out."""

from __future__ import annotations

import random
from typing import Any

from mendstream.chaos.plan import Injection, Plan
from mendstream.contracts.records import Scalar
from mendstream.runtime.roster import places
from mendstream.simulation.dice import Dice
from mendstream.simulation.faults import FAULTS, SimFault

CHAOS_MS = 8_000


def plan_of(seed: int) -> Plan:
    dice = Dice(seed).of("swarm")
    settings = _settings(dice)
    targets = _targets(settings)
    kinds = dice.sample(FAULTS, k=dice.randint(1, 3))
    injections = [_injection(dice, dice.choice(kinds), targets) for _ in range(dice.randint(1, 4))]
    return Plan(
        seed=seed, settings=settings, habits=_habits(dice), people=_people(dice), chaos_ms=CHAOS_MS,
        injections=tuple(sorted(injections, key=lambda held: held.at_ms)),
    )  # fmt: skip


def _settings(dice: random.Random) -> dict[str, Any]:
    return {"run.fuse": dice.random() < 0.5, "run.partitions": dice.choice((1, 1, 2))}


def _targets(settings: dict[str, Any]) -> list[str]:
    found = places(fuse=settings["run.fuse"], partitions=settings["run.partitions"], replicas={}, trainer=False)
    return [place.process for place in found]


def _injection(dice: random.Random, fault: SimFault, targets: list[str]) -> Injection:
    params: dict[str, Scalar] = {}
    if "target" in fault.params:
        params["target"] = dice.choice(targets)
    at_ms = dice.randrange(CHAOS_MS)
    return Injection(
        fault=fault.name, params=params, at_ms=at_ms,
        for_ms=None if fault.take is None else dice.randrange(100, CHAOS_MS - at_ms + 101),
    )  # fmt: skip


def _habits(dice: random.Random) -> dict[str, Any]:
    return {"latency_us": dice.choice(((30, 400), (30, 400), (1_000, 8_000)))}


def _people(dice: random.Random) -> dict[str, Any]:
    return {"yes": dice.choice((0.0, 0.8, 1.0)), "away": dice.random() < 0.2}
