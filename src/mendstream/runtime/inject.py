"""A fault by name in; a record, a signal or a forced promotion out. Refused where chaos is not enabled."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.chaos.faults import FaultRow, How, fault, with_defaults
from mendstream.contracts.errors import CouldNot, ModelError, UsageError
from mendstream.contracts.ports import Bus, Out
from mendstream.contracts.records import ConfigChange, Fault, Record, Scalar, encode_block
from mendstream.contracts.topics import CONFIG
from mendstream.runtime.ground import current_config, data_dir, open_bus
from mendstream.settings import Settings, models_dir

_TRIES = 20
_SIGNALS = {("dead-agent", True): signal.SIGKILL, ("stuck-agent", True): signal.SIGSTOP,
            ("stuck-agent", False): signal.SIGCONT}  # fmt: skip


def inject(
    settings: Settings, name: str, params: Mapping[str, Scalar], on: bool, actor: str, *, bus: Bus | None = None
) -> str:  # fmt: skip
    """Put fault `name` in, or take it out; returns what was done, for people. Raises UsageError or CouldNot.

    `bus`: the control wing's, where this process has it open already (a log may be opened once in a process).
    """
    row = fault(name)
    given = with_defaults(row, params)
    if not settings.chaos.enabled:
        raise UsageError(
            f"fault {name} is refused: chaos.enabled is false",
            hint="set it in the mendstream.toml of a house that may be hurt, or add --set chaos.enabled=true",
        )
    match row.how:
        case How.RECORD:
            with _opened(settings, bus) as opened:
                return _record(opened, row, given, on, actor)
        case How.SIGNAL:
            return _signal(data_dir(settings), row, given, on, chosen="target" in params)
        case How.PROMOTE:
            if not on:
                raise UsageError(f"{name} cannot be taken out: it is a promotion", hint="`mendstream models rollback`")
            with _opened(settings, bus) as opened:
                return _promote(settings, opened, row, str(given["version"]), actor)


# --- records ---------------------------------------------------------------------------------------------------------


def _record(bus: Bus, row: FaultRow, params: dict[str, Scalar], on: bool, actor: str) -> str:
    _publish(bus, Fault(id=_id(bus, actor, 0), name=row.name, on=on, params=params, actor=actor, at_us=bus.now_us()))
    if not on:
        return f"{row.name} is out"
    told = ", ".join(f"{name} = {value:g}" for name, value in params.items() if isinstance(value, float) and value)
    return f"{row.name} is in" + (f" ({told})" if told else "")


def _promote(settings: Settings, bus: Bus, row: FaultRow, version: str, actor: str) -> str:
    try:
        card = Catalogue(models_dir(settings).absolute()).fetch(version)
    except ModelError as error:
        raise UsageError(f"{row.name}: {error}", hint=error.hint) from error
    for attempt in range(_TRIES):
        base = current_config(bus)
        if base.model_version == version:
            raise UsageError(f"{row.name}: {version} is live already", hint="`mendstream models history`")
        change = ConfigChange(
            id=_id(bus, actor, attempt), base_version=base.version, actor=actor, reason=f"chaos: {row.name}",
            changes={"model_version": version, "model_digest": card.digest}, at_us=bus.now_us(), forced=True,
        )  # fmt: skip
        _publish(bus, change)
        now = current_config(bus)
        # Another change on the same base came first if ours is not what is live at the version that it was to make.
        if now.version > base.version and now.model_version == version:
            return f"{version} is promoted by force over {base.model_version or 'no model'}, config {now.version}"
    raise CouldNot(f"the config changed {_TRIES} times before this promotion got in", hint="try again in a moment")


def _publish(bus: Bus, record: Record) -> None:
    bus.publish([Out(CONFIG, encode_block([record]), 1)])


def _id(bus: Bus, actor: str, ordinal: int) -> str:
    return f"{bus.incarnation}/chaos.{actor}.{os.getpid()}/{bus.now_us()}/{ordinal}"


@contextlib.contextmanager
def _opened(settings: Settings, bus: Bus | None) -> Iterator[Bus]:
    if bus is not None:
        yield bus
        return
    with contextlib.closing(open_bus(settings)) as own:
        yield own


# --- signals ---------------------------------------------------------------------------------------------------------


class _Child(msgspec.Struct):
    """A row of run/processes.json, which the supervisor writes."""

    generation: int
    pid: int
    alive: bool


class _Processes(msgspec.Struct):
    pid: int
    children: dict[str, _Child]


def _signal(root: Path, row: FaultRow, params: dict[str, Scalar], on: bool, *, chosen: bool) -> str:
    number = _SIGNALS.get((row.name, on))
    if number is None:
        raise UsageError(f"{row.name} cannot be taken out: who is dead is brought back by healing", hint="just wait")
    children = _children(root)
    target = str(params["target"])
    if not chosen and target not in children and "fused-0" in children:
        target = "fused-0"
    child = children.get(target)
    if child is None:
        raise UsageError(f"there is no process {target!r}", hint=f"processes: {', '.join(children)}")
    if not child.alive or not _is_ours(child.pid):
        raise CouldNot(
            f"{target} is not alive (generation {child.generation}, pid {child.pid})", hint="`mendstream status`"
        )
    try:
        os.kill(child.pid, number)
    except ProcessLookupError as error:
        raise CouldNot(f"{target} ended just now (pid {child.pid})", hint="`mendstream status`") from error
    return f"{number.name} sent to {target} (generation {child.generation}, pid {child.pid})"


def _children(root: Path) -> dict[str, _Child]:
    try:
        found = msgspec.json.decode((root / "run" / "processes.json").read_bytes(), type=_Processes)
    except FileNotFoundError as error:
        raise CouldNot(f"no house runs in {root}", hint="start one, or name another --data DIR") from error
    if not _is_ours(found.pid):
        raise CouldNot(f"the house in {root} has ended (pid {found.pid})", hint="start it again")
    return found.children


def _is_ours(pid: int) -> bool:
    """Whether `pid` is there and is no namesake: numbers are used again, and a signal must hit nobody else."""
    if sys.platform != "linux":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.startswith("python") and _state(pid) != "Z"
    except OSError:
        return False


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
