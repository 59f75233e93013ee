"""Every way in which a certificate can take another one's place, carried out and watched.

    python -m bench.rotation

For each combination: a certificate in ACM, something that uses it and that no file names, and a
client that connects to it all the time, from before the new certificate is published until days
later. AWS is the sandbox's, with the time that AWS takes to serve a change. Prints what certrail
did, and how often the client found no valid certificate: never, else the exit status is 1.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certrail.aws import Aws
from certrail.bundle import Bundle
from certrail.errors import CertrailError
from certrail.keys import KeyType
from certrail.records import Record
from certrail.secret import Secret
from certrail.store import Current, Issued, Store, Versioned, current_key, record_key
from certrail.target import Endpoint, Preflight, Rotation, Target
from deployers.deploy import deploy_target, preflight_target
from deployers.kinds.acm import RETIRE_AFTER, Acm
from deployers.rollout import plan
from deployers.view import followers
from issuer.checks import facts
from sandbox import resources
from sandbox.dns import NameServer
from sandbox.edge import Edge
from sandbox.propagation import Delay, Service, propagation
from sandbox.rules.acm import import_limit
from sandbox.server import Server
from sandbox.visitor import Visit, Visitor

PIPELINE = "shop"
BUCKET = "certrail-rotation"
REGION = "eu-central-1"
KEPT, OTHER = "shop.example.com", "api.example.com"
LISTENERS = f"arn:aws:elasticloadbalancing:{REGION}:{resources.ACCOUNT}:listener"
DISTRIBUTION = "E2QWRUHEXAMPLE"
# What AWS says of CloudFront and of edges; of load balancers it gives no figure.
DELAYS: dict[Service, Delay] = {
    "apigateway": Delay(timedelta(minutes=40), timedelta(minutes=40)),
    "cloudfront": Delay(reimport=timedelta(days=1), relink=timedelta(minutes=15)),
    "elbv2": Delay(timedelta(minutes=2), timedelta(minutes=2)),
}


class User(StrEnum):
    """What uses the certificate."""

    CLOUDFRONT = "CloudFront"
    ALB = "ALB"
    NLB = "NLB"
    API_GATEWAY = "API Gateway"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Case:
    """before, after: the keys. The rest: what the new certificate lacks, who uses the old one, and
    what the file says."""

    before: KeyType
    after: KeyType
    usage_lost: bool
    extended_lost: bool
    name_lost: bool
    user: User
    rotation: Rotation

    @property
    def region(self) -> str:
        return "us-east-1" if self.user is User.CLOUDFRONT else REGION


KEYS = (KeyType.ECDSA_P256, KeyType.RSA_2048)
CASES = tuple(
    Case(*values)
    for values in itertools.product(
        KEYS, KEYS, (False, True), (False, True), (False, True), User, Rotation
    )
)


@dataclass(frozen=True)
class Outcome:
    """preflight: as `certrail plan` shows it before anything is done.

    arns: how many imports were pointed to, one after the other. stays: why the user did not move,
    empty where it did. serves: `new`, `old`, or what else the client got at the end. retired:
    whether the old import is gone. visits: of the client; wrong: those without a valid certificate.
    """

    case: Case
    preflight: Preflight
    arns: int
    stays: str
    serves: str
    retired: bool
    visits: int
    wrong: tuple[Visit, ...]

    @property
    def text(self) -> str:
        if self.arns == 1:
            return "in place"
        if self.stays:
            return f"new ARN; stays on the old one: {self.stays}"
        moved = "" if self.case.user is User.NOTHING else ", moved"
        return f"new ARN{moved}, old one {'retired' if self.retired else 'still there'}"


def main() -> None:
    began = time.monotonic()
    outcomes = []
    print("| key | usage | extended | name | used by | rotation | what happens | connections |")
    print("|---|---|---|---|---|---|---|---|")
    with World() as world:
        for case in CASES:
            outcome = world.rotate(case)
            outcomes.append(outcome)
            print(row(outcome), flush=True)
    wrong = [visit for outcome in outcomes for visit in outcome.wrong]
    print()
    for text, count in Counter(outcome.text.partition(":")[0] for outcome in outcomes).items():
        print(f"{count:4} {text}")
    visits = sum(outcome.visits for outcome in outcomes)
    print(
        f"{len(outcomes)} combinations in {time.monotonic() - began:.0f} s: {visits} connections, "
        f"{len(wrong)} without a valid certificate"
    )
    for visit in wrong[:10]:
        print(visit)
    sys.exit(bool(wrong))


def row(outcome: Outcome) -> str:
    case = outcome.case
    cells = [
        f"{case.before} → {case.after}",
        *("lost" if lost else "kept" for lost in (case.usage_lost, case.extended_lost)),
        "lost" if case.name_lost else "kept",
        case.user,
        case.rotation,
        outcome.text,
        f"{outcome.visits}, {len(outcome.wrong)} wrong",
    ]
    return f"| {' | '.join(cells)} |"


# The world.


class Clock:
    """The time of everything but ACM's `ImportedAt`; turned by hand."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, time: timedelta) -> None:
        self.now += time


