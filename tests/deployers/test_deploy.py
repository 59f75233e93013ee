"""The one way to deploy: claims, generations, failures on the record."""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest

from certrail.bundle import Bundle
from certrail.errors import AccessDenied, AwsError, BundleBroken, Busy, CertrailError, Superseded
from certrail.records import Check, Record, State
from certrail.store import Current, current_key, record_key
from certrail.target import Context, Deployed, Endpoint
from deployers.deploy import LEASE, RETRY_AFTER, Result, deploy_target
from deployers.job import Role
from deployers.kinds.acm import Acm
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.secretsmanager import Secretsmanager
from deployers.rollout import Action
from sandbox import resources
from tests.certrail.bundles import NOW
from tests.deployers.cloud import DOMAINS, PIPELINE, REGION, Cloud

HOME = Acm(region="us-east-1")
SECRET = Secretsmanager(name="tls/shop/bundle", region=REGION)


def imports(cloud: Cloud) -> int:
    found = cloud.client("acm", "us-east-1").list_certificates(
        Includes={"keyTypes": ["EC_prime256v1", "RSA_2048"]}
    )
    return len(found["CertificateSummaryList"])


def test_before_the_first_certificate_there_is_nothing_to_do(cloud: Cloud) -> None:
    outcome = cloud.deploy(HOME)
    assert outcome.result is Result.WAITING
    assert cloud.record(HOME) is None


def test_a_target_waits_for_what_it_needs(cloud: Cloud) -> None:
    cloud.publish()
    target = Cloudfront(distribution="E1")
    outcome = cloud.deploy(target)
    assert outcome.result is Result.WAITING
    assert outcome.reason == "waiting for acm/us-east-1"
    assert cloud.record(target) is None


def test_the_record_tells_everything(cloud: Cloud) -> None:
    resources.distribution("E1", DOMAINS, session=cloud.session, endpoint=cloud.endpoint)
    target = Cloudfront(distribution="E1")
    current = cloud.publish()
    cloud.settle(target)
    home = cloud.recorded(HOME).held
    assert home is not None
    (there,) = cloud.client("cloudfront").list_distributions()["DistributionList"]["Items"]
    names = ("certrail-check.shop.example.com", "shop.example.com")
    assert cloud.recorded(target) == Record(
        pipeline=PIPELINE,
        address="cloudfront/E1",
        kind="cloudfront",
        state=State.DEPLOYED,
        generation=1,
        fingerprint=current.fingerprint,
        spec=target.spec,
        at=NOW,
        needs={"acm/us-east-1": home.resource},
        held=replace(home, since=None, endpoints=(Endpoint(there["DomainName"], 443, names),)),
        # It may have pointed there before, and then this was a reimport.
        check=Check(until=NOW + timedelta(hours=24), next=NOW),
    )


# Two at once


def test_two_deployers_at_once_make_one_import(cloud: Cloud) -> None:
    cloud.publish()
    both = threading.Barrier(2)

    def run(_: int) -> str:
        both.wait()
        try:
            return cloud.deploy(HOME).result
        except Busy:
            return "busy"

    for _ in range(5):
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(run, range(2)))
        assert results.count(Result.DEPLOYED) <= 1
    assert imports(cloud) == 1
    assert cloud.recorded(HOME).state is State.DEPLOYED


def test_a_claim_keeps_others_out_until_it_expires(cloud: Cloud) -> None:
    cloud.publish()
    busy: list[type[CertrailError]] = []

    def second() -> None:
        try:
            cloud.deploy(HOME)
        except CertrailError as error:
            busy.append(type(error))

    cloud.before("ImportCertificate", second)
    cloud.deploy(HOME)
    assert busy == [Busy]
    assert imports(cloud) == 1


def test_who_died_is_followed_up(cloud: Cloud) -> None:
    cloud.publish()

    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    # As when the function is killed between the import and the record.
    cloud.before("ImportCertificate", lambda: cloud.before("PutObject", die))
    with pytest.raises(Died):
        cloud.deploy(HOME)
    assert cloud.recorded(HOME).state is State.DEPLOYING
    with pytest.raises(Busy):
        cloud.deploy(HOME, now=NOW + LEASE - timedelta(seconds=1))
    (step,) = cloud.plan(HOME, now=NOW + LEASE)
    assert step.action is Action.RETRY
    cloud.deploy(HOME, now=NOW + LEASE)
    assert cloud.recorded(HOME).state is State.DEPLOYED
    assert imports(cloud) == 1


