"""Values with a schema registry's number: each becomes the JSON line of its record, or is told to be none."""

from __future__ import annotations

import base64
import io
import json
import math
from datetime import UTC, datetime
from decimal import Decimal

import fastavro
import msgspec
import pytest
from google.protobuf import descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.registry import FakeRegistry, framed

from mendstream.adapters.sources import open_source, registry
from mendstream.adapters.sources.avro import Avro
from mendstream.adapters.sources.protobuf import Protobuf, indexes
from mendstream.adapters.sources.registry import NotFinite, Registry, as_line, open_registry
from mendstream.contracts.errors import BadRecord, CouldNot, NoAnswer, SettingsError
from mendstream.settings import Settings
from mendstream.settings.checks import why_not
from mendstream.settings.groups import Ingestion

FIELDS = [
    {"name": "id", "type": "string"},
    {"name": "amount", "type": "double"},
    {"name": "count", "type": "long"},
    {"name": "vip", "type": ["null", "boolean"]},
    {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["NEW", "OLD"]}},
]
ORDER = {"type": "record", "name": "Order", "fields": FIELDS}
GOOD = {"id": "a", "amount": 1.5, "count": 7, "vip": None, "kind": "OLD"}
orders = st.fixed_dictionaries(
    {
        "id": st.text(), "amount": st.floats(allow_nan=False, allow_infinity=False),
        "count": st.integers(-(2**63), 2**63 - 1), "vip": st.none() | st.booleans(),
        "kind": st.sampled_from(["NEW", "OLD"]),
    }
)  # fmt: skip
on_one_registry = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def avro(record, schema=ORDER) -> bytes:
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(schema), record)
    return written.getvalue()


@pytest.fixture
def fake():
    with FakeRegistry() as started:
        yield started


def reader(fake, kind=None, **client) -> Registry:
    return Registry(fake.url, client, kind=kind or Avro())


def record(found: bytes):
    return json.loads(found)


# --- avro ------------------------------------------------------------------------------------------------------------


@on_one_registry
@given(order=orders)
def test_an_avro_record_becomes_the_json_line_of_its_fields(fake, order):
    number = fake.avro(ORDER, number=1)
    assert record(reader(fake).line(framed(number, avro(order)))) == order


def test_a_schema_is_asked_for_once(fake):
    number = fake.avro(ORDER)
    read = reader(fake)
    for _ in range(3):
        read.line(framed(number, avro(GOOD)))
    assert fake.asked == [f"/schemas/ids/{number}"]


def test_each_value_is_read_with_the_schema_that_it_was_written_with(fake):
    first = fake.avro({**ORDER, "fields": FIELDS[:1]})
    second = fake.avro({**ORDER, "fields": FIELDS[:2]})
    read = reader(fake)
    small, large = {"id": "a"}, {"id": "b", "amount": 2.0}
    assert record(read.line(framed(first, avro(small, {**ORDER, "fields": FIELDS[:1]})))) == small
    assert record(read.line(framed(second, avro(large, {**ORDER, "fields": FIELDS[:2]})))) == large


