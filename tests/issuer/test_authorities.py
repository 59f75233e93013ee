"""What CAs differ in: whose root their own TLS certificate has, profiles, and chains."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import trustme
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from certrail.bundle import split
from certrail.errors import IssueError
from certrail.pipelines.resolved import Pipeline
from certrail.store import Current
from issuer.account import Accounts
from issuer.acme import PATIENCE, Unreachable
from issuer.clock import Clock
from sandbox import Sandbox
from sandbox.pebble import PROFILES, Options, Pebble
from tests.issuer.conftest import World, within
from tests.issuer.situations import asking, at, issuer_of

# A root


@pytest.fixture
def private(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Nobody on this machine knows the CA's root."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    return world


def test_a_ca_with_a_root_of_its_own(private: World, ca: Pebble) -> None:
    pipeline = asking(private.pipeline(), root=ca.ca_bundle.read_text())
    assert private.issue(pipeline) is not None


def test_the_root_in_the_file_comes_before_the_machines(
    private: World, ca: Pebble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/dev/null")
    pipeline = asking(private.pipeline(), root=ca.ca_bundle.read_text())
    assert private.issue(pipeline) is not None


@pytest.mark.parametrize("root", [None, trustme.CA().cert_pem.bytes().decode()])
def test_a_root_that_nobody_knows(private: World, root: str | None) -> None:
    moment = started = datetime.now(UTC)

    def sleep(seconds: float) -> None:
        nonlocal moment
        moment += timedelta(seconds=seconds)

    clock = Clock(lambda: moment, sleep, moment + 2 * PATIENCE)
    with pytest.raises(Unreachable, match="certificate verify failed"):
        private.issue(asking(private.pipeline(), root=root), clock=clock)
    # To ask again would be to hear the same.
    assert moment == started


# Profiles


@pytest.fixture(scope="module")
def various(sandbox: Sandbox) -> Iterator[Pebble]:
    with Pebble(sandbox.dns, Options(profiles=PROFILES)) as running:
        yield running


@pytest.fixture
def profiled(world: World, various: Pebble, monkeypatch: pytest.MonkeyPatch) -> World:
    return at(world, various, monkeypatch)


def life(current: Current | None) -> timedelta:
    assert current is not None
    # The last second is part of it (RFC 5280, 4.1.2.5).
    return current.facts.not_after - current.facts.not_before + timedelta(seconds=1)


@pytest.mark.parametrize("profile", ["shortlived", "tlsserver"])
def test_a_profile(profiled: World, profile: str) -> None:
    pipeline = profiled.pipeline(profile=profile)
    current = profiled.issue(pipeline)
    assert life(current) == PROFILES[profile]
    assert current is not None
    assert current.issued.profile == profile
    renewed = profiled.issue(pipeline, asked=1)
    assert life(renewed) == PROFILES[profile]
    assert profiled.told.refusals == []


def test_a_warm_process_takes_each_pipeline_s_own(profiled: World) -> None:
    """The connection to the CA is kept, and nothing of what the last pipeline asked it for."""
    accounts = Accounts(profiled.store, profiled.aws)
    for name, profile in (("short", "shortlived"), ("long", "classic"), ("any", None)):
        pipeline = profiled.pipeline(name=name, profile=profile)
        current = profiled.issue(pipeline, accounts=accounts)
        assert current is not None
        assert current.issued.profile == profile
        if profile:
            assert life(current) == PROFILES[profile]
        assert profiled.issue(pipeline, accounts=accounts) is None


def test_another_profile_is_another_certificate(profiled: World) -> None:
    assert profiled.issue(profiled.pipeline(profile="classic")) is not None
    assert life(profiled.issue(profiled.pipeline(profile="shortlived"))) == timedelta(hours=160)
    assert profiled.issue(profiled.pipeline(profile="shortlived")) is None


def test_an_unknown_profile_makes_no_order(profiled: World) -> None:
    with pytest.raises(IssueError, match="has no profile `short`") as caught:
        profiled.issue(profiled.pipeline(profile="short"))
    assert not caught.value.retryable
    assert caught.value.next == "Choose one of classic, shortlived, tlsserver"
    accounts = Accounts(profiled.store, profiled.aws)
    assert accounts.connect(issuer_of(profiled), within(30)).orders() == []


# Chains


@pytest.fixture(scope="module")
def cross_signed(sandbox: Sandbox) -> Iterator[Pebble]:
    with Pebble(sandbox.dns, Options(alternate_roots=2, intermediates=2)) as running:
        yield running


@pytest.fixture
def chains(world: World, cross_signed: Pebble, monkeypatch: pytest.MonkeyPatch) -> World:
    return at(world, cross_signed, monkeypatch)


def preferring(world: World, name: str | None) -> Pipeline[object]:
    return asking(world.pipeline(), preferred_chain=name)


def common_name(root: x509.Certificate) -> str:
    (attribute,) = root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)


def root_of(ca: Pebble, number: int) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ca.root(number).encode())


def ends_at(world: World, current: Current | None, root: x509.Certificate) -> bool:
    """Whether the chain, link by link, was signed by this root."""
    assert current is not None
    bundle = world.store.bundle(current)
    links = [x509.load_pem_x509_certificate(pem.encode()) for pem in split(bundle.fullchain)]
    assert len(links) == 3
    for below, above in pairwise(links):
        below.verify_directly_issued_by(above)
    try:
        links[-1].verify_directly_issued_by(root)
    except (ValueError, InvalidSignature):
        return False
    return True


def test_the_preferred_chain(chains: World, cross_signed: Pebble) -> None:
    roots = [root_of(cross_signed, number) for number in range(3)]
    assert len({common_name(root) for root in roots}) == 3
    for generation, root in enumerate(roots):
        current = chains.issue(preferring(chains, common_name(root)), asked=generation)
        assert [ends_at(chains, current, each) for each in roots] == [
            each is root for each in roots
        ]


def test_a_chain_that_the_ca_does_not_have(chains: World, cross_signed: Pebble) -> None:
    pipeline = preferring(chains, "Root of Somebody Else")
    assert ends_at(chains, chains.issue(pipeline), root_of(cross_signed, 0))
    # What cannot be had is not asked for again and again.
    assert chains.issue(pipeline) is None


def test_another_preference_is_another_certificate(chains: World, cross_signed: Pebble) -> None:
    assert ends_at(chains, chains.issue(), root_of(cross_signed, 0))
    second = root_of(cross_signed, 2)
    pipeline = preferring(chains, common_name(second))
    current = chains.issue(pipeline)
    assert ends_at(chains, current, second)
    assert current is not None
    assert current.generation == 2
    assert chains.issue(pipeline) is None
