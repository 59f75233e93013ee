"""What a bundle must prove, against chains made at run time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certrail.bundle import Bundle, split
from certrail.errors import BundleBroken
from certrail.keys import KeyType
from certrail.secret import Secret
from issuer import keys
from issuer.checks import checked

NOW = datetime.now(UTC).replace(microsecond=0)
NAMES = ("shop.example", "*.shop.example")


@dataclass
class Party:
    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()


def authority(common_name: str, above: Party | None = None, *, days: int = 365) -> Party:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    key = ec.generate_private_key(ec.SECP256R1())
    return signed_authority(name, key, above, days=days)


def signed_authority(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, above: Party | None, *, days: int = 365
) -> Party:
    builder = build(name, above.name if above else name, key, days).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    return Party(name, key, builder.sign(above.key if above else key, hashes.SHA256()))


def build(
    subject: x509.Name, issuer: x509.Name, key: keys.CertificateKey, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(days=days))
    )


def leaf(above: Party, key: keys.CertificateKey, *, days: int = 90) -> str:
    names = x509.SubjectAlternativeName([x509.DNSName(name) for name in NAMES])
    usages = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        build(x509.Name([]), above.name, key, days)
        .add_extension(names, critical=True)
        .add_extension(usage, critical=True)
        .add_extension(usages, critical=False)
        .sign(above.key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()


def line(length: int) -> list[Party]:
    """A root and `length` intermediates, the root first."""
    parties = [authority("Root")]
    for number in range(length):
        parties.append(authority(f"Intermediate {number}", parties[-1]))
    return parties


def check(
    fullchain: str,
    key: keys.CertificateKey,
    *,
    domains: tuple[str, ...] = NAMES,
    key_type: KeyType = KeyType.ECDSA_P256,
    now: datetime = NOW,
) -> Bundle:
    return checked(fullchain, keys.pem(key), domains=domains, key_type=key_type, now=now)


@pytest.fixture(scope="module")
def key() -> keys.CertificateKey:
    return keys.generate(KeyType.ECDSA_P256)


@pytest.mark.parametrize("length", range(4))
@pytest.mark.parametrize("root_too", [False, True])
def test_any_length_in_any_order(key: keys.CertificateKey, length: int, root_too: bool) -> None:
    root, *intermediates = line(length)
    expected = [party.pem for party in reversed(intermediates)]
    sent = [*expected, root.pem] if root_too else list(expected)
    certificate = leaf(([root, *intermediates])[-1], key)
    for _ in range(3):
        bundle = check(certificate + "".join(sent), key)
        assert bundle.certificate == certificate
        assert list(split(bundle.chain)) == expected
        random.shuffle(sent)


def test_a_root_sent_both_cross_signed_and_self_signed(key: keys.CertificateKey) -> None:
    """Let's Encrypt's Generation Y, were a CA to send both."""
    old_root = authority("Old Root")
    new_root = authority("New Root")
    crossed = signed_authority(new_root.name, new_root.key, old_root)
    intermediate = authority("Intermediate", new_root)
    certificate = leaf(intermediate, key)
    sent = [new_root.pem, intermediate.pem, old_root.pem, crossed.pem]
    bundle = check(certificate + "".join(sent), key)
    assert bundle.chain == intermediate.pem + crossed.pem


def test_facts_are_acm_s(key: keys.CertificateKey) -> None:
    _, intermediate = line(1)
    facts = check(leaf(intermediate, key) + intermediate.pem, key).facts
    assert facts.domains == NAMES
    assert facts.key_usages == ("DIGITAL_SIGNATURE", "KEY_ENCIPHERMENT")
    assert facts.extended_key_usages == (
        "TLS_WEB_SERVER_AUTHENTICATION",
        "TLS_WEB_CLIENT_AUTHENTICATION",
    )
    assert facts.key_type is KeyType.ECDSA_P256
    assert facts.not_after == NOW + timedelta(days=90)
    assert facts.issuer == "CN=Intermediate 0"


@pytest.mark.parametrize("key_type", [KeyType.ECDSA_P384, KeyType.RSA_2048, KeyType.RSA_3072])
def test_other_keys(key_type: KeyType) -> None:
    own = keys.generate(key_type)
    _, intermediate = line(1)
    bundle = check(leaf(intermediate, own) + intermediate.pem, own, key_type=key_type)
    assert bundle.facts.key_type is key_type


def test_a_foreign_certificate(key: keys.CertificateKey) -> None:
    root, intermediate = line(1)
    sent = leaf(intermediate, key) + intermediate.pem + authority("Stranger", root).pem
    with pytest.raises(BundleBroken, match="CN=Stranger is not part of the leaf's chain"):
        check(sent, key)


def test_a_namesake_that_did_not_sign(key: keys.CertificateKey) -> None:
    root, intermediate = line(1)
    impostor = authority("Intermediate 0", root)
    with pytest.raises(BundleBroken, match="CN=Intermediate 0 is not part"):
        check(leaf(intermediate, key) + impostor.pem, key)


def test_another_s_key(key: keys.CertificateKey) -> None:
    _, intermediate = line(1)
    other = keys.generate(KeyType.ECDSA_P256)
    with pytest.raises(BundleBroken, match="private key is not the certificate's"):
        check(leaf(intermediate, key) + intermediate.pem, other)


def test_everything_wrong_is_told_at_once(key: keys.CertificateKey) -> None:
    _, intermediate = line(1)
    with pytest.raises(BundleBroken) as caught:
        check(
            leaf(intermediate, key),
            key,
            domains=(*NAMES, "other.example"),
            key_type=KeyType.RSA_2048,
            now=NOW + timedelta(days=91),
        )
    told = str(caught.value)
    assert "lacks other.example" in told
    assert "the key is ecdsa-p256, not rsa-2048" in told
    assert "is valid from" in told


def test_an_expired_intermediate(key: keys.CertificateKey) -> None:
    root = authority("Root")
    intermediate = authority("Intermediate", root, days=10)
    with pytest.raises(BundleBroken, match="CN=Intermediate is valid from"):
        check(leaf(intermediate, key) + intermediate.pem, key, now=NOW + timedelta(days=20))


@pytest.mark.parametrize(
    "sent", ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_what_is_no_certificate(key: keys.CertificateKey, sent: str) -> None:
    with pytest.raises(BundleBroken):
        check(sent, key)


def test_what_is_no_key_is_not_quoted(key: keys.CertificateKey) -> None:
    _, intermediate = line(1)
    with pytest.raises(BundleBroken) as caught:
        checked(
            leaf(intermediate, key),
            Secret("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"),
            domains=NAMES,
            key_type=KeyType.ECDSA_P256,
            now=NOW,
        )
    assert "c2VjcmV0" not in repr(caught.value) + str(caught.value)
    assert caught.value.__cause__ is None


def test_the_request_has_names_and_nothing_else(key: keys.CertificateKey) -> None:
    request = x509.load_pem_x509_csr(keys.csr(key, NAMES))
    assert list(request.subject) == []
    (extension,) = request.extensions
    assert isinstance(extension.value, x509.SubjectAlternativeName)
    assert tuple(extension.value.get_values_for_type(x509.DNSName)) == NAMES
