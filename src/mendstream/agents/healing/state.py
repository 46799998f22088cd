"""What healing knows: open incidents, the end of the log's chain, what was live when, baselines, memory.

Committed whole with every turn, several times a second: keep it small. Nothing outside of it may sway a choice.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mendstream.contracts.incident import Phase
from mendstream.contracts.records import Action, Alert, Closing, CommandResult, Scalar, Status, Verdict, Vitals


class Tally(msgspec.Struct, array_like=True):
    """Served events of one selection."""

    n: int = 0
    slow: int = 0
    latency_ms: float = 0.0
    labels: int = 0
    errors: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.n + other.n,
            self.slow + other.slow,
            self.latency_ms + other.latency_ms,
            self.labels + other.labels,
            self.errors + other.errors,
        )

    def __sub__(self, other: Tally) -> Tally:
        return Tally(
            self.n - other.n,
            self.slow - other.slow,
            self.latency_ms - other.latency_ms,
            self.labels - other.labels,
            self.errors - other.errors,
        )

    @property
    def slow_share(self) -> float:
        return self.slow / self.n if self.n > 0 else 0.0

    @property
    def error_share(self) -> float:
        return self.errors / self.labels if self.labels > 0 else 0.0

    @property
    def mean_ms(self) -> float:
        return self.latency_ms / self.n if self.n > 0 else 0.0


class Watch(msgspec.Struct, kw_only=True):
    """A window of serving that a proof rests on: which rows count, and since when."""

    config: int = 0
    """Only rows made by this config version or a later one."""
    model: str = ""
    """Only rows of this model; empty: of any."""
    arms: tuple[str, ...] = ("live", "fallback")
    every: bool = True
    """Visible only once every owner of a decision task has served by it."""
    processes: dict[str, int] = {}
    """Visible only once the tasks of these processes are well under a later generation."""
    tasks: tuple[str, ...] = ()
    """Tasks that those processes had."""
    speed: bool = False
    """Start the window anew while events in it are slow (a backlog that drains)."""
    visible_us: int = 0
    """Serving time at which the effect was first visible; 0: not yet."""
    since_us: int = 0
    """Start of the window."""
    served_us: int = 0
    """Serving time of the newest events in it: time without any counts for nothing."""
    n: int = 0
    """Events in the newest vitals that it counts."""
    base: dict[str, Tally] = {}
    """Per task, the totals at its start."""
    rival: Tally = msgspec.field(default_factory=Tally)
    """Totals of the serving arms at its start."""
    turns: dict[str, int] = {}
    """Committed turns of `tasks` at its start."""
    owners: dict[str, int] = {}
    """Generation that had each of the processes' tasks at its start: who comes after it has to prove itself."""
    hidden_since_us: int = 0
    """Since when another incident hides what it looks at; 0: none does."""
    hidden_us: int = 0
    """How long one did, before."""


class Handshake(msgspec.Struct, kw_only=True):
    """One change of knobs on its way: published, and then folded or to be published again."""

    at_us: int
    before: dict[str, Any] = {}
    wrote: dict[str, Any] = {}
    tries: int = 0
    stale: bool = False
    refused: str = ""
    version: int = 0
    """The config version that it made; 0: not applied (yet)."""


class Act(msgspec.Struct, kw_only=True):
    """One action of a rung, from proposal to proof."""

    action: Action
    rung: int
    plan_hash: str
    undo: Action | None
    proposals: list[str] = []
    """Ids of the proposals that are out for it."""
    proposed_at_us: int = 0
    """The newest of them."""
    verdict: str = ""
    verdict_id: str = ""
    asked_hash: str = ""
    """Plan hash of what a person is asked for: as proposed, or as the policy would have it."""
    approved: Action | None = None
    policies: tuple[str, ...] = ()
    reason: str = ""
    decided_by: str = ""
    executed_at_us: int | None = None
    done_at_us: int = 0
    """When its target answered, or its change was folded."""
    change: Handshake | None = None
    answer: CommandResult | None = None
    by_other: bool = False
    """Its target says that somebody else had done it already."""
    result: Literal["SUCCESS", "FAIL"] | None = None
    undo_change: Handshake | None = None
    undone: bool = False
    undo_result: Literal["SUCCESS", "FAIL"] | None = None

    @property
    def in_force(self) -> bool:
        """It changed knobs, or may still do so, and nobody has taken that back."""
        change = self.change
        return change is not None and not change.refused and not self.undone


