"""The documentation as tests see it: pages, code blocks, links, and the commands that it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import click

from mendstream.cli.group import main

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`(mendstream [^`\n]+)`")


class Command(NamedTuple):
    """One `mendstream ...` that a page shows."""

    page: str
    args: tuple[str, ...]


def pages() -> list[Path]:
    """Every Markdown page of the project."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.md")])


def written_pages() -> list[Path]:
    """Those that people write."""
    return [path for path in pages() if REFERENCE not in path.parents]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return _FENCE.findall(path.read_text(encoding="utf-8"))


def prose(path: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def commands(path: Path) -> list[Command]:
    """From the blocks' lines and from the text's code spans; patterns such as `mendstream approve|deny` are none."""
    lines = [line for _, text in blocks(path) for line in text.splitlines() if line.startswith("mendstream ")]
    found = [shlex.split(line, comments=True)[1:] for line in [*lines, *spans(prose(path))]]
    return [Command(name_of(path), tuple(args)) for args in found]


def spans(text: str) -> list[str]:
    """`mendstream ...` in backticks, patterns left out."""
    return [span for span in _SPAN.findall(text) if not re.search(r"[|\[{]|\.\.\.", span)]


def resolved(args: tuple[str, ...]) -> tuple[click.Command, click.Context, list[str]]:
    """The command that `args` name, and what is left of them. Raises click.ClickException."""
    command: click.Command = main
    ctx = click.Context(command, info_name="mendstream")
    rest = list(args)
    while isinstance(command, click.Group):
        name = rest[0] if rest else ""
        if name in command.list_commands(ctx):
            rest.pop(0)
        elif command.name == "incidents" and name != "--help":  # its first word may be an incident
            name = "show"
        elif name.startswith("-") or (not name and command.invoke_without_command):
            break
        else:
            raise click.NoSuchCommand(name, ctx=ctx)
        found = command.get_command(ctx, name)
        assert found is not None
        command, ctx = found, click.Context(found, info_name=name, parent=ctx)
    return command, ctx, rest


def parse(args: tuple[str, ...]) -> None:
    """Raises click.ClickException unless verb, options and arguments exist and closed lists have the words."""
    command, ctx, rest = resolved(args)
    values, left, _ = command.make_parser(ctx).parse_args(list(rest))
    if left:
        raise click.UsageError(f"too many arguments: {left}", ctx)
    for param in command.params:
        given = values.get(param.name or "")
        if param.required and not given:
            raise click.UsageError(f"{param.human_readable_name} is missing", ctx)
        if isinstance(param.type, click.Choice) and isinstance(given, str) and not given.isupper():
            param.type.convert(given, param, ctx)
