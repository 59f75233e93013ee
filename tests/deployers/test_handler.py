"""A deployer function: what goes back to the queue, what is counted, what is raised."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from certrail.records import Record, State
from certrail.store import record_key
from certrail.target import Link, Target, as_job
from deployers import handler
from deployers.deploy import LEASE
from deployers.handler import SOON
from deployers.job import Job
from deployers.kinds.all import KINDS
from deployers.kinds.secretsmanager import Secretsmanager
from deployers.rollout import Action
from sandbox.queues import queue
from tests.certrail.bundles import NOW
from tests.deployers.cloud import PIPELINE, REGION, Cloud
from tests.deployers.queues import as_event, queue_arn

KIND = "secretsmanager"
VISIBILITY = 360
DONE: dict[str, Any] = {"batchItemFailures": []}
SECRET = Secretsmanager(name="tls/shop/bundle", region=REGION)
OTHER = Secretsmanager(name="tls/shop/other", region=REGION)


@pytest.fixture
def function(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, lambda_logs: None) -> Cloud:
    """With a queue like the template's."""
    monkeypatch.setenv("CERTRAIL_BUCKET", cloud.store.bucket)
    monkeypatch.setenv("CERTRAIL_KIND", KIND)
    cloud.client("sqs").create_queue(
        QueueName=f"{KIND}.fifo",
        Attributes={"FifoQueue": "true", "VisibilityTimeout": str(VISIBILITY)},
    )
    return cloud


def received(cloud: Cloud, *targets: Target) -> dict[str, Any]:
    """The event of a job for each, in one group, which are in flight in the queue."""
    sqs = cloud.client("sqs")
    url = sqs.get_queue_url(QueueName=f"{KIND}.fifo")["QueueUrl"]
    current = cloud.store.current(PIPELINE)
    generation = current.generation if current else 1
    for target in targets:
        sqs.send_message(
            QueueUrl=url,
            MessageBody=Job(PIPELINE, as_job(target), None, generation).to_json(),
            MessageGroupId="one",
            MessageDeduplicationId=str(uuid4()),
        )
    return as_event(KIND, *sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"])


def failed(event: dict[str, Any]) -> dict[str, Any]:
    """The answer that brings all messages of an event back."""
    return {"batchItemFailures": [{"itemIdentifier": m["messageId"]} for m in event["Records"]]}


def hidden() -> list[float]:
    """The seconds for which each message that is in flight will not be received again."""
    now = time.time()
    return [m.visible_at / 1000 - now for m in queue(queue_arn(KIND)).pending_messages]


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=5)


def refuse(cloud: Cloud) -> None:
    """As often as botocore asks for one attempt of ours."""
    for _ in range(5):
        cloud.refuse("CreateSecret", "InternalServiceError", status=500)


