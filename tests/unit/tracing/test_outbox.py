"""The way out: what waits is bounded, what does not arrive is counted, and no turn waits for any of it."""

from __future__ import annotations

import threading

import pytest
from structlog.testing import capture_logs

from mendstream.adapters.tracing.names import Name
from mendstream.adapters.tracing.outbox import TOGETHER, Outbox
from mendstream.adapters.tracing.span import Span


def span(n: int = 1) -> Span:
    return Span(name="s", own=Name(1, n), parent=None, start_us=0, end_us=1, attributes={})


class Wire:
    """Where spans go, while `up`."""

    def __init__(self) -> None:
        self.up = True
        self.got: list[list[Span]] = []
        self.lost = 0

    def send(self, spans) -> bool:
        if self.up:
            self.got.append(list(spans))
        return self.up

    def lose(self, spans: int) -> None:
        self.lost += spans


@pytest.fixture
def wire():
    return Wire()


def test_what_waits_goes_out_in_order_and_in_pieces(wire):
    outbox = Outbox(wire.send, wire.lose)
    sent = [span(n) for n in range(TOGETHER + 3)]
    for one in sent:
        outbox.put(one)
    outbox.flush()
    assert [len(part) for part in wire.got] == [TOGETHER, 3]
    assert [one for part in wire.got for one in part] == sent
    assert wire.lost == 0


def test_what_is_too_much_is_dropped_and_counted(wire):
    outbox = Outbox(wire.send, wire.lose, most=3)
    for n in range(5):
        outbox.put(span(n))
    outbox.flush()
    assert wire.lost == 2
    assert wire.got == [[span(0), span(1), span(2)]]


def test_what_did_not_arrive_is_counted_and_told_once_each_way(wire):
    outbox = Outbox(wire.send, wire.lose)
    with capture_logs() as lines:
        for up in (True, False, False, True, True):
            wire.up = up
            outbox.put(span())
            outbox.put(span())
            outbox.flush()
    assert wire.lost == 4
    assert [line["event"] for line in lines] == [
        "traces do not arrive: they are dropped until they do",
        "traces arrive again",
    ]


def test_without_spans_nothing_is_sent(wire):
    Outbox(wire.send, wire.lose).flush()
    assert wire.got == []


def test_the_last_spans_go_out_at_the_end(wire):
    outbox = Outbox(wire.send, wire.lose)
    outbox.start()
    outbox.put(span())
    outbox.close()
    assert wire.got == [[span()]]


def test_a_collector_that_never_answers_holds_nobody_up(wire, monkeypatch):
    """`put` and `close` come back although the thread is held: were they to wait for it, this would never end."""
    monkeypatch.setattr("mendstream.adapters.tracing.outbox.CLOSE_S", 0.01)
    held, release = threading.Event(), threading.Event()

    def send(spans) -> bool:
        held.set()
        return release.wait()

    outbox = Outbox(send, wire.lose, most=TOGETHER)
    outbox.start()
    for n in range(TOGETHER):
        outbox.put(span(n))
    assert held.wait(10)
    for n in range(TOGETHER + 7):
        outbox.put(span(n))
    assert wire.lost == 7
    outbox.close()
    release.set()
