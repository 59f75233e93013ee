"""What uses an import, and can be pointed to another one."""

from __future__ import annotations

from typing import Any

import pytest

from certrail.keys import ALB as ALB_KEYS
from certrail.keys import NLB as NLB_KEYS
from certrail.target import as_job
from deployers.kinds.apigateway import Apigateway, EndpointType
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.listener import Listener
from deployers.preflight import User
from deployers.users import users_of
from sandbox import resources
from sandbox.rules.acm import AWS, users
from tests.deployers.cloud import ACCOUNT, REGION, Cloud
from tests.deployers.contract.worlds import ALB, NLB

NAMES = ["shop.example.com", "api.example.com"]


def imported(cloud: Cloud, region: str = REGION) -> str:
    return resources.imported_certificate(NAMES, region=region, account=ACCOUNT)


def found(cloud: Cloud, arn: str, account: str | None = None) -> list[User]:
    return users_of(arn, users(arn), cloud.aws, account)


def domain(cloud: Cloud, arn: str, name: str, region: str = REGION, *, edge: bool = False) -> None:
    resources.domain_name(
        name, session=cloud.session, endpoint=cloud.endpoint, region=region, edge=edge
    )
    path = "/certificateArn" if edge else "/regionalCertificateArn"
    cloud.client("apigateway", region).update_domain_name(
        domainName=name, patchOperations=[{"op": "replace", "path": path, "value": arn}]
    )


def distribution(cloud: Cloud, arn: str, aliases: list[str], **changes: Any) -> None:
    resources.distribution("E1", aliases, session=cloud.session, endpoint=cloud.endpoint)
    client = cloud.client("cloudfront")
    there = client.get_distribution_config(Id="E1")
    config = there["DistributionConfig"]
    viewer = {**config["ViewerCertificate"], "ACMCertificateArn": arn, "Certificate": arn}
    client.update_distribution(
        Id="E1",
        IfMatch=there["ETag"],
        DistributionConfig={**config, "ViewerCertificate": viewer, **changes},
    )


def test_nobody(cloud: Cloud) -> None:
    assert found(cloud, imported(cloud)) == []


def test_a_distribution_with_its_aliases(cloud: Cloud) -> None:
    arn = imported(cloud, "us-east-1")
    distribution(cloud, arn, NAMES)
    (user,) = found(cloud, arn, "edge")
    assert user.job == as_job(Cloudfront(distribution="E1", account="edge"))
    assert user.names == tuple(NAMES)
    assert user.key_types == Cloudfront(distribution="E1").key_types


def test_a_staging_distribution_stays(cloud: Cloud) -> None:
    arn = imported(cloud, "us-east-1")
    distribution(cloud, arn, NAMES, Staging=True)
    (user,) = found(cloud, arn)
    assert user.stays == "a staging distribution: update or promote it"


def test_each_listener_in_the_place_where_it_has_it(cloud: Cloud) -> None:
    arn = imported(cloud)
    second = ALB[:-1] + "3"
    for listener in (ALB, second, NLB):
        resources.listener(listener, session=cloud.session, endpoint=cloud.endpoint)
    elb = cloud.client("elbv2")
    elb.modify_listener(ListenerArn=ALB, Certificates=[{"CertificateArn": arn}])
    elb.add_listener_certificates(ListenerArn=ALB, Certificates=[{"CertificateArn": arn}])
    elb.add_listener_certificates(ListenerArn=NLB, Certificates=[{"CertificateArn": arn}])
    default, listed = found(cloud, arn)
    assert default.job == as_job(Listener(listener=ALB, default=True))
    assert listed.job == as_job(Listener(listener=NLB))
    assert (default.key_types, listed.key_types) == (ALB_KEYS, NLB_KEYS)


def fill(cloud: Cloud, entries: int, listener: str = ALB) -> None:
    for number in range(entries):
        other = resources.imported_certificate([f"{number}.example.net"], region=REGION)
        cloud.client("elbv2").add_listener_certificates(
            ListenerArn=listener, Certificates=[{"CertificateArn": other}]
        )


@pytest.mark.parametrize(
    ("entries", "quota", "stay"), [(3, 5, []), (4, 5, [ALB]), (4, None, []), (4, 6, [])]
)
def test_who_has_no_room_for_both_certificates_stays(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, entries: int, quota: int | None, stay: list[str]
) -> None:
    if quota:
        monkeypatch.setattr("sandbox.rules.elbv2.EXTRA_CERTIFICATES", quota)
    arn = imported(cloud)
    second = ALB[:-1] + "3"
    for listener in (ALB, second):
        resources.listener(listener, session=cloud.session, endpoint=cloud.endpoint)
    # Those of all its listeners count, its defaults do not.
    fill(cloud, entries, second)
    cloud.client("elbv2").add_listener_certificates(
        ListenerArn=ALB, Certificates=[{"CertificateArn": arn}]
    )
    users = found(cloud, arn)
    assert [user.job and user.job["listener"] for user in users] == [ALB]
    assert [user.job and user.job["listener"] for user in users if user.stays] == stay
    for user in users if stay else ():
        assert "may list 5 certificates and lists 5" in user.stays


