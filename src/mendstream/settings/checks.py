"""What a single value must be besides its type and bounds: each check gives the reason why not, or an empty string."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from mendstream.contracts.records import LATENCY_EDGES_MS, ActionKind
from mendstream.settings.secret import split_password

STAGES = ("ingestion", "feature", "model", "decision", "fused")
"""The roles that may have replicas: each process has a share of the partitions."""
_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_KAFKA = re.compile(r"(//[^/\s]+:\d+/)?[\w.-]+(,[\w.-]+)?")
_SQL = ("sqlite", "postgresql")


def why_not(key: str, value: Any) -> str:
    """Why `value` may not be the setting `key`. Never quotes the value: it may hold a secret."""
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    check = _CHECKS.get(key)
    return check(value) if check else ""


def _pipeline(value: str) -> str:
    return "" if not value or _OBJECT.fullmatch(value) else "must be module:object, as in shop:fraud"


def _source(value: str) -> str:
    kind, _, rest = value.partition(":")
    if value in ("", "stdin", "http") or (kind == "file" and rest) or (kind == "python" and _OBJECT.fullmatch(rest)):
        return ""
    if kind == "kafka" and _KAFKA.fullmatch(rest):
        return ""
    return "must be file:PATH, stdin, http, kafka:TOPIC, kafka://HOST:PORT/TOPIC or python:MODULE:OBJECT"


def _store(value: str) -> str:
    dialect, mark, _ = value.partition("://")
    return (
        "" if not value or (mark and dialect.split("+")[0] in _SQL) else "must be a URL of sqlite:// or postgresql://"
    )


def _mlflow(value: str) -> str:
    scheme, mark, _ = value.partition("://")
    known = ("http", "https", "sqlite", "file", "postgresql")
    return "" if not value or (mark and scheme.split("+")[0] in known) else "must be a URL of http:// or https://"


def _registry(value: str) -> str:
    urls = value.split(",") if value else []
    if any(re.fullmatch(r"https?://[^/\s]\S*", url) is None for url in urls):
        return "must be a URL of http:// or https://, or several after commas"
    held = any(split_password(url)[1] for url in urls)
    return "may hold no password: ingestion.registry_client has a place for it" if held else ""


def _latency(value: float) -> str:
    if value in LATENCY_EDGES_MS:
        return ""
    near = sorted(sorted(LATENCY_EDGES_MS, key=lambda edge: abs(edge - value))[:3])
    return f"must be an edge of the latency buckets; the nearest are {', '.join(f'{edge:g}' for edge in near)}"


def _replicas(value: dict[str, int]) -> str:
    return _named(value, STAGES, "stage")


def _modes(value: dict[str, str]) -> str:
    return _named(value, tuple(ActionKind), "kind of action")


def _named(value: dict[str, Any], known: tuple[str, ...], what: str) -> str:
    strange = [name for name in value if name not in known]
    return f"{strange[0]!r} is no {what}: {', '.join(known)}" if strange else ""


def _namespace(value: str) -> str:
    return "" if re.fullmatch(r"[a-z0-9._-]*", value) else "may hold only a-z, 0-9, dot, dash and underscore"


_CHECKS: dict[str, Callable[[Any], str]] = {
    "pipeline": _pipeline,
    "run.namespace": _namespace,
    "run.replicas": _replicas,
    "store.url": _store,
    "ingestion.source": _source,
    "ingestion.schema_registry": _registry,
    "slo.latency_ms": _latency,
    "policy.modes": _modes,
    "models.mlflow_uri": _mlflow,
}
