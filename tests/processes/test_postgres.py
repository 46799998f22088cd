"""The store on a real PostgreSQL server that is killed, under recorders that are killed: SQL is what the log says."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url
from tests.processes.house import Running, Spawned, mendstream, wait_for
from tests.processes.monkey import BUDGET
from tests.processes.recording import INCIDENTS, long_log
from tests.support.services import service
from tests.support.stores import PostgresStore, SqliteStore

from mendstream.adapters.store.recorder import Recorder
from mendstream.adapters.store.schema import init_db
from mendstream.runtime.ground import open_bus

pytestmark = [pytest.mark.services, pytest.mark.processes, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
SECRET = "canary-7f3a"
"""A password; the server takes any."""
TABLES = ("incidents", "healing_actions", "config_history", "memory_chunks")


@pytest.fixture
def own():
    """A server that a test may kill, and an empty database on it."""
    with service("postgres") as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE house")
        yield server, PostgresStore(make_url(server.url).set(database="house").render_as_string(hide_password=False))


def everything(store):
    return {table: store.sql(f"SELECT * FROM {table} ORDER BY 1") for table in TABLES}


def recorded_at_once(log, path):
    """The same log in SQLite, by one recorder that nobody hurts."""
    store = SqliteStore(path)
    init_db(store.url)
    with contextlib.closing(Recorder(log, store.url)) as recorder:
        while recorder.apply():
            pass
    return everything(store)


# --- recorders and a server that are killed --------------------------------------------------------------------------


def test_recorder_and_server_killed_in_the_middle_of_writes_leave_each_record_in_sql_once(own, tmp_path):
    server, store = own
    init_db(store.url)
    dice = random.Random(7)
    kills = 0

    def position():
        try:
            return sum(row["position"] for row in store.sql("SELECT position FROM recorder_positions"))
        except psycopg.OperationalError:
            return -1

    while True:
        child = subprocess.Popen([sys.executable, "-m", "tests.processes.recording", store.url, "1"], cwd=ROOT)
        target = max(position(), 0) + dice.randrange(10, 60)
        wait_for(lambda t=target, c=child: position() >= t or c.poll() is not None, 60, why="the recorder gets on")
        if child.poll() is not None:
            break
        if kills % 3 == 2:
            server.kill()
            server.restart()
            target = position() + 20
            wait_for(lambda t=target, c=child: position() >= t or c.poll() is not None, 60, why="it goes on by itself")
        child.kill()
        child.wait()
        kills += 1
    assert child.wait() == 0
    assert kills >= 6
    found = everything(store)
    assert found == recorded_at_once(long_log(), tmp_path / "calm.db")
    assert len(found["incidents"]) == INCIDENTS


# --- a whole house ---------------------------------------------------------------------------------------------------


def waiting(house):
    """What `mendstream status` says that the recorder waits for."""
    found = json.loads(house.told("status", "--json"))
    assert found["running"]
    return next((p["waits_for"] for p in found["processes"] if p["process"] == "recorder-0"), "")


@pytest.fixture
def guarded(own):
    """(server, store as its superuser, the URL of a user who has to show a password)"""
    server, store = own
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE guest LOGIN PASSWORD '{SECRET}'".encode())
        connection.execute("ALTER DATABASE house OWNER TO guest")
        path = connection.execute("SHOW hba_file").fetchone()[0]
        Path(path).write_text("host all guest 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n")
        connection.execute("SELECT pg_reload_conf()")
    return server, store, make_url(store.url).set(username="guest").render_as_string()


def test_a_recorder_whose_password_is_refused_waits_and_healing_goes_on(guarded, tmp_path):
    _, store, url = guarded
    with Running(tmp_path, store__url=url, store__password=SECRET, **BUDGET) as house:
        house.until(lambda: (tmp_path / "run" / "store").exists(), why="the recorder was let in")
        house.warm_up(seconds=4)
        store.sql("ALTER ROLE guest PASSWORD 'another'")
        generation = house.shown("recorder-0")["generation"]
        house.kill("recorder-0", signal.SIGKILL)
        house.until(lambda: house.shown("recorder-0")["generation"] > generation, why="the recorder is back")
        house.until(lambda: "password authentication failed" in waiting(house), why="status says what is refused")
        case = house.incident(house.hurt("slow-model"), "LATENCY_SLO_BREACH")
        house.until(lambda: case.ended and case.own[-1].step == "memory", why="it is healed without the database")
        assert case.resolved
        assert not store.sql("SELECT * FROM incidents")
    with Running(tmp_path, store__url=url, store__password=SECRET, **BUDGET) as house:
        house.until(house.serving, why="a house that was let in before serves, and waits")
        house.until(lambda: "password authentication failed" in waiting(house), why="status says so again")
        store.sql(f"ALTER ROLE guest PASSWORD '{SECRET}'")
        house.until(
            lambda: store.sql("SELECT * FROM incidents WHERE incident_id = %s AND status = 'RESOLVED'", case.id),
            why="SQL tells the end",
        )
        house.until(lambda: not waiting(house), why="nothing is waited for")


def test_a_new_house_whose_password_is_refused_ends_and_says_so(guarded, tmp_path):
    _, _, url = guarded
    with Spawned(tmp_path, store__url=url.replace("guest@", "guest:wrong@")) as house:
        code = house.wait(60)
        said = house.rest()
    assert code == 3
    assert "password authentication failed" in said
    assert "DB_PASSWORD" in said


def test_healing_goes_on_while_the_database_is_away_and_sql_catches_up(own, tmp_path):
    server, store = own
    server.kill()
    with Running(tmp_path, store__url=store.url, store__password=SECRET, **BUDGET) as house:
        house.warm_up(seconds=4)  # a house that starts while the database is away serves all the same
        assert "Connection refused" in waiting(house)
        assert f"recorder-0 waits: {store.url}: " in house.told("status")
        server.restart()
        house.until(
            lambda: store.sql("SELECT 1 FROM pg_tables WHERE tablename = 'incidents'"), why="the tables are made"
        )
        house.until(lambda: store.sql("SELECT * FROM config_history"), why="the recorder is there")
        since = house.hurt("slow-model")
        case = house.incident(since, "LATENCY_SLO_BREACH")
        house.until(lambda: store.sql("SELECT * FROM incidents"), why="SQL has the incident")
        server.kill()
        generation = house.shown("recorder-0")["generation"]
        house.kill("recorder-0", signal.SIGKILL)
        house.until(lambda: case.ended and case.own[-1].step == "memory", why="it is healed without the database")
        assert case.resolved
        house.until(lambda: house.shown("recorder-0")["generation"] > generation, why="the recorder is back")
        house.until(lambda: waiting(house), why="it waits for the database, and says so")
        server.restart()
        house.until(
            lambda: store.sql("SELECT * FROM incidents WHERE incident_id = %s AND status = 'RESOLVED'", case.id),
            why="SQL tells the end",
        )
        house.until(lambda: not waiting(house), why="nothing is waited for")
        assert SECRET not in house.told("status") + house.told("status", "--json")
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".log", ".json")]
    assert len(written) > 5
    assert not [path for path in written if SECRET in path.read_text()]
    settings = house.settings
    said = mendstream("db", "upgrade", "--rebuild", "--data", str(tmp_path), "--store", store.url, deadline_s=60)
    assert said.returncode == 0, said.stderr
    with contextlib.closing(open_bus(settings, readonly=True)) as bus:
        expected = recorded_at_once(bus, tmp_path / "calm.db")
    assert everything(store) == expected
    told = mendstream("incidents", "--json", "--data", str(tmp_path), "--store", store.url, deadline_s=60)
    assert case.id in told.stdout
