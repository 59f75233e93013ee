"""Secrets Manager refuses what AWS refuses; beside each refusal, the legal variant that passes."""

import json
from typing import Any
from uuid import uuid4

import pytest

from tests.sandbox.rules.conftest import Cloud, refused

NAME = "shop/bundle"
FIRST, SECOND, THIRD = (digit * 64 for digit in "123")


@pytest.fixture
def secret(cloud: Cloud) -> str:
    """One secret with one version, `FIRST`."""
    return cloud.secretsmanager.create_secret(
        Name=NAME, SecretString="one", ClientRequestToken=FIRST
    )["ARN"]


def put(cloud: Cloud, value: str, token: str, **more: Any) -> Any:
    return cloud.secretsmanager.put_secret_value(
        SecretId=NAME, SecretString=value, ClientRequestToken=token, **more
    )


def current(cloud: Cloud, **more: Any) -> tuple[str, str]:
    answer = cloud.secretsmanager.get_secret_value(SecretId=NAME, **more)
    return answer["SecretString"], answer["VersionId"]


def stages(cloud: Cloud) -> dict[str, list[str]]:
    return dict(cloud.secretsmanager.describe_secret(SecretId=NAME)["VersionIdsToStages"])


class TestValue:
    def test_at_most_65536_bytes(self, cloud: Cloud, secret: str) -> None:
        with refused("ValidationException", "65536", status=400):
            put(cloud, "x" * 65_537, SECOND)
        with refused("ValidationException"):
            put(cloud, "ü" * 32_769, SECOND)
        with refused("ValidationException"):
            cloud.secretsmanager.put_secret_value(SecretId=NAME, SecretBinary=b"x" * 65_537)
        with refused("ValidationException"):
            cloud.secretsmanager.create_secret(Name="other", SecretString="x" * 65_537)
        with refused("ValidationException"):
            cloud.secretsmanager.update_secret(SecretId=NAME, SecretString="x" * 65_537)
        put(cloud, "x" * 65_536, SECOND)

    def test_at_most_100_young_versions(self, cloud: Cloud, secret: str) -> None:
        for number in range(99):
            put(cloud, str(number), str(uuid4()))
        with refused("LimitExceededException", status=400):
            put(cloud, "100", SECOND)
        with refused("LimitExceededException"):
            cloud.secretsmanager.update_secret(SecretId=NAME, SecretString="100")
        put(cloud, "one", FIRST)


class TestName:
    @pytest.mark.parametrize("name", ["*.example.com", "a b", "käse", "x" * 513])
    def test_characters(self, cloud: Cloud, name: str) -> None:
        with refused("ValidationException"):
            cloud.secretsmanager.create_secret(Name=name, SecretString="one")

    def test_every_legal_character(self, cloud: Cloud) -> None:
        cloud.secretsmanager.create_secret(Name="aZ09/_+=.@-x", SecretString="one")

    def test_taken(self, cloud: Cloud, secret: str) -> None:
        with refused("ResourceExistsException"):
            cloud.secretsmanager.create_secret(Name=NAME, SecretString="two")


class TestToken:
    def test_at_most_64_characters(self, cloud: Cloud, secret: str) -> None:
        with refused("InvalidParameterException", "32-64"):
            put(cloud, "two", "2" * 65)
        with refused("InvalidParameterException", "32-64"):
            cloud.secretsmanager.create_secret(
                Name="other", SecretString="one", ClientRequestToken="2" * 65
            )

    def test_the_same_content_again_does_nothing(self, cloud: Cloud, secret: str) -> None:
        put(cloud, "two", SECOND)
        put(cloud, "two", SECOND)
        assert stages(cloud) == {FIRST: ["AWSPREVIOUS"], SECOND: ["AWSCURRENT"]}

    def test_earlier_content_again_does_not_make_it_current(
        self, cloud: Cloud, secret: str
    ) -> None:
        put(cloud, "two", SECOND)
        put(cloud, "one", FIRST)
        assert current(cloud) == ("two", SECOND)

    def test_other_content(self, cloud: Cloud, secret: str) -> None:
        with refused("ResourceExistsException"):
            put(cloud, "two", FIRST)

    def test_update_never_takes_one_twice(self, cloud: Cloud, secret: str) -> None:
        with refused("ResourceExistsException"):
            cloud.secretsmanager.update_secret(
                SecretId=NAME, SecretString="one", ClientRequestToken=FIRST
            )
        cloud.secretsmanager.update_secret(
            SecretId=NAME, SecretString="two", ClientRequestToken=SECOND
        )
        assert current(cloud) == ("two", SECOND)
        cloud.secretsmanager.update_secret(SecretId=NAME, Description="words only")
        assert current(cloud) == ("two", SECOND)


