"""A plan hurts a live house at its moments; what only a simulator can do is refused before anything is done."""

import pytest

from mendstream.chaos.plan import Injection, Plan
from mendstream.contracts.errors import CouldNot, UsageError
from mendstream.runtime.hurt import hurt


def follow(*injections, put=lambda injection, on: "done"):
    clock = []
    steps = list(hurt(Plan(seed=1, injections=injections), put, clock.append))
    assert clock == [step.at_ms for step in steps]
    return [(step.at_ms, step.fault, step.on, step.ok) for step in steps]


def test_faults_go_in_and_out_at_their_moments():
    assert follow(
        Injection(fault="slow-model", at_ms=500, for_ms=2_000),
        Injection(fault="dead-agent", at_ms=1_000),
        Injection(fault="stuck-agent", at_ms=2_500, for_ms=100),
    ) == [
        (500, "slow-model", True, True),
        (1_000, "dead-agent", True, True),
        (2_500, "slow-model", False, True),
        (2_500, "stuck-agent", True, True),
        (2_600, "stuck-agent", False, True),
    ]


def test_one_that_cannot_be_done_is_told_and_the_rest_goes_on():
    def put(injection, on):
        if injection.fault == "dead-agent":
            raise CouldNot("model-0 is not alive")
        return "done"

    steps = follow(Injection(fault="dead-agent"), Injection(fault="poison", at_ms=10), put=put)
    assert [ok for *_, ok in steps] == [False, True]


@pytest.mark.parametrize(
    ("injection", "why"),
    [
        (Injection(fault="power-cut"), "no fault"),
        (Injection(fault="dead-agent", point="sent:healing-0"), "point of the code"),
        (Injection(fault="dead-agent", params={"whom": "x"}), "takes no parameter"),
    ],
)
def test_what_a_live_house_cannot_do_is_refused_before_anything_is_done(injection, why):
    done = []
    with pytest.raises(UsageError, match=why):
        list(hurt(Plan(seed=1, injections=(Injection(fault="poison"), injection)), done.append, done.append))
    assert done == []