class World(ExitStack):
    """An emulated AWS that clients can connect to. Takes one case after the other."""

    def __enter__(self) -> World:
        super().__enter__()
        self.server = self.enter_context(Server())
        self.nameserver = self.enter_context(NameServer())
        self.edge = self.enter_context(Edge())
        self.enter_context(_environment(AWS_ENDPOINT_URL=self.server.endpoint))
        self.session = _session("somebody-else")
        self.aws = Aws(_session("certrail"))
        self.store = Store(BUCKET, self.aws)
        self._clients: dict[tuple[str, str], Any] = {}
        return self

    def rotate(self, case: Case) -> Outcome:
        """Carry out one combination from the beginning."""
        clock = self._begin()
        home = Acm(region=case.region)
        before = self._publish(bundle_before(case))
        self._settle(home, case, clock)
        old = self._resource(home)
        endpoints = ATTACH[case.user](self, old, case)
        # Whatever was there before is served nowhere any more.
        clock.forward(timedelta(days=2))
        with Visitor(
            self.edge.address,
            self.nameserver.address,
            endpoints,
            roots=[authority().root],
            clock=clock,
        ) as visitor:
            _look(visitor, endpoints)
            after = self._publish(bundle_after(case))
            preflight = self._preflight(home, case, clock)
            failures = self._settle(home, case, clock)
            new = self._resource(home)
            _look(visitor, endpoints)
            for passed in (timedelta(minutes=20), timedelta(hours=1), timedelta(hours=13)) * 2:
                clock.forward(passed)
                last = _look(visitor, endpoints)
            clock.forward(RETIRE_AFTER)
            self._settle(home, case, clock, reconcile=True)
            last = _look(visitor, endpoints)
        names = {before.fingerprint: "old", after.fingerprint: "new"}
        seen = {names.get(visit.fingerprint, visit.fingerprint) for visit in last}
        return Outcome(
            case=case,
            preflight=preflight,
            arns=len({old, new}),
            stays="; ".join(error.what for error in failures),
            serves=" and ".join(sorted(seen)),
            retired=old not in self._imports(case.region),
            visits=len(visitor.visits),
            wrong=tuple(visitor.wrong),
        )

    def client(self, service: Any, region: str = REGION) -> Any:
        """A client of somebody else."""
        if (service, region) not in self._clients:
            self._clients[service, region] = self.session.client(service, region_name=region)
        return self._clients[service, region]

    def _begin(self) -> Clock:
        self.server.reset()
        clock = Clock()
        propagation.clock, propagation.delays = clock, dict(DELAYS)
        s3 = self.client("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_bucket_encryption(
            Bucket=BUCKET,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
            },
        )
        return clock

    def _publish(self, bundle: Bundle) -> Bundle:
        after: Versioned[Current] | None = self.store.read(current_key(PIPELINE), Current)
        issued = Issued(
            issuer="bench",
            directory="https://ca.example/directory",
            account="https://ca.example/account/1",
            profile=None,
            key_type=bundle.facts.key_type,
            domains=bundle.facts.domains,
        )
        self.store.publish(PIPELINE, bundle, issued, after=after, now=bundle.facts.not_before)
        return bundle

    def _settle(
        self, home: Acm, case: Case, clock: Clock, *, reconcile: bool = False
    ) -> list[CertrailError]:
        """Follow the plan until nothing is ready, those who have to follow among the targets."""
        failures: list[CertrailError] = []
        done: set[str] = set()
        current = self.store.current(PIPELINE)
        records = self._records(home)
        records |= self._records(*followers(records.values(), [home]))
        while True:
            targets = [home, *followers(records.values(), [home])]
            steps = plan(targets, current, records, clock(), reconcile=reconcile)
            ready = [step for step in steps if step.ready and step.target.address not in done]
            if not ready:
                return failures
            for step in ready:
                import_limit.refill()
                done |= {step.target.address} if reconcile else set()
                try:
                    deploy_target(
                        self.store,
                        step.target,
                        PIPELINE,
                        role=None,
                        aws=self.aws,
                        now=clock(),
                        rotation=case.rotation,
                    )
                except CertrailError as error:
                    failures.append(error)
                records |= self._records(step.target)

    def _preflight(self, home: Acm, case: Case, clock: Clock) -> Preflight:
        found = preflight_target(
            self.store,
            home,
            PIPELINE,
            role=None,
            aws=self.aws,
            rotation=case.rotation,
            now=clock(),
        )
        assert found
        return found

    def _records(self, *targets: Target) -> dict[str, Record]:
        seen = [self.store.read(record_key(PIPELINE, each.address), Record) for each in targets]
        return {each.value.address: each.value for each in seen if each}

    def _resource(self, home: Acm) -> str:
        held = self._records(home)[home.address].held
        assert held
        return held.resource

    def _imports(self, region: str) -> set[str]:
        listed = self.client("acm", region).list_certificates(
            Includes={"keyTypes": ["RSA_2048", "EC_prime256v1"]}
        )
        return {each["CertificateArn"] for each in listed["CertificateSummaryList"]}


