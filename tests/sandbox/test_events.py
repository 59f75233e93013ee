"""EventBridge of the sandbox: what an event says, whom it reaches, and how rude it can be."""

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from sandbox.events import Delivery, Events
from tests.sandbox.cloud import Cloud, cloud

numbers = count()
OPEN = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Resource": "*"}


@pytest.fixture(scope="module")
def aws() -> Iterator[Cloud]:
    with cloud() as aws:
        yield aws


class Place:
    """A bucket and a queue of its own, and the rules between them."""

    def __init__(self, aws: Cloud, events: Events) -> None:
        self.aws = aws
        self.events = events
        self.number = next(numbers)
        self.bucket = f"bucket-{self.number}"
        self.s3, self.sqs, self.bridge = (aws.client(s) for s in ("s3", "sqs", "events"))
        place: Any = {"LocationConstraint": "eu-central-1"}
        self.s3.create_bucket(Bucket=self.bucket, CreateBucketConfiguration=place)
        self.s3.put_bucket_versioning(
            Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"}
        )
        self.notify({"EventBridgeConfiguration": {}})
        self.queue = self.sqs.create_queue(QueueName=f"queue-{self.number}")["QueueUrl"]
        self.arn = f"arn:aws:sqs:eu-central-1:123456789012:queue-{self.number}"
        self.allow(OPEN | {"Action": "sqs:SendMessage"})

    def notify(self, configuration: Any) -> None:
        self.s3.put_bucket_notification_configuration(
            Bucket=self.bucket, NotificationConfiguration=configuration
        )

    def allow(self, *statements: dict[str, Any]) -> None:
        policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        self.sqs.set_queue_attributes(QueueUrl=self.queue, Attributes={"Policy": policy})

    def rule(
        self, key: list[Any] | None = None, name: str = "", state: str = "ENABLED", **target: Any
    ) -> str:
        name = name or f"rule-{self.number}-{next(numbers)}"
        pattern: dict[str, Any] = {
            "source": ["aws.s3"],
            "detail": {"bucket": {"name": [self.bucket]}},
        }
        if key is not None:
            pattern["detail"]["object"] = {"key": key}
        self.bridge.put_rule(Name=name, EventPattern=json.dumps(pattern), State=state)
        targets = [{"Id": "1", "Arn": self.arn} | target]
        self.bridge.put_targets(Rule=name, Targets=targets)
        return name

    def put(self, key: str = "a", body: str = "x", **more: Any) -> Any:
        return self.s3.put_object(Bucket=self.bucket, Key=key, Body=body.encode(), **more)

    def received(self) -> list[str]:
        bodies = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get(
            "Messages", []
        ):
            bodies += [message["Body"] for message in messages]
        return bodies

    def keys(self) -> list[str]:
        return [json.loads(body)["detail"]["object"]["key"] for body in self.received()]


@pytest.fixture
def events() -> Iterator[Events]:
    with Events() as events:
        yield events


@pytest.fixture
def place(aws: Cloud, events: Events) -> Place:
    return Place(aws, events)


def test_an_event_is_as_s3_sends_it(place: Place) -> None:
    place.rule()
    first = place.put("certificates/a b/current.json", "one", Tagging="a=b")
    place.put("other")
    bodies = [json.loads(body) for body in place.received()]
    assert len(bodies) == 2, "a PUT with tags is one event"
    event = bodies[0]
    detail = event["detail"]
    assert event["source"] == "aws.s3"
    assert event["detail-type"] == "Object Created"
    assert event["account"] == "123456789012"
    assert event["region"] == "eu-central-1"
    assert event["resources"] == [f"arn:aws:s3:::{place.bucket}"]
    assert event["time"].endswith("Z")
    assert detail["reason"] == "PutObject"
    assert detail["bucket"] == {"name": place.bucket}
    assert detail["object"]["key"] == "certificates/a b/current.json", "not URL-encoded"
    assert detail["object"]["size"] == 3
    assert detail["object"]["etag"] == first["ETag"].strip('"')
    assert detail["object"]["version-id"] == first["VersionId"]
    assert "eTag" not in detail["object"]
    assert bodies[0]["id"] != bodies[1]["id"]
    sequencers = [body["detail"]["object"]["sequencer"] for body in bodies]
    assert sequencers[0] < sequencers[1]


def test_only_buckets_that_tell_eventbridge_do(place: Place) -> None:
    place.rule()
    place.notify({})
    place.put()
    assert place.received() == []


