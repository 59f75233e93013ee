"""A bundle as each of the four that write bundles writes it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from certrail.bundle import Bundle, split


def key_of(bundle: Bundle) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    key = load_pem_private_key(bundle.private_key.reveal().encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key


def certbot(bundle: Bundle) -> dict[str, bytes]:
    """Its four files."""
    return {
        "cert.pem": bundle.certificate.encode(),
        "chain.pem": bundle.chain.encode(),
        "fullchain.pem": bundle.fullchain.encode(),
        "privkey.pem": bundle.private_key.reveal().encode(),
    }


def node_lambda(bundle: Bundle, *, whole: bool = False) -> bytes:
    """What node-letsencrypt-lambda writes: the key as rsa-compat has it, in PKCS #1. whole: as of
    its later versions, the chain in one with the certificate."""
    traditional = key_of(bundle).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    chain = (
        {"cert": bundle.fullchain}
        if whole
        else {"cert": bundle.certificate, "issuerCert": bundle.chain}
    )
    key = {"privateKeyPem": traditional.decode(), "publicKeyPem": "…"}
    return json.dumps({"key": key, **chain}).encode()


def pkcs12(bundle: Bundle, password: bytes | None = None) -> bytes:
    chain = [x509.load_pem_x509_certificate(pem.encode()) for pem in split(bundle.chain)]
    return serialize_key_and_certificates(
        b"shop",
        key_of(bundle),
        x509.load_pem_x509_certificate(bundle.certificate.encode()),
        chain,
        BestAvailableEncryption(password) if password else NoEncryption(),
    )


def pkcs12_by_openssl(bundle: Bundle, folder: Path, *options: str) -> bytes:
    """By the program that most people make it with."""
    written = folder / "bundle.pem"
    written.write_text(bundle.private_key.reveal() + bundle.fullchain)
    made = folder / "bundle.p12"
    subprocess.run(
        ["openssl", "pkcs12", "-export", "-in", str(written), "-out", str(made), *options],
        check=True,
        capture_output=True,
    )
    return made.read_bytes()
