"""The two Lambda functions, with their queue."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certrail.bundle import short
from certrail.errors import FailedTogether, StateError
from certrail.keys import KeyType
from certrail.store import REISSUE_KEY, Issued, order_key
from issuer import handler, lease
from issuer.lease import Progress
from issuer.reissue import Asked, ask
from sandbox import Sandbox
from sandbox.pebble import Pebble
from sandbox.server import Server
from tests.certrail.bundles import make_bundle
from tests.issuer.conftest import World, age


@dataclass
class Context:
    """A function's context with a fixed time left."""

    left: timedelta = timedelta(minutes=5)

    def get_remaining_time_in_millis(self) -> int:
        return int(self.left.total_seconds() * 1000)


@dataclass
class Functions:
    world: World
    queue: str

    def push(self, *names: str, issuer: str = "ca", directory: str | None = None) -> None:
        """A pipelines file with a pipeline for each name, below the zone."""
        pipelines = [{"name": name, "domains": [f"{name}.{self.world.zone}"]} for name in names]
        issuers = {issuer: {"directory": directory or self.world.directory}}
        text = json.dumps({"issuers": issuers, "pipelines": pipelines})
        self.world.store.put_pipelines_text(text)

    def schedule(self) -> dict[str, Any]:
        return handler.schedule({}, Context())

    def messages(self) -> list[dict[str, Any]]:
        """Those that can be received now, as Lambda gets them."""
        answer = self.world.aws.sqs().receive_message(
            QueueUrl=self.queue, MaxNumberOfMessages=10, VisibilityTimeout=5400
        )
        return [
            {
                "messageId": message["MessageId"],
                "body": message["Body"],
                "receiptHandle": message["ReceiptHandle"],
                "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:issue.fifo",
            }
            for message in answer.get("Messages", [])
        ]

    def work(self, message: dict[str, Any], left: timedelta = timedelta(minutes=5)) -> bool:
        """Whether the message is acknowledged."""
        answer = handler.work({"Records": [message]}, Context(left))
        failed = answer["batchItemFailures"]
        assert failed in ([], [{"itemIdentifier": message["messageId"]}])
        return not failed

    def progress(self, name: str = "shop") -> Progress:
        found = lease.read(self.world.store, name)
        assert found is not None
        return found


@pytest.fixture
def functions(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Functions]:
    queue = world.aws.sqs().create_queue(
        QueueName="issue.fifo", Attributes={"FifoQueue": "true", "VisibilityTimeout": "5400"}
    )["QueueUrl"]
    monkeypatch.setenv("CERTRAIL_BUCKET", world.store.bucket)
    monkeypatch.setenv("CERTRAIL_ISSUE_QUEUE", queue)
    forget()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Functions(world, queue)
    # The entry points set up logging, which is theirs to do in a process of their own.
    root.handlers[:] = handlers
    root.setLevel(level)
    forget()


def forget() -> None:
    """What a new function instance has not."""
    handler._aws.cache_clear()
    handler._store.cache_clear()
    handler._accounts.cache_clear()


def test_from_the_file_to_the_certificate(functions: Functions) -> None:
    functions.push("one", "two")
    assert functions.schedule() == {
        "due": {"one": "no certificate yet", "two": "no certificate yet"}
    }
    messages = functions.messages()
    assert len(messages) == 2
    for message in messages:
        functions.work(message)
    for name in ("one", "two"):
        current = functions.world.store.current(name)
        assert current is not None
        assert current.facts.domains == (f"{name}.{functions.world.zone}",)
    assert functions.schedule() == {"due": {}}


def test_before_the_first_push_there_is_nothing_to_do(functions: Functions) -> None:
    assert functions.schedule() == {"due": {}}


def test_a_schedule_that_repeats_itself_sends_once(functions: Functions) -> None:
    functions.push("shop")
    functions.schedule()
    functions.schedule()
    (message,) = functions.messages()
    functions.work(message)
    # A change within the same five minutes is another matter.
    functions.world.aws.sqs().delete_message(
        QueueUrl=functions.queue, ReceiptHandle=message["receiptHandle"]
    )
    text = functions.world.store.pipelines_text()
    functions.world.store.put_pipelines_text(
        text.replace('"name"', '"key_type": "rsa-2048", "name"')
    )
    assert "key type" in functions.schedule()["due"]["shop"]
    assert len(functions.messages()) == 1


def test_a_message_twice(functions: Functions, server: Server) -> None:
    functions.push("shop")
    functions.schedule()
    (message,) = functions.messages()
    functions.work(message)
    before = server.calls.mark()
    functions.work(message)
    current = functions.world.store.current("shop")
    assert current is not None
    assert current.generation == 1
    assert not server.calls.writes("route53", since=before)


