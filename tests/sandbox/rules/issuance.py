"""Certificates for the tests: real chains, with the usages, names and dates a test asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
CURVES = {"EC_prime256v1": ec.SECP256R1(), "EC_secp384r1": ec.SECP384R1()}

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class Issued:
    certificate: bytes
    private_key: bytes
    chain: bytes
    parsed: x509.Certificate
    key: Key

    @property
    def material(self) -> dict[str, Any]:
        """The three blobs as ImportCertificate's arguments."""
        return {
            "Certificate": self.certificate,
            "PrivateKey": self.private_key,
            "CertificateChain": self.chain,
        }

    def encrypted_key(self) -> bytes:
        return self.key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )


def new_key(algorithm: str) -> Key:
    """A key by ACM's name for it: `RSA_2048`, `EC_prime256v1`."""
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm])
    return rsa.generate_private_key(65537, int(algorithm.removeprefix("RSA_")))


def usages(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in every})


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


class Authority:
    """A root and two intermediates; `issue` makes leaves under the lower one."""

    def __init__(self) -> None:
        self._keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
        names = [
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Test {level}")])
            for level in ("Root", "Upper", "Lower")
        ]
        self._name = names[-1]
        now = datetime.now(UTC)
        certificates = []
        for level, name in enumerate(names):
            signer = max(level - 1, 0)
            certificates.append(
                x509.CertificateBuilder()
                .subject_name(name)
                .issuer_name(names[signer])
                .public_key(self._keys[level].public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - timedelta(days=30))
                .not_valid_after(now + timedelta(days=3650))
                .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
                .sign(self._keys[signer], hashes.SHA256())
            )
        self.root, self.upper, self.lower = certificates

    def issue(
        self,
        *names: str,
        key: str | Key = "EC_prime256v1",
        usage: x509.KeyUsage | None = None,
        extended: Sequence[x509.ObjectIdentifier] = (SERVER,),
        starts: timedelta = timedelta(days=-1),
        ends: timedelta = timedelta(days=89),
        common_name: str | None = None,
    ) -> Issued:
        private = new_key(key) if isinstance(key, str) else key
        now = datetime.now(UTC)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self._name)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + starts)
            .not_valid_after(now + ends)
            .add_extension(usage or usages("digital_signature"), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
            )
        if extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        leaf = builder.sign(self._keys[-1], hashes.SHA256())
        return Issued(
            certificate=pem(leaf),
            private_key=private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            chain=pem(self.lower) + pem(self.upper),
            parsed=leaf,
            key=private,
        )
