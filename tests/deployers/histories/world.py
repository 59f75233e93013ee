"""Two pipelines, what they go to, and what strangers have there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from textwrap import indent
from typing import Any

import boto3
import pytest
from cryptography import x509
from moto.acm.models import CertBundle, acm_backends
from moto.apigateway.models import DomainName, apigateway_backends
from moto.cloudfront.models import Distribution, cloudfront_backends
from moto.elbv2.models import FakeListener, FakeLoadBalancer, elbv2_backends
from moto.moto_api._internal import mock_random
from moto.moto_api._internal.models import moto_api_backend
from moto.s3.models import s3_backends
from moto.secretsmanager.models import secretsmanager_backends

from certrail.aws import Aws
from certrail.bundle import Bundle, covers, fingerprint
from certrail.keys import KeyType
from certrail.nameservers import Server
from certrail.pipelines import Pipeline, Pipelines, load
from certrail.store import CONFIG_KEY, Store
from certrail.target import Target, with_needs
from certrail.waves import wave_numbers
from deployers import handler, router, watcher
from deployers.kinds.all import AnyTarget
from sandbox import resources
from sandbox.propagation import Delay, Service, propagation
from sandbox.rules.acm import import_limit
from tests.certrail.bundles import NOW, authority, make_bundle
from tests.deployers.cloud import ACCOUNT, OURS, REGION, put_alarm
from tests.deployers.contract.worlds import ALB, NLB
from tests.deployers.histories.aws import Clock, LocalAws, clock_of
from tests.deployers.histories.queues import WATCH_QUEUE, Events, Queues
from tests.deployers.internet import internet

BUCKET = "certrail-test"
DISTRIBUTION = "E2QWRUHEXAMPLE"
EDGE = "us-east-1"
GATEWAY = "shop.example.com"
ALARM = "errors"
# Seconds, where it may be hours: the first look sees what was before, and the second one does not.
LATE = Delay(timedelta(seconds=20), timedelta(seconds=20))
SERVICES: tuple[Service, ...] = ("apigateway", "cloudfront", "elbv2")
# The ALB serves both pipelines, one of them by default; the NLB's default is a stranger's. One
# pipeline rotates in place, the other one by replacement, which lets a wave leave an import that
# the next one still uses.
PIPELINES = """\
issuers:
  ca:
    directory: https://ca.example/directory
    trust: |
{root}
defaults: {{region: {region}}}
pipelines:
  - name: shop
    domains: [shop.example.com, "*.shop.example.com"]
    waves:
      - {{name: first, bake: 5m, alarms: [{alarm}]}}
      - {{name: rest}}
    targets:
      - {{type: acm, wave: first}}
      - {{type: apigateway, domain_name: shop.example.com, wave: first}}
      - {{type: listener, listener: "{alb}", default: true, wave: first}}
      - {{type: cloudfront, distribution: {distribution}}}
      - {{type: secretsmanager, name: tls/shop/bundle}}
  - name: mail
    domains: [mail.example.com]
    rotation: replace
    waves:
      - {{name: first}}
      - {{name: rest, alarms: [{alarm}]}}
    targets:
      - {{type: listener, listener: "{nlb}", wave: first}}
      - {{type: listener, listener: "{alb}"}}
      - {{type: secretsmanager, name: tls/mail/bundle}}
