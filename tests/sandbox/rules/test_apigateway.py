"""API Gateway refuses what AWS refuses; beside each refusal, the legal variant that passes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox import resources
from sandbox.propagation import Delay, propagation
from tests.sandbox.rules.conftest import Cloud, refused
from tests.sandbox.rules.issuance import Authority

NAME = "api.example.com"
KINDS = pytest.mark.parametrize("edge", [False, True], ids=["regional", "edge"])
EU = "eu-central-1"


@pytest.fixture
def cloud(cloud: Cloud) -> Cloud:
    """In a region that is not CloudFront's."""
    return cloud.within(EU)


def made(cloud: Cloud, name: str = NAME, *, edge: bool = False) -> dict[str, Any]:
    resources.domain_name(name, region=cloud.region, edge=edge, **cloud.at)
    return shown(cloud, name)


def shown(cloud: Cloud, name: str = NAME) -> dict[str, Any]:
    answer: dict[str, Any] = cloud.apigateway.get_domain_name(domainName=name)  # type: ignore[assignment]
    return answer


def where(cloud: Cloud, edge: bool) -> Cloud:
    return cloud.within("us-east-1") if edge else cloud


def imported(cloud: Cloud, authority: Authority, *names: str, **more: Any) -> str:
    issued = authority.issue(*(names or (NAME,)), **more)
    return cloud.acm.import_certificate(**issued.material)["CertificateArn"]


def field(edge: bool) -> str:
    return "certificateArn" if edge else "regionalCertificateArn"


def replace(cloud: Cloud, path: str, value: str, op: Any = "replace") -> dict[str, Any]:
    answer: dict[str, Any] = cloud.apigateway.update_domain_name(  # type: ignore[assignment]
        domainName=NAME, patchOperations=[{"op": op, "path": path, "value": value}]
    )
    return answer


@KINDS
def test_a_domain_is_shown_as_the_kind_it_is(cloud: Cloud, edge: bool) -> None:
    domain = made(cloud, edge=edge)
    assert domain["domainNameArn"] == f"arn:aws:apigateway:{EU}::/domainnames/{NAME}"
    assert domain["domainNameStatus"] == "AVAILABLE"
    assert domain["endpointConfiguration"]["types"] == ["EDGE" if edge else "REGIONAL"]
    assert ("certificateArn" in domain, "distributionDomainName" in domain) == (edge, edge)
    assert ("regionalCertificateArn" in domain, "regionalDomainName" in domain) == (
        not edge,
        not edge,
    )


@KINDS
def test_another_certificate(cloud: Cloud, authority: Authority, edge: bool) -> None:
    made(cloud, edge=edge)
    arn = imported(where(cloud, edge), authority, "*.example.com")
    assert replace(cloud, f"/{field(edge)}", arn)[field(edge)] == arn
    assert shown(cloud)[field(edge)] == arn


@KINDS
def test_the_certificate_is_in_the_right_region(
    cloud: Cloud, authority: Authority, edge: bool
) -> None:
    made(cloud, edge=edge)
    arn = imported(where(cloud, not edge), authority)
    region = "us-east-1" if edge else EU
    with refused("BadRequestException", f"Certificate must be in '{region}'", status=400):
        replace(cloud, f"/{field(edge)}", arn)


@KINDS
def test_the_certificate_covers_the_name(cloud: Cloud, authority: Authority, edge: bool) -> None:
    made(cloud, edge=edge)
    arn = imported(where(cloud, edge), authority, "else.example.com")
    with refused("BadRequestException", NAME):
        replace(cloud, f"/{field(edge)}", arn)


@KINDS
def test_the_certificate_is_there_and_has_a_key_that_works_there(
    cloud: Cloud, authority: Authority, edge: bool
) -> None:
    domain = made(cloud, edge=edge)
    gone = f"{domain[field(edge)].rpartition('/')[0]}/00000000-0000-0000-0000-000000000000"
    with refused("BadRequestException", gone):
        replace(cloud, f"/{field(edge)}", gone)
    curve = imported(where(cloud, edge), authority, key="EC_secp384r1")
    if edge:
        with refused("BadRequestException", "cannot be used"):
            replace(cloud, f"/{field(edge)}", curve)
    else:
        replace(cloud, f"/{field(edge)}", curve)


