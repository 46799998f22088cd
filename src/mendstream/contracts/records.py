"""One frozen type per kind of control record; a record's type names its topic. Times are microseconds since 1970 (UTC).

Ids of control records are `incarnation/task/turn/ordinal`, so a repeat is recognised by its id alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Literal

import msgspec

from mendstream.contracts.errors import BadRecord
from mendstream.contracts.topics import Topic

Scalar = str | int | float | bool | None
PANE_US = 250_000
"""Length of a pane of serving time."""

LATENCY_EDGES_MS: tuple[float, ...] = (
    1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 250, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000, 10000, 30000,
)  # fmt: skip
"""Upper edges of the latency buckets; one more bucket holds what is beyond. SLO limits must be among them."""


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", forbid_unknown_fields=True):
    """Base of all control records."""


# --- the pipeline's edge ---------------------------------------------------------------------------------------------


class Decision(Record, frozen=True, tag="decision"):
    """What was decided about one event, and by what."""

    event_id: str
    key: str
    outcome: str
    score: float
    model: str
    mode: str
    config: int
    reason: str
    at_us: int


class Feedback(Record, frozen=True, tag="feedback"):
    """Ground truth about one event; `label` is 1.0 for the positive class, 0.0 for the other."""

    event_id: str
    key: str
    label: float
    at_us: int


class DeadReason(StrEnum):
    MALFORMED = "MALFORMED"  # not JSON, or nested too deep
    INVALID = "INVALID"  # JSON that the event type refuses
    TOO_LARGE = "TOO_LARGE"
    NOT_FINITE = "NOT_FINITE"  # NaN or an infinity
    BAD_TIME = "BAD_TIME"  # in the future, or too old
    UNKNOWN_EVENT = "UNKNOWN_EVENT"  # feedback that matched nothing in time
    NO_KEY = "NO_KEY"
    STEP_FAILED = "STEP_FAILED"  # user code refused this very record
    QUARANTINED = "QUARANTINED"  # killed its process three times


class DeadLetter(Record, frozen=True, tag="dead-letter"):
    """A record that could not be used, as it came."""

    id: str
    topic: str
    partition: int
    position: int
    stage: str
    code_version: str
    reason: DeadReason
    detail: str
    attempts: int
    value: bytes
    at_us: int


# --- agent-metrics ---------------------------------------------------------------------------------------------------


class TaskPulse(msgspec.Struct, frozen=True, kw_only=True):
    """One task as its owner sees it."""

    task: str
    epoch: int
    turns: int
    """Committed turns that moved a position: progress."""
    backlog: int
    """Rows that wait at the task's inputs."""
    config: int
    step_started_us: int | None = None
    attempts: int = 1


class Pulse(Record, frozen=True, tag="pulse"):
    """The sign of life of a process, four a second, sent from outside the step."""

    process: str
    agent: str
    generation: int
    pid: int
    at_us: int
    rss_mb: float
    tasks: tuple[TaskPulse, ...] = ()
    waits_for: str = ""
    """What a sink waits for, for people: a server that does not answer. Empty if it can work."""


class Exit(Record, frozen=True, tag="exit"):
    """The supervisor saw a child end."""

    process: str
    agent: str
    generation: int
    pid: int
    code: int
    """Exit code; minus the signal's number if a signal ended it."""
    expected: bool
    """Ended by an order (a restart command, a stop), not by itself."""
    at_us: int


class Counts(Record, frozen=True, tag="counts"):
    """Totals of one (task, pane, model, config, arm); a higher revision supersedes a lower one."""

    task: str
    pane: int
    model: str
    config: int
    arm: str
    """`live`, `fallback` (SAFE_MODE), `shadow`, `probe`."""
    revision: int
    n: int
    hists: dict[str, tuple[int, ...]] = {}
    """`latency` (LATENCY_EDGES_MS), `score` and `feature:NAME` (bins of the model's reference)."""
    losses: dict[str, tuple[int, int]] = {}
    """Per loss (n, bad): `error` from labels, `dead` from dead letters, `repeat` from dropped repeats."""


