"""A source of several parts: each has its own position, all of a turn's are committed together, and none starves."""

from __future__ import annotations

import pytest
from tests.support.house import ListSource, Stopwatch, pump
from tests.support.log import records
from tests.support.marks import MemoryMarks
from tests.support.scripted import Scripted

from mendstream.contracts.agent import Line
from mendstream.contracts.ports import Parted
from mendstream.contracts.topics import Stream, Topic, Wing, source_place
from mendstream.runtime.driver import Driver
from mendstream.runtime.leg import Leg


class Parts(ListSource):
    """Parts by number, as a topic has them."""

    def __init__(self, **parts: list[bytes]) -> None:
        super().__init__([])
        self.parts = {int(number.removeprefix("p")): ListSource(lines) for number, lines in parts.items()}


def owner(bus, clock, parts, agent=None, *, max_rows=2000) -> Driver:
    agent = agent or Scripted(reads=(Topic.SOURCE,))
    leg = Leg(bus, agent, 0, Wing.DATA, marks=MemoryMarks(), source=parts, max_rows=max_rows)
    return Driver(bus, clock, [leg], stopwatch=Stopwatch())


def decided(bus) -> list[str]:
    return [record.event_id for record in records(bus, Topic.DECISIONS)]


def test_each_part_has_a_position_of_its_own_in_one_commit(bus, clock):
    parts = Parts(p0=[b"a", b"b"], p1=[b"c"], p70000=[b"d", b"e", b"f"])
    assert isinstance(parts, Parted)
    driver = owner(bus, clock, parts)
    pump([driver], clock)
    assert sorted(decided(bus)) == list("abcdef")
    positions = driver.legs[0].positions
    assert [positions[Stream(Topic.SOURCE, n)] for n in (0, 1, 70000)] == [2, 1, 3]
    assert [part.finished for part in parts.parts.values()] == [2, 1, 3]


def test_the_next_owner_reads_each_part_on_from_where_it_was(bus, clock):
    pump([owner(bus, clock, Parts(p0=[b"a"], p1=[b"c", b"d"]))], clock)
    pump([owner(bus, clock, Parts(p0=[b"a", b"b"], p1=[b"c", b"d"], p2=[b"e"]))], clock)
    assert sorted(decided(bus)) == list("abcde")


def test_another_source_is_read_from_its_beginning_and_one_that_comes_back_from_where_it_was(bus, clock):
    def read(name, *lines):
        agent, source = Scripted(reads=(Topic.SOURCE,)), ListSource(list(lines))
        leg = Leg(
            bus, agent, 0, Wing.DATA, marks=MemoryMarks(), source=source, source_place=source_place(name)
        )  # fmt: skip
        pump([Driver(bus, clock, [leg], stopwatch=Stopwatch())], clock)

    read("file:a.jsonl", b"a", b"b")
    read("file:b.jsonl", b"c", b"d", b"e")
    assert decided(bus) == list("abcde")
    read("file:a.jsonl", b"a", b"b", b"f")
    assert decided(bus) == list("abcdef")


def test_a_turn_that_was_not_finished_gives_every_part_again(bus, clock):
    died = []

    def die_once(batch):
        if batch.lines and not died:
            died.append(len(batch.lines))
            raise RuntimeError

    parts = {"p0": [b"a", b"b"], "p1": [b"c"]}
    with pytest.raises(RuntimeError):
        pump([owner(bus, clock, Parts(**parts), Scripted(reads=(Topic.SOURCE,), hook=die_once))], clock)
    assert (died, decided(bus)) == ([3], [])
    pump([owner(bus, clock, Parts(**parts))], clock)
    assert sorted(decided(bus)) == list("abc")


def test_a_full_part_does_not_starve_the_others(bus, clock):
    agent = Scripted(reads=(Topic.SOURCE,))
    driver = owner(bus, clock, Parts(p0=[b"full"] * 100, p1=[b"x", b"y"]), agent, max_rows=10)
    for _ in range(3):
        driver.pump()
    seen = [line.value for batch in agent.batches for line in batch.lines]
    assert {b"x", b"y"} <= set(seen)
    assert len(seen) < 100
    assert max(len(batch.lines) for batch in agent.batches) <= 10


def test_the_mark_of_a_life_with_fewer_parts_slows_nobody_down(bus, clock):
    marks = MemoryMarks()
    marks.begin(1000, 5, 1)  # one part: at its position 1000
    agent = Scripted(reads=(Topic.SOURCE,))
    leg = Leg(bus, agent, 0, Wing.DATA, marks=marks, source=Parts(p0=[b"a"] * 40, p1=[b"b"] * 40))
    Driver(bus, clock, [leg], stopwatch=Stopwatch()).pump()
    assert len(agent.batches[0].lines) == 80


def test_lines_say_of_which_part_they_are():
    assert Line(b"x", 3).partition == 0
    assert Line(b"x", 3, partition=7).partition == 7
