"""A thousand targets in ten accounts: how many AWS calls they take, and how long it is until they
are deployed, and until clients were seen to get them. The functions' code as it is, on a simulated
clock. See README.md beside this.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import random
import sys
import types
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from functools import partial
from textwrap import indent
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import botocore.endpoint
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.handlers import BUILTIN_HANDLERS
from moto.core.botocore_stubber import MockRawResponse
from moto.s3.models import s3_backends
from moto.sqs.models import SQSBackend, sqs_backends

from bench.timeline import Timeline
from certrail.aws import Aws
from certrail.nameservers import Server as Address
from certrail.store import CONFIG_KEY, Store, current_key
from certrail.target import Endpoint
from deployers import handler, router, watcher
from deployers.kinds.all import KINDS
from deployers.seen import Seen, Verdict
from deployers.verify import AT_ONCE, Network, Wanted, look
from deployers.view import READERS
from sandbox import resources
from sandbox.calls import CREDENTIAL, Call, queue_name
from sandbox.propagation import Delay, Service, propagation
from sandbox.rules.acm import import_limit
from sandbox.server import Server
from tests.certrail.bundles import NOW, authority
from tests.deployers.cloud import ACCOUNT, OURS, REGION, Cloud
from tests.deployers.histories.queues import REMEMBERED
from tests.deployers.internet import internet

ACCOUNTS = [f"{number:012d}" for number in range(200000000001, 200000000011)]

# Assumed, in seconds: a call of AWS from Lambda in the same region, one of S3, and from a PUT to
# the message in the router's queue ("usually seconds").
CALL, S3_CALL, EVENT = 0.08, 0.03, 1.0
# Router and watcher deal with records sixteen at a time; here one after the other, so much faster.
RECORD_CALL = S3_CALL / READERS
INVOKE = 0.02
# Assumed, too: an answer of the DNS, and a connection with its handshake.
LOOKUP, HANDSHAKE = 0.02, 0.1
# And until AWS serves a change everywhere. It says "minutes" of distributions, and nothing of load
# balancers.
DELAYS: dict[Service, Delay] = {
    "cloudfront": Delay(timedelta(minutes=5), timedelta(minutes=5)),
    "elbv2": Delay(timedelta(seconds=5), timedelta(seconds=5)),
}
# As in template.yaml.
BATCH, LOOKS, BATCH_WINDOW = 100, 2, 1.0
ROUTERS, WATCHERS, DEPLOYERS = 2, 10, 25
WATCHER_TIMEOUT = 120_000

# Calls a second, for an account and region, as far as AWS says:
# docs.aws.amazon.com/acm/latest/userguide/acm-limits.html
# docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
# It says nothing of CloudFront and Elastic Load Balancing.
LIMITS = {
    "acm:AddTagsToCertificate": 5,
    "acm:DescribeCertificate": 10,
    "acm:GetCertificate": 10,
    "acm:ListTagsForCertificate": 10,
    "secretsmanager:CreateSecret": 50,
    "secretsmanager:DescribeSecret": 40,
    "secretsmanager:PutSecretValue": 50,
}
# The sandbox limits these itself: sandbox/rules/acm.py.
IMPORTS = "acm:ImportCertificate"
ROUTER, WATCHER, NOBODY = "router", "watcher", "somebody-else"
WATCH_QUEUE = "watch"
# The modules of the functions, and the access key by which their calls are known.
FUNCTIONS = {router: ROUTER, handler: OURS, watcher: WATCHER}
BUCKET_EVENTS = ("deployments/", "rollouts/", "found/")


@dataclass
class Buckets:
    """A token bucket for each action, account and region, which holds what comes in a second: AWS
    names no burst, and a rate "per second". taken: from each so far."""

    timeline: Timeline
    full_at: dict[tuple[str, str, str], float] = field(default_factory=dict)
    taken: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def refuse(self, call: Call) -> bool:
        rate = LIMITS.get(call.action)
        if rate is None:
            return False
        key, now = (call.action, call.account, call.region), self.timeline.now
        full_at = max(self.full_at.get(key, now), now)
        if full_at - now > 1:
            return True
        self.full_at[key] = full_at + 1 / rate
        self.taken[key] += 1
        return False

    def floor(self) -> float:
        """In how many seconds all that was taken comes at its rate, with the first at once."""
        return max(
            ((n - 1) / LIMITS[action] for (action, _, _), n in self.taken.items()), default=0.0
        )


@dataclass
class Message:
    body: str
    group: str
    receives: int = 0
    id: str = field(default_factory=lambda: str(uuid4()))


@dataclass
class Fifo:
    """A FIFO queue and the function that takes from it: a group at a time, so many at once."""

    kind: str
    waiting: dict[str, deque[Message]] = field(default_factory=lambda: defaultdict(deque))
    sent: dict[str, float] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    held: dict[str, float] = field(default_factory=dict)


class Fleet:
    """The template's functions on a simulated clock, which begins at `began`.

    deployed: when the last deployer was done. served: when the last rollout was written, or, where
    none is, the last look was over. there: when AWS serves everywhere what was written.
    """

    def __init__(self, cloud: Cloud, began: datetime) -> None:
        self.cloud = cloud
        self.began = began
        self.timeline = Timeline()
        self.queues = {kind: Fifo(kind) for kind in KINDS}
        self.calls: Counter[str] = Counter()
        self.throttled: Counter[str] = Counter()
        self.imports: Counter[tuple[str, str]] = Counter()
        self.deployed = self.there = 0.0
        self.rolled_out = self.looked = 0.0
        self.handshakes = 0
        self.invocations: Counter[str] = Counter()
        self._events: list[str] = []
        self._routers = 0
        self._routing = False
        self._looks: deque[str] = deque()
        self._watchers = 0
        self.buckets = Buckets(self.timeline)

    @property
    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.timeline.now)

    @property
    def served(self) -> float:
        return self.rolled_out or self.looked

    @property
    def floor(self) -> float:
        """What AWS's rates make of the calls."""
        most = max(self.imports.values(), default=0)
        return max(0.0, (most - 1) / import_limit.rate, self.buckets.floor())

    # What happens around a call

    def before(self, call: Call) -> None:
        if call.access_key == NOBODY:
            return
        if call.service == "s3":
            at_once = call.access_key in {ROUTER, WATCHER}
            self.timeline.take(RECORD_CALL if at_once else S3_CALL)
        else:
            self.timeline.take(CALL)

    def after(self, call: Call) -> None:
        if call.access_key == NOBODY:
            return
        self.calls[call.action] += 1
        good = call.status is not None and call.status < 300
        if not good:
            self.throttled[call.action] += call.service != "s3"
            return
        if call.action == IMPORTS:
            self.imports[call.account, call.region] += 1
        if call.writes and call.service in {"acm", "cloudfront", "elasticloadbalancing"}:
            at_edges = call.region == "us-east-1"
            delay = DELAYS["cloudfront" if at_edges else "elbv2"].relink
            self.there = max(self.there, self.timeline.now + delay.total_seconds())
        if call.action == "sqs:SendMessageBatch" and call.params:
            name = queue_name(call.params["QueueUrl"])
            # Nobody takes them from moto, which counts all that it has at every call.
            sqs_backends[call.account][call.region].get_queue(name)._messages.clear()
            for entry in call.params["Entries"]:
                if name == WATCH_QUEUE:
                    self.ask_to_look(entry)
                else:
                    self.sent(name.removesuffix(".fifo"), entry)
        if call.action == "s3:PutObject" and call.params:
            key = str(call.params["Key"])
            if key.startswith("rollouts/"):
                self.rolled_out = self.timeline.now
            if key == CONFIG_KEY or key.startswith(BUCKET_EVENTS):
                self.tell(key)

    def read(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        """In the place of sending a GetObject: of ten calls nine are this one, and most of the time
        that one takes is the way to moto and back."""
        signed, url = (
            CREDENTIAL.search(str(request.headers["Authorization"])),
            urlsplit(request.url),
        )
        access_key = signed["key"] if signed else NOBODY
        if access_key == NOBODY or url.query:
            return None
        self.timeline.take(RECORD_CALL if access_key in {ROUTER, WATCHER} else S3_CALL)
        self.calls["s3:GetObject"] += 1
        bucket, name = unquote(url.path).removeprefix("/").split("/", 1)
        held = s3_backends[ACCOUNT]["aws"].buckets[bucket].keys.get(name)
        status = 200 if held else 404
        body = held.value if held else b"<Error><Code>NoSuchKey</Code></Error>"
        headers: Any = {"Content-Length": str(len(body))} | ({"ETag": held.etag} if held else {})
        raw: Any = MockRawResponse(body)
        return AWSResponse(request.url, status, headers, raw)

    def tell(self, key: str) -> None:
        """An event of the bucket, on its way to the router."""
        body = json.dumps(
            {
                "source": "aws.s3",
                "detail": {"object": {"key": key}},
                "detail-type": "Object Created",
            }
        )

        def arrive() -> None:
            self._events.append(body)
            self._wake_router()

        self.timeline.at(self.timeline.now + EVENT, arrive)

    # The functions

    def _wake_router(self) -> None:
        if self._events and not self._routing and self._routers < ROUTERS:
            self._routing = True
            self.timeline.start(self.timeline.now + BATCH_WINDOW, self._route)

    def _route(self) -> None:
        self._routing = False
        batch, self._events = self._events[:BATCH], self._events[BATCH:]
        if not batch:
            return
        self._routers += 1
        self.invocations["router"] += 1
        try:
            event = {
                "Records": [
                    {"messageId": str(number), "body": body} for number, body in enumerate(batch)
                ]
            }
            failed = router.handle(event, None)
            if failed["batchItemFailures"]:
                raise RuntimeError(f"the router failed: {failed}")
        finally:
            self._routers -= 1
        self.timeline.at(self.timeline.now, self._wake_router)

    def check_everything(self) -> None:
        router.handle({"reconcile": True}, None)

    def sent(self, kind: str, entry: dict[str, Any]) -> None:
        queue, once = self.queues[kind], entry["MessageDeduplicationId"]
        sent = queue.sent.get(once)
        if sent is not None and self.timeline.now < sent + REMEMBERED.total_seconds():
            return
        queue.sent[once] = self.timeline.now
        queue.waiting[entry["MessageGroupId"]].append(
            Message(entry["MessageBody"], entry["MessageGroupId"])
        )
        self.timeline.at(self.timeline.now, lambda: self._take(queue))

    def hold(self, queue: str, receipt: str, seconds: Any) -> None:
        """In the place of moto's: the function hides its message for so long."""
        kind, _, message = receipt.partition("/")
        self.queues[kind].held[message] = float(seconds)

    def _take(self, queue: Fifo) -> None:
        for group, messages in queue.waiting.items():
            if len(queue.busy) >= DEPLOYERS:
                return
            if messages and group not in queue.busy:
                queue.busy.add(group)
                message = messages[0]
                run = partial(self._deploy, queue, message)
                self.timeline.start(self.timeline.now + INVOKE, run)

    def _deploy(self, queue: Fifo, message: Message) -> None:
        self.invocations[queue.kind] += 1
        message.receives += 1
        os.environ["CERTRAIL_KIND"] = queue.kind
        event = {
            "Records": [
                {
                    "messageId": message.id,
                    "receiptHandle": f"{queue.kind}/{message.id}",
                    "body": message.body,
                    "eventSourceARN": f"arn:aws:sqs:{REGION}:123456789012:{queue.kind}.fifo",
                }
            ]
        }
        answer = handler.handle(event, None)
        self.deployed = self.timeline.now
        if answer["batchItemFailures"]:
            wait = queue.held.pop(message.id, 360.0)

            def again() -> None:
                queue.busy.discard(message.group)
                self._take(queue)

            self.timeline.at(self.timeline.now + wait, again)
            return
        queue.waiting[message.group].popleft()
        queue.busy.discard(message.group)
        self.timeline.at(self.timeline.now, lambda: self._take(queue))

    def ask_to_look(self, entry: dict[str, Any]) -> None:
        def arrive() -> None:
            self._looks.append(entry["MessageBody"])
            self.timeline.at(self.timeline.now + BATCH_WINDOW, self._wake_watcher)

        self.timeline.at(self.timeline.now + entry["DelaySeconds"], arrive)

    def _wake_watcher(self) -> None:
        if self._looks and self._watchers < WATCHERS:
            self._watchers += 1
            batch = [self._looks.popleft() for _ in range(min(LOOKS, len(self._looks)))]
            self.timeline.start(self.timeline.now + INVOKE, lambda: self._watch(batch))

    def _watch(self, batch: Sequence[str]) -> None:
        self.invocations["watcher"] += 1
        records = [{"messageId": str(number), "body": body} for number, body in enumerate(batch)]
        failed = watcher.handle({"Records": records}, TwoMinutes())
        if failed["batchItemFailures"]:
            raise RuntimeError(f"the watcher failed: {failed}")
        self._watchers -= 1
        self.looked = self.timeline.now
        self.timeline.at(self.timeline.now, self._wake_watcher)

    def look(
        self, endpoints: Iterable[Endpoint], wanted: Wanted, way: Network, patience: timedelta
    ) -> dict[Endpoint, tuple[Seen, ...]]:
        """The watcher's look as it is, with the time that it would take on the internet."""
        # How long this machine takes says nothing of the patience that a function has.
        seen = look(endpoints, wanted, way, timedelta(hours=1))
        hosts = {endpoint.host for endpoint in seen}
        every = [each for there in seen.values() for each in there]
        # Where another certificate is seen, a second client has a look.
        handshakes = len(every) + sum(each.verdict is Verdict.OTHER for each in every)
        self.handshakes += handshakes
        took = math.ceil(len(hosts) / AT_ONCE) * LOOKUP
        took += math.ceil(handshakes / AT_ONCE) * HANDSHAKE
        if took > patience.total_seconds():
            raise RuntimeError(f"a look that takes {took:.0f} s")
        self.timeline.take(took)
        return seen

    def clock(self) -> type[datetime]:
        """`datetime` for a module that asks it what time it is."""
        fleet = self

        class Simulated(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return fleet.now.astimezone(tz)

        return Simulated


class TwoMinutes:
    """What Lambda hands to the watcher."""

    def get_remaining_time_in_millis(self) -> int:
        return WATCHER_TIMEOUT


def pipelines(count: int, accounts: Sequence[str]) -> str:
    """In every account and for every pipeline: three distributions, four listeners, a secret, and
    the imports in two regions that those need: ten."""
    root = indent(authority().root, " " * 6)
    roles = "\n".join(
        f"  a{n}: {{role_arn: 'arn:aws:iam::{account}:role/certrail', external_id: abc}}"
        for n, account in enumerate(accounts)
    )
    entries = []
    for p in range(count):
        targets = []
        for n in range(len(accounts)):
            targets += [
                f"      - {{type: cloudfront, account: a{n}, "
                f"distribution: {distribution(p, n, d)}}}"
                for d in range(3)
            ]
            targets += [
                f"      - {{type: listener, account: a{n}, listener: '{listener(p, n, each)}'}}"
                for each in range(4)
            ]
            targets.append(
                f"      - {{type: secretsmanager, account: a{n}, name: tls/p{p}/bundle}}"
            )
        names = ", ".join(f"'{name}'" for name in domains(p))
        entries.append(
            f"  - name: p{p}\n    domains: [{names}]\n    targets:\n" + "\n".join(targets)
        )
    return (
        f"issuers:\n  ca:\n    directory: 'https://ca.example/directory'\n    trust: |\n{root}\n"
        f"accounts:\n{roles}\ndefaults: {{region: {REGION}}}\npipelines:\n"
        + "\n".join(entries)
        + "\n"
    )


def domains(p: int) -> tuple[str, str]:
    return f"p{p}.example.com", f"*.p{p}.example.com"


def alias(p: int, n: int, d: int) -> str:
    """An alias belongs to one distribution alone."""
    return f"a{n}-d{d}.p{p}.example.com"


def distribution(p: int, n: int, d: int) -> str:
    return f"EP{p}A{n}D{d}"


def listener(p: int, n: int, each: int) -> str:
    number = f"{p:04x}{n:04x}{each:08x}"
    return (
        f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNTS[n]}:"
        f"listener/app/lb-{p}-{each}/{number}/{number}"
    )


# The bench

CHECK = "daily check"
PHASES = ("first deployment", "renewal, in place", CHECK)


@dataclass(frozen=True)
class Phase:
    """deployed, served: seconds until then. floor: what AWS's rates make of the calls, beside
    `deployed`. there: when AWS served it everywhere, which nobody can see earlier."""

    name: str
    calls: Counter[str]
    throttled: int
    handshakes: int
    deployed: float
    floor: float
    served: float
    there: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    targets = options.pipelines * options.accounts * 10
    print(
        f"{targets:,} targets of {options.pipelines} pipelines in {options.accounts} accounts, "
        f"two regions\n\n"
        f"{'':20}{'AWS calls':>10}{'a target':>9}{'of S3':>8}{'throttled':>10}{'handshakes':>11}"
        f"{'deployed':>10}{'floor':>7}{'ratio':>7}{'served':>8}{'by AWS':>8}"
    )
    calls = []
    logging.disable(logging.CRITICAL)
    try:
        for phase in bench(options.pipelines, ACCOUNTS[: options.accounts]):
            print(_row(phase, targets), flush=True)
            most = ", ".join(f"{action} {n:,}" for action, n in phase.calls.most_common(12))
            calls.append(f"{phase.name}: {most}")
    finally:
        logging.disable(logging.NOTSET)
    print("", *calls, sep="\n")
    return 0


def bench(count: int, accounts: Sequence[str]) -> Iterator[Phase]:
    """count: of pipelines. A day lies between one phase and the next, and an hour, so that all is
    to be looked at again."""
    random.seed(0)
    with Server() as server, internet() as way, pytest.MonkeyPatch.context() as patch:
        cloud = _furnished(server, way, count, accounts, patch)
        try:
            for day, name in enumerate(PHASES):
                began = NOW + day * timedelta(hours=25)
                yield _phase(name, Fleet(cloud, began), server, count, patch)
        finally:
            server.reset()
            for module in FUNCTIONS:
                module._aws.cache_clear()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument(
        "--pipelines", type=int, default=10, metavar="N", help="with ten targets an account (10)"
    )
    parser.add_argument(
        "--accounts",
        type=int,
        default=len(ACCOUNTS),
        choices=range(1, len(ACCOUNTS) + 1),
        metavar="N",
        help=f"1 to {len(ACCOUNTS)} ({len(ACCOUNTS)})",
    )
    return parser.parse_args(arguments)


def _furnished(
    server: Server,
    way: Network,
    count: int,
    accounts: Sequence[str],
    patch: pytest.MonkeyPatch,
) -> Cloud:
    patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    patch.setenv("AWS_DEFAULT_REGION", REGION)
    cloud = Cloud(server)
    cloud.reset()
    everything = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
    for n, account in enumerate(accounts):
        cloud.role(account, everything)
        for p in range(count):
            for d in range(3):
                resources.distribution(
                    distribution(p, n, d),
                    (alias(p, n, d),),
                    session=cloud.session,
                    endpoint=cloud.endpoint,
                    account=account,
                )
            for each in range(4):
                resources.listener(
                    listener(p, n, each),
                    session=cloud.session,
                    endpoint=cloud.endpoint,
                    names=domains(p),
                )
    sqs = cloud.client("sqs")
    fifo = {"FifoQueue": "true"}
    urls = {
        kind: sqs.create_queue(QueueName=f"{kind}.fifo", Attributes=fifo)["QueueUrl"]
        for kind in KINDS
    }
    looks = sqs.create_queue(QueueName=WATCH_QUEUE)["QueueUrl"]
    assert way.proxy
    patch.setenv("CERTRAIL_BUCKET", cloud.store.bucket)
    patch.setenv("CERTRAIL_QUEUES", json.dumps(urls))
    # Each deployer sets its own.
    patch.setenv("CERTRAIL_KIND", "")
    patch.setenv("CERTRAIL_WATCH_QUEUE", looks)
    patch.setenv("CERTRAIL_NAMESERVERS", ",".join(map(_spelled, way.nameservers)))
    patch.setenv("CERTRAIL_PROXY", _spelled(way.proxy))
    patch.setattr(router, "READERS", 1)
    patch.setattr(watcher, "READERS", 1)
    # What the functions have not written takes no time.
    cloud.store = Store(cloud.store.bucket, Aws(cloud.session))
    cloud.store.put_pipelines_text(pipelines(count, accounts))
    return cloud


def _spelled(server: Address) -> str:
    return f"{server.host}:{server.port}"


def _phase(name: str, fleet: Fleet, server: Server, count: int, patch: pytest.MonkeyPatch) -> Phase:
    reads: Any = ("before-send.s3.GetObject", fleet.read)
    BUILTIN_HANDLERS.append(reads)
    for module, key in FUNCTIONS.items():
        # After a day without work no function is warm.
        patch.setenv("AWS_ACCESS_KEY_ID", key)
        module._aws.cache_clear()
        module._aws().s3()
        patch.setattr(module, "datetime", fleet.clock())
    # The sessions made so far keep it.
    BUILTIN_HANDLERS.remove(reads)
    patch.setattr(import_limit, "clock", lambda: fleet.timeline.now)
    patch.setattr(import_limit, "burst", 1)
    import_limit.refill()
    propagation.clock, propagation.delays = (lambda: fleet.now), dict(DELAYS)
    patch.setattr(watcher, "look", fleet.look)
    patch.setattr(botocore.endpoint, "time", types.SimpleNamespace(sleep=fleet.timeline.take))
    patch.setattr(SQSBackend, "change_message_visibility", fleet.hold)
    if name == CHECK:
        fleet.timeline.start(0.0, fleet.check_everything)
    else:
        for p in range(count):
            fleet.cloud.publish(domains(p), pipeline=f"p{p}")
            fleet.tell(current_key(f"p{p}"))
    server.before.append(fleet.before)
    server.after.append(fleet.after)
    with server.refuse("*", "ThrottlingException", "Rate exceeded", when=fleet.buckets.refuse):
        fleet.timeline.run()
    server.before.clear()
    server.after.clear()
    return Phase(
        name,
        fleet.calls,
        sum(fleet.throttled.values()),
        fleet.handshakes,
        fleet.deployed,
        fleet.floor,
        fleet.served,
        fleet.there,
    )


def _row(phase: Phase, targets: int) -> str:
    buckets = sum(n for action, n in phase.calls.items() if action.startswith("s3:"))
    others = sum(phase.calls.values()) - buckets
    # A floor that is printed as 0.0 holds nobody up.
    ratio = f"{phase.deployed / phase.floor:.2f}" if phase.floor >= 0.05 else "-"
    by_aws = f"{phase.there:.1f}" if phase.there else "-"
    return (
        f"{phase.name:20}{others:10,}{others / targets:9.2f}{buckets / targets:8.2f}"
        f"{phase.throttled:10,}{phase.handshakes:11,}"
        f"{phase.deployed:10.1f}{phase.floor:7.1f}{ratio:>7}{phase.served:8.1f}{by_aws:>8}"
    )


if __name__ == "__main__":
    sys.exit(main())
