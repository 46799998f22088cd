"""An MLflow server that is away, ill or killed: nothing half-registered gets an alias, what it missed it gets later."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
import traceback
import uuid

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.support.clock import ManualClock
from tests.support.registries import Rest, StubProxy
from tests.support.services import service
from tests.unit.models import onnx_files
from tests.unit.models.world import card

from mendstream.adapters.models.apart import RegistryApart, Turn
from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.registrar import Registrar
from mendstream.adapters.models.registry import Registry
from mendstream.contracts.errors import CouldNot

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(240)]
ONNX = onnx_files.linear()
DIGEST = hashlib.sha256(ONNX).hexdigest()
SECRET = "canary-7f3a"
LONG_S = 600.0
"""More than the registrar ever waits."""


@pytest.fixture
def proxy(mlflow_server):
    with StubProxy(mlflow_server.url).running() as running:
        yield running


@pytest.fixture
def shown(mlflow_server):
    return Rest(mlflow_server.url, f"flights-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def catalogue(tmp_path):
    held = Catalogue(tmp_path / "models")
    for version in ("v1", "v2"):
        held.add(ONNX, card(version))
    return held


class Desk:
    """A registrar with all that it looks at, and MLflow's client in a process of its own, as a house has them."""

    def __init__(self, catalogue, url, name) -> None:
        self.catalogue = catalogue
        self.clock = ManualClock()
        self.live = ("v1", "")
        self.turn = Turn()
        self.told = RegistryApart(self.turn, catalogue.directory, uri=url, name=name)
        self.registrar = Registrar(self.told, catalogue, self.clock, lambda: self.live, quiet_s=1.0)

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.told.close()

    def after(self, seconds: float) -> str:
        """What the registrar says of itself once so much time has passed."""
        self.clock.advance(s=seconds)
        while self.registrar.pump():
            pass
        return self.registrar.trouble

    def kill(self) -> None:
        """The process that talks to the server."""
        os.kill(self.told._there.pid, 9)


def whole(shown):
    """Every version that the server shows has a finished run with our file; no alias is elsewhere."""
    for one in shown.versions():
        assert one.digest == DIGEST
        assert shown.run(one.run_id)["status"] == "FINISHED"
        assert shown.file(one.run_id, "model/model.onnx") == ONNX
    return [one.version for one in shown.versions()]


# --- away, ill -------------------------------------------------------------------------------------------------------


SAYS = {
    "500": "too many 500 error responses|Failed to download",
    "lost": "Connection aborted|Failed to download",
    "garbage": "not in a valid JSON format|came back with SHA-256|Failed to download",
}
"""What a message says of it; of a download that fails, MLflow says no more than that."""


@pytest.mark.parametrize("trouble", SAYS)
def test_a_server_that_falls_ill_at_any_request_shows_no_half_version_and_gets_the_rest_later(
    proxy, mlflow_server, catalogue, tmp_path, trouble
):
    at, refusals = 0, [""]
    while refusals:
        refusals = []
        name = f"flights-{uuid.uuid4().hex[:8]}"
        proxy.spoil(lambda number, line, at=at: trouble if number >= at else None)
        registry = Registry(tmp_path, uri=proxy.url, name=name)
        try:
            registry.register(catalogue, catalogue.fetch("v1"))
            registry.alias("champion", catalogue.fetch("v1"))
        except CouldNot as error:
            refusals.append(str(error))
        shown = Rest(mlflow_server.url, name)
        before = whole(shown)
        proxy.spoil()
        again = Registry(tmp_path, uri=proxy.url, name=name)
        if not before:
            assert not again.alias("champion", catalogue.fetch("v1"))
        again.register(catalogue, catalogue.fetch("v1"))
        assert again.alias("champion", catalogue.fetch("v1"))
        assert whole(shown) == ["v1"], f"trouble {trouble} at request {at}"
        assert shown.runs() == 1, f"trouble {trouble} at request {at}"
        assert shown.aliases() == {"champion": "v1"}
        for said in refusals:
            assert re.match(f"MLflow store {proxy.url} refused: .*({SAYS[trouble]})", said)
        at += 1
    assert at > 10, "a registration is many requests"


def test_a_file_that_did_not_arrive_is_noticed(proxy, shown, catalogue, tmp_path):
    proxy.spoil(lambda number, line: "garbage" if line.startswith("PUT ") and line.endswith("model.onnx") else None)
    registry = Registry(tmp_path, uri=proxy.url, name=shown.name)
    with pytest.raises(CouldNot, match="refused"):
        registry.register(catalogue, catalogue.fetch("v1"))
    assert shown.versions() == []
    proxy.spoil()
    registry.register(catalogue, catalogue.fetch("v1"))
    assert whole(shown) == ["v1"]


