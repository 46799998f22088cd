"""One thing that `check` or `doctor` has found."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    where: str
    what: str
    hint: str
