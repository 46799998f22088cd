"""`ingestion.source`: what names a Kafka topic, and what does not."""

import pytest

from mendstream.contracts.errors import SettingsError
from mendstream.settings import load


def source(value):
    return load(env={}, overrides={"ingestion.source": value}, dotenv=None).settings.ingestion.source


@pytest.mark.parametrize(
    "value", ["kafka:orders", "kafka:orders,outcomes", "kafka://h:9092/orders", "kafka://a:1,b:2/x.y,z_1"]
)
def test_topics_here_and_on_another_cluster_are_sources(value):
    assert source(value) == value


@pytest.mark.parametrize("value", ["kafka:", "kafka://h:9092/", "kafka://orders", "kafka:a,b,c", "kafka:a b"])
def test_half_a_name_is_refused(value):
    with pytest.raises(SettingsError, match=r"kafka:TOPIC"):
        source(value)
