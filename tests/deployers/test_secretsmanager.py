"""secretsmanager: one value, one write, one version; nothing of anybody else's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from certrail.bundle import Bundle
from certrail.errors import AccessDenied, AwsError, NotOurs, TargetMissing, TargetRefused
from certrail.records import State
from certrail.target import Context
from deployers.document import SPECIMEN, document
from deployers.kinds.secretsmanager import VALUE_LIMIT, Secretsmanager
from tests.certrail.bundles import make_bundle
from tests.deployers.cloud import ACCOUNT, DOMAINS, PIPELINE, REGION, Cloud

NAME = "tls/shop/bundle"
TARGET = Secretsmanager(name=NAME, region=REGION)


def secrets(cloud: Cloud, region: str = REGION) -> Any:
    return cloud.client("secretsmanager", region)


def described(cloud: Cloud) -> Any:
    return secrets(cloud).describe_secret(SecretId=NAME)


def tags(cloud: Cloud) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described(cloud)["Tags"]}


def value(cloud: Cloud, region: str = REGION) -> str:
    return str(secrets(cloud, region).get_secret_value(SecretId=NAME)["SecretString"])


def writes(calls: Any) -> list[str]:
    return [call.action.removeprefix("secretsmanager:") for call in calls if call.writes]


def context(cloud: Cloud) -> Context:
    return Context(pipeline=PIPELINE, owner=cloud.store.bucket, aws=cloud.aws)


def test_the_document(cloud: Cloud) -> None:
    current = cloud.publish()
    bundle = cloud.store.bundle(current)
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
    assert writes(calls) == ["CreateSecret"]
    assert json.loads(value(cloud)) == {
        "certificate": bundle.certificate,
        "chain": bundle.chain,
        "fullchain": bundle.certificate + bundle.chain,
        "private_key": bundle.private_key.reveal(),
        "fingerprint": current.fingerprint,
        "not_before": f"{current.facts.not_before:%Y-%m-%dT%H:%M:%SZ}",
        "not_after": f"{current.facts.not_after:%Y-%m-%dT%H:%M:%SZ}",
        "domains": list(DOMAINS),
        "serial": current.facts.serial,
        "issuer": current.facts.issuer,
    }
    assert list(document(bundle)) == list(SPECIMEN)


def test_the_version_is_the_contents_digest(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    version = hashlib.sha256(value(cloud).encode()).hexdigest()
    assert described(cloud)["VersionIdsToStages"] == {version: ["AWSCURRENT"]}


def test_the_tags_tell_without_decrypting(cloud: Cloud) -> None:
    current = cloud.publish()
    cloud.deploy(Secretsmanager(name=NAME, region=REGION, tags={"team": "web"}))
    (version,) = described(cloud)["VersionIdsToStages"]
    assert tags(cloud) == {
        "certrail:owner": cloud.store.bucket,
        "certrail:pipeline": PIPELINE,
        "certrail:fingerprint": current.fingerprint,
        "certrail:version": version,
        "certrail:not-after": f"{current.facts.not_after:%Y-%m-%dT%H:%M:%SZ}",
        "team": "web",
    }


def test_a_renewal_writes_one_value(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    current = cloud.publish()
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
    assert writes(calls) == ["PutSecretValue", "TagResource"]
    assert json.loads(value(cloud))["fingerprint"] == current.fingerprint
    stages = described(cloud)["VersionIdsToStages"].values()
    assert sorted(stages) == [["AWSCURRENT"], ["AWSPREVIOUS"]]


def test_a_rollback_moves_the_stage(cloud: Cloud) -> None:
    first, second = make_bundle(DOMAINS), make_bundle(DOMAINS)
    for bundle in (first, second):
        cloud.publish(bundle=bundle)
        cloud.deploy(TARGET)
    cloud.publish(bundle=first)
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
    assert "UpdateSecretVersionStage" in writes(calls)
    assert json.loads(value(cloud))["fingerprint"] == first.fingerprint
    assert len(described(cloud)["VersionIdsToStages"]) == 2
    there = cloud.observe(TARGET)
    assert there is not None
    assert there.fingerprint == first.fingerprint


def test_a_stage_that_somebody_else_moved_is_tried_again(cloud: Cloud) -> None:
    first, second = make_bundle(DOMAINS), make_bundle(DOMAINS)
    for bundle in (first, second):
        cloud.publish(bundle=bundle)
        cloud.deploy(TARGET)
    cloud.publish(bundle=first)
    cloud.before(
        "UpdateSecretVersionStage",
        lambda: secrets(cloud).put_secret_value(SecretId=NAME, SecretString="{}"),
    )
    with pytest.raises(TargetRefused) as caught:
        cloud.deploy(TARGET)
    assert caught.value.retryable
    cloud.deploy(TARGET)
    assert json.loads(value(cloud))["fingerprint"] == first.fingerprint


def test_a_foreign_write_is_seen_and_repaired(cloud: Cloud) -> None:
    current = cloud.publish()
    cloud.deploy(TARGET)
    secrets(cloud).put_secret_value(SecretId=NAME, SecretString="{}")
    there = cloud.observe(TARGET)
    assert there is not None
    assert there.fingerprint == ""
    cloud.deploy(TARGET)
    assert json.loads(value(cloud))["fingerprint"] == current.fingerprint


def test_a_crash_before_the_tags_is_made_good(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    current = cloud.publish()
    cloud.refuse("TagResource", "AccessDeniedException", status=403)
    assert TARGET.address in cloud.settle(TARGET)
    assert tags(cloud)["certrail:fingerprint"] != current.fingerprint
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
    assert writes(calls) == ["TagResource"]
    assert tags(cloud)["certrail:fingerprint"] == current.fingerprint


# Key and copies


def test_a_secret_is_created_with_key_and_copies(cloud: Cloud) -> None:
    cloud.publish()
    target = Secretsmanager(
        name=NAME, region=REGION, kms_key="alias/tls", replica_regions=("us-east-1", "eu-west-1")
    )
    with cloud.journal() as calls:
        cloud.deploy(target)
    assert writes(calls) == ["CreateSecret"]
    assert described(cloud)["KmsKeyId"] == "alias/tls"
    cloud.publish()
    cloud.deploy(target)
    assert value(cloud) == value(cloud, "us-east-1") == value(cloud, "eu-west-1")


def test_key_and_copies_follow_the_file(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    more = Secretsmanager(
        name=NAME, region=REGION, kms_key="alias/tls", replica_regions=("us-east-1",)
    )
    with cloud.journal() as calls:
        cloud.settle(more)
    assert writes(calls) == ["UpdateSecret", "ReplicateSecretToRegions"]
    assert described(cloud)["KmsKeyId"] == "alias/tls"
    assert value(cloud, "us-east-1") == value(cloud)
    with cloud.journal() as calls:
        cloud.settle(TARGET)
    assert writes(calls) == []


def test_a_failed_copy_is_said(cloud: Cloud) -> None:
    secrets(cloud, "us-east-1").create_secret(Name=NAME, SecretString="somebody else's")
    cloud.publish()
    cloud.deploy(TARGET)
    target = Secretsmanager(name=NAME, region=REGION, replica_regions=("us-east-1",))
    cloud.settle(target)
    there = cloud.observe(target)
    assert there is not None
    assert there.fingerprint == ""
    with pytest.raises(TargetRefused, match="us-east-1"):
        cloud.deploy(target)


# A canary: another label first


CANARY = Secretsmanager(name=NAME, region=REGION, stage="CANARY")


def labelled(cloud: Cloud) -> dict[str, str]:
    """The certificate's fingerprint by label."""
    client = secrets(cloud)
    found: dict[str, str] = {}
    for version, labels in described(cloud)["VersionIdsToStages"].items():
        held = client.get_secret_value(SecretId=NAME, VersionId=version)["SecretString"]
        found |= {label: json.loads(held)["fingerprint"] for label in labels}
    return found


