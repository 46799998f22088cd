"""The table of topics agrees with itself and with who is in the house."""

from __future__ import annotations

import pytest

from mendstream.contracts.agent import STAGES
from mendstream.contracts.records import TOPIC_OF
from mendstream.contracts.topics import CONFIG, SPECS, TOPICS, Codec, Spread, Stream, Topic, Wing, streams_of, wing_of
from mendstream.runtime.roster import ROLES

OTHERS = {"users", "people", "operators", "console", "every process", "every agent", "supervisor"}
KNOWN = {role.name for role in ROLES} | OTHERS
BRIEF = {
    "raw-events", "features", "predictions", "decisions", "agent-metrics", "feedback", "alerts", "policy-requests",
    "policy-decisions", "config-updates", "incident-log",
}  # fmt: skip


def test_every_topic_on_the_bus_has_one_row():
    assert sorted(spec.topic for spec in TOPICS) == sorted(set(Topic) - {Topic.SOURCE})
    assert set(SPECS) == set(Topic) - {Topic.SOURCE}


def test_the_eleven_topics_of_the_request_are_marked():
    assert {spec.topic.value for spec in TOPICS if spec.brief} == BRIEF


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.topic.value)
def test_writers_and_readers_are_known(spec):
    assert set(spec.writers) <= KNOWN
    assert set(spec.readers) <= KNOWN
    assert spec.writers
    assert spec.readers
    assert spec.purpose
    assert spec.retention_s >= 0
    assert spec.retention_bytes >= 0


def test_each_stage_reads_what_the_one_before_writes():
    for topic, writer, reader in zip(
        (Topic.RAW_EVENTS, Topic.FEATURES, Topic.PREDICTIONS), STAGES, STAGES[1:], strict=False
    ):
        assert SPECS[topic].writers == (writer,)
        assert reader in SPECS[topic].readers
        assert SPECS[topic].codec is Codec.FRAME


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.topic.value)
def test_json_topics_have_record_types_and_frame_topics_have_none(spec):
    types = [kind for kind, topic in TOPIC_OF.items() if topic is spec.topic]
    assert bool(types) == (spec.codec is Codec.JSON)


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.topic.value)
def test_streams_and_wings_follow_from_the_spread(spec):
    streams = streams_of(spec.topic, 3)
    assert [stream.topic for stream in streams] == [spec.topic] * len(streams)
    assert [stream.partition for stream in streams] == list(range(len(streams)))
    wings = [wing_of(stream) for stream in streams]
    assert (
        wings
        == {
            Spread.DATA: [Wing.DATA] * 3,
            Spread.ONE: [Wing.CONTROL],
            Spread.WINGS: [Wing.DATA, Wing.CONTROL],
        }[spec.spread]
    )


def test_each_writer_can_write_its_topics_from_its_own_wing():
    wings = {role.name: role.wing for role in ROLES}
    for spec in TOPICS:
        for writer in set(spec.writers) & set(wings):
            assert wings[writer] in {wing_of(stream) for stream in streams_of(spec.topic, 2)}


def test_config_is_kept_for_ever_and_so_is_the_incident_log():
    assert Stream(Topic.CONFIG_UPDATES, 0) == CONFIG
    for topic in (Topic.CONFIG_UPDATES, Topic.INCIDENT_LOG):
        assert (SPECS[topic].retention_s, SPECS[topic].retention_bytes) == (0, 0)


def test_a_stream_is_named_by_topic_and_partition():
    assert str(Stream(Topic.RAW_EVENTS, 2)) == "raw-events/2"
