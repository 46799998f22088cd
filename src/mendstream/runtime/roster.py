"""Who is in the house: one row per role, with its wing, its port and whether it is part of the pipeline."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mendstream.contracts.agent import STAGES
from mendstream.contracts.topics import Wing

GATHER_S = 0.05
STEP_S = 20.0
"""A step is meant to take 0.1 s; the slowest known takes 2 s, healing's first one, which imports LangGraph."""
SINK_S = 600.0
"""What a sink does may take its time: a migration of a large database, a training. Nobody waits for it longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    name: str
    agents: tuple[str, ...]
    """The agents that its process runs, in order."""
    wing: Wing
    port: int | None
    """Offset of its metrics port from the base port; None: it has none."""
    pipeline: bool
    spread: bool
    """Whether it has a task per partition (else one task)."""
    doc: str
    turn_s: float = math.inf
    """After so long in one turn it is hung, and the supervisor ends it; of the pipeline the judge takes care."""
    gather_s: float = 0.0
    """How long what woke it may be joined by more before the turn, where everybody writes to it all the time."""


ROLES: tuple[Role, ...] = (
    Role(name="ingestion", agents=("ingestion",), wing=Wing.DATA, port=0, pipeline=True, spread=False,
         doc="validates what comes in, assigns id and time, partitions by key"),
    Role(name="feature", agents=("feature",), wing=Wing.DATA, port=1, pipeline=True, spread=True,
         doc="keyed windows and feature vectors"),
    Role(name="model", agents=("model",), wing=Wing.DATA, port=2, pipeline=True, spread=True,
         doc="the live model, or the rule fallback in SAFE_MODE"),
    Role(name="decision", agents=("decision",), wing=Wing.DATA, port=3, pipeline=True, spread=True,
         doc="threshold and rules: one decision per event"),
    Role(name="fused", agents=STAGES, wing=Wing.DATA, port=0, pipeline=True, spread=True,
         doc="all four stages in one process and one transaction (--fuse)"),
    Role(name="joiner", agents=("joiner",), wing=Wing.CONTROL, port=None, pipeline=False, spread=True,
         doc="monitoring: matches feedback with predictions and counts", gather_s=GATHER_S, turn_s=STEP_S),
    Role(name="judge", agents=("judge",), wing=Wing.CONTROL, port=4, pipeline=False, spread=False,
         doc="monitoring: judges the counts, raises alerts, writes vitals", gather_s=GATHER_S, turn_s=STEP_S),
    Role(name="healing", agents=("healing",), wing=Wing.CONTROL, port=5, pipeline=False, spread=False,
         doc="plans, acts, verifies, undoes, remembers", turn_s=STEP_S),
    Role(name="policy", agents=("policy",), wing=Wing.CONTROL, port=6, pipeline=False, spread=False,
         doc="the AGL: answers each proposal with a verdict", turn_s=STEP_S),
    Role(name="recorder", agents=(), wing=Wing.CONTROL, port=None, pipeline=False, spread=False,
         doc="sink: incident-log and config-updates into SQL", turn_s=SINK_S),
    Role(name="trainer", agents=(), wing=Wing.CONTROL, port=None, pipeline=False, spread=False,
         doc="sink: trains and registers models on command", turn_s=SINK_S),
)  # fmt: skip
ROLE_OF = {role.name: role for role in ROLES}


@dataclass(frozen=True, slots=True)
class Place:
    """One process of the house: a role and which of its replicas."""

    role: str
    replica: int = 0

    @property
    def process(self) -> str:
        return f"{self.role}-{self.replica}"

    @classmethod
    def of(cls, process: str) -> Place:
        """The place that `process` is named for."""
        role, _, replica = process.rpartition("-")
        return cls(role, int(replica))


def places(*, fuse: bool, partitions: int, replicas: dict[str, int], trainer: bool) -> tuple[Place, ...]:
    """The processes of a house, in the order in which they start: first what serves, then what watches and heals."""
    stages = _fused_stages(partitions) if fuse else STAGES
    found = [
        Place(role, n)
        for role in stages
        for n in range(min(replicas.get(role, 1), partitions if role != "ingestion" else 1))
    ]
    found += [Place(role) for role in ("joiner", "judge", "policy", "healing", "recorder")]
    return tuple(found + ([Place("trainer")] if trainer else []))


def _fused_stages(partitions: int) -> tuple[str, ...]:
    # Ingestion fuses only where there is one partition: with more, its one task writes to all of them.
    return ("fused",) if partitions == 1 else ("ingestion", "fused")


def agents_of(role: str, partitions: int) -> tuple[str, ...]:
    """The agents of a role's process, in order of the pipeline."""
    agents = ROLE_OF[role].agents
    return agents[1:] if role == "fused" and partitions > 1 else agents


def tasks_of(*, partitions: int) -> tuple[str, ...]:
    """The pipeline's tasks, whoever runs them."""
    return ("ingestion/0", *(f"{stage}/{p}" for stage in STAGES[1:] for p in range(partitions)))


def tasks_by_agent(partitions: int) -> dict[str, int]:
    """How many tasks each agent has; each keeps its state in the log."""
    agents = dict.fromkeys(agent for role in ROLES for agent in role.agents)
    return {agent: partitions if ROLE_OF[agent].spread else 1 for agent in agents}
