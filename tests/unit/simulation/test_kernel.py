"""Virtual time, and strands that can be suspended, held and killed at any wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mendstream.simulation.dice import Dice
from mendstream.simulation.kernel import Kernel


@pytest.fixture
def kernel():
    return Kernel(1_000)


def strand_of(kernel, body, ended=None):
    ends = []
    strand = kernel.strand(body, ends.append if ended is None else ended)
    return strand, ends


def test_what_is_due_at_the_same_time_runs_in_the_order_of_the_asking(kernel):
    seen = []
    for name in "abc":
        kernel.at(2_000, lambda name=name: seen.append((kernel.now_us, name)))
    kernel.run(5_000)
    assert seen == [(2_000, "a"), (2_000, "b"), (2_000, "c")]
    assert kernel.now_us == 5_000


@given(st.lists(st.integers(0, 1_000), max_size=50))
def test_time_never_goes_back(delays):
    kernel, seen = Kernel(0), []
    for delay in delays:
        kernel.after(delay, lambda: seen.append(kernel.now_us))
    kernel.run(1_000)
    assert seen == sorted(delays)


def test_two_strands_take_turns_wherever_they_sleep(kernel):
    seen = []

    def body(name, us):
        for _ in range(2):
            strands[name].sleep(us)
            seen.append((kernel.now_us, name))

    strands = {name: kernel.strand(lambda n=name, u=us: body(n, u), lambda error: None)
               for name, us in (("slow", 30), ("fast", 20))}  # fmt: skip
    kernel.run(2_000)
    assert seen == [(1_020, "fast"), (1_030, "slow"), (1_040, "fast"), (1_060, "slow")]


def test_a_parked_strand_goes_on_when_it_is_woken_or_when_time_is_up(kernel):
    seen = []

    def body():
        seen.append(strand.park(100))
        seen.append(strand.park(100))

    strand, _ = strand_of(kernel, body)
    kernel.at(1_050, strand.wake)
    kernel.run(2_000)
    assert seen == [True, False]


def test_a_wake_up_for_an_earlier_wait_does_not_end_a_later_one(kernel):
    seen = []

    def body():
        strand.park(10)
        strand.park(100)
        seen.append(kernel.now_us)

    strand, _ = strand_of(kernel, body)
    kernel.at(1_010, strand.wake)  # the first wait ends at the same moment by itself
    kernel.run(2_000)
    assert seen == [1_110]


def test_a_held_strand_goes_on_where_it_was_when_it_is_released(kernel):
    seen = []

    def body():
        strand.sleep(10)
        seen.append(kernel.now_us)

    strand, _ = strand_of(kernel, body)
    kernel.at(1_005, strand.hold)
    kernel.at(1_500, strand.release)
    kernel.run(2_000)
    assert seen == [1_500]


def test_a_killed_strand_never_goes_on_and_nobody_hears_an_end(kernel):
    seen = []

    def body():
        strand.sleep(10)
        seen.append("went on")

    strand, ends = strand_of(kernel, body)
    kernel.at(1_005, strand.kill)
    kernel.run(2_000)
    assert (seen, ends) == ([], [])
    assert strand.dead


def test_no_handler_of_the_code_on_it_survives_a_kill(kernel):
    seen = []

    def body():
        try:
            strand.sleep(10)
        except Exception:  # noqa: BLE001 - as the code on a strand may
            seen.append("caught")
        seen.append("went on")

    strand, _ = strand_of(kernel, body)
    kernel.at(1_005, strand.kill)
    kernel.run(2_000)
    assert seen == []


def test_what_a_strand_ends_with_is_told(kernel):
    def fails():
        raise ValueError("no")

    _, ends = strand_of(kernel, fails)
    _, fine = strand_of(kernel, lambda: None)
    kernel.run(2_000)
    assert [str(error) for error in ends] == ["no"]
    assert fine == [None]


def test_one_more_throw_in_one_place_changes_nothing_elsewhere():
    one, other = Dice(7), Dice(7)
    one.of("network").random()
    assert one.of("disk").random() == other.of("disk").random()
    assert Dice(8).of("disk").random() != Dice(7).of("disk").random()


def test_a_strand_alone_sleeps_without_a_turn_of_the_hub_but_not_past_anything_that_is_due(kernel):
    seen = []

    def body():
        for us in (10, 10, 10, 1_000):
            strand.sleep(us)
            seen.append((kernel.now_us, "strand"))

    strand = kernel.strand(body, lambda error: None)
    kernel.at(1_020, lambda: seen.append((kernel.now_us, "due first")))
    kernel.run(1_500)
    assert seen == [(1_010, "strand"), (1_020, "due first"), (1_020, "strand"), (1_030, "strand")]
    assert kernel.now_us == 1_500
    kernel.run(3_000)
    assert seen[-1] == (2_030, "strand")


def test_a_strand_that_holds_itself_stops_at_its_next_sleep(kernel):
    seen = []

    def body():
        strand.hold()
        strand.sleep(10)
        seen.append(kernel.now_us)

    strand = kernel.strand(body, lambda error: None)
    kernel.at(1_100, strand.release)
    kernel.run(2_000)
    assert seen == [1_100]
