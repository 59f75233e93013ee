"""The watcher at work: what is deployed is looked at by real handshakes, waves begin and go back.

The clock is the test's own; the certificates are valid whatever it says.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from textwrap import indent

import pytest
from moto.acm.models import acm_backends

from certrail.bundle import Bundle
from certrail.errors import AwsError, CertrailError, TargetRefused
from certrail.nameservers import Server
from certrail.pipelines import Issuer, Pipelines, load
from certrail.records import Record, Rollout, State
from certrail.store import (
    CONFIG_KEY,
    Current,
    Revoked,
    Rollback,
    current_key,
    record_key,
    rollout_key,
)
from deployers import watcher
from deployers.deploy import deploy_target
from deployers.held import Behind
from deployers.job import role_of
from deployers.judge import attention
from deployers.kinds.all import AnyTarget
from deployers.looks import AGAIN
from deployers.reached import Reached
from deployers.rollout import kept, plan
from deployers.verify import Network
from deployers.view import READERS, View, look_at
from deployers.watcher import Watcher
from sandbox import resources
from sandbox.propagation import Delay, propagation
from sandbox.visitor import Visitor
from tests.certrail.bundles import NOW, Authority, authority, make_bundle
from tests.deployers.cloud import ACCOUNT, DOMAINS, OURS, PIPELINE, Cloud, put_alarm
from tests.deployers.internet import internet

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
PATIENCE = timedelta(seconds=20)
CANARY_ADDRESS, REST_ADDRESS = (
    f"listener/app/{name}/{number * 16}/{number * 16}"
    for name, number in (("canary", "1"), ("rest", "2"))
)
CANARY = f"arn:aws:elasticloadbalancing:eu-central-1:{ACCOUNT}:{CANARY_ADDRESS}"
REST = f"arn:aws:elasticloadbalancing:us-east-1:{ACCOUNT}:{REST_ADDRESS}"
# Where the canary is, too, so that both would use one import.
NEIGHBOUR = REST.replace("us-east-1", "eu-central-1")
FILE = """\
issuers:
  ca:
    directory: https://ca.example/directory
    trust: |
{root}
{accounts}
defaults: {{region: eu-central-1}}
pipelines:
  - name: shop
    domains: [shop.example.com, "*.shop.example.com"]
{waves}
    targets:
      - {{type: listener, listener: "{canary}"{wave}}}
      - {{type: listener, listener: "{rest}", default: true}}
