"""Features of whole columns; a record that the user's code refuses is set apart, the rest goes on."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.events import NOW, batch, frame, table
from tests.support.trips import trips

from mendstream.agents.pipeline.feature import FeatureAgent
from mendstream.contracts.errors import UsageError
from mendstream.contracts.frame import Frame
from mendstream.contracts.pipeline import Event, Mean, Pipeline
from mendstream.contracts.records import DeadReason
from mendstream.contracts.topics import Topic


class Click(Event, frozen=True):
    who: str
    x: float


def pipeline(function, **options) -> Pipeline:
    made = Pipeline("clicks", event=Click, key="who", **options)
    made.features(function)
    return made


def clicks(*x: float, keys: list[str] | None = None, **meta) -> Frame:
    return frame({"x": np.array(x)}, keys=keys, **meta)


def run(agent: FeatureAgent, *given: Frame, **knobs):
    return agent.step(agent.start(0), batch(*given, **knobs), NOW + 5)


def test_features_come_as_float32_under_the_same_head_with_the_versions_that_made_them():
    agent = FeatureAgent(pipeline(lambda events, windows: {"twice": events["x"] * 2, "one": events["x"] > 1}))
    _, outputs = run(agent, clicks(1.0, 2.0, keys=["a", "b"]), version=4)
    ((topic, partition, made),) = outputs.frames
    assert (topic, partition) == (Topic.FEATURES, 0)
    assert made.batch.schema.names == ["event_id", "key", "event_time_us", "born_us", "twice", "one"]
    assert table(made)["twice"] == [2.0, 4.0]
    assert table(made)["one"] == [0.0, 1.0]
    assert {str(made.batch.column(name).type) for name in ("twice", "one")} == {"float"}
    assert (made.meta.config, made.meta.made_us, made.meta.born_us) == (4, NOW + 5, NOW)


def test_windows_hand_the_mean_before_each_event_and_go_on_in_the_next_frame():
    agent = FeatureAgent(
        pipeline(lambda e, w: {"usual": np.nan_to_num(w["usual"], nan=-1)}, windows={"usual": Mean("x", 2)})
    )
    state, first = run(agent, clicks(1.0, 3.0, 5.0, keys=["a", "a", "b"]))
    _, second = agent.step(state, batch(clicks(7.0, 9.0, keys=["b", "a"])), NOW)
    assert [table(made)["usual"] for _, _, made in (*first.frames, *second.frames)] == [[-1, 1, -1], [5, 2]]


def test_user_code_does_not_see_the_windows_as_events_of_its_own():
    seen = {}

    def function(events, windows):
        seen.update({"windows": set(windows)})
        return {"x": events["x"]}

    run(FeatureAgent(pipeline(function, windows={"usual": Mean("x", 2)})), clicks(1.0))
    assert seen == {"windows": {"usual"}}


def test_a_record_that_user_code_refuses_is_set_apart_and_its_neighbours_go_on():
    def function(events, windows):
        if np.any(events["x"] < 0):
            raise ValueError("negative")
        return {"root": np.sqrt(events["x"])}

    given = clicks(4.0, -1.0, 9.0, 16.0, -2.0)
    _, outputs = run(FeatureAgent(pipeline(function)), given)
    assert [v for _, _, made in outputs.frames for v in table(made)["root"]] == [2.0, 3.0, 4.0]
    assert [v for _, _, made in outputs.frames for v in made.strings("event_id")] == ["e0", "e2", "e3"]
    letters = outputs.dead
    assert [Frame.decode(letter.value).strings("event_id") for letter in letters] == [["e1"], ["e4"]]
    assert table(Frame.decode(letters[0].value))["x"] == [-1.0]
    assert Frame.decode(letters[0].value).batch.schema.names == given.batch.schema.names
    assert {(letter.reason, letter.stage, letter.topic) for letter in letters} == {
        (DeadReason.STEP_FAILED, "feature", "raw-events")
    }
    assert "negative" in letters[0].detail


def test_windows_stay_in_step_with_their_rows_when_a_record_is_refused():
    def function(events, windows):
        if np.any(events["x"] < 0):
            raise ValueError("negative")
        return {"usual": np.nan_to_num(windows["usual"], nan=-9)}

    agent = FeatureAgent(pipeline(function, windows={"usual": Mean("x", 1)}))
    _, outputs = run(agent, clicks(1.0, 2.0, -3.0, 4.0))
    assert [v for _, _, made in outputs.frames for v in table(made)["usual"]] == [-9.0, 1.0, -3.0]


def test_code_that_fails_on_every_record_is_a_bug_and_not_bad_data():
    def function(events, windows):
        raise KeyError("colour")

    with pytest.raises(UsageError, match=r"failed on each of 3 records.*colour"):
        run(FeatureAgent(pipeline(function)), clicks(1.0, 2.0, 3.0))


def test_a_pipeline_without_features_says_what_to_do():
    with pytest.raises(UsageError, match="no features"):
        run(FeatureAgent(Pipeline("clicks", event=Click, key="who")), clicks(1.0, 2.0))


def test_features_under_a_name_of_the_house_are_refused():
    with pytest.raises(UsageError, match="may not be named score"):
        run(FeatureAgent(pipeline(lambda e, w: {"score": e["x"]})), clicks(1.0, 2.0))


@pytest.mark.parametrize("values", [np.zeros(7), np.zeros(1), 5.0, np.zeros((2, 1))], ids=["7", "1", "scalar", "2x1"])
def test_features_of_another_shape_than_one_number_an_event_are_the_codes_fault(values):
    with pytest.raises(UsageError, match=r"feature 'x' has shape .* for 2 events"):
        run(FeatureAgent(pipeline(lambda e, w: {"x": values})), clicks(1.0, 2.0))


def test_changes_bring_a_fresh_state_to_the_same_place():
    agent = FeatureAgent(trips)
    given = frame(
        {"plane": ["a", "b", "a"], "hour": [1, 2, 3], "delay": [1.0, 2.0, 3.0], "seats": [1.0, np.nan, 3.0],
         "poison": [0.0, 0.0, 0.0]}, keys=["a", "b", "a"],
    )  # fmt: skip
    state, outputs = agent.step(agent.start(0), batch(given, given), NOW)
    from tests.support.same import difference

    from mendstream.contracts import state as states

    again = agent.apply(agent.start(0), states.decode_plain(states.encode(outputs.changes)))
    assert difference(state, again) == ""


def test_a_tick_is_harmless():
    agent = FeatureAgent(trips)
    _state, outputs = agent.step(agent.start(0), batch(), NOW)
    assert (outputs.frames, outputs.dead, outputs.changes) == ([], [], None)
