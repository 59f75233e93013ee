"""A thousand targets in ten accounts: how many AWS calls they take, and how long AWS's own rate
limits let it last. The functions' code as it is, on a simulated clock. See README.md beside this.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
import types
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import botocore.endpoint
import pytest
from moto.sqs.models import SQSBackend

from bench.timeline import Timeline
from certrail.aws import Aws
from certrail.store import CONFIG_KEY, Store, current_key
from deployers import handler, router
from deployers.kinds.all import KINDS
from sandbox import resources
from sandbox.calls import Call, queue_name
from sandbox.rules.acm import import_limit
from sandbox.server import Server
from tests.deployers.cloud import OURS, REGION, Cloud

ACCOUNTS = [f"{number:012d}" for number in range(200000000001, 200000000011)]

# Assumed, in seconds: a call of AWS from Lambda in the same region, one of S3, and from a PUT to
# the message in the router's queue ("usually seconds").
CALL, S3_CALL, EVENT = 0.08, 0.03, 1.0
# The router reads records sixteen at a time; here one after the other, so much faster.
ROUTER_S3_CALL = S3_CALL / 16
INVOKE = 0.02
# As in template.yaml.
BATCH, BATCH_WINDOW = 100, 1.0
ROUTERS, DEPLOYERS = 2, 25

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
IMPORTS = "acm:ImportCertificate"
ROUTER = "router"
BUCKET_EVENTS = ("deployments/", "rollouts/", "found/")


@dataclass
class Buckets:
    """Token buckets without a burst to speak of, as AWS names none."""

    timeline: Timeline
    full_at: dict[tuple[str, str, str], float] = field(default_factory=dict)

    def refuse(self, call: Call) -> bool:
        rate = LIMITS.get(call.action)
        if rate is None:
            return False
        key, now = (call.action, call.account, call.region), self.timeline.now
        full_at = max(self.full_at.get(key, now), now)
        if full_at - now > 1:
            return True
        self.full_at[key] = full_at + 1 / rate
        return False


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
    seen: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    held: dict[str, float] = field(default_factory=dict)


class Fleet:
    """The template's functions on a simulated clock."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.timeline = Timeline()
        self.queues = {kind: Fifo(kind) for kind in KINDS}
        self.calls: Counter[str] = Counter()
        self.throttled: Counter[str] = Counter()
        self.imports: Counter[tuple[str, str]] = Counter()
        self.last_write = 0.0
        self.invocations: Counter[str] = Counter()
        self._events: list[str] = []
        self._routers = 0
        self._routing = False
        self.buckets = Buckets(self.timeline)

    # What happens around a call

    def before(self, call: Call) -> None:
        if call.access_key == "somebody-else":
            return
        if call.service == "s3":
            self.timeline.take(ROUTER_S3_CALL if call.access_key == ROUTER else S3_CALL)
        else:
            self.timeline.take(CALL)

    def after(self, call: Call) -> None:
        if call.access_key == "somebody-else":
            return
        self.calls[call.action] += 1
        good = call.status is not None and call.status < 300
        if not good:
            self.throttled[call.action] += call.service != "s3"
            return
        if call.action == IMPORTS:
            self.imports[call.account, call.region] += 1
        if call.writes and call.service != "s3":
            self.last_write = self.timeline.now
        if call.action == "sqs:SendMessageBatch" and call.params:
            kind = queue_name(call.params["QueueUrl"]).removesuffix(".fifo")
            for entry in call.params["Entries"]:
                self.sent(kind, entry)
        if call.action == "s3:PutObject" and call.params:
            key = str(call.params["Key"])
            if key == CONFIG_KEY or key.startswith(BUCKET_EVENTS):
                self.tell(key)

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
        queue = self.queues[kind]
        if entry["MessageDeduplicationId"] in queue.seen:
            return
        queue.seen.add(entry["MessageDeduplicationId"])
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


def pipelines(count: int) -> str:
    """In every account and for every pipeline: three distributions, four listeners, a secret, and
    the imports in two regions that those need: ten."""
    accounts = "\n".join(
        f"  a{n}: {{role_arn: 'arn:aws:iam::{account}:role/certrail', external_id: abc}}"
        for n, account in enumerate(ACCOUNTS)
    )
    entries = []
    for p in range(count):
        targets = []
        for n in range(len(ACCOUNTS)):
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
        entries.append(
            f"  - name: p{p}\n    domains: [p{p}.example.com]\n    targets:\n" + "\n".join(targets)
        )
    return (
        f"issuers: {{ca: {{directory: 'https://ca.example/directory'}}}}\naccounts:\n{accounts}\n"
        f"defaults: {{region: {REGION}}}\npipelines:\n" + "\n".join(entries) + "\n"
    )


def distribution(p: int, n: int, d: int) -> str:
    return f"EP{p}A{n}D{d}"


