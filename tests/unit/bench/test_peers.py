"""`bench peers`: figures of those who ran, names of those who did not, environments made once and of what is pinned."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil

import numpy as np
import pytest
from tests.support.columns import columns_of

from mendstream.bench import homes, peers
from mendstream.bench.kafka import Spent
from mendstream.bench.peers import OTHERS, OURS, PEERS, Outcome, lines_of_code, report, told
from mendstream.bench.tally import Tally
from mendstream.contracts.agent import Line
from mendstream.contracts.errors import CouldNot
from mendstream.demo import pipeline
from mendstream.demo.source import bench_lines

EXACT = Tally(0, 0, 0, 0)
LEAST = {peer.name: peer.least for peer in OTHERS}


def ran(cpu_us, events=1_000):
    return Outcome(Spent(events, 1.0, cpu_us * events / 1e6), EXACT)


def all_ran(**cpu_us):
    """Every worker once; those that are not named take 100 us an event, we take 5."""
    named = {name.replace("_", "-"): value for name, value in cpu_us.items()}
    return {"mendstream": [ran(5.0)], **{name: [ran(named.get(name, 100.0))] for name in LEAST}}


def test_the_ratio_is_their_cpu_per_event_over_ours_and_the_bound_is_the_wanted_one():
    figures = report(all_ran(kafka_streams=14.0), {}).figures
    ratio = figures["kafka_streams_ratio"]
    assert (ratio.worst, ratio.least, ratio.reached) == (pytest.approx(2.8), 3.0, False)
    assert figures["quix_ratio"].reached
    assert LEAST == {"hand-written": 1.0, "kafka-streams": 3.0, "quix": 14.0, "faststream": 10.0}


def test_who_is_not_installed_here_is_named_and_no_bound_is_reached_without_him():
    found = {name: [] if name == "quix" else outcomes for name, outcomes in all_ran().items()}
    bench = report(found, {"quix": "pip failed"})
    assert bench.details["not_run"] == {"quix": "pip failed"}
    assert (bench.figures["quix_ratio"].runs, bench.figures["quix_ratio"].reached) == ((None,), False)
    assert not bench.reached


def test_a_worker_that_was_not_exact_has_no_figure_and_its_wrong_decisions_are_counted():
    found = all_ran() | {"faststream": [Outcome(None, Tally(1, 2, 0, 0), "not exact: 1 missing, 2 doubled")]}
    figures = report(found, {}).figures
    assert figures["faststream_ratio"].reached is False
    assert (figures["faststream_wrong"].worst, figures["faststream_wrong"].reached) == (3.0, False)
    assert report(found, {}).details["failed"] == {"faststream, run 1": "not exact: 1 missing, 2 doubled"}


def test_without_a_figure_of_ours_there_is_no_ratio():
    figures = report(all_ran() | {"mendstream": [Outcome(None, None, "it ended")]}, {}).figures
    assert all(figures[f"{peer.figure}_ratio"].reached is False for peer in OTHERS)


def test_a_worker_that_ends_in_the_middle_hides_nobody_elses_figure():
    def ends():
        raise CouldNot("it ended with code 1: out of memory", hint="")

    outcome = peers._outcome(ends)
    assert told(outcome) == "no figure: it ended with code 1: out of memory"


def test_a_peer_that_cannot_be_installed_says_what_is_missing_and_what_to_type(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(homes.shutil, "which", lambda name: None)
    streams = next(peer for peer in OTHERS if peer.name == "kafka-streams")
    assert peers._missing(streams) == "java is missing; apt-get install default-jre-headless"


def test_warming_events_have_ids_of_their_own_and_are_flights_all_the_same(monkeypatch):
    lines = [Line(value, n) for n, value in enumerate(bench_lines(3))]
    monkeypatch.setattr(peers, "stock", lambda: lines)
    warm = peers._warming(5)
    assert [line.partition(b",")[0] for line in warm] == [b'{"id":"w%d"' % n for n in range(5)]
    assert warm[3].partition(b",")[2] == lines[0].value.partition(b",")[2]


# --- code of the peers


def test_every_workers_code_is_there_and_what_it_needs_is_pinned():
    assert all((PEERS / peer.code).exists() for peer in OTHERS)
    for name in ("quix", "faststream"):
        lock = (PEERS / name / "requirements.txt").read_text()
        packages = [line for line in lock.splitlines() if line[:1].isalnum()]
        assert packages
        assert all("==" in line for line in packages)
        assert lock.count("--hash=sha256:") >= len(packages)
    sums = (PEERS / "kafka-streams" / "jars.sha256").read_text()
    assert all(len(line.partition("  ")[0]) == 64 for line in sums.splitlines())
    assert "kafka-streams-4.3.1.jar" in sums


def test_our_own_code_computes_the_features_of_the_demo():
    spec = importlib.util.spec_from_file_location("peer_pipeline", PEERS / OURS)
    ours = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ours)
    columns = columns_of(bench_lines(200))
    usual = np.where(np.arange(200) % 3, np.arange(200) - 50.0, np.nan)
    found = ours.flights.compute_features(columns, {"usual": usual})
    wanted = pipeline.flights.compute_features(columns, {"tail_delay4": usual})
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)


def test_lines_of_python_are_those_that_say_something():
    text = '"""What\nit is."""\n\nimport json  # why\n\n# a comment\ndef f():\n    """Doc."""\n    return """a\nb"""\n'
    assert lines_of_code(text, ".py") == 4


def test_lines_of_java_are_those_that_say_something():
    text = "/** What it is. */\n\nclass A {\n    // why\n    /* a\n     * b */\n    int x = 1;\n}\n"
    assert lines_of_code(text, ".java") == 3


# --- homes


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("there", "named"),
    [({"a.jar": b"1"}, "b.jar"), ({"a.jar": b"1", "b.jar": b"X"}, "b.jar"),
     ({"a.jar": b"1", "b.jar": b"2", "c.jar": b"3"}, "c.jar")],
    ids=["too-few", "another", "too-many"],
)  # fmt: skip
def test_jars_that_are_not_the_very_ones_are_refused(there, named, tmp_path):
    for name, data in there.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(homes.Missing, match=rf"names: {named}$"):
        homes.verify(tmp_path, f"{digest(b'1')}  a.jar\n{digest(b'2')}  b.jar\n")


def test_the_very_jars_are_taken(tmp_path):
    (tmp_path / "a.jar").write_bytes(b"1")
    homes.verify(tmp_path, f"{digest(b'1')}  a.jar\n")


class Maker:
    def __init__(self, home, fails=False):
        self.times = 0
        self.fails = fails
        self._home = home

    def __call__(self):
        self.times += 1
        (self._home / f"made-{self.times}").touch()
        if self.fails:
            raise homes.Missing("pip failed", hint="")


def test_a_home_is_made_once_and_anew_when_what_it_was_made_of_has_changed(tmp_path):
    home, lock = tmp_path / "home", tmp_path / "lock"
    make = Maker(home)
    lock.write_text("one")
    for _ in range(2):
        homes._once(home, (lock,), make)
    assert make.times == 1
    lock.write_text("two")
    homes._once(home, (lock,), make)
    assert (make.times, (home / "made-1").exists()) == (2, False)


def test_half_a_home_is_made_anew(tmp_path):
    home, lock = tmp_path / "home", tmp_path / "lock"
    lock.write_text("one")
    with pytest.raises(homes.Missing):
        homes._once(home, (lock,), Maker(home, fails=True))
    make = Maker(home)
    homes._once(home, (lock,), make)
    assert make.times == 1


def test_a_command_that_fails_is_told_by_its_last_word():
    shell = shutil.which("sh")
    with pytest.raises(homes.Missing, match=r"sh failed: no network$"):
        homes._run((shell, "-c", "echo trying; echo no network >&2; exit 1"))