"""
CANARY_IMPORT = "acm/eu-central-1"
WAVES = "    waves: [{name: canary, bake: 30m}, {name: rest}]"
WITH_ALARM = "    waves: [{name: canary, bake: 30m, alarms: [errors]}, {name: rest}]"


@dataclass
class Heard:
    """What was told, in order."""

    told: list[tuple[str, object]] = field(default_factory=list)
    there: Reached | None = None
    passed: Reached | None = None

    @property
    def what(self) -> list[str]:
        return [name for name, _ in self.told]

    def done(self, rollout: Rollout, before: str | None, there: Reached) -> None:
        self.told.append(("served" if there.looked_at else "deployed", rollout.generation))
        self.there = there

    def wave_passed(self, rollout: Rollout, wave: str, there: Reached) -> None:
        self.told.append(("wave_passed", wave))
        self.passed = there

    def rolled_back(self, rollout: Rollout, why: Rollback) -> None:
        self.told.append(("rolled_back", why.reason))

    def waits(self, rollout: Rollout, wave: str) -> None:
        self.told.append(("waits", (wave, rollout.waits_for)))

    def rollout_failed(self, rollout: Rollout) -> None:
        self.told.append(("rollout_failed", rollout.failed))

    def at_risk(self, rollout: Rollout, late: Behind, why: str) -> None:
        told = (late.record.address, late.not_after, late.others, why)
        self.told.append(("at_risk", told))

    def check_failed(self, record: Record) -> None:
        self.told.append(("check_failed", record.address))

    def recovered(self, record: Record) -> None:
        self.told.append(("recovered", record.address))


class World:
    """A pipeline with two listeners, the first of them the canary's, the other one elsewhere or its
    neighbour, and all functions at work on it, each when its time has come."""

    def __init__(
        self,
        cloud: Cloud,
        way: Network,
        waves: str = WAVES,
        accounts: str = "",
        rest: str = REST,
    ) -> None:
        self.cloud, self.way = cloud, way
        self.now = NOW
        self.heard = Heard()
        text = FILE.format(
            root=indent(authority().root, " " * 6),
            waves=waves,
            wave=", wave: canary" if waves else "",
            canary=CANARY,
            rest=rest,
            accounts=accounts,
        )
        cloud.store.put_pipelines_text(text)
        self.file = load(text, CONFIG_KEY, Pipelines[AnyTarget])
        (self.pipeline,) = self.file.pipelines
        for arn in (CANARY, rest):
            resources.listener(arn, session=cloud.session, endpoint=cloud.endpoint)
        propagation.clock = lambda: self.now
        self.watcher = Watcher(
            cloud.store, cloud.aws, way, self.heard, "the watcher", lambda: self.now
        )

    # The functions

    def view(self) -> View:
        with ThreadPoolExecutor(READERS) as readers:
            return look_at(self.cloud.store, self.pipeline, readers)

    def deploy(self) -> None:
        """What the router and the deployers do, until nothing is ready."""
        while True:
            view = self.view()
            assert view.current
            steps = plan(view.targets, view.current, view.records, self.now, gates=view.gates)
            ready = [step.target for step in steps if step.ready]
            for target in ready:
                try:
                    deploy_target(
                        self.cloud.store,
                        target,
                        PIPELINE,
                        role=role_of(target, self.file.accounts),
                        aws=self.cloud.aws,
                        now=self.now,
                        rotation=self.pipeline.rotation,
                        generation=view.current.generation,
                    )
                except CertrailError:
                    # It is on the record.
                    continue
            if not ready:
                return

    def watch(self) -> None:
        self.watcher.watch(self.pipeline, self.file.accounts, PATIENCE)

    def settle(self) -> None:
        """Everything that is to be done now."""
        before = None
        while (after := self.written()) != before:
            before = after
            self.deploy()
            self.watch()

    def written(self) -> object:
        view = self.view()
        return view.current, view.records, view.rollout

    def due(self) -> datetime | None:
        view = self.view()
        waves, numbers = self.pipeline.waves, view.gates.waves
        return attention(view.rollout, view.current, waves, numbers, view.records, self.now)

    def run(self, until: timedelta) -> None:
        """Let time pass, and everything happen in its time."""
        end = self.now + until
        self.settle()
        while (then := self.due()) and then <= end:
            self.now = max(then, self.now + timedelta(seconds=1))
            self.settle()
        self.now = end

    def later(self, than: timedelta) -> None:
        """As `run`, where nothing happens in between but looks at alarms."""
        self.now += than
        self.settle()

    # What there is

    @property
    def rollout(self) -> Rollout:
        found = self.cloud.store.read(rollout_key(PIPELINE), Rollout)
        assert found
        return found.value

    @property
    def current(self) -> Current:
        found = self.cloud.store.current(PIPELINE)
        assert found
        return found

    def record(self, address: str) -> Record:
        found = self.cloud.store.read(record_key(PIPELINE, address), Record)
        assert found
        return found.value

    def closed_to(self, address: str) -> str | None:
        view = self.view()
        return view.gates.closed_to(address, view.records.get(address))

    def states(self) -> dict[str, str]:
        return {address: self.record(address).state for address in (CANARY_ADDRESS, REST_ADDRESS)}

    def held(self, address: str) -> str:
        """The ARN that a target holds."""
        held = self.record(address).held
        assert held
        return held.resource

    def keep(self, *, reconcile: bool = True) -> dict[str, str]:
        """What the daily run does for targets whose wave has not begun, or any run; twice, as what
        needs an import comes after it. Returns what was repaired, by address."""
        repaired: dict[str, str] = {}
        for _ in range(2):
            view = self.view()
            for step in kept(
                view.targets,
                view.current,
                view.records,
                view.gates,
                self.now,
                reconcile=reconcile,
            ):
                done = deploy_target(
                    self.cloud.store,
                    step.target,
                    PIPELINE,
                    role=None,
                    aws=self.cloud.aws,
                    now=self.now,
                    rotation=self.pipeline.rotation,
                    generation=step.generation,
                )
                if done.repaired:
                    repaired[step.target.address] = done.repaired
        return repaired

    def visitor(self, address: str) -> Visitor:
        """A client that never stops, at a listener that serves already."""
        held = self.record(address).held
        assert held
        assert self.way.proxy
        (nameserver,) = self.way.nameservers
        return Visitor(
            (self.way.proxy.host, self.way.proxy.port),
            (nameserver.host, nameserver.port),
            held.endpoints,
            roots=[authority().root],
            clock=lambda: NOW,
        )

    def alarm(self, *states: str) -> None:
        """What the waves' alarm has been by now."""
        now = self.now.replace(tzinfo=None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("moto.cloudwatch.models.utcnow", lambda: now)
            put_alarm(self.cloud.client("cloudwatch"), "errors", *states)


@pytest.fixture(scope="module")
def way() -> Iterator[Network]:
    with internet() as there:
        yield there


@pytest.fixture
def world(cloud: Cloud, way: Network) -> World:
    return World(cloud, way)


@pytest.fixture
def alarmed(cloud: Cloud, way: Network) -> World:
    return World(cloud, way, WITH_ALARM)


def unknown_root() -> Bundle:
    """Its chain builds, and leads to a root that no client has."""
    return Authority().bundle(DOMAINS)


# Served


def test_what_is_deployed_is_seen_and_then_all_is_served(cloud: Cloud, world: World) -> None:
    first = cloud.publish()
    world.settle()
    record = world.record(CANARY_ADDRESS)
    assert record.state is State.SERVED
    assert record.good == first.fingerprint
    assert record.check
    assert (record.check.served_at, record.check.next) == (NOW, NOW + AGAIN)
    world.run(HOUR)
    assert set(world.states().values()) == {State.SERVED}
    assert world.rollout.done_at == NOW + 30 * MINUTE
    assert world.heard.told == [("wave_passed", "canary"), ("served", 1)]


@pytest.mark.parametrize(("looked_at", "says"), [(0, "deployed"), (1, "served"), (2, "served")])
def test_what_nobody_looks_at_is_not_said_to_be_served(
    cloud: Cloud, world: World, looked_at: int, says: str
) -> None:
    """And an import is no target of its own where the file does not name it."""
    canary, rest = world.pipeline.targets
    canary = canary.model_copy(update={"verify": looked_at > 1})
    rest = rest.model_copy(update={"verify": looked_at > 0})
    world.pipeline = replace(world.pipeline, targets=(canary, rest))
    cloud.publish()
    world.run(HOUR)
    assert world.heard.told == [("wave_passed", "canary"), (says, 1)]
    assert (world.heard.passed, world.heard.there) == {
        0: (
            Reached((), (CANARY_ADDRESS,), ()),
            Reached((), (CANARY_ADDRESS, REST_ADDRESS), ()),
        ),
        1: (
            Reached((), (CANARY_ADDRESS,), ()),
            Reached((REST_ADDRESS,), (CANARY_ADDRESS,), ()),
        ),
        2: (
            Reached((CANARY_ADDRESS,), (), ()),
            Reached((CANARY_ADDRESS, REST_ADDRESS), (), ()),
        ),
    }[looked_at]


def test_a_wave_begins_when_the_one_before_has_baked(cloud: Cloud, world: World) -> None:
    cloud.publish()
    world.run(HOUR)
    second = cloud.publish()
    world.run(29 * MINUTE)
    assert world.record(CANARY_ADDRESS).fingerprint == second.fingerprint
    assert world.record(REST_ADDRESS).generation == 1
    assert world.closed_to(REST_ADDRESS) == "waiting for wave `canary`"
    world.run(2 * MINUTE)
    assert world.record(REST_ADDRESS).fingerprint == second.fingerprint
    assert set(world.states().values()) == {State.SERVED}


def test_not_yet_is_no_failure(cloud: Cloud, world: World) -> None:
    cloud.publish()
    world.run(HOUR)
    propagation.delays["elbv2"] = Delay(reimport=10 * MINUTE)
    second = cloud.publish()
    world.settle()
    record = world.record(CANARY_ADDRESS)
    assert record.state is State.DEPLOYED
    assert record.check
    assert f"not {second.fingerprint[:12]}" in record.check.saw
    world.run(20 * MINUTE)
    record = world.record(CANARY_ADDRESS)
    assert record.state is State.SERVED
    assert record.check
    assert record.check.saw == ""
    assert "check_failed" not in world.heard.what


def test_with_nothing_due_nothing_is_looked_at_and_nothing_written(
    cloud: Cloud, world: World
) -> None:
    cloud.publish()
    world.run(HOUR)
    mark = cloud.server.calls.mark()
    for _ in range(3):
        world.watch()
    assert cloud.server.calls.writes(since=mark) == []
    assert world.due() == world.record(CANARY_ADDRESS).check.next  # type: ignore[union-attr]


def test_what_was_changed_by_hand_is_told_once_and_recovers(cloud: Cloud, world: World) -> None:
    cloud.publish()
    world.run(HOUR)
    elb = cloud.client("elbv2")
    arn = world.record(CANARY_ADDRESS).needs["acm/eu-central-1"]
    foreign = resources.imported_certificate(DOMAINS, region="eu-central-1")
    certificates = [{"CertificateArn": arn}]
    elb.add_listener_certificates(ListenerArn=CANARY, Certificates=[{"CertificateArn": foreign}])
    elb.remove_listener_certificates(ListenerArn=CANARY, Certificates=certificates)
    world.run(3 * AGAIN)
    assert world.record(CANARY_ADDRESS).state is State.FAILED
    assert world.record(REST_ADDRESS).state is State.SERVED
    assert world.heard.what.count("check_failed") == 1
    # A rollout that is over is not rolled back.
    assert world.current.generation == 1
    elb.add_listener_certificates(ListenerArn=CANARY, Certificates=certificates)
    elb.remove_listener_certificates(ListenerArn=CANARY, Certificates=[{"CertificateArn": foreign}])
    world.run(2 * AGAIN)
    assert world.record(CANARY_ADDRESS).state is State.SERVED
    assert world.heard.what[-2:] == ["check_failed", "recovered"]


def test_what_is_deployed_again_recovers_when_it_is_served(cloud: Cloud, world: World) -> None:
    """Not before, and once, whatever failed in between."""
    cloud.publish()
    world.run(HOUR)
    arn = world.record(CANARY_ADDRESS).needs["acm/eu-central-1"]
    cloud.client("elbv2").remove_listener_certificates(
        ListenerArn=CANARY, Certificates=[{"CertificateArn": arn}]
    )
    world.run(2 * AGAIN)
    assert world.record(CANARY_ADDRESS).state is State.FAILED
    target = next(each for each in world.pipeline.targets if each.address == CANARY_ADDRESS)
    cloud.refuse("AddListenerCertificates", "AccessDenied", status=403)
    with pytest.raises(AwsError):
        cloud.deploy(target, now=world.now)
    cloud.deploy(target, now=world.now)
    assert world.record(CANARY_ADDRESS).state is State.DEPLOYED
    assert "recovered" not in world.heard.what
    world.run(2 * AGAIN)
    assert world.record(CANARY_ADDRESS).state is State.SERVED
    assert world.heard.what[-2:] == ["check_failed", "recovered"]


def test_an_alias_more_is_looked_at_after_the_daily_check(cloud: Cloud, way: Network) -> None:
    """What the target is to be looked at for has changed, so there is a new look."""
    world = World(cloud, way, waves="")
    cloud.publish()
    world.run(HOUR)
    target = next(each for each in world.pipeline.targets if each.address == REST_ADDRESS)
    before = world.record(REST_ADDRESS)
    cloud.client("elbv2", "us-east-1").modify_listener(ListenerArn=REST, Port=8443)
    cloud.deploy(target, now=world.now)
    after = world.record(REST_ADDRESS)
    assert before.held
    assert after.held
    assert {each.port for each in before.held.endpoints} == {443}
    assert {each.port for each in after.held.endpoints} == {8443}
    assert after.state is State.DEPLOYED
    world.settle()
    assert world.record(REST_ADDRESS).state is State.SERVED
    assert cloud.deploy(target, now=world.now).result == "unchanged"


STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


@pytest.mark.parametrize(("chain", "state"), [("its own", State.SERVED), ("another", State.FAILED)])
def test_a_ca_that_nobody_trusts_is_held_to_the_chain_that_was_published(
    cloud: Cloud, way: Network, chain: str, state: State
) -> None:
    world = World(cloud, way, waves="")
    world.pipeline = replace(
        world.pipeline, issuers=(Issuer("staging", STAGING),), targets=world.pipeline.targets[:1]
    )
    current = cloud.publish()
    world.deploy()
    found = cloud.store.read(current_key(PIPELINE), Current)
    assert found
    issued = replace(current.issued, issuer="staging", directory=STAGING)
    files = dict(current.files)
    if chain == "another":
        text = unknown_root().chain
        key = f"certificates/shop/{current.fingerprint}/chain.pem"
        cloud.client("s3").put_object(Bucket=cloud.store.bucket, Key=key, Body=text.encode())
        files["chain.pem"] = hashlib.sha256(text.encode()).hexdigest()
    staged = replace(current, issued=issued, files=files)
    cloud.store.write(current_key(PIPELINE), staged, Current, found.etag)
    world.watch()
    assert world.record(CANARY_ADDRESS).state is state


# Back


@pytest.mark.parametrize("waves", [WAVES, ""], ids=["waves", "no waves"])
def test_a_bad_bundle_is_stopped_at_the_first_wave_and_rolled_back(
    cloud: Cloud, way: Network, waves: str
) -> None:
    world = World(cloud, way, waves)
    good = cloud.publish()
    world.run(HOUR)
    with world.visitor(REST_ADDRESS) as client:
        mark = cloud.server.calls.mark()
        bad = cloud.publish(bundle=unknown_root())
        world.run(HOUR)
        client.a_round()
        assert {visit.fingerprint for visit in client.a_round()} == {good.fingerprint}
        if waves:
            assert client.fingerprints == [good.fingerprint]
            assert client.wrong == []
    current = world.current
    assert (current.generation, current.fingerprint) == (3, good.fingerprint)
    assert current.rollback
    assert (current.rollback.of, current.rollback.generation) == (bad.fingerprint, 2)
    assert current.rollback.by == "the watcher"
    assert f"clients do not get {bad.fingerprint[:12]}" in current.rollback.reason
    assert set(world.states().values()) == {State.SERVED}
    assert {world.record(each).fingerprint for each in world.states()} == {good.fingerprint}
    assert world.rollout.done_at
    told = [what for what in world.heard.what if what not in {"check_failed", "recovered"}]
    assert told[-2:] == ["rolled_back", "served"]
    failed = 1 if waves else 2
    assert world.heard.what.count("check_failed") == failed
    assert world.heard.what.count("recovered") == failed
    if waves:
        # To the other wave's region nothing was written.
        writes = cloud.server.calls.writes("acm", "elasticloadbalancing", since=mark)
        assert {call.region for call in writes} == {"eu-central-1"}
        assert [call.action for call in writes] == ["acm:ImportCertificate"] * 2


def test_what_acm_itself_refuses_is_rolled_back_before_anybody_gets_it(
    cloud: Cloud, world: World
) -> None:
    good = cloud.publish()
    world.run(HOUR)
    with world.visitor(CANARY_ADDRESS) as canary, world.visitor(REST_ADDRESS) as rest:
        wrong = replace(make_bundle(DOMAINS), chain=unknown_root().chain)
        cloud.publish(bundle=wrong)
        world.run(HOUR)
        for client in (canary, rest):
            client.a_round()
            assert client.wrong == []
            assert client.fingerprints == [good.fingerprint]
    assert world.current.rollback
    assert "ACM refused the certificate" in world.current.rollback.reason
    assert world.current.fingerprint == good.fingerprint


def test_what_somebody_else_put_there_is_told_and_not_rolled_back(
    cloud: Cloud, world: World
) -> None:
    """Of two certificates for a name a load balancer shows one, here a stranger's."""
    cloud.publish()
    world.run(HOUR)
    theirs = make_bundle(DOMAINS, days=900)
    arn = cloud.client("acm").import_certificate(
        Certificate=theirs.certificate.encode(),
        CertificateChain=theirs.chain.encode(),
        PrivateKey=theirs.private_key.reveal().encode(),
    )["CertificateArn"]
    elb = cloud.client("elbv2")
    elb.add_listener_certificates(ListenerArn=CANARY, Certificates=[{"CertificateArn": arn}])
    cloud.publish()
    world.run(HOUR)
    assert world.current.generation == 2
    record = world.record(CANARY_ADDRESS)
    assert record.state is State.FAILED
    assert record.error
    assert f"serves {theirs.fingerprint[:12]}, not " in record.error
    assert world.rollout.failed
    assert "which certrail never put there" in world.rollout.failed
    assert "rolled_back" not in world.heard.what
    elb.remove_listener_certificates(ListenerArn=CANARY, Certificates=[{"CertificateArn": arn}])
    world.run(3 * HOUR)
    assert set(world.states().values()) == {State.SERVED}
    assert world.rollout.done_at


def test_a_rollback_that_fails_too_is_not_rolled_back(cloud: Cloud, world: World) -> None:
    cloud.publish()
    world.run(HOUR)
    cloud.publish(bundle=unknown_root())
    world.deploy()
    world.watch()
    assert world.current.rollback
    # Valid for longer, it fits better.
    foreign = resources.imported_certificate(DOMAINS, region="eu-central-1")
    cloud.client("elbv2").add_listener_certificates(
        ListenerArn=CANARY, Certificates=[{"CertificateArn": foreign}]
    )
    world.run(2 * HOUR)
    assert world.current.generation == 3
    assert world.rollout.failed
    assert "generation 3 is itself a rollback; `certrail issue shop`" in world.rollout.failed
    assert world.heard.what.count("rollout_failed") == 1


def test_the_first_certificate_has_nothing_to_go_back_to(cloud: Cloud, world: World) -> None:
    cloud.publish(bundle=unknown_root())
    world.run(HOUR)
    assert world.current.generation == 1
    assert world.rollout.failed
    assert "it is the pipeline's first certificate" in world.rollout.failed
    closed = world.closed_to(REST_ADDRESS)
    assert closed
    assert closed.startswith("stopped: wave `canary`")


def test_nobody_goes_back_to_what_is_about_to_end(cloud: Cloud, world: World) -> None:
    cloud.publish(bundle=make_bundle(DOMAINS, days=2))
    world.run(2 * AGAIN - 10 * MINUTE)
    cloud.publish(bundle=unknown_root())
    world.run(5 * MINUTE)
    assert world.current.generation == 2
    assert world.rollout.failed
    assert "before all clients had it" in world.rollout.failed


def test_nobody_goes_back_to_what_was_revoked(cloud: Cloud, world: World) -> None:
    good = cloud.publish().fingerprint
    world.run(HOUR)
    cloud.store.mark_revoked(PIPELINE, good, Revoked("superseded", NOW))
    cloud.publish(bundle=unknown_root())
    world.run(5 * MINUTE)
    assert world.current.generation == 2
    assert world.rollout.failed
    assert f"{good[:12]} was revoked (superseded, " in world.rollout.failed


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("privkey.pem", "the private key of {} is gone"),
        ("bundle.json", "{} was published before certrail kept what a rollback needs"),
    ],
)
def test_nobody_goes_back_to_what_is_not_all_there(
    cloud: Cloud, world: World, name: str, said: str
) -> None:
    good = cloud.publish().fingerprint
    world.run(HOUR)
    cloud.publish(bundle=unknown_root())
    cloud.client("s3").delete_object(
        Bucket=cloud.store.bucket, Key=f"certificates/shop/{good}/{name}"
    )
    world.settle()
    assert world.current.generation == 2
    assert world.rollout.failed
    assert f"Not rolled back: {said.format(good[:12])}" in world.rollout.failed
    assert world.heard.what[-2:] == ["check_failed", "rollout_failed"]