def both_held(cloud: Cloud) -> list[str]:
    return [there.fingerprint for there in map(cloud.observe, (CANARY, TARGET)) if there]


def test_a_canary_comes_first_and_current_follows(cloud: Cloud) -> None:
    first = cloud.publish().fingerprint
    cloud.deploy(TARGET)
    cloud.deploy(CANARY)
    second = cloud.publish().fingerprint
    with cloud.journal() as calls:
        cloud.deploy(CANARY)
    assert writes(calls) == ["PutSecretValue", "TagResource"]
    assert labelled(cloud) == {"AWSCURRENT": first, "CANARY": second}
    assert both_held(cloud) == [second, first]
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
    assert writes(calls) == ["PutSecretValue", "UpdateSecretVersionStage", "TagResource"]
    assert labelled(cloud) == {"AWSCURRENT": second, "CANARY": second, "AWSPREVIOUS": first}
    assert both_held(cloud) == [second, second]
    # One version, whichever label it came with.
    assert len(described(cloud)["VersionIdsToStages"]) == 2


def test_a_canary_that_is_called_back_leaves_current_as_it_was(cloud: Cloud) -> None:
    bundle = make_bundle(DOMAINS)
    first = cloud.publish(bundle=bundle).fingerprint
    cloud.deploy(TARGET)
    cloud.deploy(CANARY)
    cloud.publish()
    cloud.deploy(CANARY)
    cloud.publish(bundle=bundle)
    cloud.deploy(CANARY)
    cloud.deploy(TARGET)
    assert labelled(cloud) == {"AWSCURRENT": first, "CANARY": first}
    assert both_held(cloud) == [first, first]


