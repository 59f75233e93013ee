"""What comes out of each foreign layout is what went in, and every fault says where it is."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from hypothesis import given
from hypothesis import strategies as st

from certrail.bundle import Bundle, split
from certrail.errors import BundleBroken
from certrail.keys import KeyType
from certrail.secret import Secret
from issuer.layouts import (
    CERTBOT,
    Foreign,
    certificates,
    from_acm,
    from_certbot,
    from_json,
    from_pkcs12,
    misfit,
    private_key,
)
from tests.certrail.bundles import make_bundle
from tests.issuer.foreign import certbot, key_of, node_lambda, pkcs12, pkcs12_by_openssl

AT = "s3://bucket/incoming/shop/"
EC = make_bundle(["shop.example"])
RSA = make_bundle(["shop.example"], KeyType.RSA_2048)
OTHER = make_bundle(["shop.example"])
BUNDLES = pytest.mark.parametrize("bundle", [EC, RSA], ids=["ecdsa", "rsa"])


def is_the_same(foreign: Foreign, bundle: Bundle) -> bool:
    return foreign == Foreign(bundle.fullchain, bundle.private_key)


def encrypted(bundle: Bundle, passphrase: bytes) -> str:
    return (
        key_of(bundle)
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
        .decode()
    )


@BUNDLES
class TestTheSameComesOut:
    def test_of_certbot_s_files(self, bundle: Bundle) -> None:
        files = certbot(bundle)
        assert misfit(files, AT) is None
        assert is_the_same(from_certbot(files, AT), bundle)

    @pytest.mark.parametrize("whole", [False, True])
    def test_of_the_json(self, bundle: Bundle, whole: bool) -> None:
        assert is_the_same(from_json(node_lambda(bundle, whole=whole), AT), bundle)

    @pytest.mark.parametrize("password", [None, "pass phrase ü"])
    def test_of_a_pkcs12(self, bundle: Bundle, password: str | None) -> None:
        body = pkcs12(bundle, password.encode() if password else None)
        assert is_the_same(from_pkcs12(body, Secret(password) if password else None, AT), bundle)

    @pytest.mark.parametrize(
        "options",
        [
            pytest.param(["-passout", "pass:"], id="without a password"),
            pytest.param(["-passout", "pass:", "-keypbe", "NONE", "-certpbe", "NONE"], id="plain"),
            pytest.param(["-passout", "pass:", "-nomac"], id="without a digest"),
        ],
    )
    def test_of_a_pkcs12_by_openssl(
        self, bundle: Bundle, options: list[str], tmp_path: Path
    ) -> None:
        body = pkcs12_by_openssl(bundle, tmp_path, *options)
        assert is_the_same(from_pkcs12(body, None, AT), bundle)

    def test_of_acm_s_answer(self, bundle: Bundle) -> None:
        answer = {
            "Certificate": bundle.certificate,
            "CertificateChain": bundle.chain,
            "PrivateKey": encrypted(bundle, b"passphrase"),
        }
        assert is_the_same(from_acm(answer, Secret("passphrase"), AT), bundle)

    def test_whatever_the_form_of_the_key_and_the_ends_of_lines(self, bundle: Bundle) -> None:
        files = certbot(bundle)
        traditional = key_of(bundle).private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )
        files["privkey.pem"] = traditional
        windows = {name: body.replace(b"\n", b"\r\n") for name, body in files.items()}
        unended = {name: body.rstrip() for name, body in files.items()}
        for each in (files, windows, unended):
            assert misfit(each, AT) is None
            assert is_the_same(from_certbot(each, AT), bundle)

    def test_and_what_comes_out_goes_in_again(self, bundle: Bundle) -> None:
        once = from_json(node_lambda(bundle), AT)
        leaf, *chain = split(once.fullchain)
        again = {
            "cert.pem": leaf.encode(),
            "chain.pem": "".join(chain).encode(),
            "fullchain.pem": once.fullchain.encode(),
            "privkey.pem": once.private_key.reveal().encode(),
        }
        assert from_certbot(again, AT) == once


@given(st.permutations(split(EC.fullchain)), st.booleans())
def test_the_leaf_is_the_key_s_own_wherever_it_stands(order: list[str], doubled: bool) -> None:
    document = {
        "key": {"privateKeyPem": EC.private_key.reveal()},
        "cert": "".join(order) * (2 if doubled else 1),
    }
    found = from_json(json.dumps(document).encode(), AT)
    assert split(found.fullchain)[0] == EC.certificate
    assert set(split(found.fullchain)) == set(split(EC.fullchain))


@given(st.sets(st.sampled_from(CERTBOT), max_size=3))
def test_what_is_missing_is_told(there: set[str]) -> None:
    files = {name: body for name, body in certbot(EC).items() if name in there}
    missing = [name for name in CERTBOT if name not in there]
    assert misfit(files, AT) == f"{', '.join(missing)} {'are' if missing[1:] else 'is'} missing"


@given(st.sets(st.sampled_from(CERTBOT), min_size=1, max_size=3))
def test_files_of_two_bundles_never_fit(renewed: set[str]) -> None:
    """All that may be seen while one set is written over the other."""
    files = {name: (certbot(OTHER) if name in renewed else certbot(EC))[name] for name in CERTBOT}
    # Both have the same intermediate, so their chains are one and the same file.
    mixed = renewed - {"chain.pem"}
    assert (misfit(files, AT) is None) is (not mixed or len(mixed) == 3)


@given(st.binary(max_size=200))
def test_whatever_it_is_it_is_read_or_refused(body: bytes) -> None:
    for read in (
        lambda: certificates(body, AT),
        lambda: private_key(body, AT),
        lambda: from_json(body, AT),
        lambda: from_pkcs12(body, None, AT),
        lambda: from_pkcs12(body, Secret("x"), AT),
    ):
        with pytest.raises(BundleBroken) as caught:
            read()
        assert caught.value.where == AT
        assert caught.value.next


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["key", "cert", "issuerCert", "privateKeyPem"]), inner
            )
        ),
    )
)
def test_json_of_any_shape_is_refused(document: object) -> None:
    with pytest.raises(BundleBroken):
        from_json(json.dumps(document).encode(), AT)


KEY = EC.private_key.reveal()
DER = ssl.PEM_cert_to_DER_cert(EC.certificate)


def stranger() -> bytes:
    """A key of a kind that no pipeline has."""
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


class TestFaults:
    @pytest.mark.parametrize(
        ("body", "what", "remedy"),
        [
            (b"", "there is no private key in it", "Bring"),
            (EC.certificate.encode(), "there is no private key in it", "Bring"),
            (KEY.encode() * 2, "there are 2 private keys in it", "remove the others"),
            (encrypted(EC, b"x").encode(), "the private key is encrypted", "without a passphrase"),
            (
                key_of(RSA).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
                "this is DER, not PEM",
                "openssl pkey -inform der",
            ),
            (b"\xff\xfe", "this is not PEM", "Bring PEM"),
            (KEY.replace("M", "#", 1).encode(), "the private key cannot be read", "anew"),
            (stranger(), "the private key is neither ECDSA nor RSA", "key_type"),
        ],
    )
    def test_of_a_key(self, body: bytes, what: str, remedy: str) -> None:
        with pytest.raises(BundleBroken, match=what) as caught:
            private_key(body, f"{AT}privkey.pem")
        assert caught.value.where == f"{AT}privkey.pem"
        assert remedy in caught.value.next

    @pytest.mark.parametrize(
        ("body", "what", "remedy"),
        [
            (b"", "there is no certificate in it", "-----BEGIN CERTIFICATE-----"),
            (DER, "this is DER, not PEM", "openssl x509 -inform der"),
            (
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "a certificate in it cannot be read",
                "anew",
            ),
        ],
    )
    def test_of_certificates(self, body: bytes, what: str, remedy: str) -> None:
        with pytest.raises(BundleBroken, match=what) as caught:
            certificates(body, f"{AT}cert.pem")
        assert caught.value.where == f"{AT}cert.pem"
        assert remedy in caught.value.next

    def test_of_a_whole_chain_as_the_certificate(self) -> None:
        files = certbot(EC) | {"cert.pem": EC.fullchain.encode()}
        with pytest.raises(BundleBroken, match="there are 2 certificates in it"):
            misfit(files, AT)

    @pytest.mark.parametrize(
        ("body", "password", "what"),
        [
            (pkcs12(EC, b"right"), Secret("wrong"), "that is not its password"),
            (pkcs12(EC, b"right"), None, "it has a password, and none is given"),
            (EC.certificate.encode(), None, "this is PEM, not PKCS#12"),
            (
                serialize_key_and_certificates(
                    None,
                    None,
                    x509.load_pem_x509_certificate(EC.certificate.encode()),
                    None,
                    NoEncryption(),
                ),
                None,
                "there is no private key in it",
            ),
            (
                serialize_key_and_certificates(None, key_of(EC), None, None, NoEncryption()),
                None,
                "the private key is of no certificate in it",
            ),
        ],
    )
    def test_of_a_pkcs12(self, body: bytes, password: Secret | None, what: str) -> None:
        with pytest.raises(BundleBroken, match=what) as caught:
            from_pkcs12(body, password, AT)
        assert caught.value.next

    def test_of_json(self) -> None:
        with pytest.raises(BundleBroken, match=r"this is not JSON \(line 2\)"):
            from_json(b'{"key":\n', AT)
        with pytest.raises(BundleBroken, match=r"no text `key\.privateKeyPem` and `cert`"):
            from_json(b'{"key": {"privateKeyJwk": {}}}', AT)
        document = json.loads(node_lambda(EC)) | {"issuerCert": "nothing"}
        with pytest.raises(BundleBroken, match="there is no certificate in it") as caught:
            from_json(json.dumps(document).encode(), AT)
        assert caught.value.where == f"{AT}#issuerCert"

    def test_never_tell_the_key(self) -> None:
        secret = KEY.splitlines()[1]
        broken = [
            certbot(EC) | {"privkey.pem": KEY.replace("M", "#", 1).encode()},
            certbot(EC) | {"cert.pem": KEY.encode()},
            certbot(EC) | {"privkey.pem": OTHER.private_key.reveal().encode()},
        ]
        for files in broken:
            try:
                said = str(misfit(files, AT))
            except BundleBroken as error:
                said = str(error) + repr(error.__cause__)
            assert secret not in said
        with pytest.raises(BundleBroken) as caught:
            from_json(KEY.encode(), AT)
        assert secret not in str(caught.value) + repr(caught.value.__cause__)
