"""An ordered list of issuers: the next one where the first is down or refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from certrail.errors import AcmeRefused, CertrailError, NoIssuer
from certrail.pipelines.resolved import Issuer, Pipeline
from certrail.store import Current
from issuer import lease
from issuer.acme import Unreachable
from issuer.clock import Clock
from issuer.due import due
from issuer.lease import DELAYS
from sandbox import Sandbox
from sandbox.pebble import Options, Pebble, free_ports
from tests.issuer.conftest import World, age, hurried, make_zone
from tests.issuer.proxy import Answer, Proxy, problem


@pytest.fixture(scope="module")
def second_ca(sandbox: Sandbox) -> Iterator[Pebble]:
    with Pebble(sandbox.dns, Options()) as running:
        yield running


@pytest.fixture
def two(proxied: World, second_ca: Pebble) -> Pipeline[object]:
    """A pipeline with the CA behind the proxy, and another one."""
    second = Issuer("second", second_ca.directory, root=second_ca.ca_bundle.read_text())
    pipeline = proxied.pipeline()
    return replace(pipeline, issuers=(*pipeline.issuers, second))


@pytest.mark.parametrize(
    "answer",
    [
        Answer(503),
        Answer(0),
        problem(403, "rejectedIdentifier", "not this name"),
        problem(429, "rateLimited", "too many certificates", Retry_After="90000"),
        problem(500, "serverInternal", "oh no"),
    ],
    ids=["down", "silent", "refuses", "rate limited", "broken"],
)
def test_the_next_issuer_issues(
    proxied: World, proxy: Proxy, two: Pipeline[object], second_ca: Pebble, answer: Answer
) -> None:
    proxy.instead = lambda method, path: answer if path == "/order-plz" else None
    current = proxied.issue(two, clock=hurried(timedelta(minutes=15)))
    assert current is not None
    assert current.issued.issuer == "second"
    assert current.issued.directory == second_ca.directory
    assert set(current.issued.instead_of) == {two.issuers[0].name}
    assert proxied.texts() == []
    # It is as good as the first's: nothing is due.
    assert due(two, current, datetime.now(UTC)) is None
    # At the next renewal the first is asked first again, and it is back.
    proxy.instead = lambda method, path: None
    age(proxied, timedelta(hours=1))
    renewed = proxied.issue(two, asked=1)
    assert renewed is not None
    assert renewed.issued.issuer == two.issuers[0].name
    assert renewed.issued.instead_of == {}


def test_a_validation_that_fails_is_a_refusal_too(
    world: World, two: Pipeline[object], second_ca: Pebble
) -> None:
    make_zone(world.aws, "blocked.example")
    blocked = replace(two, domains=("www.blocked.example",))
    current = world.issue(blocked)
    assert current is not None
    assert current.issued.issuer == "second"
    assert "www.blocked.example" in next(iter(current.issued.instead_of.values()))


def test_our_own_trouble_is_nobody_s_refusal(proxied: World, two: Pipeline[object]) -> None:
    """No other CA has a zone for it."""
    with pytest.raises(CertrailError, match="no public hosted zone"):
        proxied.issue(replace(two, domains=("shop.nowhere.example",)))
    assert list(proxied.store.keys("accounts/")) == []


def test_when_none_issues_all_are_told(proxied: World, proxy: Proxy, two: Pipeline[object]) -> None:
    proxy.instead = lambda method, path: (
        problem(403, "rejectedIdentifier", "not this name") if path == "/order-plz" else None
    )
    dead = Issuer("second", f"https://localhost:{free_ports(1)[0]}/dir")
    both = replace(two, issuers=(two.issuers[0], dead))
    with pytest.raises(NoIssuer) as caught:
        proxied.issue(both, clock=hurried(timedelta(minutes=15)))
    kinds = [type(each) for each in caught.value.failures]
    assert kinds == [AcmeRefused, Unreachable]
    # One of them may be back soon.
    assert caught.value.retryable
    progress = lease.read(proxied.store, "shop")
    assert progress is not None
    assert not progress.permanent
    assert "not this name" in str(progress.error)
    assert "no answer" in str(progress.error)


def test_a_ca_that_is_down_for_an_hour(proxied: World, proxy: Proxy) -> None:
    """Nothing but the schedule's own attempts, and a certificate at the first after it is back."""
    began = now = datetime.now(UTC)

    def sleep(seconds: float) -> None:
        nonlocal now
        now += timedelta(seconds=seconds)

    def attempt() -> Current | None:
        clock = Clock(lambda: now, sleep, now + timedelta(minutes=14))
        return proxied.issue(clock=clock)

    proxy.instead = lambda method, path: Answer(502) if now < began + timedelta(hours=1) else None
    starts = []
    for number in range(1, len(DELAYS) + 1):
        starts.append(now)
        with pytest.raises(AcmeRefused, match="HTTP 502"):
            attempt()
        progress = lease.read(proxied.store, "shop")
        assert progress is not None
        assert progress.next_attempt is not None
        assert progress.attempts == number
        # Two minutes of patience, and the pause that the schedule keeps.
        pause = progress.next_attempt - starts[-1]
        assert DELAYS[number - 1] <= pause <= DELAYS[number - 1] + timedelta(minutes=3)
        now = progress.next_attempt
    current = attempt()
    assert current is not None
    assert current.generation == 1
    assert now - began < timedelta(hours=2)
