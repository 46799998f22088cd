"""The joiner: labels meet predictions, in any order, once."""

import numpy as np
import pytest
from tests.unit.monitoring.given import T0, batch, feedback, frame

from mendstream.agents.monitoring.joiner import JoinerAgent
from mendstream.contracts import state as states
from mendstream.contracts.agent import Agent, Counting, Incremental
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.records import PANE_US, DeadReason, encode

S = 1_000_000


@pytest.fixture
def joiner():
    return JoinerAgent()


def run(agent, *steps):
    """(state, all outputs) of steps (now, batch)."""
    state, outs = agent.start(0), []
    for now, given in steps:
        state, out = agent.step(state, given, now)
        outs.append(out)
    return state, outs


def errors(agent, state):
    """{(pane - first, model, config, arm): (n, bad)}"""
    found, _ = agent.counts(state, 0)
    return {(c.pane - T0 // PANE_US, c.model, c.config, c.arm): c.losses["error"] for c in found if "error" in c.losses}


def test_it_has_the_shape_of_an_agent_that_counts_in_increments(joiner):
    agent: Agent = joiner
    assert agent.name == "joiner"
    assert isinstance(joiner, Incremental)
    assert isinstance(joiner, Counting)


def test_a_label_counts_under_the_versions_and_the_pane_that_served_it(joiner):
    given = frame(["a", "b", "c"], [0.9, 0.2, 0.5], at=T0, model="v3", config=7)
    state, _ = run(
        joiner,
        (T0, batch(frames=[given])),
        (T0 + 20 * S, batch(feedback("a", 1), feedback("b", 1), feedback("c", 1))),
    )
    assert errors(joiner, state) == {(0, "v3", 7, "live"): (3, 1)}
    assert joiner.counts(state, 0)[0][0].task == "joiner/0"


def test_a_label_may_come_before_its_prediction(joiner):
    state, _ = run(joiner, (T0, batch(feedback("a", 0))), (T0 + S, batch(frames=[frame(["a"], [0.9], at=T0 + S)])))
    assert errors(joiner, state) == {(4, "v1", 1, "live"): (1, 1)}


def test_a_repeated_label_counts_once_even_if_it_says_otherwise(joiner):
    state, _ = run(
        joiner,
        (T0, batch(feedback("a", 0), feedback("a", 1))),
        (T0, batch(feedback("a", 0), frames=[frame(["a"], [0.1])])),
        (T0 + S, batch(feedback("a", 1))),
    )
    assert errors(joiner, state) == {(0, "v1", 1, "live"): (1, 0)}


def test_safe_mode_and_shadow_are_arms_of_their_own(joiner):
    rules = frame(["a"], [0.9], mode="SAFE_MODE")
    shadowed = frame(["b"], [0.9], shadow="v2", shadow_scores=[0.1])
    state, _ = run(joiner, (T0, batch(feedback("a", 1), feedback("b", 0), frames=[rules, shadowed])))
    assert errors(joiner, state) == {
        (0, "v1", 1, "fallback"): (1, 0),
        (0, "v1", 1, "live"): (1, 1),
        (0, "v2", 1, "shadow"): (1, 0),
    }


def test_an_id_is_unique_per_key_only(joiner):
    state, _ = run(
        joiner,
        (T0, batch(frames=[frame(["a", "a"], [0.9, 0.1], keys=["x", "y"])])),
        (T0, batch(feedback("a", 1, key="x"), feedback("a", 1, key="y"))),
    )
    assert errors(joiner, state) == {(0, "v1", 1, "live"): (2, 1)}


def test_an_id_that_we_issued_needs_no_key(joiner):
    state, _ = run(joiner, (T0, batch(feedback("a", 0, key=""), frames=[frame(["a"], [0.9], keys=["x"])])))
    assert errors(joiner, state) == {(0, "v1", 1, "live"): (1, 1)}


def test_feedback_that_matches_nothing_in_time_is_a_dead_letter_with_its_bytes(joiner):
    lost = feedback("nobody", 1)
    state, outs = run(joiner, (T0, batch(lost)), (T0 + 29 * S, batch()), (T0 + 30 * S, batch()))
    assert outs[0].wake_at_us == T0 + 30 * S
    assert not outs[1].dead
    (letter,) = outs[2].dead
    assert (letter.reason, letter.value) == (DeadReason.UNKNOWN_EVENT, encode(lost))
    assert not state.held


def test_a_label_that_comes_after_its_time_is_not_counted(joiner):
    state, _ = run(joiner, (T0, batch(frames=[frame(["a"], [0.9])])), (T0 + 121 * S, batch(feedback("a", 0))))
    assert errors(joiner, state) == {}
    assert not state.pending


def test_too_many_predictions_push_the_oldest_out_and_are_counted():
    agent = JoinerAgent(max_pending=80)
    ids = [f"e{i}" for i in range(100)]
    state, outs = run(
        agent,
        (T0, batch(frames=[frame(ids[:50], [0.9] * 50), frame(ids[50:], [0.9] * 50, config=2)])),
        (T0 + S, batch(feedback("e0", 1), feedback("e99", 1))),
        (T0 + 40 * S, batch()),
    )
    found, _ = agent.counts(state, 0)
    assert [c.losses for c in found] == [{"dropped": (30, 30)}, {"error": (1, 0)}]
    assert len(state.pending) == 70
    assert not any(out.dead for out in outs), "a label whose prediction we dropped is nobody's fault"


def test_sampling_takes_the_same_events_on_both_sides(joiner):
    ids = [f"e{i}" for i in range(2000)]
    half = LiveConfig(version=1, sampling=0.5)
    state, outs = run(
        joiner,
        (T0, batch(frames=[frame(ids, [0.9] * 2000)], config=half)),
        (T0, batch(*(feedback(i, 1) for i in ids), config=half)),
        (T0 + 31 * S, batch(config=half)),
    )
    ((n, bad),) = errors(joiner, state).values()
    assert 900 < n < 1100
    assert bad == 0
    assert not any(out.dead for out in outs)


def test_after_sampling_was_raised_labels_of_events_left_out_are_no_dead_letters(joiner):
    ids = [f"e{i}" for i in range(200)]
    state, outs = run(
        joiner,
        (T0, batch(frames=[frame(ids, [0.9] * 200)], config=LiveConfig(sampling=0.5))),
        (T0 + S, batch(*(feedback(i, 1) for i in ids))),
        (T0 + 32 * S, batch()),
    )
    assert not any(out.dead for out in outs)
    assert not state.held


def stream():
    """Forty turns with everything that can happen, as (now, batch)."""
    dice = np.random.default_rng(5)
    for turn in range(40):
        now = T0 + turn * 5 * S
        ids = [f"e{turn}-{i}" for i in range(20)]
        shadow = {"shadow": "v2", "shadow_scores": dice.random(20)} if turn % 3 == 0 else {}
        given = frame(ids, dice.random(20), at=now, config=turn // 10, **shadow)
        labels = [
            feedback(f"e{max(0, turn - int(dice.integers(-1, 30)))}-{i}", dice.random() < 0.5, at=now)
            for i in range(25)
        ]
        config = LiveConfig(sampling=0.7 if 15 < turn < 20 else 1.0)
        yield now, batch(*labels, frames=[given], config=config, turn=f"i/t/{turn}")


@pytest.mark.parametrize("at", [1, 17, 33])
def test_snapshot_and_changes_resume_where_it_was(at):
    agent = JoinerAgent(max_pending=300)
    state, resumed = agent.start(0), None
    for turn, (now, given) in enumerate(stream()):
        if turn == at:
            resumed = states.decode(states.encode(state), agent.state_type)
        state, out = agent.step(state, given, now)
        if resumed is not None and out.changes is not None:
            resumed = agent.apply(resumed, states.decode_plain(states.encode(out.changes)))
    assert states.encode(resumed) == states.encode(state)
    assert agent.counts(resumed, 0) == agent.counts(state, 0)


def test_a_tick_is_harmless(joiner):
    state, (_, out) = run(joiner, (T0, batch(frames=[frame(["a"], [0.9])])), (T0, batch()))
    assert out.changes is None
    assert not out.records
    assert errors(joiner, state) == {}
