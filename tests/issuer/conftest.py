"""One emulated AWS, one nameserver and one Pebble for all tests of the issuer. Each test has a
bucket and a zone of its own."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from moto.server import ThreadedMotoServer

from certrail.aws import Aws
from certrail.keys import KeyType
from certrail.pipelines.model import Issuer, Pipeline
from certrail.store import Current, Store
from issuer.clock import Clock
from issuer.dns.authoritative import Server
from issuer.dns.route53 import Route53
from issuer.issue import issue
from sandbox import rules
from tests.issuer import stage
from tests.issuer.stage import Nameserver, Pebble

REGION: Literal["eu-central-1"] = "eu-central-1"
ISSUER = "test-ca"


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    rules.install()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def nameserver() -> Iterator[Nameserver]:
    server = Nameserver()
    yield server
    server.close()


@pytest.fixture(scope="session")
def ca(
    tmp_path_factory: pytest.TempPathFactory, nameserver: Nameserver, endpoint: str
) -> Iterator[Pebble]:
    folder = tmp_path_factory.mktemp("pebble")
    with stage.pebble(folder, nameserver.port, bad_nonces=15, chain=2) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)


@pytest.fixture
def aws() -> Aws:
    return Aws()


@pytest.fixture
def store(aws: Aws) -> Store:
    return make_store(aws)


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
    ca: Pebble
    nameserver: Nameserver

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
            issuer=Issuer(directory=directory or self.ca.directory),
            key_type=key_type,
            profile=profile,
            targets=(),
        )

    @property
    def dns(self) -> Route53:
        return Route53(self.aws, [Server("127.0.0.1", self.nameserver.port)])

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
        """The TXT records left in the zone."""
        return [
            record.name
            for record in stage.records()
            if record.type == "TXT" and record.name.endswith(f"{self.zone}.")
        ]


@pytest.fixture
def world(
    aws: Aws,
    store: Store,
    zone: str,
    ca: Pebble,
    nameserver: Nameserver,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.ca_bundle))
    return World(aws, store, zone, ca, nameserver)


def make_store(aws: Aws) -> Store:
    name = f"bucket-{uuid.uuid4().hex}"
    s3 = aws.s3()
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_encryption(
        Bucket=name,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
        },
    )
    return Store(name, aws)


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