"""
DOMAINS = {
    "shop": ("shop.example.com", "*.shop.example.com"),
    "mail": ("mail.example.com",),
}
# What somebody writes over a secret.
SOMETHING_ELSE = "something else"
# What a new certificate may have that the one before has not.
SHAPES = ("ecdsa", "rsa", "a name more")


@cache
def bundle(pipeline: str, shape: str, number: int) -> Bundle:
    """The certificates of all histories are the same: it takes long to make an RSA key."""
    more = (f"new.{DOMAINS[pipeline][0]}",) if shape == "a name more" else ()
    key_type = KeyType.RSA_2048 if shape == "rsa" else KeyType.ECDSA_P256
    return make_bundle((*DOMAINS[pipeline], *more), key_type, days=300 + number)


@dataclass(frozen=True)
class Leaf:
    """A certificate as a client gets it."""

    fingerprint: str
    names: tuple[str, ...]


@cache
def leaf(pem: bytes) -> Leaf:
    names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return Leaf(fingerprint(pem.decode()), tuple(names.value.get_values_for_type(x509.DNSName)))


@dataclass(frozen=True)
class Place:
    """Where a client meets a pipeline's certificate, and the name it came for; empty for one that
    sends none, and where there are no names: a secret, an import."""

    where: str
    pipeline: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.where} for {self.name or 'anybody'}"


# Every way on which a client comes to the targets above, and one that leads there where somebody at
# the console put an import of ours where no pipeline says.
ELSEWHERE = Place(NLB, "shop", "shop.example.com")
WAYS = (
    Place(DISTRIBUTION, "shop", "shop.example.com"),
    Place(ALB, "shop", "shop.example.com"),
    Place(ALB, "shop", "www.shop.example.com"),
    Place(ALB, "shop"),
    Place(GATEWAY, "shop", "shop.example.com"),
    Place(ALB, "mail", "mail.example.com"),
    Place(NLB, "mail", "mail.example.com"),
    Place("tls/shop/bundle", "shop"),
    Place("tls/mail/bundle", "mail"),
)


class InTurn(ThreadPoolExecutor):
    """Readers who read one after the other: the calls of a history have an order."""

    def map(self, fn: Any, *iterables: Any, **_: Any) -> Iterator[Any]:
        return iter([fn(*each) for each in zip(*iterables, strict=True)])


class World:
    """store: certrail's; console: clients of somebody at the console."""

    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.aws = LocalAws(self.clock)
        self.events = Events()
        self.queues = Queues(self.clock, self.aws.happened)
        self.text = PIPELINES.format(
            root=indent(authority().root, " " * 6),
            region=REGION,
            alarm=ALARM,
            alb=ALB,
            nlb=NLB,
            distribution=DISTRIBUTION,
        )
        self.file: Pipelines[Any] = load(self.text, CONFIG_KEY, Pipelines[AnyTarget])

    @contextmanager
    def running(self) -> Iterator[World]:
        with internet() as way, self.aws.running(), pytest.MonkeyPatch.context() as patch:
            assert way.proxy
            patch.setenv("AWS_ACCESS_KEY_ID", OURS)
            patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
            patch.setenv("AWS_DEFAULT_REGION", REGION)
            patch.setenv("CERTRAIL_BUCKET", BUCKET)
            patch.setenv("CERTRAIL_QUEUES", json.dumps(self.queues.urls))
            patch.setenv("CERTRAIL_WATCH_QUEUE", WATCH_QUEUE)
            patch.setenv("CERTRAIL_NAMESERVERS", _spelled(*way.nameservers))
            patch.setenv("CERTRAIL_PROXY", _spelled(way.proxy))
            for module in (handler, router, watcher):
                patch.setattr(module, "datetime", clock_of(self.clock))
                module._aws.cache_clear()
            patch.setattr("certrail.aws.datetime", clock_of(self.clock))
            for module in (router, watcher):
                patch.setattr(module, "ThreadPoolExecutor", InTurn)
            # Of whoever asked moto in this process before.
            moto_api_backend.reset()
            try:
                self.aws.run(self._build, ours=False)
                yield self
            finally:
                moto_api_backend.reset()
                propagation.reset()
                for module in (handler, router, watcher):
                    module._aws.cache_clear()

    def _build(self) -> None:
        session: Any = boto3.Session(
            aws_access_key_id="somebody-else",
            aws_secret_access_key="testing",
            region_name=REGION,
        )
        self._console = {
            (service, region): session.client(service, region_name=region)
            for service, region in [
                ("acm", REGION),
                ("acm", EDGE),
                ("apigateway", REGION),
                ("cloudwatch", REGION),
                ("cloudfront", EDGE),
                ("elbv2", REGION),
                ("s3", REGION),
                ("secretsmanager", REGION),
            ]
        }
        s3 = self.console("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
        s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [rule]})
        self.store = Store(BUCKET, Aws())
        shop = DOMAINS["shop"]
        resources.distribution(
            DISTRIBUTION, shop, session=session, endpoint="https://cloudfront.amazonaws.com"
        )
        self.other_domain_certificate = resources.imported_certificate([GATEWAY], region=REGION)
        self.other_viewer_certificate = resources.imported_certificate(shop, region=EDGE)
        resources.domain_name(
            GATEWAY,
            session=session,
            endpoint=f"https://apigateway.{REGION}.amazonaws.com",
            region=REGION,
        )
        elb = f"https://elasticloadbalancing.{REGION}.amazonaws.com"
        for arn in (ALB, NLB):
            names = [f"default.{arn.split('/')[2]}.example.net"]
            resources.listener(arn, session=session, endpoint=elb, names=names)
            # One zone, as one handshake shows what all of them show.
            balancer = self.balancer(arn)
            balancer.subnets = balancer.subnets[:1]
            for number in range(2):
                names = [f"other{number}.example.net"]
                other = resources.imported_certificate(names, region=REGION)
                self.console("elbv2").add_listener_certificates(
                    ListenerArn=arn, Certificates=[{"CertificateArn": other}]
                )
        self._listed = {arn: list(self.listener(arn).certificates) for arn in (ALB, NLB)}
        self._imports = {region: dict(self.imports(region)) for region in (REGION, EDGE)}
        self._distribution = self.distribution.distribution_config
        self._gateway = self.gateway.regional_certificate_arn

    def reset(self) -> None:
        """Everything as it was when it was built, and a pipelines file just pushed."""
        self.clock.now = NOW
        # The same history has the same ARNs, and so the same order wherever they are in a set.
        mock_random.seed(0)
        self.aws.to_come = None
        self.events.waiting.clear()
        self.queues.waiting.clear()
        self.queues.sent.clear()
        self.queues.looks.clear()
        for arn, certificates in self._listed.items():
            self.listener(arn).certificates = list(certificates)
        for region, imports in self._imports.items():
            self.imports(region).clear()
            self.imports(region).update(imports)
        self.distribution.distribution_config = self._distribution
        self.gateway.regional_certificate_arn = self._gateway
        propagation.reset()
        propagation.clock = lambda: self.clock.now
        propagation.delays.update(dict.fromkeys(SERVICES, LATE))
        secretsmanager_backends[ACCOUNT][REGION].reset()
        s3_backends[ACCOUNT]["aws"].buckets[BUCKET].keys.clear()
        import_limit.refill()
        self.default = {arn: certificates[0] for arn, certificates in self._listed.items()}
        self.strangers = {arn: set(certificates[1:]) for arn, certificates in self._listed.items()}
        self.aws.run(lambda: self.store.put_pipelines_text(self.text), ours=False)
        self.aws.run(self._quiet_alarm, ours=False)

    def _quiet_alarm(self) -> None:
        """One that never rang: what it did in another history was later than this one."""
        cloudwatch = self.console("cloudwatch")
        cloudwatch.delete_alarms(AlarmNames=[ALARM])
        put_alarm(cloudwatch, ALARM, "OK")

    def alarm_is(self, state: str) -> None:
        self.console("cloudwatch").set_alarm_state(
            AlarmName=ALARM, StateValue=state, StateReason="a test"
        )

    def console(self, service: str, region: str = REGION) -> Any:
        return self._console[service, region]

    # What there is

    def pipeline(self, name: str) -> Pipeline[Any]:
        return next(each for each in self.file.pipelines if each.name == name)

    def targets(self, pipeline: str) -> list[Target]:
        """Those of the file and what they need, each after what it needs."""
        return list(with_needs(self.pipeline(pipeline).targets).values())

    def wave(self, pipeline: str, address: str) -> int:
        """The number of a target's wave, the first is 0. Who follows an import has no wave of its
        own, and belongs to the last."""
        found = self.pipeline(pipeline)
        return wave_numbers(found.targets, found.waves).get(address, len(found.waves) - 1)

    def strange_imports(self) -> set[str]:
        return {arn for imports in self._imports.values() for arn in imports}

    def imports(self, region: str) -> dict[str, CertBundle]:
        found: dict[str, CertBundle] = acm_backends[ACCOUNT][region]._certificates
        return found

    def imports_of(self, pipeline: str) -> dict[str, CertBundle]:
        return {
            arn: each
            for region in (REGION, EDGE)
            for arn, each in self.imports(region).items()
            if each.tags.get("certrail:pipeline") == pipeline
        }

    def balancer(self, listener: str) -> FakeLoadBalancer:
        balancers = elbv2_backends[ACCOUNT][REGION].load_balancers.values()
        return next(each for each in balancers if listener in each.listeners)

    def listener(self, arn: str) -> FakeListener:
        return self.balancer(arn).listeners[arn]

    @property
    def gateway(self) -> DomainName:
        found: DomainName = apigateway_backends[ACCOUNT][REGION].domain_names[GATEWAY]
        return found

    @property
    def distribution(self) -> Distribution:
        found: Distribution = cloudfront_backends[ACCOUNT]["aws"].distributions[DISTRIBUTION]
        return found

    def secret(self, name: str) -> str | None:
        """The current value of a secret."""
        secrets = secretsmanager_backends[ACCOUNT][REGION].secrets
        if name not in secrets:
            return None
        secret: Any = secrets[name]
        value: str = secret.versions[secret.default_version_id]["secret_string"]
        return value

    # What clients see of it

    def presented(self, place: Place) -> tuple[Leaf, ...]:
        """What a client may be given there: more than one where AWS chooses."""
        if place.where == DISTRIBUTION:
            viewer = self.distribution.ViewerCertificate
            return (self._leaf(EDGE, viewer["ACMCertificateArn"]),)
        if place.where == GATEWAY:
            return (self._leaf(REGION, self.gateway.regional_certificate_arn or ""),)
        if place.where in (ALB, NLB):
            default, *listed = self.listener(place.where).certificates
            leaves = [self._leaf(REGION, arn) for arn in listed] if place.name else []
            fitting = tuple(leaf for leaf in leaves if covers(leaf.names, place.name))
            # https://docs.aws.amazon.com/elasticloadbalancing/latest/application/https-listener-certificates.html
            return fitting or (self._leaf(REGION, default),)
        value = self.secret(place.where)
        if value is None:
            return ()
        try:
            return (leaf(json.loads(value)["certificate"].encode()),)
        except ValueError:
            return (Leaf("", ()),)

    def imported(self, arn: str) -> Leaf:
        return self._leaf(arn.split(":")[3], arn)

    def _leaf(self, region: str, arn: str) -> Leaf:
        held = self.imports(region).get(arn)
        return leaf(held.cert) if held else Leaf("", ())


def _spelled(*servers: Server) -> str:
    return ",".join(f"{each.host}:{each.port}" for each in servers)
