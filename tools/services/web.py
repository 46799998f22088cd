"""What a probe of a web service asks: one request, and whether it was answered as it should be."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

# A proxy of the user's has no way to our own machine.
_OPENER = build_opener(ProxyHandler({}))


def get(url: str, within_s: float = 5.0) -> bytes:
    """The answer's body; raises on any status but success."""
    with _OPENER.open(url, timeout=within_s) as answer:
        return bytes(answer.read())


def put(url: str, body: bytes, within_s: float = 10.0) -> None:
    """Send bytes; raises on any status but success."""
    with _OPENER.open(Request(url, body, method="PUT"), timeout=within_s):
        pass


def post(url: str, body: dict[str, Any], within_s: float = 10.0) -> Any:
    """Send JSON, read JSON."""
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with _OPENER.open(request, timeout=within_s) as answer:
        return json.load(answer)
