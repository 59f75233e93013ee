"""cloudfront: pointed once at the import, whole configuration kept, nothing uncovered attached."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

from certrail.errors import AccessDenied, BundleRefused, NotCovered, TargetMissing, TargetRefused
from certrail.keys import KeyType
from certrail.records import State
from certrail.target import Endpoint, with_needs
from deployers.kinds.acm import Acm
from deployers.kinds.cloudfront import MINIMUM_PROTOCOL, TRIES, Cloudfront
from deployers.rollout import Action
from sandbox import resources
from tests.certrail.bundles import NOW
from tests.deployers.cloud import DOMAINS, Cloud

TARGET = Cloudfront(distribution="E2EXAMPLE")
HOME = Acm(region="us-east-1")


def make(cloud: Cloud, *aliases: str, id: str = "E2EXAMPLE") -> None:
    resources.distribution(id, aliases, session=cloud.session, endpoint=cloud.endpoint)


def config(cloud: Cloud, id: str = "E2EXAMPLE") -> dict[str, Any]:
    found: dict[str, Any] = cloud.client("cloudfront").get_distribution_config(Id=id)
    return dict(found["DistributionConfig"])


def rewrite(cloud: Cloud, **changes: Any) -> None:
    """Somebody else's change of the distribution."""
    client = cloud.client("cloudfront")
    found = client.get_distribution_config(Id="E2EXAMPLE")
    client.update_distribution(
        Id="E2EXAMPLE",
        IfMatch=found["ETag"],
        DistributionConfig=found["DistributionConfig"] | changes,
    )


def home_arn(cloud: Cloud) -> str:
    held = cloud.recorded(HOME).held
    assert held is not None
    return held.resource


def writes(calls: Any) -> list[str]:
    return [call.action for call in calls if call.writes]


