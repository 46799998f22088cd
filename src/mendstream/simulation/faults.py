"""What each fault does to the simulated machine: one row a fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mendstream.contracts.records import Scalar
from mendstream.simulation.bus import Fate
from mendstream.simulation.machine import SUPERVISOR, Machine

Params = Mapping[str, Any]
Act = Callable[[Machine, Params], None]


@dataclass(frozen=True, slots=True)
class SimFault:
    name: str
    doc: str
    put: Act
    take: Act | None
    """None: it is over at once."""
    params: Mapping[str, Scalar]
    """Parameters with their defaults."""


def _nothing(machine: Machine, params: Params) -> None:
    """It is over at once."""


# --- processes -------------------------------------------------------------------------------------------------------


def _kill(machine: Machine, params: Params) -> None:
    machine.kill(str(params["target"]))


def _freeze(machine: Machine, params: Params) -> None:
    held = machine.processes.get(str(params["target"]))
    if held is not None and held.name != SUPERVISOR:
        held.freeze()


def _thaw(machine: Machine, params: Params) -> None:
    held = machine.processes.get(str(params["target"]))
    if held is not None:
        held.thaw()


def _pause(machine: Machine, params: Params) -> None:
    held = machine.processes.get(str(params["target"]))
    if held is not None:
        held.main.hold()


def _unpause(machine: Machine, params: Params) -> None:
    held = machine.processes.get(str(params["target"]))
    if held is not None:
        held.main.release()


# --- log and disk ----------------------------------------------------------------------------------------------------


def _fate(fate: Fate) -> Act:
    def put(machine: Machine, params: Params) -> None:
        machine.habits.fates[str(params["target"])] = (fate, float(params["chance"]), int(params["delay_ms"]) * 1000)

    return put


def _done(machine: Machine, params: Params) -> None:
    machine.habits.fates.pop(str(params["target"]), None)


FAULTS: tuple[SimFault, ...] = (
    SimFault("dead-agent", "SIGKILL to a process.", _kill, None, {"target": "model-0"}),
    SimFault("stuck-agent", "SIGSTOP to a process; then SIGCONT.", _freeze, _thaw, {"target": "model-0"}),
    SimFault("paused-agent", "Its work stands still, its heart beats on.", _pause, _unpause, {"target": "model-0"}),
    SimFault("commit-lost", "Commits of a process never arrive, and nobody says so.", _fate(Fate.LOST), _done,
             {"target": "model-0", "chance": 0.5, "delay_ms": 0}),
    SimFault("commit-late", "Commits arrive when the sender has given up.", _fate(Fate.LATE), _done,
             {"target": "model-0", "chance": 0.5, "delay_ms": 700}),
    SimFault("commit-unheard", "Commits are done, their answers lost.", _fate(Fate.UNHEARD), _done,
             {"target": "model-0", "chance": 0.5, "delay_ms": 0}),
)  # fmt: skip
FAULT_OF = {fault.name: fault for fault in FAULTS}
