"""acm: found again whatever happens, imported again in place, never somebody else's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import ValidationError

from certrail.bundle import Bundle, fingerprint
from certrail.errors import AwsError, NotOurs, TargetMissing, TargetRefused
from certrail.keys import KeyType
from certrail.records import State
from certrail.secret import Secret
from certrail.target import Context
from deployers.deploy import LEASE
from deployers.kinds.acm import Acm
from deployers.kinds.cloudfront import Cloudfront
from deployers.rollout import Action
from sandbox import resources
from tests.certrail.bundles import NOW, make_bundle
from tests.deployers.cloud import ACCOUNT, DOMAINS, PIPELINE, REGION, Cloud
from tests.sandbox.rules.issuance import Authority, usages

TARGET = Acm(region=REGION)


def arns(cloud: Cloud) -> list[str]:
    every = [
        "RSA_2048",
        "RSA_3072",
        "RSA_4096",
        "EC_prime256v1",
        "EC_secp384r1",
    ]
    found = cloud.client("acm").list_certificates(Includes={"keyTypes": every})
    return [each["CertificateArn"] for each in found["CertificateSummaryList"]]


def forget(cloud: Cloud) -> None:
    """The record is lost, as in a crash between the import and the record."""
    cloud.client("s3").delete_object(
        Bucket=cloud.store.bucket, Key=f"deployments/{PIPELINE}/{TARGET.address}.json"
    )


def bundle_with(
    usage: x509.KeyUsage | None = None,
    extended: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH,),
    key: str = "EC_prime256v1",
    key_type: KeyType = KeyType.ECDSA_P256,
    names: Sequence[str] = DOMAINS,
) -> Bundle:
    """A bundle with usages of a test's choice; its facts are those of an ordinary one."""
    issued = Authority().issue(*names, key=key, usage=usage, extended=extended)
    certificate = issued.certificate.decode()
    facts = replace(
        make_bundle(names, key_type).facts,
        fingerprint=fingerprint(certificate),
        not_after=issued.parsed.not_valid_after_utc,
    )
    private_key = Secret(issued.private_key.decode())
    return Bundle(facts, certificate, issued.chain.decode(), private_key)


@pytest.mark.parametrize("key_type", KeyType)
def test_every_key_type_is_found_again_by_its_tags(cloud: Cloud, key_type: KeyType) -> None:
    cloud.publish(key_type=key_type)
    cloud.deploy(TARGET)
    (arn,) = arns(cloud)
    forget(cloud)
    cloud.publish(key_type=key_type)
    cloud.deploy(TARGET)
    assert arns(cloud) == [arn]


def test_the_import_says_in_the_same_call_whose_it_is(cloud: Cloud) -> None:
    cloud.publish(pipeline="*.example.com")
    target = Acm(region=REGION, tags={"team": "edge"})
    with cloud.journal() as calls:
        cloud.deploy(target, pipeline="*.example.com")
    (arn,) = arns(cloud)
    tags = cloud.client("acm").list_tags_for_certificate(CertificateArn=arn)["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {
        "certrail:owner": cloud.store.bucket,
        "certrail:pipeline": "_wildcard.example.com",
        "team": "edge",
    }
    assert [call.action for call in calls if call.writes] == ["acm:ImportCertificate"]


