"""How somebody else writes down a certificate, its chain and its key.

    certbot   cert.pem chain.pem fullchain.pem privkey.pem
              eff-certbot.readthedocs.io/en/stable/using.html#where-are-my-certificates
    json      {"key": {"privateKeyPem": …}, "cert": …, "issuerCert": …}, of node-letsencrypt-lambda,
              now github.com/ocelotconsulting/node-acme-lambda (src/acme/certify, src/acme/v2);
              without `issuerCert`, which its later versions leave out, `cert` is the whole chain
    pkcs12    RFC 7292
    acm       the answer of ExportCertificate, its key encrypted with a passphrase of ours
              docs.aws.amazon.com/acm/latest/APIReference/API_ExportCertificate.html

Whatever the layout, what comes out is the same: PEM with lines of 64 letters and a newline at their
end, the key as PKCS #8 without encryption, the leaf first. Who brings that gets it back byte by
byte. Whether it is a good certificate, `issuer.checks` says.

Everything here raises BundleBroken, with the place and what to do, and never with what was read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from certrail.bundle import split
from certrail.errors import BundleBroken
from certrail.secret import Secret
from issuer import keys
from issuer.checks import ordered
from issuer.keys import CertificateKey

CERTBOT = ("cert.pem", "chain.pem", "fullchain.pem", "privkey.pem")
PKCS12 = (".p12", ".pfx")
JSON = (".json",)

PRIVATE_KEY = re.compile(
    r"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----.+?-----END \1PRIVATE KEY-----", re.DOTALL
)
# The first byte of a certificate or a key in DER: a SEQUENCE (X.690, 8.9).
SEQUENCE = b"\x30"


@dataclass(frozen=True)
class Foreign:
    """fullchain: PEM, the leaf first. private_key: PKCS #8, PEM, not encrypted."""

    fullchain: str
    private_key: Secret