def test_tags_put_later_are_an_event(place: Place) -> None:
    place.put()
    place.rule()
    place.s3.put_object_tagging(
        Bucket=place.bucket, Key="a", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]}
    )
    assert [json.loads(body)["detail-type"] for body in place.received()] == ["Object Tags Added"]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ([{"prefix": "certificates/"}], {"certificates/a/current.json", "certificates/a/x"}),
        ([{"suffix": ".json"}], {"certificates/a/current.json"}),
        ([{"wildcard": "certificates/*/current.json"}], {"certificates/a/current.json"}),
        ([{"anything-but": {"prefix": "certificates/"}}], {"b"}),
        (["b", {"suffix": "/x"}], {"b", "certificates/a/x"}),
        ([{"exists": False}], set()),
    ],
)
def test_patterns_choose(place: Place, pattern: list[Any], wanted: set[str]) -> None:
    place.rule(pattern)
    for key in ("certificates/a/current.json", "certificates/a/x", "b"):
        place.put(key)
    assert set(place.keys()) == wanted


def test_disabled_rules_and_rules_without_pattern_do_not_fire(place: Place) -> None:
    place.rule(state="DISABLED")
    place.bridge.put_rule(Name=f"hourly-{place.number}", ScheduleExpression="rate(1 hour)")
    targets = [{"Id": "1", "Arn": place.arn}]
    place.bridge.put_targets(Rule=f"hourly-{place.number}", Targets=targets)
    place.put()
    assert place.received() == []


def test_rules_of_another_bus_do_not_fire(place: Place) -> None:
    bus = f"bus-{place.number}"
    place.bridge.create_event_bus(Name=bus)
    pattern = json.dumps({"source": ["aws.s3"]})
    place.bridge.put_rule(Name="elsewhere", EventBusName=bus, EventPattern=pattern)
    targets = [{"Id": "1", "Arn": place.arn}]
    place.bridge.put_targets(Rule="elsewhere", EventBusName=bus, Targets=targets)
    place.put()
    assert place.received() == []


def test_a_target_that_takes_nothing_breaks_no_other(place: Place) -> None:
    place.rule(name=f"aa-{place.number}", Arn=f"{place.arn}-not-there")
    place.rule(name=f"ab-{place.number}", Arn="arn:aws:states:eu-central-1:123456789012:x:y")
    place.rule(name=f"ac-{place.number}")
    place.put("through")
    assert place.keys() == ["through"]
    said = [reason for _, reason in place.events.dropped]
    assert "there is no queue" in said[0]
    assert "does not deliver" in said[1]


def test_a_queue_must_let_eventbridge_in(place: Place) -> None:
    rule = place.rule()
    place.allow(OPEN | {"Action": "sqs:ReceiveMessage"})
    place.put("refused")
    arn = f"arn:aws:events:eu-central-1:123456789012:rule/{rule}"
    allowed = OPEN | {"Action": "sqs:SendMessage"}
    place.allow(allowed | {"Condition": {"ArnEquals": {"aws:SourceArn": arn + "-other"}}})
    place.put("wrong-rule")
    place.allow(allowed | {"Condition": {"ArnEquals": {"aws:SourceArn": arn}}})
    place.put("right")
    assert place.keys() == ["right"]
    assert [delivery.key for delivery, _ in place.events.dropped] == ["refused", "wrong-rule"]


def test_what_a_target_does_not_take_goes_to_its_dead_letters(aws: Cloud, events: Events) -> None:
    place, dead = Place(aws, events), Place(aws, events)
    place.allow(OPEN | {"Action": "sqs:ReceiveMessage"})
    place.rule(DeadLetterConfig={"Arn": dead.arn})
    place.put("lost")
    assert place.received() == []
    assert dead.keys() == ["lost"]


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ({"Input": '{"reconcile": true}'}, '{"reconcile": true}'),
        ({"InputPath": "$.detail.object.key"}, '"a"'),
        (
            {
                "InputTransformer": {
                    "InputPathsMap": {
                        "key": "$.detail.object.key",
                        "size": "$.detail.object.size",
                        "none": "$.detail.none",
                        "bucket": "$.detail.bucket",
                    },
                    "InputTemplate": '{"key": <key>, "said": "<key> of <size>", "none": "<none>", '
                    '"bucket": <bucket>, "of": "\\"<key>\\"", "rule": <aws.events.rule-name>}',
                }
            },
            '{"key": "a", "said": "a of 1", "none": "", "bucket": {"name": "BUCKET"}, '
            '"of": "\\"a\\"", "rule": "RULE"}',
        ),
        (
            {
                "InputTransformer": {
                    "InputPathsMap": {"key": "$.detail.object.key"},
                    "InputTemplate": '"<key> was put"\n"by <aws.events.rule-name>"',
                }
            },
            '"a was put"\n"by RULE"',
        ),
    ],
)
def test_a_target_gets_the_input_it_asks_for(
    place: Place, target: dict[str, Any], body: str
) -> None:
    rule = place.rule(**target)
    place.put()
    assert place.received() == [body.replace("BUCKET", place.bucket).replace("RULE", rule)]


