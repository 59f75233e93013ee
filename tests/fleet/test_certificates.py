"""The installer reads a certificate as `cryptography` does."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.certrail_install import validity

# From the first that cryptography takes to the last there is; the form changes in 2050.
MOMENTS = st.datetimes(datetime(1950, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
NEAR_THE_CHANGE = st.integers(-3, 3).map(
    lambda seconds: datetime(2050, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
NAMES = st.text("abcé-", min_size=1, max_size=64)


@cache
def key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@settings(deadline=None)
@given(
    moments=st.tuples(*[MOMENTS | NEAR_THE_CHANGE] * 2).map(sorted),
    name=NAMES,
    serial=st.integers(1, 2**159 - 1),
    more=st.integers(0, 300),
)
def test_when_it_begins_and_ends(
    moments: list[datetime], name: str, serial: int, more: int
) -> None:
    made = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins, ends = moments
    certificate = (
        x509.CertificateBuilder()
        .subject_name(made)
        .issuer_name(made)
        .public_key(key().public_key())
        .serial_number(serial)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(more)),
            critical=False,
        )
        .sign(key(), None)
    )
    der = certificate.public_bytes(Encoding.DER)
    assert validity(der) == (begins, ends)
    assert validity(as_version_1(der)) == (begins, ends)


def as_version_1(der: bytes) -> bytes:
    """Without the field that says the version; its signature is no longer right."""
    x = x509.load_der_x509_certificate(der)
    tbs = x.tbs_certificate_bytes
    content = tbs[2 + (tbs[1] & 0x7F if tbs[1] & 0x80 else 0) :]
    assert content[:5] == b"\xa0\x03\x02\x01\x02"
    return sequence(sequence(content[5:]) + der[-74:])


def sequence(content: bytes) -> bytes:
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return (
        b"\x30" + (bytes([size]) if size < 128 else bytes([0x80 | len(length)]) + length) + content
    )


def test_a_certificate_of_version_1_of_openssl(tmp_path: Path) -> None:
    """Without extensions OpenSSL writes the first version, which has no field for it."""
    subprocess.run(
        [
            *("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=old", "-keyout", "key.pem", "-out", "request.pem"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    subprocess.run(
        [
            *("openssl", "x509", "-req", "-in", "request.pem", "-signkey", "key.pem"),
            *("-days", "10000", "-out", "certificate.pem"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    certificate = x509.load_pem_x509_certificate((tmp_path / "certificate.pem").read_bytes())
    assert certificate.version is x509.Version.v1
    assert validity(certificate.public_bytes(Encoding.DER)) == (
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


@given(st.binary(max_size=200))
def test_what_is_none_is_said_to_be_none(der: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        validity(der)


@given(st.data())
def test_what_is_cut_off_or_changed_ends_in_no_other_way(data: st.DataObject) -> None:
    der = bytearray(whole())
    at = data.draw(st.integers(0, 120))
    der[at] = data.draw(st.integers(0, 255))
    try:
        begins, ends = validity(bytes(der[: data.draw(st.integers(1, len(der)))]))
    except (ValueError, IndexError):
        return
    assert begins.tzinfo is ends.tzinfo is not None


@cache
def whole() -> bytes:
    made = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "whole")])
    return (
        x509.CertificateBuilder(made, made, key().public_key(), 1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
        .sign(key(), None)
        .public_bytes(Encoding.DER)
    )
