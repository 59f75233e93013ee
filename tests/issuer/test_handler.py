"""The two Lambda functions, with their queue."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certrail.errors import CertrailError, FailedTogether, StateError
from certrail.store import order_key
from issuer import handler, lease
from issuer.lease import Progress
from sandbox import Sandbox
from sandbox.server import Server
from tests.issuer.conftest import World


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
                "body": message["Body"],
                "receiptHandle": message["ReceiptHandle"],
                "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:issue.fifo",
            }
            for message in answer.get("Messages", [])
        ]

    def work(self, message: dict[str, Any]) -> None:
        handler.work({"Records": [message]}, Context())

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


def metrics(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[:1] == "{"]
    return [line for line in lines if "_aws" in line]


def test_what_needs_a_person(
    functions: Functions, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written down, counted, acknowledged; not tried again before tomorrow."""
    functions.push("shop")
    functions.schedule()
    (message,) = functions.messages()
    with server.refuse("route53:ListHostedZones", "AccessDenied"):
        functions.work(message)
    (metric,) = metrics(capsys)
    assert metric["IssuesFailed"] == 1
    assert metric["Pipeline"] == "shop"
    assert metric["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [[], ["Pipeline"]]
    progress = functions.progress()
    assert progress.permanent
    assert "route53:ListHostedZones" in str(progress.error)
    assert progress.next_attempt is not None
    assert progress.next_attempt > datetime.now(UTC) + timedelta(hours=23)
    assert functions.schedule() == {"due": {}}


def test_what_may_pass(
    functions: Functions, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raised, and held back in the queue until the next attempt; before it, nothing is done."""
    functions.push("shop", "other")
    functions.schedule()
    (message, other) = functions.messages()
    name = json.loads(message["body"])["pipeline"]
    hidden = f"_acme-challenge.{name}.{functions.world.zone}"
    with sandbox.nameserver.hide(hidden), pytest.raises(CertrailError, match="did not appear"):
        handler.work({"Records": [message]}, Context(timedelta(seconds=62)))
    assert len(metrics(capsys)) == 1
    assert functions.world.texts() == []
    (held,) = functions.world.sandbox.server.calls.of("sqs:ChangeMessageVisibility")
    assert held.params is not None
    assert 55 <= int(held.params["VisibilityTimeout"]) <= 61
    progress = functions.progress(name)
    assert not progress.permanent
    assert progress.attempts == 1
    before = sandbox.server.calls.mark()
    functions.work(message)
    assert sandbox.server.calls.of("s3:PutObject", since=before) == []
    assert functions.progress(name) == progress
    # The other pipeline's group was never held up.
    functions.work(other)


def test_one_broken_document_holds_up_nobody(functions: Functions) -> None:
    functions.push("broken", "shop")
    functions.world.aws.s3().put_object(
        Bucket=functions.world.store.bucket, Key=order_key("broken"), Body=b"?"
    )
    with pytest.raises(StateError, match="broken"):
        functions.schedule()
    (message,) = functions.messages()
    assert json.loads(message["body"]) == {"pipeline": "shop"}


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
