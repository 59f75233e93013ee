"""Every way in which a certificate can take another one's place, carried out and watched.

    python -m bench.rotation

For each combination: a certificate in ACM, and something that uses it and that no file names. AWS
is the sandbox's, once with the time that it takes to serve a change and once without. What clients
can get is looked at in two ways, from before the new certificate is published until days later:

  instants     what each address would serve for each name, right after every write of anybody, and
               whenever a change arrives somewhere: nothing else changes what is served
  connections  a real client connects to all of them, again and again

Prints what certrail did, and how often there was no valid certificate: never, else the exit status
is 1.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, Self

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
from sandbox import fronts, resources
from sandbox.calls import Call
from sandbox.dns import NameServer
from sandbox.edge import Edge
from sandbox.propagation import Delay, Service, propagation
from sandbox.rules.acm import import_limit
from sandbox.server import Server
from sandbox.visitor import Visit, Visitor, problem

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
AT_ONCE: dict[Service, Delay] = {}
# From one call to the next: what is between two of them is served, too, be it for a moment.
TICK = timedelta(seconds=1)
# After the last change, until nothing of before is served anywhere.
QUIET = timedelta(days=2)


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
    whether the old import is gone. instants: how often a name was looked at at an address, visits:
    how often the client connected; wrong: both, where there was no valid certificate.
    """

    case: Case
    preflight: Preflight
    arns: int
    stays: str
    serves: str
    retired: bool
    instants: int
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


