"""Many seeds: in order, on any number of processes, to be resumed; and what never happens is named."""

import dataclasses

import pytest

from mendstream.contracts.errors import UsageError
from mendstream.simulation import campaign
from mendstream.simulation.campaign import Totals
from mendstream.simulation.schedule import Outcome
from mendstream.simulation.sometimes import expected, idle
from mendstream.simulation.story import Violation
from mendstream.simulation.swarm import plan_of


def outcome(seed, broken=()):
    return Outcome(
        plan=plan_of(seed), violations=tuple(broken), digest=f"d{seed}", events=10, simulated_s=2.0, cpu_s=0.5,
        counted={"fault drift": 1},
    )  # fmt: skip


@pytest.fixture
def simulated(monkeypatch):
    monkeypatch.setattr(campaign, "outcome_of", outcome)
    monkeypatch.setattr(campaign, "be_quiet", lambda: None)


def run(totals, until, stop=lambda: False):
    campaign.run_seeds(totals, until, workers=1, told=lambda seed, outcome: None, stop=stop)
    return totals


def test_a_run_in_two_parts_tells_the_same_as_in_one(simulated, tmp_path):
    whole = run(Totals(5, 5), 25)
    path = tmp_path / "state"
    campaign.save(run(Totals(5, 5), 12), path)
    assert run(campaign.load(path, 0), 25) == whole
    assert (whole.seeds, whole.counted) == (20, {"fault drift": 20})


def test_a_run_ends_after_the_present_seed_when_it_is_told_to(simulated):
    assert run(Totals(0, 0), 100, stop=lambda: True).seeds == 1


def test_other_behaviour_has_another_digest(simulated, monkeypatch):
    before = run(Totals(0, 0), 3).digest
    monkeypatch.setattr(campaign, "outcome_of", lambda seed: dataclasses.replace(outcome(seed), digest="other"))
    assert run(Totals(0, 0), 3).digest != before


def test_a_broken_promise_is_kept_with_its_seed():
    totals = Totals(0, 0)
    totals.add(3, outcome(3, [Violation("each event once", 4.5, "e1 was decided twice")]))
    assert [(failed.seed, failed.invariant, failed.at_s) for failed in totals.failed] == [(3, "each event once", 4.5)]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"first":0,"next":1,"version":99}', b"\xff"])
def test_a_file_that_does_not_tell_where_a_run_stopped_is_refused(tmp_path, content):
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="state"):
        campaign.load(path, 0)


def test_what_happens_too_rarely_in_many_seeds_is_named():
    counted = dict.fromkeys(expected(), 200)
    counted["fault drift"] = 199
    assert idle(counted, 20_000) == {"fault drift": 199}
    assert idle(counted, 10_000) == {}
    assert idle({}, 500) == {}