# --- vitals ----------------------------------------------------------------------------------------------------------


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What one decision task served with one (model, config, arm), cumulated since the log began.

    Differences between two vitals are therefore exact counts of what was served between them.
    """

    task: str
    model: str
    config: int
    arm: str
    n: int
    slow: int
    """Events slower than the latency SLO."""
    latency_ms_sum: float
    labels: int = 0
    errors: int = 0


class TaskState(StrEnum):
    OK = "OK"
    DOWN = "DOWN"
    STUCK = "STUCK"
    UNSEEN = "UNSEEN"


class TaskVital(msgspec.Struct, frozen=True, kw_only=True):
    """One task with its current owner, as the judge sees it."""

    task: str
    process: str
    generation: int
    pid: int
    epoch: int
    turns: int
    backlog: int
    config: int
    pulse_age_ms: int
    state: TaskState


class DriftVital(msgspec.Struct, frozen=True, kw_only=True):
    """Distance of one feature from the reference of `model`, on the newest window of `n` events."""

    feature: str
    model: str
    n: int
    psi: float
    ks: float
    js: float
    limit: float
    """PSI above it is an alarm at this n."""


class Vitals(Record, frozen=True, tag="vitals"):
    """The house in one closed pane: what detectors and playbooks name, with sample sizes."""

    pane: int
    at_us: int
    n: int
    rate: float
    """Decisions per second, over the last second of panes."""
    p50_ms: float
    p95_ms: float
    mode: str
    model: str
    config: int
    accuracy: float | None
    """Share of right predictions among the newest labels served by `model`, or None without labels."""
    labels: int
    backlog: int
    """Rows waiting, all pipeline stages together."""
    served: tuple[Served, ...] = ()
    probes: tuple[Served, ...] = ()
    """The same totals for arm `probe`: the model's own time, measured off the serving turn."""
    tasks: tuple[TaskVital, ...] = ()
    drift: tuple[DriftVital, ...] = ()


# --- alerts ----------------------------------------------------------------------------------------------------------


class AlertKind(StrEnum):
    """The four incident types of the brief; SQL keeps kinds as text, so a new one needs no migration."""

    DATA_DRIFT = "DATA_DRIFT"
    PERF_DROP = "PERF_DROP"
    LATENCY_SLO_BREACH = "LATENCY_SLO_BREACH"
    AGENT_DOWN = "AGENT_DOWN"


class AlertState(StrEnum):
    FIRING = "FIRING"
    RESOLVED = "RESOLVED"


class Alert(Record, frozen=True, tag="alert"):
    """One open alert per (kind, subject); FIRING and RESOLVED carry the same `alert_id`."""

    id: str
    alert_id: str
    kind: AlertKind
    subject: str
    """What is ill: `pipeline`, a model version, a process name, or `data`."""
    state: AlertState
    detector: str
    statistic: str
    value: float
    limit: float
    n: int
    window_us: tuple[int, int]
    """Serving time of the data it rests on."""
    at_us: int
    evidence: dict[str, Scalar] = {}


# --- governance ------------------------------------------------------------------------------------------------------


