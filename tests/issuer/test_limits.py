"""Hundreds of certificates due at once against a CA that counts, on a clock that is handed in."""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certrail.errors import OverBudget
from certrail.pipelines.authorities import AUTHORITIES, HOUR, Limits, Rate
from certrail.pipelines.resolved import Pipeline
from certrail.store import Issued
from issuer.account import Accounts
from issuer.clock import Clock
from issuer.survey import AHEAD, most_urgent_first, survey
from sandbox import Sandbox
from sandbox.pebble import Options, Pebble
from tests.certrail.bundles import make_bundle
from tests.issuer.conftest import World, make_zone
from tests.issuer.proxy import Answer, Proxy, in_front_of, problem


@dataclass
class Counter:
    """So many at once, and one more after each pause: counted, not computed."""

    rate: Rate
    tokens: int
    grew: datetime

    def room(self, now: datetime) -> bool:
        while self.tokens < self.rate.burst and self.grew + self.rate.refill <= now:
            self.tokens += 1
            self.grew += self.rate.refill
        if self.tokens == self.rate.burst:
            self.grew = now
        return self.tokens > 0

    def take(self, now: datetime) -> None:
        self.room(now)
        self.tokens -= 1


@dataclass
class CountingCa:
    """What Let's Encrypt counts, in front of Pebble, by the clock of the test
    (letsencrypt.org/docs/rate-limits)."""

    limits: Limits
    proxy: Proxy
    now: datetime
    known: set[frozenset[str]] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    made: list[datetime] = field(default_factory=list)
    counters: dict[str, Counter] = field(default_factory=dict)
    ordered: frozenset[str] = frozenset()

    def __call__(self, method: str, path: str) -> Answer | None:
        payload = self.proxy.payloads[-1] or {}
        if path == "/order-plz" and "identifiers" in payload:
            self.ordered = frozenset(str(each["value"]) for each in payload["identifiers"])
            for bucket, rate in self._counted(self.ordered):
                if not self._counter(bucket, rate).room(self.now):
                    self.refused.append(f"{bucket} at {self.now}")
                    return problem(429, "rateLimited", bucket, Retry_After="3600")
            if self.limits.orders and self.ordered not in self.known:
                self._counter("orders", self.limits.orders).take(self.now)
        if path.startswith("/certZ"):
            for bucket, rate in self._counted(self.ordered):
                if bucket != "orders":
                    self._counter(bucket, rate).take(self.now)
            self.known.add(self.ordered)
            self.made.append(self.now)
        return None

    def _counted(self, names: frozenset[str]) -> Iterator[tuple[str, Rate]]:
        if self.limits.duplicates:
            yield f"duplicates of {sorted(names)}", self.limits.duplicates
        if names in self.known:
            return
        if self.limits.orders:
            yield "orders", self.limits.orders
        if self.limits.certificates:
            for domain in {".".join(name.split(".")[-2:]) for name in names}:
                yield domain, self.limits.certificates

    def _counter(self, bucket: str, rate: Rate) -> Counter:
        return self.counters.setdefault(bucket, Counter(rate, rate.burst, self.now))


@dataclass
class Fleet:
    """The issuer's schedule and its queue, by a clock that jumps to where something happens."""

    world: World
    ca: CountingCa
    pipelines: list[Pipeline[object]]
    accounts: Accounts

    def run(self, until: timedelta) -> dict[str, datetime]:
        """When each pipeline got its certificate."""
        began = self.ca.now
        done: dict[str, datetime] = {}
        queue: list[tuple[datetime, int, str]] = []
        by_name = {pipeline.name: pipeline for pipeline in self.pipelines}
        number = 0
        tick = began
        while len(done) < len(by_name):
            assert tick < began + until, f"{len(by_name) - len(done)} still wait"
            self.ca.now = tick
            waiting = [each for each in self.pipelines if each.name not in done]
            standings = survey(self.world.store, waiting, {})
            for standing in most_urgent_first(standings, tick):
                number += 1
                heapq.heappush(queue, (tick, number, standing.pipeline.name))
            tick += HOUR
            while queue and queue[0][0] < tick:
                at, _, name = heapq.heappop(queue)
                self.ca.now = max(self.ca.now, at)
                if name in done:
                    continue
                later = self._work(by_name[name])
                if later is None:
                    done[name] = self.ca.now
                elif later - self.ca.now <= AHEAD:
                    number += 1
                    heapq.heappush(queue, (later, number, name))
        return done

    def _work(self, pipeline: Pipeline[object]) -> datetime | None:
        """When to come back, None where it is issued."""
        (standing,) = survey(self.world.store, [pipeline], {})
        reason, progress = standing.due(self.ca.now), standing.progress
        if progress and standing.waits(self.ca.now, reason):
            return progress.next_attempt

        def sleep(seconds: float) -> None:
            # Pebble's time is the machine's.
            time.sleep(min(seconds, 0.02))

        clock = Clock(lambda: self.ca.now, sleep, self.ca.now + timedelta(minutes=14))
        try:
            current = self.world.issue(pipeline, clock=clock, accounts=self.accounts)
        except OverBudget as full:
            return full.retry_at
        assert current is not None
        return None


