"""A certificate authority for loopback, good or not."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

DAY = timedelta(days=1)
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Issuer:
    """A key that signs certificates, and its own certificate with those above it."""

    directory: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    above: tuple[x509.Certificate, ...] = ()

    @property
    def bundle(self) -> Path:
        """Its certificate as a PEM file."""
        path = self.directory / f"{self.label}.pem"
        path.write_bytes(self.certificate.public_bytes(PEM))
        return path

    @property
    def label(self) -> str:
        (name,) = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(name.value)

    def intermediate(self, label: str) -> Issuer:
        """An authority below this one."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _authority(label, key, self)
        return Issuer(self.directory, key, certificate, (self.certificate, *self.above))

    def files(
        self,
        label: str,
        *,
        address: str = "127.0.0.1",
        names: tuple[str, ...] = (),
        start: timedelta = -20 * DAY,
        until: timedelta = 10 * DAY,
    ) -> tuple[Path, Path]:
        """Certificate and key of a server or client, as PEM files; times are from now."""
        own = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        hosts = [x509.IPAddress(ip_address(address)), *map(x509.DNSName, names)]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(label))
            .issuer_name(self.certificate.subject)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start)
            .not_valid_after(now + until)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        # A root is not sent: who trusts it has it.
        sent = [certificate, *([self.certificate, *self.above][:-1])]
        file, key = self.directory / f"{label}.crt", self.directory / f"{label}.key"
        file.write_bytes(b"".join(each.public_bytes(PEM) for each in sent))
        key.write_bytes(
            own.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return file, key

    def server(
        self,
        label: str,
        *,
        address: str = "127.0.0.1",
        names: tuple[str, ...] = (),
        start: timedelta = -20 * DAY,
        until: timedelta = 10 * DAY,
    ) -> ssl.SSLContext:
        """What a server with such a certificate speaks TLS with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(
            *self.files(label, address=address, names=names, start=start, until=until)
        )
        return context


def make_issuer(directory: Path, label: str = "test authority") -> Issuer:
    """A root of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Issuer(directory, key, _authority(label, key, None))


@dataclass(frozen=True)
class Authority:
    """Files of one authority: its certificate, and contexts for servers on 127.0.0.1."""

    directory: Path
    bundle: Path
    good: ssl.SSLContext
    expired: ssl.SSLContext
    elsewhere: ssl.SSLContext


def make_authority(directory: Path) -> Authority:
    """An authority with a server certificate that is good, one expired, one for another host."""
    issuer = make_issuer(directory)
    return Authority(
        directory=directory,
        bundle=issuer.bundle,
        good=issuer.server("good"),
        expired=issuer.server("expired", until=-10 * DAY),
        elsewhere=issuer.server("elsewhere", address="127.0.0.2"),
    )


def _authority(
    label: str, key: ec.EllipticCurvePrivateKey, above: Issuer | None
) -> x509.Certificate:
    now = datetime.now(UTC)
    signer = key if above is None else above.key
    return (
        x509.CertificateBuilder()
        .subject_name(_name(label))
        .issuer_name(_name(label) if above is None else above.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * DAY)
        .not_valid_after(now + 30 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(_usage(sign=True), critical=True)
        .sign(signer, hashes.SHA256())
    )


def _name(label: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )
