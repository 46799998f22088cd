"""`module:name` in, the object out: what a verb needs only when it runs."""

from __future__ import annotations

import importlib
from typing import Any


def late(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
