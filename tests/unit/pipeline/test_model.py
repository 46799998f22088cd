"""The live model over the batch; what serves when it cannot; what is counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.events import NOW, batch, frame, table
from tests.support.models import LinearScorer, Shelf
from tests.support.same import difference

from mendstream.agents.panes import PANE_US, pane_of
from mendstream.agents.pipeline.model import KEEP_PANES, ModelAgent, feature_bins, layout
from mendstream.contracts import state as states
from mendstream.contracts.errors import UsageError
from mendstream.contracts.frame import Frame
from mendstream.contracts.models import FeatureReference
from mendstream.contracts.pipeline import Event, Pipeline
from mendstream.contracts.records import LATENCY_EDGES_MS, DeadReason
from mendstream.contracts.topics import Topic


class Click(Event, frozen=True):
    who: str


clicks = Pipeline("clicks", event=Click, key="who")


@clicks.fallback
def rule(features):
    return np.where(features["a"] > 0, 0.75, 0.25)


REFERENCE = {
    "a": FeatureReference(edges=(-1.0, 0.0, 1.0), counts=(1, 1, 1, 1, 0)),
    "b": FeatureReference(edges=(10.0,), counts=(1, 1, 0)),
}
V1 = LinearScorer("v1", {"a": 1.0, "b": 0.0}, reference=REFERENCE, seconds=0.012)
V2 = LinearScorer("v2", {"b": 1.0}, reference={"b": REFERENCE["b"]}, seconds=0.350)
OTHER = LinearScorer("v3", {"a": 1.0, "colour": 1.0})
SHADOW = LinearScorer("v4", {"a": -1.0})


def knobs(scorer: LinearScorer, version: int = 1, **more) -> dict:
    return {"version": version, "model_version": scorer.card.version, "model_digest": scorer.card.digest, **more}


def given_frame(rows: int = 4, **columns) -> Frame:
    a = np.linspace(-2, 2, rows, dtype=np.float32)
    return frame({"a": a, "b": np.full(rows, 20, dtype=np.float32), **columns}, made_us=NOW - 7)


def run(agent: ModelAgent, *frames: Frame, state=None, now: int = NOW, **config):
    state = agent.start(0) if state is None else state
    return agent.step(state, batch(*frames, topic=Topic.FEATURES, **config), now)


def only(outputs) -> Frame:
    ((topic, partition, made),) = outputs.frames
    assert (topic, partition) == (Topic.PREDICTIONS, 0)
    return made


# --- who serves ------------------------------------------------------------------------------------------------------


def test_the_live_model_scores_and_the_frame_says_so():
    _, outputs = run(ModelAgent(clicks, Shelf(V1)), given_frame(), **knobs(V1, 7))
    made = only(outputs)
    np.testing.assert_allclose(made.numbers("score"), 1 / (1 + np.exp([2.0, 2 / 3, -2 / 3, -2.0])), rtol=1e-6)
    assert table(made)["b"] == [20.0] * 4
    meta = made.meta
    assert (meta.model, meta.digest, meta.mode, meta.config, meta.shadow) == ("v1", V1.card.digest, "NORMAL", 7, "")
    assert (meta.born_us, meta.made_us) == (NOW, NOW + 12_000)  # served when the call came back


def test_safe_mode_serves_the_rule_and_does_not_call_the_model():
    scorer = LinearScorer("v1", {"a": 1.0, "b": 0.0})
    _, outputs = run(ModelAgent(clicks, Shelf(scorer)), given_frame(), **knobs(scorer, safe_mode=("incident-1",)))
    made = only(outputs)
    assert made.numbers("score").tolist() == [0.25, 0.25, 0.75, 0.75]
    assert (made.meta.mode, made.meta.model) == ("SAFE_MODE", "v1")
    assert scorer.calls == 0


def test_safe_mode_still_keeps_input_for_probes_and_counts_features():
    agent = ModelAgent(clicks, Shelf(V1))
    state, _ = run(agent, given_frame(100), **knobs(V1, safe_mode=("incident-1",)))
    assert agent.probe_input.shape == (64, 2)
    (counts,), _ = agent.counts(state, 0)
    assert (counts.arm, counts.n) == ("fallback", 100)
    assert "feature:a" in counts.hists
    assert "model_ms" not in counts.hists


def test_without_any_model_the_rule_serves_and_the_frame_names_no_model():
    _, outputs = run(ModelAgent(clicks, Shelf()), given_frame())
    assert (only(outputs).meta.model, only(outputs).meta.mode) == ("", "SAFE_MODE")


@pytest.mark.parametrize("unusable", [LinearScorer("v9", {"a": 1.0}), OTHER], ids=["not at hand", "other features"])
def test_the_last_good_model_goes_on_while_the_new_one_cannot_be_used_and_the_frame_says_so(unusable):
    agent = ModelAgent(clicks, Shelf(V1, OTHER))
    state, _ = run(agent, given_frame(), **knobs(V1))
    _, outputs = run(agent, given_frame(), state=state, **knobs(unusable, 2))
    made = only(outputs)
    assert outputs.dead == []
    assert (made.meta.model, made.meta.digest, made.meta.mode, made.meta.config) == ("v1", V1.card.digest, "NORMAL", 2)


def test_the_last_good_model_is_part_of_the_state_also_when_it_changed_on_a_tick():
    agent = ModelAgent(clicks, Shelf(V1, V2))
    state, first = run(agent, given_frame(), **knobs(V1))
    state, tick = run(agent, state=state, **knobs(V2, 2))
    fresh = agent.start(0)
    for outputs in (first, tick):
        fresh = agent.apply(fresh, states.decode_plain(states.encode(outputs.changes)))
    assert fresh.digest == V2.card.digest
    assert difference(state, fresh) == ""


def test_a_shadow_scores_beside_without_deciding():
    config = knobs(V1, shadow_version="v4", shadow_digest=SHADOW.card.digest)
    agent = ModelAgent(clicks, Shelf(V1, SHADOW))
    state, outputs = run(agent, given_frame(), **config)
    made = only(outputs)
    np.testing.assert_allclose(made.numbers("shadow_score"), 1 - made.numbers("score"), rtol=1e-6)
    assert made.meta.shadow == "v4"
    counts = {c.arm: c for c in agent.counts(state, 0)[0]}
    assert (counts["shadow"].model, counts["shadow"].n, counts["live"].n) == ("v4", 4, 4)


@pytest.mark.parametrize("shadow", [OTHER, LinearScorer("v8", {"a": 1.0})], ids=["other features", "not at hand"])
def test_a_shadow_that_cannot_be_used_does_not_touch_live_traffic(shadow):
    config = knobs(V1, shadow_version=shadow.card.version, shadow_digest=shadow.card.digest)
    _, outputs = run(ModelAgent(clicks, Shelf(V1, OTHER)), given_frame(), **config)
    made = only(outputs)
    assert "shadow_score" not in made.batch.schema.names
    assert (made.meta.shadow, made.rows, outputs.dead) == ("", 4, [])


# --- what cannot be scored -------------------------------------------------------------------------------------------


class Moody(LinearScorer):
    """Refuses a batch with a 13 in it, and gives NaN for a missing value."""

    def score(self, matrix):
        if np.any(matrix == 13):
            raise ValueError("thirteen")
        scores, seconds = super().score(matrix)
        return np.where(np.isnan(matrix).any(axis=1), np.nan, scores), seconds


def test_a_row_that_the_model_refuses_is_set_apart():
    moody = Moody("v5", {"a": 1.0})
    _, outputs = run(
        ModelAgent(clicks, Shelf(moody)), frame({"a": np.array([1, 13, 2], dtype=np.float32)}), **knobs(moody)
    )
    assert [v for _, _, made in outputs.frames for v in made.strings("event_id")] == ["e0", "e2"]
    (letter,) = outputs.dead
    assert (letter.reason, letter.stage, letter.topic) == (DeadReason.STEP_FAILED, "model", "features")
    assert Frame.decode(letter.value).strings("event_id") == ["e1"]


def test_a_score_that_is_no_number_never_leaves_the_stage():
    moody = Moody("v5", {"a": 1.0})
    given = frame({"a": np.array([1, np.nan, 2, np.nan], dtype=np.float32)})
    agent = ModelAgent(clicks, Shelf(moody))
    state, outputs = run(agent, given, **knobs(moody))
    assert only(outputs).strings("event_id") == ["e0", "e2"]
    assert [letter.reason for letter in outputs.dead] == [DeadReason.NOT_FINITE] * 2
    assert [Frame.decode(letter.value).strings("event_id") for letter in outputs.dead] == [["e1"], ["e3"]]
    assert agent.counts(state, 0)[0][0].n == 2


def test_a_batch_without_any_usable_score_writes_no_empty_frame():
    moody = Moody("v5", {"a": 1.0})
    _, outputs = run(ModelAgent(clicks, Shelf(moody)), frame({"a": np.full(3, np.nan, np.float32)}), **knobs(moody))
    assert outputs.frames == []
    assert len(outputs.dead) == 3


def test_a_rule_that_fails_on_every_row_is_a_bug():
    with pytest.raises(UsageError, match="each of 2"):
        run(ModelAgent(clicks, Shelf()), frame({"z": np.array([1.0, 2.0])}))


# --- counts ----------------------------------------------------------------------------------------------------------


def test_counts_are_named_by_feature_with_the_models_own_time():
    agent = ModelAgent(clicks, Shelf(V1))
    missing = np.array([np.nan, -1.0, 0.5, 99.0], dtype=np.float32)
    state, _ = run(agent, given_frame(a=missing), **knobs(V1, 3))
    (counts,), revision = agent.counts(state, 0)
    assert (counts.pane, counts.model, counts.config, counts.arm, counts.n) == (pane_of(NOW), "v1", 3, "live", 4)
    assert counts.hists["feature:a"] == (1, 0, 1, 1, 1)
    assert counts.hists["feature:b"] == (0, 4, 0)
    latency = counts.hists["model_ms"]
    assert len(latency) == len(LATENCY_EDGES_MS) + 1
    assert latency[LATENCY_EDGES_MS.index(20)] == 4  # 12 ms
    assert set(counts.hists) == {"feature:a", "feature:b", "model_ms"}
    assert agent.counts(state, revision) == ([], revision)


def test_counts_of_several_versions_and_panes_stay_apart():
    agent = ModelAgent(clicks, Shelf(V1, V2))
    state, _ = run(agent, given_frame(3), **knobs(V1, 1))
    state, _ = run(agent, given_frame(5), state=state, now=NOW + PANE_US, **knobs(V1, 1))
    state, _ = run(agent, given_frame(2), state=state, now=NOW + PANE_US, **knobs(V2, 2))
    late = pane_of(NOW + PANE_US + 350_000) - pane_of(NOW)  # v2's call comes back in a later pane
    found = {(c.pane - pane_of(NOW), c.model, c.config): c for c in agent.counts(state, 0)[0]}
    assert {key: c.n for key, c in found.items()} == {(0, "v1", 1): 3, (1, "v1", 1): 5, (late, "v2", 2): 2}
    assert set(found[late, "v2", 2].hists) == {"feature:b", "model_ms"}
    assert found[late, "v2", 2].hists["model_ms"][LATENCY_EDGES_MS.index(400)] == 2


def test_old_panes_are_forgotten_here_and_in_what_is_redone():
    agent = ModelAgent(clicks, Shelf(V1))
    state, fresh = agent.start(0), agent.start(0)
    for n in range(100):
        state, outputs = run(agent, given_frame(1), state=state, now=NOW + n * PANE_US, **knobs(V1))
        fresh = agent.apply(fresh, states.decode_plain(states.encode(outputs.changes)))
        assert difference(state, fresh) == ""
    assert len(state.panes.totals) == KEEP_PANES + 1
    state, outputs = run(agent, state=state, now=NOW + 1000 * PANE_US, **knobs(V1))
    fresh = agent.apply(fresh, states.decode_plain(states.encode(outputs.changes)))
    assert state.panes.totals == fresh.panes.totals == {}


floats32 = st.floats(-100, 100, width=32)
columns = st.lists(
    st.one_of(floats32, st.just(float("nan")), st.just(float("inf")), st.just(float("-inf"))), max_size=40
)


@given(columns, st.lists(floats32, max_size=6, unique=True).map(sorted))
def test_bins_are_those_of_a_plain_count(values, edges):
    reference = {"f": FeatureReference(edges=tuple(edges), counts=tuple([0] * (len(edges) + 2)))}
    matrix = np.zeros((len(values), 2), dtype=np.float32)
    matrix[:, 1] = values
    plain = [0] * (len(edges) + 2)
    for value in values:
        plain[len(edges) + 1 if np.isnan(value) else sum(edge < value for edge in edges)] += 1
    assert feature_bins(matrix, ("unreferenced", "f"), reference).tolist() == plain
    assert layout(("unreferenced", "f"), reference) == (("f", len(edges) + 2),)


def test_without_a_reference_there_are_no_bins():
    assert feature_bins(np.zeros((3, 1), dtype=np.float32), ("f",), {}) is None