@pytest.fixture
def counting(
    world: World, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Proxy]:
    options = Options(always_valid=True)
    with (
        Pebble(sandbox.dns, options) as ca,
        in_front_of(ca.directory, ca.ca_bundle, tmp_path) as proxy,
    ):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        yield proxy


def fleet(world: World, proxy: Proxy, limits: Limits, names: list[str]) -> Fleet:
    directory = f"https://localhost:{proxy.port}/dir"
    here = replace(world, directory=directory)
    pipelines = []
    for name in names:
        pipeline = here.pipeline(name, name=name)
        issuers = (replace(pipeline.issuers[0], limits=limits),)
        pipelines.append(replace(pipeline, issuers=issuers))
    # Ahead of Pebble, whose certificates are not valid before they are made.
    now = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10)
    ca = CountingCa(limits, proxy, now)
    proxy.instead = ca
    return Fleet(here, ca, pipelines, Accounts(here.store, here.aws))


def length(done: dict[str, datetime], began: datetime) -> timedelta:
    return max(done.values()) - began


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("pipelines", "renewals"), [(70, 10), pytest.param(300, 60, marks=pytest.mark.thorough)]
)
def test_hundreds_at_once_at_let_s_encrypt(
    pipelines: int,
    renewals: int,
    world: World,
    counting: Proxy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Renewals, of which some end soon, and below each of some domains 60 new ones, where a week
    allows 50."""
    limits = AUTHORITIES["letsencrypt"].limits
    crowded = [f"d{number}-{world.zone}" for number in range((pipelines - renewals) // 60)]
    for domain in (*crowded, f"old-{world.zone}"):
        make_zone(world.aws, domain)
    old = [f"old{number}.old-{world.zone}" for number in range(renewals)]
    new = [f"n{number}.{domain}" for number in range(60) for domain in crowded]
    fleet_ = fleet(world, counting, limits, new + old)
    began = fleet_.ca.now
    ends = {}
    for index, name in enumerate(old):
        ends[name] = began + timedelta(hours=3 + index)
        hold(fleet_, name, ends[name])
    done = fleet_.run(until=timedelta(days=4))
    assert fleet_.ca.refused == []
    assert len(done) == pipelines
    assert all(done[name] < end for name, end in ends.items())
    assert limits.certificates is not None
    best = (60 - limits.certificates.burst) * limits.certificates.refill
    took = length(done, began)
    assert best <= took <= 1.1 * best
    with capsys.disabled():
        sys.stdout.write(
            f"\n{pipelines} pipelines in {took}, the limits allow {best} at best "
            f"({took / best - 1:+.1%}); refused: {len(fleet_.ca.refused)}\n"
        )


@pytest.mark.timeout(600)
def test_more_orders_than_an_account_has(
    world: World, counting: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit that comes back within the hour: the queue brings them, not the schedule."""
    limits = Limits(orders=Rate(20, 3 * HOUR))
    names = [f"n{number}.{world.zone}" for number in range(45)]
    fleet_ = fleet(world, counting, limits, names)
    began = fleet_.ca.now
    done = fleet_.run(until=timedelta(days=1))
    assert fleet_.ca.refused == []
    assert limits.orders is not None
    best = (45 - limits.orders.burst) * limits.orders.refill
    took = length(done, began)
    assert best <= took <= 1.1 * best
    with capsys.disabled():
        sys.stdout.write(f"\n45 orders in {took}, the limits allow {best} at best\n")


def hold(fleet_: Fleet, name: str, not_after: datetime) -> None:
    """A certificate of an earlier account of the same CA, for exactly these names."""
    bundle = make_bundle([name])
    then = not_after - timedelta(days=90)
    bundle = replace(bundle, facts=replace(bundle.facts, not_before=then, not_after=not_after))
    pipeline = next(each for each in fleet_.pipelines if each.name == name)
    issuer = pipeline.issuers[0]
    issued = Issued(
        issuer=issuer.name,
        directory=issuer.directory,
        account="https://localhost/another",
        profile=None,
        key_type=pipeline.key_type,
        domains=pipeline.domains,
    )
    fleet_.world.store.publish(name, bundle, issued, after=None, now=then)
    fleet_.ca.known.add(frozenset(pipeline.domains))
