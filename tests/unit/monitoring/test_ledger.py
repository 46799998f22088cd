"""Counts merge by revision: repeats, order and restarts change nothing."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.monitoring.given import T0, Shelf, card, decided, judged, scored

from mendstream.agents.monitoring.ledger import KEEP_PANES, RING, Ledger
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.contracts.records import PANE_US

P0 = T0 // PANE_US
JUDGE = JudgeSettings()
CARDS = Shelf(card())


def merged(*counts, ledger=None):
    ledger = ledger or Ledger()
    for c in counts:
        ledger.merge(c, T0, JUDGE, "v1", CARDS)
    return ledger


def totals(ledger):
    return {key: (s.n, s.bad, round(s.ms, 6)) for key, s in sorted(ledger.sources.items())}


def rings(ledger):
    """Rings as {pane: sum}, whatever slot they stand in."""
    panes = range(ledger.head - RING + 1, ledger.head + 1)
    return {
        pane: (ledger.latency[pane % RING].tolist(), ledger.features[pane % RING].tolist())
        for pane in panes
        if ledger.latency[pane % RING].any() or ledger.features[pane % RING].any()
    }


def test_a_higher_revision_replaces_the_older_totals():
    ledger = merged(decided(P0, 100, slow=10), decided(P0, 250, slow=40, revision=2))
    assert totals(ledger)["decision/0|v1|1|live"][:2] == (250, 40)
    assert ledger.latency[P0 % RING].sum() == 250


def test_totals_sent_again_after_a_restart_count_once():
    sent = [decided(P0 + i, 100, revision=i + 1) for i in range(4)]
    ledger = merged(*sent, *sent)
    assert totals(ledger)["decision/0|v1|1|live"][0] == 400
    assert sum(sum(latency) for latency, _ in rings(ledger).values()) == 400


def test_what_is_older_than_the_memory_of_revisions_is_left_out():
    ledger = merged(decided(P0, 100))
    ledger.close(P0 + KEEP_PANES, JUDGE, T0)
    merged(decided(P0, 100, revision=9), judged(P0, 10, 1), ledger=ledger)
    assert totals(ledger)["decision/0|v1|1|live"][0] == 100
    assert totals(ledger)["joiner/0|v1|1|live"][0] == 10, "labels may come for longer"


def test_features_of_another_version_than_the_live_one_stay_out():
    ledger = merged(
        scored(P0, 100, bins=[100] + [0] * 16), scored(P0, 50, bins=[50] + [0] * 16, model="v0"),
        scored(P0, 70, bins=[70] + [0] * 16, task="model/1"),
    )  # fmt: skip
    assert ledger.features[P0 % RING].sum() == 170
    assert ledger.model_ms[P0 % RING].sum() == 220


def test_a_new_live_version_starts_its_windows_anew():
    ledger = Ledger()
    shelf = Shelf(card("v1"), card("v2"))
    for pane in range(P0, P0 + 20):
        model = "v1" if pane < P0 + 10 else "v2"
        ledger.merge(scored(pane, 100, bins=[100] + [0] * 16, model=model), T0 + 5_000_000, JUDGE, model, shelf)
    widths, counts = ledger.windows(P0 + 19, (8, 16))
    assert widths == (8,)
    assert counts.sum() == 800


def test_events_counted_late_are_shown_with_the_next_pane():
    ledger = merged(decided(P0, 100))
    assert ledger.close(P0, JUDGE, T0)[0].sum() == 100
    merged(decided(P0, 130, revision=2), decided(P0 + 1, 20), ledger=ledger)
    assert ledger.close(P0 + 1, JUDGE, T0)[0].sum() == 50
    assert ledger.rate(P0 + 1) == 150.0


def test_rows_that_have_not_grown_for_ten_minutes_leave_but_not_the_newest():
    ledger = merged(decided(P0, 100), decided(P0, 50, config=2))
    late = P0 + 2800
    ledger.close(late - late % 40, JUDGE, late * PANE_US)
    assert list(ledger.sources) == ["decision/0|v1|2|live"]


revisions = st.builds(
    lambda pane, steps, task: [
        decided(P0 + pane, n, slow=n // 3, revision=r, task=task)
        for r, n in enumerate(np.cumsum(steps).tolist(), start=1)
    ],
    st.integers(0, 5), st.lists(st.integers(1, 50), min_size=1, max_size=4),
    st.sampled_from(["decision/0", "decision/1"]),
)  # fmt: skip
labelled = st.builds(
    lambda pane, steps: [
        judged(P0 + pane, n, n // 4, revision=r) for r, n in enumerate(np.cumsum(steps).tolist(), start=1)
    ],
    st.integers(0, 5), st.lists(st.integers(1, 50), min_size=1, max_size=4),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(revisions, labelled), max_size=6, unique_by=lambda rs: (rs[0].task, rs[0].pane)), st.data())
def test_merging_is_the_same_in_any_order_and_with_any_repeats(given_revisions, data):
    in_order = [c for rs in given_revisions for c in rs]
    shuffled = data.draw(st.permutations(in_order + in_order)) if in_order else []
    split = data.draw(st.integers(0, len(shuffled)))
    one, other = merged(*in_order), merged(*shuffled[:split])
    merged(*shuffled[split:], ledger=other)
    assert totals(one) == totals(other)
    assert rings(one) == rings(other)
    assert one.fresh == other.fresh
    newest = {(rs[0].task, rs[0].pane): rs[-1].n for rs in given_revisions if rs[0].task.startswith("decision")}
    assert sum(s.n for s in one.sources.values() if s.task.startswith("decision")) == sum(newest.values())
