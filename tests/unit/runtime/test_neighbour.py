"""Whether a house that is about to start sees another one in the log."""

import msgspec
import pytest
from tests.support.log import records_out

from mendstream.contracts.errors import CouldNot
from mendstream.contracts.records import Exit, Pulse
from mendstream.runtime.neighbour import PULSES, WITNESS, refuse_second

OTHER, OWN = 4711, 815


def pulse(at_us, pid=OTHER, process=WITNESS):
    return Pulse(process=process, agent="recorder", generation=3, pid=pid, at_us=at_us, rss_mb=1.0)


def gone(at_us, *, expected):
    return Exit(
        process=WITNESS, agent="recorder", generation=3, pid=OTHER, code=0, expected=expected, at_us=at_us
    )  # fmt: skip


class Beating:
    """A log to which something comes between any two looks at its pulses."""

    def __init__(self, bus, *records):
        self._bus = bus
        self._records = records

    def __getattr__(self, name):
        return getattr(self._bus, name)

    def read(self, stream, position, **limits):
        found = self._bus.read(stream, position, **limits)
        if not found:
            self._bus.elsewhere(records_out(stream, self._records))
        return found


@pytest.fixture
def root(tmp_path):
    """A house whose recorder had process id OWN in its last life."""
    folder = tmp_path / "house"
    (folder / "run").mkdir(parents=True)
    children = {WITNESS: {"generation": 3, "pid": OWN, "alive": True, "role": "recorder"}}
    (folder / "run" / "processes.json").write_bytes(msgspec.json.encode({"pid": 1, "children": children}))
    return folder


def refuse(bus, root, patience_s=5.0):
    refuse_second(bus, root, "shop", patience_s=patience_s)


def test_nobody_is_in_the_way_on_an_empty_log(bus, root):
    refuse(bus, root)


def test_a_house_that_goes_on_beating_is_refused_company(bus, root, clock):
    bus.elsewhere(records_out(PULSES, [pulse(clock.now_us())]))
    with pytest.raises(CouldNot, match=f"namespace shop.*pid {OTHER}") as refused:
        refuse(Beating(bus, pulse(clock.now_us())), root)
    assert "run.namespace" in refused.value.hint


def test_a_house_that_beats_no_more_is_in_nobodys_way(bus, root, clock):
    bus.elsewhere(records_out(PULSES, [pulse(clock.now_us())]))
    refuse(bus, root, patience_s=0.2)


def test_the_last_life_of_the_same_house_is_not_waited_for(bus, root, clock):
    bus.elsewhere(records_out(PULSES, [pulse(clock.now_us(), OWN)]))
    refuse(Beating(bus, pulse(clock.now_us())), root)


def test_a_house_that_has_stopped_in_order_is_not_waited_for(bus, root, clock):
    bus.elsewhere(records_out(PULSES, [pulse(clock.now_us()), gone(clock.now_us(), expected=True)]))
    refuse(Beating(bus, pulse(clock.now_us())), root)


def test_a_recorder_that_was_killed_is_started_again_by_its_house(bus, root, clock):
    bus.elsewhere(records_out(PULSES, [pulse(clock.now_us()), gone(clock.now_us(), expected=False)]))
    with pytest.raises(CouldNot):
        refuse(Beating(bus, pulse(clock.now_us())), root)


def test_what_was_long_ago_is_not_waited_for(bus, root, clock):
    bus.elsewhere(records_out(PULSES, [pulse(clock.now_us())]))
    clock.advance(s=60)
    refuse(Beating(bus, pulse(clock.now_us())), root)


def test_other_processes_are_no_house(bus, root, clock):
    bus.elsewhere(records_out(PULSES, [pulse(clock.now_us(), process="healing-1")]))
    refuse(Beating(bus, pulse(clock.now_us(), process="healing-1")), root)