def bundles(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The names that are of a layout, those of one bundle together. Others are nobody's
    business."""
    names = list(names)
    four = tuple(name for name in names if name in CERTBOT)
    single = [(name,) for name in names if name.endswith((*JSON, *PKCS12))]
    return [*([four] if four else []), *single]


def opened(files: Mapping[str, bytes], password: Secret | None, where: str) -> Foreign:
    """One bundle; certbot's files fit together. where: the files' folder. password: of a
    PKCS#12."""
    first = next(iter(files))
    if first in CERTBOT:
        return from_certbot(files, where)
    if first.endswith(PKCS12):
        return from_pkcs12(files[first], password, where + first)
    return from_json(files[first], where + first)


# certbot: four files, which are written one after the other


def misfit(files: Mapping[str, bytes], where: str) -> str | None:
    """Why certbot's files do not belong together, or not yet; None where they do. where: their
    folder."""
    if missing := [name for name in CERTBOT if name not in files]:
        return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    leaf, *more = certificates(files["cert.pem"], f"{where}cert.pem")
    chain = certificates(files["chain.pem"], f"{where}chain.pem")
    if more:
        raise BundleBroken(
            f"there are {1 + len(more)} certificates in it, and one is the server's",
            where=f"{where}cert.pem",
            next="Put the others into chain.pem, and all of them into fullchain.pem",
        )
    if certificates(files["fullchain.pem"], f"{where}fullchain.pem") != [leaf, *chain]:
        return "fullchain.pem is not cert.pem followed by chain.pem"
    if not _belongs(private_key(files["privkey.pem"], f"{where}privkey.pem"), leaf):
        return "privkey.pem is not the key of cert.pem"
    if ordered(leaf, chain)[1]:
        return "chain.pem is not the chain of cert.pem"
    return None


def from_certbot(files: Mapping[str, bytes], where: str) -> Foreign:
    """Of files that fit together."""
    return _foreign(
        certificates(files["fullchain.pem"], f"{where}fullchain.pem"),
        private_key(files["privkey.pem"], f"{where}privkey.pem"),
        where,
    )


# The others: one file each


def from_json(body: bytes, where: str) -> Foreign:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise BundleBroken(f"this is not JSON{place}", where=where, next=AS_WRITTEN) from None
    if not isinstance(document, dict):
        raise BundleBroken("this is not a JSON object", where=where, next=AS_WRITTEN)
    key = document.get("key")
    found = {
        "key.privateKeyPem": key.get("privateKeyPem") if isinstance(key, dict) else None,
        "cert": document.get("cert"),
        "issuerCert": document.get("issuerCert") or "",
    }
    fields = {name: value for name, value in found.items() if isinstance(value, str)}
    if missing := [f"`{name}`" for name in found if name not in fields]:
        raise BundleBroken(f"it has no text {' and '.join(missing)}", where=where, next=AS_WRITTEN)
    chain = certificates(fields["cert"].encode(), f"{where}#cert")
    if fields["issuerCert"]:
        chain += certificates(fields["issuerCert"].encode(), f"{where}#issuerCert")
    key_at = f"{where}#key.privateKeyPem"
    return _foreign(chain, private_key(fields["key.privateKeyPem"].encode(), key_at), where)


AS_WRITTEN = (
    "Bring it as node-letsencrypt-lambda writes it: `key.privateKeyPem`, `cert` and `issuerCert`"
)


def from_pkcs12(body: bytes, password: Secret | None, where: str) -> Foreign:
    if b"-----BEGIN " in body:
        raise BundleBroken(
            "this is PEM, not PKCS#12", where=where, next=f"Bring it as {', '.join(CERTBOT)}"
        )
    # Without a password there are two spellings of none: no key at all, and that of an empty one.
    spellings = [password.reveal().encode()] if password else [None, b""]
    for spelling in spellings:
        try:
            found = load_pkcs12(body, spelling)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
        break
    else:
        raise BundleBroken(
            "it is not PKCS#12, or that is not its password"
            if password
            else "it is not PKCS#12, or it has a password, and none is given",
            where=where,
            next="Compare `incoming: {password_secret: …}` of the pipeline with the password that "
            "the file was written with",
        )
    if found.key is None:
        raise _no_key(where)
    chain = [found.cert, *found.additional_certs] if found.cert else found.additional_certs
    return _foreign([each.certificate for each in chain], _usable(found.key, where), where)


def from_acm(answer: Mapping[str, str], passphrase: Secret, where: str) -> Foreign:
    """answer: of ExportCertificate."""
    chain = certificates(answer["Certificate"].encode(), where)
    if answer.get("CertificateChain"):
        chain += certificates(answer["CertificateChain"].encode(), where)
    try:
        key = load_pem_private_key(answer["PrivateKey"].encode(), passphrase.reveal().encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BundleBroken(
            "ACM's key cannot be decrypted with the passphrase that was given", where=where
        ) from None
    return _foreign(chain, _usable(key, where), where)


# What all are made of


def certificates(body: bytes, where: str) -> list[x509.Certificate]:
    """All that are in a PEM text, at least one."""
    texts = split(_pem(body, where, "x509"))
    if not texts:
        raise BundleBroken(
            "there is no certificate in it",
            where=where,
            next="Bring PEM, from `-----BEGIN CERTIFICATE-----` on",
        )
    try:
        return [x509.load_pem_x509_certificate(text.encode()) for text in texts]
    except ValueError as error:
        raise BundleBroken(
            f"a certificate in it cannot be read: {error}", where=where, next="Bring it anew"
        ) from None


def private_key(body: bytes, where: str) -> CertificateKey:
    """The one that is in a PEM text: PKCS #8, PKCS #1 or SEC 1."""
    blocks = list(PRIVATE_KEY.finditer(_pem(body, where, "pkey")))
    if not blocks:
        raise _no_key(where)
    if len(blocks) > 1:
        raise BundleBroken(
            f"there are {len(blocks)} private keys in it",
            where=where,
            next="Leave the certificate's, and remove the others",
        )
    text = blocks[0][0]
    if "ENCRYPTED" in text:
        raise BundleBroken(
            "the private key is encrypted",
            where=where,
            next="Bring it without a passphrase (`openssl pkey -in … -out …`): the bucket encrypts "
            "it; or bring a PKCS#12 whose password is in a secret",
        )
    try:
        key = load_pem_private_key(text.encode() + b"\n", password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without the reason: it may quote the text.
        raise BundleBroken(
            "the private key cannot be read", where=where, next="Bring it anew"
        ) from None
    return _usable(key, where)


def _pem(body: bytes, where: str, command: str) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        der = body.startswith(SEQUENCE)
        raise BundleBroken(
            "this is DER, not PEM" if der else "this is not PEM",
            where=where,
            next=f"Convert it: `openssl {command} -inform der -in … -out …`"
            if der
            else "Bring PEM, from `-----BEGIN` on",
        ) from None


def _no_key(where: str) -> BundleBroken:
    return BundleBroken(
        "there is no private key in it", where=where, next="Bring the certificate's with it"
    )


def _usable(key: Any, where: str) -> CertificateKey:
    if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        return key
    raise BundleBroken(
        "the private key is neither ECDSA nor RSA",
        where=where,
        next="Bring one of a type that `key_type` may be",
    )


def _foreign(chain: Sequence[x509.Certificate], key: CertificateKey, where: str) -> Foreign:
    """The leaf is the key's own, wherever it stands: a PKCS#12 has no order."""
    leaf = next((each for each in chain if _belongs(key, each)), None)
    if leaf is None:
        raise BundleBroken(
            "the private key is of no certificate in it",
            where=where,
            next="Bring the key that the certificate was requested with",
        )
    others = [each for each in chain if each != leaf]
    return Foreign("".join(map(_as_pem, [leaf, *others])), keys.pem(key))


def _belongs(key: CertificateKey, certificate: x509.Certificate) -> bool:
    return _spki(key.public_key()) == _spki(certificate.public_key())


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _as_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
