"""Values with a schema registry's id in front: bytes of a record in, the JSON line that ingestion validates out.

A value is a zero byte, the schema's number in four bytes, and the record as that schema has it. What stands there as no
such thing is BadRecord; NoAnswer says that the registry is away, and nothing about the record.
"""

from __future__ import annotations

import importlib.util
import math
import ssl
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from mendstream.contracts.errors import BadRecord, CouldNot, MendstreamError, NoAnswer, SettingsError
from mendstream.settings.groups import Ingestion
from mendstream.settings.secret import referred

if TYPE_CHECKING:  # of the extra `registry`
    from confluent_kafka.schema_registry import Schema, SchemaReference

Decode = Callable[[bytes], Any]
"""What follows the schema's number, as plain values. Raises BadRecord."""
MAGIC = b"\0"
HEAD = 5
FORMATS = ("avro", "protobuf")
_ANSWER_S = 3
_UNKNOWN_S = 60.0
"""How long a schema that the registry does not have is not asked for again."""
_NO_SUCH = frozenset({40401, 40402, 40403})
"""The registry's own words for a subject, version or schema that it does not have; a plain 404 is another server's."""
_encode = msgspec.json.Encoder(decimal_format="number").encode
_T = TypeVar("_T")


class NotFinite(BadRecord):
    """A number that JSON has not: it could not be told from one that is missing."""


class Kind(Protocol):
    """How the values of one format are read; a schema is made ready once."""

    @property
    def name(self) -> str:
        """As the registry calls it."""

    @property
    def format(self) -> str | None:
        """In which the registry is asked for a schema; None: its own."""

    def decoder(self, schema: Schema, referred: Callable[[SchemaReference], Schema]) -> Decode:
        """Raises BadRecord for a schema that cannot be used."""