def lines(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_job_is_done(function: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    current = function.publish()
    assert handler.handle(received(function, SECRET), None) == DONE
    assert function.recorded(SECRET).fingerprint == current.fingerprint
    (line,) = lines(capsys)
    assert line["target"] == SECRET.address
    assert line["action"] == "deployed"
    assert line["fingerprint"] == current.fingerprint


def test_a_failure_for_a_person_is_counted_and_done_with(
    function: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    function.publish()
    function.deploy(SECRET)
    function.client("secretsmanager").delete_secret(SecretId=SECRET.name)
    function.publish()
    assert handler.handle(received(function, SECRET, OTHER), None) == DONE
    assert hidden() == [about(VISIBILITY)] * 2
    assert function.recorded(SECRET).state is State.FAILED
    assert function.recorded(OTHER).state is State.DEPLOYED
    told, metric, done = lines(capsys)
    assert "restore-secret" in told["message"]
    assert told["level"] == "ERROR"
    assert metric.pop("_aws")["CloudWatchMetrics"] == [
        {
            "Namespace": "certrail",
            "Dimensions": [["kind"]],
            "Metrics": [{"Name": "DeploymentsFailed", "Unit": "Count"}],
        }
    ]
    assert metric == {
        "DeploymentsFailed": 1,
        "kind": "secretsmanager",
        "pipeline": PIPELINE,
        "target": SECRET.address,
    }
    assert done["target"] == OTHER.address


def test_a_failure_that_may_pass_goes_back_with_all_behind_it(
    function: Cloud, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    function.publish()
    refuse(function)
    event = received(function, SECRET, OTHER)
    assert handler.handle(event, None) == failed(event)
    assert hidden() == [about(60)] * 2
    assert function.recorded(SECRET).state is State.FAILED
    assert function.record(OTHER) is None
    assert not any("DeploymentsFailed" in line for line in lines(capsys))
    assert handler.handle(event, None) == DONE


def test_a_failure_that_stays_is_left_to_the_schedule(
    function: Cloud, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes back after 1 and after 10 minutes; 100 would hold up its group for too long."""
    function.publish()
    event = received(function, SECRET)
    for minutes in (1, 10):
        refuse(function)
        assert handler.handle(event, None) == failed(event)
        assert hidden() == [about(60 * minutes)]
    assert not any("DeploymentsFailed" in line for line in lines(capsys))
    refuse(function)
    assert handler.handle(event, None) == DONE
    assert sum("DeploymentsFailed" in line for line in lines(capsys)) == 1
    record = function.recorded(SECRET)
    assert record.next_attempt == record.at + timedelta(minutes=100)
    (step,) = function.plan(SECRET, now=record.next_attempt - timedelta(seconds=1))
    assert not step.ready
    (step,) = function.plan(SECRET, now=record.next_attempt)
    assert step.action is Action.RETRY


def test_a_failure_before_the_record_could_be_read_goes_back_soon(
    function: Cloud, quick: None
) -> None:
    function.publish()
    event = received(function, SECRET)
    for _ in range(5):
        function.refuse("GetObject", "SlowDown", status=503)
    assert handler.handle(event, None) == failed(event)
    assert hidden() == [about(SOON.total_seconds())]
    assert function.record(SECRET) is None


def test_a_target_somebody_else_is_at_goes_back(function: Cloud) -> None:
    current = function.publish()
    busy = Record(
        pipeline=PIPELINE,
        address=SECRET.address,
        kind=SECRET.type,
        state=State.DEPLOYING,
        generation=1,
        fingerprint=current.fingerprint,
        spec=SECRET.spec,
        at=NOW,
        until=NOW + 100 * LEASE,
        claim="theirs",
    )
    function.store.write(record_key(PIPELINE, SECRET.address), busy, Record, None)
    event = received(function, SECRET)
    assert handler.handle(event, None) == failed(event)
    assert hidden() == [about(SOON.total_seconds())]
    assert function.recorded(SECRET) == busy


@pytest.mark.parametrize(
    "body",
    [
        "hello",
        "{}",
        json.dumps({"pipeline": "shop", "target": {}, "account": None, "generation": 1}),
        Job("shop", {"type": "acm", "region": REGION}, None, 1).to_json(),
    ],
)
def test_what_is_no_job_of_this_kind_is_raised(function: Cloud, body: str) -> None:
    with pytest.raises(ValidationError):
        handler.handle({"Records": [{"messageId": "1", "body": body}]}, None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_imports_its_own_kind_and_little_else(kind: str) -> None:
    script = (
        "import sys; from deployers.handler import kind_named; "
        f"kind_named({kind!r}); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    kinds = {name for name in modules if name.startswith("deployers.kinds.")}
    needed = {"acm"} if issubclass(KINDS[kind], Link) else set()
    if kind == "fleet":
        needed = {"secretsmanager"}
    assert kinds == {f"deployers.kinds.{each}" for each in {kind} | needed}
    # Not `cryptography`: botocore imports it where pyOpenSSL is installed, as it is for the issuer.
    absent = {"yaml", "acme", "dns", "rich", "typer", "certrail.pipelines"}
    assert modules.isdisjoint(absent)
