"""A deployer function: what goes back to the queue, what is counted, what is raised."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from certrail.records import Record, State
from certrail.store import record_key
from certrail.target import Target, as_job
from deployers import handler
from deployers.deploy import LEASE
from deployers.job import Job
from deployers.kinds.all import KINDS
from deployers.kinds.secretsmanager import Secretsmanager
from tests.certrail.bundles import NOW
from tests.deployers.cloud import PIPELINE, REGION, Cloud

SECRET = Secretsmanager(name="tls/shop/bundle", region=REGION)
OTHER = Secretsmanager(name="tls/shop/other", region=REGION)


@pytest.fixture
def function(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, lambda_logs: None) -> Cloud:
    monkeypatch.setenv("CERTRAIL_BUCKET", cloud.store.bucket)
    monkeypatch.setenv("CERTRAIL_KIND", "secretsmanager")
    return cloud


def messages(*targets: Target) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": f"message-{index}",
                "body": Job(PIPELINE, as_job(target), None, 1).to_json(),
            }
            for index, target in enumerate(targets)
        ]
    }


def lines(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_job_is_done(function: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    current = function.publish()
    assert handler.handle(messages(SECRET), None) == {"batchItemFailures": []}
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
    assert handler.handle(messages(SECRET, OTHER), None) == {"batchItemFailures": []}
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
    for _ in range(5):
        function.refuse("CreateSecret", "InternalServiceError", status=500)
    answer = handler.handle(messages(SECRET, OTHER), None)
    assert answer == {
        "batchItemFailures": [{"itemIdentifier": "message-0"}, {"itemIdentifier": "message-1"}]
    }
    assert function.recorded(SECRET).state is State.FAILED
    assert function.record(OTHER) is None
    assert not any("DeploymentsFailed" in line for line in lines(capsys))
    assert handler.handle(messages(SECRET, OTHER), None) == {"batchItemFailures": []}


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
    answer = handler.handle(messages(SECRET), None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "message-0"}]}
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
    needed = {"cloudfront": {"acm"}, "listener": {"acm"}}.get(kind, set())
    assert kinds == {f"deployers.kinds.{each}" for each in {kind} | needed}
    # Not `cryptography`: botocore imports it where pyOpenSSL is installed, as it is for the issuer.
    absent = {"yaml", "acme", "dns", "rich", "typer", "certrail.pipelines"}
    assert modules.isdisjoint(absent)
