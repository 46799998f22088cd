"""The simulated stream is the same whenever it is read, and hurts models as the real faults do."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from tests.support.clock import START_US, ManualClock

from mendstream.agents.pipeline.ingestion import FeedbackLine
from mendstream.contracts.errors import UsageError
from mendstream.contracts.ports import Source
from mendstream.runtime import faults
from mendstream.simulation.data import BACK, FEATURES, LATE, REGIMES, Reading, SimSource, Tape, pumps, rows, stock
from mendstream.simulation.models import ModelShelf, SimCatalogue, SimLearner, SimModels

BIG = 1 << 30


class World:
    """A tape, a clock, and a regime that can be turned."""

    def __init__(self, seed: int = 7, **tape) -> None:
        self.clock = ManualClock()
        self.regime = "normal"
        self.tape = Tape(seed, START_US, **{"rate": 100.0, "label_s": 0.5, **tape})

    def source(self) -> SimSource:
        """As a new process opens it."""
        return SimSource(self.tape, lambda: self.regime, self.clock)

    def read(self, events: int, regime: str = "normal"):
        """The next so many events, and the labels that came with them."""
        self.regime = regime
        start = len(self.tape.made)
        self.clock.advance(s=events / 100)
        found, labels, position = self.source().poll(start, events, BIG)
        assert position == start + len(found) == start + events
        return [line.value for line in found], [json.loads(line.value) for line in labels]


@pytest.fixture
def world() -> World:
    return World()


def is_event(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=Reading)
    except msgspec.DecodeError:
        return False
    return True


# --- reading ---------------------------------------------------------------------------------------------------------


def test_it_is_paced_by_the_clock_whoever_reads(world):
    source: Source = world.source()
    assert source.due_in_s() == 0.0
    events, labels, position = source.poll(0, 1000, BIG)
    assert (len(events), labels, position) == (1, [], 1)
    assert source.due_in_s() == 0.01
    assert source.poll(1, 1000, BIG) == ([], [], 1)
    world.clock.advance(ms=9)
    assert source.poll(1, 1000, BIG)[2] == 1
    assert source.due_in_s() == 0.001
    world.clock.advance(ms=1)
    assert source.poll(1, 1000, BIG)[2] == 2
    world.clock.advance(s=3)  # nobody reads, and the world goes on
    assert world.source().poll(2, 1000, BIG)[2] == 302


def test_a_poll_is_bounded_in_lines_and_bytes_and_gives_at_least_one(world):
    world.clock.advance(s=5)
    source = world.source()
    assert [line.position for line in source.poll(0, 7, BIG)[0]] == list(range(7))
    assert len(source.poll(0, 100, 1)[0]) == 1
    two = sum(len(line.value) for line in source.poll(0, 2, BIG)[0])
    assert len(source.poll(0, 100, two)[0]) == 2
    assert source.due_in_s() == 0.0


def test_a_stream_may_end():
    world = World(last=5)
    world.clock.advance(s=1)
    source = world.source()
    assert source.poll(0, 100, BIG)[2] == 5
    assert source.due_in_s() is None
    assert source.poll(5, 100, BIG) == ([], [], 5)


def test_what_was_read_once_reads_the_same_after_a_death_and_in_other_pieces(world):
    everything = ",".join(REGIMES)
    first = [world.read(40, regime) for regime in ("normal", "drift,poison", "duplicates", everything, "normal")]
    world.regime = "drift"
    source = world.source()
    events, labels, position = [], [], 0
    for size in (3, 50, 1, 140, 6):
        found, known, position = source.poll(position, size, BIG)
        events += [line.value for line in found]
        labels += [json.loads(line.value) for line in known]
    assert events == [line for read, _ in first for line in read]
    assert labels == [line for _, read in first for line in read]
    assert [start for start, _ in world.tape.regimes] == [0, 40, 80, 120, 160]


def test_an_event_depends_on_seed_number_and_regime_alone():
    whole, pieces, other = World(), World(), World(seed=8)
    lines = whole.read(600)[0]
    assert [line for size in (1, 299, 300) for line in pieces.read(size)[0]] == lines
    assert not set(other.read(600)[0]) & set(lines)
    apart = World()
    apart.read(300)
    assert apart.read(300, "unit-change")[0] != lines[300:]
    assert apart.tape.made[:300] == whole.tape.made[:300]


def test_what_is_durable_is_remembered(world):
    source = world.source()
    source.done(12)
    source.done(7)
    assert world.tape.done == 12


# --- events and labels -----------------------------------------------------------------------------------------------


def test_events_are_readings_and_labels_follow_theirs_in_time(world):
    events, labels = world.read(500)
    assert all(map(is_event, events))
    ids = [json.loads(line)["id"] for line in events]
    assert ids == [f"e{n}" for n in range(500)]
    assert len({json.loads(line)["pump"] for line in events}) == 16
    known = [line["event_id"] for line in labels]
    assert len(set(known)) == len(known)
    assert set(ids[:400]) <= set(known)  # at most a second later
    for n, made in enumerate(world.tape.made):
        assert n + 50 <= made.known_at < n + 100
        given = msgspec.json.decode(made.known, type=FeedbackLine)
        assert (given.event_id, given.key, given.label) == (made.event_id, made.key, made.label)


def test_poison_is_refused_and_never_labelled(world):
    events, _ = world.read(400, "poison")
    bad = [n for n, line in enumerate(events) if not is_event(line)]
    assert bad == list(range(9, 400, 10))
    _, labels = world.read(400)
    assert not {line["event_id"] for line in labels} & {f"e{n}" for n in bad}
    assert [made.event_id for made in world.tape.made[:400]].count("") == len(bad)


def test_duplicates_are_an_earlier_event_letter_by_letter(world):
    world.read(100)
    events, labels = world.read(400, "duplicates")
    ids = [json.loads(line)["id"] for line in events]
    again = [(n, int(found[1:])) for n, found in enumerate(ids, 100) if found != f"e{n}"]
    assert 0.1 < len(again) / 400 < 0.3
    for n, earlier in again:
        assert events[n - 100] == world.tape.made[earlier].line
        assert n - BACK * 8 < earlier < n
    labelled = [line["event_id"] for line in (*labels, *world.read(400)[1])]
    assert len(set(labelled)) == len(labelled)
    assert not set(labelled) & {f"e{n}" for n, _ in again}


def test_labels_are_lost_while_there_are_none_and_come_again(world):
    world.read(100)
    assert world.read(100, "no-labels")[1] == []
    assert len(world.read(100)[1]) > 50


def test_late_labels_come_later_and_none_is_lost(world):
    world.read(100, "late-labels")
    early = World()
    early.read(100)
    for n, (late, usual) in enumerate(zip(world.tape.made, early.tape.made, strict=True)):
        assert late.known_at - n == LATE * (usual.known_at - n)
        assert late._replace(known_at=usual.known_at) == usual
    labels = world.read(1000)[1]
    assert {f"e{n}" for n in range(100)} <= {line["event_id"] for line in labels}


def test_a_unit_change_multiplies_one_column(world):
    usual = [json.loads(line) for line in world.read(50)[0]]
    changed = [json.loads(line) for line in World().read(50, "unit-change")[0]]
    for one, other in zip(usual, changed, strict=True):
        assert other["load"] == pytest.approx(1000 * one["load"], abs=1)
        assert other | {"load": 0} == one | {"load": 0}


def test_every_fault_of_the_live_source_has_its_regime():
    assert set(faults.REGIMES) <= set(REGIMES)


def test_an_unknown_regime_is_refused(world):
    world.regime = "drift,flood"
    with pytest.raises(UsageError, match="no regime 'flood'") as caught:
        world.source().poll(0, 1, BIG)
    assert "unit-change" in caught.value.hint


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models() -> SimModels:
    shelf = ModelShelf()
    stock(shelf)
    catalogue = SimCatalogue(shelf)
    loaded = SimModels(catalogue, lambda rows, version: 0.0)
    for version in catalogue.versions():
        loaded.fetch(version, catalogue.fetch(version).digest)
    return loaded


def scorer(models: SimModels, version: str):
    found = [one for one in models._scorers.values() if one.card.version == version]
    return found[0]


def right(scored: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean((scored >= 0.5) == (labels == 1)))


def accuracy(one, regime: str) -> float:
    matrix, labels = rows(77, 8000, regime)
    return right(one.score(matrix)[0], labels)


def test_the_first_model_is_right_for_seven_of_eight_and_its_card_says_so(models):
    v1 = scorer(models, "v1")
    assert 0.85 < accuracy(v1, "normal") < 0.9
    assert v1.card.metrics["accuracy"] == pytest.approx(accuracy(v1, "normal"), abs=0.02)
    assert 1 - accuracy(v1, "normal") < v1.card.error_level < 0.16
    assert v1.card.features == FEATURES == tuple(v1.card.reference)


def test_the_second_model_is_worse_and_held_to_the_level_of_the_first(models):
    v1, v2 = scorer(models, "v1"), scorer(models, "v2")
    assert 0.05 < accuracy(v1, "normal") - accuracy(v2, "normal") < 0.15
    assert v2.card.error_level == v1.card.error_level
    assert v2.card.digest != v1.card.digest


def test_drift_hurts_the_old_model_and_not_a_new_one(models):
    v1 = scorer(models, "v1")
    calm, drifted = accuracy(v1, "normal"), accuracy(v1, "drift")
    assert 0.1 < calm - drifted < 0.2
    learner = SimLearner()
    trained = learner.fit(*rows(5, 600, "drift"), FEATURES, 0, live=v1.card)
    card = trained.parts.card(version="v3", created_at_us=0, data_window="")
    assert abs(learner.accuracy(trained.onnx, card, *rows(6, 40_000, "drift")) - calm) < 0.03


def test_neutral_drift_hurts_no_model_and_a_unit_change_ruins_it(models):
    v1 = scorer(models, "v1")
    assert accuracy(v1, "neutral-drift") > accuracy(v1, "normal") - 0.01
    assert accuracy(v1, "unit-change") < 0.6


def test_the_rule_without_a_model_is_right_for_three_of_four():
    matrix, labels = rows(77, 8000)
    scores = pumps.compute_fallback(dict(zip(FEATURES, matrix.T, strict=True)))
    assert 0.75 < right(scores, labels) < 0.82


@pytest.mark.parametrize("regime", ["drift", "neutral-drift", "unit-change"])
def test_a_shift_of_the_population_is_far_beyond_chance(models, regime):
    reference = scorer(models, "v1").card.reference
    matrix, _ = rows(78, 512, regime)
    calm, _ = rows(78, 512)

    def psi(values: np.ndarray, name: str) -> float:
        held = reference[name]
        counts = np.bincount(np.searchsorted(held.edges, values[np.isfinite(values)]), minlength=len(held.counts) - 1)
        p, q = (np.asarray(c, dtype=float) + 0.5 for c in (held.counts[:-1], counts))
        p, q = p / p.sum(), q / q.sum()
        return float(((q - p) * np.log(q / p)).sum())

    assert max(psi(calm[:, n], name) for n, name in enumerate(FEATURES)) < 0.1
    assert max(psi(matrix[:, n], name) for n, name in enumerate(FEATURES)) > 0.5


def test_rows_are_what_the_pipeline_makes_of_the_stream(world):
    events = [json.loads(line) for line in world.read(300)[0]]
    matrix, labels = rows(7, 300)
    np.testing.assert_allclose(matrix[:, 0], [event["load"] for event in events], rtol=1e-6)
    assert labels.tolist() == [made.label for made in world.tape.made]
    last: dict[str, list[float]] = {}
    for event, excess in zip(events, matrix[:, 2], strict=True):
        seen = last.setdefault(event["pump"], [])
        usual = np.mean(seen[-8:]) if seen else event["heat"]
        assert excess == pytest.approx(event["heat"] - usual, abs=1e-4)
        seen.append(event["heat"])
