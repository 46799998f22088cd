"""What only PostgreSQL can do to the store: refuse a user, lack a right, restart, hang. On a real server."""

from __future__ import annotations

import signal
import threading
import traceback

import psutil
import psycopg
import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.orm import Session
from tests.support.services import service
from tests.support.stores import new_database
from tests.unit.store.literal_log import FakeBus, changes, whole_log

from mendstream.adapters.store import database, queries, schema
from mendstream.adapters.store import recorder as module
from mendstream.adapters.store.recorder import Recorder
from mendstream.contracts.errors import CouldNot, NoAnswer, NotLetIn

pytestmark = pytest.mark.services
SECRET = "canary-7f3a"


@pytest.fixture
def store(postgres):
    with new_database(postgres.url) as made:
        yield made


@pytest.fixture
def recorder_of():
    """Makes recorders and closes them."""
    made = []

    def make(*given, **more):
        made.append(Recorder(*given, **more))
        return made[-1]

    yield make
    for recorder in made:
        recorder.close()


@pytest.fixture
def own():
    """A server that a test may hurt, and a database on it."""
    with service("postgres") as server, psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE house")
        connection.close()
        yield server, make_url(server.url).set(database="house").render_as_string(hide_password=False)


@pytest.fixture
def guest(store):
    """A user without any right, known to the server by a password."""
    store.sql(f"CREATE ROLE guest LOGIN PASSWORD '{SECRET}'")
    yield make_url(store.url).set(username="guest", password=SECRET).render_as_string(hide_password=False)
    store.sql("DROP OWNED BY guest")
    store.sql("DROP ROLE guest")


def refused(url):
    """What init_db says, and nothing of it, the traceback either, holds the password."""
    with pytest.raises(CouldNot) as caught:
        schema.init_db(url)
    said = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert SECRET not in said
    return caught.value


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_database_that_does_not_exist_is_told_with_the_command_that_makes_it(postgres):
    url = make_url(postgres.url).set(database="nowhere")
    error = refused(url.render_as_string())
    assert type(error) is NotLetIn
    assert error.hint == f"make the database: `createdb -h {url.host} -p {url.port} --owner postgres nowhere`"


def test_a_user_that_does_not_exist_is_told_with_the_command_that_makes_it(store):
    error = refused(make_url(store.url).set(username="stranger", password=SECRET).render_as_string(hide_password=False))
    assert type(error) is NotLetIn
    assert "createuser" in error.hint


def test_a_wrong_password_is_told_and_never_shown():
    with service("postgres") as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE guest LOGIN PASSWORD 'right-{SECRET}'".encode())
            path = connection.execute("SHOW hba_file").fetchone()[0]
            with open(path, "w") as rules:
                rules.write("host all guest 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n")
            connection.execute("SELECT pg_reload_conf()")
        url = make_url(server.url).set(username="guest", password=f"wrong-{SECRET}")
        error = refused(url.render_as_string(hide_password=False))
    assert type(error) is NotLetIn
    assert 'password authentication failed for user "guest"' in str(error)
    assert "DB_PASSWORD" in error.hint


def test_a_user_without_rights_is_told_with_the_grant_and_has_all_it_needs_once_that_is_done(store, guest, recorder_of):
    error = refused(guest)
    assert type(error) is NotLetIn
    assert "GRANT USAGE, CREATE ON SCHEMA public TO guest" in error.hint
    store.sql("GRANT USAGE, CREATE ON SCHEMA public TO guest")
    schema.init_db(guest)
    recorder = recorder_of(whole_log(), guest)
    assert recorder.pump()


def test_a_server_that_is_not_there_is_no_answer():
    with pytest.raises(NoAnswer, match="Connection refused"):
        schema.init_db("postgresql://me@127.0.0.1:1/d")


def test_a_database_that_lost_its_tables_is_told_with_the_command(store, recorder_of):
    schema.init_db(store.url)
    store.sql("DROP TABLE recorder_positions")
    with pytest.raises(CouldNot, match="does not exist") as caught:
        recorder_of(whole_log(), store.url).apply()
    assert "mendstream db upgrade" in caught.value.hint


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_statement_that_takes_too_long_is_ended_and_asked_again(store):
    engine = database.engine(f"{store.url}?statement_timeout=1")
    with pytest.raises(NoAnswer, match="statement timeout"), database.refusing(store.url), engine.begin() as connection:
        connection.execute(text("SELECT pg_sleep(60)"))
    engine.dispose()


def test_a_lock_that_somebody_holds_for_long_is_no_answer_and_then_everything_is_there(store, recorder_of):
    url = f"{store.url}?statement_timeout=1"
    schema.init_db(url)
    now = [0.0]
    recorder = recorder_of(whole_log(), url, stopwatch=lambda: now[0])
    with psycopg.connect(store.url) as other:
        other.execute("LOCK TABLE incidents")
        assert not recorder.pump()
        assert "statement timeout" in recorder.waits_for
    now[0] = 60.0
    assert recorder.pump()
    assert len(store.sql("SELECT * FROM incidents")) == 5


def test_a_migration_may_take_longer_than_a_statement(store):
    with psycopg.connect(store.url) as other:
        other.execute(f"SELECT pg_advisory_xact_lock({0x6D656E64})".encode())
        migrating = threading.Thread(target=schema.init_db, args=[f"{store.url}?statement_timeout=1"])
        migrating.start()
        migrating.join(1.5)
        assert migrating.is_alive()
    migrating.join()
    assert schema.current(store.url) == schema.HEAD