def test_points_of_time_become_seconds_and_decimals_numbers(fake):
    at = datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)
    schema = {
        "type": "record", "name": "Timed",
        "fields": [
            {"name": "ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "us", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        ],
    }  # fmt: skip
    number = fake.avro(schema)
    value = avro({"ms": at, "us": at, "price": Decimal("12.50")}, schema)
    assert record(reader(fake).line(framed(number, value))) == {
        "ms": at.timestamp(), "us": at.timestamp(), "price": 12.5
    }  # fmt: skip


def test_a_type_of_another_subject_is_fetched_with_the_schema(fake):
    fake.avro({"type": "enum", "name": "Kind", "symbols": ["NEW", "OLD"]}, subject="kinds of/order")
    schema = {"type": "record", "name": "O", "fields": [{"name": "kind", "type": "Kind"}]}
    number = fake.avro(schema, references=(("Kind", "kinds of/order", 1),))
    assert record(reader(fake).line(framed(number, b"\x02"))) == {"kind": "OLD"}


@on_one_registry
@given(order=orders, cut=st.integers(0, 200), more=st.binary(max_size=3))
def test_a_cut_or_longer_avro_record_is_refused(fake, order, cut, more):
    number = fake.avro(ORDER, number=1)
    whole = avro(order)
    changed = whole[: cut % len(whole)] if not more else whole + more
    with pytest.raises(BadRecord):
        reader(fake).line(framed(number, changed))


@on_one_registry
@given(payload=st.binary(max_size=60))
def test_whatever_the_bytes_are_they_are_a_record_or_refused(fake, payload):
    number = fake.avro(ORDER, number=1)
    try:
        found = record(reader(fake).line(framed(number, payload)))
    except BadRecord:
        return
    assert record(reader(fake).line(framed(number, avro(found)))) == found


def test_a_number_that_json_has_not_is_refused_and_not_taken_for_missing(fake):
    number = fake.avro(ORDER)
    for amount in (math.nan, math.inf, -math.inf):
        with pytest.raises(NotFinite):
            reader(fake).line(framed(number, avro({**GOOD, "amount": amount})))
    assert as_line({"a": [None, {"b": None}]}) == b'{"a":[null,{"b":null}]}'


# --- the head --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "0 bytes"),
        (b"\0\0\0\0", "4 bytes"),
        (b'{"id":"a"}', "begins with byte 123"),
        (b"\1" + b"\0\0\0\1" + b"x", "begins with byte 1,"),
        (framed(99, b""), "no schema 99"),
    ],
)
def test_a_value_without_a_known_schema_is_refused_with_the_reason(fake, value, why):
    with pytest.raises(BadRecord, match=why):
        reader(fake).line(value)


def test_a_schema_that_is_unknown_is_asked_for_again_after_a_minute(fake, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(registry.time, "monotonic", lambda: now[0])
    read = reader(fake)
    for _ in range(3):
        with pytest.raises(BadRecord, match="no schema 7"):
            read.line(framed(7, avro(GOOD)))
    assert len(fake.asked) == 1
    fake.avro(ORDER, number=7)
    now[0] += 61
    assert record(read.line(framed(7, avro(GOOD)))) == GOOD


def test_a_schema_of_another_kind_or_one_that_is_none_is_refused(fake):
    other = fake.protobuf(FileDescriptorProto(name="x"))
    broken = fake.avro({"type": "record", "name": "O", "fields": [{"name": "x", "type": "nothing"}]})
    torn = fake.avro({"type": "recor"})
    for number, why in ((other, "is of PROTOBUF"), (broken, "cannot be read"), (torn, "cannot be read")):
        with pytest.raises(BadRecord, match=why):
            reader(fake).line(framed(number, b"x"))


# --- a registry that is away, or another server --------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_registry_that_cannot_answer_says_nothing_about_the_record(fake, status):
    number = fake.avro(ORDER)
    fake.answers = [(status, b'{"error_code":50001,"message":"store"}')]
    read = reader(fake)
    with pytest.raises(NoAnswer, match=str(status)):
        read.line(framed(number, avro(GOOD)))
    assert record(read.line(framed(number, avro(GOOD)))) == GOOD


def test_a_registry_that_is_gone_is_away(fake):
    read = reader(fake)
    fake.stop()
    with pytest.raises(NoAnswer, match="does not answer"):
        read.line(framed(1, b""))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((404, b"<html>no such page</html>"), "gives no schema 1"),
        ((404, b'{"error_code":404,"message":"HTTP 404 Not Found"}'), "gives no schema 1"),
        ((200, b"<html>welcome</html>"), "gives no schema 1"),
        ((401, b'{"error_code":401,"message":"Unauthorized"}'), "does not let us in"),
        ((403, b'{"error_code":40301,"message":"Forbidden"}'), "does not let us in"),
    ],
)
def test_another_server_or_a_shut_door_is_told_and_no_record_is_blamed(fake, answer, why):
    fake.answers = [answer]
    with pytest.raises(CouldNot, match=why) as caught:
        reader(fake).line(framed(1, b""))
    assert not isinstance(caught.value, NoAnswer)
    assert "ingestion." in caught.value.hint