@pytest.mark.parametrize(
    ("path", "op"),
    [
        ("/certificateArn", "replace"),
        ("/regionalCertificateArn", "add"),
        ("/domainName", "replace"),
        ("regionalCertificateArn", "replace"),
    ],
)
def test_other_paths_and_operations(cloud: Cloud, authority: Authority, path: str, op: str) -> None:
    before = made(cloud)
    arn = imported(cloud, authority)
    with refused("BadRequestException", "Must be one of: [/regionalCertificateArn"):
        cloud.apigateway.update_domain_name(
            domainName=NAME,
            patchOperations=[
                {"op": "replace", "path": "/regionalCertificateArn", "value": arn},
                {"op": op, "path": path, "value": arn},  # type: ignore[typeddict-item]
            ],
        )
    # All operations or none.
    assert shown(cloud)["regionalCertificateArn"] == before["regionalCertificateArn"]


def test_a_domain_that_is_not_there(cloud: Cloud, authority: Authority) -> None:
    with refused("NotFoundException", "Invalid domain name identifier", status=404):
        replace(cloud, "/regionalCertificateArn", imported(cloud, authority))


def test_creation_needs_a_certificate_that_covers_a_name_that_nobody_has(
    cloud: Cloud, authority: Authority
) -> None:
    regional: Any = {"domainName": NAME, "endpointConfiguration": {"types": ["REGIONAL"]}}
    with refused("BadRequestException", "not provided for the endpoint type REGIONAL"):
        cloud.apigateway.create_domain_name(**regional)
    other = imported(cloud, authority, "else.example.com")
    with refused("BadRequestException", "does not cover"):
        cloud.apigateway.create_domain_name(**regional, regionalCertificateArn=other)
    assert cloud.apigateway.get_domain_names()["items"] == []
    right = imported(cloud, authority)
    cloud.apigateway.create_domain_name(**regional, regionalCertificateArn=right)
    with refused("ConflictException", status=409):
        cloud.apigateway.create_domain_name(**regional, regionalCertificateArn=right)
    with refused("ConflictException"):
        resources.domain_name(NAME, region=EU, account="222222222222", **cloud.at)


@KINDS
def test_no_change_while_one_is_under_way(cloud: Cloud, authority: Authority, edge: bool) -> None:
    made(cloud, edge=edge)
    now = datetime.now(UTC)
    propagation.clock = lambda: now
    propagation.delays["apigateway"] = Delay(relink=timedelta(minutes=40))
    first, second = (imported(where(cloud, edge), authority) for _ in range(2))
    assert replace(cloud, f"/{field(edge)}", first)["domainNameStatus"] == "UPDATING"
    with refused("ConflictException", status=409):
        replace(cloud, f"/{field(edge)}", second)
    assert shown(cloud)[field(edge)] == first
    now += timedelta(minutes=40)
    assert shown(cloud)["domainNameStatus"] == "AVAILABLE"
    replace(cloud, f"/{field(edge)}", second)


@KINDS
def test_acm_names_what_is_awss_own_and_keeps_the_certificate(
    cloud: Cloud, authority: Authority, edge: bool
) -> None:
    placeholder = made(cloud, edge=edge)[field(edge)]
    here = where(cloud, edge)
    arn = imported(here, authority)
    replace(cloud, f"/{field(edge)}", arn)
    (user,) = here.acm.describe_certificate(CertificateArn=arn)["Certificate"]["InUseBy"]
    assert user.startswith("arn:aws:cloudfront::" if edge else f"arn:aws:elasticloadbalancing:{EU}")
    assert user.split(":")[4] != "123456789012"
    with refused("ResourceInUseException"):
        here.acm.delete_certificate(CertificateArn=arn)
    here.acm.delete_certificate(CertificateArn=placeholder)
    cloud.apigateway.delete_domain_name(domainName=NAME)
    here.acm.delete_certificate(CertificateArn=arn)


def test_pages(cloud: Cloud) -> None:
    names = [f"api-{number}.example.com" for number in range(5)]
    for name in reversed(names):
        made(cloud, name)
    pages = list(
        cloud.apigateway.get_paginator("get_domain_names").paginate(
            PaginationConfig={"PageSize": 2}
        )
    )
    assert [len(page["items"]) for page in pages] == [2, 2, 1]
    assert [each["domainName"] for page in pages for each in page["items"]] == names
    with refused("BadRequestException"):
        cloud.apigateway.get_domain_names(limit=501)