def test_what_cannot_be_reached_stops_the_wave_and_is_not_rolled_back(
    cloud: Cloud, world: World
) -> None:
    cloud.publish()
    world.run(HOUR)
    with socket.create_server(("127.0.0.1", 0)) as there:
        closed = Server(*there.getsockname())
    world.watcher = replace(world.watcher, way=replace(world.way, proxy=closed))
    cloud.publish()
    world.settle()
    record = world.record(CANARY_ADDRESS)
    assert record.state is State.DEPLOYED
    assert record.check
    assert "cannot be reached" in record.check.saw
    world.run(HOUR)
    record = world.record(CANARY_ADDRESS)
    assert record.state is State.FAILED
    assert record.error
    assert "`verify: false`" in record.error
    assert world.current.generation == 2
    assert world.rollout.failed
    assert "nothing is known against the certificate" in world.rollout.failed
    # AWS has what it should have: the daily run does not deploy it again.
    target = next(each for each in world.pipeline.targets if each.address == CANARY_ADDRESS)
    assert cloud.deploy(target, now=world.now).result == "unchanged"
    assert world.record(CANARY_ADDRESS) == record
    # And goes on when the way is open again.
    world.watcher = replace(world.watcher, way=world.way)
    world.run(AGAIN + HOUR)
    assert world.rollout.done_at
    assert set(world.states().values()) == {State.SERVED}


