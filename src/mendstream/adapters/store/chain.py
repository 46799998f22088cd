"""The hash chain of incident-log: each record's hash covers the record and the hash before it.

The hash is SHA-256 over the previous hash (its 64 hexadecimal characters; none for the first record) followed by the
record as JSON with sorted keys and an empty `hash`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from mendstream.contracts.records import IncidentStep


def digest(step: IncidentStep) -> str:
    """What `step.hash` must be. The writer's side: `step.hash` itself is ignored, `step.prev_hash` must be set."""
    return _digest(step.prev_hash, msgspec.to_builtins(step))


def digest_line(line: bytes) -> str:
    """The same from the record's line in the log, as it was written.

    The reader's side: a record that an older version wrote still verifies after the type has gained a field.
    """
    raw = msgspec.json.decode(line)
    return _digest(raw["prev_hash"], raw)


def flaw(line: bytes, step: IncidentStep, *, seq: int, prev_hash: str) -> str:
    """Why `step`, read from `line`, cannot be number `seq` after `prev_hash`; empty if it can."""
    if step.seq != seq:
        return f"found seq {step.seq} where {seq} should be"
    if step.prev_hash != prev_hash:
        return "the hash of the record before it is not the one that it names"
    if step.hash != digest_line(line):
        return "its hash does not match what it says"
    return ""


def _digest(prev_hash: str, record: dict[str, Any]) -> str:
    return sha256(prev_hash.encode() + msgspec.json.encode({**record, "hash": ""}, order="sorted")).hexdigest()
