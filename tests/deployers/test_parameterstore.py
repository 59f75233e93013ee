"""parameterstore: one SecureString that fits, and nothing of anybody else's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from certrail.bundle import Bundle
from certrail.errors import NotOurs, TargetRefused
from certrail.keys import KeyType
from certrail.target import Context
from deployers.document import document
from deployers.kinds.parameterstore import ADVANCED_LIMIT, Parameterstore
from tests.certrail.bundles import make_bundle
from tests.deployers.cloud import ACCOUNT, DOMAINS, PIPELINE, REGION, Cloud

NAME = "/tls/shop/bundle"
TARGET = Parameterstore(name=NAME, region=REGION)
# More than 4 KB, less than 8.
LONG = Parameterstore(
    name=NAME, region=REGION, shape="{a: fullchain, b: fullchain, c: fullchain, d: @}"
)


def parameters(cloud: Cloud) -> Any:
    return cloud.client("ssm")


def described(cloud: Cloud) -> Any:
    (found,) = parameters(cloud).describe_parameters(
        ParameterFilters=[{"Key": "Name", "Values": [NAME]}]
    )["Parameters"]
    return found


def tags(cloud: Cloud) -> dict[str, str]:
    answer = parameters(cloud).list_tags_for_resource(ResourceType="Parameter", ResourceId=NAME)
    return {tag["Key"]: tag["Value"] for tag in answer["TagList"]}


def value(cloud: Cloud) -> str:
    answer = parameters(cloud).get_parameter(Name=NAME, WithDecryption=True)
    return str(answer["Parameter"]["Value"])


def put(cloud: Cloud, text: str, **more: Any) -> None:
    parameters(cloud).put_parameter(Name=NAME, Value=text, **{"Type": "SecureString", **more})


def writes(calls: Any) -> list[str]:
    return [call.action.removeprefix("ssm:") for call in calls if call.writes]


def context(cloud: Cloud) -> Context:
    return Context(pipeline=PIPELINE, owner=cloud.store.bucket, aws=cloud.aws)


def large(chains: int) -> Bundle:
    bundle = make_bundle(DOMAINS)
    return Bundle(bundle.facts, bundle.certificate, bundle.chain * chains, bundle.private_key)


def test_the_document_is_one_secure_string(cloud: Cloud) -> None:
    bundle = cloud.store.bundle(cloud.publish())
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
    assert writes(calls) == ["PutParameter"]
    assert json.loads(value(cloud)) == document(bundle)
    found = described(cloud)
    assert (found["Type"], found["Tier"], found["Version"]) == ("SecureString", "Standard", 1)
    assert found["KeyId"] == "alias/aws/ssm"


def test_the_tags_tell_without_decrypting(cloud: Cloud) -> None:
    current = cloud.publish()
    cloud.deploy(Parameterstore(name=NAME, region=REGION, tags={"team": "web"}))
    assert tags(cloud) == {
        "certrail:owner": cloud.store.bucket,
        "certrail:pipeline": PIPELINE,
        "certrail:fingerprint": current.fingerprint,
        "certrail:version": "1",
        "certrail:digest": hashlib.sha256(value(cloud).encode()).hexdigest(),
        "certrail:not-after": f"{current.facts.not_after:%Y-%m-%dT%H:%M:%SZ}",
        "team": "web",
    }


def test_no_value_is_ever_read(cloud: Cloud) -> None:
    cloud.publish()
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
        cloud.publish()
        cloud.deploy(TARGET)
        cloud.observe(TARGET)
    assert not [call.action for call in calls if call.action.startswith("ssm:GetParameter")]
    assert not [each for each in TARGET.permissions() if each in {"kms:Decrypt"}]


def test_a_renewal_writes_one_value(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    current = cloud.publish()
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
    assert writes(calls) == ["PutParameter", "AddTagsToResource"]
    assert json.loads(value(cloud))["fingerprint"] == current.fingerprint
    assert described(cloud)["ARN"] == f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{NAME}"


def test_a_foreign_write_is_seen_and_repaired(cloud: Cloud) -> None:
    current = cloud.publish()
    cloud.deploy(TARGET)
    put(cloud, "{}", Overwrite=True)
    there = cloud.observe(TARGET)
    assert there is not None
    assert (there.fingerprint, there.version) == ("", "2")
    cloud.deploy(TARGET)
    assert json.loads(value(cloud))["fingerprint"] == current.fingerprint


def test_a_crash_before_the_tags_is_made_good(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    current = cloud.publish()
    cloud.refuse("AddTagsToResource", "AccessDeniedException", status=403)
    assert TARGET.address in cloud.settle(TARGET)
    there = cloud.observe(TARGET)
    assert there is not None
    assert there.fingerprint == ""
    cloud.deploy(TARGET)
    there = cloud.observe(TARGET)
    assert there is not None
    assert there.fingerprint == current.fingerprint


def test_metadata_that_comes_on_the_second_page_is_found(cloud: Cloud) -> None:
    """AWS answers on a best-effort basis: a page may be empty, and another one follow."""
    cloud.publish()
    cloud.deploy(TARGET)
    metadata = described(cloud) | {"LastModifiedDate": 0}
    cloud.answer("DescribeParameters", {"Parameters": [], "NextToken": "more"})
    cloud.answer("DescribeParameters", {"Parameters": [metadata]})
    there = cloud.observe(TARGET)
    assert there is not None
    assert there.fingerprint


# Tiers


def test_what_needs_more_than_4_kb_is_advanced(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(LONG)
    assert 4_096 < len(value(cloud)) <= 8_192
    assert described(cloud)["Tier"] == "Advanced"


def test_a_standard_parameter_grows_and_never_shrinks(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    assert described(cloud)["Tier"] == "Standard"
    cloud.settle(LONG)
    assert described(cloud)["Tier"] == "Advanced"
    cloud.settle(TARGET)
    assert len(value(cloud)) <= 4_096
    assert described(cloud)["Tier"] == "Advanced"


def test_what_cannot_fit_is_refused_before_any_call(cloud: Cloud) -> None:
    with cloud.journal() as calls, pytest.raises(TargetRefused) as caught:
        TARGET.deploy(large(20), context(cloud))
    assert calls == []
    assert f"AWS takes {ADVANCED_LIMIT:,}" in caught.value.what
    for remedy in ("`shape`", "`ecdsa-p256`", "`secretsmanager`"):
        assert remedy in caught.value.next


def test_what_is_needed_fits_with_every_kind_of_key(cloud: Cloud) -> None:
    """With a chain as long as those of public CAs that sign with RSA."""
    target = Parameterstore(name=NAME, region=REGION, shape="{crt: fullchain, key: private_key}")
    for key_type in KeyType:
        bundle = make_bundle(DOMAINS, key_type=key_type)
        long = Bundle(bundle.facts, bundle.certificate, bundle.chain * 4, bundle.private_key)
        target.deploy(long, context(cloud))


def test_two_braces_are_refused_before_any_call(cloud: Cloud) -> None:
    target = Parameterstore(name=NAME, region=REGION, shape="join('', ['{{', private_key, '}}'])")
    with cloud.journal() as calls, pytest.raises(TargetRefused, match=r"has `\{\{` in it"):
        target.deploy(make_bundle(DOMAINS), context(cloud))
    assert calls == []


# The key


def test_key_follows_the_file_and_stays_where_it_says_nothing(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    keyed = Parameterstore(name=NAME, region=REGION, kms_key="alias/tls")
    with cloud.journal() as calls:
        cloud.settle(keyed)
    assert writes(calls) == ["PutParameter", "AddTagsToResource"]
    assert described(cloud)["KeyId"] == "alias/tls"
    cloud.publish()
    cloud.settle(TARGET)
    assert described(cloud)["KeyId"] == "alias/tls"


# Other people's parameters


@pytest.mark.parametrize("parameter_type", ["String", "SecureString"])
def test_what_certrail_did_not_make_is_left_alone(cloud: Cloud, parameter_type: str) -> None:
    put(cloud, "theirs", Type=parameter_type)
    cloud.publish()
    with cloud.journal() as calls, pytest.raises(NotOurs, match="did not make") as caught:
        cloud.deploy(TARGET)
    assert writes(calls) == []
    assert value(cloud) == "theirs"
    assert "`certrail:owner`" in caught.value.next


def test_what_is_given_to_certrail_by_tags_is_taken_over(cloud: Cloud) -> None:
    put(cloud, "by hand", Tags=_ours(cloud))
    current = cloud.publish()
    cloud.deploy(TARGET)
    assert json.loads(value(cloud))["fingerprint"] == current.fingerprint


def test_a_string_gets_no_private_key(cloud: Cloud) -> None:
    put(cloud, "by hand", Type="String", Tags=_ours(cloud))
    cloud.publish()
    with cloud.journal() as calls, pytest.raises(NotOurs, match="not a SecureString"):
        cloud.deploy(TARGET)
    assert writes(calls) == []


def _ours(cloud: Cloud) -> Any:
    return [
        {"Key": "certrail:owner", "Value": cloud.store.bucket},
        {"Key": "certrail:pipeline", "Value": PIPELINE},
    ]


def test_another_pipelines_parameter_is_left_alone(cloud: Cloud) -> None:
    for pipeline in ("mail", "shop"):
        cloud.publish(pipeline=pipeline)
    cloud.deploy(TARGET, pipeline="mail")
    with pytest.raises(NotOurs, match="pipeline mail"):
        cloud.deploy(TARGET, pipeline="shop")


def test_another_installations_parameter_is_left_alone(cloud: Cloud) -> None:
    bundle = make_bundle(DOMAINS)
    TARGET.deploy(bundle, context(cloud))
    with pytest.raises(NotOurs, match="another installation"):
        TARGET.deploy(bundle, replace(context(cloud), owner="other-bucket"))


def test_made_by_somebody_else_between_reading_and_writing(cloud: Cloud) -> None:
    cloud.publish()
    cloud.before("PutParameter", lambda: put(cloud, "theirs"))
    with pytest.raises(TargetRefused) as caught:
        cloud.deploy(TARGET)
    assert caught.value.retryable
    assert value(cloud) == "theirs"


def test_written_by_somebody_else_right_after_is_seen(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    cloud.publish()
    cloud.before("AddTagsToResource", lambda: put(cloud, "theirs", Overwrite=True))
    cloud.deploy(TARGET)
    there = cloud.observe(TARGET)
    assert there is not None
    assert there.fingerprint == ""


# What AWS refuses


def test_two_writers_at_once_are_tried_again(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    cloud.publish()
    cloud.refuse("PutParameter", "TooManyUpdates", status=400)
    with pytest.raises(TargetRefused) as caught:
        cloud.deploy(TARGET)
    assert caught.value.retryable


def test_a_label_on_the_oldest_version_is_said(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    parameters(cloud).label_parameter_version(Name=NAME, ParameterVersion=1, Labels=["keep"])
    for _ in range(99):
        put(cloud, "theirs", Overwrite=True)
    with pytest.raises(TargetRefused, match="no room") as caught:
        cloud.deploy(TARGET)
    assert not caught.value.retryable
    assert "label" in caught.value.next


# The file


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/tls/*.shop/bundle", r"leave out `\*`"),
        ("tls/shop", "write it like `/tls/shop/bundle`"),
        ("/shop", "write it like `/tls/shop/bundle`"),
        ("/tls//shop", "2 to 15 levels"),
        ("/tls/shop/", "2 to 15 levels"),
        ("/a" * 16, "2 to 15 levels"),
        ("x" * 951, "950 characters"),
        ("/aws/tls", "AWS's own"),
        ("SSMtls", "AWS's own"),
        ("", "2 to 15 levels"),
    ],
)
def test_a_name_aws_would_refuse_or_confuse(name: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Parameterstore(name=name, region=REGION)


@pytest.mark.parametrize("name", ["tls-shop", "/tls/shop_1/bundle.json", "/a" * 15, "x" * 950])
def test_a_name_aws_takes(cloud: Cloud, name: str) -> None:
    cloud.publish()
    cloud.deploy(Parameterstore(name=name, region=REGION))
