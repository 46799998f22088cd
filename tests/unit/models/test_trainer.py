"""A retraining is commanded once, done once, answered once; MLflow hears of it later."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs
from tests.unit.models.world import (
    COMMANDS,
    CONFIG,
    NAMES,
    START_US,
    Hand,
    MemoryBus,
    feedback,
    order,
    population,
    promote,
    serve,
)

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.onnx import LoadedModels
from mendstream.adapters.models.trainer import ACTION_FILE, Trainer
from mendstream.adapters.models.training import train
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import CouldNot, Fenced
from mendstream.contracts.models import ModelCard
from mendstream.contracts.ports import Out, Sink
from mendstream.contracts.records import (
    Command,
    CommandKind,
    DeadLetter,
    Fault,
    Outcome,
    decode_block,
    encode_block,
)
from mendstream.contracts.topics import Stream, Topic

SHIFT = 2.0


class FakeRegistry:
    """MLflow as a list; away while `away` is set."""

    def __init__(self) -> None:
        self.away = False
        self.registered: list[str] = []
        self.champions: list[str] = []

    def register(self, catalogue: Catalogue, card: ModelCard) -> str:
        if self.away:
            raise CouldNot("MLflow store refused", hint="start it")
        self.registered.append(card.version)
        return f"run-{card.version}"

    def champion(self, card: ModelCard) -> bool:
        self.champions.append(card.version)
        return True


class House:
    """A log, a catalogue with a first model that is live, and a trainer."""

    def __init__(self, directory: Path) -> None:
        self.clock = Hand()
        self.bus = MemoryBus(self.clock)
        self.catalogue = Catalogue(directory)
        self.registry = FakeRegistry()
        first = train(*population(3000, 100), NAMES, seed=0)
        card = first.parts.card(version="v1", created_at_us=1, data_window="the start", source="bundled")
        self.v1 = self.catalogue.add(first.onnx, card)
        promote(self.bus, "v1", self.v1.digest)
        self.trainer = self.new_trainer()

    def new_trainer(self) -> Trainer:
        return Trainer(
            self.bus, Catalogue(self.catalogue.directory), self.clock, partitions=2, registry=self.registry, seed=0
        )

    def shifted_rows(self, rows: int = 2000, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
        matrix, labels = population(rows, seed, SHIFT)
        serve(self.bus, matrix[: rows // 2], labels[: rows // 2], partition=0)
        self.clock.pass_s(1)
        serve(self.bus, matrix[rows // 2 :], labels[rows // 2 :], first=rows // 2, partition=1)
        return matrix, labels

    def accuracy(self, version: str, seed: int) -> float:
        matrix, labels = population(4000, seed, SHIFT)
        scores, _ = LoadedModels(self.catalogue).fetch(version, self.catalogue.fetch(version).digest).score(matrix)
        return float(np.mean((scores >= 0.5) == (labels == 1)))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "models")


def test_retraining_on_a_shifted_population_recovers_accuracy(house):
    house.shifted_rows()
    assert house.accuracy("v1", seed=55) < 0.75
    order(house.bus)
    sink: Sink = house.trainer
    assert sink.pump()
    [result] = house.bus.results()
    assert result.outcome is Outcome.DONE
    assert house.accuracy("v2", seed=55) > 0.95
    assert result.data["accuracy"] > 0.95
    assert result.data["accuracy_live"] < 0.75


def test_the_result_says_what_was_made_of_what(house):
    house.shifted_rows()
    order(house.bus)
    house.trainer.pump()
    [result] = house.bus.results()
    card = Catalogue(house.catalogue.directory).fetch("v2")
    assert result.id == "test/healing/7/1/result"
    assert (result.command_id, result.action_id, result.incident_id) == ("test/healing/7/1", "action-1", "incident-1")
    assert result.data["version"] == "v2"
    assert result.data["digest"] == card.digest
    assert result.data["rows"] == card.rows == 2000
    assert result.data["data_until_us"] == card.data_until_us == START_US + 1_000_000
    assert result.data["data_from_us"] == card.data_from_us == START_US
    assert result.data["schema_ok"] is True
    assert 0 < result.data["seconds"] < 10
    assert card.source == "trainer"
    assert card.metrics["accuracy_live"] == result.data["accuracy_live"]
    assert "2000 labelled rows served 2023-11-14" in card.data_window


def test_result_and_position_are_one_transaction(house):
    house.shifted_rows()
    order(house.bus)
    house.trainer.pump()
    epoch, turns, positions = house.bus.tasks[TaskId("trainer", 0)]
    assert (epoch, turns, positions) == (1, 1, {COMMANDS: 1})
    assert not house.trainer.pump()
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


def test_a_trainer_that_dies_before_its_commit_finds_its_model_and_answers(house, monkeypatch):
    house.shifted_rows()
    order(house.bus)

    def die(commits: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(house.bus, "commit", die)
        with pytest.raises(KeyboardInterrupt):
            house.trainer.pump()
    assert house.bus.results() == []
    assert house.catalogue.versions() == ("v1", "v2")
    assert house.new_trainer().pump()
    [result] = house.bus.results()
    assert result.outcome is Outcome.DONE
    assert result.data["version"] == "v2"
    assert result.data["digest"] == house.catalogue.fetch("v2").digest
    assert house.catalogue.versions() == ("v1", "v2")


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
    house.clock.pass_s(10)
    assert not house.trainer.pump()
    assert house.bus.tasks[TaskId("trainer", 0)][2] == {COMMANDS: 0}
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
    house.clock.pass_s(4)
    assert house.trainer.pump()
    [result] = house.bus.results()
    assert result.outcome is Outcome.FAILED
    assert "600 labelled rows since 2023-11-14 22:13:20 UTC, 900 are needed" in result.detail
    assert "4 s" in result.detail
    assert house.catalogue.versions() == ("v1",)


def test_rows_served_before_the_asked_time_are_not_learnt_from(house):
    serve(house.bus, *population(2000, 9))
    house.clock.pass_s(5)
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
    assert house.bus.tasks[TaskId("trainer", 0)][2] == {COMMANDS: 3}


def test_a_line_that_is_no_command_becomes_a_dead_letter_and_stops_nothing(house):
    house.bus.publish([Out(COMMANDS, b'{"record":"command","oops":1}', 1)])
    house.shifted_rows()
    order(house.bus)
    assert house.trainer.pump()
    assert house.trainer.pump()
    assert [r.outcome for r in house.bus.results()] == [Outcome.DONE]
    [(_, _, value, _)] = house.bus.log[Stream(Topic.DEAD_LETTERS, 1)]
    [letter] = decode_block(Topic.DEAD_LETTERS, value)
    assert isinstance(letter, DeadLetter)
    assert letter.value == b'{"record":"command","oops":1}'
    assert (letter.topic, letter.position, letter.stage) == ("commands", 0, "trainer")


def test_without_a_live_model_it_fails_and_says_so(tmp_path):
    clock = Hand()
    bus = MemoryBus(clock)
    trainer = Trainer(bus, Catalogue(tmp_path), clock, partitions=1)
    order(bus)
    assert trainer.pump()
    assert "no model is live" in bus.results()[0].detail
    assert bus.results()[0].outcome is Outcome.FAILED


def test_a_live_model_whose_card_is_broken_fails_with_the_place(house):
    house.catalogue.path("v1").with_name("card.json").write_bytes(b"{")
    order(house.bus)
    assert house.trainer.pump()
    [result] = house.bus.results()
    assert result.outcome is Outcome.FAILED
    assert "card.json is no model card" in result.detail


def test_a_live_model_whose_file_is_gone_is_retrained_without_comparison(house):
    house.catalogue.path("v1").unlink()
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
    (house.catalogue.path("v1").with_name(ACTION_FILE)).write_bytes(b"{")
    order(house.bus, action_id="action-2", command_id="c2")
    with capture_logs() as logs:
        house.trainer.pump()
    assert house.bus.results()[1].data["version"] == "v3"
    assert logs[0]["event"] == "unreadable note beside a model"


def test_faults_and_stale_changes_in_config_updates_do_not_change_what_is_live(house):
    house.bus.publish([Out(CONFIG, encode_block([
        Fault(id="f", name="slow-model", on=True, params={}, actor="chaos", at_us=START_US)]), 1)])  # fmt: skip
    house.bus.publish([Out(CONFIG, b"oops", 1)])
    promote(house.bus, "v99", "0" * 64, base=0)
    house.shifted_rows()
    order(house.bus)
    house.trainer.pump()
    assert house.bus.results()[0].outcome is Outcome.DONE


# --- MLflow ----------------------------------------------------------------------------------------------------------


def test_the_result_is_out_before_mlflow_is_told(house):
    house.shifted_rows()
    house.clock.pass_s(100)
    order(house.bus)
    assert house.trainer.pump()
    assert house.registry.registered == []
    assert house.bus.results()[0].outcome is Outcome.DONE
    assert not house.trainer.pump()  # quiet after a result
    house.clock.pass_s(6)
    assert house.trainer.pump()
    assert house.trainer.pump()
    assert house.registry.registered == ["v1", "v2"]
    assert Catalogue(house.catalogue.directory).fetch("v2").run_id == "run-v2"


def test_the_alias_follows_what_is_live(house):
    house.clock.pass_s(6)
    assert house.trainer.pump()
    assert house.trainer.pump()
    assert house.registry.champions == ["v1"]
    assert not house.trainer.pump()
    house.shifted_rows()
    order(house.bus)
    house.trainer.pump()
    promote(house.bus, "v2", house.catalogue.fetch("v2").digest, base=1)
    house.clock.pass_s(6)
    while house.trainer.pump():
        pass
    assert house.registry.champions == ["v1", "v2"]


def test_a_store_that_is_away_is_logged_and_tried_again_later_each_time(house):
    house.registry.away = True
    house.clock.pass_s(6)
    waits = []
    for _ in range(3):
        with capture_logs() as logs:
            assert not house.trainer.pump()
        waits.append(logs[0]["again_in_s"])
        assert logs[0]["log_level"] == "warning"
        assert logs[0]["reason"] == "MLflow store refused"
        with capture_logs() as logs:
            assert not house.trainer.pump()
        assert logs == []
        house.clock.pass_s(waits[-1])
    assert waits == [2, 4, 8]
    house.registry.away = False
    assert house.trainer.pump()
    assert house.registry.registered == ["v1"]


def test_what_a_crash_left_unregistered_is_registered_by_the_next_trainer(house):
    house.shifted_rows()
    order(house.bus)
    house.trainer.pump()
    successor = house.new_trainer()
    house.clock.pass_s(6)
    while successor.pump():
        pass
    assert house.registry.registered == ["v1", "v2"]


def test_a_broken_version_does_not_keep_the_others_from_mlflow(house):
    house.shifted_rows()
    order(house.bus)
    house.trainer.pump()
    (house.catalogue.directory / "v1" / "card.json").write_bytes(b"")
    successor = house.new_trainer()
    house.clock.pass_s(6)
    with capture_logs() as logs:
        assert successor.pump()
    assert house.registry.registered == ["v2"]
    assert logs[0]["event"] == "a version cannot be registered"


def test_mlflow_waits_while_a_command_waits_for_labels(house):
    order(house.bus)
    house.clock.pass_s(6)
    assert not house.trainer.pump()
    assert house.registry.registered == []