def test_credentials_come_from_where_the_settings_refer_to(fake, monkeypatch):
    number = fake.avro(ORDER)
    monkeypatch.setenv("REGISTRY_USER", "shop:s3cret")
    reader(fake, **{"basic.auth.user.info": "env:REGISTRY_USER"}).line(framed(number, avro(GOOD)))
    assert fake.users == ["Basic " + base64.b64encode(b"shop:s3cret").decode()]
    with pytest.raises(SettingsError, match="refers to env:NOWHERE"):
        reader(fake, **{"basic.auth.user.info": "env:NOWHERE"})


# --- protobuf --------------------------------------------------------------------------------------------------------

F = FieldDescriptorProto


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="order.proto", package="shop", syntax="proto3")
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    file.message_type.add(name="First")
    order = file.message_type.add(name="Order")
    inner = order.nested_type.add(name="Inner")
    inner.field.add(name="x", number=1, type=F.TYPE_INT32, label=F.LABEL_OPTIONAL)
    kind = order.enum_type.add(name="Kind")
    kind.value.add(name="NEW", number=0)
    kind.value.add(name="OLD", number=1)
    add = order.field.add
    add(name="id", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
    add(name="amount", number=2, type=F.TYPE_DOUBLE, label=F.LABEL_OPTIONAL)
    add(name="count", number=3, type=F.TYPE_INT64, label=F.LABEL_OPTIONAL)
    add(name="vip", number=4, type=F.TYPE_BOOL, label=F.LABEL_OPTIONAL, oneof_index=0, proto3_optional=True)
    add(name="kind", number=5, type=F.TYPE_ENUM, type_name=".shop.Order.Kind", label=F.LABEL_OPTIONAL)
    add(name="made_at", number=6, type=F.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=F.LABEL_OPTIONAL)
    add(name="rate", number=7, type=F.TYPE_MESSAGE, type_name=".google.protobuf.DoubleValue", label=F.LABEL_OPTIONAL)
    add(name="tags", number=8, type=F.TYPE_STRING, label=F.LABEL_REPEATED)
    order.oneof_decl.add(name="_vip")
    return file


def _message(name):
    pool = descriptor_pool.DescriptorPool()
    for shared in (timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(shared.DESCRIPTOR.serialized_pb)
    pool.Add(_file())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


Order = _message("shop.Order")
ORDER_AT = b"\x02\x02"
"""One index: message 1."""


@on_one_registry
@given(order=orders, at=st.integers(0, 10**9), rate=st.none() | st.floats(-1, 1))
def test_a_protobuf_message_becomes_the_json_line_of_its_fields(fake, order, at, rate):
    number = fake.protobuf(_file(), number=1)
    message = Order(**{name: value for name, value in order.items() if value is not None})
    message.made_at.seconds = at
    message.made_at.nanos = 500_000_000
    if rate is not None:
        message.rate.value = rate
    value = framed(number, message.SerializeToString(), indexes=ORDER_AT)
    wanted = {**order, "made_at": at + 0.5, "rate": rate, "tags": []}
    assert record(reader(fake, Protobuf()).line(value)) == wanted


def test_fields_that_were_not_set_are_null_where_the_schema_can_tell_and_else_their_default(fake):
    number = fake.protobuf(_file())
    assert record(reader(fake, Protobuf()).line(framed(number, b"", indexes=ORDER_AT))) == {
        "id": "", "amount": 0.0, "count": 0, "vip": None, "kind": "NEW", "made_at": None, "rate": None, "tags": []
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "path"),
    [(b"\0", (0,)), (b"\x02\0", (0,)), (b"\x02\x02", (1,)), (b"\x04\x02\0", (1, 0)), (b"\x02\xac\x02", (150,))],
)
def test_message_indexes_are_read_as_they_are_written(written, path):
    assert indexes(written + b"rest") == (path, len(written))


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"", "cut off"), (b"\x02", "cut off"), (b"\x80" * 12, "cut off"), (b"\x01", "-1 message indexes"),
        (b"\xfe\x7f", "message indexes"), (b"\x02\x06", "no message at"), (b"\x04\x02\x02", "no message at"),
        (b"\x02\x01", "no message at"),
    ],
)  # fmt: skip
def test_indexes_that_lead_nowhere_are_refused(fake, head, why):
    number = fake.protobuf(_file())
    with pytest.raises(BadRecord, match=why):
        reader(fake, Protobuf()).line(framed(number, b"", indexes=head))


