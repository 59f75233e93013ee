"""The end of a certificate before its time, as the CA tells it (RFC 8555, 7.6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

import pytest
import requests

from certrail.errors import AcmeRefused, CertrailError, IssueError, StateError
from certrail.keys import KeyType
from certrail.pipelines.resolved import Issuer
from certrail.store import Current, Revoked, account_key
from issuer.account import Accounts
from issuer.revoke import CODES, Reason, revoke
from sandbox import Sandbox
from sandbox.pebble import Options, Pebble, free_ports
from tests.issuer.conftest import ISSUER, World, within
from tests.issuer.situations import asking, at


@pytest.fixture(scope="module")
def polite(sandbox: Sandbox) -> Iterator[Pebble]:
    with Pebble(sandbox.dns, Options(bad_nonces=15)) as running:
        yield running


@pytest.fixture
def here(world: World, polite: Pebble, monkeypatch: pytest.MonkeyPatch) -> World:
    return at(world, polite, monkeypatch)


def status(ca: Pebble, current: Current) -> dict[str, Any]:
    """What the CA says of a certificate at its management port."""
    number = f"{int(current.facts.serial, 16):x}"
    # Pebble wants whole bytes.
    number = number.zfill(len(number) + len(number) % 2)
    answer = requests.get(
        f"{ca.management}/cert-status-by-serial/{number}", verify=str(ca.ca_bundle), timeout=10
    )
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def end(world: World, fingerprint: str, reason: Reason = Reason.SUPERSEDED) -> str:
    accounts = Accounts(world.store, world.aws)
    issuers = world.pipeline().issuers
    return revoke("shop", fingerprint, reason, issuers, world.store, accounts, within(60))


def issued(world: World, **how: Any) -> Current:
    current = world.issue(**how)
    assert current is not None
    return current


@pytest.mark.parametrize("reason", list(Reason))
def test_the_ca_knows_why(here: World, polite: Pebble, reason: Reason) -> None:
    current = issued(here)
    assert status(polite, current)["Status"] == "Valid"
    assert end(here, current.fingerprint, reason) == ISSUER
    told = status(polite, current)
    assert told["Status"] == "Revoked"
    assert told.get("Reason", 0) == CODES[reason]
    assert here.store.revoked("shop", current.fingerprint) == Revoked(reason, ANY)


def test_twice_is_fine(here: World, polite: Pebble) -> None:
    current = issued(here)
    for _ in range(2):
        assert end(here, current.fingerprint) == ISSUER
    assert status(polite, current)["Status"] == "Revoked"


def test_one_that_is_current_no_more(here: World, polite: Pebble) -> None:
    first = issued(here)
    second = issued(here, asked=1)
    assert end(here, first.fingerprint) == ISSUER
    assert [status(polite, each)["Status"] for each in (first, second)] == ["Revoked", "Valid"]


@pytest.mark.parametrize(
    "key_type", [KeyType.ECDSA_P256, KeyType.ECDSA_P384, KeyType.RSA_2048, KeyType.RSA_3072]
)
def test_one_of_another_account_is_revoked_by_its_own_key(
    here: World, polite: Pebble, key_type: KeyType
) -> None:
    current = issued(here, pipeline=here.pipeline(key_type=key_type))
    here.aws.s3().delete_object(Bucket=here.store.bucket, Key=account_key(ISSUER))
    assert end(here, current.fingerprint, Reason.KEY_COMPROMISE) == ISSUER
    assert status(polite, current)["Status"] == "Revoked"
    # For that no account was needed, and so none was made.
    assert list(here.store.keys("accounts/")) == []


def test_one_of_another_account_is_revoked_for_nothing_else(here: World, polite: Pebble) -> None:
    """Signed by its own key, it would be published as compromised."""
    current = issued(here)
    here.aws.s3().delete_object(Bucket=here.store.bucket, Key=account_key(ISSUER))
    with pytest.raises(IssueError, match="no issuer of the file has an account") as caught:
        end(here, current.fingerprint)
    assert "keyCompromise" in caught.value.next
    assert here.issue(asked=1) is not None
    with pytest.raises(AcmeRefused, match="refused to revoke"):
        end(here, current.fingerprint)
    assert status(polite, current)["Status"] == "Valid"


def test_a_ca_that_is_down_keeps_nobody_from_the_one_that_issued(
    here: World, polite: Pebble
) -> None:
    current = issued(here)
    dead = Issuer("dead", f"https://localhost:{free_ports(1)[0]}/dir")
    issuers = (dead, *here.pipeline().issuers)
    accounts = Accounts(here.store, here.aws)
    for reason in (Reason.KEY_COMPROMISE, Reason.SUPERSEDED):
        done = revoke("shop", current.fingerprint, reason, issuers, here.store, accounts, within(5))
        assert done == ISSUER
    assert status(polite, current)["Status"] == "Revoked"


def test_one_of_another_ca(here: World, world: World, ca: Pebble, polite: Pebble) -> None:
    """Nobody there knows it, by whatever key."""
    current = issued(here)
    elsewhere = end_at(here, ca, current)
    assert isinstance(elsewhere, AcmeRefused)
    assert "refused to revoke the certificate" in str(elsewhere)
    assert status(polite, current)["Status"] == "Valid"


def end_at(world: World, ca: Pebble, current: Current) -> CertrailError:
    with pytest.MonkeyPatch.context() as patch:
        other = at(world, ca, patch)
        pipeline = asking(other.pipeline(), name="other-ca")
        accounts = Accounts(other.store, other.aws)
        with pytest.raises(CertrailError) as caught:
            revoke(
                "shop",
                current.fingerprint,
                Reason.KEY_COMPROMISE,
                pipeline.issuers,
                other.store,
                accounts,
                within(60),
            )
    return caught.value


@pytest.mark.parametrize("fingerprint", ["0" * 64, "", "current.json", "../shop"])
def test_an_unknown_fingerprint(here: World, fingerprint: str) -> None:
    issued(here)
    with pytest.raises(StateError, match="there is no certificate") as caught:
        end(here, fingerprint)
    assert not caught.value.retryable
    assert caught.value.where == "shop"


def test_a_short_fingerprint_is_not_guessed(here: World, polite: Pebble) -> None:
    current = issued(here)
    with pytest.raises(StateError, match="Give the whole fingerprint"):
        end(here, current.fingerprint[:12])
    assert status(polite, current)["Status"] == "Valid"