class ActionKind(StrEnum):
    SAFE_MODE_ON = "SAFE_MODE_ON"
    SAFE_MODE_OFF = "SAFE_MODE_OFF"
    SET_THRESHOLD = "SET_THRESHOLD"
    ROLLBACK = "ROLLBACK"
    SHADOW = "SHADOW"
    PROMOTE = "PROMOTE"
    RETRAIN = "RETRAIN"
    RESTART = "RESTART"


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do to one target. `id` is the idempotency key."""

    id: str
    kind: ActionKind
    target: str
    """`model`, `decision`, `trainer`, or a process name such as `model-0`."""
    params: dict[str, Scalar] = {}


class Proposal(Record, frozen=True, tag="proposal"):
    id: str
    incident_id: str
    incident_type: str
    action: Action
    plan_hash: str
    rung: int
    expected_effect: str
    impact: Literal["low", "medium", "high"]
    cost: float
    undo: Action | None
    is_undo: bool
    at_us: int
    expires_at_us: int


class VerdictKind(StrEnum):
    APPROVED = "APPROVED"
    DENIED = "DENIED"
    MODIFIED = "MODIFIED"
    ESCALATED = "ESCALATED"
    EXPIRED = "EXPIRED"


class Verdict(Record, frozen=True, tag="verdict"):
    """An answer to one proposal, by the policy or by a person."""

    id: str
    proposal_id: str
    incident_id: str
    action_id: str
    verdict: VerdictKind
    action: Action
    """What may be done: as proposed, or as modified."""
    plan_hash: str
    policies: tuple[str, ...]
    reason: str
    facts: dict[str, Scalar]
    actor: str
    at_us: int
    expires_at_us: int


class Closing(Record, frozen=True, tag="closing"):
    """A person ends an incident that the house could not."""

    id: str
    incident_id: str
    actor: str
    reason: str
    at_us: int


class ConfigChange(Record, frozen=True, tag="config-change"):
    """One atomic change of a set of knobs; it counts only if `base_version` is current when it is read."""

    id: str
    base_version: int
    changes: dict[str, Any]
    actor: str
    reason: str
    at_us: int
    incident_id: str | None = None
    action_id: str | None = None
    approval: str | None = None
    forced: bool = False

    @property
    def version(self) -> int:
        """The version that this change makes, if it is applied."""
        return self.base_version + 1


class Fault(Record, frozen=True, tag="fault"):
    """A fault of the chaos wing, put in or taken out; obeyed only where chaos is enabled. No agent reads it."""

    id: str
    name: str
    on: bool
    params: dict[str, Scalar]
    actor: str
    at_us: int


class CommandKind(StrEnum):
    RESTART = "RESTART"
    RETRAIN = "RETRAIN"


class Command(Record, frozen=True, tag="command"):
    """An order to exactly one addressee (`supervisor` or `trainer`)."""

    id: str
    action_id: str
    incident_id: str
    addressee: str
    kind: CommandKind
    target: str
    generation: int | None
    """RESTART: the generation that it ends; any other is refused as stale."""
    params: dict[str, Scalar]
    at_us: int


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class CommandResult(Record, frozen=True, tag="command-result"):
    """What became of a command; or what the supervisor did unasked, which has no ids of command and action."""

    id: str
    command_id: str
    action_id: str
    incident_id: str
    outcome: Outcome
    detail: str
    data: dict[str, Scalar]
    at_us: int


# --- incident-log ----------------------------------------------------------------------------------------------------


class Status(StrEnum):
    OPEN = "OPEN"
    MITIGATING = "MITIGATING"
    RESOLVED = "RESOLVED"
    FAILED = "FAILED"


class IncidentHead(msgspec.Struct, frozen=True, kw_only=True):
    """The row of `incidents` as it stands after a step."""

    incident_id: str
    type: str
    subject: str
    status: Status
    detected_at_us: int
    resolved_at_us: int | None
    metrics_snapshot: dict[str, Scalar]
    outcome: str = ""
    """mitigated, recovered, person, unresolved; empty while open."""
    cause: str = ""
    """deploy, data, drift, infrastructure, load; empty while unknown."""


class ActionRow(msgspec.Struct, frozen=True, kw_only=True):
    """The row of `healing_actions` as it stands after a step."""

    action_id: str
    rung: int
    is_undo: bool
    proposed_action: Action
    agl_decision: str | None
    """APPROVED, DENIED or MODIFIED; None while escalated; EXPIRED counts as DENIED."""
    approved_action: Action | None
    policies: tuple[str, ...] = ()
    policy_reason: str = ""
    decided_by: str = ""
    executed_at_us: int | None = None
    result: Literal["SUCCESS", "FAIL"] | None = None
    """SUCCESS only if done and verified; None while it is open."""


class MemoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """The row of `memory_chunks`: what is remembered of one ended incident."""

    memory_id: str
    incident_id: str
    incident_type: str
    cause: str
    incident_summary: str
    action_taken: str
    outcome: str
    metrics_before: dict[str, Scalar]
    metrics_after: dict[str, Scalar]
    mttr_seconds: float | None
    features: dict[str, float]
    """The incident's signature: what similarity is measured on."""


