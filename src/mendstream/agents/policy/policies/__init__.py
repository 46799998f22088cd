"""The policies that come with mendstream, as texts: `*.cedar`, their schema, and a table of cases. Data only."""

from __future__ import annotations

from importlib import resources

_HERE = resources.files(__name__)


def shipped() -> tuple[dict[str, str], str]:
    """(file name -> Cedar text, schema text), as `load_policies` takes them."""
    names = sorted(entry.name for entry in _HERE.iterdir() if entry.name.endswith(".cedar"))
    return {name: _read(name) for name in names}, _read("schema.cedarschema")


def shipped_cases() -> str:
    """The table of cases that `mendstream policy test` runs against the shipped policies."""
    return _read("cases.toml")


def _read(name: str) -> str:
    return _HERE.joinpath(name).read_text(encoding="utf-8")