def test_who_slept_over_the_lease_writes_nothing_more(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `certrail apply` on a laptop that is closed before the import and opened an hour later,
    when a newer certificate has been deployed."""
    cloud.publish()
    cloud.settle(HOME)
    cloud.publish()
    time = [datetime.now(UTC)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return time[0]

    monkeypatch.setattr("certrail.aws.datetime", Clock)

    def newer() -> None:
        cloud.publish()
        cloud.deploy(HOME, now=NOW + timedelta(hours=1))

    def sleep() -> None:
        time[0] += timedelta(hours=1)
        # In another process.
        contextvars.Context().run(newer)

    cloud.before("GetCertificate", sleep)
    with pytest.raises(Busy, match="taken over"):
        cloud.deploy(HOME)
    newest = cloud.store.current(PIPELINE)
    there = cloud.observe(HOME)
    assert newest
    assert there
    assert (newest.generation, newest.fingerprint) == (3, there.fingerprint)
    assert cloud.recorded(HOME).generation == 3


# Generations


def test_the_newest_generation_wins_whatever_the_job_was_about(cloud: Cloud) -> None:
    for _ in range(3):
        current = cloud.publish()
    for _ in range(3):  # three jobs, of three generations, late
        cloud.deploy(HOME)
    assert cloud.recorded(HOME).fingerprint == current.fingerprint
    assert imports(cloud) == 1


def test_an_older_generation_replaces_nothing(cloud: Cloud) -> None:
    cloud.publish()
    cloud.publish()
    cloud.deploy(HOME)
    record = cloud.recorded(HOME)
    seen = cloud.store.read(current_key(PIPELINE), Current)
    assert seen is not None
    old = replace(seen.value, generation=1)
    cloud.store.write(current_key(PIPELINE), old, Current, seen.etag)
    with cloud.journal() as calls, pytest.raises(Superseded, match="generation 2"):
        cloud.deploy(HOME)
    assert calls == []
    assert cloud.recorded(HOME) == record
    (step,) = cloud.plan(HOME, reconcile=True)
    assert not step.ready


def test_a_bundle_published_meanwhile_is_deployed_next(cloud: Cloud) -> None:
    cloud.publish()
    cloud.before("ImportCertificate", cloud.publish)
    cloud.deploy(HOME)
    assert cloud.recorded(HOME).generation == 1
    (step,) = cloud.plan(HOME)
    assert step.action is Action.UPDATE
    assert cloud.settle(HOME) == {}
    assert cloud.recorded(HOME).generation == 2


# Failures


def test_a_broken_bundle_is_on_the_record_and_harms_nothing(cloud: Cloud) -> None:
    cloud.publish()
    cloud.settle(HOME, SECRET)
    held = cloud.recorded(HOME).held
    broken = cloud.publish()
    s3 = cloud.client("s3")
    key = f"certificates/{PIPELINE}/{broken.fingerprint}/chain.pem"
    s3.put_object(Bucket=cloud.store.bucket, Key=key, Body=b"something else")
    with cloud.journal() as calls:
        failures = cloud.settle(HOME, SECRET)
    assert {type(error) for error in failures.values()} == {BundleBroken}
    assert len(failures) == 2
    assert [call for call in calls if call.writes] == []
    record = cloud.recorded(HOME)
    assert (record.state, record.held, record.generation) == (State.FAILED, held, 2)
    assert "digest differs" in (record.error or "")
    assert record.next_attempt is None
    cloud.publish()
    assert cloud.settle(HOME, SECRET) == {}


def test_retries_wait_longer_and_longer(cloud: Cloud, quick: None) -> None:
    cloud.publish()
    now = NOW
    for attempt, delay in enumerate((*RETRY_AFTER, RETRY_AFTER[-1]), 1):
        for _ in range(5):
            cloud.refuse("CreateSecret", "InternalServiceError", status=500)
        with pytest.raises(AwsError):
            cloud.deploy(SECRET, now=now)
        record = cloud.recorded(SECRET)
        assert (record.attempts, record.next_attempt) == (attempt, now + delay)
        (step,) = cloud.plan(SECRET, now=now)
        assert step.action is Action.WAIT
        now += delay
        (step,) = cloud.plan(SECRET, now=now)
        assert step.action is Action.RETRY
    cloud.publish()
    for _ in range(5):
        cloud.refuse("CreateSecret", "InternalServiceError", status=500)
    with pytest.raises(AwsError):
        cloud.deploy(SECRET, now=now)
    assert cloud.recorded(SECRET).attempts == 1


def test_what_nobody_foresaw_is_recorded_without_its_text_and_raised(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.publish()

    def bug(*_: object) -> None:
        raise ZeroDivisionError("-----BEGIN PRIVATE KEY-----")

    monkeypatch.setattr(Acm, "_find", bug)
    with pytest.raises(ZeroDivisionError):
        cloud.deploy(HOME)
    record = cloud.recorded(HOME)
    assert record.state is State.FAILED
    assert record.error == "ZeroDivisionError (unforeseen; see the log)"
    assert record.next_attempt == NOW + RETRY_AFTER[0]


def test_a_role_that_may_not_be_assumed_is_on_the_record(cloud: Cloud) -> None:
    cloud.publish()
    target = Acm(region="us-east-1", account="edge")
    cloud.refuse("AssumeRole", "AccessDenied", "Not you.", 403)
    role = Role("arn:aws:iam::222222222222:role/certrail", "abc")
    with pytest.raises(AwsError, match="sts:AssumeRole"):
        deploy_target(cloud.store, target, PIPELINE, role=role, aws=cloud.aws, now=NOW)
    assert "sts:AssumeRole" in (cloud.recorded(target).error or "")


def test_a_role_that_was_taken_away_is_on_the_record(cloud: Cloud) -> None:
    cloud.publish()
    target = Acm(region="us-east-1", account="edge")
    allow = {"Effect": "Allow", "Action": sorted(target.permissions()), "Resource": "*"}
    role = cloud.role("222222222222", [allow])
    cloud.deploy(target, role=role)
    cloud.start_again()
    for _ in range(2):  # to look, and to deploy
        cloud.refuse("AssumeRole", "AccessDenied", "Not you any more.", 403)
    with pytest.raises(AwsError, match="sts:AssumeRole"):
        cloud.deploy(target, role=role, now=NOW + timedelta(days=1))
    record = cloud.recorded(target)
    assert record.state is State.FAILED
    assert "sts:AssumeRole" in (record.error or "")
    assert record.held is not None


def test_a_role_is_assumed_once_an_hour_and_again_where_it_was_made_anew(cloud: Cloud) -> None:
    cloud.publish()
    target = Acm(region="us-east-1", account="edge")
    allow = {"Effect": "Allow", "Action": sorted(target.permissions()), "Resource": "*"}
    role = cloud.role("222222222222", [allow])
    for _ in range(3):
        cloud.deploy(target, role=role)
    assert [call.action for call in cloud.calls].count("sts:AssumeRole") == 1
    cloud.refuse("DescribeCertificate", "InvalidClientTokenId", "Not any more.", 403)
    cloud.deploy(target, role=role)
    cloud.deploy(target, role=role)
    assert [call.action for call in cloud.calls].count("sts:AssumeRole") == 2


def test_another_account_holds_its_own(cloud: Cloud) -> None:
    cloud.publish()
    target = Acm(region="us-east-1", account="edge")
    allow = {"Effect": "Allow", "Action": sorted(target.permissions()), "Resource": "*"}
    cloud.deploy(target, role=cloud.role("222222222222", [allow]))
    held = cloud.recorded(target).held
    assert held is not None
    assert held.resource.startswith("arn:aws:acm:us-east-1:222222222222:")


@pytest.mark.parametrize("code", ["ExpiredTokenException", "SignatureDoesNotMatch"])
def test_credentials_that_ran_out_are_no_missing_permission(cloud: Cloud, code: str) -> None:
    cloud.publish()
    cloud.refuse("ImportCertificate", code, status=403)
    with pytest.raises(AwsError, match="Sign in to AWS again") as caught:
        cloud.deploy(HOME)
    assert not isinstance(caught.value, AccessDenied)
    assert cloud.recorded(HOME).next_attempt == NOW + RETRY_AFTER[0]


# Reconciling


def test_reconciling_writes_nothing_where_nothing_drifted(cloud: Cloud) -> None:
    cloud.publish()
    cloud.settle(HOME)
    before = cloud.client("s3").head_object(
        Bucket=cloud.store.bucket, Key=record_key(PIPELINE, HOME.address)
    )["LastModified"]
    later = NOW + timedelta(days=1)
    outcome = cloud.deploy(HOME, now=later)
    assert outcome.result is Result.UNCHANGED
    assert cloud.recorded(HOME).at == NOW
    after = cloud.client("s3").head_object(
        Bucket=cloud.store.bucket, Key=record_key(PIPELINE, HOME.address)
    )["LastModified"]
    assert before == after


def test_a_failure_while_looking_is_on_the_record(cloud: Cloud) -> None:
    cloud.publish()
    cloud.settle(HOME)
    for _ in range(2):
        cloud.refuse("DescribeCertificate", "AccessDeniedException", status=403)
    with pytest.raises(AwsError):
        cloud.deploy(HOME)
    assert cloud.recorded(HOME).state is State.FAILED


def test_held_is_what_a_kind_is_told(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.publish()
    cloud.settle(HOME)
    held = cloud.recorded(HOME).held
    told: list[Context] = []
    deploy = Acm.deploy

    def tell(self: Acm, bundle: Bundle, context: Context) -> Deployed:
        told.append(context)
        return deploy(self, bundle, context)

    monkeypatch.setattr(Acm, "deploy", tell)
    cloud.publish()
    cloud.deploy(HOME)
    assert [context.held for context in told] == [held]
    assert told[0].owner == cloud.store.bucket
