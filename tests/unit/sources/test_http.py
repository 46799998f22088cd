"""Events over HTTP: 200 means that they are in the log, and nothing else does."""

from __future__ import annotations

import http.client
import socket
import threading

import msgspec
import pytest
from tests.support.house import Stopwatch, dead, pump
from tests.support.log import records
from tests.support.marks import MemoryMarks
from tests.support.scripted import Scripted

from mendstream.adapters.sources import http as module
from mendstream.adapters.sources.http import HttpSource
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.topics import Topic, Wing
from mendstream.runtime.driver import Driver
from mendstream.runtime.leg import Leg

MANY = 1 << 30


@pytest.fixture
def source():
    source = HttpSource("127.0.0.1", 0, most_bytes=1000)
    source.rung = threading.Event()  # type: ignore[attr-defined]
    source.wake_by(source.rung.set)  # type: ignore[attr-defined]
    yield source
    source.close()


class Client(threading.Thread):
    """One request, answered when the source has it in the log; `wait` gives the status."""

    def __init__(self, source: HttpSource, path: str, body: bytes, **headers: str) -> None:
        super().__init__(daemon=True)
        self.source, self.path, self.body, self.headers = source, path, body, headers
        self.status: int | None = None
        self.answer: dict = {}
        self.closed = False
        self.start()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.source.port, timeout=20)
        connection.request("POST", self.path, self.body, self.headers)
        response = connection.getresponse()
        self.answer = msgspec.json.decode(response.read())
        self.closed = response.getheader("Connection") == "close"
        self.status = response.status
        connection.close()

    def wait(self) -> int | None:
        self.join(20)
        return self.status


def arrived(source, count: int) -> None:
    """Until `count` lines wait."""
    for _ in range(2000):
        if source._lines >= count:
            return
        source.rung.wait(0.01)
        source.rung.clear()
    raise AssertionError("nothing arrived")


def test_a_request_is_answered_once_its_lines_are_in_the_log_and_not_before(source):
    client = Client(source, "/events", b'{"n":1}\n{"n":2}\n\n')
    arrived(source, 2)
    events, feedback, position = source.poll(0, MANY, MANY)
    assert [(line.value, line.position) for line in events] == [(b'{"n":1}', 0), (b'{"n":2}', 1)]
    assert (list(feedback), position) == ([], 2)
    assert client.status is None
    source.done(2)
    assert client.wait() == 200
    assert client.answer == {"lines": 2}


def test_feedback_comes_apart_from_events(source):
    clients = [Client(source, "/events", b"e")]
    arrived(source, 1)
    clients.append(Client(source, "/feedback", b"f"))
    arrived(source, 2)
    events, feedback, position = source.poll(10, MANY, MANY)
    assert [(line.value, line.position) for line in events] == [(b"e", 10)]
    assert [(line.value, line.position) for line in feedback] == [(b"f", 11)]
    source.done(position)
    assert [client.wait() for client in clients] == [200, 200]


def test_an_arrival_rings_and_is_due_until_it_was_given(source):
    assert source.due_in_s() is None
    client = Client(source, "/events", b"e")
    assert source.rung.wait(20)
    assert source.due_in_s() == 0.0
    source.poll(0, MANY, MANY)
    assert source.due_in_s() is None
    source.done(1)
    client.wait()


def test_what_an_unfinished_turn_had_is_given_again(source):
    client = Client(source, "/events", b"a\nb\nc")
    arrived(source, 3)
    first = source.poll(5, MANY, MANY)
    assert source.poll(5, MANY, MANY) == first
    source.done(8)
    assert client.wait() == 200
    assert source.poll(8, MANY, MANY) == ([], [], 8)


def test_a_request_may_be_taken_in_parts_and_is_answered_after_the_last(source):
    clients = [Client(source, "/events", b"a\nb\nc")]
    arrived(source, 3)
    clients.append(Client(source, "/events", b"d"))
    arrived(source, 4)
    position, found = 0, []
    for _ in range(2):
        events, _, position = source.poll(position, 2, MANY)
        found += [line.value for line in events]
        source.done(position)
        if position == 2:
            assert clients[0].status is None
    assert found == [b"a", b"b", b"c", b"d"]
    assert [client.wait() for client in clients] == [200, 200]


def test_a_poll_is_bounded_by_bytes(source):
    client = Client(source, "/events", b"x" * 600 + b"\n" + b"y" * 600)
    arrived(source, 2)
    assert len(source.poll(0, MANY, 1000)[0]) == 1
    source.done(2)
    client.wait()


