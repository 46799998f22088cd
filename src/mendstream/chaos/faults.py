"""Every fault in one table: what it does, how it gets in, with which parameters, and which incident must follow."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mendstream.contracts.errors import UsageError
from mendstream.contracts.records import AlertKind, Scalar


class How(StrEnum):
    """How a fault gets into the house."""

    RECORD = "record"  # a Fault on config-updates, acted out by the model's wrapper or by the source
    SIGNAL = "signal"  # to a process
    PROMOTE = "promote"  # a forced change of the live model


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRow:
    name: str
    doc: str
    how: How
    incident_type: AlertKind | None
    """The incident that it has to cause; None: the house must stay calm."""
    params: Mapping[str, Scalar] = field(default_factory=dict)
    """Parameters with their defaults; no other is taken."""
    title: str = ""
    """For people, in the demo."""


FAULTS: tuple[FaultRow, ...] = (
    FaultRow(
        name="slow-model",
        title="a slow model",
        doc="Each call of the model takes longer: call_ms, and row_ms for each event of the call.",
        how=How.RECORD,
        incident_type=AlertKind.LATENCY_SLO_BREACH,
        params={"call_ms": 350.0, "row_ms": 0.0},
    ),
    FaultRow(
        name="bad-model",
        title="a bad model version",
        doc="A registered version that is really worse is promoted by force.",
        how=How.PROMOTE,
        incident_type=AlertKind.PERF_DROP,
        params={"version": "v2"},
    ),
    FaultRow(
        name="dead-agent",
        title="a dead agent",
        doc="SIGKILL to a process (when the pipeline is fused, model-0 stands for fused-0).",
        how=How.SIGNAL,
        incident_type=AlertKind.AGENT_DOWN,
        params={"target": "model-0"},
    ),
    FaultRow(
        name="stuck-agent",
        title="a stuck agent",
        doc="SIGSTOP to a process: it is there and does nothing. Off: SIGCONT.",
        how=How.SIGNAL,
        incident_type=AlertKind.AGENT_DOWN,
        params={"target": "model-0"},
    ),
    FaultRow(
        name="drift",
        title="drift of the data",
        doc="The source draws other flights: the population shifts, and the model is less often right.",
        how=How.RECORD,
        incident_type=AlertKind.DATA_DRIFT,
    ),
    FaultRow(
        name="neutral-drift",
        title="drift that does no harm to accuracy",
        doc="The source draws other flights that are as easy to judge.",
        how=How.RECORD,
        incident_type=AlertKind.DATA_DRIFT,
    ),
    FaultRow(
        name="poison",
        title="poison records",
        doc="One event in fifty is malformed: to dead-letters with it, and nothing else happens.",
        how=How.RECORD,
        incident_type=None,
    ),
    FaultRow(
        name="no-labels",
        title="a label outage",
        doc="No ground truth comes in: nothing is judged on labels until it does.",
        how=How.RECORD,
        incident_type=None,
    ),
)
"""In the order of the README."""
_BY_NAME = {row.name: row for row in FAULTS}


def fault(name: str) -> FaultRow:
    """The row of that name; raises UsageError that names the nearest one."""
    row = _BY_NAME.get(name)
    if row is None:
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no fault {name!r}", hint=f"{hint}faults: {', '.join(_BY_NAME)}")
    return row


def with_defaults(row: FaultRow, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """`params` over the defaults; raises UsageError for one that the fault does not take or that makes no sense."""
    for name, value in params.items():
        if name not in row.params:
            taken = ", ".join(row.params) or "none"
            raise UsageError(f"fault {row.name} takes no parameter {name!r}", hint=f"parameters: {taken}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(row.params[name], float):
            if not isinstance(value, int | float) or not number or not 0 <= value <= _MS_MAX:
                raise UsageError(f"{name} = {value!r} is no time", hint=f"milliseconds from 0 to {_MS_MAX}")
        elif not isinstance(value, str) or not value:
            raise UsageError(f"{name} = {value!r} is no name", hint=f"the default is {row.params[name]}")
    return {**row.params, **params}


_MS_MAX = 60_000