def test_a_default_that_is_not_in_the_list_takes_a_place_for_good(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.rules.elbv2.EXTRA_CERTIFICATES", 3)
    arn = imported(cloud)
    listeners = [ALB, ALB[:-1] + "3", ALB[:-1] + "4"]
    for listener in listeners:
        resources.listener(listener, session=cloud.session, endpoint=cloud.endpoint)
        cloud.client("elbv2").modify_listener(
            ListenerArn=listener, Certificates=[{"CertificateArn": arn}]
        )
    fill(cloud, 1)
    assert [bool(user.stays) for user in found(cloud, arn)] == [False, False, True]


def test_a_quota_that_aws_does_not_say_is_the_one_everybody_begins_with(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = imported(cloud)
    resources.listener(NLB, session=cloud.session, endpoint=cloud.endpoint)
    cloud.client("elbv2").modify_listener(ListenerArn=NLB, Certificates=[{"CertificateArn": arn}])
    monkeypatch.setattr("sandbox.rules.elbv2.LIMITS", {})
    fill(cloud, 24, NLB)
    assert [user.stays for user in found(cloud, arn)] == [""]
    fill(cloud, 1, NLB)
    assert ["may list 25" in user.stays for user in found(cloud, arn)] == [True]


def test_domain_names_explain_what_is_awss_own(cloud: Cloud) -> None:
    arn = imported(cloud)
    domain(cloud, arn, NAMES[0])
    domain(cloud, arn, NAMES[1])
    resources.domain_name(
        "other.example.com", session=cloud.session, endpoint=cloud.endpoint, region=REGION
    )
    assert [user.job for user in found(cloud, arn)] == [
        as_job(Apigateway(domain_name=name, region=REGION)) for name in sorted(NAMES)
    ]


def test_an_edge_optimized_domain_name_of_any_region(cloud: Cloud) -> None:
    arn = imported(cloud, "us-east-1")
    domain(cloud, arn, NAMES[1], "eu-west-1", edge=True)
    (user,) = found(cloud, arn)
    expected = Apigateway(domain_name=NAMES[1], region="eu-west-1", endpoint=EndpointType.EDGE)
    assert user.job == as_job(expected)
    assert user.names == (NAMES[1],)


def test_regions_that_are_not_enabled_are_left_out(cloud: Cloud) -> None:
    arn = imported(cloud, "us-east-1")
    domain(cloud, arn, NAMES[1], "eu-west-1", edge=True)
    with cloud.server.refuse(
        "apigateway:GetDomainNames",
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        status=403,
        when=lambda call: call.region != "eu-west-1",
    ):
        assert [user.who for user in found(cloud, arn)] == [f"apigateway/eu-west-1/{NAMES[1]}"]


def test_what_no_domain_name_explains_cannot_be_moved(cloud: Cloud) -> None:
    arn = imported(cloud, "us-east-1")
    domain(cloud, arn, NAMES[1], "eu-west-1", edge=True)
    appsync = f"arn:aws:cloudfront::{AWS}:distribution/EAPPSYNC"
    moving, stuck = users_of(arn, [*users(arn), appsync], cloud.aws, None)
    assert moving.job
    assert (stuck.job, stuck.names) == (None, None)
    assert stuck.who == "a distribution of AWS's own"
    assert "AppSync or Cognito" in stuck.stuck


def test_a_load_balancer_of_awss_own_without_a_domain_name(cloud: Cloud) -> None:
    foreign = f"arn:aws:elasticloadbalancing:{REGION}:{AWS}:loadbalancer/app/prod/1"
    (stuck,) = users_of(imported(cloud), [foreign, foreign], cloud.aws, None)
    assert stuck.who == "2 load balancers of AWS's own"
    assert stuck.job is None


@pytest.mark.parametrize(
    ("arn", "why"),
    [
        (f"arn:aws:appsync:{REGION}:{ACCOUNT}:domainnames/a.example.com", "AppSync cannot point"),
        (f"arn:aws:iot:{REGION}:{ACCOUNT}:domainconfiguration/shop/1", "IoT cannot point"),
        (f"arn:aws:ec2:{REGION}:{ACCOUNT}:verified-access-endpoint/v", "Verified Access cannot"),
        (f"arn:aws:es:{REGION}:{ACCOUNT}:domain/logs", "certrail has no kind"),
        (f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:loadbalancer/classic", "no kind"),
        (f"arn:aws:cloudfront::{ACCOUNT}:distribution-tenant/dt_1", "certrail has no kind"),
    ],
)
def test_what_has_no_call_or_no_kind(cloud: Cloud, arn: str, why: str) -> None:
    (user,) = users_of(imported(cloud), [arn], cloud.aws, None)
    assert user.job is None
    assert why in user.stuck


def test_mutual_tls_holds_it(cloud: Cloud) -> None:
    arn = imported(cloud)
    foreign = f"arn:aws:elasticloadbalancing:{REGION}:{AWS}:loadbalancer/app/prod/1"
    shown: dict[str, Any] = {
        "domainName": NAMES[0],
        "regionalCertificateArn": arn,
        "ownershipVerificationCertificateArn": arn,
        "endpointConfiguration": {"types": ["REGIONAL"]},
    }
    cloud.answer("GetDomainNames", {"item": [shown]})
    (user,) = users_of(arn, [foreign], cloud.aws, None)
    assert user.job is None
    assert "mutual TLS" in user.stuck


def test_what_is_gone_already_is_nobody(cloud: Cloud) -> None:
    """`InUseBy` lags behind."""
    gone = [
        f"arn:aws:cloudfront::{ACCOUNT}:distribution/EGONE",
        f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:loadbalancer/app/gone/50dc6c495c0c9188",
    ]
    assert users_of(imported(cloud), gone, cloud.aws, None) == []


def test_it_only_reads(cloud: Cloud) -> None:
    arn = imported(cloud)
    domain(cloud, arn, NAMES[0])
    with cloud.journal() as calls:
        found(cloud, arn)
    assert [call.action for call in calls] == ["apigateway:GetDomainNames"]
