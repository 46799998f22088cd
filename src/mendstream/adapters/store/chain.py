"""The reader's side of incident-log's hash chain: each record's hash covers the record and the hash before it."""

from __future__ import annotations

import msgspec

from mendstream.contracts.hashes import step_hash
from mendstream.contracts.records import IncidentStep


def digest_line(line: bytes) -> str:
    """What the hash of a record must be, from its line in the log, as it was written."""
    return step_hash(msgspec.json.decode(line))


def flaw(line: bytes, step: IncidentStep, *, seq: int, prev_hash: str) -> str:
    """Why `step`, read from `line`, cannot be number `seq` after `prev_hash`; empty if it can."""
    if step.seq != seq:
        return f"found seq {step.seq} where {seq} should be"
    if step.prev_hash != prev_hash:
        return "the hash of the record before it is not the one that it names"
    if step.hash != digest_line(line):
        return "its hash does not match what it says"
    return ""
