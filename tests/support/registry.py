"""A fake schema registry: no more of the documented REST API than a reader asks for, and answers as it words them."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from google.protobuf.descriptor_pb2 import FileDescriptorProto

CONTENT = "application/vnd.schemaregistry.v1+json"


@dataclass(slots=True)
class FakeRegistry:
    """Use as a context manager. `answers`: (status, body) of each request to come, before it answers as it should."""

    schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    subjects: dict[tuple[str, int], int] = field(default_factory=dict)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    users: list[str | None] = field(default_factory=list)
    """The Authorization header of each request."""
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> FakeRegistry:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, port: int = 0) -> FakeRegistry:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.asked.append(self.path)
                fake.users.append(self.headers.get("Authorization"))
                status, body = fake.answers.pop(0) if fake.answers else fake.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", CONTENT)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing is said."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- what it knows -----------------------------------------------------------------------------------------------

    def avro(self, schema: Any, *, number: int = 0, subject: str = "", references: tuple[Any, ...] = ()) -> int:
        """The number of a schema that is registered."""
        return self._add({"schema": json.dumps(schema)}, number, subject, references)

    def protobuf(
        self, file: FileDescriptorProto, *, number: int = 0, subject: str = "", references: tuple[Any, ...] = ()
    ) -> int:
        """A file, which it can give as text and as descriptor."""
        serialized = base64.b64encode(file.SerializeToString()).decode()
        made = {"schemaType": "PROTOBUF", "schema": 'syntax = "proto3";', "serialized": serialized}
        return self._add(made, number, subject, references)

    def _add(self, schema: dict[str, Any], number: int, subject: str, references: tuple[Any, ...]) -> int:
        number = number or len(self.schemas) + 1
        refers = [{"name": name, "subject": of, "version": version} for name, of, version in references]
        self.schemas[number] = {**schema, "references": refers} if refers else schema
        if subject:
            self.subjects[subject, 1] = number
        return number

    # --- what it answers ---------------------------------------------------------------------------------------------

    def answer(self, path: str) -> tuple[int, bytes]:
        split = urlsplit(path)
        form = parse_qs(split.query).get("format", [""])[0]
        match split.path.strip("/").split("/"):
            case ["schemas", "ids", number]:
                return self._schema(int(number), form)
            case ["subjects", subject, "versions", version]:
                return self._version(unquote(subject), int(version), form)
        return 404, b'{"error_code":404,"message":"HTTP 404 Not Found"}'

    def _schema(self, number: int, form: str) -> tuple[int, bytes]:
        if number not in self.schemas:
            return _error(404, 40403, f"Schema {number} not found")
        return 200, json.dumps(_given(self.schemas[number], form)).encode()

    def _version(self, subject: str, version: int, form: str) -> tuple[int, bytes]:
        number = self.subjects.get((subject, version))
        if number is None:
            return _error(404, 40401, f"Subject '{subject}' not found.")
        told = {"subject": subject, "version": version, "id": number, **_given(self.schemas[number], form)}
        return 200, json.dumps(told).encode()


def _given(schema: dict[str, Any], form: str) -> dict[str, Any]:
    told = {name: value for name, value in schema.items() if name != "serialized"}
    return {**told, "schema": schema["serialized"]} if form == "serialized" and "serialized" in schema else told


def _error(status: int, code: int, message: str) -> tuple[int, bytes]:
    return status, json.dumps({"error_code": code, "message": message}).encode()


def framed(number: int, payload: bytes, *, indexes: bytes = b"") -> bytes:
    """A value as a producer with a registry writes it."""
    return b"\0" + number.to_bytes(4, "big") + indexes + payload
