import hashlib

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from certrail.bundle import covers, fingerprint, short, split


@pytest.fixture(scope="module")
def chain() -> str:
    authority = trustme.CA().create_child_ca()
    leaf = authority.issue_cert("shop.example.com")
    return "".join(blob.bytes().decode() for blob in leaf.cert_chain_pems)


def test_the_fingerprint_is_that_of_the_leafs_der(chain: str) -> None:
    leaf = x509.load_pem_x509_certificates(chain.encode())[0]
    assert fingerprint(chain) == hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()
    assert short(fingerprint(chain)) == fingerprint(chain)[:12]


def test_split_keeps_the_order_whatever_stands_between(chain: str) -> None:
    certificates = split(chain)
    assert len(certificates) == 2
    assert split("# a comment\r\n" + chain.replace("\n", "\r\n") + "\r\n") == certificates
    assert "".join(certificates) == chain


def test_a_text_without_a_certificate_has_no_fingerprint() -> None:
    with pytest.raises(ValueError, match="no certificate"):
        fingerprint("-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize(
    ("domains", "name", "covered"),
    [
        (["example.com"], "example.com", True),
        (["example.com"], "www.example.com", False),
        (["*.example.com"], "www.example.com", True),
        (["*.example.com"], "WWW.Example.com.", True),
        (["*.example.com"], "example.com", False),
        (["*.example.com"], "a.b.example.com", False),
        (["*.example.com"], "*.example.com", True),
        (["a.example.com"], "*.example.com", False),
        (["*.example.com"], "*.b.example.com", False),
        ([], "example.com", False),
    ],
)
def test_a_wildcard_stands_for_one_label(domains: list[str], name: str, covered: bool) -> None:
    assert covers(domains, name) is covered


LABEL = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)


@given(st.lists(LABEL, min_size=2, max_size=4).map(".".join), LABEL)
def test_a_wildcard_covers_every_child_and_no_grandchild(parent: str, label: str) -> None:
    assert covers([f"*.{parent}"], f"{label}.{parent}")
    assert not covers([f"*.{parent}"], f"{label}.{label}.{parent}")
    assert not covers([f"*.{parent}"], parent)
