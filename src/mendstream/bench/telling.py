"""Reports in; a table for people or one JSON document on standard output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from mendstream.bench import figures, machine
from mendstream.bench.figures import Report


def tell(name: str, known: dict[str, Any], reports: Sequence[Report], *, json: bool) -> None:
    if json:
        found = figures.document(name, known, reports)
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        return
    click.echo(machine.text(known))
    for report in reports:
        click.echo("")
        _table([tuple(word.upper() for word in figures.HEADER), *figures.rows(report)])
        for title, value in report.details.items():
            _detail(title, value)


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _detail(title: str, value: Any) -> None:
    if isinstance(value, dict):
        width = max(map(len, value), default=0)
        click.echo(f"  {title}:")
        for name, item in value.items():
            click.echo(f"    {name.ljust(width)}  {_text(item)}")
    else:
        click.echo(f"  {title}: {_text(value)}")


def _text(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return figures.shown(value)
        case dict():
            return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
        case list() | tuple():
            return "; ".join(_text(item) for item in value) or "-"
        case None:
            return "-"
        case _:
            return str(value)
