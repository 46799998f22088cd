"""What a new healing process is told of incidents that an earlier one left open."""

from tests.support.log import out, records_out
from tests.unit.metrics import given

from mendstream.contracts.records import Status
from mendstream.contracts.topics import Stream, Topic
from mendstream.runtime.recall import newest_steps

LOG = Stream(Topic.INCIDENT_LOG, 0)


def steps(count):
    return [given.step("logging", Status.OPEN, incident=f"inc-{n}") for n in range(count)]


def test_nothing_is_recalled_from_an_empty_log(bus):
    assert newest_steps(bus) == []


def test_the_newest_steps_come_oldest_first_whatever_blocks_they_lie_in(bus):
    written = steps(30)
    bus.elsewhere(*(records_out(LOG, written[n : n + 7]) for n in range(0, 30, 7)))
    assert newest_steps(bus) == written
    assert newest_steps(bus, rows=10) == written[-10:]


def test_a_line_that_is_no_step_is_passed_over(bus):
    (first, second) = steps(2)
    bus.elsewhere(records_out(LOG, [first]), out(LOG, b"{broken"), records_out(LOG, [second]))
    assert newest_steps(bus) == [first, second]
