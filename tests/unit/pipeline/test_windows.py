"""Keyed windows against a plain model: whatever way the events are cut, each mean is over the last earlier ones."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.support.same import difference

from mendstream.agents.pipeline import windows
from mendstream.contracts import state as states
from mendstream.contracts.pipeline import Mean

MEANS = {"short": Mean("x", last=1), "long": Mean("x", last=4), "other": Mean("y", last=2)}

values = st.one_of(st.just(math.nan), st.floats(-1e6, 1e6).map(lambda v: round(v, 3)))
events = st.lists(st.tuples(st.sampled_from("abcdefgh"), values, values), max_size=60)
cuts = st.lists(st.integers(1, 12), max_size=30)


class Plain:
    """The same with a dictionary of lists, one event at a time; `max_keys` as the real one keeps it, batch by batch."""

    def __init__(self, means: dict[str, Mean], max_keys: int = 1000) -> None:
        self.means = means
        self.max_keys = max_keys
        self.seen: dict[str, dict[str, list[float]]] = {}
        self.order: dict[str, int] = {}
        self.rows: list[str] = []
        self.batches = 0

    def update(self, batch: list[tuple[str, float, float]]) -> dict[str, list[float]]:
        self.batches += 1
        self.make_room(list(dict.fromkeys(key for key, _, _ in batch)))
        found: dict[str, list[float]] = {name: [] for name in self.means}
        for key, x, y in batch:
            history = self.seen.setdefault(key, {"x": [], "y": []})
            self.order[key] = self.batches
            for name, mean in self.means.items():
                there = [v for v in reversed(history[mean.column][-mean.last :]) if not math.isnan(v)]
                total = 0.0
                for value in there:
                    total += value
                found[name].append(total / len(there) if there else math.nan)
            history["x"].append(x)
            history["y"].append(y)
        return found

    def make_room(self, keys: list[str]) -> None:
        """The keys unseen for longest go, the older row first among equals."""
        new = [key for key in keys if key not in self.seen]
        if new and len(self.rows) + len(new) > self.max_keys:
            count = max(len(self.rows) + len(new) - self.max_keys, self.max_keys // 10)
            for key in sorted(self.rows, key=lambda k: (self.order[k], self.rows.index(k)))[:count]:
                self.rows.remove(key)
                del self.seen[key], self.order[key]
        self.rows += [key for key in keys if key not in self.rows]


def run(events, cuts, max_keys=1000, means=MEANS):
    """Real and plain, batch by batch: (real means, plain means, state, changes)."""
    state, plain = windows.WindowState(), Plain(means, max_keys)
    changes, real_means, plain_means = [], [], []
    remaining, sizes = list(events), iter(cuts)
    while remaining:
        size = next(sizes, len(remaining))
        batch, remaining = remaining[:size], remaining[size:]
        keys = [key for key, _, _ in batch]
        columns = {"x": np.array([x for _, x, _ in batch]), "y": np.array([y for _, _, y in batch])}
        found, change = windows.update(state, means, keys, columns, max_keys)
        real_means.append({name: column.tolist() for name, column in found.items()})
        plain_means.append(plain.update(batch))
        changes.append(change)
    return real_means, plain_means, state, changes


@given(events, cuts)
def test_means_are_those_of_the_plain_model_however_the_events_are_cut(events, cuts):
    real, plain, _, _ = run(events, cuts)
    assert difference(real, plain) == ""


@given(events, cuts)
def test_the_cut_makes_no_difference_to_the_last_bit(events, cuts):
    whole, _, _, _ = run(events, [])
    parts, _, _, _ = run(events, cuts)
    joined = {name: [v for part in parts for v in part[name]] for name in MEANS} if events else {}
    assert difference(whole[0] if whole else {}, joined) == ""


@given(events, cuts, st.integers(1, 6))
def test_memory_is_bounded_and_the_keys_unseen_for_longest_make_room(events, cuts, max_keys):
    real, plain, state, _ = run(events, cuts, max_keys)
    assert difference(real, plain) == ""
    assert len(state.index) <= max(max_keys, 8)
    assert sorted(state.index.values()) == list(range(len(state.index)))


@given(events, cuts, st.sampled_from([3, 1000]))
def test_doing_the_changes_again_gives_the_same_state(events, cuts, max_keys):
    _, _, state, changes = run(events, cuts, max_keys)
    again = windows.WindowState()
    for change in changes:
        windows.redo(again, MEANS, states.decode_plain(states.encode(change)), max_keys)
    assert difference(state, again) == ""


@given(events, cuts, cuts)
def test_a_state_that_went_through_bytes_goes_on_as_if_nothing_had_happened(events, cuts, later):
    _, _, state, _ = run(events, cuts, 4)
    back = states.decode(states.encode(state), windows.WindowState)
    assert difference(state, back) == ""
    one, _ = windows.update(state, MEANS, list("abcdef"), {"x": np.ones(6), "y": np.ones(6)}, 4)
    other, _ = windows.update(back, MEANS, list("abcdef"), {"x": np.ones(6), "y": np.ones(6)}, 4)
    assert difference(one, other) == ""


def test_a_keys_first_event_has_no_mean_and_an_event_does_not_see_itself():
    state = windows.WindowState()
    found, _ = windows.update(
        state, {"m": Mean("x", 2)}, ["a", "a", "a", "b"], {"x": np.array([1.0, 3.0, 5.0, 7.0])}, 9
    )
    assert str(found["m"].tolist()) == "[nan, 1.0, 2.0, nan]"


def test_a_missing_value_takes_a_place_but_does_not_count():
    state = windows.WindowState()
    x = np.array([1.0, np.nan, 5.0, 7.0])
    found, _ = windows.update(state, {"m": Mean("x", 2)}, ["a"] * 4, {"x": x}, 9)
    assert str(found["m"].tolist()) == "[nan, 1.0, 1.0, 5.0]"


def test_windows_that_the_pipeline_has_changed_begin_empty_and_the_others_go_on():
    state = windows.WindowState()
    before = {"kept": Mean("x", 2), "longer": Mean("x", 2), "gone": Mean("x", 2)}
    _, change = windows.update(state, before, ["a", "b"], {"x": np.array([1.0, 2.0])}, 9)
    after = {"kept": Mean("x", 2), "longer": Mean("x", 3), "new": Mean("x", 1)}
    again = windows.WindowState()
    windows.redo(again, after, change, 9)
    for held in (state, again):
        found, _ = windows.update(held, after, ["a", "b", "a"], {"x": np.array([3.0, 4.0, 5.0])}, 9)
        assert str({name: column.tolist() for name, column in found.items()}) == str(
            {"kept": [1.0, 2.0, 2.0], "longer": [math.nan, math.nan, 3.0], "new": [math.nan, math.nan, 3.0]}
        )