class Registry:
    """A registry over HTTP. Raises CouldNot for settings that it cannot be reached with."""

    def __init__(self, url: str, client: Mapping[str, str], *, kind: Kind) -> None:
        from confluent_kafka.schema_registry import SchemaRegistryClient

        given = {name: referred("ingestion.registry_client", name, value) for name, value in client.items()}
        # Its own retries would sleep where nobody can end them.
        settings: dict[str, Any] = {"url": url, "timeout": _ANSWER_S, "max.retries": 0, **given}
        try:
            self._client = SchemaRegistryClient(settings)
        except (ValueError, TypeError, OSError) as error:  # what it says of settings, and of certificates
            raise SettingsError(
                f"ingestion.registry_client: {error}", hint="see Confluent's SchemaRegistryClient"
            ) from error
        self._url = url
        self._kind = kind
        self._decoders: dict[int, Decode] = {}
        self._unknown: dict[int, tuple[float, str]] = {}

    def line(self, value: bytes) -> bytes:
        """The record as JSON. Raises BadRecord, NoAnswer, CouldNot."""
        if len(value) < HEAD or value[:1] != MAGIC:
            raise BadRecord(_no_head(value))
        number = int.from_bytes(value[1:HEAD], "big")
        decode = self._decoders.get(number) or self._fetched(number)
        return as_line(decode(value[HEAD:]))

    def _fetched(self, number: int) -> Decode:
        until, why = self._unknown.get(number, (0.0, ""))
        if time.monotonic() < until:
            raise BadRecord(why)
        try:
            decode = self._decoders[number] = self._decoder(number)
        except BadRecord as error:
            self._unknown[number] = (time.monotonic() + _UNKNOWN_S, str(error))
            raise
        return decode

    def _decoder(self, number: int) -> Decode:
        schema = self._asked(f"schema {number}", lambda: self._client.get_schema(number, fmt=self._kind.format))
        if schema.schema_type != self._kind.name:
            raise BadRecord(f"schema {number} is of {schema.schema_type}, and the source of {self._kind.name}")
        return self._kind.decoder(schema, self._referred)

    def _referred(self, to: SchemaReference) -> Schema:
        subject, version = to.subject, to.version
        if subject is None or version is None:
            raise BadRecord(f"a schema refers to {to.name} without subject or version")
        found = self._asked(
            f"version {version} of {subject}",
            lambda: self._client.get_version(subject, version, deleted=True, fmt=self._kind.format),
        )
        return found.schema

    def _asked(self, what: str, ask: Callable[[], _T]) -> _T:
        import httpx2
        from confluent_kafka.schema_registry import SchemaRegistryError
        from confluent_kafka.schema_registry.error import OAuthTokenError

        try:
            return ask()
        except SchemaRegistryError as error:
            raise self._explained(what, error.http_status_code, error.error_code, str(error.error_message)) from error
        except httpx2.TransportError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise CouldNot(
                    f"TLS with the schema registry at {self._url} failed: {error}",
                    hint="set ssl.ca.location in ingestion.registry_client",
                ) from error
            raise NoAnswer(
                f"the schema registry at {self._url} does not answer ({str(error) or type(error).__name__})"
            ) from error
        except OAuthTokenError as error:
            raise NoAnswer(f"no token for the schema registry at {self._url} ({error.message})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # of an answer that is no registry's
            raise self._no_registry(what, f"its answer is none: {error}") from error

    def _explained(self, what: str, status: int, code: int, text: str) -> MendstreamError:
        if status == 404 and code in _NO_SUCH:
            return BadRecord(f"the schema registry has no {what} ({text})")
        if status in (401, 403):
            return CouldNot(
                f"the schema registry at {self._url} does not let us in ({status}: {text})",
                hint='set "basic.auth.user.info" = "env:NAME" in ingestion.registry_client, with USER:PASSWORD in NAME',
            )
        if status in (408, 429) or status >= 500:
            return NoAnswer(f"the schema registry at {self._url} cannot answer now ({status}: {text})")
        return self._no_registry(what, f"{status}: {text}")

    def _no_registry(self, what: str, why: str) -> CouldNot:
        return CouldNot(
            f"{self._url} gives no {what} ({why})", hint="ingestion.schema_registry is the URL of a schema registry"
        )


def as_line(value: Any) -> bytes:
    """As one line of JSON. Raises BadRecord for what has no place in it."""
    try:
        line = _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadRecord(f"the record has no form as JSON: {error}") from error
    if b"null" in line and not _finite(value):  # they would have become null as well
        raise NotFinite("a number is NaN or an infinity")
    return line


def _finite(value: Any) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_finite, value.values()))
        case list() | tuple():
            return all(map(_finite, value))
    return True


def _no_head(value: bytes) -> str:
    if len(value) < HEAD:
        return f"{len(value)} bytes: too few for a schema registry's head of {HEAD}"
    return f"begins with byte {value[0]}, and a value with a schema's number with 0"


def open_registry(settings: Ingestion) -> Registry:
    """For `ingestion.value_format`. Raises SettingsError, or CouldNot without the extra `registry`."""
    if not settings.schema_registry:
        raise SettingsError(
            f"ingestion.value_format = {settings.value_format!r} needs a schema registry",
            hint="set ingestion.schema_registry to its URL",
        )
    if not installed():
        raise CouldNot(
            f"ingestion.value_format = {settings.value_format!r}, and what reads it is not installed",
            hint="pip install 'mendstream[registry]'",
        )
    return Registry(settings.schema_registry, settings.registry_client, kind=_kind(settings.value_format))


def _kind(name: str) -> Kind:
    if name == "avro":
        from mendstream.adapters.sources.avro import Avro

        return Avro()
    from mendstream.adapters.sources.protobuf import Protobuf

    return Protobuf()


def installed() -> bool:
    """Whether all libraries of the extra are there."""
    return all(
        importlib.util.find_spec(name) for name in ("attrs", "authlib", "cachetools", "httpx2", "fastavro", "google")
    )