def test_a_renewal_is_one_write(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    cloud.publish()
    with cloud.journal() as calls:
        cloud.deploy(TARGET)
    assert [call.action for call in calls if call.writes] == ["acm:ImportCertificate"]
    assert len(arns(cloud)) == 1


def test_tags_are_added_when_the_file_gains_them(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    with cloud.journal() as calls:
        cloud.settle(Acm(region=REGION, tags={"team": "edge"}))
    assert [call.action for call in calls if call.writes] == ["acm:AddTagsToCertificate"]


def test_a_leaf_without_chain_is_recognised(cloud: Cloud) -> None:
    bundle = replace(make_bundle(DOMAINS), chain="")
    context = Context(pipeline=PIPELINE, owner=cloud.store.bucket, aws=cloud.aws)
    held = TARGET.deploy(bundle, context)
    with cloud.journal() as calls:
        assert TARGET.deploy(bundle, replace(context, held=held)) == held
    assert [call.action for call in calls if call.writes] == []


def test_another_chain_under_the_same_leaf_is_imported_again(cloud: Cloud) -> None:
    bundle = make_bundle(DOMAINS)
    context = Context(pipeline=PIPELINE, owner=cloud.store.bucket, aws=cloud.aws)
    held = TARGET.deploy(replace(bundle, chain=""), context)
    assert TARGET.deploy(bundle, replace(context, held=held)).resource == held.resource
    there = cloud.client("acm").get_certificate(CertificateArn=held.resource)
    assert fingerprint(there["CertificateChain"]) == fingerprint(bundle.chain)


def test_a_deleted_import_is_made_anew(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    (old,) = arns(cloud)
    cloud.client("acm").delete_certificate(CertificateArn=old)
    assert cloud.observe(TARGET) is None
    cloud.deploy(TARGET)
    (new,) = arns(cloud)
    assert new != old
    assert cloud.recorded(TARGET).state is State.DEPLOYED


def test_what_was_changed_by_hand_is_repaired(cloud: Cloud) -> None:
    current = cloud.publish()
    cloud.deploy(TARGET)
    (arn,) = arns(cloud)
    other = make_bundle(DOMAINS)
    cloud.client("acm").import_certificate(
        CertificateArn=arn,
        Certificate=other.certificate.encode(),
        PrivateKey=other.private_key.reveal().encode(),
        CertificateChain=other.chain.encode(),
    )
    there = cloud.observe(TARGET)
    assert there is not None
    assert there.fingerprint == other.fingerprint
    cloud.deploy(TARGET)
    there = cloud.observe(TARGET)
    assert there is not None
    assert there.fingerprint == current.fingerprint


def test_two_pipelines_have_an_import_each(cloud: Cloud) -> None:
    for pipeline in ("shop", "mail", "shop"):
        cloud.publish(pipeline=pipeline)
        cloud.deploy(TARGET, pipeline=pipeline)
    held = [cloud.recorded(TARGET, pipeline=name).held for name in ("shop", "mail")]
    assert len({each.resource for each in held if each}) == len(arns(cloud)) == 2


def test_two_installations_have_an_import_each(cloud: Cloud) -> None:
    bundle = make_bundle(DOMAINS)
    for owner in ("bucket-a", "bucket-b", "bucket-a"):
        TARGET.deploy(bundle, Context(pipeline=PIPELINE, owner=owner, aws=cloud.aws))
    assert len(arns(cloud)) == 2


# What AWS would not reimport


def test_a_new_key_type_gets_a_new_import(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    (old,) = arns(cloud)
    cloud.publish(key_type=KeyType.RSA_2048)
    cloud.deploy(TARGET)
    held = cloud.recorded(TARGET).held
    assert held is not None
    assert (held.resource != old, held.replaced) == (True, old)
    assert sorted(arns(cloud)) == sorted([old, held.resource])
    # Even without the record, the newer of the two is the one that goes on.
    forget(cloud)
    cloud.publish(key_type=KeyType.RSA_2048)
    cloud.deploy(TARGET)
    assert len(arns(cloud)) == 2
    assert getattr(cloud.recorded(TARGET).held, "resource", "") == held.resource


def test_a_crash_after_the_import_that_replaces_makes_no_third(cloud: Cloud) -> None:
    cloud.publish()
    cloud.deploy(TARGET)
    (old,) = arns(cloud)
    cloud.publish(key_type=KeyType.RSA_2048)

    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    cloud.before("ImportCertificate", lambda: cloud.before("PutObject", die))
    with pytest.raises(Died):
        cloud.deploy(TARGET)
    (new,) = set(arns(cloud)) - {old}
    cloud.deploy(TARGET, now=NOW + LEASE)
    assert sorted(arns(cloud)) == sorted([old, new])
    held = cloud.recorded(TARGET).held
    assert held is not None
    assert (held.resource, held.replaced) == (new, old)


@pytest.mark.parametrize(
    "richer",
    [
        bundle_with(extended=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING)),
        bundle_with(usage=usages("digital_signature", "key_agreement")),
        bundle_with(names=["elsewhere.example.org"]),
    ],
    ids=["extended usage", "usage", "names"],
)
def test_what_a_reimport_would_lose_makes_a_new_import(cloud: Cloud, richer: Bundle) -> None:
    context = Context(pipeline=PIPELINE, owner=cloud.store.bucket, aws=cloud.aws)
    held = TARGET.deploy(richer, context)
    after = TARGET.deploy(make_bundle(DOMAINS), replace(context, held=held))
    assert after.replaced == held.resource


@pytest.mark.parametrize(
    "richer",
    [
        bundle_with(extended=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)),
        bundle_with(usage=usages("digital_signature", "key_encipherment")),
    ],
    ids=["client authentication", "key encipherment of an ECDSA key"],
)
def test_what_aws_lets_go_is_reimported(cloud: Cloud, richer: Bundle) -> None:
    context = Context(pipeline=PIPELINE, owner=cloud.store.bucket, aws=cloud.aws)
    held = TARGET.deploy(richer, context)
    after = TARGET.deploy(make_bundle(DOMAINS), replace(context, held=held))
    assert (after.resource, after.replaced) == (held.resource, None)


def test_a_name_may_go_where_no_distribution_serves_it(cloud: Cloud) -> None:
    context = Context(pipeline=PIPELINE, owner=cloud.store.bucket, aws=cloud.aws)
    held = TARGET.deploy(make_bundle([*DOMAINS, "more.example.net"]), context)
    assert TARGET.deploy(make_bundle(DOMAINS), replace(context, held=held)).resource == (
        held.resource
    )


def test_a_name_that_a_distribution_serves_is_not_taken_away(cloud: Cloud) -> None:
    target = Acm(region="us-east-1")
    context = Context(pipeline=PIPELINE, owner=cloud.store.bucket, aws=cloud.aws)
    both = make_bundle([*DOMAINS, "more.example.net"])
    held = target.deploy(both, context)
    resources.distribution(
        "E2QWRUHEXAMPLE",
        [*DOMAINS, "more.example.net"],
        session=cloud.session,
        endpoint=cloud.endpoint,
        account=ACCOUNT,
    )
    distribution = Cloudfront(distribution="E2QWRUHEXAMPLE")
    distribution.link(both.facts, replace(context, needs={target.address: held}))

    after = target.deploy(make_bundle(DOMAINS), replace(context, held=held))
    assert (after.resource != held.resource, after.replaced) == (True, held.resource)
    still = cloud.client("acm", "us-east-1").get_certificate(CertificateArn=held.resource)
    assert fingerprint(still["Certificate"]) == both.fingerprint

    adopted = Acm(region="us-east-1", certificate_arn=held.resource)
    with pytest.raises(TargetRefused, match=r"more\.example\.net would be lost, and .*E2QWRUHEX"):
        adopted.deploy(make_bundle(DOMAINS), context)


# Adopting


def adopted(arn: str) -> Acm:
    return Acm(region=REGION, certificate_arn=arn)


def test_an_import_is_adopted(cloud: Cloud) -> None:
    arn = resources.imported_certificate(DOMAINS, region=REGION)
    current = cloud.publish()
    cloud.deploy(adopted(arn))
    assert arns(cloud) == [arn]
    there = cloud.observe(adopted(arn))
    assert there is not None
    assert there.fingerprint == current.fingerprint
    assert adopted(arn).claim == f"acm/{arn}"
    assert TARGET.claim is None


def test_an_adopted_import_is_never_left_for_another(cloud: Cloud) -> None:
    arn = resources.imported_certificate(DOMAINS, "RSA_2048", region=REGION)
    cloud.publish()
    with cloud.journal() as calls, pytest.raises(TargetRefused, match="RSA_2048 to EC_prime256v1"):
        cloud.deploy(adopted(arn))
    assert [call.action for call in calls if call.writes] == []
    assert cloud.recorded(adopted(arn)).next_attempt is None


def test_what_acm_issued_itself_is_not_adopted(cloud: Cloud) -> None:
    arn = cloud.client("acm").request_certificate(DomainName="shop.example.com")["CertificateArn"]
    cloud.publish()
    with pytest.raises(NotOurs, match="AMAZON_ISSUED"):
        cloud.deploy(adopted(arn))


def test_an_adopted_import_must_be_there(cloud: Cloud) -> None:
    arn = resources.imported_certificate(DOMAINS, region=REGION)
    cloud.client("acm").delete_certificate(CertificateArn=arn)
    cloud.publish()
    with pytest.raises(TargetMissing, match="no certificate"):
        cloud.deploy(adopted(arn))


# Refusals


def refusal(cloud: Cloud, code: str) -> Any:
    cloud.publish()
    for _ in range(5):  # botocore's own tries
        cloud.refuse("ImportCertificate", code, "So it is.")
    with pytest.raises((TargetRefused, AwsError)) as caught:
        cloud.deploy(TARGET)
    return caught.value


def test_the_quota_is_for_a_person(cloud: Cloud, quick: None) -> None:
    error = refusal(cloud, "LimitExceededException")
    assert isinstance(error, TargetRefused)
    assert not error.retryable
    assert "L-3808DC70" in str(error)
    assert cloud.recorded(TARGET).next_attempt is None


def test_throttling_passes(cloud: Cloud, quick: None) -> None:
    error = refusal(cloud, "ThrottlingException")
    assert error.retryable
    record = cloud.recorded(TARGET)
    assert (record.state, record.attempts) == (State.FAILED, 1)
    assert record.next_attempt == NOW + timedelta(minutes=1)
    (step,) = cloud.plan(TARGET, now=NOW + timedelta(minutes=1))
    assert step.action is Action.RETRY


def test_tags_that_acm_refuses_are_not_the_bundles_fault(cloud: Cloud) -> None:
    cloud.publish()
    text = (
        "1 validation error detected: Value '*.example.com' at 'tags.1.member.value' failed to "
        "satisfy constraint: Member must satisfy regular expression pattern: […]"
    )
    cloud.refuse("ImportCertificate", "ValidationException", text)
    with pytest.raises(TargetRefused, match="refused the tags"):
        cloud.deploy(TARGET)
    assert not cloud.recorded(TARGET).refused


# The file


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"certificate_arn": "arn:aws:iam::1:server-certificate/x"}, "not the ARN of a"),
        (
            {"certificate_arn": "arn:aws:acm:us-east-1:111111111111:certificate/1-2"},
            "set `region: us-east-1`",
        ),
        ({"tags": {"certrail:owner": "me"}}, "reserved"),
        ({"tags": {str(number): "" for number in range(41)}}, "40 at most"),
        # Else ACM would refuse the import, at each renewal that makes one.
        ({"tags": {"site": "*.example.com"}}, r"the tag `site` has \*"),
        ({"tags": {"site": "x" * 257}}, "too long"),
        ({"tags": {"": "x"}}, "has no name"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_the_file_may_not_say(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Acm.model_validate({"type": "acm", "region": REGION} | fields)


def test_one_region_imports_one_at_a_time() -> None:
    assert Acm(region=REGION).group == Acm(region=REGION, tags={"a": "b"}).group
    assert Acm(region=REGION).group != Acm(region=REGION, account="edge").group
