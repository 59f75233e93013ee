"""An AWS for the deployers' tests: moto with AWS's rules, a bucket, and what was called."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from certrail.aws import Aws
from certrail.bundle import Bundle
from certrail.errors import CertrailError
from certrail.keys import KeyType
from certrail.records import Record
from certrail.store import Current, Issued, Store, Versioned, current_key, record_key
from certrail.target import Deployed, Target, with_needs
from deployers.deploy import Attempt, Outcome, deploy_target, observe_target, tell_nobody
from deployers.job import Role
from deployers.rollout import Step, plan
from sandbox.calls import Call
from sandbox.server import Server
from tests.certrail.bundles import NOW, make_bundle

ACCOUNT = "123456789012"
REGION = "eu-central-1"
PIPELINE = "shop"
DOMAINS = ("shop.example.com", "*.shop.example.com")
OURS = "certrail"


class Cloud:
    """aws, store: what the deployers get; every call they make is in `calls`."""

    def __init__(self, server: Server, bucket: str = "certrail-test") -> None:
        self.server = server
        self.endpoint = server.endpoint
        self.session = _session("somebody-else")
        self._clients: dict[tuple[str, str], Any] = {}
        self._before: dict[str, list[Callable[[], AWSResponse | None]]] = {}
        self._refusals = ExitStack()
        self._ours = _session(OURS)
        events: Any = self._ours.events
        events.register("before-send", self._meanwhile)
        self.aws = Aws(self._ours)
        self.store = Store(bucket, self.aws)

    def reset(self) -> None:
        """Start from an AWS with nothing in it but the bucket."""
        self._refusals.close()
        self._before.clear()
        self.server.reset()
        self.start_again()
        s3 = self.client("s3")
        s3.create_bucket(
            Bucket=self.store.bucket,
            CreateBucketConfiguration={"LocationConstraint": REGION},
        )
        s3.put_bucket_encryption(
            Bucket=self.store.bucket,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
            },
        )

    def start_again(self) -> None:
        """Forget the credentials of roles, as a new process has."""
        self.aws = Aws(self._ours)

    @property
    def calls(self) -> list[Call]:
        """The calls of certrail, not of somebody else."""
        return [call for call in self.server.calls.all() if call.access_key == OURS]

    def client(self, service: str, region: str = REGION) -> Any:
        """A client of somebody else, whose calls do not count."""
        if (service, region) not in self._clients:
            session: Any = self.session
            self._clients[service, region] = session.client(
                service, region_name=region, endpoint_url=self.endpoint
            )
        return self._clients[service, region]

    def role(self, account: str, statements: list[dict[str, Any]]) -> Role:
        """A role in an account, which certrail may assume and which may do this."""
        iam = self._iam(account)
        trust = {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Condition": {"StringEquals": {"sts:ExternalId": "abc"}},
        }
        arn = iam.create_role(
            RoleName="certrail",
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
        )["Role"]["Arn"]
        iam.put_role_policy(
            RoleName="certrail",
            PolicyName="certrail",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
        )
        return Role(arn, "abc")

    def forbid(self, account: str) -> None:
        """Take from that role what it may do."""
        self._iam(account).delete_role_policy(RoleName="certrail", PolicyName="certrail")

    def _iam(self, account: str) -> Any:
        iam = _session("somebody-else").client("iam", endpoint_url=self.endpoint)

        def there(request: Any, **_: Any) -> None:
            request.headers["x-moto-account-id"] = account

        iam.meta.events.register("before-sign", there)
        return iam

    # What happens around a call

    def before(self, operation: str, act: Callable[[], object]) -> None:
        """Once, just before the next request of this operation is sent, do something else."""

        def run() -> None:
            act()

        self._before.setdefault(operation, []).append(run)

    def forget(self) -> None:
        """What was to happen before a request happens no more."""
        self._before.clear()

    def refuse(
        self, operation: str, code: str, message: str = "No.", status: int | None = None
    ) -> None:
        """Answer the next request of this operation with an error."""
        self._refusals.enter_context(
            self.server.refuse(f"*:{operation}", code, message, status=status, times=1)
        )

    def answer(self, operation: str, document: dict[str, Any]) -> None:
        """Answer the next request of a JSON operation with this."""
        self._before.setdefault(operation, []).append(lambda: _answer(200, json.dumps(document)))

    def _meanwhile(self, request: Any, event_name: str, **_: Any) -> AWSResponse | None:
        waiting = self._before.get(event_name.rpartition(".")[2], [])
        return waiting.pop(0)() if waiting else None

    @contextmanager
    def journal(self) -> Iterator[list[Call]]:
        """The calls made inside, without those to the bucket."""
        first = len(self.calls)
        made: list[Call] = []
        yield made
        made += [call for call in self.calls[first:] if not call.action.startswith("s3:")]

    # certrail at work

    def publish(
        self,
        domains: Sequence[str] = DOMAINS,
        key_type: KeyType = KeyType.ECDSA_P256,
        *,
        pipeline: str = PIPELINE,
        bundle: Bundle | None = None,
    ) -> Current:
        issued = Issued(
            issuer="test",
            directory="https://ca.example/directory",
            account="https://ca.example/account/1",
            profile=None,
            key_type=key_type,
            domains=tuple(domains),
        )
        after: Versioned[Current] | None = self.store.read(current_key(pipeline), Current)
        new = bundle or make_bundle(domains, key_type)
        return self.store.publish(pipeline, new, issued, after=after, now=NOW)

    def deploy(
        self,
        target: Target,
        *,
        pipeline: str = PIPELINE,
        role: Role | None = None,
        now: datetime = NOW,
        by: str = "",
        tell: Callable[[Attempt], None] = tell_nobody,
    ) -> Outcome:
        return deploy_target(
            self.store, target, pipeline, role=role, aws=self.aws, now=now, by=by, tell=tell
        )

    def observe(self, target: Target, *, pipeline: str = PIPELINE) -> Deployed | None:
        return observe_target(self.store, target, pipeline, role=None, aws=self.aws)

    def record(self, target: Target, *, pipeline: str = PIPELINE) -> Record | None:
        seen = self.store.read(record_key(pipeline, target.address), Record)
        return seen.value if seen else None

    def recorded(self, target: Target, *, pipeline: str = PIPELINE) -> Record:
        record = self.record(target, pipeline=pipeline)
        assert record is not None
        return record

    def plan(
        self,
        *targets: Target,
        pipeline: str = PIPELINE,
        now: datetime = NOW,
        reconcile: bool = False,
    ) -> list[Step]:
        records = {
            each.address: record
            for each in with_needs(targets).values()
            if (record := self.record(each, pipeline=pipeline))
        }
        current = self.store.current(pipeline)
        return plan(targets, current, records, now, reconcile=reconcile)

    def settle(
        self, *targets: Target, pipeline: str = PIPELINE, now: datetime = NOW
    ) -> dict[str, CertrailError]:
        """Follow the plan until nothing is ready. Returns the failures, by address."""
        failures: dict[str, CertrailError] = {}
        while ready := [
            step for step in self.plan(*targets, pipeline=pipeline, now=now) if step.ready
        ]:
            for step in ready:
                try:
                    self.deploy(step.target, pipeline=pipeline, now=now)
                except CertrailError as error:
                    failures[step.target.address] = error
        return failures


def put_alarm(cloudwatch: Any, name: str, *states: str) -> None:
    """An alarm, made where there is none, that has been in these states, one after the other.
    cloudwatch: a client of it."""
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="shop",
        MetricName="Errors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold",
    )
    for state in states:
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="a test")


def _session(key: str) -> boto3.Session:
    return boto3.Session(aws_access_key_id=key, aws_secret_access_key="testing", region_name=REGION)


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield self._body


def _answer(status: int, text: str) -> AWSResponse:
    return AWSResponse("http://refused", status, HTTPHeaders(), _Raw(text.encode()))
