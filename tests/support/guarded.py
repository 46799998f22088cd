"""A broker that asks who one is: by password, in the clear or under TLS. Its keys are made at its start, for a day."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.support.services import require, temporary_folder
from tools.services import kafka as kafka_service
from tools.services.kafka import QUICK
from tools.services.running import HOST, Owner, Running, free_ports

USER = "ada"
PASSWORD = "canary-swordfish"
"""Of the user, on every listener that asks for one: it must be seen nowhere."""
_ITERATIONS = 4096
_JAAS = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True)
class Guarded:
    """One broker and its doors."""

    broker: Running
    """Its `address` asks nobody who he is."""
    sasl: str
    sasl_tls: str
    tls: str
    trusted: Path
    """The certificate of who signed the broker's."""
    strange: Path
    """That of somebody else."""

    def client(self, protocol: str, mechanism: str = "", **more: str) -> dict[str, str]:
        """What `bus.client` has, with the password by reference."""
        found = {"security.protocol": protocol, "broker.address.family": "v4"}
        if "SSL" in protocol:
            found["ssl.ca.location"] = str(self.trusted)
        if mechanism:
            found |= {"sasl.mechanism": mechanism, "sasl.username": USER, "sasl.password": "env:KAFKA_PASSWORD"}
        return found | more


@contextlib.contextmanager
def guarded(**properties: str) -> Iterator[Guarded]:
    """`properties`: of the broker, with _ for each dot."""
    require("kafka")
    with temporary_folder("kafka") as folder:
        port, controller, *doors = free_ports(folder, "broker", "controller", "sasl", "sasl_tls", "tls")
        sasl, sasl_tls, tls = (f"{HOST}:{door}" for door in doors)
        listeners = f"PLAINTEXT://{HOST}:{port},SASL_PLAINTEXT://{sasl},SASL_SSL://{sasl_tls},SSL://{tls}"
        told = {
            "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": listeners,
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(_signed(folder, "right", name=HOST)),
        }
        for door in ("sasl_plaintext", "sasl_ssl"):
            jaas = f"listener.name.{door}.%s.sasl.jaas.config"
            told[jaas % "plain"] = f'{_JAAS}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
            told[jaas % "scram-sha-256"] = f"{_JAAS}.scram.ScramLoginModule required;"
        _signed(folder, "strange", name=HOST)
        told |= {name.replace("_", "."): value for name, value in properties.items()}
        broker = kafka_service.start(folder, properties=told, jvm=QUICK, owner=Owner.me(temporary=folder))
        try:
            _let_in(broker.address)
            yield Guarded(broker, sasl, sasl_tls, tls, folder / "right-ca.pem", folder / "strange-ca.pem")
        finally:
            broker.stop()


def _let_in(address: str) -> None:
    """A password for SCRAM is kept by the broker itself."""
    mechanism = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, _ITERATIONS)
    asked = UserScramCredentialUpsertion(USER, mechanism, PASSWORD.encode())
    admin = AdminClient({"bootstrap.servers": address})
    admin.alter_user_scram_credentials([asked])[USER].result(20)


def _signed(folder: Path, kind: str, *, name: str) -> Path:
    """A key with its certificate for the address `name`; beside it, as `KIND-ca.pem`, who signed it."""
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{kind} authority")])
    root = _certificate(issuer, authority.public_key(), issuer, authority, x509.BasicConstraints(True, None))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    where = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))])
    leaf = _certificate(subject, own.public_key(), issuer, authority, where)
    (folder / f"{kind}-ca.pem").write_bytes(root)
    path = folder / f"{kind}.pem"
    path.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + leaf + root)
    return path


def _certificate(subject, key, issuer, signer, extension) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .sign(signer, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM)