def test_the_first_version_is_current_too(cloud: Cloud) -> None:
    """CreateSecret labels it AWSCURRENT, whatever is asked."""
    current = cloud.publish()
    with cloud.journal() as calls:
        cloud.deploy(CANARY)
    assert writes(calls) == ["CreateSecret", "UpdateSecretVersionStage"]
    assert labelled(cloud) == {"AWSCURRENT": current.fingerprint, "CANARY": current.fingerprint}
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
    assert writes(calls) == ["TagResource"]
    assert both_held(cloud) == [current.fingerprint, current.fingerprint]


def test_a_crash_between_secret_and_label_is_made_good(cloud: Cloud) -> None:
    current = cloud.publish()
    cloud.refuse("UpdateSecretVersionStage", "AccessDeniedException", status=403)
    assert CANARY.address in cloud.settle(CANARY)
    there = cloud.observe(CANARY)
    assert there is not None
    assert there.fingerprint == ""
    cloud.deploy(CANARY)
    assert labelled(cloud) == {"AWSCURRENT": current.fingerprint, "CANARY": current.fingerprint}


def test_each_label_has_tags_of_its_own(cloud: Cloud) -> None:
    first = cloud.publish().fingerprint
    cloud.deploy(TARGET)
    cloud.deploy(CANARY)
    second = cloud.publish().fingerprint
    cloud.deploy(CANARY)
    found = tags(cloud)
    assert found["certrail:fingerprint"] == first
    assert found["certrail:fingerprint:CANARY"] == second
    assert found["certrail:version"] != found["certrail:version:CANARY"]


def test_a_label_that_somebody_moved_is_seen_and_moved_back(cloud: Cloud) -> None:
    current = cloud.publish()
    cloud.deploy(TARGET)
    cloud.deploy(CANARY)
    secrets(cloud).put_secret_value(
        SecretId=NAME, SecretString='{"fingerprint": ""}', VersionStages=["CANARY"]
    )
    assert both_held(cloud) == ["", current.fingerprint]
    cloud.deploy(CANARY)
    assert both_held(cloud) == [current.fingerprint, current.fingerprint]


