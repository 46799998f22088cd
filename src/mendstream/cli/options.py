"""Options that every verb that needs settings takes, before the verb or behind it; `Door.load()` reads the settings."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mendstream.contracts.errors import UsageError

if TYPE_CHECKING:
    from mendstream.settings import Loaded, Settings

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Door:
    """What the command line says about settings, before they are read."""

    config: Path | None = None
    overrides: dict[str, Any] = field(default_factory=dict)

    def load(self, **more: Any) -> Loaded:
        """The settings; `more` are values that options of the verb's own have set, as `run__fuse=True`."""
        from mendstream.settings import load

        own = {key.replace("__", "."): value for key, value in more.items() if value is not None}
        return load(self.config, env=os.environ, overrides={**self.overrides, **own})

    def settings(self, **more: Any) -> Settings:
        return self.load(**more).settings

    def over(self, weaker: Door) -> Door:
        """What stands behind the verb beats what stands before it."""
        return replace(self, config=self.config or weaker.config, overrides={**weaker.overrides, **self.overrides})


def settings_options(function: F) -> F:
    """Adds --config, --data, --set, --bus and --store; the function gets them as one `door`."""

    @functools.wraps(function)
    def with_door(
        *args: Any, config: Path | None, data: str | None, sets: tuple[str, ...], bus: str | None, store: str | None,
        **more: Any,
    ) -> Any:  # fmt: skip
        door = Door(config, _overrides(data, sets, bus, store))
        before = click.get_current_context().find_object(Door)
        return function(*args, door=door.over(before) if before else door, **more)

    for option in reversed(_OPTIONS):
        with_door = option(with_door)
    return with_door  # type: ignore[return-value]


_OPTIONS = (
    click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings file [mendstream.toml]."),
    click.option("--data", metavar="DIR", help="Data directory [.mendstream]."),
    click.option("--set", "sets", multiple=True, metavar="GROUP.FIELD=VALUE", help="One setting; may be repeated."),
    click.option("--bus", metavar="KIND", help="Bus: lmdb, or kafka://HOST:PORT."),
    click.option("--store", metavar="URL", help="Store: sqlite, or a database URL."),
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")


def _overrides(data: str | None, sets: tuple[str, ...], bus: str | None, store: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in sets:
        key, mark, value = one.partition("=")
        if not mark:
            raise UsageError(f"--set {key} has no value", hint="write it as --set run.fuse=true")
        found[key.strip()] = value
    if data is not None:
        found["run.data_dir"] = data
    if bus is not None:
        kind, mark, servers = bus.partition("://")
        found["bus.kind"] = kind
        if mark:
            found["bus.bootstrap_servers"] = servers
    if store is not None:
        found["store.url"] = "" if store == "sqlite" else store
    return found


def param_pairs(pairs: tuple[str, ...], option: str) -> dict[str, str | int | float | bool]:
    """`name=value` of a repeatable option; numbers and truth values are read as such."""
    import json

    found: dict[str, str | int | float | bool] = {}
    for pair in pairs:
        name, mark, text = pair.partition("=")
        if not mark or not name:
            raise UsageError(f"{option} {pair} is not NAME=VALUE", hint=f"write it as {option} delay_ms=800")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[name] = value if isinstance(value, int | float | bool) else text
    return found
