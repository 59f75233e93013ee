"""EventBridge as AWS delivers it: S3's events, rules, targets, and rude delivery on request.

moto's own delivery has a constant id and sequencer, fires disabled rules and rules of every bus,
and stops at a target it does not know. Here an event goes to the rules of its own bus, to SQS
queues, Lambda functions and SNS topics, and only where the target's policy lets EventBridge in.

Not modelled: deletions in a versioned bucket tell nothing (moto sends no event for them); targets
other than these are dropped, with the reason in `dropped`; the 24 hours of retries are
left out, a delivery that fails goes to the target's dead-letter queue at once or is dropped.

Sources:
  ACM event  https://docs.aws.amazon.com/acm/latest/userguide/supported-events.html
  S3 event   https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
  sequencer  https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
  input      https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html
  policies   https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import RLock, local
from typing import Any
from uuid import uuid4

from moto.awslambda.models import lambda_backends
from moto.events.models import Rule, events_backends
from moto.s3 import notifications
from moto.s3.responses import S3Response
from moto.sns.exceptions import SNSNotFoundError
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends

from sandbox import queues
from sandbox.part import Part
from sandbox.policies import Need, document, evaluate

Event = dict[str, Any]

REASONS = {
    "s3:ObjectCreated:Put": "PutObject",
    "s3:ObjectCreated:Post": "POST Object",
    "s3:ObjectCreated:Copy": "CopyObject",
    "s3:ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
    "s3:ObjectRemoved:Delete": "DeleteObject",
}


class Undeliverable(Exception):
    """A target did not take an event; says why."""


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one target of one rule. `body` is what the target receives."""

    event: Event
    rule: str
    target: str
    body: str
    group: str | None = None
    dead_letters: str | None = None

    @property
    def key(self) -> str:
        """The object key of an S3 event; empty for any other."""
        return str(self.event["detail"].get("object", {}).get("key", ""))