# Alarms


def test_the_first_wave_waits_for_its_alarm(cloud: Cloud, alarmed: World) -> None:
    alarmed.alarm("ALARM")
    cloud.publish()
    alarmed.settle()
    assert cloud.server.calls.of("acm:ImportCertificate") == []
    assert alarmed.rollout.began_at is None
    alarmed.alarm("OK")
    alarmed.run(2 * HOUR)
    assert alarmed.rollout.done_at
    assert set(alarmed.states().values()) == {State.SERVED}


def test_a_wait_is_told_once_and_once_more_when_what_is_held_soon_ends(
    cloud: Cloud, alarmed: World
) -> None:
    alarmed.alarm("OK")
    old = cloud.publish(bundle=make_bundle(DOMAINS, days=9))
    alarmed.run(HOUR)
    alarmed.alarm("ALARM")
    new = cloud.publish()
    alarmed.heard.told.clear()
    asked = alarmed.now
    alarmed.run(HOUR)
    alarmed.later(40 * HOUR)
    said = alarmed.rollout.waits_for
    assert alarmed.heard.told == [("waits", ("canary", said))]
    for _ in range(2):
        alarmed.later(10 * HOUR)
    assert alarmed.rollout.waits_since == asked
    assert alarmed.record(CANARY_ADDRESS).fingerprint == old.fingerprint
    # Both listeners and the import of each.
    at_risk = ("at_risk", (CANARY_IMPORT, old.facts.not_after, 3, said))
    assert alarmed.heard.told[1:] == [at_risk]
    # When it goes on, nothing is at risk any more.
    alarmed.alarm("OK")
    alarmed.run(HOUR)
    assert alarmed.record(REST_ADDRESS).fingerprint == new.fingerprint
    assert alarmed.rollout.waits_since is None
    assert alarmed.rollout.warned_at is None
    assert alarmed.heard.what == ["waits", "at_risk", "wave_passed", "served"]