def test_a_pipeline_that_is_gone(functions: Functions) -> None:
    functions.push("shop")
    functions.schedule()
    (message,) = functions.messages()
    functions.push("other")
    functions.work(message)
    assert functions.world.store.current("shop") is None


def metrics(capsys: pytest.CaptureFixture[str], name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[:1] == "{"]
    return [line for line in lines if "_aws" in line and name in line]


def events(functions: Functions, kind: str) -> list[dict[str, Any]]:
    """The details of the events of a kind on the default bus."""
    puts = functions.world.sandbox.server.calls.of("events:PutEvents")
    entries = [entry for put in puts for entry in (put.params or {})["Entries"]]
    assert all(entry["Source"] == "certrail" for entry in entries)
    return [json.loads(entry["Detail"]) for entry in entries if entry["DetailType"] == kind]


def test_what_needs_a_person(
    functions: Functions, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written down, counted, acknowledged; not tried again before tomorrow."""
    functions.push("shop")
    functions.schedule()
    (message,) = functions.messages()
    with server.refuse("route53:ListHostedZones", "AccessDenied"):
        functions.work(message)
    (metric,) = metrics(capsys, "IssuesFailed")
    assert metric["IssuesFailed"] == 1
    assert metric["Pipeline"] == "shop"
    assert metric["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [[], ["Pipeline"]]
    progress = functions.progress()
    assert progress.permanent
    assert "route53:ListHostedZones" in str(progress.error)
    assert progress.next_attempt is not None
    assert progress.next_attempt > datetime.now(UTC) + timedelta(hours=23)
    assert functions.schedule() == {"due": {}}


def test_what_needed_a_person_is_tried_again_when_the_file_is_pushed(
    functions: Functions, server: Server
) -> None:
    """The same file: what was repaired is somewhere else."""
    functions.push("shop")
    functions.schedule()
    (message,) = functions.messages()
    with server.refuse("route53:ListHostedZones", "AccessDenied"):
        functions.work(message)
    assert functions.schedule() == {"due": {}}
    progress = functions.progress()
    assert progress.ended_at is not None
    # S3 tells seconds.
    earlier = replace(progress, ended_at=progress.ended_at - timedelta(seconds=5))
    found = functions.world.store.read(order_key("shop"), Progress)
    assert found is not None
    functions.world.store.write(order_key("shop"), earlier, Progress, found.etag)
    functions.push("shop")
    assert functions.schedule() == {"due": {"shop": "no certificate yet"}}


def test_what_may_pass(
    functions: Functions, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not acknowledged, and held back in the queue until the next attempt; before it, nothing is
    done."""
    functions.push("shop", "other")
    functions.schedule()
    (message, other) = functions.messages()
    name = json.loads(message["body"])["pipeline"]
    hidden = f"_acme-challenge.{name}.{functions.world.zone}"
    with sandbox.nameserver.hide(hidden):
        assert not functions.work(message, left=timedelta(seconds=62))
    assert [each["Pipeline"] for each in metrics(capsys, "IssuesFailed")] == [name]
    assert functions.world.texts() == []
    # Once for the case that the function is killed, once for the next attempt.
    killed, held = functions.world.sandbox.server.calls.of("sqs:ChangeMessageVisibility")
    assert killed.params is not None
    assert held.params is not None
    assert 115 <= int(killed.params["VisibilityTimeout"]) <= 125
    assert 55 <= int(held.params["VisibilityTimeout"]) <= 61
    progress = functions.progress(name)
    assert not progress.permanent
    assert progress.attempts == 1
    assert "did not appear" in str(progress.error)
    (event,) = events(functions, "Certificate Issuance Failed")
    assert event["pipeline"] == name
    assert event["error"] == progress.error
    assert event["retryable"] is True
    assert event["summary"].startswith(f"{name}: no certificate (next attempt ")
    # Early, it is held back again, and nothing else is done.
    before = sandbox.server.calls.mark()
    assert not functions.work(message)
    assert sandbox.server.calls.of("s3:PutObject", since=before) == []
    assert functions.progress(name) == progress
    # The other pipeline's group was never held up.
    assert functions.work(other)


def test_one_broken_document_holds_up_nobody(functions: Functions) -> None:
    functions.push("broken", "shop")
    functions.world.aws.s3().put_object(
        Bucket=functions.world.store.bucket, Key=order_key("broken"), Body=b"?"
    )
    with pytest.raises(StateError, match="broken"):
        functions.schedule()
    (message,) = functions.messages()
    assert json.loads(message["body"]) == {"pipeline": "shop"}


def test_a_broken_document_of_wishes_holds_up_nobody(functions: Functions) -> None:
    functions.push("shop")
    functions.world.aws.s3().put_object(
        Bucket=functions.world.store.bucket, Key=REISSUE_KEY, Body=b"?"
    )
    with pytest.raises(StateError, match="reissue"):
        functions.schedule()
    (message,) = functions.messages()
    assert functions.work(message)
    assert functions.world.store.current("shop") is not None


def test_another_run_is_at_it(functions: Functions) -> None:
    functions.push("shop")
    functions.schedule()
    (message,) = functions.messages()
    later = datetime.now(UTC) + timedelta(minutes=1)
    held = Progress("x", holder="somebody", until=later)
    functions.world.store.write(order_key("shop"), held, Progress, None)
    functions.work(message)
    assert functions.progress() == held


def test_several_broken_documents(functions: Functions) -> None:
    functions.push("one", "two")
    for name in ("one", "two"):
        functions.world.aws.s3().put_object(
            Bucket=functions.world.store.bucket, Key=order_key(name), Body=b"?"
        )
    with pytest.raises(FailedTogether):
        functions.schedule()


def test_certificates_for_the_same_names_are_issued_one_after_the_other(
    functions: Functions, server: Server
) -> None:
    """A CA may hand the same order to both."""
    domains = [f"www.{functions.world.zone}"]
    pipelines = [
        {"name": "shop", "domains": domains, "key_type": ["ecdsa-p256", "rsa-2048"]},
        {"name": "other", "domains": [f"other.{functions.world.zone}"]},
    ]
    issuers = {"ca": {"directory": functions.world.directory}}
    functions.world.store.put_pipelines_text(
        json.dumps({"issuers": issuers, "pipelines": pipelines})
    )
    functions.schedule()
    sent = [call.params or {} for call in server.calls.of("sqs:SendMessage")]
    groups = {json.loads(each["MessageBody"])["pipeline"]: each["MessageGroupId"] for each in sent}
    assert groups["shop"] == groups["shop.rsa-2048"] != groups["other"]
    for message in functions.messages():
        assert functions.work(message)
    for name, kind in (("shop", KeyType.ECDSA_P256), ("shop.rsa-2048", KeyType.RSA_2048)):
        current = functions.world.store.current(name)
        assert current is not None
        assert current.facts.key_type is kind


def test_what_is_told_of_a_certificate(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    functions.push("shop")
    functions.schedule()
    (message,) = functions.messages()
    functions.work(message)
    current = functions.world.store.current("shop")
    assert current is not None
    (event,) = events(functions, "Certificate Issued")
    assert event["fingerprint"] == current.fingerprint
    assert event["generation"] == 1
    assert event["notAfter"] == current.facts.not_after.isoformat()
    assert event["bucket"] == functions.world.store.bucket
    assert event["summary"] == (
        f"shop: ca issued {short(current.fingerprint)} for {', '.join(current.facts.domains)}, "
        f"valid until {current.facts.not_after:%Y-%m-%d}"
    )
    capsys.readouterr()
    functions.schedule()
    (line,) = metrics(capsys, "DaysLeft")
    assert line["Pipeline"] == "shop"
    assert 89 < line["DaysLeft"] <= 90
    assert 0 <= line["DaysSinceIssued"] < 0.1
    assert line["HoursPastWindow"] == 0
    (described,) = line["_aws"]["CloudWatchMetrics"]
    # One metric for all pipelines, whatever their number.
    assert described["Dimensions"] == [[]]
    assert {each["Name"] for each in described["Metrics"]} == {
        "DaysLeft",
        "DaysSinceIssued",
        "HoursPastWindow",
    }


def test_a_certificate_past_its_window_is_told_once(
    functions: Functions, ca: Pebble, capsys: pytest.CaptureFixture[str]
) -> None:
    functions.push("shop")
    functions.schedule()
    (message,) = functions.messages()
    functions.work(message)
    age(functions.world, timedelta(days=5))
    store = functions.world.store
    current = store.current("shop")
    assert current is not None
    end = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=5)
    ca.suggest_renewal(store.bundle(current).certificate, end - timedelta(hours=3), end)
    store.write(
        order_key("shop"),
        replace(functions.progress(), error="the zone is gone", attempts=3),
        Progress,
        store.read(order_key("shop"), Progress).etag,  # type: ignore[union-attr]
    )
    capsys.readouterr()
    assert functions.schedule()["due"]["shop"].endswith("as the CA asks")
    (line,) = metrics(capsys, "HoursPastWindow")
    assert 5 <= line["HoursPastWindow"] < 5.1
    functions.schedule()
    (event,) = events(functions, "Certificate At Risk")
    assert event["pipeline"] == "shop"
    assert event["windowEnd"] == end.isoformat()
    assert event["reason"] == "the zone is gone"
    assert event["summary"].endswith(": the zone is gone")


def test_a_wish_wakes_and_is_answered_once(functions: Functions) -> None:
    functions.push("shop", "other")
    functions.schedule()
    for message in functions.messages():
        functions.work(message)
        functions.world.aws.sqs().delete_message(
            QueueUrl=functions.queue, ReceiptHandle=message["receiptHandle"]
        )
    ask(functions.world.store, {"shop": Asked(1, "the CA revokes", datetime.now(UTC))})
    assert functions.schedule() == {"due": {"shop": "the CA revokes"}}
    (message,) = functions.messages()
    functions.work(message)
    current = functions.world.store.current("shop")
    assert current is not None
    assert current.generation == 2
    assert functions.schedule() == {"due": {}}


@pytest.mark.parametrize(("orders", "pause"), [(2, 90), (9, 20)])
def test_the_limits_of_the_ca_are_waited_for(
    functions: Functions, capsys: pytest.CaptureFixture[str], orders: int, pause: int
) -> None:
    """No failure, no alarm. Within the hour the message comes back by itself; what is later is left
    to the schedule."""
    names = [f"n{number}" for number in range(orders + 1)]
    functions.push(*names)
    text = json.loads(functions.world.store.pipelines_text())
    text["issuers"]["ca"]["limits"] = {"orders": orders}
    functions.world.store.put_pipelines_text(json.dumps(text))
    functions.schedule()
    messages = functions.messages()
    acknowledged = {json.loads(each["body"])["pipeline"]: functions.work(each) for each in messages}
    (waiting,) = [name for name in names if functions.world.store.current(name) is None]
    soon = pause < 60
    assert [name for name, done in acknowledged.items() if not done] == [waiting] * soon
    progress = functions.progress(waiting)
    assert progress.attempts == 0
    assert progress.error is None
    assert "have room for this order from" in str(progress.waits_for)
    assert progress.next_attempt is not None
    wait = progress.next_attempt - datetime.now(UTC)
    assert timedelta(minutes=pause - 2) < wait <= timedelta(minutes=pause)
    assert metrics(capsys, "IssuesFailed") == []
    # The schedule sends what comes before its next look; the queue holds it until then.
    assert set(functions.schedule()["due"]) == ({waiting} if soon else set())


def test_an_event_bus_that_takes_nothing_stops_nothing(
    functions: Functions, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not this certificate, and not the next."""
    functions.push("shop")
    with server.refuse("events:PutEvents", "AccessDenied"):
        for generation in (1, 2):
            assert len(functions.schedule()["due"]) == 1
            (message,) = functions.messages()
            assert functions.work(message)
            functions.world.aws.sqs().delete_message(
                QueueUrl=functions.queue, ReceiptHandle=message["receiptHandle"]
            )
            (line,) = metrics(capsys, "EventsNotSent")
            assert "Allow events:PutEvents" in line["why"]
            current = functions.world.store.current("shop")
            assert current is not None
            assert current.generation == generation
            assert functions.progress().error is None
            ask(functions.world.store, {"shop": Asked(generation, "again", datetime.now(UTC))})


def test_a_lease_that_is_held_does_not_use_up_the_message(functions: Functions) -> None:
    """Somebody runs `certrail issue` while a failure's next attempt is over."""
    functions.push("shop")
    functions.schedule()
    (message,) = functions.messages()
    now = datetime.now(UTC)
    held = Progress(
        "x",
        holder="somebody",
        until=now + timedelta(minutes=10),
        next_attempt=now - timedelta(minutes=1),
    )
    functions.world.store.write(order_key("shop"), held, Progress, None)
    assert functions.work(message)
    assert functions.progress() == held


def test_the_most_urgent_are_sent_first(functions: Functions, server: Server) -> None:
    """What ends soon, before what has nothing yet."""
    functions.push("fresh", "later", "soon")
    store, zone = functions.world.store, functions.world.zone
    for name, days in (("later", 5), ("soon", 1)):
        now = datetime.now(UTC)
        bundle = make_bundle([f"{name}.{zone}"])
        facts = replace(
            bundle.facts,
            not_before=now - timedelta(days=80),
            not_after=now + timedelta(days=days),
        )
        issued = Issued(
            issuer="ca",
            directory=functions.world.directory,
            account="",
            profile=None,
            key_type=facts.key_type,
            domains=facts.domains,
        )
        then = facts.not_before
        store.publish(name, replace(bundle, facts=facts), issued, after=None, now=then)
    assert list(functions.schedule()["due"]) == ["soon", "later", "fresh"]
