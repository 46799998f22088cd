"""What PostgreSQL says becomes an error with the command that mends it; limits in a URL; no password anywhere."""

from __future__ import annotations

import pytest

from mendstream.adapters.store import database, postgres
from mendstream.contracts.errors import CouldNot, DataDirError, NoAnswer, NotLetIn, SettingsError

SECRET = "canary-7f3a"
URL = f"postgresql://me:{SECRET}@db.example:5433/house?sslpassword={SECRET}&sslmode=verify-full"
FAILED = 'connection failed: connection to server at "10.0.0.1", port 5433 failed: '


def refusal(said, state=None):
    return postgres.refusal(database.parse(URL), database.shown(URL), state, said)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (f'{FAILED}FATAL:  password authentication failed for user "me"', "set DB_PASSWORD"),
        (f"{FAILED}fe_sendauth: no password supplied", "MENDSTREAM_STORE_PASSWORD, to the password of me"),
        (f'{FAILED}FATAL:  role "me" does not exist', "`createuser -h db.example -p 5433 --pwprompt me`"),
        (f'{FAILED}FATAL:  database "house" does not exist', "`createdb -h db.example -p 5433 --owner me house`"),
        (f'{FAILED}FATAL:  role "me" is not permitted to log in', "ALTER ROLE me LOGIN"),
        (f'{FAILED}FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "me"', "pg_hba.conf"),
        (f'{FAILED}FATAL:  permission denied for database "house"', "GRANT CONNECT ON DATABASE house TO me"),
        (f"{FAILED}server does not support SSL, but SSL was required", "mend the store's URL"),
        (f"{FAILED}SSL error: certificate verify failed", "sslrootcert"),
        (f'{FAILED}server certificate for "x" does not match host name "y"', "the host must be its own"),
        ('invalid connection option "foo"', "mend the store's URL"),
    ],
)
def test_who_is_not_let_in_is_told_why_and_what_to_do(said, hint):
    error = refusal(said)
    assert type(error) is NotLetIn
    assert hint in error.hint
    assert str(error).startswith("postgresql://me@db.example:5433/house: ")


def test_a_right_that_is_missing_is_told_with_the_grant_that_gives_it():
    error = refusal("permission denied for schema public\nLINE 1: CREATE TABLE x", "42501")
    assert type(error) is NotLetIn
    assert (
        error.hint == "let it in: `psql -h db.example -p 5433 -d house -c 'GRANT USAGE, CREATE ON SCHEMA public TO me'`"
    )
    assert "LINE" not in str(error)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (f"{FAILED}Connection refused", None),
        ("failed to resolve host 'db.example': [Errno -2] Name or service not known", None),
        (f"{FAILED}FATAL:  the database system is starting up", None),
        (f"{FAILED}FATAL:  sorry, too many clients already", None),
        ("server closed the connection unexpectedly", None),
        ("SSL connection has been closed unexpectedly", None),
        ("terminating connection due to administrator command", "57P01"),
        ("canceling statement due to statement timeout", "57014"),
        ("canceling statement due to lock timeout", "55P03"),
        ("could not serialize access", "40001"),
        ("deadlock detected", "40P01"),
        ("could not extend file: No space left on device", "53100"),
        ("cannot execute INSERT in a read-only transaction", "25006"),
        ("could not read block", "58030"),
    ],
)
def test_what_passes_is_asked_again(said, state):
    error = refusal(said, state)
    assert type(error) is NoAnswer
    assert error.hint


@pytest.mark.parametrize(
    ("said", "state", "kind", "hint"),
    [
        ('relation "incidents" does not exist', "42P01", CouldNot, "mendstream db upgrade"),
        ('column "x" does not exist', "42703", CouldNot, "mendstream db upgrade"),
        ('relation "incidents" already exists', "42P07", DataDirError, "name another database"),
        ("syntax error", "42601", CouldNot, ""),
    ],
)
def test_what_does_not_pass_is_told_with_the_command(said, state, kind, hint):
    error = refusal(said, state)
    assert type(error) is kind
    assert hint in error.hint


def test_the_store_is_named_without_any_secret():
    assert database.shown(URL) == "postgresql://me@db.example:5433/house"
    made = database.engine(URL)
    assert SECRET not in f"{made!r} {made.url}"


def test_postgresql_means_psycopg_3():
    assert database.parse("postgresql://h/d").drivername == "postgresql+psycopg"
    assert database.parse("postgresql+psycopg://h/d").drivername == "postgresql+psycopg"


def test_limits_in_the_url_are_for_pool_and_server_and_not_for_the_driver(monkeypatch):
    seen = {}

    def connect(*args, **given):
        seen.update(given)
        raise KeyboardInterrupt

    limits = "connect_timeout=7&statement_timeout=3&pool_size=2&pool_timeout=9"
    made = database.engine(f"postgresql://me@h/d?{limits}&options=-c%20search_path%3Dx&keepalives_idle=60")
    monkeypatch.setattr(made.dialect.loaded_dbapi, "connect", connect)
    with pytest.raises(KeyboardInterrupt):
        made.connect()
    assert (seen["connect_timeout"], seen["options"]) == (7, "-c statement_timeout=3000 -c search_path=x")
    assert (seen["keepalives_idle"], seen["application_name"]) == ("60", "mendstream")
    assert not {"statement_timeout", "pool_size", "pool_timeout"} & seen.keys()
    assert (made.pool.size(), made.pool._max_overflow, made.pool._timeout) == (2, 0, 9)


@pytest.mark.parametrize("wrong", ["pool_size=0", "statement_timeout=soon", "connect_timeout=-1"])
def test_a_limit_that_is_no_number_is_a_setting_to_mend(wrong):
    with pytest.raises(SettingsError, match=wrong.partition("=")[0]):
        database.engine(f"postgresql://me@h/d?{wrong}")
