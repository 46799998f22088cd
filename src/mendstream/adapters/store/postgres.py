"""PostgreSQL: what a URL's query may say, how its connections behave, and what to do about what the server says."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from mendstream.contracts.errors import CouldNot, DataDirError, NoAnswer, NotLetIn, SettingsError

_LIMITS = {"connect_timeout": 5, "statement_timeout": 10, "pool_size": 4, "pool_timeout": 5}
"""Seconds, and connections: what the query of the store's URL says, else these."""
# A server that vanishes from the network says nothing: the kernel asks whether it is there, and gives up after 25 s.
_KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
_MIGRATING = 0x6D656E64
"""The advisory lock of whoever migrates: any number that nobody else is likely to take."""

_LATER = "it is asked again until it answers"
_UPGRADE = "run `mendstream db upgrade` on the same store"
# SQLSTATE or its class -> what it is, and what to do. The others are told as they are.
_STATES: dict[str, tuple[type[CouldNot], str]] = {
    "08": (NoAnswer, _LATER),  # the connection
    "25006": (NoAnswer, "it is a standby, or set to read-only: name the primary in the store's URL"),
    "25P03": (NoAnswer, _LATER),
    "3F000": (CouldNot, _UPGRADE),
    "40": (NoAnswer, _LATER),  # rolled back in favour of another transaction
    "42703": (CouldNot, _UPGRADE),
    "42P01": (CouldNot, _UPGRADE),
    "42P07": (DataDirError, "tables of these names belong to something else: name another database"),
    "53": (NoAnswer, "the server is out of memory or connections: give it more, or close other clients"),
    "53100": (NoAnswer, "make room on the database's disk: nothing is lost, the log has everything"),
    "55P03": (NoAnswer, _LATER),
    "57": (NoAnswer, _LATER),  # shut down, starting up, statement time-out
    "58": (NoAnswer, "the server's machine failed it: see its log"),
}
_MEND_URL = "mend the store's URL"
_NOT_LET_IN = (
    ("password", "set DB_PASSWORD, or MENDSTREAM_STORE_PASSWORD, to the password of {user}"),
    ('role ".*" does not exist', "make the user: `createuser {at} --pwprompt {user}`"),
    ('database ".*" does not exist', "make the database: `createdb {at} --owner {user} {name}`"),
    ("not permitted to log in", "let it in: `psql {at} -d postgres -c 'ALTER ROLE {user} LOGIN'`"),
    ("pg_hba.conf", "add a line for {user} and {name} to the server's pg_hba.conf, and reload it"),
    ("denied for database", "let it in: `psql {at} -d postgres -c 'GRANT CONNECT ON DATABASE {name} TO {user}'`"),
    ("denied for schema", "let it in: `psql {at} -d {name} -c 'GRANT USAGE, CREATE ON SCHEMA public TO {user}'`"),
    ("denied for", "let it in: `psql {at} -d {name} -c 'GRANT ALL ON ALL TABLES IN SCHEMA public TO {user}'`"),
    ("must be owner", "migrate as the user that owns the tables"),
    ("does not support SSL|invalid connection option|invalid sslmode", _MEND_URL),
    ("certificate", f"{_MEND_URL}: sslrootcert names who signed the server's certificate, the host must be its own"),
)
"""What a refusal says -> the hint; in order. A connection that is not made has no SQLSTATE."""


def engine(url: URL, *, read_only: bool, migrating: bool, **how: Any) -> Engine:
    """Raises SettingsError if a limit in the URL's query is no number."""
    limit = {name: _number(url, name, usual) for name, usual in _LIMITS.items()}
    statements = f"-c statement_timeout={limit['statement_timeout'] * 1000}"
    # Several hosts alone stay in the URL, where SQLAlchemy knows them: an engine prints its URL, and the rest of the
    # query may hold secrets.
    given = {name: value for name, value in url.query.items() if isinstance(value, str)}
    own = {name: value for name, value in given.items() if name not in _LIMITS}
    made = create_engine(
        url.difference_update_query(given),
        connect_args={
            "application_name": "mendstream",
            **_KEEPALIVES,
            **own,
            "connect_timeout": limit["connect_timeout"],
            "options": f"{statements} {own.get('options', '')}".rstrip(),  # what comes last counts
        },
        pool_size=limit["pool_size"],
        max_overflow=0,
        pool_timeout=limit["pool_timeout"],
        pool_pre_ping=True,  # that the server was restarted while nobody asked is no news
        **how,
    )
    if migrating:
        event.listen(made, "begin", _one_at_a_time)
    return made.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ") if read_only else made


def refusal(url: URL, shown: str, state: str | None, said: str) -> CouldNot:
    """The error for what server or driver `said`, with its SQLSTATE if it gave one."""
    said = " ".join(said.partition("\nLINE ")[0].split())
    kind, hint = _meaning(state, said)
    words = {
        "at": f"-h {url.host or 'localhost'} -p {url.port or 5432}",
        "user": url.username or "USER",
        "name": url.database or url.username or "NAME",
    }
    return kind(f"{shown}: {said}", hint=hint.format(**words))


def _meaning(state: str | None, said: str) -> tuple[type[CouldNot], str]:
    if state is None or state == "42501":
        for pattern, hint in _NOT_LET_IN:
            if re.search(pattern, said):
                return NotLetIn, hint
    if state is None:
        return NoAnswer, "is the server running, and are host and port in the store's URL right?"
    return _STATES.get(state) or _STATES.get(state[:2]) or (CouldNot, "")


def _one_at_a_time(connection: Connection) -> None:
    """Whoever migrates waits for others who do, and takes the time that it takes."""
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")


def _number(url: URL, name: str, usual: int) -> int:
    given = url.query.get(name, str(usual))
    if not (isinstance(given, str) and given.isascii() and given.isdigit() and int(given)):
        raise SettingsError(f"the store's URL: {name} must be a whole number above 0", hint=_MEND_URL)
    return int(given)
