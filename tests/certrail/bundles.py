"""Throwaway bundles, made at run time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certrail.bundle import Bundle, Facts, fingerprint
from certrail.keys import KeyType
from certrail.secret import Secret

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def make_key(key_type: KeyType) -> Key:
    if key_type is KeyType.ECDSA_P256:
        return ec.generate_private_key(ec.SECP256R1())
    if key_type is KeyType.ECDSA_P384:
        return ec.generate_private_key(ec.SECP384R1())
    return rsa.generate_private_key(65537, int(key_type.removeprefix("rsa-")))


class Authority:
    """A root and one intermediate that signs leaves. root: PEM."""

    def __init__(self) -> None:
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._root_name = _name("Throwaway Root")
        self.root = (
            _builder(self._root_name, self._root_name, self._root_key, timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .sign(self._root_key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
            .decode()
        )
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._intermediate_name = _name("Throwaway Intermediate")
        self.intermediate = (
            _builder(self._intermediate_name, self._root_name, self._key, timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._root_key, hashes.SHA256())
        )

    @property
    def of_its_own(self) -> Bundle:
        """Its own certificate and key, as if they were a server's."""
        certificate = self.intermediate.public_bytes(Encoding.PEM).decode()
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return replace(
            self.bundle(["ca.example"]),
            certificate=certificate,
            chain=self.root,
            private_key=Secret(pem),
        )

    def bundle(
        self,
        domains: Sequence[str],
        key_type: KeyType = KeyType.ECDSA_P256,
        *,
        days: float = 90,
        age: timedelta = HOUR,
    ) -> Bundle:
        key = make_key(key_type)
        encipherment = isinstance(key, rsa.RSAPrivateKey)
        leaf = (
            _builder(x509.Name([]), self._intermediate_name, key, timedelta(days=days), age)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in domains]), critical=True
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=encipherment,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=False,
                    crl_sign=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        certificate = leaf.public_bytes(Encoding.PEM).decode()
        usages = (
            ("DIGITAL_SIGNATURE", "KEY_ENCIPHERMENT") if encipherment else ("DIGITAL_SIGNATURE",)
        )
        facts = Facts(
            fingerprint=fingerprint(certificate),
            domains=tuple(domains),
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            serial=f"{leaf.serial_number:x}",
            issuer=leaf.issuer.rfc4514_string(),
            key_type=key_type,
            key_usages=usages,
            extended_key_usages=("TLS_WEB_SERVER_AUTHENTICATION",),
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        chain = self.intermediate.public_bytes(Encoding.PEM).decode()
        return Bundle(facts, certificate, chain, Secret(pem))


@cache
def authority() -> Authority:
    return Authority()


def make_bundle(
    domains: Sequence[str],
    key_type: KeyType = KeyType.ECDSA_P256,
    *,
    days: float = 90,
    age: timedelta = HOUR,
) -> Bundle:
    return authority().bundle(domains, key_type, days=days, age=age)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: Key,
    life: timedelta,
    age: timedelta = HOUR,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - age)
        .not_valid_after(NOW + life)
    )
