"""GetResources finds imported certificates. moto does it by itself; this holds it to that.

https://docs.aws.amazon.com/resourcegroupstagging/latest/APIReference/API_GetResources.html
"""

from typing import TYPE_CHECKING, Any

from tests.sandbox.rules.conftest import Cloud
from tests.sandbox.rules.issuance import Authority

if TYPE_CHECKING:
    from types_boto3_acm.type_defs import TagTypeDef


def tagged(cloud: Cloud, authority: Authority, **tags: str) -> str:
    pairs: list[TagTypeDef] = [{"Key": key, "Value": value} for key, value in tags.items()]
    material = authority.issue("www.example.com").material
    return cloud.acm.import_certificate(**material, Tags=pairs)["CertificateArn"]


def found(cloud: Cloud, **tags: list[str]) -> list[str]:
    pages: Any = (
        cloud.client("resourcegroupstaggingapi")
        .get_paginator("get_resources")
        .paginate(
            ResourceTypeFilters=["acm:certificate"],
            TagFilters=[{"Key": key, "Values": values} for key, values in tags.items()],
            ResourcesPerPage=1,
        )
    )
    return [row["ResourceARN"] for page in pages for row in page["ResourceTagMappingList"]]


def test_certificates_are_found_by_their_tags(cloud: Cloud, authority: Authority) -> None:
    shop = tagged(cloud, authority, pipeline="shop", owner="certrail")
    blog = tagged(cloud, authority, pipeline="blog", owner="certrail")
    tagged(cloud, authority, pipeline="shop", owner="somebody")
    assert found(cloud, owner=["certrail"]) == [shop, blog]
    assert found(cloud, owner=["certrail"], pipeline=["shop"]) == [shop]
    assert found(cloud, pipeline=["nothing"]) == []


def test_other_resources_and_regions_are_not(cloud: Cloud, authority: Authority) -> None:
    cloud.secretsmanager.create_secret(
        Name="shop", SecretString="one", Tags=[{"Key": "owner", "Value": "certrail"}]
    )
    elsewhere = tagged(cloud.within("eu-west-1"), authority, owner="certrail")
    assert found(cloud, owner=["certrail"]) == []
    assert found(cloud.within("eu-west-1"), owner=["certrail"]) == [elsewhere]


def test_a_reimport_is_still_found(cloud: Cloud, authority: Authority) -> None:
    arn = tagged(cloud, authority, owner="certrail")
    renewed = authority.issue("www.example.com")
    cloud.acm.import_certificate(**renewed.material, CertificateArn=arn)
    assert found(cloud, owner=["certrail"]) == [arn]
