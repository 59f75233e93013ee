"""Parameter Store refuses what AWS refuses; beside each refusal, the legal variant that passes."""

from typing import Any

import pytest

from tests.sandbox.rules.conftest import Cloud, refused

NAME = "/tls/shop"


def put(cloud: Cloud, value: str, name: str = NAME, **more: Any) -> Any:
    return cloud.ssm.put_parameter(Name=name, Value=value, **{"Type": "SecureString", **more})


def metadata(cloud: Cloud) -> Any:
    filters: Any = [{"Key": "Name", "Values": [NAME]}]
    (found,) = cloud.ssm.describe_parameters(ParameterFilters=filters)["Parameters"]
    return found


class TestValue:
    def test_at_most_4_kb_or_8(self, cloud: Cloud) -> None:
        with refused("ValidationException", "4096", status=400):
            put(cloud, "x" * 4_097)
        with refused("ValidationException", "4096"):
            put(cloud, "ü" * 2_049, Tier="Standard")
        with refused("ValidationException", "8192"):
            put(cloud, "x" * 8_193, Tier="Advanced")
        put(cloud, "x" * 4_096)
        put(cloud, "x" * 8_192, Tier="Advanced", Overwrite=True)

    @pytest.mark.parametrize("value", ["{{}}", "a {{ssm:other}} b"])
    def test_no_other_parameter_in_it(self, cloud: Cloud, value: str) -> None:
        with refused("ValidationException", "{{"):
            put(cloud, value)
        put(cloud, '{"a": {"b": 1}}')


class TestTier:
    def test_never_back(self, cloud: Cloud) -> None:
        assert put(cloud, "x")["Tier"] == "Standard"
        assert put(cloud, "x", Tier="Advanced", Overwrite=True)["Tier"] == "Advanced"
        with refused("ValidationException", "downgrade"):
            put(cloud, "x", Tier="Standard", Overwrite=True)
        assert put(cloud, "x", Tier="Advanced", Overwrite=True)["Version"] == 3


class TestName:
    @pytest.mark.parametrize(
        "name", ["/tls/*", "a b", "tls/shop", "/tls//shop", "/käse", "ssm-a", "x" * 1_011]
    )
    def test_characters(self, cloud: Cloud, name: str) -> None:
        with refused("ValidationException"):
            put(cloud, "x", name)

    def test_of_aws_own(self, cloud: Cloud) -> None:
        with refused("AccessDeniedException"):
            put(cloud, "x", "/aws/a")

    def test_levels(self, cloud: Cloud) -> None:
        with refused("HierarchyLevelLimitExceededException"):
            put(cloud, "x", "/a" * 16)
        put(cloud, "x", "/a" * 15)
        put(cloud, "x", "aZ09_.-")

    def test_taken(self, cloud: Cloud) -> None:
        put(cloud, "x")
        with refused("ParameterAlreadyExists"):
            put(cloud, "y")


def test_tags_and_overwrite_exclude_each_other(cloud: Cloud) -> None:
    tags: Any = [{"Key": "a", "Value": "b"}]
    put(cloud, "x", Tags=tags)
    with refused("ValidationException", "tags and overwrite"):
        put(cloud, "y", Tags=tags, Overwrite=True)
    cloud.ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId=NAME, Tags=tags)
    answer = cloud.ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=NAME)
    assert answer["TagList"] == tags


def test_tags_go_with_their_parameter(cloud: Cloud) -> None:
    put(cloud, "x", Tags=[{"Key": "a", "Value": "b"}])
    cloud.ssm.delete_parameter(Name=NAME)
    assert put(cloud, "x")["Version"] == 1
    answer = cloud.ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=NAME)
    assert answer["TagList"] == []


def test_the_type_stays(cloud: Cloud) -> None:
    put(cloud, "x", Type="String")
    with refused("HierarchyTypeMismatchException"):
        put(cloud, "x", Overwrite=True)
    put(cloud, "y", Type="String", Overwrite=True)


def test_a_key_that_is_not_named_is_awss_own(cloud: Cloud) -> None:
    put(cloud, "x", KeyId="alias/tls")
    assert metadata(cloud)["KeyId"] == "alias/tls"
    put(cloud, "y", Overwrite=True)
    assert metadata(cloud)["KeyId"] == "alias/aws/ssm"


def test_metadata_has_the_arn_and_no_value(cloud: Cloud) -> None:
    put(cloud, "x")
    found = metadata(cloud)
    assert found["ARN"].endswith(":parameter/tls/shop")
    assert (found["Tier"], found["Version"]) == ("Standard", 1)
    assert "Value" not in found


def test_a_label_keeps_the_oldest_of_100_versions(cloud: Cloud) -> None:
    for _ in range(100):
        put(cloud, "x", Overwrite=True)
    cloud.ssm.label_parameter_version(Name=NAME, ParameterVersion=1, Labels=["keep"])
    with refused("ParameterMaxVersionLimitExceeded"):
        put(cloud, "x", Overwrite=True)
    cloud.ssm.label_parameter_version(Name=NAME, ParameterVersion=2, Labels=["keep"])
    assert put(cloud, "x", Overwrite=True)["Version"] == 101
