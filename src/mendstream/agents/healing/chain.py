"""The incident log's hash chain: each step carries the SHA-256 of the previous hash and of itself."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mendstream.contracts.hashes import step_hash
from mendstream.contracts.records import IncidentStep


def seal(step: IncidentStep) -> IncidentStep:
    """`step` with its hash; `prev_hash` must be set."""
    return msgspec.structs.replace(step, hash=step_hash(step))


def broken(steps: Iterable[IncidentStep], *, seq: int = 0, prev_hash: str = "") -> int | None:
    """The first position at which the chain does not hold, or None."""
    for step in steps:
        if step.seq != seq or step.prev_hash != prev_hash or step.hash != step_hash(step):
            return seq
        seq, prev_hash = seq + 1, step.hash
    return None
