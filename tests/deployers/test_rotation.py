"""A new import takes the place of an old one: everybody moves, and the old one goes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from certrail.bundle import fingerprint
from certrail.errors import AccessDenied, NotCovered, TargetRefused
from certrail.keys import KeyType
from certrail.pipelines import Pipelines, load
from certrail.records import Rollout, State
from certrail.store import rollout_key
from certrail.target import (
    LEFT,
    Context,
    Preflight,
    Rotation,
    Succession,
    Target,
    as_job,
    asked_for,
    from_job,
    with_needs,
)
from deployers import router
from deployers.deploy import LEASE, Outcome, Result, deploy_target, preflight_target
from deployers.held import behind
from deployers.kinds.acm import RETIRE_AFTER, Acm
from deployers.kinds.all import AnyTarget
from deployers.kinds.apigateway import Apigateway
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.listener import Listener
from deployers.rollout import Action, gates, plan
from deployers.view import followers, look_at
from sandbox import resources
from sandbox.rules.acm import AWS
from tests.certrail.bundles import NOW, make_bundle
from tests.deployers.cloud import ACCOUNT, DOMAINS, PIPELINE, REGION, Cloud
from tests.deployers.contract.worlds import ALB, NLB
from tests.deployers.queues import Queues

HOME = Acm(region=REGION)
US = Acm(region="us-east-1")
LATER = NOW + 2 * RETIRE_AFTER


def deploy(
    cloud: Cloud, target: Target, rotation: Rotation = Rotation.REPLACE, **changes: Any
) -> Outcome:
    given = {"role": None, "aws": cloud.aws, "now": NOW, "rotation": rotation}
    return deploy_target(cloud.store, target, PIPELINE, **{**given, **changes})


def ahead_of(cloud: Cloud, target: Target) -> Preflight | None:
    """What deploying the current bundle would do."""
    wanted = cloud.store.current(PIPELINE)
    assert wanted
    return preflight_target(
        cloud.store,
        target,
        wanted,
        role=None,
        aws=cloud.aws,
        rotation=Rotation.IN_PLACE,
        now=NOW,
    )


def resource(cloud: Cloud, target: Target) -> str:
    held = cloud.recorded(target).held
    assert held
    return held.resource


def exists(cloud: Cloud, arn: str) -> bool:
    client = cloud.client("acm", arn.split(":")[3])
    try:
        client.describe_certificate(CertificateArn=arn)
    except client.exceptions.ResourceNotFoundException:
        return False
    return True


def follow(cloud: Cloud, home: Target) -> dict[str, Target]:
    """Who has to follow, by address."""
    return {each.address: each for each in followers([cloud.recorded(home)], [home])}


def listener(cloud: Cloud, arn: str, *, at: str = ALB, default: bool = True) -> str:
    """A listener that somebody else has given this certificate."""
    resources.listener(at, session=cloud.session, endpoint=cloud.endpoint)
    elb = cloud.client("elbv2")
    if default:
        elb.modify_listener(ListenerArn=at, Certificates=[{"CertificateArn": arn}])
    elb.add_listener_certificates(ListenerArn=at, Certificates=[{"CertificateArn": arn}])
    return at


def certificates(cloud: Cloud, at: str = ALB) -> list[tuple[str, bool]]:
    found = cloud.client("elbv2").describe_listener_certificates(ListenerArn=at)["Certificates"]
    return [(each["CertificateArn"], each["IsDefault"]) for each in found]


# Calls


def test_a_renewal_in_place_asks_nobody_who_uses_it(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(HOME)
    listener(cloud, resource(cloud, HOME))
    cloud.publish()
    with cloud.journal() as calls:
        cloud.deploy(HOME)
    assert [call.action for call in calls] == [
        "acm:DescribeCertificate",
        "acm:GetCertificate",
        "acm:ImportCertificate",
    ]


# Moving


def test_a_listener_that_no_file_names_moves_in_the_place_where_it_had_it(cloud: Cloud) -> None:
    cloud.publish()
    deploy(cloud, HOME)
    old = resource(cloud, HOME)
    foreign = resources.imported_certificate(["other.example.org"], region=REGION)
    listener(cloud, old)
    listener(cloud, old, at=NLB, default=False)
    cloud.client("elbv2").add_listener_certificates(
        ListenerArn=ALB, Certificates=[{"CertificateArn": foreign}]
    )
    (their_default, _), *_ = certificates(cloud, NLB)

    cloud.publish()
    deploy(cloud, HOME)
    new = resource(cloud, HOME)
    moving = follow(cloud, HOME)
    assert list(moving.values()) == [
        Listener(listener=ALB, default=True).as_follower(),
        Listener(listener=NLB).as_follower(),
    ]
    for target in moving.values():
        deploy(cloud, target)
    assert sorted(certificates(cloud)) == sorted([(new, True), (new, False), (foreign, False)])
    assert sorted(certificates(cloud, NLB)) == sorted([(their_default, True), (new, False)])


def test_a_default_of_ours_follows_although_the_file_names_only_the_list(cloud: Cloud) -> None:
    cloud.publish()
    target = Listener(listener=ALB)
    deploy(cloud, HOME)
    listener(cloud, resource(cloud, HOME))
    deploy(cloud, target)
    cloud.publish()
    deploy(cloud, HOME)
    deploy(cloud, target)
    new = resource(cloud, HOME)
    assert sorted(certificates(cloud)) == [(new, False), (new, True)]


def test_who_missed_a_whole_rotation_leaves_both_old_ones(cloud: Cloud) -> None:
    """Its wave never began, and the next certificate came."""
    cloud.publish()
    deploy(cloud, HOME)
    listener(cloud, resource(cloud, HOME))
    for _ in range(2):
        cloud.publish()
        deploy(cloud, HOME)
    (target,) = follow(cloud, HOME).values()
    deploy(cloud, target)
    new = resource(cloud, HOME)
    assert sorted(certificates(cloud)) == [(new, False), (new, True)]


def test_a_distribution_and_a_domain_name_move(cloud: Cloud) -> None:
    resources.distribution("E1", DOMAINS, session=cloud.session, endpoint=cloud.endpoint)
    resources.domain_name(
        DOMAINS[0], session=cloud.session, endpoint=cloud.endpoint, region="us-east-1"
    )
    named = (Cloudfront(distribution="E1"), Apigateway(domain_name=DOMAINS[0], region="us-east-1"))
    cloud.publish()
    deploy(cloud, US)
    for each in named:
        deploy(cloud, each)
    cloud.publish(key_type=KeyType.RSA_2048)
    deploy(cloud, US, Rotation.IN_PLACE)
    new = resource(cloud, US)
    assert list(follow(cloud, US)) == [each.address for each in named]
    for target in follow(cloud, US).values():
        deploy(cloud, target, Rotation.IN_PLACE)
        assert resource(cloud, target) == new
    shown = cloud.client("cloudfront").get_distribution_config(Id="E1")["DistributionConfig"]
    assert shown["ViewerCertificate"]["ACMCertificateArn"] == new


def test_who_got_another_certificate_from_its_owner_meanwhile_is_left_alone(cloud: Cloud) -> None:
    """A distribution, a domain name and two listeners, in a wave that comes days later."""
    resources.distribution("E1", DOMAINS, session=cloud.session, endpoint=cloud.endpoint)
    resources.domain_name(
        DOMAINS[0], session=cloud.session, endpoint=cloud.endpoint, region="us-east-1"
    )
    gateway = Apigateway(domain_name=DOMAINS[0], region="us-east-1")
    cloud.publish()
    for each in (HOME, US, Cloudfront(distribution="E1"), gateway):
        deploy(cloud, each)
    listener(cloud, resource(cloud, HOME))
    listener(cloud, resource(cloud, HOME), at=NLB, default=False)
    olds = [resource(cloud, HOME), resource(cloud, US)]
    cloud.publish()
    for each in (HOME, US):
        deploy(cloud, each)
    moving = [*follow(cloud, HOME).values(), *follow(cloud, US).values()]
    assert len(moving) == 4

    theirs = resources.imported_certificate(DOMAINS, region=REGION)
    at_the_edge = resources.imported_certificate(DOMAINS, region="us-east-1")
    elb = cloud.client("elbv2")
    elb.modify_listener(ListenerArn=ALB, Certificates=[{"CertificateArn": theirs}])
    for at in (ALB, NLB):
        elb.remove_listener_certificates(ListenerArn=at, Certificates=[{"CertificateArn": olds[0]}])
    point(cloud, "E1", at_the_edge)
    cloud.client("apigateway", "us-east-1").update_domain_name(
        domainName=DOMAINS[0],
        patchOperations=[
            {"op": "replace", "path": "/regionalCertificateArn", "value": at_the_edge}
        ],
    )
    with cloud.journal() as calls:
        first = [deploy(cloud, each) for each in moving]
        again = [deploy(cloud, each) for each in moving]
    assert [call.action for call in calls if call.writes] == []
    assert {each.reason for each in first} == {
        "left alone, as its owner has chosen another certificate for it"
    }
    assert {each.result for each in again} == {Result.UNCHANGED}
    records = [cloud.recorded(each) for each in moving]
    assert {(each.state, each.held, each.check) for each in records} == {
        (State.DEPLOYED, LEFT, None)
    }
    # Nobody uses the old ones any more.
    for each in (HOME, US):
        deploy(cloud, each, now=LATER)
    assert [exists(cloud, arn) for arn in olds] == [False, False]


def test_who_has_followed_may_still_be_given_another_certificate(cloud: Cloud) -> None:
    cloud.publish()
    deploy(cloud, HOME)
    listener(cloud, resource(cloud, HOME))
    cloud.publish()
    deploy(cloud, HOME)
    (target,) = follow(cloud, HOME).values()
    deploy(cloud, target)
    new = resource(cloud, HOME)
    theirs = resources.imported_certificate(DOMAINS, region=REGION)
    elb = cloud.client("elbv2")
    elb.modify_listener(ListenerArn=ALB, Certificates=[{"CertificateArn": theirs}])
    with cloud.journal() as calls:
        outcome = deploy(cloud, target)
    assert outcome.held
    # The list still has it. Clients that ask for no name get what the owner has chosen.
    assert [each.server_names for each in outcome.held.endpoints] == [asked_for(DOMAINS)]
    elb.remove_listener_certificates(ListenerArn=ALB, Certificates=[{"CertificateArn": new}])
    with cloud.journal() as more:
        outcome = deploy(cloud, target)
    assert (outcome.held, outcome.repaired) == (LEFT, None)
    assert [call.action for call in [*calls, *more] if call.writes] == []


def test_what_its_owner_gave_back_to_a_replaced_import_follows_again(cloud: Cloud) -> None:
    cloud.publish()
    deploy(cloud, HOME)
    old = resource(cloud, HOME)
    listener(cloud, old, default=False)
    cloud.publish()
    deploy(cloud, HOME)
    (target,) = follow(cloud, HOME).values()
    elb = cloud.client("elbv2")
    entry = [{"CertificateArn": old}]
    elb.remove_listener_certificates(ListenerArn=ALB, Certificates=entry)
    assert deploy(cloud, target).held == LEFT
    elb.add_listener_certificates(ListenerArn=ALB, Certificates=entry)
    deploy(cloud, target)
    assert [arn for arn, is_default in certificates(cloud) if not is_default] == [
        resource(cloud, HOME)
    ]


def test_what_the_file_begins_to_name_is_deployed_to_at_once(cloud: Cloud) -> None:
    named = Listener(listener=ALB)
    job = as_job(named.as_follower())
    assert from_job(Listener, job) == named.as_follower() != named
    assert named.as_follower().spec != named.spec
    with pytest.raises(ValidationError, match="follows"):
        TypeAdapter(AnyTarget).validate_python(job)


def test_what_another_pipeline_of_the_file_names_is_not_moved(cloud: Cloud) -> None:
    resources.distribution("E1", DOMAINS, session=cloud.session, endpoint=cloud.endpoint)
    cloud.publish()
    deploy(cloud, US)
    home = cloud.recorded(US).held
    assert home
    point(cloud, "E1", home.resource)
    cloud.publish()
    deploy(cloud, US)
    (pipeline,) = load(WAVES, "pipelines.yaml", Pipelines[AnyTarget]).pipelines
    alone = replace(pipeline, targets=(US,), claims={})
    claimed = replace(alone, claims={"cloudfront/E1": "blog"})
    with ThreadPoolExecutor(1) as readers:
        found = [look_at(cloud.store, each, readers).targets for each in (alone, claimed)]
    assert [[each.address for each in targets] for targets in found] == [
        [US.address, "cloudfront/E1"],
        [US.address],
    ]


def test_who_cannot_follow_says_why_and_is_served_as_before(cloud: Cloud) -> None:
    both = [*DOMAINS, "api.example.net"]
    resources.distribution("E1", both, session=cloud.session, endpoint=cloud.endpoint)
    target = Cloudfront(distribution="E1")
    cloud.publish(both)
    for each in (US, target):
        cloud.deploy(each)
    old = resource(cloud, US)
    cloud.publish()
    cloud.deploy(US)
    with pytest.raises(NotCovered, match=r"does not cover api\.example\.net"):
        cloud.deploy(target)
    assert cloud.recorded(target).state is State.FAILED
    # In use, it stays for as long as it takes.
    cloud.deploy(US, now=LATER)
    assert exists(cloud, old)
    held = cloud.recorded(US).held
    assert held
    assert (held.superseded, held.followers) == ((old,), (as_job(target),))


def test_what_a_follower_stays_with_is_watched_to_its_end(cloud: Cloud) -> None:
    """It was never deployed, so its own record does not know what it holds."""
    both = [*DOMAINS, "api.example.net"]
    resources.distribution("E1", both, session=cloud.session, endpoint=cloud.endpoint)
    old = cloud.publish(both)
    cloud.deploy(US)
    point(cloud, "E1", resource(cloud, US))
    new = cloud.publish()
    cloud.deploy(US)
    (target,) = follow(cloud, US).values()
    with pytest.raises(NotCovered):
        cloud.deploy(target)
    records = {each.address: cloud.recorded(each) for each in (US, target)}
    late = behind(new, records)
    assert late
    assert (late.record.address, late.not_after) == (target.address, old.facts.not_after)
    assert late.what == "an import that was replaced"
    # Its owner gives it another one, and the daily run deletes the import.
    point(cloud, "E1", resources.imported_certificate(both))
    cloud.deploy(US, now=LATER)
    cloud.deploy(target, now=LATER)
    records = {each.address: cloud.recorded(each) for each in (US, target)}
    assert behind(new, records) is None


def test_a_key_that_a_follower_cannot_serve_is_refused_before_any_call(cloud: Cloud) -> None:
    cloud.publish()
    deploy(cloud, HOME)
    listener(cloud, resource(cloud, HOME), at=NLB)
    cloud.publish(key_type=KeyType.RSA_4096)
    deploy(cloud, HOME)
    (target,) = follow(cloud, HOME).values()
    with cloud.journal() as calls, pytest.raises(TargetRefused, match="cannot serve rsa-4096"):
        deploy(cloud, target)
    assert calls == []
    assert "cannot serve rsa-4096" in (cloud.recorded(target).error or "")


def test_a_full_load_balancer_is_known_before_the_first_write(cloud: Cloud) -> None:
    cloud.publish()
    deploy(cloud, HOME)
    listener(cloud, resource(cloud, HOME))
    listener(cloud, resource(cloud, HOME), at=NLB)
    for number in range(24):
        other = resources.imported_certificate([f"{number}.example.net"], region=REGION)
        cloud.client("elbv2").add_listener_certificates(
            ListenerArn=ALB, Certificates=[{"CertificateArn": other}]
        )
    cloud.publish(key_type=KeyType.RSA_2048)
    ahead = ahead_of(cloud, HOME)
    assert ahead
    assert {mover.job["listener"]: mover.stays[:47] for mover in ahead.movers} == {
        ALB: "its load balancer may list 25 certificates and ",
        NLB: "",
    }


def test_where_something_cannot_be_moved_nothing_is_written(cloud: Cloud) -> None:
    cloud.publish()
    deploy(cloud, US)
    arn = resource(cloud, US)
    appsync = f"arn:aws:cloudfront::{AWS}:distribution/EAPPSYNC"
    shown = cloud.client("acm", "us-east-1").describe_certificate(CertificateArn=arn)
    detail = {
        **shown["Certificate"],
        **{
            name: shown["Certificate"][name].timestamp()
            for name in ("NotAfter", "NotBefore", "ImportedAt")
        },
        "InUseBy": [appsync],
    }
    cloud.publish()
    cloud.answer("DescribeCertificate", {"Certificate": detail})
    # Not even the tags that the file has gained.
    tagged = US.model_copy(update={"tags": {"team": "web"}})
    with cloud.journal() as calls, pytest.raises(TargetRefused, match="AppSync or Cognito"):
        deploy(cloud, tagged)
    assert [call.action for call in calls if call.writes] == []
    record = cloud.recorded(US)
    assert (record.state, record.next_attempt) == (State.FAILED, None)


@pytest.mark.parametrize("adopted", [False, True])
def test_with_less_than_a_day_left_cloudfront_gets_a_new_arn(
    cloud: Cloud, adopted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    resources.distribution("E1", DOMAINS, session=cloud.session, endpoint=cloud.endpoint)
    target = Cloudfront(distribution="E1")
    cloud.publish(bundle=make_bundle(DOMAINS, days=0.9))
    for each in (US, target):
        cloud.deploy(each)
    old = resource(cloud, US)
    home = Acm(region="us-east-1", certificate_arn=old) if adopted else US
    current = cloud.publish()
    cloud.deploy(home)
    assert (resource(cloud, home) == old) is adopted
    assert ("imported in place, although" in caplog.text) is adopted
    cloud.deploy(target)
    shown = cloud.client("acm", "us-east-1").get_certificate(CertificateArn=points_to(cloud, "E1"))
    assert fingerprint(shown["Certificate"]) == current.fingerprint


# Crashes and rollbacks


class Died(BaseException):
    pass


def die() -> None:
    raise Died


def test_a_crash_before_the_record_makes_no_second_import(cloud: Cloud) -> None:
    cloud.publish()
    deploy(cloud, HOME)
    old = resource(cloud, HOME)
    listener(cloud, old)
    cloud.publish()
    cloud.before("ImportCertificate", lambda: cloud.before("PutObject", die))
    with pytest.raises(Died):
        deploy(cloud, HOME)
    with cloud.journal() as calls:
        deploy(cloud, HOME, now=NOW + LEASE)
    assert [call.action for call in calls if call.writes] == []
    held = cloud.recorded(HOME).held
    assert held
    assert held.superseded == (old,)
    assert list(follow(cloud, HOME)) == [Listener(listener=ALB).address]


def test_a_rollback_points_back_to_the_import_that_has_it(cloud: Cloud) -> None:
    bundles = [make_bundle(DOMAINS) for _ in range(2)]
    seen = []
    for bundle in (*bundles, bundles[0]):
        cloud.publish(bundle=bundle)
        deploy(cloud, HOME)
        seen.append(resource(cloud, HOME))
    assert seen[2] == seen[0] != seen[1]
    held = cloud.recorded(HOME).held
    assert held
    assert held.superseded == (seen[1],)
    assert held.fingerprint == bundles[0].fingerprint


def test_an_import_that_is_found_again_gets_the_tags_that_the_file_gained(cloud: Cloud) -> None:
    bundles = [make_bundle(DOMAINS) for _ in range(2)]
    for bundle in bundles:
        cloud.publish(bundle=bundle)
        deploy(cloud, HOME)
    cloud.publish(bundle=bundles[0])
    tagged = Acm(region=REGION, tags={"team": "web"})
    deploy(cloud, tagged)
    tags = cloud.client("acm").list_tags_for_certificate(CertificateArn=resource(cloud, tagged))
    assert {"Key": "team", "Value": "web"} in tags["Tags"]


def test_a_lost_record_does_not_lose_who_has_to_follow(cloud: Cloud) -> None:
    cloud.publish()
    deploy(cloud, HOME)
    listener(cloud, resource(cloud, HOME))
    cloud.publish(key_type=KeyType.RSA_2048)
    deploy(cloud, HOME)
    new = resource(cloud, HOME)
    cloud.client("s3").delete_object(
        Bucket=cloud.store.bucket, Key=f"deployments/{PIPELINE}/{HOME.address}.json"
    )
    deploy(cloud, HOME)
    assert resource(cloud, HOME) == new
    assert list(follow(cloud, HOME)) == [Listener(listener=ALB).address]


# Retiring


def replaced(cloud: Cloud) -> tuple[str, str]:
    """The old import and the new one, which took its place."""
    cloud.publish()
    deploy(cloud, HOME)
    old = resource(cloud, HOME)
    cloud.publish()
    deploy(cloud, HOME)
    return old, resource(cloud, HOME)


def test_a_day_after_nobody_uses_it_any_more_it_is_deleted(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old, new = replaced(cloud)
    for passed in (timedelta(0), RETIRE_AFTER - timedelta(seconds=1)):
        deploy(cloud, HOME, now=NOW + passed)
        assert exists(cloud, old)
    outcome = deploy(cloud, HOME, now=LATER)
    assert outcome.result is Result.UNCHANGED
    assert not exists(cloud, old)
    held = cloud.recorded(HOME).held
    assert held
    assert (held.resource, held.superseded, held.retired) == (new, (), (old,))
    assert f"deleted {old}, which nothing uses" in caplog.text
    # And that was all.
    with cloud.journal() as calls:
        deploy(cloud, HOME, now=LATER)
    assert [call.action for call in calls if call.writes] == []


def test_what_is_in_use_stays_until_it_is_not(cloud: Cloud) -> None:
    cloud.publish()
    deploy(cloud, HOME)
    old = resource(cloud, HOME)
    listener(cloud, old)
    cloud.publish()
    deploy(cloud, HOME)
    deploy(cloud, HOME, now=LATER)
    assert exists(cloud, old)
    (target,) = follow(cloud, HOME).values()
    deploy(cloud, target)
    deploy(cloud, HOME, now=LATER)
    assert not exists(cloud, old)
    assert follow(cloud, HOME) == {}


def test_somebody_may_begin_to_use_it_in_the_last_moment(cloud: Cloud) -> None:
    old, _ = replaced(cloud)
    cloud.before("DeleteCertificate", lambda: listener(cloud, old))
    deploy(cloud, HOME, now=LATER)
    assert exists(cloud, old)


def test_what_a_run_left_behind_that_died_is_deleted_too(cloud: Cloud) -> None:
    cloud.publish()
    deploy(cloud, HOME)
    cloud.publish()
    cloud.before("ImportCertificate", lambda: cloud.before("PutObject", die))
    with pytest.raises(Died):
        deploy(cloud, HOME)
    # Before anybody came back to it, the next certificate was there.
    cloud.publish()
    deploy(cloud, HOME, now=NOW + LEASE)
    assert len(imports(cloud)) == 3
    deploy(cloud, HOME, now=LATER)
    assert imports(cloud) == {resource(cloud, HOME)}


def imports(cloud: Cloud) -> set[str]:
    listed = cloud.client("acm").list_certificates(Includes={"keyTypes": ["EC_prime256v1"]})
    return {each["CertificateArn"] for each in listed["CertificateSummaryList"]}


def foreign_import(cloud: Cloud) -> str:
    return resources.imported_certificate(DOMAINS, region=REGION)


def of_another_pipeline(cloud: Cloud) -> str:
    context = Context(pipeline="mail", owner=cloud.store.bucket, aws=cloud.aws)
    return HOME.deploy(make_bundle(DOMAINS), context).resource


def of_another_installation(cloud: Cloud) -> str:
    context = Context(pipeline=PIPELINE, owner="another-bucket", aws=cloud.aws)
    return HOME.deploy(make_bundle(DOMAINS), context).resource


@pytest.mark.parametrize("make", [foreign_import, of_another_pipeline, of_another_installation])
def test_what_is_not_ours_is_never_deleted(cloud: Cloud, make: Callable[[Cloud], str]) -> None:
    arn = make(cloud)
    replaced(cloud)
    deploy(cloud, HOME, now=LATER)
    assert exists(cloud, arn)


def test_an_import_that_was_adopted_once_is_left_but_not_deleted(cloud: Cloud) -> None:
    arn = foreign_import(cloud)
    listener(cloud, arn)
    cloud.publish()
    deploy(cloud, Acm(region=REGION, certificate_arn=arn), Rotation.IN_PLACE)
    cloud.publish()
    deploy(cloud, HOME)
    (target,) = follow(cloud, HOME).values()
    deploy(cloud, target)
    deploy(cloud, HOME, now=LATER)
    assert exists(cloud, arn)
    held = cloud.recorded(HOME).held
    assert held
    assert (held.superseded, held.followers) == ((), ())


def test_an_adopted_import_is_not_deleted_although_it_has_our_tags(cloud: Cloud) -> None:
    _, new = replaced(cloud)
    adopted = Acm(region=REGION, certificate_arn=new)
    deploy(cloud, adopted, Rotation.IN_PLACE)
    deploy(cloud, adopted, Rotation.IN_PLACE, now=LATER)
    assert imports(cloud) == {new}


def test_the_policy_allows_to_delete_only_what_is_ours(cloud: Cloud) -> None:
    every = "arn:aws:acm:*:*:certificate/*"
    role = cloud.role(
        ACCOUNT,
        [
            {
                "Effect": "Allow",
                "Action": "acm:DeleteCertificate",
                "Resource": every,
                "Condition": {
                    "StringEquals": {"aws:ResourceTag/certrail:owner": cloud.store.bucket}
                },
            }
        ],
    )
    ours, _ = replaced(cloud)
    theirs = of_another_installation(cloud)
    acting = cloud.aws.acting_as(role.role_arn, role.external_id).acm(REGION)
    acting.delete_certificate(CertificateArn=ours)
    for arn in (theirs, foreign_import(cloud)):
        with pytest.raises(AccessDenied):
            acting.delete_certificate(CertificateArn=arn)


# Plan


def test_preflight_says_beforehand_what_will_be(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(HOME)
    listener(cloud, resource(cloud, HOME))

    assert ahead_of(cloud, HOME) is None
    cloud.publish()
    in_place = ahead_of(cloud, HOME)
    assert in_place
    assert in_place.way is Succession.IN_PLACE
    cloud.publish(key_type=KeyType.RSA_2048)
    with cloud.journal() as calls:
        found = ahead_of(cloud, HOME)
    assert found
    assert found.way is Succession.REPLACE
    assert [mover.job["type"] for mover in found.movers] == ["listener"]
    assert [call.action for call in calls if call.writes] == []


def test_preflight_says_that_cloudfront_would_miss_the_chain(cloud: Cloud) -> None:
    resources.distribution("E1", DOMAINS, session=cloud.session, endpoint=cloud.endpoint)
    cloud.publish()
    for each in (US, Cloudfront(distribution="E1")):
        cloud.deploy(each)
    cloud.publish(bundle=replace(make_bundle(DOMAINS), chain=""))
    ahead = ahead_of(cloud, US)
    assert ahead
    assert ahead.way is Succession.REFUSED
    with pytest.raises(TargetRefused, match="without intermediates"):
        cloud.deploy(US)


# Waves


WAVES = """\
issuers: {ca: {directory: https://ca.example/directory}}
defaults: {region: eu-central-1}
pipelines:
  - name: shop
    domains: [shop.example.com, "*.shop.example.com"]
    rotation: replace
    waves: [{name: canary, bake: 1h}, {name: all}]
    targets:
      - {type: cloudfront, distribution: E1, wave: canary}
      - {type: cloudfront, distribution: E2, wave: all}
"""
SECOND = Cloudfront(distribution="E2")
# An alias belongs to one distribution only.
ALIASES = {"E1": ["shop.example.com"], "E2": ["a.shop.example.com"], "E3": ["b.shop.example.com"]}


@pytest.fixture
def queues(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, lambda_logs: None) -> Queues:
    made = Queues(cloud, WAVES)
    monkeypatch.setenv("CERTRAIL_BUCKET", cloud.store.bucket)
    monkeypatch.setenv("CERTRAIL_QUEUES", json.dumps(made.urls))
    monkeypatch.setenv("CERTRAIL_WATCH_QUEUE", made.looks)
    return made


def settle(queues: Queues, monkeypatch: pytest.MonkeyPatch, event: dict[str, Any]) -> None:
    """Route and work until no job is left."""
    router.handle(event, None)
    while queues.work(monkeypatch):
        router.handle({}, None)


def pass_waves(cloud: Cloud, count: int) -> None:
    """What the watcher writes when a wave is served and has baked."""
    current = cloud.store.current(PIPELINE)
    assert current
    seen = cloud.store.read(rollout_key(PIPELINE), Rollout)
    rollout = Rollout(
        pipeline=PIPELINE,
        generation=current.generation,
        fingerprint=current.fingerprint,
        at=NOW,
        began_at=NOW,
        passed=count,
    )
    cloud.store.write(rollout_key(PIPELINE), rollout, Rollout, seen.etag if seen else None)


def point(cloud: Cloud, distribution: str, arn: str) -> None:
    """As its owner does it."""
    client = cloud.client("cloudfront")
    there = client.get_distribution_config(Id=distribution)
    config = there["DistributionConfig"]
    config["ViewerCertificate"] = {
        "ACMCertificateArn": arn,
        "SSLSupportMethod": "sni-only",
        "MinimumProtocolVersion": "TLSv1.2_2021",
    }
    client.update_distribution(Id=distribution, IfMatch=there["ETag"], DistributionConfig=config)


def points_to(cloud: Cloud, distribution: str) -> str:
    config = cloud.client("cloudfront").get_distribution_config(Id=distribution)
    arn: str = config["DistributionConfig"]["ViewerCertificate"]["ACMCertificateArn"]
    return arn


def test_a_later_wave_stays_on_the_old_import_until_it_begins(
    cloud: Cloud, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, aliases in ALIASES.items():
        resources.distribution(name, aliases, session=cloud.session, endpoint=cloud.endpoint)
    cloud.publish()
    pass_waves(cloud, 1)
    settle(queues, monkeypatch, {})
    old = points_to(cloud, "E1")
    assert points_to(cloud, "E2") == old
    # A distribution that no file names.
    home = cloud.recorded(US).held
    assert home
    Cloudfront(distribution="E3").link(
        make_bundle(DOMAINS).facts,
        Context(PIPELINE, "x", cloud.aws, needs={US.address: home}),
    )

    cloud.publish()
    settle(queues, monkeypatch, {})
    new = resource(cloud, US)
    assert new != old
    assert [points_to(cloud, each) for each in ("E1", "E2", "E3")] == [new, old, old]

    # The daily run finds nothing to repair, and does not delete what the others still use.
    settle(queues, monkeypatch, {"reconcile": True})
    deploy(cloud, US, now=LATER)
    assert [points_to(cloud, each) for each in ("E2", "E3")] == [old, old]
    there = cloud.observe(SECOND)
    assert there
    assert (there.resource, there.fingerprint) == (old, cloud.recorded(SECOND).fingerprint)

    pass_waves(cloud, 1)
    settle(queues, monkeypatch, {})
    assert [points_to(cloud, each) for each in ("E1", "E2", "E3")] == [new, new, new]
    deploy(cloud, US, now=LATER)
    assert not exists(cloud, old)


def test_the_planner_says_that_a_later_wave_waits(cloud: Cloud) -> None:
    (pipeline,) = load(WAVES, "pipelines.yaml", Pipelines[AnyTarget]).pipelines
    for name, aliases in ALIASES.items():
        resources.distribution(name, aliases, session=cloud.session, endpoint=cloud.endpoint)
    cloud.publish()
    for target in (US, *pipeline.targets):
        deploy(cloud, target)
    cloud.publish()
    deploy(cloud, US)
    current = cloud.store.current(PIPELINE)
    records = {
        address: cloud.recorded(target) for address, target in with_needs(pipeline.targets).items()
    }
    closed = gates(pipeline.waves, pipeline.targets, current, None)
    for reconcile in (False, True):
        steps = plan(pipeline.targets, current, records, NOW, gates=closed, reconcile=reconcile)
        told = {step.target.address: (step.action, step.reason) for step in steps}
        assert told["cloudfront/E2"] == (Action.WAIT, "waiting for wave `canary`")
        assert told["cloudfront/E1"][0] is Action.UPDATE