class TestStages:
    def test_a_rollback_moves_current_and_previous(self, cloud: Cloud, secret: str) -> None:
        put(cloud, "two", SECOND)
        cloud.secretsmanager.update_secret_version_stage(
            SecretId=NAME,
            VersionStage="AWSCURRENT",
            MoveToVersionId=FIRST,
            RemoveFromVersionId=SECOND,
        )
        assert current(cloud) == ("one", FIRST)
        assert stages(cloud) == {FIRST: ["AWSCURRENT"], SECOND: ["AWSPREVIOUS"]}
        put(cloud, "three", THIRD)
        assert current(cloud) == ("three", THIRD)
        assert current(cloud, VersionStage="AWSPREVIOUS") == ("one", FIRST)

    @pytest.mark.parametrize("held", [{}, {"RemoveFromVersionId": FIRST}])
    def test_the_version_that_holds_it_must_be_named(
        self, cloud: Cloud, secret: str, held: dict[str, str]
    ) -> None:
        put(cloud, "two", SECOND)
        with refused("InvalidParameterException"):
            cloud.secretsmanager.update_secret_version_stage(
                SecretId=NAME, VersionStage="AWSCURRENT", MoveToVersionId=FIRST, **held
            )
        assert current(cloud) == ("two", SECOND)

    def test_another_label_stays_when_current_moves(self, cloud: Cloud, secret: str) -> None:
        put(cloud, "two", SECOND, VersionStages=["CANARY"])
        assert stages(cloud) == {FIRST: ["AWSCURRENT"], SECOND: ["CANARY"]}
        assert current(cloud) == ("one", FIRST)
        assert current(cloud, VersionStage="CANARY") == ("two", SECOND)
        cloud.secretsmanager.update_secret_version_stage(
            SecretId=NAME,
            VersionStage="AWSCURRENT",
            MoveToVersionId=SECOND,
            RemoveFromVersionId=FIRST,
        )
        assert stages(cloud) == {FIRST: ["AWSPREVIOUS"], SECOND: ["CANARY", "AWSCURRENT"]}
        put(cloud, "three", THIRD)
        assert stages(cloud) == {
            FIRST: [],
            SECOND: ["CANARY", "AWSPREVIOUS"],
            THIRD: ["AWSCURRENT"],
        }

    def test_a_label_on_no_version_needs_no_other_one(self, cloud: Cloud, secret: str) -> None:
        cloud.secretsmanager.update_secret_version_stage(
            SecretId=NAME, VersionStage="CANARY", MoveToVersionId=FIRST
        )
        assert stages(cloud) == {FIRST: ["AWSCURRENT", "CANARY"]}

    def test_the_first_version_is_current_whatever_its_label(self, cloud: Cloud) -> None:
        cloud.secretsmanager.create_secret(Name=NAME)
        put(cloud, "one", FIRST, VersionStages=["CANARY"])
        assert sorted(stages(cloud)[FIRST]) == ["AWSCURRENT", "CANARY"]


def policy(principal: Any, **more: Any) -> str:
    statement = {
        "Sid": "Read",
        "Effect": "Allow",
        "Principal": principal,
        "Action": "secretsmanager:GetSecretValue",
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [{**statement, **more}]})


class TestPolicy:
    def put(self, cloud: Cloud, text: str, *, block: bool = True) -> None:
        cloud.secretsmanager.put_resource_policy(
            SecretId=NAME, ResourcePolicy=text, BlockPublicPolicy=block
        )

    def shown(self, cloud: Cloud, region: str = "us-east-1") -> Any:
        answer = cloud.within(region).secretsmanager.get_resource_policy(SecretId=NAME)
        return json.loads(answer.get("ResourcePolicy", "null"))

    @pytest.mark.parametrize(
        "text", ["no", "[]", "{}", '{"Statement": []}', '{"Statement": [{"Effect": "Allow"}]}']
    )
    def test_malformed(self, cloud: Cloud, secret: str, text: str) -> None:
        with refused("MalformedPolicyDocumentException", status=400):
            self.put(cloud, text)

    def test_a_role_that_is_not_there(self, cloud: Cloud, secret: str) -> None:
        with refused("MalformedPolicyDocumentException", "principal"):
            self.put(cloud, policy({"AWS": "arn:aws:iam::222222222222:role/nobody"}))

    def test_too_long(self, cloud: Cloud, secret: str) -> None:
        with refused("InvalidParameterException", "20480"):
            self.put(cloud, policy({"AWS": "222222222222"}, Sid="x" * 20_480))

    @pytest.mark.parametrize("principal", ["*", {"AWS": "*"}])
    def test_broad_access_is_blocked_where_asked(
        self, cloud: Cloud, secret: str, principal: Any
    ) -> None:
        with refused("PublicPolicyException", status=400):
            self.put(cloud, policy(principal))
        self.put(cloud, policy(principal), block=False)
        self.put(cloud, policy(principal, Effect="Deny"))

    def test_an_account_is_shown_as_its_root(self, cloud: Cloud, secret: str) -> None:
        self.put(cloud, policy({"AWS": ["222222222222"]}))
        (statement,) = self.shown(cloud)["Statement"]
        assert statement["Principal"] == {"AWS": "arn:aws:iam::222222222222:root"}
        cloud.secretsmanager.delete_resource_policy(SecretId=NAME)
        assert self.shown(cloud) is None

    def test_copies_have_it_and_take_none(self, cloud: Cloud, secret: str) -> None:
        regions: Any = [{"Region": "eu-west-1"}]
        cloud.secretsmanager.replicate_secret_to_regions(SecretId=NAME, AddReplicaRegions=regions)
        self.put(cloud, policy({"AWS": "222222222222"}))
        assert self.shown(cloud, "eu-west-1") == self.shown(cloud) is not None
        with refused("InvalidParameterException"):
            self.put(cloud.within("eu-west-1"), policy({"AWS": "222222222222"}))

    def test_not_of_one_about_to_be_deleted(self, cloud: Cloud, secret: str) -> None:
        cloud.secretsmanager.delete_secret(SecretId=NAME)
        with refused("InvalidRequestException", "marked for deletion"):
            self.put(cloud, policy({"AWS": "222222222222"}))


