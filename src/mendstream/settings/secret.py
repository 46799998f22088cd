"""A value that prints as stars; passwords are taken out of URLs before anybody can print those."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, unquote

from mendstream.contracts.errors import SettingsError

STARS = "***"


class Secret:
    """Holds a password. Only `reveal()` gives it out; printing, formatting, comparing in a report do not."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        """The password itself: for the library that connects, never for a message."""
        return self._value

    def __repr__(self) -> str:
        return STARS if self._value else ""

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


def referred(setting: str, name: str, value: str) -> str:
    """`value` itself, or the secret that `env:NAME` or `file:PATH` refers to. Raises SettingsError if it cannot."""
    kind, _, where = value.partition(":")
    try:
        if kind == "env":
            return os.environ[where]
        if kind == "file":
            return Path(where).read_text().strip()
    except (KeyError, OSError) as error:
        raise SettingsError(
            f"{setting}: {name} refers to {value}, which cannot be read: {error}",
            hint="set the variable, or make the file readable",
        ) from error
    return value


def split_password(url: str) -> tuple[str, Secret]:
    """(`url` without its password, the password)."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url, Secret()
    rest, asked = _from_query(rest)
    user, at, tail = _at_host(rest)
    name, colon, password = user.partition(":")
    if not (at and colon):
        return f"{scheme}://{rest}", Secret(asked)
    return f"{scheme}://{name}@{tail}", Secret(unquote(password) or asked)


def with_password(url: str, password: Secret) -> str:
    """`url` with the password put back, quoted: handed to a library, never printed."""
    scheme, mark, rest = url.partition("://")
    if not (mark and password):
        return url
    user, at, tail = _at_host(rest)
    return f"{scheme}://{user if at else ''}:{quote(password.reveal(), safe='')}@{tail if at else rest}"


def _at_host(rest: str) -> tuple[str, str, str]:
    """What stands before the host, "@" if anything does, and the rest from the host on."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        user, at, host = authority.rpartition("@")
        return user, at, host + rest[len(authority) :]
    port = authority.partition(":")[2]
    if "@" in rest and port and not port.isdigit():  # no port: a password with a raw slash in it
        return rest.rpartition("@")
    return "", "", rest


def _from_query(rest: str) -> tuple[str, str]:
    """(`rest` without a `password=` in its query, that password)."""
    found = re.search(r"([?&])password=([^&#]*)(&?)", rest)
    if found is None:
        return rest, ""
    kept = found[1] if found[3] else ""
    return rest[: found.start()] + kept + rest[found.end() :], unquote(found[2])