def listener(p: int, n: int, each: int) -> str:
    number = f"{p:04x}{n:04x}{each:08x}"
    return (
        f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNTS[n]}:"
        f"listener/app/lb-{p}-{each}/{number}/{number}"
    )


# The bench


@dataclass(frozen=True)
class Phase:
    """seconds: until the last write outside the bucket. floor: what AWS's limits make of them."""

    name: str
    calls: Counter[str]
    throttled: int
    seconds: float
    floor: float


def main() -> int:
    options = _options()
    count = options.pipelines
    logging.disable(logging.CRITICAL)
    random.seed(0)
    with Server() as server, pytest.MonkeyPatch.context() as patch:
        cloud = _furnished(server, count, patch)
        phases = []
        for name in ("first deployment", "renewal, in place", "daily check"):
            phases.append(_phase(name, cloud, server, count, patch))
    print(_report(phases, count))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument(
        "--pipelines", type=int, default=10, metavar="N", help="with 100 targets each (10)"
    )
    return parser.parse_args()


def _furnished(server: Server, count: int, patch: pytest.MonkeyPatch) -> Cloud:
    patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    patch.setenv("AWS_DEFAULT_REGION", REGION)
    cloud = Cloud(server)
    cloud.reset()
    everything = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
    for n, account in enumerate(ACCOUNTS):
        cloud.role(account, everything)
        for p in range(count):
            names = (f"p{p}.example.com",)
            for d in range(3):
                resources.distribution(
                    distribution(p, n, d),
                    (),
                    session=cloud.session,
                    endpoint=cloud.endpoint,
                    account=account,
                )
            for each in range(4):
                resources.listener(
                    listener(p, n, each),
                    session=cloud.session,
                    endpoint=cloud.endpoint,
                    names=names,
                )
    urls = {
        kind: cloud.client("sqs").create_queue(
            QueueName=f"{kind}.fifo", Attributes={"FifoQueue": "true"}
        )["QueueUrl"]
        for kind in KINDS
    }
    patch.setenv("CERTRAIL_BUCKET", cloud.store.bucket)
    patch.setenv("CERTRAIL_QUEUES", json.dumps(urls))
    patch.setattr(router, "READERS", 1)
    for module, key in ((router, ROUTER), (handler, OURS)):
        patch.setenv("AWS_ACCESS_KEY_ID", key)
        module._aws.cache_clear()
        module._aws().s3()
    # What the functions have not written takes no time.
    cloud.store = Store(cloud.store.bucket, Aws(cloud.session))
    cloud.store.put_pipelines_text(pipelines(count))
    return cloud


def _phase(name: str, cloud: Cloud, server: Server, count: int, patch: pytest.MonkeyPatch) -> Phase:
    fleet = Fleet(cloud)
    import_limit.clock, import_limit.burst = (lambda: fleet.timeline.now), 1
    import_limit.refill()
    patch.setattr(botocore.endpoint, "time", types.SimpleNamespace(sleep=fleet.timeline.take))
    patch.setattr(SQSBackend, "change_message_visibility", fleet.hold)
    if name == "daily check":
        fleet.timeline.start(0.0, fleet.check_everything)
    else:
        for p in range(count):
            cloud.publish((f"p{p}.example.com",), pipeline=f"p{p}")
            fleet.tell(current_key(f"p{p}"))
    server.before.append(fleet.before)
    server.after.append(fleet.after)
    with server.refuse("*", "ThrottlingException", "Rate exceeded", when=fleet.buckets.refuse):
        fleet.timeline.run()
    server.before.clear()
    server.after.clear()
    most = max(fleet.imports.values(), default=0)
    return Phase(
        name,
        fleet.calls,
        sum(fleet.throttled.values()),
        fleet.last_write or fleet.timeline.now,
        max(0, most - 1) / import_limit.rate,
    )


def _report(phases: list[Phase], count: int) -> str:
    targets = count * 100
    lines = [
        f"{targets:,} targets of {count} pipelines in {len(ACCOUNTS)} accounts, two regions",
        "",
        f"{'':24}{'AWS calls':>10}{'a target':>10}{'of S3':>10}{'throttled':>11}"
        f"{'seconds':>9}{'floor':>8}{'ratio':>8}",
    ]
    for phase in phases:
        buckets = sum(n for action, n in phase.calls.items() if action.startswith("s3:"))
        others = sum(phase.calls.values()) - buckets
        ratio = f"{phase.seconds / phase.floor:.2f}" if phase.floor else "-"
        lines.append(
            f"{phase.name:24}{others:10,}{others / targets:10.2f}{buckets / targets:10.2f}"
            f"{phase.throttled:11,}{phase.seconds:9.1f}{phase.floor:8.1f}{ratio:>8}"
        )
    lines.append("")
    for phase in phases:
        most = ", ".join(f"{action} {n:,}" for action, n in phase.calls.most_common(12))
        lines.append(f"{phase.name}: {most}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