class TestDeletion:
    @pytest.fixture
    def deleted(self, cloud: Cloud, secret: str) -> str:
        cloud.secretsmanager.delete_secret(SecretId=NAME, RecoveryWindowInDays=7)
        return secret

    def test_neither_read_nor_written(self, cloud: Cloud, deleted: str) -> None:
        with refused("InvalidRequestException"):
            current(cloud)
        for token in (FIRST, SECOND):
            with refused("InvalidRequestException", "marked for deletion"):
                put(cloud, "one", token)
        with refused("InvalidRequestException", "marked for deletion"):
            cloud.secretsmanager.update_secret(SecretId=NAME, SecretString="two")
        with refused("InvalidRequestException"):
            cloud.secretsmanager.tag_resource(SecretId=NAME, Tags=[{"Key": "a", "Value": "b"}])
        assert "DeletedDate" in cloud.secretsmanager.describe_secret(SecretId=NAME)

    def test_its_name_is_not_free(self, cloud: Cloud, deleted: str) -> None:
        with refused("InvalidRequestException", "already scheduled for deletion"):
            cloud.secretsmanager.create_secret(Name=NAME, SecretString="two")

    def test_restored_it_is_as_before(self, cloud: Cloud, deleted: str) -> None:
        cloud.secretsmanager.restore_secret(SecretId=NAME)
        assert current(cloud) == ("one", FIRST)
        put(cloud, "two", SECOND)


class TestReplicas:
    @pytest.mark.parametrize("at_creation", [True, False])
    def test_a_later_put_reaches_them(self, cloud: Cloud, at_creation: bool) -> None:
        replicas: Any = {"AddReplicaRegions": [{"Region": "eu-west-1"}]}
        cloud.secretsmanager.create_secret(
            Name=NAME,
            SecretString="one",
            ClientRequestToken=FIRST,
            **(replicas if at_creation else {}),
        )
        if not at_creation:
            cloud.secretsmanager.replicate_secret_to_regions(SecretId=NAME, **replicas)
        put(cloud, "two", SECOND)
        assert current(cloud.within("eu-west-1")) == ("two", SECOND)
        status = cloud.secretsmanager.describe_secret(SecretId=NAME)["ReplicationStatus"]
        assert [(row["Region"], row["Status"]) for row in status] == [("eu-west-1", "InSync")]

    def test_a_replica_is_not_written(self, cloud: Cloud) -> None:
        cloud.secretsmanager.create_secret(
            Name=NAME, SecretString="one", AddReplicaRegions=[{"Region": "eu-west-1"}]
        )
        with refused("InvalidParameterException"):
            put(cloud.within("eu-west-1"), "two", SECOND)


def test_rotation_shows(cloud: Cloud, secret: str) -> None:
    assert not cloud.secretsmanager.describe_secret(SecretId=NAME).get("RotationEnabled")
    cloud.secretsmanager.rotate_secret(SecretId=NAME, RotationRules={"AutomaticallyAfterDays": 30})
    assert cloud.secretsmanager.describe_secret(SecretId=NAME)["RotationEnabled"] is True


class TestList:
    def test_comes_in_pages_with_tags_and_without_what_is_deleted(self, cloud: Cloud) -> None:
        client = cloud.secretsmanager
        tags: Any = [{"Key": "team", "Value": "shop"}]
        for number in range(102):
            client.create_secret(Name=f"tls/{number}", SecretString="x", Tags=tags)
        client.delete_secret(SecretId="tls/7")
        pages = client.get_paginator("list_secrets").paginate(PaginationConfig={"PageSize": 100})
        secrets = [page["SecretList"] for page in pages]
        assert [len(page) for page in secrets] == [100, 1]
        assert {each["Name"] for page in secrets for each in page} == {
            f"tls/{number}" for number in range(102) if number != 7
        }
        assert all(each["Tags"] == tags for page in secrets for each in page)

    def test_a_copy_says_where_it_comes_from(self, cloud: Cloud) -> None:
        cloud.secretsmanager.create_secret(
            Name=NAME, SecretString="x", AddReplicaRegions=[{"Region": "eu-west-1"}]
        )
        (copy,) = cloud.within("eu-west-1").secretsmanager.list_secrets()["SecretList"]
        assert copy["PrimaryRegion"] == "us-east-1"