def test_a_process_opens_no_more_connections_than_its_pool_has(store):
    engine = database.engine(f"{store.url}?pool_size=1&pool_timeout=1")
    with pytest.raises(NoAnswer, match="all connections") as caught, database.refusing(store.url), engine.connect():
        engine.connect()
    assert "store.pool_size" in caught.value.hint
    engine.dispose()


# --- more than one at a time -----------------------------------------------------------------------------------------


def test_recorders_that_start_at_once_on_a_new_database_agree_on_where_it_begins(store, recorder_of):
    schema.init_db(store.url)
    one, other = recorder_of(whole_log(), store.url), recorder_of(whole_log(), store.url)
    meets = threading.Event()
    event.listen(
        other._engine, "before_cursor_execute", lambda c, cur, sql, *_: meets.set() if "INSERT" in sql else None
    )
    starting = threading.Thread(target=other._load)
    with Session(one._engine) as session, session.begin():
        session.add_all(module._row(stream, module.Mark(incarnation="log-1")) for stream in one.reads)
        session.flush()
        starting.start()
        assert meets.wait(30)  # it has found no rows, and now waits for whoever makes them
    starting.join()
    assert other._marks == one._load()
    assert [row["position"] for row in store.sql("SELECT position FROM recorder_positions")] == [0, 0]


def test_a_rebuild_keeps_other_recorders_out_until_it_is_done(store, recorder_of):
    schema.init_db(store.url)
    bus = FakeBus()
    bus.append(*changes())
    one, other = recorder_of(bus, store.url), recorder_of(bus, store.url)
    assert one.pump()
    bus.lines = whole_log().lines
    emptied, waits = threading.Event(), []

    def halfway(_connection, _cursor, statement, *_):
        if "DELETE FROM memory_chunks" in statement:
            thread = threading.Thread(target=one.apply)
            thread.start()
            thread.join(0.5)
            waits.append(thread)
            emptied.set()
            assert thread.is_alive()

    event.listen(other._engine, "before_cursor_execute", halfway)
    other.rebuild()
    assert emptied.is_set()
    waits[0].join()
    while one.pump():
        pass
    assert len(store.sql("SELECT * FROM incidents")) == 5
    assert len(store.sql("SELECT * FROM config_history")) == 2


# --- a server that goes away -----------------------------------------------------------------------------------------


def test_a_restart_while_nobody_asked_is_no_news(own, recorder_of):
    server, url = own
    bus = FakeBus()
    recorder = recorder_of(bus, url)
    assert not recorder.pump()
    server.restart()
    bus.append(*changes())
    assert recorder.pump()
    assert recorder.waits_for == ""


def test_a_server_that_dies_is_waited_for_also_by_a_recorder_that_starts_meanwhile(own, recorder_of):
    server, url = own
    now = [0.0]
    recorder = recorder_of(FakeBus(), url, stopwatch=lambda: now[0])
    assert not recorder.pump()
    server.kill()
    late = recorder_of(whole_log(), url, stopwatch=lambda: now[0])
    recorder._log.lines = whole_log().lines
    for one in (recorder, late):
        assert not one.pump()
        assert "refused" in one.waits_for
    with pytest.raises(NoAnswer):
        queries.incidents(url)
    server.restart()
    now[0] = 10.0
    assert recorder.pump()
    late.pump()
    assert (recorder.waits_for, late.waits_for) == ("", "")
    assert len(queries.incidents(url)) == 5


def test_a_frozen_server_is_told_while_it_is_waited_for(own, monkeypatch, recorder_of):
    server, url = own
    monkeypatch.setattr(module, "SLOW_S", 0.2)
    bus = FakeBus()
    recorder = recorder_of(bus, url)
    assert not recorder.pump()
    bus.lines = whole_log().lines
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    asking = threading.Thread(target=recorder.pump)
    try:
        for process in family:
            process.send_signal(signal.SIGSTOP)
        asking.start()
        asking.join(0.5)
        assert "has not answered for" in recorder.waits_for
    finally:
        for process in family:
            process.send_signal(signal.SIGCONT)
    asking.join()
    while recorder.pump():
        pass
    assert recorder.waits_for == ""
    assert len(queries.incidents(url)) == 5


@pytest.mark.parametrize("committed", [False, True], ids=["before it is done", "done and not told"])
def test_a_server_that_dies_around_a_commit_has_every_row_once(own, recorder_of, committed):
    server, url = own
    now = [0.0]
    recorder = recorder_of(whole_log(), url, stopwatch=lambda: now[0])
    schema.init_db(url)
    recorder._load()

    def die(connection):
        driver = connection.connection.driver_connection
        if committed:
            driver.commit()
            driver.execute("SELECT 1")  # so that there is something to commit, and its answer never comes
        server.kill()

    event.listen(recorder._engine, "commit", die)
    assert not recorder.pump()
    assert recorder.waits_for
    event.remove(recorder._engine, "commit", die)
    server.restart()
    now[0] = 10.0
    assert recorder.pump() is not committed
    with psycopg.connect(url) as connection:
        counts = [
            connection.execute(f"SELECT count(*), count(DISTINCT {key}) FROM {table}".encode()).fetchone()
            for table, key in (("incidents", "incident_id"), ("healing_actions", "action_id"))
        ]
    assert counts == [(5, 5), (4, 4)]