def test_what_soon_ends_where_a_deployment_fails_is_told_with_the_reason(
    cloud: Cloud, world: World
) -> None:
    old = cloud.publish(bundle=make_bundle(DOMAINS, days=9))
    world.run(HOUR)
    cloud.client("elbv2").delete_listener(ListenerArn=CANARY)
    cloud.publish()
    world.settle()
    world.heard.told.clear()
    for _ in range(2):
        world.later(3 * AGAIN)
    error = world.record(CANARY_ADDRESS).error
    assert error
    # Its own import has the new one already.
    (told,) = world.heard.told
    assert told == ("at_risk", (CANARY_ADDRESS, old.facts.not_after, 2, error))


def test_a_short_life_is_not_at_risk_all_the_time(cloud: Cloud, alarmed: World) -> None:
    """One of six days has never got a week left, and is renewed with three."""
    alarmed.alarm("OK")
    cloud.publish(bundle=make_bundle(DOMAINS, days=6))
    alarmed.run(HOUR)
    alarmed.later(72 * HOUR)
    alarmed.alarm("ALARM")
    cloud.publish(bundle=make_bundle(DOMAINS, days=6))
    alarmed.later(34 * HOUR)
    assert "at_risk" not in alarmed.heard.what
    alarmed.later(4 * HOUR)
    assert alarmed.heard.what[-1] == "at_risk"