class IncidentStep(Record, frozen=True, tag="incident-step"):
    """One step of one incident. `hash` chains over the whole log: SHA-256 of the previous hash and this record."""

    id: str
    seq: int
    """Position in the chain, from 0."""
    incident: IncidentHead
    step: Literal["detection", "logging", "planning", "approval", "execution", "verification", "memory"]
    phase: str
    text: str
    actor: str
    at_us: int
    data: dict[str, Any] = {}
    action: ActionRow | None = None
    memory: MemoryRow | None = None
    prev_hash: str = ""
    hash: str = ""


# --- type <-> topic --------------------------------------------------------------------------------------------------

TOPIC_OF: dict[type[Record], Topic] = {
    Decision: Topic.DECISIONS,
    Feedback: Topic.FEEDBACK,
    DeadLetter: Topic.DEAD_LETTERS,
    Pulse: Topic.AGENT_METRICS,
    Exit: Topic.AGENT_METRICS,
    Counts: Topic.AGENT_METRICS,
    Vitals: Topic.VITALS,
    Alert: Topic.ALERTS,
    Proposal: Topic.POLICY_REQUESTS,
    Verdict: Topic.POLICY_DECISIONS,
    Closing: Topic.POLICY_DECISIONS,
    ConfigChange: Topic.CONFIG_UPDATES,
    Fault: Topic.CONFIG_UPDATES,
    IncidentStep: Topic.INCIDENT_LOG,
    Command: Topic.COMMANDS,
    CommandResult: Topic.COMMAND_RESULTS,
}

_ENCODER = msgspec.json.Encoder()
_DECODERS: dict[Topic, msgspec.json.Decoder[Record]] = {}
for _topic in dict.fromkeys(TOPIC_OF.values()):
    _types = tuple(kind for kind, topic in TOPIC_OF.items() if topic is _topic)
    _union: Any = _types[0]
    for _kind in _types[1:]:
        _union = _union | _kind
    _DECODERS[_topic] = msgspec.json.Decoder(_union)


def encode(record: Record) -> bytes:
    """One line of JSON, without the line's end."""
    return _ENCODER.encode(record)


def encode_block(records: Iterable[Record]) -> bytes:
    """JSON lines."""
    return _ENCODER.encode_lines(records)


def decode(topic: Topic, line: bytes) -> Record:
    """Raises BadRecord if `line` is not a record of `topic`."""
    try:
        return _DECODERS[topic].decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"{topic}: {error}") from error


def decode_block(topic: Topic, block: bytes) -> Sequence[Record]:
    """Raises BadRecord if any line is not a record of `topic`; take the block apart by lines then."""
    try:
        return _DECODERS[topic].decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"{topic}: {error}") from error


def decode_each(topic: Topic, block: bytes) -> list[Record | None]:
    """One item per line, None for a line that is no record of `topic`: for readers that skip what they cannot use.

    The agents, whose streams these are, put such lines to the dead letters.
    """
    lines = block.rstrip(b"\n").split(b"\n")
    with contextlib.suppress(BadRecord):  # nearly always all are good, and then they are read in one go
        together = decode_block(topic, block)
        if len(together) == len(lines):  # an empty line is none to msgspec
            return list(together)
    found: list[Record | None] = []
    for line in lines:
        try:
            found.append(decode(topic, line))
        except BadRecord:
            found.append(None)
    return found
