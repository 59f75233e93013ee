"""A bundle: leaf, intermediates and private key of one issued certificate.

Its identity everywhere is the SHA-256 fingerprint of the leaf's DER, in lower-case hex. This module
needs the standard library only, because every deployer carries it; what takes `cryptography` to
find out is worked out once, when the bundle is published, and travels as `Facts`.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from certrail.keys import KeyType
from certrail.secret import Secret

PEM_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----\r?\n.+?\r?\n-----END CERTIFICATE-----", re.DOTALL
)


@dataclass(frozen=True)
class Facts:
    """What a deployer must know of a leaf certificate without parsing it.

    fingerprint: SHA-256 of the DER, 64 lower-case hex digits.
    domains: the DNS names of the subject alternative name, as in the certificate.
    not_before, not_after: aware, UTC.
    serial: lower-case hex without separators.
    issuer: the issuer's distinguished name, RFC 4514.
    key_usages, extended_key_usages: ACM's names for them (`DIGITAL_SIGNATURE`,
    `TLS_WEB_SERVER_AUTHENTICATION`).
    authority_key_id: of the issuer's key, lower-case hex; None where the certificate has none, or
    was published before this was kept.
    """

    fingerprint: str
    domains: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    serial: str
    issuer: str
    key_type: KeyType
    key_usages: tuple[str, ...]
    extended_key_usages: tuple[str, ...]
    authority_key_id: str | None = None


@dataclass(frozen=True)
class Bundle:
    """One immutable certificate with its chain and key, all PEM, each ending in a newline.

    chain: the intermediates, the leaf's issuer first, without the root; may be empty.
    """

    facts: Facts
    certificate: str
    chain: str
    private_key: Secret

    @property
    def fingerprint(self) -> str:
        return self.facts.fingerprint

    @property
    def fullchain(self) -> str:
        return self.certificate + self.chain


def split(pem: str) -> tuple[str, ...]:
    """The certificates of a PEM text in order, each ending in one newline (RFC 7468)."""
    return tuple(
        match.group(0).replace("\r\n", "\n") + "\n" for match in PEM_CERTIFICATE.finditer(pem)
    )


def fingerprint(pem: str) -> str:
    """SHA-256 of the first certificate's DER. Raises ValueError where there is none."""
    certificates = split(pem)
    if not certificates:
        raise ValueError("no certificate in this PEM text")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificates[0])).hexdigest()


def short(fingerprint: str) -> str:
    """The first twelve digits: what people are shown."""
    return fingerprint[:12]


def covers(domains: Iterable[str], name: str) -> bool:
    """Whether a certificate for `domains` is valid for `name`, itself perhaps a wildcard.

    A wildcard stands for exactly one label (RFC 9525, 6.3), and covers itself.
    """
    name = name.lower().rstrip(".")
    _, _, parent = name.partition(".")
    wanted = {name, f"*.{parent}"} if parent else {name}
    return any(domain.lower() in wanted for domain in domains)
