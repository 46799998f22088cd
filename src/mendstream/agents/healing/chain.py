"""The incident log's hash chain: each step carries the SHA-256 of the previous hash and of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from mendstream.contracts.records import Action, IncidentStep


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces: the same bytes for the same value, whoever writes it."""
    return msgspec.json.encode(msgspec.to_builtins(value), order="sorted")


def plan_hash(action: Action) -> str:
    """What an approval binds to."""
    return hashlib.sha256(canonical(action)).hexdigest()


def seal(step: IncidentStep) -> IncidentStep:
    """`step` with its hash; `prev_hash` must be set. The hash is taken over the record with an empty `hash`."""
    return msgspec.structs.replace(step, hash=_hash(step))


def broken(steps: Iterable[IncidentStep], *, seq: int = 0, prev_hash: str = "") -> int | None:
    """The first position at which the chain does not hold, or None."""
    for step in steps:
        if step.seq != seq or step.prev_hash != prev_hash or step.hash != _hash(step):
            return seq
        seq, prev_hash = seq + 1, step.hash
    return None


def _hash(step: IncidentStep) -> str:
    bare = msgspec.structs.replace(step, hash="")
    return hashlib.sha256(step.prev_hash.encode() + canonical(bare)).hexdigest()
