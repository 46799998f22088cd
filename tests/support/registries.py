"""MLflow stores for tests, read by other means than ours, and a stub proxy that spoils what goes through it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mendstream.adapters.models.registry import Registry, connect

WITHIN_S = 30


@dataclass(frozen=True, slots=True)
class Shown:
    """A registered version as MLflow shows it."""

    number: str
    version: str
    digest: str
    run_id: str
    status: str
    card: str
    aliases: tuple[str, ...] = ()


class Rest:
    """What a server answers over HTTP, which is all that its pages have. No client of MLflow's or ours."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.uri = url
        self.name = name

    def registry(self, folder: Path) -> Registry:
        return Registry(folder, uri=self.uri, name=self.name)

    def versions(self) -> list[Shown]:
        """By MLflow's number."""
        try:
            model = self._get("registered-models/get", name=self.name)["registered_model"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        aliases: dict[str, list[str]] = {}
        for one in model.get("aliases", []):
            aliases.setdefault(one["version"], []).append(one["alias"])
        found = self._get("model-versions/search", filter=f"name = '{self.name}'").get("model_versions", [])
        return sorted((_of_rest(one, aliases) for one in found), key=lambda one: int(one.number))

    def aliases(self) -> dict[str, str]:
        """alias -> our version."""
        return {alias: one.version for one in self.versions() for alias in one.aliases}

    def run(self, run_id: str) -> dict[str, Any]:
        run = self._get("runs/get", run_id=run_id)["run"]
        data = run["data"]
        return {
            "status": run["info"]["status"],
            "metrics": {one["key"]: one["value"] for one in data.get("metrics", [])},
            "params": {one["key"]: one["value"] for one in data.get("params", [])},
            "tags": {one["key"]: one["value"] for one in data.get("tags", [])},
        }

    def runs(self) -> int:
        experiment = self._get("experiments/get-by-name", experiment_name=self.name)["experiment"]["experiment_id"]
        return len(self._post("runs/search", experiment_ids=[experiment], max_results=100).get("runs", []))

    def file(self, run_id: str, path: str) -> bytes:
        query = urllib.parse.urlencode({"run_uuid": run_id, "path": path})
        with urllib.request.urlopen(f"{self.url}/get-artifact?{query}", timeout=WITHIN_S) as answer:
            return bytes(answer.read())

    def _get(self, what: str, **query: str) -> dict[str, Any]:
        return self._ask(urllib.request.Request(f"{self.url}/api/2.0/mlflow/{what}?{urllib.parse.urlencode(query)}"))

    def _post(self, what: str, **body: Any) -> dict[str, Any]:
        head = {"Content-Type": "application/json"}
        url = f"{self.url}/api/2.0/mlflow/{what}"
        return self._ask(urllib.request.Request(url, data=json.dumps(body).encode(), headers=head))

    def _ask(self, request: urllib.request.Request) -> dict[str, Any]:
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
            return dict(json.load(answer))


def _of_rest(one: dict[str, Any], aliases: dict[str, list[str]]) -> Shown:
    tags = {tag["key"]: tag["value"] for tag in one.get("tags", [])}
    return Shown(
        one["version"], tags["mendstream.version"], tags["mendstream.digest"], one["run_id"], one["status"],
        one["description"], tuple(aliases.get(one["version"], ())),
    )  # fmt: skip


class Sqlite:
    """The house's own store, read by MLflow's client."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.uri = ""
        self.name = name

    def registry(self, folder: Path) -> Registry:
        return Registry(self.folder, name=self.name)

    def versions(self) -> list[Shown]:
        found = [
            self._client.get_model_version(self.name, one.version)
            for one in self._client.search_model_versions(f"name = '{self.name}'")
        ]
        return sorted(
            (
                Shown(
                    str(one.version), one.tags["mendstream.version"], one.tags["mendstream.digest"], one.run_id,
                    one.status, one.description, tuple(one.aliases),
                )
                for one in found
            ),
            key=lambda one: int(one.number),
        )  # fmt: skip

    def aliases(self) -> dict[str, str]:
        return {alias: one.version for one in self.versions() for alias in one.aliases}

    def run(self, run_id: str) -> dict[str, Any]:
        run = self._client.get_run(run_id)
        data = run.data
        return {"status": run.info.status, "metrics": data.metrics, "params": data.params, "tags": data.tags}

    def runs(self) -> int:
        experiment = self._client.get_experiment_by_name(self.name)
        return len(self._client.search_runs([experiment.experiment_id]))

    def file(self, run_id: str, path: str) -> bytes:
        place = urllib.parse.urlsplit(self._client.get_run(run_id).info.artifact_uri).path
        return (Path(place) / path).read_bytes()

    @property
    def _client(self) -> Any:
        return connect(f"sqlite:///{self.folder}/mlflow.db")


Spoils = Callable[[int, str], str | None]
"""(requests that came before, method and path) -> `500`, `drop`, `lost`, `silence`, `garbage`; None: let it pass."""


def passes(number: int, request: str) -> None:
    """Nothing is spoilt."""


@dataclass
class StubProxy:
    """A stub between a client and a real server: it lets requests through, or answers with trouble of its own.

    `500`: an error page. `drop`: the connection ends. `lost`: the server does it, the answer does not come back.
    `silence`: no answer as long as the proxy lives. `garbage`: 200 and a page of something else.
    """

    server: str
    spoils: Spoils = passes
    seen: list[str] = field(default_factory=list)
    authorised: set[str] = field(default_factory=set)
    """What came in the header `Authorization`."""
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[StubProxy]:
        listener = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        listener.daemon_threads = True
        self.url = f"http://127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.ended.set()
            listener.shutdown()
            listener.server_close()

    def spoil(self, spoils: Spoils = passes) -> None:
        """From now on; counts from the start again."""
        self.seen.clear()
        self.spoils = spoils

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                with contextlib.suppress(OSError):
                    super().handle_one_request()

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return lambda: proxy._answer(self)
                raise AttributeError(name)

            def log_message(self, *_: Any) -> None: ...

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        line = f"{request.command} {request.path}"
        self.authorised.update(filter(None, [request.headers.get("Authorization")]))
        number = len(self.seen)
        self.seen.append(line)
        match self.spoils(number, line):
            case "500":
                _send(request, 500, b"<h1>Internal Server Error</h1>")
            case "garbage":
                _send(request, 200, b"<h1>Please log in</h1>")
            case "drop":
                request.connection.shutdown(socket.SHUT_RDWR)
            case "silence":
                self.ended.wait(60)
            case "lost":
                self._forward(request, body)
                request.connection.shutdown(socket.SHUT_RDWR)
            case _:
                _send(request, *self._forward(request, body))

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        there = urllib.parse.urlsplit(self.server)
        head = {k: v for k, v in request.headers.items() if k.lower() in ("content-type", "accept", "authorization")}
        link = http.client.HTTPConnection(there.hostname or "", there.port, timeout=WITHIN_S)
        try:
            link.request(request.command, request.path, body=body, headers=head)
            answer = link.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 502, b"the server is away"
        finally:
            link.close()


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
