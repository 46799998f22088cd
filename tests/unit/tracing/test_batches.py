"""Spans of batches: who is sampled, what links join, and what a frame bears."""

from __future__ import annotations

import itertools

import pytest
import structlog
from tests.support.house import STAGES, ListSource, Stages, decided, pump, serve, set_config
from tests.support.models import LinearScorer, Shelf
from tests.support.trips import trip_lines

from mendstream.adapters.tracing.batches import LINKS_MAX, Batches
from mendstream.adapters.tracing.names import Name
from mendstream.contracts.agent import Batch, Line, Outputs, TaskId
from mendstream.contracts.errors import Conflict
from mendstream.contracts.frame import Frame, FrameMeta, make
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.topics import Stream, Topic

NOW = 1_700_000_000_000_000
MODEL = LinearScorer("v1", {"delay": 0.1, "usual": 0.01})


def batches(put, *, dice=0.0, sample=0.5) -> Batches:
    numbers = itertools.count(1)
    return Batches(put, sample=sample, dice=lambda: dice, bits=lambda bits: next(numbers), system="mendstream")


def frame(trace: str = "") -> Frame:
    head = {"event_id": ["a"], "key": ["k"], "event_time_us": [NOW]}
    return make(head, {}, FrameMeta(partition=0, born_us=NOW, made_us=NOW, trace=trace))


def lines() -> Batch:
    return Batch("t/ingestion/0/1", 0, LiveConfig(), lines=[Line(b"{}", 0)])


def framed(*traces: str) -> Batch:
    found = [frame(trace) for trace in traces]
    return Batch("t/model/0/1", 0, LiveConfig(), frames=found, topics=[Topic.FEATURES] * len(found))


@pytest.fixture
def spans():
    return []


@pytest.fixture(autouse=True)
def no_span_is_left():
    yield
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize("how", ["fused", "apart"])
def test_links_join_every_stage_with_the_one_before_it(bus, clock, spans, how):
    set_config(bus, serve(MODEL))
    house = Stages(bus, clock, ListSource(trip_lines(40), cuts=[10]), models=Shelf(MODEL))
    tracer = batches(spans.append, sample=1.0)
    groups = [STAGES] if how == "fused" else [(name,) for name in STAGES]
    drivers = [house.driver(*names, trace=tracer.step) for names in groups]
    pump(drivers, clock)
    assert len(decided(bus)) == 40
    by_name = {span.own: span for span in spans}
    last = [span for span in spans if span.attributes["mendstream.task"] == "decision/0"]
    assert sum(span.attributes["messaging.batch.message_count"] for span in last) == 40
    for span in last:
        way = [span]
        while way[-1].links:
            way += [by_name[way[-1].links[0]]]
        assert [step.attributes["mendstream.task"] for step in way] == [f"{name}/0" for name in reversed(STAGES)]
        assert len({step.own.trace for step in way}) == 1
        assert [step.parent for step in way] == [step.own for step in way[1:]] + [None]
        assert all(step.start_us <= step.end_us for step in way)


def test_a_traced_house_decides_as_one_that_is_not(bus, clock, spans):
    set_config(bus, serve(MODEL))
    house = Stages(bus, clock, ListSource(trip_lines(40), cuts=[10]), models=Shelf(MODEL))
    pump([house.driver(*STAGES, trace=batches(spans.append, dice=0.9).step)], clock)
    assert spans == []
    for topic in (Topic.RAW_EVENTS, Topic.FEATURES, Topic.PREDICTIONS):
        blocks = bus.read(Stream(topic, 0), 0, max_rows=1000, max_bytes=1 << 20)
        assert {Frame.decode(block.value).meta.trace for block in blocks} == {""}
        assert b'"trace"' not in bytes(blocks[0].value)


def test_the_dice_fall_where_events_come_in(spans):
    assert batches(spans.append, dice=0.49).step(TaskId("ingestion", 0), lines(), NOW) is not None
    assert batches(spans.append, dice=0.5).step(TaskId("ingestion", 0), lines(), NOW) is None


def test_a_turn_without_events_is_not_sampled(spans):
    assert batches(spans.append).step(TaskId("ingestion", 0), Batch("t", 0, LiveConfig()), NOW) is None


def test_the_stages_behind_follow_the_frames_whatever_the_dice_say(spans):
    one = Name(7, 8)
    tracer = batches(spans.append, dice=1.0)
    assert tracer.step(TaskId("model", 0), framed("", ""), NOW) is None
    assert tracer.step(TaskId("model", 0), framed("", one.header), NOW) is not None


def test_a_batch_of_several_traces_is_linked_with_each_once(spans):
    one, two = Name(7, 8), Name(9, 10)
    tracer = batches(spans.append)
    step = tracer.step(TaskId("model", 0), framed(one.header, two.header, one.header, ""), NOW)
    step.done(4, 0.002, NOW + 5)
    (span,) = spans
    assert span.links == (one, two)
    assert (span.own.trace, span.parent) == (7, one)
    assert span.name == "process features"
    assert span.attributes["mendstream.step_ms"] == 2.0
    assert (span.start_us, span.end_us) == (NOW, NOW + 5)


def test_a_header_that_is_none_is_passed_over(spans):
    assert batches(spans.append).step(TaskId("model", 0), framed("00-zz-1-01", f"00-{0:032x}-{1:016x}-01"), NOW) is None


def test_there_are_no_more_links_than_a_span_may_have(spans):
    step = batches(spans.append).step(TaskId("model", 0), framed(*(Name(7, n).header for n in range(1, 300))), NOW)
    step.done(299, 0.0, NOW)
    assert len(spans[0].links) == LINKS_MAX


def test_frames_name_the_span_that_made_them_and_others_stay_as_they_are(spans):
    step = batches(spans.append).step(TaskId("model", 0), framed(Name(7, 8).header), NOW)
    out = Outputs("t")
    out.frames += [(Topic.PREDICTIONS, 0, frame(Name(7, 8).header)), (Topic.PREDICTIONS, 0, frame())]
    step.made(out)
    assert [made.meta.trace for _, _, made in out.frames] == [Name(7, 1).header, ""]


def test_a_turn_that_was_not_finished_is_no_span(bus, clock, spans, monkeypatch):
    house = Stages(bus, clock, ListSource(trip_lines(5)))
    driver = house.driver("ingestion", trace=batches(spans.append).step)
    real, failed = bus.commit, []

    def commit(commits):
        if any(commit.outputs for commit in commits) and not failed:
            failed.append(True)
            raise Conflict("another was faster")
        return real(commits)

    monkeypatch.setattr(bus, "commit", commit)
    pump([driver], clock)
    assert failed
    assert [span.attributes["messaging.batch.message_count"] for span in spans] == [5]


def test_lines_that_are_logged_in_a_traced_step_bear_its_name(spans):
    tracer = batches(spans.append)
    step = tracer.step(TaskId("model", 0), framed(Name(7, 8).header), NOW)
    assert structlog.contextvars.get_contextvars() == {"trace_id": f"{7:032x}", "span_id": f"{1:016x}"}
    step.done(1, 0.0, NOW)
    assert structlog.contextvars.get_contextvars() == {}


def test_the_name_of_a_step_that_came_to_nothing_is_gone_with_the_next_step(spans):
    tracer = batches(spans.append)
    tracer.step(TaskId("model", 0), framed(Name(7, 8).header), NOW)
    tracer.step(TaskId("model", 0), framed(""), NOW)
    assert structlog.contextvars.get_contextvars() == {}
