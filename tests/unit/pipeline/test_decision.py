"""One record per event with what made it, and the end-to-end latency counted under the versions that served."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.events import NOW, batch, frame
from tests.support.same import difference

from mendstream.agents.panes import pane_of
from mendstream.agents.pipeline.decision import KEEP_PANES, DecisionAgent
from mendstream.contracts import state as states
from mendstream.contracts.errors import UsageError
from mendstream.contracts.frame import Frame
from mendstream.contracts.pipeline import Event, Pipeline
from mendstream.contracts.records import LATENCY_EDGES_MS, DeadReason, Decision, decode_block
from mendstream.contracts.topics import Topic


class Click(Event, frozen=True):
    who: str


def pipeline(decide=None) -> Pipeline:
    made = Pipeline("clicks", event=Click, key="who", positive="yes", negative="no")
    if decide is not None:
        made.decide(decide)
    return made


def scored(*scores: float, **meta) -> Frame:
    return frame({"score": np.array(scores), "x": np.arange(len(scores))}, **{"model": "v1", "config": 3, **meta})


def run(agent: DecisionAgent, *frames: Frame, state=None, now: int = NOW, **config):
    state = agent.start(0) if state is None else state
    return agent.step(state, batch(*frames, topic=Topic.PREDICTIONS, **config), now)


def decisions(outputs) -> list[Decision]:
    assert all((topic, partition) == (Topic.DECISIONS, 0) for topic, partition, _, _ in outputs.blocks)
    found = [record for _, _, block, _ in outputs.blocks for record in decode_block(Topic.DECISIONS, block)]
    assert len(found) == sum(rows for _, _, _, rows in outputs.blocks)
    return found


def test_each_event_gets_one_record_that_says_what_made_it():
    _, outputs = run(DecisionAgent(pipeline()), scored(0.3, 0.7), version=5, decision_threshold=0.6)
    first, second = decisions(outputs)
    assert first == Decision(
        event_id="e0", key="k", outcome="no", score=0.3, model="v1", mode="NORMAL", config=5,
        reason="score against 0.6", at_us=NOW,
    )  # fmt: skip
    assert (second.event_id, second.outcome, second.score) == ("e1", "yes", 0.7)


def test_a_score_at_the_threshold_is_positive():
    _, outputs = run(DecisionAgent(pipeline()), scored(0.5), decision_threshold=0.5)
    assert decisions(outputs)[0].outcome == "yes"


def test_a_decision_of_safe_mode_says_so():
    _, outputs = run(DecisionAgent(pipeline()), scored(0.9, mode="SAFE_MODE"))
    assert (decisions(outputs)[0].mode, decisions(outputs)[0].reason) == ("SAFE_MODE", "rule fallback")


def test_the_users_rule_sees_scores_features_and_threshold():
    def decide(score, features, threshold):
        return np.where((score >= threshold) & (features["x"] > 0), "stop", "go")

    _, outputs = run(DecisionAgent(pipeline(decide)), scored(0.9, 0.9), decision_threshold=0.5)
    assert [d.outcome for d in decisions(outputs)] == ["go", "stop"]


def test_a_record_that_the_rule_refuses_is_set_apart():
    def decide(score, features, threshold):
        if np.any(score > 1):
            raise ValueError("above one")
        return np.full(len(score), "ok")

    agent = DecisionAgent(pipeline(decide))
    state, outputs = run(agent, scored(0.1, 2.0, 0.3))
    assert [d.event_id for d in decisions(outputs)] == ["e0", "e2"]
    (letter,) = outputs.dead
    assert (letter.reason, letter.topic, letter.stage) == (DeadReason.STEP_FAILED, "predictions", "decision")
    assert Frame.decode(letter.value).strings("event_id") == ["e1"]
    assert agent.counts(state, 0)[0][0].n == 2


@pytest.mark.parametrize(
    "decide",
    [
        lambda score, features, threshold: np.where(score > 0, 1, 0),
        lambda score, features, threshold: np.array(["one"]),
        lambda score, features, threshold: np.array([None, "x", "y"], dtype=object),
    ],
    ids=["numbers", "too few", "null"],
)
def test_outcomes_that_no_reader_could_read_are_the_codes_fault(decide):
    with pytest.raises(UsageError, match="one string per event"):
        run(DecisionAgent(pipeline(decide)), scored(0.1, 0.2, 0.3), scored(0.4))


def test_latency_is_counted_from_when_each_event_was_accepted():
    agent = DecisionAgent(pipeline())
    early, late = scored(0.1, 0.1, born_us=NOW - 40_000), scored(0.1, born_us=NOW - 3_000)
    state, _ = run(agent, early, late, version=3)
    (counts,), _ = agent.counts(state, 0)
    assert (counts.pane, counts.model, counts.arm, counts.n) == (pane_of(NOW), "v1", "live", 3)
    latency = counts.hists["latency"]
    assert latency[LATENCY_EDGES_MS.index(50)] == 2
    assert latency[LATENCY_EDGES_MS.index(5)] == 1
    assert sum(latency) == 3


@pytest.mark.parametrize(("model_stage", "decision_stage", "counted"), [(3, 5, 3), (5, 3, 3), (4, 4, 4)])
def test_a_version_has_served_an_event_once_both_stages_had_it(model_stage, decision_stage, counted):
    agent = DecisionAgent(pipeline())
    state, outputs = run(agent, scored(0.1, config=model_stage), version=decision_stage)
    assert agent.counts(state, 0)[0][0].config == counted
    assert decisions(outputs)[0].config == decision_stage


def test_what_the_rule_served_is_counted_apart():
    agent = DecisionAgent(pipeline())
    state, _ = run(agent, scored(0.1), scored(0.1, 0.2, mode="SAFE_MODE"))
    assert {c.arm: c.n for c in agent.counts(state, 0)[0]} == {"live": 1, "fallback": 2}


def test_changes_bring_a_fresh_state_to_the_same_place_and_old_panes_go():
    agent = DecisionAgent(pipeline())
    state, fresh = agent.start(0), agent.start(0)
    for n in range(100):
        state, outputs = run(agent, *([scored(0.1)] if n % 3 else []), state=state, now=NOW + n * 300_000)
        if outputs.changes is not None:
            fresh = agent.apply(fresh, states.decode_plain(states.encode(outputs.changes)))
        assert difference(state, fresh) == ""
    assert len(state.panes.totals) <= KEEP_PANES + 1


def test_a_tick_is_harmless():
    _, outputs = run(DecisionAgent(pipeline()))
    assert (outputs.blocks, outputs.dead, outputs.changes) == ([], [], None)
