"""What `check` has found, and what `doctor` has looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Finding(NamedTuple):
    where: str
    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that the doctor has looked at."""

    check: str
    state: Literal["ok", "warn", "fail"]
    what: str
    fix: str = ""
