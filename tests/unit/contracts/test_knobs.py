"""Knobs: what may be set, and compare and set."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.house import change

from mendstream.contracts.knobs import KNOBS, Fold, LiveConfig, Mode, check, fold

GOOD = {
    "safe_mode": (["incident-1", "incident-2"], ("incident-1", "incident-2")),
    "decision_threshold": (0.7, 0.7),
    "model_version": ("v2", "v2"),
    "model_digest": ("abc", "abc"),
    "shadow_version": ("v3", "v3"),
    "shadow_digest": ("def", "def"),
    "excluded_models": (["v1"], ("v1",)),
    "sampling": (1, 1),
    "healing_paused": (True, True),
}


def test_the_table_has_every_knob_with_the_default_of_the_config():
    config = LiveConfig()
    assert {knob.name for knob in KNOBS} == {f.name for f in msgspec.structs.fields(LiveConfig)} - {"version"}
    assert {knob.name: knob.default for knob in KNOBS} == {knob.name: getattr(config, knob.name) for knob in KNOBS}
    assert set(GOOD) == {knob.name for knob in KNOBS}
    assert all(knob.doc for knob in KNOBS)


@pytest.mark.parametrize(("name", "value", "held"), [(name, *values) for name, values in GOOD.items()])
def test_each_knob_can_be_set(name, value, held):
    assert check({name: value}) == ""
    config, done = fold(LiveConfig(), change(0, **{name: value}))
    assert done is Fold.APPLIED
    assert getattr(config, name) == held
    assert config.version == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"colour": 1}, "unknown knob 'colour'"),
        ({"version": 7}, "unknown knob 'version'"),
        ({"decision_threshold": "0.7"}, "must be a number"),
        ({"decision_threshold": True}, "must be a number"),
        ({"decision_threshold": 0.0}, "outside 0.01 to 0.99"),
        ({"decision_threshold": float("nan")}, "outside"),
        ({"decision_threshold": float("inf")}, "outside"),
        ({"sampling": 0}, "outside"),
        ({"safe_mode": "incident-1"}, "list of strings"),
        ({"safe_mode": [1]}, "list of strings"),
        ({"model_version": 2}, "must be str"),
        ({"healing_paused": 1}, "must be bool"),
        ({"sampling": 0.5, "model_version": None}, "must be str"),
    ],
)
def test_what_may_not_be_set_changes_nothing_at_all(changes, why):
    assert why in check(changes)
    config = LiveConfig(version=3)
    assert fold(config, change(3, **changes)) == (config, Fold.INVALID)


def test_a_change_on_an_old_version_is_stale_and_on_a_later_one_too():
    config = LiveConfig(version=3, sampling=0.5)
    for base in (0, 2, 4):
        assert fold(config, change(base, sampling=0.9)) == (config, Fold.STALE)


def test_a_set_of_knobs_changes_at_once():
    config, _ = fold(LiveConfig(), change(0, model_version="v2", model_digest="d", decision_threshold=0.4))
    assert config == LiveConfig(version=1, model_version="v2", model_digest="d", decision_threshold=0.4)


def test_an_empty_change_makes_a_version():
    assert fold(LiveConfig(), change(0)) == (LiveConfig(version=1), Fold.APPLIED)


def test_safe_mode_lasts_while_anybody_holds_it():
    assert LiveConfig().mode is Mode.NORMAL
    assert LiveConfig(safe_mode=("a",)).mode is Mode.SAFE_MODE


@given(st.lists(st.integers(0, 6), max_size=30))
def test_of_writers_that_race_one_wins_each_version(bases):
    config, versions = LiveConfig(), []
    for base in bases:
        config, done = fold(config, change(base, sampling=0.5))
        if done is Fold.APPLIED:
            versions.append(config.version)
    assert versions == list(range(1, len(versions) + 1))