def test_a_file_that_is_not_ours_is_not_registered(proxy, shown, catalogue, tmp_path):
    catalogue.path("v2").write_bytes(b"another model")
    with pytest.raises(CouldNot, match=r"model\.onnx of v2 came back with SHA-256"):
        Registry(tmp_path, uri=proxy.url, name=shown.name).register(catalogue, catalogue.fetch("v2"))
    assert shown.versions() == []


def test_a_server_that_does_not_answer_is_given_up_within_the_time_limit(
    proxy, shown, catalogue, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    proxy.spoil(lambda number, line: "silence")
    started = time.monotonic()
    with pytest.raises(CouldNot, match="timed out"):
        Registry(tmp_path, uri=proxy.url, name=shown.name).register(catalogue, catalogue.fetch("v1"))
    assert time.monotonic() - started < 30
    assert len(proxy.seen) == 1


def test_no_process_is_started_for_a_server_that_is_away(mlflow_server, shown, catalogue):
    with StubProxy(mlflow_server.url).running() as gone:
        url = gone.url
    with Desk(catalogue, url, shown.name) as desk:
        assert desk.after(1) == f"MLflow store {url} refused: [Errno 111] Connection refused"
        assert desk.told._there.pid is None
        assert desk.turn._lock.acquire(blocking=False), "a training would have to wait"
        desk.turn.leave()


# --- killed in the middle of a registration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "at", ["POST /api/2.0/mlflow/runs/create", "PUT ", "POST /api/2.0/mlflow/model-versions/create"]
)
def test_what_the_killed_process_was_at_is_done_by_the_next_one(proxy, shown, catalogue, at):
    with Desk(catalogue, proxy.url, shown.name) as desk:
        proxy.spoil(lambda number, line: desk.kill() if line.startswith(at) else None)
        assert "ended with code -9" in desk.after(1)
        assert whole(shown) in ([], ["v1"])
        proxy.spoil()
        assert desk.after(LONG_S) == ""
        assert whole(shown) == ["v1", "v2"]
        assert shown.runs() == 2
        assert shown.aliases() == {"champion": "v1"}


def test_a_server_that_is_killed_in_the_middle_gets_what_it_missed_once_it_is_back(catalogue):
    with (
        service("mlflow") as server,
        StubProxy(server.url).running() as proxy,
        Desk(catalogue, proxy.url, "flights") as desk,
    ):
        shown = Rest(server.url, "flights")

        def kill(number, line):
            if line.startswith("PUT ") and line.endswith("model.onnx"):
                server.kill()

        proxy.spoil(kill)
        assert "refused: " in desk.after(1)
        desk.live = ("v2", "v1")
        assert "refused: " in desk.after(LONG_S)
        proxy.spoil()
        server.restart()
        assert whole(shown) == []
        assert desk.after(LONG_S) == ""
        assert whole(shown) == ["v1", "v2"]
        assert shown.runs() == 2
        assert shown.aliases() == {"champion": "v2", "previous": "v1"}


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_user_and_password_of_the_address_reach_the_server_and_nobody_else(proxy, shown, catalogue, capfd):
    password = f"{SECRET}/%:@"
    quoted = f"{SECRET}%2F%25%3A%40"
    url = proxy.url.replace("://", f"://me:{quoted}@")
    with capture_logs() as logs, Desk(catalogue, url, shown.name) as desk:
        assert desk.after(1) == ""
        proxy.spoil(lambda number, line: "500")
        desk.live = ("v2", "v1")
        trouble = desk.after(LONG_S)
        assert f"MLflow store {proxy.url} refused" in trouble
    assert proxy.authorised == {"Basic " + base64.b64encode(f"me:{password}".encode()).decode()}
    assert whole(shown) == ["v1", "v2"]
    told = json.dumps(logs) + trouble + "".join(capfd.readouterr())
    assert "again_in_s" in told
    assert SECRET not in told


def test_a_token_reaches_the_server_and_nobody_else(proxy, shown, catalogue, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    registry = Registry(tmp_path, uri=proxy.url, name=shown.name)
    registry.register(catalogue, catalogue.fetch("v1"))
    assert proxy.authorised == {f"Bearer {SECRET}"}
    wrong = msgspec.structs.replace(catalogue.fetch("v1"), version=f"v2'{SECRET}")  # the server repeats the filter
    with pytest.raises(CouldNot) as caught:
        registry.alias("champion", wrong)
    told = "".join(traceback.format_exception(caught.value))
    assert "***" in told
    assert SECRET not in told + "".join(capfd.readouterr())
