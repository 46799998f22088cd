"""`load`: all sources in, one frozen `Settings` and the origin of each value out, or all problems at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mendstream.contracts.errors import SettingsError
from mendstream.settings import sources
from mendstream.settings.checks import why_not
from mendstream.settings.fields import FIELD_OF, FIELDS, GROUP_DOCS, Field, toml_value
from mendstream.settings.groups import Settings
from mendstream.settings.secret import Secret, split_password
from mendstream.settings.sources import Given, Problem

FILE = Path("mendstream.toml")
DOTENV = Path(".env")
_PASSWORD_OF = {"store.url": "store.password", "models.mlflow_uri": "models.mlflow_password"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and where each value stood."""

    settings: Settings
    origins: Mapping[str, str]
    """`group.field` -> `default`, `mendstream.toml:12`, `environment NAME`, `.env:3 NAME` or `command line`."""

    def value(self, key: str) -> Any:
        return value_of(self.settings, key)

    def shown(self) -> list[dict[str, Any]]:
        """Every setting for a report; secrets as stars."""
        return [
            {"key": field.key, "value": _printable(self.value(field.key)), "origin": self.origins[field.key]}
            for field in FIELDS
        ]


def load(
    file: Path | None = None,
    *,
    env: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
    dotenv: Path | None = DOTENV,
    ignore_brief_names: bool = False,
) -> Loaded:
    """Defaults < TOML file < the brief's names < MENDSTREAM_GROUP_FIELD < `overrides` (`{"run.fuse": True}`).

    Without `file`, mendstream.toml of the working folder is read if there is one. A name of the environment beats the
    same name in `dotenv`. Raises SettingsError with all problems at once.
    """
    problems: list[Problem] = []
    given: list[Given] = []
    if file is not None or FILE.exists():
        given += sources.from_file(file or FILE, problems)
    names = sources.from_dotenv(dotenv, problems) if dotenv is not None and dotenv.is_file() else {}
    names |= {name: (value, f"environment {name}") for name, value in env.items()}
    if not ignore_brief_names:
        given += sources.from_brief(names, problems)
    given += sources.from_names(names, problems)
    given += sources.from_overrides(overrides or {}, problems)
    values, origins = _merge(given, problems)
    if problems:
        raise _error(problems)
    return Loaded(_settings(values), {field.key: origins.get(field.key, "default") for field in FIELDS})


def value_of(settings: Settings, key: str) -> Any:
    """The value of `group.field`."""
    group, _, name = key.rpartition(".")
    return getattr(getattr(settings, group) if group else settings, name)


def to_environment(settings: Settings) -> dict[str, str]:
    """`settings` as MENDSTREAM_GROUP_FIELD, for a child process: with it, files change nothing. Holds the secrets."""
    return {field.env: _text(value_of(settings, field.key)) for field in FIELDS}


def _merge(given: Iterable[Given], problems: list[Problem]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for item in sorted(given, key=lambda item: (item.rank, item.key in _PASSWORD_OF.values())):
        value = _value(item, problems)
        if item.key in _PASSWORD_OF and isinstance(value, str):
            password = _PASSWORD_OF[item.key]
            value, inside = split_password(value)
            # Another URL is another account: a password that a weaker source gave does not belong to it. One that
            # the same source gives comes after it.
            values[password], origins[password] = inside, item.origin
        values[item.key], origins[item.key] = value, item.origin
    return values, origins


def _value(item: Given, problems: list[Problem]) -> Any:
    """The value in its type; a problem, and the default, if it is not one."""
    field = FIELD_OF[item.key]
    try:
        value = _convert(field, item)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        # For a choice the library repeats the value. A choice is no secret, but a password may have slipped into it.
        text = f"must be {' or '.join(field.choices)}" if field.choices else str(error).replace("`", "")
        problems.append(Problem(item.origin, f"{field.key}: {text}", _hint(field, item)))
        return field.default
    if reason := why_not(field.key, value):
        problems.append(Problem(item.origin, f"{field.key} {reason}"))
        return field.default
    return value


def _convert(field: Field, item: Given) -> Any:
    if field.kind == "secret":
        return item.value if isinstance(item.value, Secret) else Secret(msgspec.convert(item.value, str))
    raw = item.value
    if item.text and field.kind == "table":
        raw = _table(raw)
    return msgspec.convert(raw, field.type, strict=not item.text)


def _table(text: str) -> Any:
    """`model=2,feature=1`, or a JSON object."""
    if text.lstrip().startswith("{"):
        return msgspec.json.decode(text)
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(mark for _, mark, _ in pairs):
        raise msgspec.ValidationError("Expected `name=value,name=value`")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _hint(field: Field, item: Given) -> str:
    if field.choices and isinstance(item.value, str):
        near = sources.nearest(item.value, dict.fromkeys(field.choices))
        return near or _usual(field)
    return _usual(field)


def _usual(field: Field) -> str:
    return f"{field.wanted}, default {toml_value(field.default)}"


def _settings(values: Mapping[str, Any]) -> Settings:
    groups = {
        group: type(getattr(_DEFAULTS, group))(
            **{key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{group}.")}
        )
        for group in GROUP_DOCS
    }
    return Settings(**{key: value for key, value in values.items() if "." not in key}, **groups)


_DEFAULTS = Settings()


def _error(problems: list[Problem]) -> SettingsError:
    if len(problems) == 1:
        return SettingsError(f"{problems[0].where}: {problems[0].what}", hint=problems[0].hint)
    lines = [f"{p.where}: {p.what}" + (f" ({p.hint})" if p.hint else "") for p in problems]
    return SettingsError(
        "\n  ".join([f"{len(problems)} problems in the settings", *lines]), hint="mend each line named"
    )


def _printable(value: Any) -> Any:
    return str(value) if isinstance(value, Secret) else value


def _text(value: Any) -> str:
    match value:
        case Secret():
            return value.reveal()
        case str():
            return value
        case _:
            return msgspec.json.encode(value).decode()
