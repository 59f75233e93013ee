"""Several certificates for the same names, told apart by their keys."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certrail.keys import KeyType
from certrail.pipelines import Opaque, Pipelines, load
from certrail.pipelines.resolved import Pipeline
from certrail.store import Current
from issuer import keys, lease
from issuer.due import wanted
from sandbox.pebble import Pebble
from tests.issuer.conftest import ISSUER, World, within
from tests.issuer.proxy import Answer, Proxy
from tests.issuer.situations import proxied
from tests.issuer.test_issue import at_once

BOTH = (KeyType.ECDSA_P256, KeyType.RSA_2048)


def pair(world: World) -> tuple[Pipeline[Any], ...]:
    """The two pipelines of one entry of a file."""
    text = f"""\
issuers:
  {ISSUER}: {{directory: "{world.directory}"}}
pipelines:
  - name: shop
    domains: [{world.zone}, "*.{world.zone}"]
    key_type: [{", ".join(BOTH)}]
"""
    return load(text, "pipelines.yaml", Pipelines[Opaque]).pipelines


def has_its_own_key(world: World, current: object, key_type: KeyType) -> bool:
    """What a server would find out: the pair belongs together, and is of this kind."""
    assert isinstance(current, Current)
    bundle = world.store.bundle(current)
    key = keys.load_own(bundle.private_key).public_key()
    certificate = x509.load_pem_x509_certificate(bundle.certificate.encode()).public_key()
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_bytes(*form) == key.public_bytes(*form) and (
        keys.key_type(certificate) is current.facts.key_type is key_type
    )


def are_all_there(world: World, ended: Sequence[object]) -> None:
    """Each pipeline has its certificate, they are different ones, and nothing is left."""
    pipelines = pair(world)
    assert [has_its_own_key(world, each, kind) for each, kind in zip(ended, BOTH, strict=True)] == [
        True,
        True,
    ]
    currents = [world.store.current(each.name) for each in pipelines]
    assert currents == ended
    assert len({each.fingerprint for each in currents if each}) == len(BOTH)
    assert world.texts() == []
    for pipeline in pipelines:
        progress = lease.read(world.store, pipeline.name)
        assert progress is not None
        assert (progress.orders, progress.records, progress.error) == ({}, (), None)


def test_one_after_the_other(world: World) -> None:
    shop, rsa = pair(world)
    assert rsa.name == "shop.rsa-2048"
    are_all_there(world, [world.issue(shop), world.issue(rsa)])
    assert [world.issue(each) for each in (shop, rsa)] == [None, None]


def test_at_the_same_time(world: World) -> None:
    shop, rsa = pair(world)
    are_all_there(world, at_once(lambda: world.issue(shop), lambda: world.issue(rsa)))


def test_a_renewal_of_one_leaves_the_other(world: World) -> None:
    shop, rsa = pair(world)
    first, other = world.issue(shop), world.issue(rsa)
    second = world.issue(shop, asked=1)
    assert second is not None
    assert second.previous == (first.fingerprint if first else None)
    are_all_there(world, [second, other])


class Generous:
    """A CA that hands out a pending order again, as Boulder does where account, names and profile
    are the same: the second newOrder gets the first one's answer."""

    def __init__(self, proxy: Proxy) -> None:
        self._forward = proxy.forward
        self._lock = threading.Lock()
        self.handed: list[Answer] = []

    def __call__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if path != "/order-plz":
            return self._forward(method, path, headers, body)
        with self._lock:
            answer = self._forward(method, path, headers, body)
            if answer.status == 201:
                if len(self.handed) == 1:
                    same = {"Location": self.handed[0].headers["Location"]}
                    answer = replace(self.handed[0], headers=answer.headers | same)
                self.handed.append(answer)
        return answer

    @property
    def orders(self) -> list[str]:
        return [each.headers["Location"] for each in self.handed]


@pytest.fixture
def generous(
    world: World, ca: Pebble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[World, Generous]]:
    with proxied(world, ca, tmp_path, monkeypatch) as (there, proxy):
        handing = Generous(proxy)
        monkeypatch.setattr(proxy, "forward", handing)
        yield there, handing


def test_the_same_order_once_the_other_has_finished(generous: tuple[World, Generous]) -> None:
    """It was pending when it was handed out; the other one was faster."""
    world, handing = generous
    shop, rsa = pair(world)
    are_all_there(world, [world.issue(shop), world.issue(rsa)])
    first, again, third = handing.orders
    assert first == again != third


def test_the_same_order_at_the_same_time(generous: tuple[World, Generous]) -> None:
    world, handing = generous
    shop, rsa = pair(world)
    ended = at_once(lambda: world.issue(shop), lambda: world.issue(rsa))
    # Whoever lost may have seen it too late for this run.
    ended = [
        each if isinstance(each, Current) else world.issue(pipeline)
        for each, pipeline in zip(ended, (shop, rsa), strict=True)
    ]
    are_all_there(world, ended)
    assert handing.orders[0] == handing.orders[1]


def test_the_same_order_with_a_key_already_kept(generous: tuple[World, Generous]) -> None:
    """The run that lost died after it had kept its key, and before the other finished."""
    world, handing = generous
    shop, rsa = pair(world)
    current = world.issue(shop)
    (order,) = handing.orders
    kept = keys.pem(keys.generate(rsa.key_type))
    world.store.keep_order_privkey(rsa.name, order, rsa.key_type, kept)
    with lease.leased(world.store, rsa.name, wanted(rsa), within(30)) as left:
        left.ordered(ISSUER, order)
        left.release()
    handing.handed.clear()
    are_all_there(world, [current, world.issue(rsa)])