def main(cases: Sequence[Case] = CASES) -> int:
    began = time.monotonic()
    outcomes = []
    print(
        "| key | usage | extended | name | used by | rotation | what happens | instants "
        "| connections | wrong |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    with World() as world:
        for case in cases:
            both = [world.rotate(case, delays) for delays in (DELAYS, AT_ONCE)]
            outcomes += both
            print(row(case, both), flush=True)
    wrong = [visit for outcome in outcomes for visit in outcome.wrong]
    print()
    for text, count in Counter(outcome.text.partition(":")[0] for outcome in outcomes).items():
        print(f"{count:4} {text}")
    print(
        f"{len(cases)} combinations, each with AWS's delays and without, in "
        f"{time.monotonic() - began:.0f} s: "
        f"{sum(outcome.instants for outcome in outcomes)} instants and "
        f"{sum(outcome.visits for outcome in outcomes)} connections, "
        f"{len(wrong)} without a valid certificate"
    )
    for visit in wrong[:10]:
        print(visit)
    return bool(wrong)


def row(case: Case, outcomes: Sequence[Outcome]) -> str:
    """outcomes: of the same case."""
    cells = [
        f"{case.before} → {case.after}",
        *("lost" if lost else "kept" for lost in (case.usage_lost, case.extended_lost)),
        "lost" if case.name_lost else "kept",
        case.user,
        case.rotation,
        " / ".join(dict.fromkeys(outcome.text for outcome in outcomes)),
        str(sum(outcome.instants for outcome in outcomes)),
        str(sum(outcome.visits for outcome in outcomes)),
        str(sum(len(outcome.wrong) for outcome in outcomes)),
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


class Watch:
    """What clients can get at some endpoints, asked of the fronts themselves: `look` is exhaustive
    for the instant, and what is served changes after a write and when a change arrives.

    looks: each an address and a name at an instant.
    """

    def __init__(self, endpoints: Sequence[Endpoint], clock: Clock) -> None:
        self.looks: list[Visit] = []
        self._clock = clock
        self._endpoints = endpoints
        self._roots = (authority().root,)

    def before(self, call: Call) -> None:
        """As a hook of the server: two calls are never at the same time."""
        self._clock.forward(TICK)

    def after(self, call: Call) -> None:
        """As a hook of the server: of objects in buckets no client hears."""
        if call.writes and call.service != "s3":
            self.look()

    def passes(self, time: timedelta) -> None:
        """Let time pass, and look whenever a change arrives at one of the addresses."""
        end = self._clock.now + time
        shares = {
            front.share(address) for _, front in self._fronts() for address in front.addresses
        }
        for moment in propagation.arrivals(shares):
            if self._clock.now < moment <= end:
                self._clock.now = moment
                self.look()
        self._clock.now = end

    def look(self) -> None:
        for endpoint, front in self._fronts():
            for address in front.addresses:
                choice = front.choice(address, endpoint.port)
                for name in endpoint.server_names:
                    shown = choice(name or None) if choice else ()
                    self._note(endpoint, str(address), name, shown)

    def _fronts(self) -> Iterator[tuple[Endpoint, fronts.Front]]:
        for endpoint in self._endpoints:
            front = fronts.named(endpoint.host.lower())
            assert front
            yield endpoint, front

    def _note(
        self, endpoint: Endpoint, address: str, name: str, shown: Sequence[fronts.Certificate]
    ) -> None:
        """shown: one for each key algorithm; a client may take any."""
        now = self._clock.now
        chains = [_der(each.fullchain) for each in shown]
        wrong = [problem(chain, name, now, self._roots) for chain in chains] or ["no handshake"]
        leaf = shown[0].leaf.fingerprint(hashes.SHA256()).hex() if shown else ""
        text = "; ".join(filter(None, wrong))
        self.looks.append(Visit(now, endpoint.host, address, endpoint.port, name, leaf, text))


class World(ExitStack):
    """An emulated AWS that clients can connect to. Takes one case after the other."""

    def __enter__(self) -> Self:
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

    def rotate(self, case: Case, delays: Mapping[Service, Delay]) -> Outcome:
        """Carry out one combination from the beginning. delays: AWS's."""
        clock = self._begin(delays)
        home = Acm(region=case.region)
        before = self._publish(bundle_before(case))
        self.settle(home, case, clock)
        old = self.resource(home)
        endpoints = ATTACH[case.user](self, old, case)
        # Whatever was there before is served nowhere any more.
        clock.forward(QUIET)
        watch = Watch(endpoints, clock)
        with Visitor(
            self.edge.address,
            self.nameserver.address,
            endpoints,
            roots=[authority().root],
            clock=clock,
        ) as visitor:
            watch.look()
            _connect(visitor, endpoints)
            self.server.before.append(watch.before)
            self.server.after.append(watch.after)
            after = self._publish(bundle_after(case))
            preflight = self._preflight(home, case, clock)
            failures = self.settle(home, case, clock)
            new = self.resource(home)
            _connect(visitor, endpoints)
            for passed in (timedelta(minutes=20), timedelta(hours=14)) if delays else ():
                watch.passes(passed)
                _connect(visitor, endpoints)
            watch.passes(RETIRE_AFTER)
            _connect(visitor, endpoints)
            self.settle(home, case, clock, reconcile=True)
            watch.passes(QUIET)
            last = _connect(visitor, endpoints)
        names = {before.fingerprint: "old", after.fingerprint: "new"}
        seen = {names.get(visit.fingerprint, visit.fingerprint) for visit in last}
        return Outcome(
            case=case,
            preflight=preflight,
            arns=len({old, new}),
            stays="; ".join(error.what for error in failures),
            serves=" and ".join(sorted(seen)),
            retired=old not in self._imports(case.region),
            instants=len(watch.looks),
            visits=len(visitor.visits),
            wrong=tuple(visit for visit in (*watch.looks, *visitor.visits) if visit.wrong),
        )

    def client(self, service: Any, region: str = REGION) -> Any:
        """A client of somebody else."""
        if (service, region) not in self._clients:
            self._clients[service, region] = self.session.client(service, region_name=region)
        return self._clients[service, region]

    def _begin(self, delays: Mapping[Service, Delay]) -> Clock:
        self.server.reset()
        clock = Clock()
        propagation.clock, propagation.delays = clock, dict(delays)
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

    def settle(
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
        wanted = self.store.current(PIPELINE)
        assert wanted
        found = preflight_target(
            self.store,
            home,
            wanted,
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

    def resource(self, home: Acm) -> str:
        held = self._records(home)[home.address].held
        assert held
        return held.resource

    def _imports(self, region: str) -> set[str]:
        listed = self.client("acm", region).list_certificates(
            Includes={"keyTypes": ["RSA_2048", "EC_prime256v1"]}
        )
        return {each["CertificateArn"] for each in listed["CertificateSummaryList"]}


def _connect(visitor: Visitor, endpoints: Sequence[Endpoint]) -> Sequence[Visit]:
    """Let the client see everything once more."""
    return visitor.a_round() if endpoints else ()


@cache
def _der(chain: bytes) -> tuple[bytes, ...]:
    """A chain in PEM as it is on the wire."""
    return tuple(each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(chain))


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
    sys.exit(main())
