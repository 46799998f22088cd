"""`bench.run`: which benches there are, how often they run, what the exit code says."""

from __future__ import annotations

import importlib
import json

import pytest

from mendstream import bench
from mendstream.bench import APART, BENCHES, EITHER, ON_KAFKA, RUNS, RUNS_ENV, module_of
from mendstream.bench.figures import Figure, Report
from mendstream.contracts.errors import UsageError


@pytest.fixture
def measured(monkeypatch):
    """Every bench gives this figure instead of measuring; how often each was to run, and on which broker."""
    asked: dict[str, int] = {}
    given = {"figure": Figure(what="", unit="", runs=(1.0,), most=2.0), "servers": {}, "store": {}}

    def stand_in(name):
        def measure(runs, note, **more):
            asked[name] = runs
            for word, value in more.items():
                given[word][name] = value
            note("one run")
            return Report(bench=name, figures={f"{name}_x": given["figure"]})

        return measure

    for name in BENCHES:
        monkeypatch.setattr(importlib.import_module(module_of(name)), "measure", stand_in(name))
    return asked, given


def test_a_reached_bound_is_exit_code_0_and_the_document_goes_to_standard_output(measured, capsys):
    assert bench.run("counts", True) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["bench"], found["reached"]) == ("counts", True)
    assert found["machine"]["cores"] >= 1
    assert len(found["machine"]["load_before"]) == 3
    assert "counts: one run" in err


def test_a_missed_bound_is_exit_code_1_and_its_number_is_shown(measured, capsys):
    measured[1]["figure"] = Figure(what="", unit="ms", runs=(1.0, 123.0), most=2.0)
    assert bench.run("help", False) == 1
    out, _ = capsys.readouterr()
    assert "123" in out
    assert "NO" in out


def test_all_measures_every_bench_but_the_long_one_and_those_of_a_broker_as_often_as_is_usual(measured, capsys):
    bench.run("all", True)
    assert measured[0] == {name: runs for name, runs in RUNS.items() if name not in APART}
    assert measured[1]["servers"] == dict.fromkeys(EITHER, "")
    assert set(json.loads(capsys.readouterr().out)["benches"]) == set(measured[0])


def test_the_environment_may_ask_for_fewer_runs(measured, monkeypatch, capsys):
    monkeypatch.setenv(RUNS_ENV, "1")
    bench.run("mttr", True)
    assert measured[0] == {"mttr": 1}


@pytest.mark.parametrize("given", ["0", "-1", "many", "101", "1.5"])
def test_a_number_of_runs_that_is_none_is_refused(given, monkeypatch):
    monkeypatch.setenv(RUNS_ENV, given)
    with pytest.raises(UsageError, match=RUNS_ENV):
        bench.run("counts", True)


def test_an_unknown_bench_names_the_nearest_one():
    with pytest.raises(UsageError, match="latancy") as caught:
        bench.run("latancy", False)
    assert "did you mean latency?" in caught.value.hint


def test_every_bench_has_its_line_and_its_usual_number_of_runs():
    assert set(RUNS) == set(BENCHES)


@pytest.mark.parametrize("name", ON_KAFKA + EITHER)
def test_a_bench_on_kafka_is_told_where_its_broker_is(name, measured, capsys):
    bench.run(name, True, "kafka://one:9092,two:9092")
    assert measured[1]["servers"] == {name: "one:9092,two:9092"}


@pytest.mark.parametrize("name", ON_KAFKA)
def test_without_a_broker_it_says_how_to_start_one(name):
    with pytest.raises(UsageError, match="needs a Kafka broker") as caught:
        bench.run(name, True)
    assert "scripts/services up kafka" in caught.value.hint


def test_a_bench_of_the_embedded_log_has_no_use_for_a_broker():
    with pytest.raises(UsageError, match="no use for a broker"):
        bench.run("pipeline", True, "kafka://one:9092")


@pytest.mark.parametrize("bus", ["lmdb", "kafka://", "kafka", "one:9092"])
def test_a_bus_that_names_no_broker_is_refused(bus):
    with pytest.raises(UsageError, match="is no broker"):
        bench.run("mttr", True, bus)


def test_mttr_is_told_where_its_store_is_and_no_other_bench_has_use_for_one(measured, capsys):
    bench.run("mttr", True, "", "postgresql://me@db/postgres")
    assert measured[1]["store"] == {"mttr": "postgresql://me@db/postgres"}
    with pytest.raises(UsageError, match="no use for a store"):
        bench.run("pipeline", True, "", "postgresql://me@db/postgres")
