"""What a new bundle must prove before anybody deploys it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from certrail.bundle import Bundle, Facts, covers, split
from certrail.errors import BundleBroken
from certrail.keys import KeyType
from certrail.secret import Secret
from issuer import keys

# docs.aws.amazon.com/acm/latest/APIReference/API_KeyUsage.html
KEY_USAGES = {
    "digital_signature": "DIGITAL_SIGNATURE",
    "content_commitment": "NON_REPUDIATION",
    "key_encipherment": "KEY_ENCIPHERMENT",
    "data_encipherment": "DATA_ENCIPHERMENT",
    "key_agreement": "KEY_AGREEMENT",
    "key_cert_sign": "CERTIFICATE_SIGNING",
    "crl_sign": "CRL_SIGNING",
}
AGREEMENT_USAGES = {"encipher_only": "ENCIPHER_ONLY", "decipher_only": "DECIPHER_ONLY"}
# docs.aws.amazon.com/acm/latest/APIReference/API_ExtendedKeyUsage.html
EXTENDED_KEY_USAGES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "TLS_WEB_SERVER_AUTHENTICATION",
    ExtendedKeyUsageOID.CLIENT_AUTH: "TLS_WEB_CLIENT_AUTHENTICATION",
    ExtendedKeyUsageOID.CODE_SIGNING: "CODE_SIGNING",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "EMAIL_PROTECTION",
    ExtendedKeyUsageOID.TIME_STAMPING: "TIME_STAMPING",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSP_SIGNING",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "ANY",
    ObjectIdentifier("1.3.6.1.5.5.7.3.5"): "IPSEC_END_SYSTEM",
    ObjectIdentifier("1.3.6.1.5.5.7.3.6"): "IPSEC_TUNNEL",
    ObjectIdentifier("1.3.6.1.5.5.7.3.7"): "IPSEC_USER",
}


def checked(
    fullchain: str,
    private_key: Secret,
    *,
    domains: Iterable[str],
    key_type: KeyType,
    now: datetime,
) -> Bundle:
    """The bundle of a chain, PEM, the leaf first, and its key.

    The chain is put in order, the leaf's issuer first, and loses its root. Raises BundleBroken with
    everything that is wrong.
    """
    try:
        certificates = [x509.load_pem_x509_certificate(pem.encode()) for pem in split(fullchain)]
        key = keys.load(private_key)
    except ValueError as error:
        raise BundleBroken(f"the bundle cannot be read: {error}") from None
    if not certificates:
        raise BundleBroken("there is no certificate in it")
    leaf, *others = certificates
    wrong: list[str] = []
    if _public(leaf) != _spki(key.public_key()):
        wrong.append("the private key is not the certificate's")
    found_type = keys.key_type(leaf.public_key())
    if found_type is not key_type:
        wrong.append(f"the key is {found_type or 'of another kind'}, not {key_type}")
    if _is_authority(leaf):
        wrong.append(f"{_subject(leaf)} is the certificate of a CA, not of a server")
    names = _names(leaf)
    if missing := [name for name in domains if not covers(names, name)]:
        wrong.append(f"the certificate lacks {', '.join(missing)}")
    chain, foreign = ordered(leaf, others)
    for certificate in foreign:
        wrong.append(f"{_subject(certificate)} is not part of the leaf's chain")
    for certificate in (leaf, *chain):
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            wrong.append(
                f"{_subject(certificate)} is valid from {certificate.not_valid_before_utc} to "
                f"{certificate.not_valid_after_utc}, and it is {now}"
            )
    if wrong or found_type is None:
        raise BundleBroken("; ".join(wrong))
    return Bundle(
        facts=facts(leaf, found_type),
        certificate=_pem(leaf),
        chain="".join(_pem(certificate) for certificate in chain),
        private_key=private_key,
    )


def ordered(
    leaf: x509.Certificate, others: Sequence[x509.Certificate]
) -> tuple[list[x509.Certificate], list[x509.Certificate]]:
    """The intermediates from the leaf's issuer upwards, by signature; and what is no part of it.

    Roots, which sign themselves, are in neither: whoever checks the chain has them.
    """
    waiting = [each for each in dict.fromkeys(others) if each != leaf and not _signs(each, each)]
    chain: list[x509.Certificate] = []
    below = leaf
    while issuer := next((each for each in waiting if _signs(each, below)), None):
        chain.append(issuer)
        waiting.remove(issuer)
        below = issuer
    return chain, waiting


def facts(leaf: x509.Certificate, key_type: KeyType) -> Facts:
    return Facts(
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(),
        domains=_names(leaf),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        serial=f"{leaf.serial_number:x}",
        issuer=leaf.issuer.rfc4514_string(),
        key_type=key_type,
        key_usages=_key_usages(leaf),
        extended_key_usages=_extended_key_usages(leaf),
        authority_key_id=_authority_key_id(leaf),
    )


def leads_to(fullchain: str, name: str) -> bool:
    """Whether an issuer in this chain, PEM, has the common name: a root by what it signed."""
    return any(
        str(attribute.value) == name
        for pem in split(fullchain)
        for attribute in x509.load_pem_x509_certificate(pem.encode()).issuer.get_attributes_for_oid(
            NameOID.COMMON_NAME
        )
    )


def is_of_another_key(fullchain: str, key: PublicKeyTypes) -> bool:
    """Whether the leaf of a chain, PEM, is a certificate of another public key than this one."""
    try:
        leaf = x509.load_pem_x509_certificate(next(iter(split(fullchain))).encode())
    except (ValueError, StopIteration):
        # It is none at all, which `checked` says better.
        return False
    return _public(leaf) != _spki(key)


def _signs(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return basic.value.ca


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))


def _key_usages(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return ("ANY",)
    # Only a key for agreement has the last two; cryptography raises for others.
    usages = KEY_USAGES | (AGREEMENT_USAGES if usage.key_agreement else {})
    return tuple(name for attribute, name in usages.items() if getattr(usage, attribute))


def _extended_key_usages(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ("NONE",)
    return tuple(EXTENDED_KEY_USAGES.get(oid, "CUSTOM") for oid in usage)


def _authority_key_id(leaf: x509.Certificate) -> str | None:
    try:
        found = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    identifier = found.value.key_identifier
    return identifier.hex() if identifier else None


def _public(certificate: x509.Certificate) -> bytes:
    return _spki(certificate.public_key())


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "the leaf"
