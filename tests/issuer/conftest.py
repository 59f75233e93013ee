"""The sandbox's AWS and DNS, with a rude Pebble; a bucket and a zone for each test."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest

from certrail import nameservers
from certrail.aws import Aws
from certrail.keys import KeyType
from certrail.pipelines.resolved import Issuer, Pipeline
from certrail.store import Current, Store, current_key
from issuer.account import Accounts
from issuer.clock import Clock
from issuer.dns.challenges import Dns
from issuer.issue import issue
from issuer.reissue import Asked
from sandbox import Sandbox
from sandbox.pebble import Options, Pebble
from sandbox.server import Server
from tests.buckets import make_bucket
from tests.issuer.proxy import Proxy, in_front_of

REGION: Literal["eu-central-1"] = "eu-central-1"
ISSUER = "test-ca"


@pytest.fixture(scope="session")
def ca(sandbox: Sandbox) -> Iterator[Pebble]:
    """A Pebble less polite than the sandbox's own."""
    options = Options(bad_nonces=15, intermediates=2, blocked=("blocked.example",))
    with Pebble(sandbox.dns, options) as running:
        yield running


@pytest.fixture
def server(sandbox: Sandbox) -> Server:
    return sandbox.server


@pytest.fixture
def aws(sandbox: Sandbox) -> Aws:
    return Aws()


@pytest.fixture
def store(aws: Aws) -> Store:
    return make_bucket(f"bucket-{uuid.uuid4().hex}", aws)


@pytest.fixture
def zone(aws: Aws) -> str:
    """The name of a fresh public zone."""
    name = f"z{uuid.uuid4().hex[:12]}.example"
    make_zone(aws, name)
    return name


@dataclass
class Told:
    """A teller that remembers."""

    certificates: list[Current]
    refusals: list[str]

    def issued(self, current: Current) -> None:
        self.certificates.append(current)

    def replaces_refused(self, pipeline: str, why: str) -> None:
        self.refusals.append(why)


@dataclass
class World:
    """Everything an issuance needs, for one test."""

    aws: Aws
    store: Store
    zone: str
    directory: str
    sandbox: Sandbox
    told: Told = field(default_factory=lambda: Told([], []))

    def pipeline(
        self,
        *domains: str,
        name: str = "shop",
        key_type: KeyType = KeyType.ECDSA_P256,
        profile: str | None = None,
        directory: str | None = None,
    ) -> Pipeline[object]:
        return Pipeline(
            name=name,
            entry=name,
            domains=domains or (self.zone,),
            issuers=(Issuer(ISSUER, directory or self.directory, profile=profile),),
            key_type=key_type,
            targets=(),
        )

    @property
    def dns(self) -> Dns:
        return Dns(self.aws, nameservers=[nameservers.Server(*self.sandbox.dns)])

    def issue(
        self,
        pipeline: Pipeline[object] | None = None,
        *,
        clock: Clock | None = None,
        asked: int | None = None,
        accounts: Accounts | None = None,
    ) -> Current | None:
        """asked: for a certificate newer than this generation. accounts: of a warm process."""
        clock = clock or within(60)
        return issue(
            pipeline or self.pipeline(),
            self.store,
            self.dns,
            clock,
            accounts or Accounts(self.store, self.aws),
            self.told,
            asked=None if asked is None else Asked(asked, "asked for", clock.now()),
        )

    def texts(self) -> list[str]:
        """The names of the TXT records in this test's zones."""
        route53 = self.sandbox.session().client("route53")
        zones = route53.get_paginator("list_hosted_zones").paginate()
        return [
            record["Name"]
            for page in zones
            for zone in page["HostedZones"]
            for record in route53.list_resource_record_sets(HostedZoneId=zone["Id"])[
                "ResourceRecordSets"
            ]
            if record["Type"] == "TXT" and record["Name"].endswith(f"{self.zone}.")
        ]


@pytest.fixture
def world(
    sandbox: Sandbox,
    aws: Aws,
    store: Store,
    zone: str,
    ca: Pebble,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.ca_bundle))
    return World(aws, store, zone, ca.directory, sandbox)


@pytest.fixture
def proxy(
    world: World, ca: Pebble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Proxy]:
    with in_front_of(ca.directory, ca.ca_bundle, tmp_path) as running:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        yield running


@pytest.fixture
def proxied(world: World, proxy: Proxy) -> World:
    """The CA behind the proxy."""
    return replace(world, directory=f"https://localhost:{proxy.port}/dir")


def make_zone(aws: Aws, name: str, *, private: bool = False) -> str:
    """Returns the zone's id."""
    vpc = {"VPC": {"VPCRegion": REGION, "VPCId": "vpc-1"}} if private else {}
    answer = aws.route53().create_hosted_zone(
        Name=name,
        CallerReference=uuid.uuid4().hex,
        HostedZoneConfig={"PrivateZone": private},
        **vpc,  # type: ignore[arg-type]
    )
    return answer["HostedZone"]["Id"].rpartition("/")[2]


def within(seconds: float) -> Clock:
    return Clock(
        lambda: datetime.now(UTC), time.sleep, datetime.now(UTC) + timedelta(seconds=seconds)
    )


def hurried(left: timedelta, begins: datetime | None = None) -> Clock:
    """A clock that runs ahead while somebody waits, so that patience costs nothing. begins: the
    moment it starts at, now where it is not given."""
    ahead = begins - datetime.now(UTC) if begins else timedelta(0)

    def now() -> datetime:
        return datetime.now(UTC) + ahead

    def sleep(pause: float) -> None:
        nonlocal ahead
        ahead += timedelta(seconds=pause)
        # The CA's time is the machine's.
        time.sleep(min(pause, 0.05))

    return Clock(now, sleep, now() + left)


def age(world: World, by: timedelta, name: str = "shop") -> None:
    """Let a pipeline's certificate have been published earlier."""
    found = world.store.read(current_key(name), Current)
    assert found is not None
    older = replace(found.value, published_at=found.value.published_at - by)
    world.store.write(current_key(name), older, Current, found.etag)