def _look(visitor: Visitor, endpoints: Sequence[Endpoint]) -> Sequence[Visit]:
    """Let the client see everything once more."""
    return visitor.a_round() if endpoints else ()


# Who uses it: made by hand, as somebody would who never heard of certrail.


def _cloudfront(world: World, arn: str, case: Case) -> list[Endpoint]:
    aliases = (KEPT, OTHER)
    resources.distribution(
        DISTRIBUTION, aliases, session=world.session, endpoint=world.server.endpoint
    )
    client = world.client("cloudfront")
    there = client.get_distribution_config(Id=DISTRIBUTION)
    viewer = {
        "ACMCertificateArn": arn,
        "SSLSupportMethod": "sni-only",
        "MinimumProtocolVersion": "TLSv1.2_2021",
    }
    client.update_distribution(
        Id=DISTRIBUTION,
        IfMatch=there["ETag"],
        DistributionConfig={**there["DistributionConfig"], "ViewerCertificate": viewer},
    )
    host = client.get_distribution(Id=DISTRIBUTION)["Distribution"]["DomainName"]
    return [Endpoint(host, 443, aliases)]


def _listener(path: str) -> Callable[[World, str, Case], list[Endpoint]]:
    def attach(world: World, arn: str, case: Case) -> list[Endpoint]:
        listener = resources.listener(
            f"{LISTENERS}/{path}", session=world.session, endpoint=world.server.endpoint
        )
        client = world.client("elbv2")
        client.modify_listener(ListenerArn=listener, Certificates=[{"CertificateArn": arn}])
        client.add_listener_certificates(
            ListenerArn=listener, Certificates=[{"CertificateArn": arn}]
        )
        (balancer,) = client.describe_load_balancers()["LoadBalancers"]
        # A name that left the file is nobody's any more; a listener does not know which it has.
        names = (KEPT,) if case.name_lost else (KEPT, OTHER)
        return [Endpoint(balancer["DNSName"], 443, (*names, ""))]

    return attach


def _api_gateway(world: World, arn: str, case: Case) -> list[Endpoint]:
    resources.domain_name(
        OTHER, session=world.session, endpoint=world.server.endpoint, region=REGION
    )
    client = world.client("apigateway")
    there = client.update_domain_name(
        domainName=OTHER,
        patchOperations=[{"op": "replace", "path": "/regionalCertificateArn", "value": arn}],
    )
    return [Endpoint(there["regionalDomainName"], 443, (OTHER,))]


ATTACH: dict[User, Callable[[World, str, Case], list[Endpoint]]] = {
    User.CLOUDFRONT: _cloudfront,
    User.ALB: _listener("app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2"),
    User.NLB: _listener("net/mail/60dc6c495c0c9188/e2f7dc8efc522ab2"),
    User.API_GATEWAY: _api_gateway,
    User.NOTHING: lambda world, arn, case: [],
}


# The certificates: each is made once, the keys too.


def bundle_before(case: Case) -> Bundle:
    return authority().bundle("before", case.before, case.usage_lost, case.extended_lost, True)


def bundle_after(case: Case) -> Bundle:
    return authority().bundle("after", case.after, False, False, not case.name_lost)


class Authority:
    """A root and one intermediate that signs leaves."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC).replace(microsecond=0)
        self._keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
        root = self._authority("Root", "Root", 0, 0)
        self._issuer = self._authority("Intermediate", "Root", 1, 0)
        self.root, self._chain = _pem(root), _pem(self._issuer)

    @cache  # noqa: B019 (there is one authority)
    def bundle(
        self, which: str, key_type: KeyType, usage: bool, extended: bool, other: bool
    ) -> Bundle:
        """which: two of the same kind are two. usage, extended: with one that nobody needs.
        other: for the second name as well."""
        names = [KEPT, OTHER] if other else [KEPT]
        key = key_of(key_type)
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH]
        purposes += [ExtendedKeyUsageOID.CODE_SIGNING] if extended else []
        leaf = (
            self._builder(KEPT, "Intermediate", key, timedelta(days=90))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
            .add_extension(_usage(isinstance(key, rsa.RSAPrivateKey), usage), True)
            .add_extension(x509.ExtendedKeyUsage(purposes), False)
            .sign(self._keys[1], hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Bundle(facts(leaf, key_type), _pem(leaf), self._chain, Secret(private.decode()))

    def _authority(self, name: str, by: str, key: int, signs: int) -> x509.Certificate:
        return (
            self._builder(name, by, self._keys[key], timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._keys[signs], hashes.SHA256())
        )

    def _builder(self, name: str, by: str, key: Any, life: timedelta) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(by))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - timedelta(hours=1))
            .not_valid_after(self._now + life)
        )


@cache
def authority() -> Authority:
    return Authority()


@cache
def key_of(key_type: KeyType) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    if key_type is KeyType.ECDSA_P256:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, 2048)


def _usage(encipherment: bool, more: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=more,
        key_encipherment=encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _session(key: str) -> boto3.Session:
    return boto3.Session(key, "secret", region_name=REGION)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


if __name__ == "__main__":
    main()
