"""A broker that asks for passwords and speaks TLS: who is let in does all that a house does, who is not is told why."""

from __future__ import annotations

import itertools
import json
import os
import time

import pytest
from tests.processes.house import Running, Spawned, mendstream
from tests.support.guarded import PASSWORD, guarded
from tests.support.log import lines, out

from mendstream.adapters.bus.kafka import topics
from mendstream.adapters.bus.kafka.client import Cluster
from mendstream.adapters.bus.kafka.kafka_bus import KafkaBus
from mendstream.adapters.sources.kafka import KafkaSource
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import CouldNot, NoAnswer, SettingsError
from mendstream.contracts.ports import TaskCommit
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo.accounting import Broker, account

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

ALERTS = Stream(Topic.ALERTS, 0)
ENDS_S = 20.0
"""A broker that does not answer at all is waited for longer."""
WRONG = "canary-sordfish"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def doors():
    with guarded() as found:
        yield found


@pytest.fixture
def namespace():
    return f"guarded-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(autouse=True)
def password(monkeypatch):
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)


def of_bus(address, namespace):
    """The settings, as keywords of a house."""
    return {"bus__kind": "kafka", "bus__bootstrap_servers": address, "run__namespace": namespace}


def kept(root):
    """All that a house has left in files."""
    return "".join(path.read_text(errors="replace") for path in root.rglob("*") if path.is_file())


# --- let in ----------------------------------------------------------------------------------------------------------

WAYS = {
    "plain": ("sasl", "SASL_PLAINTEXT", "PLAIN"),
    "scram": ("sasl", "SASL_PLAINTEXT", "SCRAM-SHA-256"),
    "plain under TLS": ("sasl_tls", "SASL_SSL", "PLAIN"),
    "scram under TLS": ("sasl_tls", "SASL_SSL", "SCRAM-SHA-256"),
    "TLS alone": ("tls", "SSL", ""),
}


@pytest.mark.parametrize("way", WAYS)
def test_who_has_the_right_credentials_owns_writes_and_reads(doors, namespace, way, tmp_path, clock):
    door, protocol, mechanism = WAYS[way]
    cluster = Cluster(getattr(doors, door), namespace, doors.client(protocol, mechanism))
    topics.make(cluster, 1)
    bus = KafkaBus(cluster, tmp_path, clock, partitions=1)
    claim = bus.claim(TaskId("judge", 0), [])
    turn = TaskCommit(
        task=claim.task, epoch=claim.epoch, turn=1, positions={}, before={}, outputs=[out(ALERTS, b"one")],
        snapshot=b"state",
    )  # fmt: skip
    bus.commit([turn])
    assert lines(bus, ALERTS) == [b"one"]
    bus.close()


@pytest.mark.processes
def test_a_house_runs_behind_tls_with_a_password_from_a_file_and_shows_it_to_nobody(doors, namespace, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(f"{PASSWORD}\n")
    client = doors.client("SASL_SSL", "SCRAM-SHA-256", **{"sasl.password": f"file:{secret}"})
    root = tmp_path / "house"
    with Running(root, **of_bus(doors.sasl_tls, namespace), bus__client=client) as house:
        house.until(house.serving, 90)
        house.drain()
    counted = account(Broker(doors.broker.address, namespace))
    assert counted.exact, counted.text
    assert counted.decisions > 500
    assert PASSWORD not in kept(root)


# --- not let in ------------------------------------------------------------------------------------------------------

PASSWORD_HINT, TLS_HINT = "sasl.password", "ssl.ca.location"


def refused(doors, name):
    """(address, client, what is said, what the hint names)"""
    sasl = doors.client("SASL_PLAINTEXT", "PLAIN")
    scram = doors.client("SASL_SSL", "SCRAM-SHA-256")
    tls = doors.client("SSL")
    return {
        "a wrong password": (doors.sasl, sasl, "Invalid username or password", PASSWORD_HINT),
        "a wrong password under TLS": (doors.sasl_tls, scram, "invalid credentials", PASSWORD_HINT),
        "another mechanism": (
            doors.sasl, sasl | {"sasl.mechanism": "SCRAM-SHA-512"}, "Unsupported SASL mechanism", "sasl.mechanism"
        ),
        "a strange authority": (
            doors.tls, tls | {"ssl.ca.location": str(doors.strange)}, "certificate verify failed", TLS_HINT
        ),
        "another name": (
            doors.tls.replace("127.0.0.1", "localhost"), tls, "certificate verify failed", "bus.bootstrap_servers"
        ),
    }[name]  # fmt: skip


REFUSED = (
    "a wrong password", "a wrong password under TLS", "another mechanism", "a strange authority", "another name",
)  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_house_that_is_not_let_in_ends_at_once_and_says_why(doors, namespace, name, tmp_path, monkeypatch):
    address, client, said, hint = refused(doors, name)
    monkeypatch.setenv("KAFKA_PASSWORD", WRONG)
    monkeypatch.setenv("MENDSTREAM_BUS_CLIENT", json.dumps(client))
    began = time.monotonic()
    with Spawned(tmp_path / "house", **of_bus(address, namespace)) as house:
        code = house.wait(60)
        took, told = time.monotonic() - began, house.rest()
    assert code == 3
    assert said in told
    assert hint in told
    assert "does not answer" not in told
    assert "Traceback" not in told
    assert took < ENDS_S
    assert WRONG not in told + kept(tmp_path)


def test_a_verb_that_is_not_let_in_says_why(doors, namespace, tmp_path, monkeypatch):
    address, client, said, hint = refused(doors, "a wrong password")
    monkeypatch.setenv("KAFKA_PASSWORD", WRONG)
    monkeypatch.setenv("MENDSTREAM_BUS_CLIENT", json.dumps(client))
    found = mendstream("tail", "alerts", "--bus", f"kafka://{address}", "--data", str(tmp_path), deadline_s=60)
    assert found.returncode == 3
    assert said in found.stderr
    assert hint in found.stderr
    assert WRONG not in found.stdout + found.stderr


def test_a_source_that_is_not_let_in_says_why_and_does_not_wait(doors, monkeypatch):
    address, client, said, hint = refused(doors, "a wrong password")
    monkeypatch.setenv("KAFKA_PASSWORD", WRONG)
    with pytest.raises(CouldNot, match=said) as caught:
        KafkaSource(Cluster(address, client=client), "events")
    assert hint in caught.value.hint


def test_a_setting_that_no_client_knows_is_named_and_no_secret_with_it(doors, monkeypatch):
    client = doors.client("SASL_PLAINTEXT", "PLAIN", **{"sasl.mechanism": "PLAIN", "acks": "env:KAFKA_PASSWORD"})
    with pytest.raises(SettingsError, match=r"bus\.client: .*acks") as caught:
        Cluster(doors.sasl, client=client).producer()
    assert PASSWORD not in str(caught.value)


def test_who_runs_already_and_is_refused_may_ask_again_and_is_told_why(doors, namespace, tmp_path, clock, monkeypatch):
    topics.make(Cluster(doors.broker.address, namespace), 1)
    secret = tmp_path / "secret"
    secret.write_text(WRONG)
    client = doors.client("SASL_PLAINTEXT", "PLAIN", **{"sasl.password": f"file:{secret}"})
    cluster = Cluster(doors.sasl, namespace, client)
    with pytest.raises(NoAnswer, match="does not accept these credentials"):
        KafkaBus(cluster, tmp_path, clock, partitions=1)
    secret.write_text(PASSWORD)
    KafkaBus(cluster, tmp_path, clock, partitions=1).close()
