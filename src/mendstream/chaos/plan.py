"""What is done to a house, as data: faults with their moments. The same list hurts a live house and a simulated one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from mendstream.contracts.errors import UsageError
from mendstream.contracts.records import Scalar

VERSION = 1


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: put in at its moment, and taken out again if it is one that lasts."""

    fault: str
    params: dict[str, Scalar] = {}
    at_ms: int = 0
    """Since the plan began; in a simulated house, since it is warm (3 s after its start)."""
    for_ms: int | None = None
    """How long it lasts; None: it is over at once, or stays until all faults stop."""
    point: str = ""
    """Simulation only: not before the house comes by this point of its code (`sent:healing-0`), from `at_ms` on."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that makes one run different from the next."""

    seed: int
    name: str = "swarm"
    settings: dict[str, Any] = {}
    """Over the defaults of such runs, as in mendstream.toml: `{"run.fuse": true}`."""
    habits: dict[str, Any] = {}
    """How fast and how badly the simulated machine works."""
    people: dict[str, Any] = {}
    """How the simulated operators behave."""
    injections: tuple[Injection, ...] = ()
    chaos_ms: int = 8_000
    """Faults stop so long after the plan began; then the house has to become well."""
    version: int = VERSION


def read(path: Path) -> Plan:
    """Raises UsageError for a file that is no plan, or one of another version."""
    try:
        held = msgspec.json.decode(path.read_bytes())
        version = held.get("version") if isinstance(held, dict) else None
        if version != VERSION:
            raise UsageError(
                f"{path} is a plan of version {version}, this is version {VERSION}",
                hint="make it again: `mendstream simulate --seed N --save FILE`",
            )
        return msgspec.convert(held, Plan)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="which file did a failing run name?") from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UsageError(
            f"{path} is no plan: {error}", hint="`mendstream simulate --seed N --save FILE` writes one"
        ) from error


def write(plan: Plan, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n")
