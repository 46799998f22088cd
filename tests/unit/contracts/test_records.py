"""Every record type over the wire and back; lines that are no record."""

from __future__ import annotations

import types
import typing
from typing import Any, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mendstream.contracts.errors import BadRecord
from mendstream.contracts.records import (
    LATENCY_EDGES_MS,
    TOPIC_OF,
    Feedback,
    Record,
    decode,
    decode_block,
    decode_each,
    encode,
    encode_block,
)
from mendstream.contracts.topics import SPECS, Codec, Topic

KINDS = sorted(TOPIC_OF, key=lambda kind: kind.__name__)
words = st.text(max_size=6)
numbers = st.floats(allow_nan=False, allow_infinity=False)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return st.one_of(words, st.integers(0, 9), st.booleans(), st.lists(words, max_size=2))
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(values(part) for part in arguments))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=2)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*(values(part) for part in arguments))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.builds(kind, **{f.name: values(f.type) for f in msgspec.structs.fields(kind)})
    if isinstance(kind, type) and issubclass(kind, str) and kind is not str:
        return st.sampled_from(list(kind))  # type: ignore[call-overload]
    plain: dict[Any, st.SearchStrategy[Any]] = {
        str: words, int: st.integers(-(2**53), 2**53), float: numbers, bool: st.booleans(),
        bytes: st.binary(max_size=9), type(None): st.none(),
    }  # fmt: skip
    return plain[kind]


def test_every_record_type_has_its_topic():
    assert set(TOPIC_OF) == set(Record.__subclasses__())


@settings(max_examples=20)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_record_comes_back_as_it_was(kind, data):
    topic = TOPIC_OF[kind]
    sent = data.draw(st.lists(values(kind), min_size=1, max_size=4))
    for record in sent:
        line = encode(record)
        assert b"\n" not in line
        assert decode(topic, line) == record
    assert list(decode_block(topic, encode_block(sent))) == sent


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_record_is_refused_on_any_other_topic(kind):
    record = msgspec.json.encode({"record": kind.__struct_config__.tag})
    for topic in set(TOPIC_OF.values()) - {TOPIC_OF[kind]}:
        with pytest.raises(BadRecord, match=topic.value):
            decode(topic, record)


def test_tags_are_told_apart_on_every_topic():
    for topic in set(TOPIC_OF.values()):
        tags = [kind.__struct_config__.tag for kind, of in TOPIC_OF.items() if of is topic]
        assert len(tags) == len(set(tags))
        assert SPECS[topic].codec is Codec.JSON


GOOD = encode(Feedback(event_id="a", key="k", label=1.0, at_us=1))
BAD = {
    "nothing": b"",
    "text": b"hello",
    "cut off": GOOD[:-3],
    "another tag": GOOD.replace(b"feedback", b"verdict"),
    "a field too many": GOOD[:-1] + b',"more":1}',
    "a field too few": GOOD.replace(b',"at_us":1', b""),
    "a wrong type": GOOD.replace(b"1.0", b'"late"'),
    "null for a number": GOOD.replace(b"1.0", b"null"),
    "deep": b"[" * 200_000,
}
NOT_UTF8 = pytest.param(
    GOOD.replace(b'"a"', b'"\xff"'),
    id="not utf-8",
)


@pytest.mark.parametrize("line", [*(pytest.param(line, id=name) for name, line in BAD.items()), NOT_UTF8])
def test_a_line_that_is_no_record_is_refused_alone_and_in_a_block(line):
    with pytest.raises(BadRecord, match="feedback"):
        decode(Topic.FEEDBACK, line)
    if line:
        with pytest.raises(BadRecord, match="feedback"):
            decode_block(Topic.FEEDBACK, GOOD + b"\n" + line + b"\n")


@pytest.mark.parametrize("bad", [*BAD.values(), GOOD.replace(b'"a"', b'"\xff"')], ids=[*BAD, "not utf-8"])
def test_who_skips_what_is_no_record_knows_which_line_it_was(bad):
    good = decode(Topic.FEEDBACK, GOOD)
    assert decode_each(Topic.FEEDBACK, b"\n".join((GOOD, bad, GOOD)) + b"\n") == [good, None, good]
    assert decode_each(Topic.FEEDBACK, GOOD + b"\n" + GOOD + b"\n") == [good, good]


@given(st.binary(max_size=80))
def test_any_line_is_a_record_or_refused(line):
    with pytest.raises(BadRecord):
        decode(Topic.FEEDBACK, line)


def test_latency_edges_grow_and_have_the_service_level_among_them():
    assert list(LATENCY_EDGES_MS) == sorted(set(LATENCY_EDGES_MS))
    assert 300 in LATENCY_EDGES_MS
