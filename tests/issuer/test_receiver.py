"""What the receiver makes of events, and of what goes wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from certrail.aws import Aws
from certrail.errors import AwsError
from certrail.store import Store, incoming_prefix
from issuer import lease, receiver
from issuer.receiver import told_of
from sandbox import Sandbox
from tests.buckets import make_bucket
from tests.certrail.bundles import make_bundle
from tests.issuer.foreign import certbot, node_lambda
from tests.issuer.test_handler import Context

ARN = "arn:aws:acm:us-east-1:123456789012:certificate/1"


def s3(key: str) -> str:
    return json.dumps({"source": "aws.s3", "detail": {"object": {"key": key}}})


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (s3("incoming/shop/cert.pem"), "incoming/shop/cert.pem"),
        (s3("incoming/_wildcard.shop/my%20cert.json"), "incoming/_wildcard.shop/my cert.json"),
        (json.dumps({"source": "aws.acm", "resources": [ARN]}), ARN),
        (json.dumps({"source": "aws.acm", "resources": []}), ""),
        ("{}", ""),
        ("[]", ""),
        ("no JSON", ""),
        (json.dumps({"source": "aws.s3", "detail": None}), ""),
    ],
)
def test_what_an_event_is_about(body: str, place: str) -> None:
    assert told_of(body) == place


@pytest.fixture
def store(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    store = make_bucket("receiver", Aws())
    monkeypatch.setenv("CERTRAIL_BUCKET", store.bucket)
    receiver._aws.cache_clear()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield store
    # The entry points set up logging, which is theirs to do in a process of their own.
    root.handlers[:] = handlers
    root.setLevel(level)
    receiver._aws.cache_clear()


def push(store: Store, *names: str, **incoming: str) -> None:
    pipelines = [
        {
            "name": name,
            "domains": [f"{name}.example"],
            "issuer": "incoming",
            "incoming": incoming,
        }
        for name in names
    ]
    store.put_pipelines_text(json.dumps({"pipelines": pipelines}))


def told(*bodies: str) -> dict[str, Any]:
    records = [{"messageId": str(number), "body": body} for number, body in enumerate(bodies)]
    return receiver.handle({"Records": records}, Context())


def test_an_event_is_for_its_own_pipeline(store: Store) -> None:
    push(store, "shop", "shop.eu")
    for name in ("shop", "shop.eu"):
        store.bring(name, "a.json", node_lambda(make_bundle([f"{name}.example"])))
    told(s3(f"{incoming_prefix('shop')}a.json"))
    assert store.current("shop")
    assert store.current("shop.eu") is None
    receiver.handle({}, Context())
    assert store.current("shop.eu")


def test_a_pushed_file_is_for_all(store: Store) -> None:
    push(store, "shop")
    store.bring("shop", "a.json", node_lambda(make_bundle(["shop.example"])))
    told(s3("config/pipelines.yaml"), "no JSON")
    assert store.current("shop")


def test_a_new_stack_is_quiet(store: Store) -> None:
    assert receiver.handle({}, Context()) == {}


def test_who_is_not_expected_is_warned_of(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    push(store, "shop")
    told(s3("incoming/shpo/cert.pem"))
    said = "no pipeline of the file takes this in: incoming/shpo/cert.pem"
    assert said in capsys.readouterr().out


def test_what_needs_somebody_is_counted_and_acknowledged(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    push(store, "shop")
    store.bring("shop", "a.json", b"{}")
    assert told(s3("incoming/shop/a.json")) == {"batchItemFailures": []}
    counted = [line for line in capsys.readouterr().out.splitlines() if "IssuesFailed" in line]
    assert len(counted) == 1
    # The schedule finds the same, and says nothing more.
    receiver.handle({}, Context())
    assert "IssuesFailed" not in capsys.readouterr().out


def test_what_waits_is_no_failure(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    push(store, "shop")
    store.bring("shop", "cert.pem", certbot(make_bundle(["shop.example"]))["cert.pem"])
    assert told(s3("incoming/shop/cert.pem")) == {"batchItemFailures": []}
    assert "IssuesFailed" not in capsys.readouterr().out


def test_what_may_pass_by_itself_comes_back(store: Store, sandbox: Sandbox) -> None:
    push(store, "shop", "other", certificate_arn=ARN)
    event = json.dumps({"source": "aws.acm", "resources": [ARN]})
    with sandbox.server.refuse("acm:DescribeCertificate", "ThrottlingException"):
        assert told(s3("incoming/none/a.json"), event) == {
            "batchItemFailures": [{"itemIdentifier": "1"}]
        }
    progress = lease.read(store, "shop")
    assert progress
    assert progress.attempts == 1
    push(store, "shop", certificate_arn=ARN)
    with (
        sandbox.server.refuse("acm:DescribeCertificate", "ServiceUnavailable"),
        pytest.raises(AwsError),
    ):
        receiver.handle({}, Context())
