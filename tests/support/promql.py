"""Every expression that the files of infra/ hold, taken from the files themselves, and made fit to be asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

VARIABLES = {"$pipeline": ".*", "$__rate_interval": "15s", "$__range": "10m", "$__interval": "15s"}
"""What Grafana would put in."""
_NUMBER = re.compile(r"[-+]?[0-9.]+(e[-+]?\d+)?$")
_WORD = re.compile(r"\s(?:and|or|unless)\s")
_COMPARED = re.compile(r"\s(?:==|!=|>=|<=|>|<)\s")


class Asked(NamedTuple):
    """One expression and where it stands."""

    where: str
    expr: str


def rules(folder: Path) -> list[tuple[str, dict]]:
    """(file, rule) of every rule."""
    files = sorted(folder.glob("*.yml"))
    return [
        (path.name, rule)
        for path in files
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def of_rules(folder: Path) -> Iterator[Asked]:
    """Of an alert, which is about what should not be, what it compares."""
    for name, rule in rules(folder):
        if "record" in rule:
            yield Asked(f"{name} {rule['record']}", rule["expr"])
            yield Asked(f"{name} {rule['record']}, recorded", rule["record"])
        else:
            for part in compared(rule["expr"]):
                yield Asked(f"{name} {rule['alert']}", part)


def of_dashboards(folder: Path) -> Iterator[Asked]:
    for path in sorted(folder.glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        for where, expr in _held(board, path.stem):
            parts = compared(expr) if "annotations" in where else [expr]
            yield from (Asked(where, filled(part)) for part in parts)


def filled(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, f"a variable that nobody fills in: {expr}"
    return expr


def compared(expr: str) -> list[str]:
    """The sides of every comparison of a condition, without and, or, unless and the numbers."""
    inner = _stripped(expr.strip())
    for splitter in (_WORD, _COMPARED):
        sides = _split(inner, splitter)
        if len(sides) > 1:
            return [part for side in sides for part in compared(side)]
    return [] if _NUMBER.match(inner) else [inner]


def _stripped(expr: str) -> str:
    """Without parentheses around the whole."""
    while expr.startswith("(") and _depths(expr).index(0) == len(expr) - 1:
        expr = expr[1:-1].strip()
    return expr


def _split(expr: str, splitter: re.Pattern[str]) -> list[str]:
    depths, parts, start = _depths(expr), [], 0
    for found in splitter.finditer(expr):
        if depths[found.start()] == 0:
            parts.append(expr[start : found.start()])
            start = found.end()
    return [*parts, expr[start:]]


def _depths(expr: str) -> list[int]:
    """Of each character: how many brackets or quotes it stands in, behind it."""
    found, depth, quoted = [], 0, False
    for letter in expr:
        if letter == '"':
            quoted = not quoted
        elif not quoted:
            depth += (letter in "([{") - (letter in ")]}")
        found.append(depth + quoted)
    return found


def _held(node: object, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if "expr" in node:
            yield where, node["expr"]
        for name, inner in node.items():
            yield from _held(inner, f"{where} {node.get('title', '')} {name}")
    elif isinstance(node, list):
        for inner in node:
            yield from _held(inner, where)
