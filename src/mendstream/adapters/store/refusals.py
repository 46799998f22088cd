"""SQLite's own words become an error that says what to do. No SQLAlchemy here: the fast start uses it too."""

from __future__ import annotations

from pathlib import Path

from mendstream.adapters.room import hardly_any
from mendstream.contracts.errors import CouldNot, DataDirError, LogFull, NoAnswer

BUSY_TIMEOUT_MS = 5000
"""How long to wait for another writer of the same SQLite file."""

_HINTS: tuple[tuple[str, type[CouldNot], str], ...] = (
    ("readonly", DataDirError, "give write permission to the file and its folder, or name another store"),
    ("unable to open", DataDirError, "the folder must exist and be readable; or name another store"),
    ("not a database", DataDirError, "the file is something else: name another store"),
    ("malformed", DataDirError, "the file is torn: move it away and run `mendstream db upgrade --rebuild`"),
    ("already exists", DataDirError, "tables of these names belong to something else: name another store"),
    ("database is locked", NoAnswer, "another process is writing for long: stop it, then try again"),
    ("is full", LogFull, "make room on the disk and start again; nothing is lost, the log has everything"),
    ("no such table", CouldNot, "run `mendstream db upgrade`"),
)


def refusal(url: str, said: str) -> CouldNot:
    """The error for what SQLite `said`."""
    said = " ".join(said.split())
    if "disk I/O error" in said and _no_room(url):  # SQLite says so of the files beside the database
        said = "database or disk is full"
    for word, kind, hint in _HINTS:
        if word in said:
            return kind(f"{url}: {said}", hint=hint)
    return CouldNot(f"{url}: {said}")


def _no_room(url: str) -> bool:
    return hardly_any(Path(url.partition(":///")[2]).parent)