def test_an_alarm_during_the_bake_rolls_back(cloud: Cloud, alarmed: World) -> None:
    alarmed.alarm("OK")
    good = cloud.publish()
    alarmed.run(2 * HOUR)
    cloud.publish()
    alarmed.settle()
    assert alarmed.rollout.served_at
    alarmed.run(MINUTE)
    alarmed.alarm("ALARM")
    alarmed.run(10 * MINUTE)
    current = alarmed.current
    assert current.rollback
    assert "the alarm errors rings since" in current.rollback.reason
    assert current.fingerprint == good.fingerprint
    assert alarmed.record(REST_ADDRESS).fingerprint == good.fingerprint
    assert set(alarmed.states().values()) == {State.SERVED}


def test_an_alarm_that_rang_between_two_looks_rolls_back(cloud: Cloud, alarmed: World) -> None:
    good = cloud.publish()
    alarmed.alarm("OK")
    alarmed.run(HOUR)
    cloud.publish()
    alarmed.run(11 * MINUTE)
    alarmed.alarm("ALARM", "OK")
    alarmed.run(HOUR)
    assert (alarmed.current.generation, alarmed.current.fingerprint) == (3, good.fingerprint)
    assert alarmed.current.rollback
    assert "the alarm errors rang at " in alarmed.current.rollback.reason


def test_an_alarm_that_does_not_exist(cloud: Cloud, alarmed: World) -> None:
    cloud.publish()
    alarmed.settle()
    assert alarmed.rollout.failed
    assert "there is no alarm errors; create it" in alarmed.rollout.failed
    assert cloud.server.calls.of("acm:ImportCertificate") == []
    alarmed.alarm("OK")
    alarmed.run(2 * HOUR)
    assert alarmed.rollout.done_at


def test_a_stopped_rollout_is_told_once_for_each_reason(cloud: Cloud, alarmed: World) -> None:
    cloud.publish()
    alarmed.settle()
    alarmed.later(HOUR)
    with cloud.server.refuse("cloudwatch:DescribeAlarms", "AccessDenied", "Not you."):
        for _ in range(2):
            alarmed.later(HOUR)
    told = [said for _, said in alarmed.heard.told]
    assert alarmed.heard.what == ["rollout_failed"] * 2
    assert "there is no alarm errors" in str(told[0])
    assert "Not you." in str(told[1])


def test_an_alarm_of_another_account_is_looked_at_with_the_role_there(
    cloud: Cloud, way: Network
) -> None:
    arn = "arn:aws:cloudwatch:eu-west-1:222222222222:alarm:errors"
    allow = {"Effect": "Allow", "Action": "cloudwatch:DescribeAlarms", "Resource": "*"}
    role = cloud.role("222222222222", [allow])
    waves = f'    waves: [{{name: canary, alarms: ["{arn}"]}}, {{name: rest}}]'
    accounts = f"accounts: {{there: {{role_arn: '{role.role_arn}', external_id: abc}}}}"
    world = World(cloud, way, waves, accounts)
    cloud.publish()
    world.settle()
    assert world.rollout.failed
    assert f"there is no alarm {arn}" in world.rollout.failed
    seen = cloud.server.calls.of("cloudwatch:DescribeAlarms")
    assert {(call.account, call.region) for call in seen} == {("222222222222", "eu-west-1")}


def test_alarms_that_cannot_be_read_now_are_read_later(
    cloud: Cloud, alarmed: World, quick: None
) -> None:
    alarmed.alarm("OK")
    cloud.publish()
    with (
        cloud.server.refuse("cloudwatch:DescribeAlarms", "ThrottlingException", "Slow."),
        pytest.raises(AwsError, match="Slow"),
    ):
        alarmed.watch()
    with cloud.server.refuse("cloudwatch:DescribeAlarms", "AccessDenied", "Not you."):
        alarmed.watch()
    assert alarmed.rollout.failed
    assert "cloudwatch:DescribeAlarms" in alarmed.rollout.failed
    alarmed.run(2 * HOUR)
    assert alarmed.rollout.done_at


# Two rotations at a time


