"""secretsmanager: one value, one write, one version; nothing of anybody else's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from certrail.bundle import Bundle
from certrail.errors import NotOurs, TargetMissing, TargetRefused
from certrail.records import State
from certrail.target import Context
from deployers.kinds.secretsmanager import SPECIMEN, VALUE_LIMIT, Secretsmanager, document
from tests.certrail.bundles import make_bundle
from tests.deployers.cloud import DOMAINS, PIPELINE, REGION, Cloud

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


# Key, copies, shape


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