def test_only_the_viewer_certificate_changes(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    before = config(cloud)
    cloud.publish()
    assert cloud.settle(TARGET) == {}
    after = config(cloud)
    assert after["ViewerCertificate"]["ACMCertificateArn"] == home_arn(cloud)
    assert before.pop("ViewerCertificate") != after.pop("ViewerCertificate")
    assert before == after


def test_the_tls_policy_stays(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    viewer = config(cloud)["ViewerCertificate"] | {"MinimumProtocolVersion": "TLSv1.2_2019"}
    rewrite(cloud, ViewerCertificate=viewer)
    cloud.publish()
    assert cloud.settle(TARGET) == {}
    assert config(cloud)["ViewerCertificate"] == {
        "CloudFrontDefaultCertificate": False,
        "ACMCertificateArn": home_arn(cloud),
        "SSLSupportMethod": "sni-only",
        "MinimumProtocolVersion": "TLSv1.2_2019",
        "Certificate": home_arn(cloud),
        "CertificateSource": "acm",
    }


def test_a_distribution_without_aliases_gets_a_modern_policy(cloud: Cloud) -> None:
    make(cloud)
    assert cloud.observe(TARGET) is None
    cloud.publish()
    assert cloud.settle(TARGET) == {}
    viewer = config(cloud)["ViewerCertificate"]
    assert viewer["MinimumProtocolVersion"] == MINIMUM_PROTOCOL
    assert viewer["SSLSupportMethod"] == "sni-only"
    assert viewer["CloudFrontDefaultCertificate"] is False


def test_renewals_take_no_write_whatever_their_number(cloud: Cloud) -> None:
    targets = [Cloudfront(distribution=f"E{number}") for number in range(5)]
    for number, target in enumerate(targets):
        make(cloud, f"{number}.shop.example.com", id=target.distribution)
    cloud.publish()
    assert cloud.settle(*targets) == {}
    second = cloud.publish()
    with cloud.journal() as calls:
        assert cloud.settle(*targets) == {}
    assert writes(calls) == ["acm:ImportCertificate"]
    assert {cloud.recorded(target).fingerprint for target in targets} == {second.fingerprint}


def test_a_new_arn_relinks(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    cloud.publish()
    cloud.settle(TARGET)
    old = home_arn(cloud)
    cloud.publish(key_type=KeyType.RSA_2048)
    assert cloud.settle(TARGET) == {}
    assert home_arn(cloud) != old
    assert config(cloud)["ViewerCertificate"]["ACMCertificateArn"] == home_arn(cloud)


def test_a_deleted_import_relinks_in_the_same_generation(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    cloud.publish()
    cloud.settle(TARGET)
    other = resources.imported_certificate(DOMAINS)
    viewer = config(cloud)["ViewerCertificate"] | {"ACMCertificateArn": other}
    viewer |= {"Certificate": other}
    rewrite(cloud, ViewerCertificate=viewer)
    cloud.client("acm", "us-east-1").delete_certificate(CertificateArn=home_arn(cloud))
    cloud.deploy(HOME)
    _, step = cloud.plan(TARGET)
    assert step.action is Action.RELINK
    assert cloud.settle(TARGET) == {}
    assert config(cloud)["ViewerCertificate"]["ACMCertificateArn"] == home_arn(cloud)


def test_somebody_elses_change_in_between_is_kept(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    cloud.publish()
    cloud.before("UpdateDistribution", lambda: rewrite(cloud, Comment="changed meanwhile"))
    with cloud.journal() as calls:
        assert cloud.settle(TARGET) == {}
    after = config(cloud)
    assert after["Comment"] == "changed meanwhile"
    assert after["ViewerCertificate"]["ACMCertificateArn"] == home_arn(cloud)
    assert writes(calls).count("cloudfront:UpdateDistribution") == 2


def test_it_gives_way_after_some_tries(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    cloud.publish()
    for number in range(TRIES):
        cloud.before("UpdateDistribution", partial(rewrite, cloud, Comment=str(number)))
    (error,) = cloud.settle(TARGET).values()
    assert isinstance(error, TargetRefused)
    assert error.retryable


@pytest.mark.parametrize("alias", ["shop.example.org", "a.b.shop.example.com", "*.example.com"])
def test_an_alias_not_covered_is_refused_before_any_write(cloud: Cloud, alias: str) -> None:
    make(cloud, "shop.example.com", alias)
    cloud.publish()
    cloud.deploy(HOME)
    with cloud.journal() as calls, pytest.raises(NotCovered) as caught:
        cloud.deploy(TARGET)
    assert writes(calls) == []
    assert alias in str(caught.value)
    record = cloud.recorded(TARGET)
    assert (record.state, record.next_attempt, record.held) == (State.FAILED, None, None)
    assert record.error == str(caught.value)


def test_a_deleted_distribution_harms_no_other(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    gone = Cloudfront(distribution="EGONE")
    cloud.publish()
    failures = cloud.settle(gone, TARGET)
    assert list(failures) == [gone.address]
    assert isinstance(failures[gone.address], TargetMissing)
    assert cloud.recorded(TARGET).state is State.DEPLOYED
    assert "no distribution EGONE" in (cloud.recorded(gone).error or "")


def test_a_staging_distribution_is_refused(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    rewrite(cloud, Staging=True)
    cloud.publish()
    cloud.deploy(HOME)
    with cloud.journal() as calls, pytest.raises(TargetRefused, match="staging"):
        cloud.deploy(TARGET)
    assert writes(calls) == []


def test_a_certificate_cloudfront_does_not_see_yet_is_tried_again(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    cloud.publish()
    cloud.deploy(HOME)
    text = "The specified SSL certificate doesn't exist, isn't in us-east-1 region."
    cloud.refuse("UpdateDistribution", "InvalidViewerCertificate", text)
    with pytest.raises(TargetRefused) as caught:
        cloud.deploy(TARGET)
    assert caught.value.retryable
    assert cloud.recorded(TARGET).next_attempt == NOW + timedelta(minutes=1)
    assert cloud.settle(TARGET, now=NOW + timedelta(minutes=1)) == {}


def test_what_cloudfront_does_not_accept_an_hour_after_the_import_is_the_bundles_fault(
    cloud: Cloud,
) -> None:
    """A rollout that goes back where the service refuses the bundle asks this."""
    make(cloud, *DOMAINS)
    cloud.publish()
    cloud.deploy(HOME)
    text = "The specified SSL certificate isn't valid, or doesn't include a valid chain."
    moments = [NOW, NOW + timedelta(minutes=1), NOW + timedelta(hours=1)]
    for now in moments:
        cloud.refuse("UpdateDistribution", "InvalidViewerCertificate", text)
        (error,) = cloud.settle(TARGET, now=now).values()
        assert isinstance(error, BundleRefused if now == moments[-1] else TargetRefused)
    record = cloud.recorded(TARGET)
    assert (record.refused, record.next_attempt) == (True, None)


def test_an_import_that_somebody_deleted_is_not_the_bundles_fault(cloud: Cloud) -> None:
    """AWS has the same words for both, and a rollout would go back for the one."""
    make(cloud, *DOMAINS)
    cloud.publish()
    cloud.deploy(HOME)
    arn = home_arn(cloud)
    cloud.client("acm", "us-east-1").delete_certificate(CertificateArn=arn)
    later = NOW + timedelta(hours=1)
    with pytest.raises(TargetMissing, match=f"somebody deleted {arn}"):
        cloud.deploy(TARGET, now=later)
    assert not cloud.recorded(TARGET).refused
    cloud.deploy(HOME, now=later)
    assert cloud.settle(TARGET, now=later) == {}
    assert config(cloud)["ViewerCertificate"]["ACMCertificateArn"] == home_arn(cloud) != arn


def test_a_name_cloudfront_misses_is_for_a_person(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    cloud.publish()
    cloud.deploy(HOME)
    text = "The certificate doesn't cover the alternate domain name (CNAME)."
    cloud.refuse("UpdateDistribution", "InvalidViewerCertificate", text)
    with pytest.raises(NotCovered):
        cloud.deploy(TARGET)
    assert cloud.recorded(TARGET).next_attempt is None


def test_a_missing_permission_is_named(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    cloud.publish()
    cloud.deploy(HOME)
    cloud.refuse("GetDistribution", "AccessDenied", "Not you.", 403)
    with pytest.raises(AccessDenied, match="Allow cloudfront:GetDistribution"):
        cloud.deploy(TARGET)
    assert cloud.recorded(TARGET).state is State.FAILED


def test_it_needs_an_import_in_us_east_1_of_its_account() -> None:
    target = Cloudfront(distribution="E1", account="edge")
    assert list(with_needs([target])) == ["acm/edge:us-east-1", "cloudfront/E1"]
    assert target.key_types == {KeyType.ECDSA_P256, KeyType.RSA_2048, KeyType.RSA_3072}
    assert target.claim == "cloudfront/E1"


def test_an_arn_is_not_an_id() -> None:
    with pytest.raises(ValidationError, match="write `E12ABC`"):
        Cloudfront(distribution="arn:aws:cloudfront::111111111111:distribution/E12ABC")


# Where clients find it


def endpoints(cloud: Cloud) -> tuple[Endpoint, ...]:
    held = cloud.recorded(TARGET).held
    assert held
    return held.endpoints


def test_clients_are_looked_at_under_the_distributions_own_name(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    cloud.publish()
    cloud.settle(TARGET)
    (there,) = cloud.client("cloudfront").list_distributions()["DistributionList"]["Items"]
    names = ("certrail-check.shop.example.com", "shop.example.com")
    assert endpoints(cloud) == (Endpoint(there["DomainName"], 443, names),)


@pytest.mark.parametrize(
    ("aliases", "changes"), [((), {}), (DOMAINS, {"Enabled": False})], ids=["no alias", "disabled"]
)
def test_where_nobody_is_served_there_is_no_check(
    cloud: Cloud, aliases: tuple[str, ...], changes: dict[str, Any]
) -> None:
    make(cloud, *aliases)
    rewrite(cloud, **changes)
    cloud.publish()
    cloud.settle(TARGET)
    assert endpoints(cloud) == ()
    assert cloud.recorded(TARGET).check is None


def test_it_takes_no_call_more(cloud: Cloud) -> None:
    make(cloud, *DOMAINS)
    cloud.publish()
    cloud.settle(TARGET)
    cloud.publish()
    cloud.settle(HOME)
    for _ in ("a renewal", "the daily check"):
        with cloud.journal() as calls:
            cloud.deploy(TARGET)
        assert [call.action for call in calls] == ["cloudfront:GetDistribution"]


def test_an_alias_more_is_a_new_look_and_no_write(cloud: Cloud) -> None:
    make(cloud, "shop.example.com")
    cloud.publish()
    cloud.settle(TARGET)
    rewrite(cloud, Aliases={"Quantity": 2, "Items": list(DOMAINS)})
    later = NOW + timedelta(days=1)
    with cloud.journal() as calls:
        cloud.deploy(TARGET, now=later)
    assert [call.action for call in calls if call.writes] == []
    assert len(endpoints(cloud)[0].server_names) == 2
    check = cloud.recorded(TARGET).check
    assert check
    assert check.next == later


def test_a_reimport_takes_a_day_and_a_new_arn_an_hour(cloud: Cloud) -> None:
    """What was never deployed may have pointed there before, at an import that was adopted."""
    make(cloud, *DOMAINS)
    cloud.publish()
    cloud.settle(TARGET)
    first = cloud.recorded(TARGET).check
    cloud.publish()
    cloud.settle(TARGET)
    second = cloud.recorded(TARGET).check
    cloud.publish(key_type=KeyType.RSA_2048)
    cloud.settle(TARGET)
    third = cloud.recorded(TARGET).check
    assert [each.until - NOW for each in (first, second, third) if each] == [
        timedelta(hours=24),
        timedelta(hours=24),
        timedelta(hours=1),
    ]