class Events(Part):
    """EventBridge of the sandbox while it is entered; one at a time in a process.

    delivered: every delivery that reached its target, in order. held: those kept back.
    dropped: those whose target did not take them, with the reason.
    invoke: how a Lambda target is invoked (ARN, payload), asynchronously; `Functions` sets it.
    """

    def __init__(self) -> None:
        self.invoke: Callable[[str, str], None] = _no_functions
        self.delivered: list[Delivery] = []
        self.held: list[Delivery] = []
        self.dropped: list[tuple[Delivery, str]] = []
        self._copies = 1
        self._hold: Callable[[Delivery], bool] = lambda delivery: False
        self._lock = RLock()
        self._sequence = 0

    def start(self) -> None:
        install()
        _entered.append(self)

    def stop(self) -> None:
        _entered.remove(self)

    # Rude delivery, for tests.

    def disturb(
        self, *, duplicate: int = 1, hold: Callable[[Delivery], bool] | bool = False
    ) -> None:
        """From now on deliver each event `duplicate` times, and keep back those that `hold` names.

        What is held stays in `held` until `release`.
        """
        with self._lock:
            self._copies = duplicate
            self._hold = hold if callable(hold) else lambda delivery: bool(hold)

    def release(self, deliveries: Iterable[Delivery] | None = None) -> None:
        """Deliver what is held, in the order given: all, as it came, if not said otherwise.

        A delivery that was made already may be given too: it is made again.
        """
        with self._lock:
            given = list(self.held if deliveries is None else deliveries)
            for delivery in given:
                if delivery in self.held:
                    self.held.remove(delivery)
            for delivery in given:
                self._deliver(delivery)

    def calm(self) -> None:
        """Deliver what is held, and from now on everything once and at once."""
        self.disturb()
        self.release()

    # The way of an event.

    def from_s3(self, account: str, bucket: Any, event_name: str, key: Any) -> None:
        detail_type = notifications._detail_type(event_name)
        content: Event = {"key": key.name, "size": key.size, "etag": key.etag.replace('"', "")}
        if bucket.is_versioned:
            content["version-id"] = key.version_id
        detail: Event = {
            "version": "0",
            "bucket": {"name": bucket.name},
            "object": content | {"sequencer": self._sequencer()},
            "request-id": uuid4().hex[:16].upper(),
            "requester": account,
            "source-ip-address": "127.0.0.1",
        }
        if event_name in REASONS:
            detail["reason"] = REASONS[event_name]
        if detail_type == "Object Deleted":
            # S3 tells neither size nor etag of what is gone.
            detail["object"] = {k: v for k, v in content.items() if k in ("key", "version-id")}
            detail["object"]["sequencer"] = self._sequencer()
            detail["deletion-type"] = "Permanently Deleted"
        self._from_aws("aws.s3", detail_type, account, bucket.region_name, bucket.arn, detail)

    def from_acm(self, arn: str, action: str) -> None:
        """ACM has issued or renewed a certificate that somebody exports. action: in ACM's words."""
        _, _, _, region, account, _ = arn.split(":", 5)
        detail = {"Action": action, "CertificateType": "AMAZON_ISSUED", "Exported": True}
        self._from_aws("aws.acm", "ACM Certificate Available", account, region, arn, detail)

    def _from_aws(
        self, source: str, kind: str, account: str, region: str, resource: str, detail: Event
    ) -> None:
        event: Event = {
            "version": "0",
            "id": str(uuid4()),
            "detail-type": kind,
            "source": source,
            "account": account,
            "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "region": region,
            "resources": [resource],
            "detail": detail,
        }
        buses = events_backends[account][region].event_buses
        for rule in list(buses["default"].rules.values()):
            self.offer(rule, event)

    def offer(self, rule: Rule, event: Event) -> None:
        """Send the event to the rule's targets, if the rule wants it."""
        # moto takes a rule without a pattern, one with a schedule, for one that wants everything.
        if not rule.state.startswith("ENABLED") or not rule.event_pattern.get_pattern():
            return
        if not rule.event_pattern.matches_event(event):  # type: ignore[arg-type]
            return
        for target in list(rule.targets):
            delivery = Delivery(
                event=event,
                rule=rule.arn,
                target=target["Arn"],
                body=json.dumps(event),
                group=target.get("SqsParameters", {}).get("MessageGroupId"),
                dead_letters=target.get("DeadLetterConfig", {}).get("Arn"),
            )
            try:
                delivery = replace(delivery, body=target_input(target, event, rule.arn))
            except Undeliverable as problem:
                self._drop(delivery, problem)
                continue
            with self._lock:
                if self._hold(delivery):
                    self.held += [delivery] * self._copies
                else:
                    for _ in range(self._copies):
                        self._deliver(delivery)

    def _deliver(self, delivery: Delivery) -> None:
        try:
            self._to_target(delivery)
        except Undeliverable as problem:
            self._drop(delivery, problem)
        else:
            self.delivered.append(delivery)

    def _drop(self, delivery: Delivery, problem: Undeliverable) -> None:
        self.dropped.append((delivery, str(problem)))
        if delivery.dead_letters:
            _send(delivery.dead_letters, delivery.body, None, delivery.rule)

    def _to_target(self, delivery: Delivery) -> None:
        service = delivery.target.split(":")[2]
        if service == "sqs":
            _send(delivery.target, delivery.body, delivery.group, delivery.rule)
        elif service == "lambda":
            _may_invoke(delivery.target, delivery.rule)
            self.invoke(delivery.target, delivery.body)
        elif service == "sns":
            _publish(delivery.target, delivery.body, delivery.rule)
        else:
            raise Undeliverable(f"the sandbox does not deliver to {delivery.target}")

    def _sequencer(self) -> str:
        """Hexadecimal, grows with every event; compared as text it is never misordered."""
        with self._lock:
            self._sequence = max(self._sequence + 1, time.time_ns())
            return f"{self._sequence:016X}"


def _no_functions(arn: str, payload: str) -> None:
    raise Undeliverable(f"no functions run in this sandbox, so not {arn}")


def _send(arn: str, body: str, group: str | None, rule: str) -> None:
    try:
        queue = queues.queue(arn)
    except KeyError as error:
        raise Undeliverable(f"there is no queue {arn}") from error
    _let_in(queue._policy_json, Need("sqs:SendMessage", arn, _from(rule)))
    if queue.fifo_queue and (group is None or not queue.content_based_deduplication):  # type: ignore[attr-defined]
        raise Undeliverable(f"{arn} is FIFO: it needs a group and content-based deduplication")
    sqs_backends[queue.account_id][queue.region].send_message(queue.name, body, group_id=group)


def _publish(arn: str, message: str, rule: str) -> None:
    _, _, _, region, account, _ = arn.split(":", 5)
    if region != rule.split(":")[3]:
        raise Undeliverable(f"{arn} is in another region than {rule}")
    topics = sns_backends[account][region]
    try:
        topic = topics.get_topic(arn)
    except SNSNotFoundError as error:
        raise Undeliverable(f"there is no topic {arn}") from error
    # Of a topic, EventBridge satisfies no condition: "You can't use Condition blocks in Amazon SNS
    # topic policies for EventBridge".
    _let_in(topic._policy_json, Need("sns:Publish", arn))
    topics.publish(message, arn)


