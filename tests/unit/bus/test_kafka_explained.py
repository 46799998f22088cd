"""What a broker's refusals are called, and which of them would be the same once more."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from mendstream.adapters.bus.kafka.client import Cluster, cause_of, explained, lasting, not_let_in
from mendstream.contracts.errors import CouldNot, Fenced, NoAnswer, SettingsError, TooLarge


def told(code):
    return explained(KafkaException(KafkaError(code)), "finishing a turn", Cluster("broker:9092"))


@pytest.mark.parametrize(
    "code", [KafkaError._FENCED, KafkaError._FATAL, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH]
)
def test_another_owner_fences(code):
    assert type(told(code)) is Fenced


@pytest.mark.parametrize(
    "code",
    [KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError.NOT_LEADER_FOR_PARTITION],
)
def test_a_broker_that_is_away_may_be_asked_again(code):
    assert type(told(code)) is NoAnswer
    assert "broker:9092" in str(told(code))


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (KafkaError.SASL_AUTHENTICATION_FAILED, "bus.client"),
        (KafkaError._SSL, "bus.client"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "ACLs"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "ACLs"),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "ACLs"),
    ],
)
def test_what_would_be_the_same_once_more_says_what_to_mend(code, hint):
    assert type(told(code)) is CouldNot
    assert hint in told(code).hint
    assert lasting(KafkaException(KafkaError(code)))


def test_a_turn_that_is_too_large_is_told_apart_for_smaller_ones_may_do():
    assert type(told(KafkaError.MSG_SIZE_TOO_LARGE)) is TooLarge
    assert "max.message.bytes" in told(KafkaError.MSG_SIZE_TOO_LARGE).hint
    assert lasting(KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)))


def test_a_topic_that_is_missing_is_waited_for_and_names_the_command():
    assert type(told(KafkaError.UNKNOWN_TOPIC_OR_PART)) is NoAnswer
    assert "mendstream topics create" in told(KafkaError.UNKNOWN_TOPIC_OR_PART).hint


def test_an_error_in_the_midst_of_the_reports_of_delivery_is_found():
    inner = KafkaException(KafkaError(KafkaError._FENCED))
    outer = SystemError("returned a result with an exception set")
    outer.__cause__ = inner
    assert cause_of(outer) is inner
    lost = cause_of(SystemError("<method 'flush'> returned NULL without setting an exception"))
    assert type(explained(lost, "finishing a turn", Cluster("broker:9092"))) is Fenced
    with pytest.raises(SystemError):
        cause_of(SystemError("of its own"))


@pytest.mark.parametrize("reference", ["env:NOT_SET_ANYWHERE", "file:/nowhere/at/all"])
def test_a_secret_that_cannot_be_read_is_named_but_not_its_value(reference):
    with pytest.raises(SettingsError, match=r"bus\.client: sasl\.password refers to"):
        Cluster("broker:9092", client={"sasl.password": reference}).admin()


@pytest.mark.parametrize(
    ("code", "word"), [(KafkaError._AUTHENTICATION, "credentials"), (KafkaError._SSL, "TLS")], ids=["password", "TLS"]
)
def test_who_is_told_beside_that_it_is_not_let_in_says_so_instead_of_that_nothing_answers(code, word):
    cluster = Cluster("broker:9092")
    silence = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    cluster.beside.told(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert "does not answer" in str(explained(silence, "listing", cluster))
    cluster.beside.told(KafkaError(code))
    cluster.beside.told(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert type(explained(silence, "listing", cluster)) is NoAnswer
    assert word in str(explained(silence, "listing", cluster))
    assert type(not_let_in(cluster, "listing")) is CouldNot
