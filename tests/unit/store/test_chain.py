"""The hash chain: writer and reader agree, and whatever is changed breaks it."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.store.literal_log import chained, slow_model

from mendstream.adapters.store import chain
from mendstream.contracts import records
from mendstream.contracts.hashes import step_hash
from mendstream.contracts.topics import Topic

STEPS = chained(slow_model())
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def test_the_hash_is_sha256_of_the_hash_before_and_the_record_with_sorted_keys():
    step = STEPS[1]
    raw = json.loads(records.encode(step)) | {"hash": ""}
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert step.hash == hashlib.sha256((STEPS[0].hash + text).encode()).hexdigest()


@given(data=st.dictionaries(st.text(), values, max_size=5), text=st.text())
def test_writer_and_reader_compute_the_same_hash_for_any_record(data, text):
    step = msgspec.structs.replace(STEPS[3], data=data, text=text)
    line = records.encode(step)
    read = records.decode(Topic.INCIDENT_LOG, line)
    assert step_hash(step) == chain.digest_line(line) == step_hash(read)


def test_a_whole_number_in_a_field_of_floats_verifies():
    memory = msgspec.structs.replace(STEPS[-1].memory, features={"n": 5}, mttr_seconds=3)
    (step,) = chained([msgspec.structs.replace(STEPS[-1], memory=memory)])
    line = records.encode(step)
    assert chain.flaw(line, records.decode(Topic.INCIDENT_LOG, line), seq=0, prev_hash="") == ""


def test_a_record_without_a_field_that_the_type_has_gained_verifies():
    raw = msgspec.to_builtins(STEPS[0])
    del raw["data"]
    raw["hash"] = hashlib.sha256(msgspec.json.encode({**raw, "hash": ""}, order="sorted")).hexdigest()
    line = msgspec.json.encode(raw)
    assert chain.flaw(line, records.decode(Topic.INCIDENT_LOG, line), seq=0, prev_hash="") == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text": "nothing happened"}, "does not match what it says"),
        ({"actor": "somebody"}, "does not match what it says"),
        ({"hash": "0" * 64}, "does not match what it says"),
        ({"prev_hash": "0" * 64}, "the hash of the record before it"),
        ({"seq": 3}, "found seq 3 where 2 should be"),
    ],
)
def test_whatever_is_changed_is_found(change, says):
    step = msgspec.structs.replace(STEPS[2], **change)
    assert says in chain.flaw(records.encode(step), step, seq=2, prev_hash=STEPS[1].hash)