def test_who_never_had_it_does_not_get_it_by_going_back(cloud: Cloud, world: World) -> None:
    """A certificate in its first wave is followed by another one, which is bad."""
    first = cloud.publish()
    world.run(HOUR)
    second = cloud.publish()
    world.run(10 * MINUTE)
    bad = cloud.publish(bundle=unknown_root())
    world.run(10 * MINUTE)
    assert (world.current.generation, world.current.fingerprint) == (4, second.fingerprint)
    assert world.current.rollback
    assert world.current.rollback.of == bad.fingerprint
    canary, rest = world.record(CANARY_ADDRESS), world.record(REST_ADDRESS)
    assert (canary.state, canary.fingerprint) == (State.SERVED, second.fingerprint)
    assert (rest.state, rest.fingerprint) == (State.SERVED, first.fingerprint)
    assert world.closed_to(REST_ADDRESS) == "waiting for wave `canary`"
    world.run(HOUR)
    assert {world.record(each).fingerprint for each in world.states()} == {second.fingerprint}
    assert world.rollout.done_at


def test_where_the_one_before_was_served_nowhere_the_last_good_one_comes_back(
    cloud: Cloud, world: World
) -> None:
    good = cloud.publish()
    world.run(HOUR)
    cloud.publish()
    cloud.publish(bundle=unknown_root())
    world.run(HOUR)
    assert (world.current.generation, world.current.fingerprint) == (4, good.fingerprint)
    assert {world.record(each).fingerprint for each in world.states()} == {good.fingerprint}


def test_a_wave_does_not_touch_the_import_that_the_next_one_still_uses(
    cloud: Cloud, way: Network
) -> None:
    """By replacement: both listeners are in one region, and had one import."""
    world = World(cloud, way, f"    rotation: replace\n{WAVES}", rest=NEIGHBOUR)
    good = cloud.publish()
    world.run(HOUR)
    with world.visitor(REST_ADDRESS) as client:
        cloud.publish(bundle=unknown_root())
        world.run(HOUR)
        client.a_round()
        assert client.fingerprints == [good.fingerprint]
        assert client.wrong == []
    assert (world.current.generation, world.current.fingerprint) == (3, good.fingerprint)
    assert set(world.states().values()) == {State.SERVED}
    second = cloud.publish()
    world.run(10 * MINUTE)
    assert world.record(CANARY_ADDRESS).fingerprint == second.fingerprint
    assert world.record(REST_ADDRESS).fingerprint == good.fingerprint
    world.run(HOUR)
    assert world.record(REST_ADDRESS).fingerprint == second.fingerprint
    assert set(world.states().values()) == {State.SERVED}


# Changes by hand while a wave is awaited


def taken_away(cloud: Cloud, listener: str, arn: str) -> str:
    """Somebody takes an import off a listener. Returns what he gives it instead."""
    region = listener.split(":")[3]
    elb = cloud.client("elbv2", region)
    theirs = resources.imported_certificate(["other.example.net"], region=region)
    elb.modify_listener(ListenerArn=listener, Certificates=[{"CertificateArn": theirs}])
    elb.remove_listener_certificates(ListenerArn=listener, Certificates=[{"CertificateArn": arn}])
    return theirs


def certificates(cloud: Cloud, listener: str) -> list[str]:
    """The default's, and those of the list."""
    elb = cloud.client("elbv2", listener.split(":")[3])
    there = elb.describe_listener_certificates(ListenerArn=listener)["Certificates"]
    return [each["CertificateArn"] for each in there]


def test_who_waits_for_its_wave_is_kept_as_it_is(cloud: Cloud, world: World) -> None:
    first = cloud.publish()
    world.run(HOUR)
    cloud.publish()
    world.settle()
    arn = world.held(REST_ADDRESS)
    theirs = taken_away(cloud, REST, arn)
    assert world.keep() == {REST_ADDRESS: f"{theirs} was in its place"}
    record = world.record(REST_ADDRESS)
    assert (record.generation, record.fingerprint) == (1, first.fingerprint)
    assert certificates(cloud, REST) == [arn, arn]
    with world.visitor(REST_ADDRESS) as client:
        client.a_round()
        assert client.fingerprints == [first.fingerprint]
    mark = cloud.server.calls.mark()
    assert world.keep() == {}
    assert [each.action for each in cloud.server.calls.writes(since=mark)] == []
    world.run(HOUR)
    assert world.record(REST_ADDRESS).generation == 2
    assert set(world.states().values()) == {State.SERVED}


def test_a_repair_that_failed_is_tried_again_before_its_wave(cloud: Cloud, world: World) -> None:
    first = cloud.publish()
    world.run(HOUR)
    cloud.publish()
    world.settle()
    arn = world.held(REST_ADDRESS)
    theirs = taken_away(cloud, REST, arn)
    cloud.refuse("ModifyListener", "CertificateNotFound", "Not yet.", 400)
    with pytest.raises(TargetRefused):
        world.keep()
    assert world.record(REST_ADDRESS).state is State.FAILED
    assert world.keep(reconcile=False) == {}
    world.now += 2 * MINUTE
    assert world.keep(reconcile=False) == {REST_ADDRESS: f"{theirs} was in its place"}
    assert certificates(cloud, REST) == [arn, arn]
    record = world.record(REST_ADDRESS)
    assert (record.generation, record.fingerprint) == (1, first.fingerprint)


