"""A retraining is commanded once, done once and answered once, whatever learns and whatever keeps the models."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs
from tests.support.clock import START_US, ManualClock
from tests.support.house import Stopwatch
from tests.support.log import BothWings, records
from tests.support.models_kept import WORLDS, Death
from tests.unit.models.world import (
    COMMANDS,
    CONFIG,
    NAMES,
    feedback,
    order,
    population,
    promote,
    serve,
)

from mendstream.adapters.models.trainer import ACTION_FILE, Trainer
from mendstream.adapters.models.versions import CARD_FILE, MODEL_FILE
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import Fenced, LogFull
from mendstream.contracts.models import Trained
from mendstream.contracts.ports import Out, Sink
from mendstream.contracts.records import Command, CommandKind, DeadLetter, Fault, Outcome, encode_block
from mendstream.contracts.topics import Topic, Wing, wing_of

SHIFT = 2.0
TASK = TaskId("trainer", 0)


class Log(BothWings):
    """The log as the trainer has it, where a test may also write what others do."""

    def __init__(self, root, clock) -> None:
        super().__init__(root, clock, Wing.CONTROL)
        self.clock = clock

    def publish(self, outs: list[Out]) -> None:
        data = [out for out in outs if wing_of(out.stream) is Wing.DATA]
        if data:
            self.elsewhere(*data)
        self._bus.publish([out for out in outs if wing_of(out.stream) is Wing.CONTROL])

    def results(self):
        return records(self, Topic.COMMAND_RESULTS)

    def at(self) -> int:
        """How far the trainer has committed."""
        return self.position(TASK, COMMANDS)


_FITTED: dict[type, Trained] = {}


def _first(kind, world) -> Trained:
    """The same for all tests of one world."""
    if kind not in _FITTED:
        _FITTED[kind] = world.learner.fit(*population(1500, 100), NAMES, 0)
    return _FITTED[kind]


class House:
    """A log, a catalogue with a first model that is live, and a trainer."""

    def __init__(self, kind, root) -> None:
        self.world = kind(root)
        self.clock = ManualClock()
        self.bus = Log(root / "log", self.clock)
        self.catalogue = self.world.catalogue()
        first = _first(kind, self.world)
        card = first.parts.card(version="v1", created_at_us=1, data_window="the start", source="bundled")
        self.v1 = self.catalogue.add(first.onnx, card)
        promote(self.bus, "v1", self.v1.digest)
        self.trainer = self.new_trainer()

    def new_trainer(self) -> Trainer:
        """As a new process has it."""
        return Trainer(
            self.bus, self.world.catalogue(), self.world.learner, self.clock, stopwatch=Stopwatch(0.25), partitions=2
        )

    def shifted_rows(self, rows: int = 2000, seed: int = 1) -> None:
        matrix, labels = population(rows, seed, SHIFT)
        serve(self.bus, matrix[: rows // 2], labels[: rows // 2], partition=0)
        self.clock.advance(s=1)
        serve(self.bus, matrix[rows // 2 :], labels[rows // 2 :], first=rows // 2, partition=1)

    def accuracy(self, version: str) -> float:
        """On the shifted population."""
        matrix, labels = population(4000, 55, SHIFT)
        scorer = self.world.models(self.catalogue).fetch(version, self.catalogue.fetch(version).digest)
        return float(np.mean((scorer.score(matrix)[0] >= 0.5) == (labels == 1)))


@pytest.fixture(params=WORLDS)
def house(request, tmp_path):
    house = House(request.param, tmp_path)
    yield house
    house.bus.close()


def test_retraining_on_a_shifted_population_recovers_accuracy(house):
    house.shifted_rows()
    assert house.accuracy("v1") < 0.75
    order(house.bus)
    sink: Sink = house.trainer
    assert sink.pump()
    [result] = house.bus.results()
    assert result.outcome is Outcome.DONE
    assert house.accuracy("v2") > 0.95
    assert result.data["accuracy"] > 0.95
    assert result.data["accuracy_live"] < 0.75


def test_the_result_says_what_was_made_of_what(house):
    house.shifted_rows()
    order(house.bus)
    house.trainer.pump()
    [result] = house.bus.results()
    card = house.world.catalogue().fetch("v2")
    assert result.id == "test/healing/7/1/result"
    assert (result.command_id, result.action_id, result.incident_id) == ("test/healing/7/1", "action-1", "incident-1")
    assert result.data["version"] == "v2"
    assert result.data["digest"] == card.digest
    assert result.data["rows"] == card.rows == 2000
    assert result.data["data_until_us"] == card.data_until_us == START_US + 1_000_000
    assert result.data["data_from_us"] == card.data_from_us == START_US
    assert result.data["schema_ok"] is True
    assert result.data["seconds"] == 0.25
    assert card.source == "trainer"
    assert card.created_at_us == result.at_us == house.clock.now_us()
    assert card.metrics["accuracy_live"] == result.data["accuracy_live"]
    assert "2000 labelled rows served 2023-11-14" in card.data_window


def test_a_command_is_answered_once(house):
    house.shifted_rows()
    order(house.bus)
    assert house.trainer.pump()
    assert house.bus.at() == house.bus.bounds(COMMANDS)[1]
    assert not house.trainer.pump()
    assert not house.new_trainer().pump()
    assert len(house.bus.results()) == 1


def test_a_repeated_command_does_not_train_twice(house):
    house.shifted_rows()
    order(house.bus)
    house.trainer.pump()
    order(house.bus, command_id="test/healing/9/1")
    with capture_logs() as logs:
        assert house.trainer.pump()
    first, second = house.bus.results()
    assert second.id == "test/healing/9/1/result"
    assert second.outcome is Outcome.DONE
    assert second.data == first.data
    assert house.catalogue.versions() == ("v1", "v2")
    assert [log["event"] for log in logs] == ["command repeated, its model is there"]


def test_another_action_makes_another_version(house):
    house.shifted_rows()
    order(house.bus)
    house.trainer.pump()
    order(house.bus, action_id="action-2", command_id="c2")
    house.trainer.pump()
    assert [result.data["version"] for result in house.bus.results()] == ["v2", "v3"]


def test_a_trainer_that_dies_before_its_commit_finds_its_model_and_answers(house, monkeypatch):
    house.shifted_rows()
    order(house.bus)

    def die(commits: object) -> None:
        raise Death

    with monkeypatch.context() as patched:
        patched.setattr(house.bus, "commit", die, raising=False)
        with pytest.raises(Death):
            house.trainer.pump()
    assert house.bus.results() == []
    made = house.catalogue.fetch("v2")
    house.clock.advance(s=3)
    assert house.new_trainer().pump()
    [result] = house.bus.results()
    assert result.outcome is Outcome.DONE
    assert (result.data["version"], result.data["digest"]) == ("v2", made.digest)
    assert house.catalogue.versions() == ("v1", "v2")


def test_a_trainer_that_dies_right_after_the_model_is_in_reports_that_one(house):
    house.shifted_rows()
    order(house.bus)
    with house.world.deadly("added"), pytest.raises(Death):
        house.trainer.pump()
    assert house.new_trainer().pump()
    [result] = house.bus.results()
    assert (result.outcome, result.data["version"]) == (Outcome.DONE, "v2")
    assert house.catalogue.versions() == ("v1", "v2")
    assert house.accuracy("v2") > 0.95


def test_a_trainer_that_dies_before_the_model_is_in_trains_again(house):
    house.shifted_rows()
    order(house.bus)
    with house.world.deadly("adding"), pytest.raises(Death):
        house.trainer.pump()
    assert house.catalogue.versions() == ("v1",)
    assert house.new_trainer().pump()
    [result] = house.bus.results()
    assert (result.outcome, result.data["version"]) == (Outcome.DONE, "v2")
    assert house.catalogue.versions() == ("v1", "v2")


def test_a_commit_that_is_refused_for_want_of_room_is_made_up_for(house, monkeypatch):
    house.shifted_rows()
    order(house.bus)

    def refuse(commits: object) -> None:
        raise LogFull("no room")

    with monkeypatch.context() as patched:
        patched.setattr(house.bus, "commit", refuse, raising=False)
        with pytest.raises(LogFull):
            house.trainer.pump()
    assert house.trainer.pump()
    assert [result.data["version"] for result in house.bus.results()] == ["v2"]
    assert house.catalogue.versions() == ("v1", "v2")


def test_a_full_disk_fails_the_training_and_is_named(house):
    house.shifted_rows()
    order(house.bus)
    with house.world.full():
        assert house.trainer.pump()
    [result] = house.bus.results()
    assert result.outcome is Outcome.FAILED
    assert "cannot write model v2" in result.detail
    assert house.catalogue.versions() == ("v1",)


def test_a_trainer_that_was_taken_over_is_fenced(house):
    house.trainer.pump()
    house.new_trainer().pump()
    house.shifted_rows()
    order(house.bus)
    with pytest.raises(Fenced):
        house.trainer.pump()
    assert house.bus.results() == []


def test_it_waits_for_labels_and_trains_when_they_come(house):
    matrix, labels = population(2000, 1, SHIFT)
    serve(house.bus, matrix, labels, labelled=0.5)
    order(house.bus)
    assert not house.trainer.pump()
    house.clock.advance(s=10)
    assert not house.trainer.pump()
    assert house.bus.at() == 0
    feedback(house.bus, [(f"e{i}", f"k{i}", labels[i]) for i in range(1000, 1600)])
    assert house.trainer.pump()
    [result] = house.bus.results()
    assert result.outcome is Outcome.DONE
    assert result.data["rows"] == 1600


def test_too_few_labels_by_the_deadline_fail_with_numbers(house):
    matrix, labels = population(2000, 1, SHIFT)
    serve(house.bus, matrix, labels, labelled=0.3)
    order(house.bus, min_rows=900, deadline_s=4)
    assert not house.trainer.pump()
    house.clock.advance(s=3.999)
    assert not house.trainer.pump()
    house.clock.advance(ms=1)
    assert house.trainer.pump()
    [result] = house.bus.results()
    assert result.outcome is Outcome.FAILED
    assert "600 labelled rows since 2023-11-14 22:13:20 UTC, 900 are needed" in result.detail
    assert "4 s" in result.detail
    assert house.catalogue.versions() == ("v1",)


def test_rows_served_before_the_asked_time_are_not_learnt_from(house):
    serve(house.bus, *population(2000, 9))
    house.clock.advance(s=5)
    house.shifted_rows()
    order(house.bus, since_us=START_US + 5_000_000)
    house.trainer.pump()
    [result] = house.bus.results()
    assert result.data["rows"] == 2000
    assert result.data["data_from_us"] == START_US + 5_000_000


@pytest.mark.parametrize(
    ("params", "says"),
    [({"since_us": "yesterday"}, "since_us"), ({"min_rows": 3}, "min_rows"), ({"deadline_s": -1}, "deadline_s")],
)
def test_params_out_of_bounds_are_refused(house, params, says):
    order(house.bus, **params)
    assert house.trainer.pump()
    [result] = house.bus.results()
    assert result.outcome is Outcome.REFUSED
    assert says in result.detail


def test_a_command_that_the_trainer_does_not_know_is_refused_and_others_are_passed_over(house):
    base = Command(
        id="c1", action_id="a1", incident_id="i1", addressee="supervisor", kind=CommandKind.RESTART, target="model-0",
        generation=1, params={}, at_us=START_US,
    )  # fmt: skip
    mine = msgspec.structs.replace(base, id="c2", addressee="trainer")
    house.bus.publish([Out(COMMANDS, encode_block([base, mine]), 2)])
    assert house.trainer.pump()
    [result] = house.bus.results()
    assert (result.id, result.outcome) == ("c2/result", Outcome.REFUSED)
    house.bus.publish([Out(COMMANDS, encode_block([base]), 1)])
    assert not house.trainer.pump()
    assert house.bus.at() == 3


def test_a_line_that_is_no_command_becomes_a_dead_letter_and_stops_nothing(house):
    house.bus.publish([Out(COMMANDS, b'{"record":"command","oops":1}\n', 1)])
    house.shifted_rows()
    order(house.bus)
    assert house.trainer.pump()
    assert house.trainer.pump()
    assert [r.outcome for r in house.bus.results()] == [Outcome.DONE]
    [letter] = records(house.bus, Topic.DEAD_LETTERS, 1)
    assert isinstance(letter, DeadLetter)
    assert letter.value == b'{"record":"command","oops":1}'
    assert (letter.topic, letter.position, letter.stage) == ("commands", 0, "trainer")


@pytest.mark.parametrize("kind", WORLDS)
def test_without_a_live_model_it_fails_and_says_so(kind, tmp_path):
    world, clock = kind(tmp_path), ManualClock()
    bus = Log(tmp_path / "log", clock)
    trainer = Trainer(bus, world.catalogue(), world.learner, clock, stopwatch=Stopwatch(), partitions=1)
    order(bus)
    assert trainer.pump()
    [result] = bus.results()
    assert "no model is live" in result.detail
    assert result.outcome is Outcome.FAILED
    bus.close()


def test_a_live_model_whose_card_is_broken_fails_with_the_place(house):
    house.world.write("v1", CARD_FILE, b"{")
    order(house.bus)
    assert house.trainer.pump()
    [result] = house.bus.results()
    assert result.outcome is Outcome.FAILED
    assert "card.json is no model card" in result.detail


def test_a_live_model_whose_file_is_gone_is_retrained_without_comparison(house):
    house.world.lose("v1", MODEL_FILE)
    house.shifted_rows()
    order(house.bus)
    with capture_logs() as logs:
        assert house.trainer.pump()
    [result] = house.bus.results()
    assert result.outcome is Outcome.DONE
    assert "accuracy_live" not in result.data
    assert logs[0]["event"] == "the live model cannot be compared with"


def test_labels_of_one_class_fail_clearly(house):
    matrix, _ = population(2000, 1)
    serve(house.bus, matrix, np.ones(2000))
    order(house.bus)
    house.trainer.pump()
    assert "one class" in house.bus.results()[0].detail


def test_an_unreadable_note_does_not_hide_the_other_models(house):
    house.shifted_rows()
    order(house.bus)
    house.trainer.pump()
    house.world.write("v1", ACTION_FILE, b"{")
    order(house.bus, action_id="action-2", command_id="c2")
    with capture_logs() as logs:
        house.trainer.pump()
    assert house.bus.results()[1].data["version"] == "v3"
    assert logs[0]["event"] == "unreadable note beside a model"


def test_faults_and_stale_changes_in_config_updates_do_not_change_what_is_live(house):
    house.bus.publish([Out(CONFIG, encode_block([
        Fault(id="f", name="slow-model", on=True, params={}, actor="chaos", at_us=START_US)]), 1)])  # fmt: skip
    house.bus.publish([Out(CONFIG, b"oops\n", 1)])
    promote(house.bus, "v99", "0" * 64, base=0)
    house.shifted_rows()
    order(house.bus)
    house.trainer.pump()
    assert house.bus.results()[0].outcome is Outcome.DONE


def test_a_trainer_needs_no_library_that_only_some_learners_need():
    heavy = ("sklearn", "skl2onnx", "mlflow", "onnx", "onnxruntime", "sqlalchemy")
    code = (
        "import sys, mendstream.adapters.models.trainer, mendstream.simulation.models, mendstream.simulation.data\n"
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_learner_gets_ready_while_labels_are_awaited_and_rests_after_the_answer(house, monkeypatch):
    told = []
    monkeypatch.setattr(house.world.learner, "prepare", lambda: told.append("prepare"))
    monkeypatch.setattr(house.world.learner, "rest", lambda: told.append("rest"))
    order(house.bus)
    house.trainer.pump()
    house.trainer.pump()
    assert told == ["prepare"]
    house.shifted_rows()
    house.trainer.pump()
    assert told == ["prepare", "rest"]
