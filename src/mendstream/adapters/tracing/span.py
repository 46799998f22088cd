"""A span as the turns make it: a plain value, which the thread that sends turns into OpenTelemetry's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from mendstream.adapters.tracing.names import Name

Value = str | bool | int | float


class Span(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    own: Name
    parent: Name | None
    start_us: int
    end_us: int
    attributes: Mapping[str, Value]
    kind: Literal["internal", "producer", "consumer"] = "internal"
    links: tuple[Name, ...] = ()
    failed: str = ""
    """Why it counts as an error; empty: it does not."""
