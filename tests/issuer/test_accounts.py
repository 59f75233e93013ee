"""The account's keys and its end: rollover (RFC 8555, 7.3.5) and deactivation (7.3.6)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwk import JWKEC

from certrail.errors import AcmeRefused, AwsError, StateError, Superseded
from certrail.store import account_key
from issuer.account import Accounts
from sandbox.calls import Call
from sandbox.pebble import Pebble
from sandbox.server import Server
from tests.issuer.conftest import ISSUER, World, within
from tests.issuer.proxy import Answer, Proxy
from tests.issuer.situations import document, issuer_of, proxied, put_document, told

KEY = account_key(ISSUER)


def accounts_of(world: World) -> Accounts:
    """Those of a new process."""
    return Accounts(world.store, world.aws)


def account(world: World) -> dict[str, Any]:
    return document(world.store, KEY)


def roll_over(world: World, accounts: Accounts | None = None) -> dict[str, Any]:
    (accounts or accounts_of(world)).roll_over(issuer_of(world), within(60))
    return account(world)


@pytest.fixture
def known(world: World) -> dict[str, Any]:
    """The account, once it has issued."""
    assert world.issue() is not None
    return account(world)


def test_a_new_key(world: World, known: dict[str, Any]) -> None:
    rolled = roll_over(world)
    assert rolled["key"]["d"] != known["key"]["d"]
    assert rolled["uri"] == known["uri"]
    assert rolled["next_key"] is None
    current = world.issue(asked=1)
    assert current is not None
    assert current.issued.account == known["uri"]
    # What the CA thinks of the old one.
    put_document(world.store, KEY, known)
    with pytest.raises(AcmeRefused, match="refused to take an order"):
        world.issue(asked=2)
    assert account(world) == known


def test_a_rollover_before_the_first_certificate(world: World) -> None:
    rolled = roll_over(world)
    assert rolled["uri"] is not None
    assert world.issue() is not None
    assert account(world) == rolled


def test_two_rollovers_in_a_row(world: World, known: dict[str, Any]) -> None:
    warm = accounts_of(world)
    keys = [known["key"]["d"], *(roll_over(world, warm)["key"]["d"] for _ in range(2))]
    assert len(set(keys)) == 3
    assert world.issue(asked=1, accounts=warm) is not None
    assert world.issue(asked=2) is not None
    assert account(world)["uri"] == known["uri"]


def test_a_warm_process_hears_of_the_new_key(world: World) -> None:
    warm = accounts_of(world)
    assert world.issue(accounts=warm) is not None
    roll_over(world)
    assert world.issue(asked=1, accounts=warm) is not None


def test_it_died_before_the_ca_heard_of_the_key(world: World, known: dict[str, Any]) -> None:
    unheard = json.loads(JWKEC(key=ec.generate_private_key(ec.SECP256R1())).json_dumps())
    put_document(world.store, KEY, known | {"next_key": unheard})
    assert world.issue(asked=1) is not None
    assert account(world) == known | {"key": unheard, "next_key": None}
    assert roll_over(world)["key"]["d"] not in {known["key"]["d"], unheard["d"]}
    assert world.issue(asked=2) is not None


def test_it_died_after_the_ca_took_the_key(
    world: World, server: Server, known: dict[str, Any]
) -> None:
    writes = iter([False, True])

    def second(call: Call) -> bool:
        return KEY in str(call.params) and next(writes)

    with (
        server.refuse("s3:PutObject", "AccessDenied", when=second),
        pytest.raises(AwsError, match="refused by the sandbox"),
    ):
        roll_over(world)
    between = account(world)
    assert between["key"] == known["key"]
    assert world.issue(asked=1) is not None
    assert account(world) == known | {"key": between["next_key"], "next_key": None}


@pytest.fixture
def in_front(
    world: World, ca: Pebble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[World, Proxy]]:
    with proxied(world, ca, tmp_path, monkeypatch) as both:
        yield both


def test_the_cas_answer_is_lost(in_front: tuple[World, Proxy]) -> None:
    """It has taken the new key, and is asked again with the old one."""
    world, proxy = in_front
    assert world.issue() is not None
    known = account(world)
    lost = [Answer(0)]
    proxy.after = lambda method, path: lost.pop() if "rollover" in path and lost else None
    rolled = roll_over(world)
    assert not lost
    assert rolled["key"]["d"] != known["key"]["d"]
    assert rolled["next_key"] is None
    assert world.issue(asked=1) is not None


def test_the_ca_refuses_the_new_key(in_front: tuple[World, Proxy]) -> None:
    world, proxy = in_front
    assert world.issue() is not None
    known = account(world)
    no = Answer(403, {}, b'{"type": "urn:ietf:params:acme:error:unauthorized", "detail": "no"}')
    proxy.instead = lambda method, path: no if "rollover" in path else None
    with pytest.raises(AcmeRefused, match="refused to change the account's key: no"):
        roll_over(world)
    assert world.issue(asked=1) is not None
    assert account(world) == known


def test_the_ca_is_busy_when_a_rollover_is_finished(in_front: tuple[World, Proxy]) -> None:
    """It may be that the CA has the new key, so it is not given up."""
    world, proxy = in_front
    assert world.issue() is not None
    unheard = json.loads(JWKEC(key=ec.generate_private_key(ec.SECP256R1())).json_dumps())
    middle = account(world) | {"next_key": unheard}
    put_document(world.store, KEY, middle)
    proxy.instead = lambda method, path: Answer(503) if "rollover" in path else None
    with pytest.raises(AcmeRefused, match="HTTP 503"):
        world.issue(asked=1, clock=within(1))
    assert account(world) == middle


def test_an_issuance_in_the_middle_of_a_rollover(in_front: tuple[World, Proxy]) -> None:
    """It finds a next key that the CA has not heard of yet, and must not cost the account."""
    world, proxy = in_front
    assert world.issue() is not None
    known = account(world)
    between: list[Any] = []

    def meanwhile(method: str, path: str) -> None:
        if "rollover" in path and not between:
            between.append(account(world))
            between.append(world.issue(asked=1))

    proxy.instead = meanwhile
    rolled = roll_over(world)
    seen, issued = between
    assert seen["next_key"] is not None
    assert issued is not None
    assert rolled["key"] == seen["next_key"]
    assert rolled["uri"] == known["uri"]
    assert world.issue(asked=2) is not None


def test_a_rollover_in_the_middle_of_another(in_front: tuple[World, Proxy]) -> None:
    world, proxy = in_front
    assert world.issue() is not None
    both: list[Any] = []

    def meanwhile(method: str, path: str) -> None:
        if "rollover" in path and not both:
            both.append(None)
            both.append(roll_over(world))

    proxy.instead = meanwhile
    with pytest.raises((AcmeRefused, Superseded)):
        roll_over(world)
    assert account(world) == both[1]
    assert world.issue(asked=1) is not None


def test_no_key_is_ever_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert world.issue() is not None
    known = account(world)
    accounts = accounts_of(world)
    rolled = roll_over(world, accounts)
    put_document(world.store, KEY, known)
    with pytest.raises(AcmeRefused) as refused:
        world.issue(asked=1)
    put_document(world.store, KEY, known | {"next_key": {**rolled["key"], "crv": "P-999"}})
    with pytest.raises(StateError) as unreadable:
        world.issue(asked=1)
    everything = told(caplog, refused.value, unreadable.value, accounts, rolled["uri"])
    assert rolled["uri"] in everything
    for secret in (known["key"]["d"], rolled["key"]["d"]):
        assert secret not in everything


def test_a_deactivated_account(in_front: tuple[World, Proxy]) -> None:
    world, proxy = in_front
    current = world.issue()
    assert current is not None
    known = account(world)
    assert accounts_of(world).deactivate(issuer_of(world), within(60)) == known["uri"]
    ended = account(world)
    assert ended == known | {"deactivated": True}
    proxy.seen.clear()
    for again in (
        lambda: world.issue(asked=1),
        lambda: roll_over(world),
        lambda: accounts_of(world).deactivate(issuer_of(world), within(60)),
    ):
        with pytest.raises(StateError, match="was deactivated") as caught:
            again()
        assert not caught.value.retryable
        assert "the next run makes a new account" in caught.value.next
    # Nobody asked the CA, so it has no new account.
    assert proxy.seen == []
    assert account(world) == ended
    assert world.store.current("shop") == current
    # It is the CA that has ended it, not only our document.
    put_document(world.store, KEY, known)
    with pytest.raises(AcmeRefused, match="deactivated"):
        world.issue(asked=1)


def test_a_warm_process_after_the_deactivation(world: World) -> None:
    warm = accounts_of(world)
    assert world.issue(accounts=warm) is not None
    warm.deactivate(issuer_of(world), within(60))
    with pytest.raises(StateError, match="was deactivated"):
        world.issue(asked=1, accounts=warm)


def test_a_new_account_instead_of_a_deactivated_one(world: World, known: dict[str, Any]) -> None:
    accounts_of(world).deactivate(issuer_of(world), within(60))
    world.aws.s3().delete_object(Bucket=world.store.bucket, Key=KEY)
    current = world.issue(asked=1)
    assert current is not None
    assert current.issued.account not in {None, known["uri"]}
