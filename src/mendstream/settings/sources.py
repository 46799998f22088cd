"""Where values come from: the TOML file, the environment, `.env`, the brief's names, the command line.

Each reader gives `Given`s (key, value, where it stands) and adds what it cannot read to the list of problems.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mendstream.contracts.errors import CouldNot, SettingsError
from mendstream.settings.fields import FIELD_OF, FIELD_OF_ENV, GROUP_DOCS

PREFIX = "MENDSTREAM_"
DB_NAMES = ("DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME")
BRIEF_NAMES = ("KAFKA_BOOTSTRAP_SERVERS", *DB_NAMES, "MLFLOW_TRACKING_URI")
"""The original request's names in the environment."""
_OTLP = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Where a collector is, as every program of OpenTelemetry is told."""

FILE, BRIEF, OWN, COMMAND_LINE = range(4)
"""Ranks: defaults < file < the brief's names < MENDSTREAM_GROUP_FIELD < command line."""


@dataclass(frozen=True, slots=True)
class Given:
    """One value that somebody gave."""

    key: str
    value: Any
    origin: str
    """For people: `mendstream.toml:12`, `environment MENDSTREAM_RUN_FUSE`, `command line`."""
    rank: int
    """A higher one wins; the constants below."""

    @property
    def text(self) -> bool:
        """It came as text: read `8001` as a number where a number is wanted."""
        return self.rank != FILE and isinstance(self.value, str)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. Never quotes a value: it may be a secret."""

    where: str
    what: str
    hint: str = ""


def nearest(name: str, known: Mapping[str, Any]) -> str:
    """`did you mean ...?`, or an empty string if nothing is near."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {found[0]}?" if found else ""


# --- the file --------------------------------------------------------------------------------------------------------


def from_file(path: Path, problems: list[Problem]) -> list[Given]:
    """Values of a TOML file, each with its line."""
    text = _text(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        where = f"{path}:{line[1] if line else len(text.splitlines())}"
        problems.append(Problem(where, f"not TOML: {error}", "texts stand in quotes, and each key stands once"))
        return []
    lines = _lines(text)
    return list(_given(path, data, lines, problems))


def _given(path: Path, data: dict[str, Any], lines: dict[str, int], problems: list[Problem]) -> Iterator[Given]:
    for name, value in data.items():
        where = f"{path}:{lines.get(name, 1)}"
        if name in FIELD_OF:
            yield Given(name, value, where, FILE)
        elif name not in GROUP_DOCS:
            what = "table" if isinstance(value, dict) else "key"
            problems.append(Problem(where, f"unknown {what} {name}", _suggest(name)))
        elif not isinstance(value, dict):
            problems.append(Problem(where, f"{name} is a table", f"write [{name}] above its keys"))
        else:
            for inner, item in value.items():
                key = f"{name}.{inner}"
                where = f"{path}:{lines.get(key, lines.get(name, 1))}"
                if key in FIELD_OF:
                    yield Given(key, item, where, FILE)
                else:
                    problems.append(Problem(where, f"unknown key {key}", _suggest(key)))


def _suggest(key: str) -> str:
    """The nearest key, in its own table first; a group's key that stands alone is told its table."""
    name = key.rpartition(".")[2]
    homes = [known for known in FIELD_OF if known == name or known.endswith(f".{name}")]
    if homes:
        return f"did you mean {homes[0]}?"
    group = key.partition(".")[0] + "."
    inside = {known: None for known in FIELD_OF if known.startswith(group)} if "." in key else {}
    return nearest(key, inside) or nearest(key, {**GROUP_DOCS, **FIELD_OF})


def _lines(text: str) -> dict[str, int]:
    """`group.key` -> the line that it stands on (tomllib keeps none). Read only after the text has parsed."""
    found: dict[str, int] = {}
    table, quotes = "", ""
    for number, line in enumerate(text.splitlines(), start=1):
        if quotes:  # inside a text of several lines: no key stands here
            quotes = "" if quotes in line else quotes
            continue
        if head := re.match(r"\s*\[\[?([^\[\]]+)\]", line):
            table = _name(head[1])
            found.setdefault(table.partition(".")[0], number)
            found.setdefault(".".join(table.split(".")[:2]), number)
        elif key := re.match(r"\s*([\w\"'. \t-]+?)\s*=", line):
            name = ".".join(part for part in (table, _name(key[1])) if part)
            found.setdefault(name.partition(".")[0], number)
            found.setdefault(".".join(name.split(".")[:2]), number)
            for inner in re.findall(r"[{,]\s*([\w-]+)\s*=", line):  # run = { fuse = true }
                found.setdefault(f"{name}.{inner}", number)
            for mark in ('"""', "'''"):
                if line.count(mark) % 2:
                    quotes = mark
    return found


def _name(dotted: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in dotted.split("."))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise SettingsError(f"there is no file {path}", hint="`mendstream init` writes one") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 (byte {error.start})", hint="save it as UTF-8") from error
    except OSError as error:
        raise CouldNot(f"cannot read {path}: {error.strerror}", hint="mend its rights, or name another file") from error


# --- the environment -------------------------------------------------------------------------------------------------


def from_dotenv(path: Path, problems: list[Problem]) -> dict[str, tuple[str, str]]:
    """Name -> (value, where) of a `.env` file; names that are not ours are other people's."""
    found: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)", line)
        if match is None:
            problems.append(Problem(f"{path}:{number}", "not NAME=value"))
        else:
            found[match[1]] = (_unquoted(match[2]), f"{path}:{number} {match[1]}")
    return found


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return re.split(r"\s+#", value, maxsplit=1)[0].rstrip()


