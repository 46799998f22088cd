"""Lines from a file: positions are byte offsets, so reading starts anywhere; a line being written is waited for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mendstream.adapters.sources.file import FileSource, NoSource
from mendstream.contracts.errors import CouldNot

MANY = 1 << 30


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def values(found) -> list[bytes]:
    return [line.value for line in found[0]]


def test_lines_come_in_order_with_their_offsets(path, clock):
    path.write_bytes(b"one\ntwo\r\n\nthree\n")
    source = FileSource(path, clock)
    lines, feedback, position = source.poll(0, MANY, MANY)
    assert [(line.value, line.position) for line in lines] == [(b"one", 0), (b"two", 4), (b"three", 10)]
    assert (list(feedback), position) == ([], 16)
    source.close()


def test_reading_starts_anywhere_and_the_same_position_gives_the_same_again(path, clock):
    path.write_bytes(b"one\ntwo\nthree\n")
    source = FileSource(path, clock)
    _, _, position = source.poll(0, 1, MANY)
    first = source.poll(position, 1, MANY)
    assert source.poll(position, 1, MANY) == first
    assert values(first) == [b"two"]
    source.close()
    again = FileSource(path, clock)  # a new process
    assert values(again.poll(first[2], MANY, MANY)) == [b"three"]
    again.close()


texts = st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b"")), max_size=20)


@given(texts, st.lists(st.tuples(st.integers(1, 4), st.integers(1, 20)), min_size=1, max_size=10), st.booleans())
def test_nothing_is_lost_or_read_twice_however_it_is_cut(tmp_path_factory, lines, cuts, last_ends):
    from tests.support.clock import ManualClock

    path = tmp_path_factory.mktemp("source") / "events.jsonl"
    path.write_bytes(b"\n".join(lines) + (b"\n" if last_ends else b""))
    found, position = [], 0
    for n in range(100):
        source = FileSource(path, ManualClock())
        got, _, position = source.poll(position, *cuts[n % len(cuts)])
        found += got
        done = not got and source.due_in_s() is None
        source.close()
        if done:
            break
    assert [line.value for line in found] == [line for line in lines if line]
    assert position == path.stat().st_size


def test_a_poll_is_bounded_by_lines_and_by_bytes(path, clock):
    path.write_bytes(b"0123456789\n" * 100)
    source = FileSource(path, clock)
    assert len(source.poll(0, 7, MANY)[0]) == 7
    assert len(source.poll(0, MANY, 50)[0]) == 5
    assert len(source.poll(0, MANY, 1)[0]) == 1
    assert source.due_in_s() == 0.0
    source.close()


def test_the_end_of_a_file_is_an_end(path, clock):
    path.write_bytes(b"one\n")
    source = FileSource(path, clock)
    assert source.due_in_s() == 0.0
    source.poll(0, MANY, MANY)
    assert source.due_in_s() is None
    source.close()


def test_an_unfinished_last_line_counts_at_the_end_of_a_file(path, clock):
    path.write_bytes(b"one\ntwo")
    source = FileSource(path, clock)
    assert values(source.poll(0, MANY, MANY)) == [b"one", b"two"]
    source.close()


def test_an_unfinished_last_line_is_waited_for_when_the_file_is_followed(path, clock):
    path.write_bytes(b"one\ntw")
    source = FileSource(path, clock, follow=True)
    lines, _, position = source.poll(0, MANY, MANY)
    assert ([line.value for line in lines], position) == ([b"one"], 4)
    assert 0 < source.due_in_s() <= 0.1
    with path.open("ab") as file:
        file.write(b"o\nthree\n")
    assert values(source.poll(position, MANY, MANY)) == [b"two", b"three"]
    source.close()


def test_a_file_that_is_followed_need_not_exist_yet(tmp_path, clock):
    path = tmp_path / "spool" / "stdin.jsonl"
    source = FileSource(path, clock, follow=True)
    assert source.poll(0, MANY, MANY) == ([], (), 0)
    path.write_bytes(b"one\n")
    assert values(source.poll(0, MANY, MANY)) == [b"one"]
    source.close()


def test_a_rate_is_kept(path, clock):
    path.write_bytes(b"x\n" * 1000)
    source = FileSource(path, clock, rate=100)
    position, counts = 0, []
    for _ in range(5):
        lines, _, position = source.poll(position, MANY, MANY)
        counts.append(len(lines))
        clock.advance(ms=100)
    assert counts == [0, 10, 10, 10, 10]
    assert source.due_in_s() == pytest.approx(0.01)
    source.close()


def test_a_file_at_a_rate_ends_too(path, clock):
    path.write_bytes(b"x\n" * 5)
    source = FileSource(path, clock, rate=100)
    source.poll(0, MANY, MANY)
    clock.advance(s=1)
    _, _, position = source.poll(0, MANY, MANY)
    assert position == 10
    assert source.due_in_s() is None
    source.close()


def test_a_line_of_10_mb_comes_whole(path, clock):
    path.write_bytes(b"x" * 10_000_000 + b"\nnext\n")
    source = FileSource(path, clock)
    lines, _, position = source.poll(0, 10, 4 << 20)
    assert [len(line.value) for line in lines] == [10_000_000]
    assert values(source.poll(position, 10, 4 << 20)) == [b"next"]
    source.close()


def test_a_file_that_cannot_be_read_is_said_so(tmp_path, clock):
    with pytest.raises(CouldNot, match=r"cannot read events from .*nowhere"):
        FileSource(tmp_path / "nowhere", clock)


def test_no_source_has_nothing():
    source = NoSource()
    assert source.poll(7, MANY, MANY) == ((), (), 7)
    assert source.due_in_s() is None
