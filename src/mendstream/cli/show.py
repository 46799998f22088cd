"""Facts in, aligned text or one JSON document out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

_COLOURS = {
    "OK": "green", "RESOLVED": "green", "APPROVED": "green", "live": "green",
    "DOWN": "red", "STUCK": "red", "FAILED": "red", "DENIED": "red", "FIRING": "red", "fail": "red",
    "OPEN": "yellow", "MITIGATING": "yellow", "ESCALATED": "yellow", "SAFE_MODE": "yellow", "warn": "yellow",
}  # fmt: skip
"""Words that carry their meaning alone; the colour only repeats it."""


def document(value: Any) -> None:
    """One JSON document."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2))


def line(value: Any) -> None:
    """One JSON object on one line."""
    import msgspec

    click.echo(msgspec.json.encode(value, enc_hook=str))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Aligned columns; `empty` says why there is nothing to see."""
    texts = [[cell(item) for item in row] for row in rows]
    if not texts:
        click.echo(empty)
        return
    widths = [max(len(row[i]) for row in [list(header), *texts]) for i in range(len(header))]
    for number, row in enumerate([[name.upper() for name in header], *texts]):
        padded = [text.ljust(widths[i]) for i, text in enumerate(row)]
        click.echo("  ".join(padded if number == 0 else [coloured(text) for text in padded]).rstrip())


def pairs(facts: Mapping[str, Any]) -> None:
    """Name and value, one a line."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        click.echo(f"{name.ljust(width)}  {coloured(cell(value))}")


def coloured(text: str) -> str:
    """A known word in its colour, on a terminal that wants any (https://no-color.org)."""
    colour = _COLOURS.get(text.strip())
    if colour is None or os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return click.style(text, fg=colour)


def note(text: str) -> None:
    """For the person, not for the pipe."""
    click.echo(text, err=True)


def when(at_us: int | None) -> str:
    """Local time of microseconds since 1970, to the second."""
    if at_us is None:
        return "-"
    from datetime import datetime

    return datetime.fromtimestamp(at_us / 1e6).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(seconds: float) -> str:
    """`3 s`, `4 min`, `2 h`, `5 d`."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def cell(value: Any) -> str:
    """A value in few characters. What came from outside may hold control characters: a terminal must not obey them."""
    match value:
        case None | "":
            return "-"
        case float():
            return f"{value:.4g}"
        case dict():
            return " ".join(f"{name}={cell(item)}" for name, item in value.items()) or "-"
        case list() | tuple():
            return ",".join(cell(item) for item in value) or "-"
        case bytes():
            return cell(value.decode(errors="backslashreplace"))
        case _:
            return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))