class WayBack(msgspec.Struct, kw_only=True):
    """Of an ended incident whose hold of SAFE_MODE is still on: what the probes say."""

    status: Status
    wait_us: int
    resolved_at_us: int | None
    outcome: str
    calls0: int = -1
    """Probe calls before the hold; -1: not yet known."""
    calls: int = 0
    slow: int = 0
    quiet_since_us: int = 0
    """Serving time since which no probe was slow."""
    last_call_us: int = 0


class Incident(msgspec.Struct, kw_only=True):
    """One open incident, or the way back of an ended one (`back`)."""

    incident_id: str
    kind: str
    subject: str
    alert: Alert
    """The newest FIRING alert of its own kind."""
    detected_at_us: int
    opened_at_us: int
    phase: Phase
    since_us: int
    """When it came into this phase."""
    firing: list[str] = []
    """Alerts of its own kind that are firing."""
    symptoms: dict[str, Alert] = {}
    """Firing alerts of another kind that it explains."""
    acted: bool = False
    rung: int = 1
    attempt: int = 1
    n: int = 0
    """Which measure of the rung is the present one, or the next to be proposed."""
    targets: tuple[str, ...] = ()
    acts: list[Act] = []
    """Of the present rung."""
    act_done: bool = False
    """The measure before is done; measure `n` waits to be proposed."""
    tried: list[str] = []
    after_undo: Literal["next", "escalate", "fail"] = "next"
    watch: Watch | None = None
    recovery: Watch | None = None
    verdicts: list[Verdict] = []
    """Not yet read."""
    closing: Closing | None = None
    cause: str = ""
    outcome: str = ""
    resolved_at_us: int | None = None
    snapshot: dict[str, Scalar] = {}
    features: dict[str, float] = {}
    before: Tally = msgspec.field(default_factory=Tally)
    """What was served just before the present action, by which the guard tells "worse"."""
    backlog: int = 0
    """What waited then."""
    rate: float = 0.0
    """Decisions per second when it was opened."""
    error_level: float | None = None
    """Error share before the fault; None: not known."""
    tasks: tuple[str, ...] = ()
    """AGENT_DOWN: the tasks that the process had."""
    back: WayBack | None = None

    @property
    def key(self) -> str:
        """Its place in the table: a way back lives beside the incident that it follows."""
        return f"{self.incident_id}#back" if self.back else self.incident_id

    @property
    def act(self) -> Act:
        """The present action."""
        return self.acts[-1]

    @property
    def in_force(self) -> bool:
        """Any change of knobs of the present rung that nobody has taken back."""
        return any(act.in_force for act in self.acts)


class LiveVersion(msgspec.Struct, array_like=True):
    """A model went live."""

    version: int
    model: str
    digest: str
    at_us: int


class Mark(msgspec.Struct, array_like=True):
    """Totals of the serving arms at the end of one pane."""

    until_us: int
    total: Tally


class Baseline(msgspec.Struct):
    """(labels, errors) per live model in healthy times; the newest seconds wait, for a fault is noticed late."""

    aged: dict[str, tuple[int, int]] = {}
    fresh: list[tuple[int, str, int, int]] = []
    """(serving time, model, labels, errors)"""
    seen: dict[str, tuple[int, int]] = {}
    """Totals in the newest vitals."""


class Case(msgspec.Struct, array_like=True):
    """What is remembered of an ended incident."""

    incident_id: str
    incident_type: str
    cause: str
    action_taken: str
    outcome: str
    mttr_seconds: float | None
    features: dict[str, float]


class HealingState(msgspec.Struct):
    incidents: dict[str, Incident] = {}
    ended: list[Incident] = []
    """Ended so lately that a consequence may still fire."""
    seq: int = 0
    hash: str = ""
    config_version: int = 0
    """As folded from the records that were read."""
    history: list[LiveVersion] = []
    changed_at_us: int = 0
    """Newest config change by anybody but healing."""
    resumed_us: int = 0
    """When its present owner began."""
    vitals: Vitals | None = None
    pane: dict[str, Tally] = {}
    """Per task, what was served between the newest vitals and those before."""
    marks: list[Mark] = []
    baseline: Baseline = msgspec.field(default_factory=Baseline)
    cases: list[Case] = []
    orphans: dict[str, tuple[int, Alert]] = {}
    """Symptoms whose cause has ended: (when they become an incident, alert)."""
    alerts_done: list[str] = []
    """Alerts that may not open an incident any more."""
    acted_at_us: list[int] = []
    """Actions of the last hour."""
    counters: dict[str, int] = {}

    def count(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1