@on_one_registry
@given(payload=st.binary(max_size=60))
def test_whatever_the_bytes_are_they_are_a_message_or_refused(fake, payload):
    number = fake.protobuf(_file(), number=1)
    try:
        found = reader(fake, Protobuf()).line(framed(number, payload, indexes=ORDER_AT))
    except BadRecord:
        return
    assert record(found).keys() == {"id", "amount", "count", "vip", "kind", "made_at", "rate", "tags"}


def test_a_file_of_another_subject_is_fetched_with_the_schema(fake):
    shared = FileDescriptorProto(name="as the registry calls it", package="shop", syntax="proto3")
    shared.message_type.add(name="Part").field.add(name="n", number=1, type=F.TYPE_INT32, label=F.LABEL_OPTIONAL)
    fake.protobuf(shared, subject="parts")
    file = FileDescriptorProto(name="default", package="shop", syntax="proto3", dependency=["part.proto"])
    file.message_type.add(name="Whole").field.add(
        name="part", number=1, type=F.TYPE_MESSAGE, type_name=".shop.Part", label=F.LABEL_OPTIONAL
    )
    number = fake.protobuf(file, references=(("part.proto", "parts", 1),))
    value = framed(number, b"\x0a\x02\x08\x05", indexes=b"\0")
    assert record(reader(fake, Protobuf()).line(value)) == {"part": {"n": 5}}
    lonely = fake.protobuf(file)
    with pytest.raises(BadRecord, match="cannot be used"):
        reader(fake, Protobuf()).line(framed(lonely, b"", indexes=b"\0"))


def test_a_registry_that_gives_no_descriptors_is_told_and_no_record_is_blamed(fake):
    number = fake.protobuf(_file())
    del fake.schemas[number]["serialized"]
    with pytest.raises(CouldNot, match="no serialized descriptor"):
        reader(fake, Protobuf()).line(framed(number, b"", indexes=ORDER_AT))


# --- settings --------------------------------------------------------------------------------------------------------


def test_without_the_extra_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None if name == "fastavro" else name)
    with pytest.raises(CouldNot, match="not installed") as caught:
        open_registry(Ingestion(value_format="avro", schema_registry="http://registry:8081"))
    assert caught.value.hint == "pip install 'mendstream[registry]'"


def test_a_format_with_a_registry_needs_its_address():
    with pytest.raises(SettingsError, match="needs a schema registry"):
        open_registry(Ingestion(value_format="protobuf"))


def test_only_a_kafka_source_has_another_format():
    house = Settings(ingestion=Ingestion(source="file:events.jsonl", value_format="avro"))
    with pytest.raises(SettingsError, match="for a Kafka source"):
        open_source(house, clock=None, regime=str)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", ""), ("http://registry:8081", ""), ("https://a:1,https://b:1/path", ""),
        ("registry:8081", "must be a URL"), ("http://", "must be a URL"), ("http://a:1,", "must be a URL"),
        ("https://shop:s3cret@registry", "may hold no password"),
    ],
)  # fmt: skip
def test_the_address_of_a_registry_is_checked(url, why):
    assert why_not("ingestion.schema_registry", url).startswith(why)
    assert bool(why_not("ingestion.schema_registry", url)) == bool(why)


def test_settings_that_the_client_does_not_know_are_told(fake):
    with pytest.raises(SettingsError, match="Unrecognized properties: nonsense"):
        reader(fake, nonsense="1")


def test_every_line_is_one_line(fake):
    number = fake.avro(ORDER)
    line = reader(fake).line(framed(number, avro({**GOOD, "id": 'a\n"\u2028'})))
    assert b"\n" not in line
    assert msgspec.json.decode(line)["id"] == 'a\n"\u2028'