def test_what_an_input_transformer_breaks_is_not_delivered(aws: Cloud, events: Events) -> None:
    """EventBridge escapes nothing of what it puts into the template."""
    place, dead = Place(aws, events), Place(aws, events)
    transformer = {"InputPathsMap": {"key": "$.detail.object.key"}, "InputTemplate": '"<key>"'}
    place.rule(InputTransformer=transformer, DeadLetterConfig={"Arn": dead.arn})
    for key in ('a "quoted" one', "back\\slash", "plain, with → and <angles>"):
        place.put(key)
    assert place.received() == ['"plain, with → and <angles>"']
    assert dead.keys() == ['a "quoted" one', "back\\slash"]
    assert "makes no JSON" in events.dropped[0][1]


def test_a_topic_tells_its_subscribers(place: Place) -> None:
    sns = place.aws.client("sns")
    topic = sns.create_topic(Name=f"topic-{place.number}")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=place.arn)
    rule = place.rule(Arn=topic)
    # The policy of a new topic lets nobody in but its own account.
    place.put("refused")
    allowed = OPEN | {"Action": "sns:Publish"}
    source = f"arn:aws:events:eu-central-1:123456789012:rule/{rule}"
    for key, more in (
        ("conditional", {"Condition": {"ArnEquals": {"aws:SourceArn": source}}}),
        ("told", {}),
    ):
        policy = json.dumps({"Statement": [allowed | more]})
        sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
        place.put(key)
    (body,) = place.received()
    message = json.loads(body)
    assert message["TopicArn"] == topic
    assert json.loads(message["Message"])["detail"]["object"]["key"] == "told"
    assert [delivery.key for delivery, _ in place.events.dropped] == ["refused", "conditional"]
    assert all(
        "does not let events.amazonaws.com do sns:Publish" in why for _, why in place.events.dropped
    )


def test_a_topic_that_is_not_there(place: Place) -> None:
    for number, region in enumerate(("eu-central-1", "us-east-1")):
        arn = f"arn:aws:sns:{region}:123456789012:none"
        place.rule(name=f"none-{number}-{place.number}", Arn=arn)
    place.put()
    reasons = [why for _, why in place.events.dropped]
    assert "there is no topic" in reasons[0]
    assert "in another region" in reasons[1]


def test_own_events_reach_their_rules(place: Place) -> None:
    pattern = json.dumps({"source": ["certrail"]})
    place.bridge.put_rule(Name="own", EventPattern=pattern)
    place.bridge.put_targets(Rule="own", Targets=[{"Id": "1", "Arn": place.arn}])
    entry = {"Source": "certrail", "DetailType": "Tested", "Detail": '{"a": 1}'}
    place.bridge.put_events(Entries=[entry])
    [body] = place.received()
    assert json.loads(body)["detail"] == {"a": 1}
    place.bridge.remove_targets(Rule="own", Ids=["1"])


def test_events_twice(place: Place) -> None:
    place.rule()
    place.events.disturb(duplicate=2)
    place.put()
    ids = [json.loads(body)["id"] for body in place.received()]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    place.events.calm()
    place.put("b")
    assert place.keys() == ["b"]


def test_events_late_and_in_any_order(place: Place) -> None:
    def is_old(delivery: Delivery) -> bool:
        return delivery.key.startswith("old")

    place.rule()
    place.events.disturb(hold=is_old)
    for key in ("old-1", "new", "old-2"):
        place.put(key)
    assert place.keys() == ["new"]
    assert [delivery.key for delivery in place.events.held] == ["old-1", "old-2"]
    place.events.release(reversed(place.events.held))
    assert place.keys() == ["old-2", "old-1"]
    assert place.events.held == []


def test_an_event_again_after_a_newer_one(place: Place) -> None:
    place.rule()
    place.put("first")
    place.put("second")
    [first, _] = place.events.delivered
    place.events.release([first])
    assert place.keys() == ["first", "second", "first"]


def test_without_events_nothing_is_delivered(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    # The worker's own sandbox may be running, and it has events.
    monkeypatch.setattr("sandbox.events._entered", [])
    with Events() as events:
        place = Place(aws, events)
        place.rule()
    place.put()
    assert place.received() == []
