"""What the recorder does while its database does not answer: it asks again, later and later, and says so."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from tests.unit.store.literal_log import FakeBus, chained, slow_model, whole_log

from mendstream.adapters.store import database, refusals
from mendstream.adapters.store.recorder import BACKOFF_S, CONFIG_UPDATES, INCIDENT_LOG, LOOK_S, SLOW_S, Recorder
from mendstream.contracts.errors import NoAnswer, NotLetIn


class Stopwatch:
    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s


@pytest.fixture
def stopwatch():
    return Stopwatch()


@pytest.fixture
def recorder(url, stopwatch):
    made = Recorder(whole_log(), url, stopwatch=stopwatch)
    yield made
    made.close()


@pytest.fixture
def locked(path, monkeypatch):
    """Another program's write lock on the file."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
    monkeypatch.setattr("mendstream.adapters.store.schema.BUSY_TIMEOUT_MS", 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def counted(recorder, monkeypatch):
    """Each time that it asks the database."""
    asked = []
    real = recorder.apply

    def apply():
        asked.append(recorder._stopwatch())
        return real()

    monkeypatch.setattr(recorder, "apply", apply)
    return asked


def test_a_recorder_that_starts_while_the_database_is_away_waits_and_says_so(recorder, locked, stopwatch, sql):
    assert not recorder.pump()
    assert "database is locked" in recorder.waits_for
    locked.execute("ROLLBACK")
    stopwatch.s += BACKOFF_S[0]
    assert recorder.pump()
    assert recorder.waits_for == ""
    assert len(sql("SELECT * FROM incidents")) == 5


def test_a_database_that_goes_away_later_is_asked_later_and_later_and_at_once_when_it_is_back(
    recorder, stopwatch, monkeypatch
):
    assert recorder.pump()
    away = [True]

    def transaction():
        if away[0]:
            raise NoAnswer("gone")
        return Recorder._transaction(recorder)

    monkeypatch.setattr(recorder, "_transaction", transaction)
    recorder._log.append(*chained(slow_model(), seq=12, prev_hash=recorder._marks[INCIDENT_LOG].hash))
    asked = counted(recorder, monkeypatch)
    for hundredth in range(3001):
        stopwatch.s = hundredth / 100
        assert not recorder.pump()
        assert recorder.waits_for == "gone"
    assert asked == pytest.approx([0, 0.2, 0.6, 1.4, 3.0, 6.2, 11.2, 16.2, 21.2, 26.2], abs=0.1)
    away[0] = False
    stopwatch.s += BACKOFF_S[1]
    assert recorder.pump()
    assert recorder.waits_for == ""
    away[0] = True
    recorder._marks = None
    del asked[:]
    assert not recorder.pump()
    stopwatch.s += BACKOFF_S[0]
    assert not recorder.pump()
    assert len(asked) == 2  # the pauses begin anew


def test_a_database_that_goes_away_is_told_also_while_nothing_is_to_be_written(recorder, stopwatch, monkeypatch):
    def gone():
        raise NoAnswer("gone")

    assert recorder.pump()
    assert not recorder.pump()
    monkeypatch.setattr(recorder, "_transaction", gone)
    assert not recorder.pump()
    assert recorder.waits_for == ""
    stopwatch.s += LOOK_S
    assert not recorder.pump()
    assert recorder.waits_for == "gone"
    monkeypatch.undo()
    stopwatch.s += BACKOFF_S[0]
    assert not recorder.pump()
    assert recorder.waits_for == ""


def test_who_starts_with_a_wrong_password_is_told_and_one_that_is_changed_later_is_waited_out(recorder, monkeypatch):
    def refused():
        raise NotLetIn("password authentication failed")

    monkeypatch.setattr(recorder, "apply", refused)
    with pytest.raises(NotLetIn):
        recorder.pump()
    monkeypatch.undo()
    assert recorder.pump()
    monkeypatch.setattr(recorder, "apply", refused)
    assert not recorder.pump()
    assert "password" in recorder.waits_for


def test_a_house_that_was_let_in_before_waits_with_every_later_recorder_and_a_new_house_is_told(
    url, tmp_path, monkeypatch
):
    def refused():
        raise NotLetIn("password authentication failed")

    def recorder(name, url=url):
        return closing(Recorder(whole_log(), url, known=tmp_path / name))

    with recorder("house") as first:
        assert first.pump()
    with recorder("house") as later:
        monkeypatch.setattr(later, "_prepare", refused)
        assert not later.pump()
        assert "password" in later.waits_for
    for house, store in (("another house", url), ("house", f"sqlite:///{tmp_path}/another.db")):
        with recorder(house, store) as other:
            monkeypatch.setattr(other, "_prepare", refused)
            with pytest.raises(NotLetIn):
                other.pump()


def test_an_answer_that_takes_long_is_told_while_it_is_waited_for(recorder, stopwatch, monkeypatch):
    said = []

    def slow():
        said.append(recorder.waits_for)
        stopwatch.s += SLOW_S + 1
        said.append(recorder.waits_for)
        return True

    monkeypatch.setattr(recorder, "apply", slow)
    assert recorder.pump()
    assert [*said, recorder.waits_for] == ["", "the database has not answered for 3 s", ""]


def test_a_lock_that_somebody_holds_for_long_is_no_answer():
    assert isinstance(refusals.refusal("sqlite:///x", "database is locked"), NoAnswer)


def test_the_recorder_is_a_sink_of_the_two_logs(url):
    recorder = Recorder(FakeBus(), url)
    assert (recorder.name, recorder.reads) == ("recorder", (INCIDENT_LOG, CONFIG_UPDATES))
    recorder.close()