def test_when_too_many_wait_the_client_is_told_to_come_again(source, monkeypatch):
    monkeypatch.setattr(module, "WAITING_LINES", 3)
    first = Client(source, "/events", b"a\nb")
    arrived(source, 2)
    second = Client(source, "/events", b"c\nd")
    assert second.wait() == 503
    assert "again" in second.answer["error"]
    _, _, position = source.poll(0, MANY, MANY)
    source.done(position)
    assert first.wait() == 200
    third = Client(source, "/events", b"c\nd")
    arrived(source, 2)
    source.done(source.poll(position, MANY, MANY)[2])
    assert third.wait() == 200


def test_without_an_answer_in_time_the_client_is_told_to_come_again(source, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    assert Client(source, "/events", b"a").wait() == 503


def test_an_empty_request_has_nothing_to_wait_for(source):
    assert Client(source, "/events", b"\n\n").wait() == 200


def test_another_path_is_404_and_a_body_too_large_is_413_and_the_connection_closes(source):
    lost = Client(source, "/elsewhere", b"a")
    assert (lost.wait(), lost.closed) == (404, True)
    assert "/events" in lost.answer["error"]
    large = Client(source, "/events", b"x" * 64_001)
    assert (large.wait(), large.closed) == (413, True)
    assert "64000" in large.answer["error"]


@pytest.mark.parametrize("header", ["", "Content-Length: -1", "Content-Length: x", "Transfer-Encoding: chunked"])
def test_a_body_of_unknown_length_is_411_and_not_taken_for_nothing(source, header):
    lines = ["POST /events HTTP/1.1", "Host: x", *([header] if header else []), "", "1", "a", "0", "", ""]
    with socket.create_connection(("127.0.0.1", source.port), timeout=20) as client:
        client.sendall("\r\n".join(lines).encode())
        answer = b""
        while chunk := client.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert source._lines == 0


def test_a_body_that_breaks_off_is_not_taken_at_all(source):
    with socket.create_connection(("127.0.0.1", source.port), timeout=20) as client:
        client.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + b'{"id":1}\n{"id":')
        client.shutdown(socket.SHUT_WR)
        assert client.recv(4096) == b""
    assert source.poll(0, MANY, MANY) == ([], [], 0)


def test_several_requests_may_use_one_connection(source):
    answers = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", source.port, timeout=20)
        for n in range(3):
            connection.request("POST", "/events", b"line %d" % n)
            answers.append(connection.getresponse())
            answers[-1].read()
        connection.close()

    thread = threading.Thread(target=client)
    thread.start()
    position, found = 0, []
    while len(found) < 3:
        arrived(source, 1)
        events, _, position = source.poll(position, MANY, MANY)
        found += [line.value for line in events]
        source.done(position)
    thread.join(20)
    assert found == [b"line 0", b"line 1", b"line 2"]
    assert [answer.status for answer in answers] == [200] * 3


def test_a_port_that_is_taken_is_said_so(source):
    with pytest.raises(CouldNot, match=f"cannot listen for events on 127.0.0.1:{source.port}"):
        HttpSource("127.0.0.1", source.port, most_bytes=1000)


# --- with a driver ---------------------------------------------------------------------------------------------------


def test_a_line_that_kills_is_set_aside_alone_and_the_client_is_answered(source, bus, clock):
    """The process dies, the client sends again: in this test, the source stays and the owner changes."""

    class Crash(BaseException):
        pass

    def hook(batch) -> None:
        if "poison" in Scripted.names(batch):
            raise Crash

    marks = MemoryMarks()

    def owner() -> Driver:
        leg = Leg(bus, Scripted(reads=(Topic.SOURCE,), hook=hook), 0, Wing.DATA, marks=marks, source=source)
        return Driver(bus, clock, [leg], stopwatch=Stopwatch())

    client = Client(source, "/events", b"a\nb\npoison\nd")
    arrived(source, 4)
    driver, deaths = owner(), 0
    while client.status is None:
        try:
            pump([driver], clock)
        except Crash:
            deaths += 1
            driver = owner()
        client.join(0.01)
    assert client.wait() == 200
    assert deaths == 4
    assert [d.event_id for d in records(bus, Topic.DECISIONS)] == ["a", "b", "d"]
    assert [letter.value for letter in dead(bus)] == [b"poison"]