def test_copies_have_the_labels_too(cloud: Cloud) -> None:
    copied = {"name": NAME, "region": REGION, "replica_regions": ("us-east-1",)}
    first = cloud.publish().fingerprint
    cloud.deploy(Secretsmanager(**copied))
    second = cloud.publish().fingerprint
    cloud.deploy(Secretsmanager(**copied, stage="CANARY"))
    there = secrets(cloud, "us-east-1")
    held = [
        json.loads(there.get_secret_value(SecretId=NAME, VersionStage=stage)["SecretString"])
        for stage in ("AWSCURRENT", "CANARY")
    ]
    assert [each["fingerprint"] for each in held] == [first, second]


def test_labels_of_one_secret_are_deployed_one_after_the_other() -> None:
    assert CANARY.address != TARGET.address
    assert (CANARY.claim, CANARY.group) == (TARGET.claim, TARGET.group)


# Readers in other accounts


ELSEWHERE = "222222222222"
SHARED = Secretsmanager(name=NAME, region=REGION, kms_key="alias/tls", readers=(ELSEWHERE,))
THEIRS = {
    "Sid": "Theirs",
    "Effect": "Deny",
    "Principal": "*",
    "Action": "secretsmanager:DeleteSecret",
    "Resource": "*",
}


def statements(cloud: Cloud, region: str = REGION) -> list[Any]:
    answer = secrets(cloud, region).get_resource_policy(SecretId=NAME)
    return list(json.loads(answer.get("ResourcePolicy", '{"Statement": []}'))["Statement"])


def put_policy(cloud: Cloud, *found: Any) -> None:
    text = json.dumps({"Version": "2012-10-17", "Statement": found})
    secrets(cloud).put_resource_policy(SecretId=NAME, ResourcePolicy=text)


def is_whole(cloud: Cloud, target: Secretsmanager) -> bool:
    there = cloud.observe(target)
    assert there is not None
    return bool(there.fingerprint)


def test_readers_get_one_statement(cloud: Cloud) -> None:
    cloud.publish()
    with cloud.journal() as calls:
        cloud.deploy(SHARED)
    assert writes(calls) == ["CreateSecret", "PutResourcePolicy"]
    assert calls[-1].params is not None
    assert calls[-1].params["BlockPublicPolicy"] is True
    assert statements(cloud) == [
        {
            "Sid": "CertrailReaders",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ELSEWHERE}:root"},
            "Action": ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"],
            "Resource": "*",
        }
    ]
    cloud.publish()
    with cloud.journal() as calls:
        cloud.deploy(SHARED)
    assert writes(calls) == ["PutSecretValue", "TagResource"]


