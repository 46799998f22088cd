"""Which replica has which partitions: a small file that the supervisor writes and every replica reads."""

from __future__ import annotations

from pathlib import Path

import msgspec


def read_assignment(root: Path) -> dict[str, list[int]]:
    """process -> partitions, as the supervisor has them; empty where it has assigned nothing."""
    try:
        return msgspec.json.decode((root / "run" / "assignment.json").read_bytes(), type=dict[str, list[int]])
    except FileNotFoundError:
        return {}
