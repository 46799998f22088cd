"""What is signed off and what is chained: hashes over canonical JSON, the same for whoever computes them."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from mendstream.contracts.records import Action, IncidentStep


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces."""
    return msgspec.json.encode(msgspec.to_builtins(value), order="sorted")


def plan_hash(action: Action) -> str:
    """What an approval binds to."""
    return hashlib.sha256(canonical(action)).hexdigest()


def step_hash(step: IncidentStep | dict[str, Any]) -> str:
    """What `step.hash` must be: SHA-256 over the hash before it (64 hexadecimal characters; none for the first) and the
    record with an empty `hash`. A reader gives the raw record, so that one of an older type still verifies.
    """
    fields = step if isinstance(step, dict) else msgspec.to_builtins(step)
    return hashlib.sha256(fields["prev_hash"].encode() + canonical({**fields, "hash": ""})).hexdigest()