def _may_invoke(arn: str, rule: str) -> None:
    _, _, _, region, account, _, name = arn.split(":")[:7]
    functions = lambda_backends[account][region]._lambdas
    function = functions.get_function_by_name_or_arn_with_qualifier(name)
    policy = {"Statement": function.policy.statements}
    _let_in(policy, Need("lambda:InvokeFunction", arn, _from(rule)))


def _from(rule: str) -> dict[str, str | tuple[str, ...]]:
    return {"aws:SourceArn": rule, "aws:SourceAccount": rule.split(":")[4]}


def _let_in(policy: Mapping[str, Any], need: Need) -> None:
    verdict = evaluate([document(policy)], need, ["events.amazonaws.com"])
    if not verdict.allowed:
        near = "; ".join(verdict.near)
        raise Undeliverable(
            f"the policy of {need.resource} does not let events.amazonaws.com do {need.action}"
            + (f": {near}" if near else "")
        )


# What a target receives.


def target_input(target: Mapping[str, Any], event: Event, rule: str) -> str:
    """The event as a rule's target wants it: whole, a constant, a part, or transformed. rule: its
    ARN. Raises Undeliverable where the template makes no JSON."""
    if "Input" in target:
        return str(target["Input"])
    if "InputPath" in target:
        return json.dumps(at_path(target["InputPath"], event))
    if "InputTransformer" in target:
        transformer = target["InputTransformer"]
        paths = transformer.get("InputPathsMap", {})
        values = {name: at_path(path, event) for name, path in paths.items()}
        values["aws.events.event.json"] = event
        values["aws.events.event.ingestion-time"] = event["time"]
        values["aws.events.rule-arn"] = rule
        values["aws.events.rule-name"] = rule.rpartition("/")[2]
        return fill(transformer["InputTemplate"], values)
    return json.dumps(event)


def at_path(path: str, event: Event) -> Any:
    """`$.detail.object.key` in the event; None where there is nothing."""
    value: Any = event
    for part in re.findall(r"[^.\[\]$]+", path):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return None
    return value


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template with each `<name>` replaced: a text gets quotes where it has none, and nothing
    in it is escaped. What is not in the event leaves nothing. Raises Undeliverable where neither
    the whole nor each line is JSON then."""

    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in values:
            return found.group()
        quoted = len(re.findall(r'(?<!\\)"', template[: found.start()])) % 2 == 1
        match values[name]:
            case None:
                return ""
            case str(text):
                return text if quoted else f'"{text}"'
            case other:
                return json.dumps(other).replace('"', "") if quoted else json.dumps(other)

    filled = re.sub(r"<([\w.-]+)>", value, template)
    if not (_is_json(filled) or all(map(_is_json, filled.splitlines()))):
        raise Undeliverable(f"the input transformer makes no JSON: {filled}")
    return filled


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


# In moto's place.

_entered: list[Events] = []
_api_call = local()
_moto_put_object_tagging = S3Response.put_object_tagging


def s3_event(account_id: str, bucket: Any, event_name: str, key: Any) -> None:
    # moto reports tags of every PUT; S3 only those of PutObjectTagging.
    tags = event_name == notifications.S3NotificationEvent.OBJECT_TAGGING_PUT_EVENT
    if _entered and (not tags or getattr(_api_call, "tags", False)):
        _entered[-1].from_s3(account_id, bucket, str(event_name.value), key)  # type: ignore[attr-defined]


def put_object_tagging(self: S3Response) -> Any:
    _api_call.tags = True
    try:
        return _moto_put_object_tagging(self)
    finally:
        _api_call.tags = False


def send_to_targets(self: Rule, original_event: Event, transform_input: bool = True) -> None:
    """For PutEvents: moto has looked up the bus, and hands the event to each of its rules."""
    if _entered:
        event = {k: v for k, v in original_event.items() if k != "ingestion-time"}
        moment = datetime.fromtimestamp(float(event["time"]), UTC)
        event["time"] = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
        _entered[-1].offer(self, event)


def install() -> None:
    """Put these in moto's place. Again changes nothing."""
    queues.install()
    notifications._send_event_bridge_message = s3_event
    S3Response.put_object_tagging = put_object_tagging  # type: ignore[method-assign]
    Rule.send_to_targets = send_to_targets  # type: ignore[method-assign,assignment]