def test_who_waits_is_kept_also_where_its_import_was_replaced(cloud: Cloud, way: Network) -> None:
    world = World(cloud, way, f"    rotation: replace\n{WAVES}", rest=NEIGHBOUR)
    first = cloud.publish()
    world.run(HOUR)
    arn = world.held(REST_ADDRESS)
    cloud.publish()
    world.settle()
    assert world.held(CANARY_IMPORT) != arn
    theirs = taken_away(cloud, NEIGHBOUR, arn)
    assert world.keep() == {REST_ADDRESS: f"{theirs} was in its place"}
    assert certificates(cloud, NEIGHBOUR) == [arn, arn]
    assert world.record(REST_ADDRESS).fingerprint == first.fingerprint
    mark = cloud.server.calls.mark()
    assert world.keep() == {}
    assert [each.action for each in cloud.server.calls.writes(since=mark)] == []
    world.run(HOUR)
    assert world.held(REST_ADDRESS) == world.held(CANARY_IMPORT)
    assert set(world.states().values()) == {State.SERVED}


def test_an_import_deleted_before_its_wave_is_made_again(cloud: Cloud, world: World) -> None:
    first = cloud.publish()
    world.run(HOUR)
    cloud.publish()
    world.settle()
    arn = world.held("acm/us-east-1")
    # AWS would not let it go while it is in use.
    acm_backends[ACCOUNT]["us-east-1"]._certificates.pop(arn)
    world.keep()
    assert world.held("acm/us-east-1") != arn
    assert world.held(REST_ADDRESS) == world.held("acm/us-east-1")
    assert world.record(REST_ADDRESS).fingerprint == first.fingerprint
    with world.visitor(REST_ADDRESS) as client:
        client.a_round()
        assert client.fingerprints == [first.fingerprint]


# Two at once, and killed anywhere


def test_two_at_once_roll_back_once(cloud: Cloud, world: World) -> None:
    cloud.publish()
    world.run(HOUR)
    cloud.publish(bundle=unknown_root())
    world.deploy()
    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(world.watch) for _ in range(2)]:
            each.result()
    world.run(HOUR)
    assert world.current.generation == 3
    assert world.heard.what.count("rolled_back") == 1


class Died(BaseException):
    pass


# As many as there are.
@pytest.mark.parametrize("survives", range(17))
def test_killed_before_any_write_the_next_run_finishes(
    cloud: Cloud, world: World, survives: int
) -> None:
    good = cloud.publish()
    world.run(HOUR)
    cloud.publish(bundle=unknown_root())
    left = survives

    def die() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Died
        cloud.before("PutObject", die)

    cloud.before("PutObject", die)
    with pytest.raises(Died):
        world.run(HOUR)
    # The claim of a deployer that died is over after five minutes.
    world.now += 6 * MINUTE
    cloud.forget()
    world.run(HOUR)
    assert (world.current.generation, world.current.fingerprint) == (3, good.fingerprint)
    assert set(world.states().values()) == {State.SERVED}
    assert world.rollout.done_at


def test_a_record_that_was_written_meanwhile_is_left(cloud: Cloud, world: World) -> None:
    cloud.publish()
    world.deploy()
    key = record_key(PIPELINE, CANARY_ADDRESS)
    found = cloud.store.read(key, Record)
    assert found
    newer = replace(found.value, by="somebody else")

    def write() -> None:
        cloud.store.write(key, newer, Record, found.etag)

    cloud.before("PutObject", write)
    world.watch()
    assert world.record(CANARY_ADDRESS) == newer


# The function


@dataclass
class Context:
    left: int

    def get_remaining_time_in_millis(self) -> int:
        return self.left


@pytest.fixture
def handle(
    cloud: Cloud, way: Network, monkeypatch: pytest.MonkeyPatch, lambda_logs: None
) -> Callable[..., object]:
    assert way.proxy
    monkeypatch.setenv("CERTRAIL_BUCKET", cloud.store.bucket)
    monkeypatch.setenv("CERTRAIL_PROXY", str(way.proxy))
    monkeypatch.setenv("CERTRAIL_NAMESERVERS", ",".join(map(str, way.nameservers)))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", OURS)
    watcher._aws.cache_clear()

    def handle(*names: str, left: int = 60_000) -> object:
        messages = [
            {"messageId": str(number), "body": json.dumps({"pipeline": name})}
            for number, name in enumerate(names)
        ]
        return watcher.handle({"Records": messages}, Context(left))

    return handle


def test_the_function_looks_once_at_what_is_named_often(
    cloud: Cloud, world: World, handle: Callable[..., object]
) -> None:
    cloud.publish()
    world.deploy()
    mark = cloud.server.calls.mark()
    assert handle("shop", "shop", "gone", "shop") == {"batchItemFailures": []}
    assert world.record(CANARY_ADDRESS).state is State.SERVED
    keys = [
        str((call.params or {})["Key"])
        for call in cloud.server.calls.of("s3:PutObject", since=mark)
    ]
    assert sorted(keys) == sorted([record_key(PIPELINE, CANARY_ADDRESS), rollout_key(PIPELINE)])


def test_what_fails_comes_back(cloud: Cloud, world: World, handle: Callable[..., object]) -> None:
    key = current_key(PIPELINE)
    cloud.client("s3").put_object(Bucket=cloud.store.bucket, Key=key, Body=b"{}")
    failed = {"batchItemFailures": [{"itemIdentifier": "0"}, {"itemIdentifier": "2"}]}
    assert handle("shop", "gone", "shop") == failed
    assert handle("shop", left=5_000) == {"batchItemFailures": [{"itemIdentifier": "0"}]}


def test_it_needs_no_private_key(cloud: Cloud, world: World) -> None:
    cloud.publish()
    world.run(HOUR)
    cloud.publish(bundle=unknown_root())
    world.deploy()
    mark = cloud.server.calls.mark()
    world.watch()
    assert world.current.rollback
    read = {
        str((call.params or {})["Key"])
        for call in cloud.server.calls.of("s3:GetObject", since=mark)
    }
    assert not {key for key in read if key.endswith(".pem")}