def from_names(names: Mapping[str, tuple[str, str]], problems: list[Problem]) -> list[Given]:
    """Values of MENDSTREAM_GROUP_FIELD."""
    found = []
    for name, (value, where) in sorted(names.items()):
        if not name.startswith(PREFIX):
            continue
        if field := FIELD_OF_ENV.get(name):
            found.append(Given(field.key, value, where, OWN))
        else:
            problems.append(Problem(where, f"unknown setting {name}", nearest(name, FIELD_OF_ENV)))
    return found


def from_brief(names: Mapping[str, tuple[str, str]], problems: list[Problem]) -> list[Given]:
    """What the brief's names mean; an empty one counts as not set."""
    held = {name: names[name] for name in BRIEF_NAMES if names.get(name, ("", ""))[0]}
    found = []
    if "KAFKA_BOOTSTRAP_SERVERS" in held:
        value, where = held["KAFKA_BOOTSTRAP_SERVERS"]
        found += [Given("bus.kind", "kafka", where, BRIEF), Given("bus.bootstrap_servers", value, where, BRIEF)]
    if "MLFLOW_TRACKING_URI" in held:
        value, where = held["MLFLOW_TRACKING_URI"]
        found.append(Given("models.mlflow_uri", value, where, BRIEF))
    if names.get(_OTLP, ("", ""))[0]:
        found.append(Given("tracing.endpoint", *names[_OTLP], BRIEF))
    return found + _database({name: held[name] for name in DB_NAMES if name in held}, problems)


def _database(held: Mapping[str, tuple[str, str]], problems: list[Problem]) -> list[Given]:
    if not held:
        return []
    port, where = held.get("DB_PORT", ("5432", ""))
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        problems.append(Problem(where, "DB_PORT must be a port: 1 to 65535"))
    host, user, database = (held.get(f"DB_{part}", ("", ""))[0] for part in ("HOST", "USER", "NAME"))
    owner = f"{quote(user, safe='')}@" if user else ""
    where = next(iter(held.values()))[1]
    url = f"postgresql://{owner}{host or 'localhost'}:{port}/{quote(database, safe='')}"
    found = [Given("store.url", url, where, BRIEF)]
    if "DB_PASSWORD" in held:
        password, where = held["DB_PASSWORD"]
        found.append(Given("store.password", password, where, BRIEF))
    return found


# --- the command line ------------------------------------------------------------------------------------------------


def from_overrides(overrides: Mapping[str, Any], problems: list[Problem]) -> list[Given]:
    found = []
    for key, value in overrides.items():
        if key in FIELD_OF:
            found.append(Given(key, value, "command line", COMMAND_LINE))
        else:
            problems.append(Problem("command line", f"unknown setting {key}", _suggest(key)))
    return found
