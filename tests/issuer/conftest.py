"""The sandbox's AWS and DNS, with a rude Pebble; a bucket and a zone for each test."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from certrail.aws import Aws
from certrail.keys import KeyType
from certrail.pipelines.model import Issuer, Pipeline
from certrail.store import Current, Store
from issuer.clock import Clock
from issuer.dns import authoritative
from issuer.dns.route53 import Route53
from issuer.issue import issue
from sandbox import Sandbox
from sandbox.pebble import Options, Pebble
from sandbox.server import Server
from tests.buckets import make_bucket

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
class World:
    """Everything an issuance needs, for one test."""

    aws: Aws
    store: Store
    zone: str
    directory: str
    sandbox: Sandbox

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
            domains=domains or (self.zone,),
            issuer_name=ISSUER,
            issuer=Issuer(directory=directory or self.directory),
            key_type=key_type,
            profile=profile,
            targets=(),
        )

    @property
    def dns(self) -> Route53:
        return Route53(self.aws, [authoritative.Server(*self.sandbox.dns)])

    def issue(
        self,
        pipeline: Pipeline[object] | None = None,
        *,
        clock: Clock | None = None,
        asked: int | None = None,
    ) -> Current | None:
        return issue(
            pipeline or self.pipeline(), self.store, self.dns, clock or within(60), asked=asked
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
