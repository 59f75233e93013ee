"""Private keys, and the request for a certificate (CSR)."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes,
    PrivateKeyTypes,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from certrail.keys import KeyType
from certrail.secret import Secret

CertificateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

CURVES: dict[KeyType, type[ec.EllipticCurve]] = {
    KeyType.ECDSA_P256: ec.SECP256R1,
    KeyType.ECDSA_P384: ec.SECP384R1,
}
RSA_BITS = {KeyType.RSA_2048: 2048, KeyType.RSA_3072: 3072, KeyType.RSA_4096: 4096}


def generate(key_type: KeyType) -> CertificateKey:
    if curve := CURVES.get(key_type):
        return ec.generate_private_key(curve())
    return rsa.generate_private_key(65537, RSA_BITS[key_type])


def pem(key: CertificateKey) -> Secret:
    """PKCS #8, unencrypted: what every AWS service takes."""
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Secret(text.decode())


def load(private_key: Secret) -> PrivateKeyTypes:
    """Raises ValueError, without the text."""
    try:
        return load_pem_private_key(private_key.reveal().encode(), password=None)
    except (ValueError, TypeError):
        raise ValueError("not an unencrypted private key in PEM") from None


def load_own(private_key: Secret) -> CertificateKey:
    """One that `generate` made. Raises ValueError."""
    key = load(private_key)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError("not a key that a certificate is ordered with")
    return key


def key_type(key: PrivateKeyTypes | CertificatePublicKeyTypes) -> KeyType | None:
    """The key's type, None where it is none that pipelines.yaml can ask for."""
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return next((kind for kind, curve in CURVES.items() if isinstance(key.curve, curve)), None)
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return next((kind for kind, bits in RSA_BITS.items() if bits == key.key_size), None)
    return None


def csr(key: CertificateKey, domains: Sequence[str]) -> bytes:
    """A PEM request with the names as subject alternative names and nothing else: no common name,
    which holds 64 characters only, and no usages, which are the CA's profile to decide."""
    names = x509.SubjectAlternativeName([x509.DNSName(name) for name in domains])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)
