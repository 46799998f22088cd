"""A database URL in; a database at the newest version, or an error that says why not, out.

To import SQLAlchemy costs 0.2 s of CPU and Alembic as much again (0.6 and 0.15 s more where no bytecode is cached), and
`mendstream run` wants to start in 3 s: a SQLite file that is up to date is recognised with the standard library alone,
and a new one is made from the models without Alembic.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mendstream.adapters.store.refusals import BUSY_TIMEOUT_MS, refusal
from mendstream.contracts.errors import DataDirError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

HEAD = "0001"
"""The newest revision under migrations/versions."""
VERSION_TABLE = "mendstream_version"
"""Not Alembic's usual name: MLflow has that one, and may be in the same database."""
_MIGRATIONS = Path(__file__).parent / "migrations"
_READ_VERSION = f"SELECT version_num FROM {VERSION_TABLE}"
# As Alembic writes it, so that both ways to a new database end in the same place.
_MAKE_VERSION = f"""CREATE TABLE IF NOT EXISTS {VERSION_TABLE} (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num)
)"""


def init_db(url: str) -> None:
    """Bring the database to the newest version; make it if it is new."""
    path = _plain_path(url)
    if path is None:
        upgrade(url)
        return
    match _sqlite_version(url, path):
        case str(found) if found == HEAD:
            return
        case None:
            _create(url)
        case _:
            upgrade(url)


def upgrade(url: str) -> None:
    """Run the migrations that are missing."""
    if current(url) == HEAD:
        return
    from alembic import command

    with _migrating(url) as config:
        command.upgrade(config, "head")


def downgrade(url: str, revision: str) -> None:
    """Go back to `revision`; `base` drops all tables. The log still has everything: see Recorder.rebuild."""
    from alembic import command

    with _migrating(url) as config:
        command.downgrade(config, revision)


def current(url: str) -> str | None:
    """The database's revision; None if it has none yet."""
    from mendstream.adapters.store import database

    path = database.sqlite_path(url)
    if path is not None and not path.exists():
        return None
    engine = database.engine(url, read_only=True)
    try:
        with database.refusing(url), engine.begin() as connection:
            return _version(connection)
    finally:
        engine.dispose()


def _plain_path(url: str) -> Path | None:
    """The file of a URL that needs no SQLAlchemy to be understood."""
    head, _, path = url.partition(":///")
    plain = head == "sqlite" and path and not {"?", "%"} & set(path) and not path.startswith((":", "file:"))
    return Path(path) if plain else None


def _sqlite_version(url: str, path: Path) -> str | None:
    """The file's revision; None if it is missing or has none. A file that cannot be written is refused here."""
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (VERSION_TABLE,)).fetchone()
            row = connection.execute(_READ_VERSION).fetchone() if made else None
            if made:  # a write that changes nothing: a file that may only be read lets any transaction begin
                connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = version_num")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise refusal(url, str(error)) from error
    return str(row[0]) if row else None


def _create(url: str) -> None:
    """All tables at once, marked with the newest revision."""
    from mendstream.adapters.store import database
    from mendstream.adapters.store.models import Base

    engine = database.engine(url)
    try:
        with database.refusing(url), engine.begin() as connection:
            if _version(connection) is None:  # asked again under the lock: two processes may have started at once
                Base.metadata.create_all(connection, checkfirst=False)
                connection.exec_driver_sql(_MAKE_VERSION)
                connection.exec_driver_sql(f"INSERT INTO {VERSION_TABLE} VALUES ('{HEAD}')")
    finally:
        engine.dispose()


@contextmanager
def _migrating(url: str) -> Iterator[Config]:
    """Alembic's settings on one open transaction: all migrations of a run, or none."""
    from mendstream.adapters.store import database

    engine = database.engine(url, migrating=True)
    try:
        with database.refusing(url), engine.begin() as connection:
            config = _config(connection)
            _refuse_newer(database.shown(url), _version(connection), config)
            yield config
    finally:
        engine.dispose()


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _refuse_newer(url: str, found: str | None, config: Config) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise DataDirError(
            f"{url} is at version {found}, this mendstream knows versions up to {HEAD}",
            hint="use the newer mendstream that made it, or name another store",
        )


def _version(connection: Connection) -> str | None:
    from sqlalchemy import inspect

    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.exec_driver_sql(_READ_VERSION).scalar()
    return None if found is None else str(found)


def render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """How a new migration spells our column types. Alembic would write JSONB(astext_type=Text()) and not import it."""
    from sqlalchemy import Enum

    from mendstream.adapters.store.columns import Json, Text, UtcDateTime

    if kind != "type":
        return False
    if isinstance(item, Json | UtcDateTime):
        return f"columns.{type(item).__name__}()"
    if isinstance(item, Text):
        return "sa.String()"
    return f"sa.String(length={item.length})" if isinstance(item, Enum) else False
