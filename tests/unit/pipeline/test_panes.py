"""Totals of what was served, by pane and version; panes merge by addition, a higher revision supersedes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.same import difference

from mendstream.agents.panes import PaneTable, latency_bucket, pane_of
from mendstream.contracts import state as states
from mendstream.contracts.records import LATENCY_EDGES_MS


def test_a_pane_is_a_quarter_of_a_second():
    assert [pane_of(at) for at in (0, 249_999, 250_000, 499_999)] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("ms", "bucket"), [(0, 0), (1, 0), (1.01, 1), (2, 1), (300, 12), (300.1, 13), (30000, 22), (1e9, 23)]
)
def test_an_edge_belongs_to_the_bucket_below_it(ms, bucket):
    assert latency_bucket(ms) == bucket


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_latencies_at_once_are_counted_like_one_by_one(ms):
    one, many = PaneTable().at(1, "v", 1, "live"), PaneTable().at(1, "v", 1, "live")
    one.add_hist("latency", np.zeros(len(LATENCY_EDGES_MS) + 1, dtype=np.int64))
    for value in ms:
        one.add_latency(value, 1)
    many.add_latencies(np.array(ms, dtype=np.float64))
    assert difference(one.hists, many.hists) == ""


def test_only_what_changed_is_sent_again_with_a_higher_revision():
    table = PaneTable()
    table.at(1, "v1", 1, "live").n += 2
    table.at(2, "v1", 1, "live").n += 3
    first, revision = table.changed("model/0", 0)
    assert [(c.task, c.pane, c.n) for c in first] == [("model/0", 1, 2), ("model/0", 2, 3)]
    assert table.changed("model/0", revision) == ([], revision)
    table.at(1, "v1", 1, "live").n += 1
    (again,), _ = table.changed("model/0", revision)
    assert (again.pane, again.n) == (1, 3)
    assert again.revision > max(c.revision for c in first)


steps = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["v1", "v2"]), st.integers(1, 5)), max_size=4),
        st.integers(0, 20),
    ),
    max_size=15,
)


@given(steps)
def test_what_settle_returns_does_the_same_to_another_table(steps):
    table, other = PaneTable(), PaneTable()
    for adds, oldest in steps:
        before = table.revision
        for pane, model, n in adds:
            totals = table.at(pane, model, 1, "live")
            totals.n += n
            totals.add_latency(n, n)
            totals.add_loss("error", n, 1)
        change = table.settle(before, oldest)
        if change is not None:
            other.redo(states.decode_plain(states.encode(change)))
        assert difference(table, other) == ""
        assert all(totals.pane >= oldest for totals in table.totals.values())
