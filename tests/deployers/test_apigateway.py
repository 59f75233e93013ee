"""apigateway: one change of a domain name, and only of one that can take it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from certrail.errors import AccessDenied, BundleRefused, NotCovered, TargetMissing, TargetRefused
from certrail.records import State
from certrail.target import Endpoint
from deployers.kinds.acm import Acm
from deployers.kinds.apigateway import Apigateway, EndpointType
from sandbox import resources
from sandbox.propagation import Delay, propagation
from tests.certrail.bundles import NOW
from tests.deployers.cloud import ACCOUNT, DOMAINS, REGION, Cloud

NAME = DOMAINS[0]
CERTIFICATE = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate"
TARGET = Apigateway(domain_name=NAME, region=REGION)
EDGE = Apigateway(domain_name=NAME, region=REGION, endpoint=EndpointType.EDGE)


def domain(cloud: Cloud, name: str = NAME, *, edge: bool = False) -> None:
    resources.domain_name(
        name, session=cloud.session, endpoint=cloud.endpoint, region=REGION, edge=edge
    )


def shown(cloud: Cloud, name: str = NAME) -> Any:
    return cloud.client("apigateway").get_domain_name(domainName=name)


def test_it_is_one_change_and_a_renewal_is_none(cloud: Cloud) -> None:
    domain(cloud)
    cloud.publish()
    cloud.deploy(Acm(region=REGION))
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
    assert [call.action for call in calls] == [
        "apigateway:GetDomainName",
        "apigateway:UpdateDomainName",
    ]
    home = cloud.recorded(Acm(region=REGION)).held
    assert home
    assert shown(cloud)["regionalCertificateArn"] == home.resource
    cloud.publish()
    cloud.deploy(Acm(region=REGION))
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
    assert [call.action for call in calls] == ["apigateway:GetDomainName"]


def test_an_edge_optimized_one_has_its_certificate_in_us_east_1(cloud: Cloud) -> None:
    domain(cloud, edge=True)
    cloud.publish()
    assert cloud.settle(EDGE) == {}
    home = cloud.recorded(Acm(region="us-east-1")).held
    assert home
    assert shown(cloud)["certificateArn"] == home.resource


def test_where_clients_find_it(cloud: Cloud) -> None:
    domain(cloud)
    domain(cloud, "*.shop.example.com", edge=True)
    wildcard = Apigateway(
        domain_name="*.shop.example.com", region=REGION, endpoint=EndpointType.EDGE
    )
    cloud.publish()
    assert cloud.settle(TARGET, wildcard) == {}
    held = [cloud.recorded(each).held for each in (TARGET, wildcard)]
    assert [each.endpoints for each in held if each] == [
        (Endpoint(shown(cloud)["regionalDomainName"], 443, (NAME,)),),
        (
            Endpoint(
                shown(cloud, "*.shop.example.com")["distributionDomainName"],
                443,
                ("certrail-check.shop.example.com",),
            ),
        ),
    ]
    assert wildcard.address == f"apigateway/{REGION}/_wildcard.shop.example.com"
    check = cloud.recorded(TARGET).check
    assert check
    assert check.until == NOW + timedelta(minutes=30)
    assert EDGE.propagation(relinked=True) == timedelta(hours=1)
    # Behind it is a distribution.
    assert EDGE.propagation(relinked=False) == timedelta(hours=24)


def test_while_it_is_being_updated_it_is_tried_again(cloud: Cloud) -> None:
    propagation.delays = {"apigateway": Delay(relink=timedelta(minutes=40))}
    clock = propagation.clock() + timedelta(days=1)
    propagation.clock = lambda: clock
    domain(cloud)
    cloud.client("apigateway").update_domain_name(
        domainName=NAME,
        patchOperations=[
            {
                "op": "replace",
                "path": "/regionalCertificateArn",
                "value": resources.imported_certificate([NAME], region=REGION, account=ACCOUNT),
            }
        ],
    )
    cloud.publish()
    cloud.deploy(Acm(region=REGION))
    with cloud.journal() as calls, pytest.raises(TargetRefused, match="UPDATING") as caught:
        cloud.deploy(TARGET)
    assert caught.value.retryable
    assert [call.action for call in calls if call.writes] == []
    record = cloud.recorded(TARGET)
    assert (record.state, record.next_attempt) == (State.FAILED, NOW + timedelta(minutes=1))


@pytest.mark.parametrize(
    ("text", "late"),
    [
        ("The certificate has no valid chain.", BundleRefused),
        (
            "Unable to associate certificate with CloudFront. Please ensure the certificate domain "
            "name matches the requested domain name, and that this user has permission to call "
            "cloudfront:UpdateDistribution on '*' resources.",
            TargetRefused,
        ),
    ],
)
def test_what_api_gateway_does_not_accept_an_hour_after_the_import_is_the_bundles_fault(
    cloud: Cloud, text: str, late: type[TargetRefused]
) -> None:
    domain(cloud)
    cloud.publish()
    cloud.deploy(Acm(region=REGION))
    for now, kind in [(NOW, TargetRefused), (NOW + timedelta(hours=1), late)]:
        cloud.refuse("UpdateDomainName", "BadRequestException", text, 400)
        (error,) = cloud.settle(TARGET, now=now).values()
        assert type(error) is kind
        assert error.retryable is (now == NOW)
    assert cloud.recorded(TARGET).refused is (late is BundleRefused)


def test_an_import_that_somebody_deleted_is_not_the_bundles_fault(cloud: Cloud) -> None:
    domain(cloud)
    cloud.publish()
    home, later = Acm(region=REGION), NOW + timedelta(hours=1)
    cloud.deploy(home)
    held = cloud.recorded(home).held
    assert held
    cloud.client("acm", REGION).delete_certificate(CertificateArn=held.resource)
    with pytest.raises(TargetMissing, match=f"somebody deleted {held.resource}"):
        cloud.deploy(TARGET, now=later)
    assert not cloud.recorded(TARGET).refused
    cloud.deploy(home, now=later)
    assert cloud.settle(TARGET, now=later) == {}


def test_somebody_was_quicker(cloud: Cloud) -> None:
    domain(cloud)
    cloud.publish()
    cloud.deploy(Acm(region=REGION))
    cloud.refuse("UpdateDomainName", "ConflictException", "It is being updated.", 409)
    with pytest.raises(TargetRefused, match="another change") as caught:
        cloud.deploy(TARGET)
    assert caught.value.retryable
    cloud.deploy(TARGET, now=NOW + timedelta(minutes=1))
    assert cloud.recorded(TARGET).state is State.DEPLOYED


def test_throttling_passes(cloud: Cloud, quick: None) -> None:
    domain(cloud)
    cloud.publish()
    cloud.deploy(Acm(region=REGION))
    for _ in range(2):
        cloud.refuse("UpdateDomainName", "TooManyRequestsException", "Slower.", 429)
    cloud.deploy(TARGET)
    assert cloud.recorded(TARGET).state is State.DEPLOYED


@pytest.mark.parametrize(("target", "edge"), [(EDGE, False), (TARGET, True)])
def test_an_endpoint_of_the_other_type(cloud: Cloud, target: Apigateway, edge: bool) -> None:
    domain(cloud, edge=edge)
    cloud.publish()
    failures = cloud.settle(target)
    assert "Correct the target's `endpoint`" in str(failures[target.address])


def test_a_name_that_is_not_covered(cloud: Cloud) -> None:
    domain(cloud, "api.example.net")
    target = Apigateway(domain_name="api.example.net", region=REGION)
    cloud.publish()
    cloud.deploy(Acm(region=REGION))
    with cloud.journal() as calls, pytest.raises(NotCovered):
        cloud.deploy(target)
    assert [call.action for call in calls if call.writes] == []


def test_mutual_tls_is_refused(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(Acm(region=REGION))
    with_proof = {
        "domainName": NAME,
        "regionalCertificateArn": f"{CERTIFICATE}/1",
        "ownershipVerificationCertificateArn": f"{CERTIFICATE}/2",
        "endpointConfiguration": {"types": ["REGIONAL"]},
    }
    cloud.answer("GetDomainName", with_proof)
    with cloud.journal() as calls, pytest.raises(TargetRefused, match="mutual TLS"):
        cloud.deploy(TARGET)
    assert [call.action for call in calls if call.writes] == []
    assert cloud.recorded(TARGET).next_attempt is None


def test_one_that_is_not_there(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(Acm(region=REGION))
    with pytest.raises(TargetMissing, match=f"no custom domain name {NAME} in {REGION}"):
        cloud.deploy(TARGET)


def test_what_it_may_not_is_named_as_iam_names_it(cloud: Cloud) -> None:
    domain(cloud)
    cloud.publish()
    cloud.deploy(Acm(region=REGION))
    read = {"Effect": "Allow", "Action": "apigateway:GET", "Resource": "*"}
    with pytest.raises(AccessDenied, match="Allow apigateway:PATCH in the policy"):
        cloud.deploy(TARGET, role=cloud.role(ACCOUNT, [read]))


@pytest.mark.parametrize("name", ["API.example.com", "api", "https://api.example.com", "*.*.a.com"])
def test_what_is_no_domain_name(name: str) -> None:
    with pytest.raises(ValidationError, match="not a custom domain name"):
        Apigateway(domain_name=name, region=REGION)