def test_what_others_put_into_the_policy_stays(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    put_policy(cloud, THEIRS)
    cloud.settle(SHARED)
    assert [each["Sid"] for each in statements(cloud)] == ["Theirs", "CertrailReaders"]
    more = SHARED.model_copy(update={"readers": (ELSEWHERE, "333333333333")})
    cloud.settle(more)
    theirs, ours = statements(cloud)
    assert theirs == THEIRS
    assert ours["Principal"]["AWS"] == [
        f"arn:aws:iam::{each}:root" for each in (ELSEWHERE, "333333333333")
    ]


def test_readers_that_are_taken_out_of_the_file_are_shut_out(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(SHARED)
    put_policy(cloud, *statements(cloud), THEIRS)
    alone = Secretsmanager(name=NAME, region=REGION, kms_key="alias/tls")
    assert not is_whole(cloud, alone)
    cloud.settle(alone)
    assert statements(cloud) == [THEIRS]
    assert tags(cloud)["certrail:readers"] == "no"
    assert is_whole(cloud, alone)


def test_without_statements_there_is_no_policy(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(SHARED)
    with cloud.journal() as calls:
        cloud.settle(Secretsmanager(name=NAME, region=REGION, kms_key="alias/tls"))
    assert writes(calls) == ["DeleteResourcePolicy", "TagResource"]
    assert "ResourcePolicy" not in secrets(cloud).get_resource_policy(SecretId=NAME)


@pytest.mark.parametrize(
    "changed",
    [
        {"Principal": {"AWS": "333333333333"}},
        {"Action": "secretsmanager:*"},
        {"Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        {"Sid": "Renamed"},
    ],
)
def test_a_statement_that_somebody_changed_is_seen_and_set_right(
    cloud: Cloud, changed: dict[str, Any]
) -> None:
    cloud.publish()
    cloud.deploy(SHARED)
    (ours,) = statements(cloud)
    put_policy(cloud, {**ours, **changed})
    assert not is_whole(cloud, SHARED)
    cloud.deploy(SHARED)
    assert is_whole(cloud, SHARED)
    assert ours in statements(cloud)


def test_the_same_in_other_words_is_left_alone(cloud: Cloud) -> None:
    cloud.publish()
    more = SHARED.model_copy(update={"readers": ("333333333333", ELSEWHERE)})
    cloud.deploy(more)
    (ours,) = statements(cloud)
    principal = {"AWS": sorted(ours["Principal"]["AWS"])}
    put_policy(cloud, {**ours, "Principal": principal, "Action": ours["Action"][::-1]})
    assert is_whole(cloud, more)


def test_who_asks_for_no_readers_does_not_look_at_the_policy(cloud: Cloud) -> None:
    cloud.publish()
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
        cloud.observe(TARGET)
    assert not [call for call in calls if "ResourcePolicy" in call.action]


def test_a_reader_that_is_not_there_keeps_nobody_from_the_certificate(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    current = cloud.publish()
    role = f"arn:aws:iam::{ELSEWHERE}:role/nobody"
    target = SHARED.model_copy(update={"readers": (role,)})
    with pytest.raises(TargetRefused, match="policy") as caught:
        cloud.deploy(target)
    assert "`readers`" in caught.value.next
    assert json.loads(value(cloud))["fingerprint"] == current.fingerprint


def test_a_policy_that_lets_everybody_in_is_not_written_again(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    wide = {**THEIRS, "Effect": "Allow", "Action": "secretsmanager:GetSecretValue"}
    put_policy(cloud, wide)
    with pytest.raises(TargetRefused, match="lets strangers in"):
        cloud.deploy(SHARED)
    assert statements(cloud) == [wide]


def test_each_label_lets_in_its_own_readers(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(SHARED)
    canary = SHARED.model_copy(update={"stage": "CANARY", "readers": ()})
    cloud.deploy(canary)
    assert [each["Sid"] for each in statements(cloud)] == ["CertrailReaders"]
    cloud.settle(canary.model_copy(update={"readers": ("333333333333",)}))
    sids = [each["Sid"] for each in statements(cloud)]
    assert sids == ["CertrailReaders", "CertrailReadersCANARY"]
    assert is_whole(cloud, SHARED)


def test_a_reader_elsewhere_reads(cloud: Cloud) -> None:
    """With what the page says: the key's policy, and the reader's own rights. Copies are encrypted
    with AWS's own key, and have the policy in vain."""
    key = cloud.client("kms").create_key(
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    _allow(f"arn:aws:iam::{ACCOUNT}:root", "kms:*"),
                    _allow(f"arn:aws:iam::{ELSEWHERE}:root", "kms:Decrypt"),
                ],
            }
        )
    )["KeyMetadata"]["Arn"]
    current = cloud.publish()
    shared = SHARED.model_copy(update={"kms_key": key, "replica_regions": ("us-east-1",)})
    cloud.deploy(shared)
    arn = described(cloud)["ARN"]
    own = [
        {
            "Effect": "Allow",
            "Action": "secretsmanager:GetSecretValue",
            "Resource": [arn, arn.replace(REGION, "us-east-1")],
        },
        {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": key},
    ]
    role = cloud.role(ELSEWHERE, own)
    reader = cloud.aws.acting_as(role.role_arn, role.external_id)
    held = reader.secretsmanager(REGION).get_secret_value(SecretId=arn)["SecretString"]
    assert json.loads(held)["fingerprint"] == current.fingerprint
    copy = arn.replace(REGION, "us-east-1")
    assert statements(cloud, "us-east-1") == statements(cloud)
    with pytest.raises(AwsError, match="default KMS service key"):
        reader.secretsmanager("us-east-1").get_secret_value(SecretId=copy)
    cloud.settle(shared.model_copy(update={"readers": ()}))
    with pytest.raises(AccessDenied):
        reader.secretsmanager(REGION).get_secret_value(SecretId=arn)


def _allow(principal: str, action: str) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": action,
        "Resource": "*",
    }


# The shape


@pytest.mark.parametrize(
    ("shape", "made"),
    [
        ("{crt: fullchain, key: private_key}", {"crt": "fullchain", "key": "private_key"}),
        ("private_key", "private_key"),
    ],
)
def test_the_shape_is_the_files(cloud: Cloud, shape: str, made: Any) -> None:
    bundle = cloud.store.bundle(cloud.publish())
    cloud.deploy(Secretsmanager(name=NAME, region=REGION, shape=shape))
    there = value(cloud)
    everything = document(bundle)
    if isinstance(made, dict):
        assert json.loads(there) == {key: everything[field] for key, field in made.items()}
    else:
        assert there == everything[made]


def test_another_shape_is_another_version(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    cloud.settle(Secretsmanager(name=NAME, region=REGION, shape="{pem: fullchain}"))
    assert list(json.loads(value(cloud))) == ["pem"]


def test_a_shape_that_fails_shows_no_key(cloud: Cloud) -> None:
    """JMESPath's own message quotes the value that a function did not take."""
    bundle = replace(make_bundle(["one.example.com"]), chain="")
    target = Secretsmanager.model_construct(
        name=NAME, region=REGION, shape="abs(private_key)", type="secretsmanager"
    )
    with pytest.raises(TargetRefused, match="JMESPathTypeError") as caught:
        target.deploy(bundle, context(cloud))
    error: BaseException | None = caught.value
    while error:
        assert "PRIVATE KEY" not in str(error)
        error = error.__cause__


def test_a_value_that_comes_out_empty_is_refused(cloud: Cloud) -> None:
    bundle = replace(make_bundle(DOMAINS), chain="")
    with pytest.raises(TargetRefused, match="not an object or a text"):
        Secretsmanager(name=NAME, region=REGION, shape="chain").deploy(bundle, context(cloud))


def test_too_large_a_value_is_refused_before_any_call(cloud: Cloud) -> None:
    bundle = make_bundle(DOMAINS)
    large = Bundle(bundle.facts, bundle.certificate, bundle.chain * 100, bundle.private_key)
    with cloud.journal() as calls, pytest.raises(TargetRefused, match=f"{VALUE_LIMIT:,}"):
        TARGET.deploy(large, context(cloud))
    assert calls == []


# Other people's secrets


def test_an_existing_untagged_secret_is_taken_over(cloud: Cloud) -> None:
    secrets(cloud).create_secret(Name=NAME, SecretString="{}", Tags=[{"Key": "a", "Value": "b"}])
    current = cloud.publish()
    cloud.deploy(TARGET)
    assert json.loads(value(cloud))["fingerprint"] == current.fingerprint
    assert tags(cloud)["a"] == "b"


def test_another_pipelines_secret_is_left_alone(cloud: Cloud) -> None:
    for pipeline in ("mail", "shop"):
        cloud.publish(pipeline=pipeline)
    cloud.deploy(TARGET, pipeline="mail")
    with cloud.journal() as calls, pytest.raises(NotOurs, match="pipeline mail"):
        cloud.deploy(TARGET, pipeline="shop")
    assert writes(calls) == []


def test_another_installations_secret_is_left_alone(cloud: Cloud) -> None:
    bundle = make_bundle(DOMAINS)
    TARGET.deploy(bundle, context(cloud))
    with pytest.raises(NotOurs, match="another installation"):
        TARGET.deploy(bundle, replace(context(cloud), owner="other-bucket"))


def test_a_rotated_secret_is_left_alone(cloud: Cloud) -> None:
    secrets(cloud).create_secret(Name=NAME, SecretString="{}")
    # moto rotates only with a function that it runs in Docker, so the answer is written here.
    cloud.answer("DescribeSecret", {"ARN": "x", "Name": NAME, "RotationEnabled": True})
    cloud.publish()
    with pytest.raises(NotOurs, match="rotated"):
        cloud.deploy(TARGET)


def test_a_copy_is_not_written_to(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(Secretsmanager(name=NAME, region=REGION, replica_regions=("us-east-1",)))
    cloud.publish(pipeline="mail")
    with pytest.raises(NotOurs, match=f"copy of the one in {REGION}"):
        cloud.deploy(Secretsmanager(name=NAME, region="us-east-1"), pipeline="mail")


def test_a_secret_about_to_be_deleted(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    secrets(cloud).delete_secret(SecretId=NAME)
    cloud.publish()
    with cloud.journal() as calls, pytest.raises(TargetMissing, match="restore-secret"):
        cloud.deploy(TARGET)
    assert writes(calls) == []
    record = cloud.recorded(TARGET)
    assert (record.state, record.next_attempt) == (State.FAILED, None)
    secrets(cloud).restore_secret(SecretId=NAME)
    cloud.deploy(TARGET)
    assert cloud.recorded(TARGET).state is State.DEPLOYED


def test_deleted_between_reading_and_writing(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    cloud.publish()
    cloud.before("PutSecretValue", lambda: secrets(cloud).delete_secret(SecretId=NAME))
    with pytest.raises(TargetMissing, match="restore-secret"):
        cloud.deploy(TARGET)


# The file


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tls/*.shop/bundle", r"leave out `\*`"),
        ("tls/zoë", "leave out `ë`"),
        ("shop-online", "`shop-online/bundle`"),
        ("my-ab.com", "`my-ab.com/bundle`"),
        ("x" * 513, "1 to 512"),
        ("", "1 to 512"),
    ],
)
def test_a_name_aws_would_refuse_or_confuse(name: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Secretsmanager(name=name, region=REGION)


@pytest.mark.parametrize("name", ["tls/shop", "tls-shop/bundle", "a-1234567", "a-12345", "a"])
def test_a_name_aws_takes(name: str) -> None:
    assert Secretsmanager(name=name, region=REGION).name == name


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("{a: [", "not a JMESPath expression"),
        ("shuffle(@)", "Unknown function"),
        ("{a: fullchian}", "finds nothing for `a`"),
        ("fullchian", "neither an object nor a text"),
        ("domains", "neither an object nor a text"),
    ],
)
def test_a_shape_that_makes_no_sense(shape: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Secretsmanager(name=NAME, region=REGION, shape=shape)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stage": "AWSPENDING"}, "a label of AWS's own"),
        ({"stage": "AWSPREVIOUS"}, "a label of AWS's own"),
        ({"stage": "awscurrent"}, "a label of AWS's own"),
        ({"stage": "blue/green"}, "letters and digits"),
        ({"stage": ""}, "letters and digits"),
        ({"readers": ["222222222222"]}, "add `kms_key`"),
        ({"readers": ["222222222222"], "kms_key": "alias/aws/secretsmanager"}, "add `kms_key`"),
        ({"readers": ["*"], "kms_key": "alias/tls"}, "strangers"),
        ({"readers": ["arn:aws:iam::222222222222:role/*"], "kms_key": "alias/tls"}, "strangers"),
        ({"readers": ["2222"], "kms_key": "alias/tls"}, "neither an account nor a role"),
    ],
)
def test_labels_and_readers_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Secretsmanager(name=NAME, region=REGION, **fields)


def test_current_may_be_said() -> None:
    assert Secretsmanager(name=NAME, region=REGION, stage="AWSCURRENT") == TARGET
