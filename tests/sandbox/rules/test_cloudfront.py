"""CloudFront refuses what AWS refuses; beside each refusal, the legal variant that passes."""

from datetime import timedelta
from typing import Any

import pytest
from moto.core.utils import utcnow

from sandbox import resources
from tests.sandbox.rules.conftest import Cloud, refused
from tests.sandbox.rules.issuance import Authority, Issued

NAME = "www.example.com"
COVER = "doesn't cover the alternate domain name"
UNUSABLE = "doesn't exist, isn't in us-east-1 region"


def imported(cloud: Cloud, issued: Issued) -> str:
    return cloud.acm.import_certificate(**issued.material)["CertificateArn"]


def config(reference: str, names: tuple[str, ...] = (), arn: str | None = None) -> Any:
    """A whole DistributionConfig, with fields that moto itself loses."""
    certificate: dict[str, Any] = {"CloudFrontDefaultCertificate": True}
    if arn:
        certificate = {
            "ACMCertificateArn": arn,
            "SSLSupportMethod": "sni-only",
            "MinimumProtocolVersion": "TLSv1.2_2021",
        }
    return {
        "CallerReference": reference,
        "Comment": "a shop",
        "Enabled": True,
        "Aliases": {"Quantity": len(names), "Items": list(names)},
        "Origins": {
            "Quantity": 2,
            "Items": [
                {
                    "Id": "bucket",
                    "DomainName": "bucket.s3.eu-west-1.amazonaws.com",
                    "OriginAccessControlId": "E2OAC",
                    "S3OriginConfig": {"OriginAccessIdentity": ""},
                },
                {
                    "Id": "api",
                    "DomainName": "api.example.net",
                    "OriginPath": "/v1",
                    "CustomHeaders": {
                        "Quantity": 1,
                        "Items": [{"HeaderName": "x-secret", "HeaderValue": "open"}],
                    },
                    "CustomOriginConfig": {
                        "HTTPPort": 80,
                        "HTTPSPort": 443,
                        "OriginProtocolPolicy": "https-only",
                        "OriginSslProtocols": {"Quantity": 1, "Items": ["TLSv1.2"]},
                        "OriginReadTimeout": 45,
                        "OriginKeepaliveTimeout": 60,
                    },
                },
            ],
        },
        "DefaultCacheBehavior": {
            "TargetOriginId": "bucket",
            "ViewerProtocolPolicy": "redirect-to-https",
            "CachePolicyId": "658327ea-f89d-4fab-a63d-7e88639e58f6",
            "ResponseHeadersPolicyId": "67f7725c-6f97-4210-82d7-5512b31e9d03",
            "Compress": True,
            "FunctionAssociations": {
                "Quantity": 1,
                "Items": [
                    {
                        "FunctionARN": "arn:aws:cloudfront::123456789012:function/redirect",
                        "EventType": "viewer-request",
                    }
                ],
            },
        },
        "CacheBehaviors": {
            "Quantity": 1,
            "Items": [
                {
                    "PathPattern": "/grpc/*",
                    "TargetOriginId": "api",
                    "ViewerProtocolPolicy": "https-only",
                    "CachePolicyId": "4135ea2d-6df8-44a3-9df3-4b5a84be39ad",
                    "OriginRequestPolicyId": "216adef6-5c7f-47e4-b989-5492eafa07d3",
                    "GrpcConfig": {"Enabled": True},
                    "AllowedMethods": {
                        "Quantity": 3,
                        "Items": ["HEAD", "GET", "OPTIONS"],
                        "CachedMethods": {"Quantity": 2, "Items": ["HEAD", "GET"]},
                    },
                }
            ],
        },
        "CustomErrorResponses": {
            "Quantity": 1,
            "Items": [
                {
                    "ErrorCode": 404,
                    "ResponsePagePath": "/404.html",
                    "ResponseCode": "404",
                    "ErrorCachingMinTTL": 10,
                }
            ],
        },
        "Logging": {
            "Enabled": True,
            "IncludeCookies": False,
            "Bucket": "logs.s3.amazonaws.com",
            "Prefix": "shop/",
        },
        "Restrictions": {
            "GeoRestriction": {"RestrictionType": "blacklist", "Quantity": 1, "Items": ["AQ"]}
        },
        "PriceClass": "PriceClass_100",
        "HttpVersion": "http2and3",
        "IsIPV6Enabled": False,
        "WebACLId": "arn:aws:wafv2:us-east-1:123456789012:global/webacl/shop/1",
        "DefaultRootObject": "index.html",
        "ViewerCertificate": certificate,
    }


def holds(whole: Any, part: Any) -> bool:
    """Is everything `part` says also in `whole`?"""
    if isinstance(part, dict):
        return all(name in whole and holds(whole[name], value) for name, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(holds, whole, part))
    return bool(whole == part)


def created(cloud: Cloud, submitted: Any) -> str:
    return cloud.cloudfront.create_distribution(DistributionConfig=submitted)["Distribution"]["Id"]


class Edit:
    """Get the configuration, change it, send it back: one UpdateDistribution."""

    def __init__(self, cloud: Cloud, distribution: str) -> None:
        answer = cloud.cloudfront.get_distribution_config(Id=distribution)
        self.cloud, self.distribution, self.etag = cloud, distribution, answer["ETag"]
        self.config: Any = answer["DistributionConfig"]

    def certificate(self, **fields: Any) -> "Edit":
        self.config["ViewerCertificate"] = {
            "SSLSupportMethod": "sni-only",
            "MinimumProtocolVersion": "TLSv1.2_2021",
            **fields,
        }
        return self

    def aliases(self, *names: str) -> "Edit":
        self.config["Aliases"] = {"Quantity": len(names), "Items": list(names)}
        return self

    def submit(self) -> Any:
        return self.cloud.cloudfront.update_distribution(
            Id=self.distribution, IfMatch=self.etag, DistributionConfig=self.config
        )


class TestRoundTrip:
    def test_every_submitted_field_comes_back(self, cloud: Cloud, authority: Authority) -> None:
        arn = imported(cloud, authority.issue(NAME))
        submitted = config("round-trip", (NAME,), arn)
        edit = Edit(cloud, created(cloud, submitted))
        assert holds(edit.config, submitted)
        edit.submit()
        again = Edit(cloud, edit.distribution)
        assert again.config == edit.config

    def test_a_field_left_out_is_gone(self, cloud: Cloud) -> None:
        edit = Edit(cloud, created(cloud, config("left-out")))
        del edit.config["Origins"]["Items"][0]["OriginAccessControlId"]
        edit.config["CacheBehaviors"] = {"Quantity": 0}
        edit.submit()
        again = Edit(cloud, edit.distribution)
        assert again.config["Origins"]["Items"][0]["OriginAccessControlId"] == ""
        assert again.config["CacheBehaviors"] == {"Quantity": 0}

    def test_the_certificate_is_described_consistently(
        self, cloud: Cloud, authority: Authority
    ) -> None:
        arn = imported(cloud, authority.issue(NAME))
        edit = Edit(cloud, created(cloud, config("consistent", (NAME,), arn)))
        assert edit.config["ViewerCertificate"] == {
            "CloudFrontDefaultCertificate": False,
            "ACMCertificateArn": arn,
            "SSLSupportMethod": "sni-only",
            "MinimumProtocolVersion": "TLSv1.2_2021",
            "Certificate": arn,
            "CertificateSource": "acm",
        }
        default = Edit(cloud, created(cloud, config("default")))
        assert default.config["ViewerCertificate"]["CloudFrontDefaultCertificate"] is True
        assert "ACMCertificateArn" not in default.config["ViewerCertificate"]

    def test_quantities_that_do_not_add_up(self, cloud: Cloud) -> None:
        submitted = config("quantities")
        submitted["Origins"]["Quantity"] = 3
        with refused("InconsistentQuantities", status=400):
            created(cloud, submitted)

    def test_a_behavior_without_its_origin(self, cloud: Cloud) -> None:
        submitted = config("origin")
        submitted["CacheBehaviors"]["Items"][0]["TargetOriginId"] = "nowhere"
        with refused("NoSuchOrigin"):
            created(cloud, submitted)


class TestETag:
    def test_if_match_is_required(self, cloud: Cloud) -> None:
        edit = Edit(cloud, created(cloud, config("required")))
        with refused("InvalidIfMatchVersion", status=400):
            cloud.cloudfront.update_distribution(
                Id=edit.distribution, DistributionConfig=edit.config
            )

    def test_an_update_changes_it_and_makes_the_old_one_stale(self, cloud: Cloud) -> None:
        edit = Edit(cloud, created(cloud, config("stale")))
        etag = edit.submit()["ETag"]
        assert etag != edit.etag
        with refused("PreconditionFailed", status=412):
            edit.submit()
        again = Edit(cloud, edit.distribution)
        assert again.etag == etag
        again.submit()

    def test_a_missing_distribution(self, cloud: Cloud) -> None:
        with refused("NoSuchDistribution", status=404):
            cloud.cloudfront.get_distribution_config(Id="ENOWHERE")
        with refused("NoSuchDistribution", status=404):
            cloud.cloudfront.update_distribution(
                Id="ENOWHERE", IfMatch="E", DistributionConfig=config("missing")
            )

    def test_the_caller_reference_stays(self, cloud: Cloud) -> None:
        edit = Edit(cloud, created(cloud, config("reference")))
        edit.config["CallerReference"] = "another"
        with refused("IllegalUpdate", status=400):
            edit.submit()

    def test_only_a_disabled_distribution_is_deleted(self, cloud: Cloud) -> None:
        edit = Edit(cloud, created(cloud, config("delete")))
        with refused("DistributionNotDisabled"):
            cloud.cloudfront.delete_distribution(Id=edit.distribution, IfMatch=edit.etag)
        edit.config["Enabled"] = False
        etag = edit.submit()["ETag"]
        with refused("PreconditionFailed"):
            cloud.cloudfront.delete_distribution(Id=edit.distribution, IfMatch=edit.etag)
        cloud.cloudfront.delete_distribution(Id=edit.distribution, IfMatch=etag)

    def test_a_changed_distribution_is_in_progress_then_deployed(self, cloud: Cloud) -> None:
        edit = Edit(cloud, created(cloud, config("status")))
        assert edit.submit()["Distribution"]["Status"] == "InProgress"
        answer = cloud.cloudfront.get_distribution(Id=edit.distribution)
        assert answer["Distribution"]["Status"] == "Deployed"


class TestCertificate:
    @pytest.fixture
    def bare(self, cloud: Cloud) -> Edit:
        """A distribution with CloudFront's own certificate and no alias."""
        return Edit(cloud, created(cloud, config("bare")))

    @pytest.mark.parametrize("names", [(NAME,), ("*.example.com",)], ids=["exact", "wildcard"])
    def test_one_that_covers_the_alias(
        self, cloud: Cloud, authority: Authority, bare: Edit, names: tuple[str, ...]
    ) -> None:
        arn = imported(cloud, authority.issue(*names))
        bare.aliases(NAME).certificate(ACMCertificateArn=arn).submit()
        assert Edit(cloud, bare.distribution).config["ViewerCertificate"]["Certificate"] == arn

    @pytest.mark.parametrize(
        "names",
        [("www.example.org",), ("*.com",), ("example.com",), ("*.www.example.com",)],
        ids=["another name", "a level too high", "apex", "a level too low"],
    )
    def test_one_that_does_not(
        self, cloud: Cloud, authority: Authority, bare: Edit, names: tuple[str, ...]
    ) -> None:
        arn = imported(cloud, authority.issue(*names, common_name=NAME))
        with refused("InvalidViewerCertificate", COVER, status=400):
            bare.aliases(NAME).certificate(ACMCertificateArn=arn).submit()

    def test_every_alias_counts(self, cloud: Cloud, authority: Authority, bare: Edit) -> None:
        arn = imported(cloud, authority.issue("*.example.com"))
        bare.certificate(ACMCertificateArn=arn)
        with refused("InvalidViewerCertificate", COVER):
            bare.aliases(NAME, "example.com").submit()
        bare.aliases(NAME, "cdn.example.com").submit()

    def test_one_that_is_gone(self, cloud: Cloud, authority: Authority, bare: Edit) -> None:
        arn = imported(cloud, authority.issue(NAME))
        cloud.acm.delete_certificate(CertificateArn=arn)
        with refused("InvalidViewerCertificate", UNUSABLE, status=400):
            bare.aliases(NAME).certificate(ACMCertificateArn=arn).submit()

    def test_one_that_has_expired(
        self, cloud: Cloud, authority: Authority, bare: Edit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arn = imported(cloud, authority.issue(NAME))
        monkeypatch.setattr("moto.acm.models.utcnow", lambda: utcnow() + timedelta(days=90))
        with refused("InvalidViewerCertificate", UNUSABLE):
            bare.aliases(NAME).certificate(ACMCertificateArn=arn).submit()

    def test_one_of_another_region(self, cloud: Cloud, authority: Authority, bare: Edit) -> None:
        arn = imported(cloud.within("eu-west-1"), authority.issue(NAME))
        with refused("InvalidViewerCertificate", UNUSABLE):
            bare.aliases(NAME).certificate(ACMCertificateArn=arn).submit()

    def test_one_of_another_account(self, cloud: Cloud, authority: Authority, bare: Edit) -> None:
        arn = imported(cloud, authority.issue(NAME)).replace("123456789012", "210987654321")
        with refused("InvalidViewerCertificate", UNUSABLE):
            bare.aliases(NAME).certificate(ACMCertificateArn=arn).submit()

    @pytest.mark.parametrize(
        ("key", "served"), [("RSA_4096", True), ("EC_prime256v1", True), ("EC_secp384r1", False)]
    )
    def test_its_key_type(
        self, cloud: Cloud, authority: Authority, bare: Edit, key: str, served: bool
    ) -> None:
        arn = imported(cloud, authority.issue(NAME, key=key))
        bare.aliases(NAME).certificate(ACMCertificateArn=arn)
        if served:
            bare.submit()
        else:
            with refused("InvalidViewerCertificate", UNUSABLE):
                bare.submit()

    def test_an_alias_needs_one(self, bare: Edit) -> None:
        with refused("InvalidViewerCertificate", "you must attach a trusted certificate"):
            bare.aliases(NAME).submit()

    def test_two_at_once(self, cloud: Cloud, authority: Authority, bare: Edit) -> None:
        first, second = (imported(cloud, authority.issue(NAME)) for _ in range(2))
        for contradiction in (
            {"IAMCertificateId": "ASCA1"},
            {"CloudFrontDefaultCertificate": True},
            {"Certificate": second, "CertificateSource": "acm"},
        ):
            with refused("InvalidViewerCertificate", "more than one certificate"):
                bare.certificate(ACMCertificateArn=first, **contradiction).submit()
        bare.certificate(
            ACMCertificateArn=first, Certificate=first, CertificateSource="acm"
        ).submit()

    def test_the_tls_policy(self, cloud: Cloud, authority: Authority, bare: Edit) -> None:
        arn = imported(cloud, authority.issue(NAME))
        for policy in ("TLSv1.9_2031", "SSLv3"):
            with refused("InvalidMinimumProtocolVersion", status=400):
                bare.certificate(ACMCertificateArn=arn, MinimumProtocolVersion=policy).submit()
        bare.certificate(ACMCertificateArn=arn, MinimumProtocolVersion="TLSv1.3_2025").submit()

    def test_how_it_is_served_must_be_said(
        self, cloud: Cloud, authority: Authority, bare: Edit
    ) -> None:
        arn = imported(cloud, authority.issue(NAME))
        bare.config["ViewerCertificate"] = {"ACMCertificateArn": arn}
        with refused("InvalidViewerCertificate", "SSLSupportMethod"):
            bare.submit()


class TestAliases:
    def test_an_alias_belongs_to_one_distribution(self, cloud: Cloud, authority: Authority) -> None:
        arn = imported(cloud, authority.issue(NAME, "*.example.com"))
        created(cloud, config("one", (NAME,), arn))
        with refused("CNAMEAlreadyExists", status=409):
            created(cloud, config("two", (NAME.upper(),), arn))
        created(cloud, config("three", ("*.example.com",), arn))

    def test_a_distribution_of_another_account_holds_it_too(
        self, cloud: Cloud, authority: Authority
    ) -> None:
        arn = imported(cloud, authority.issue(NAME))
        resources.distribution("E1", [NAME], account="210987654321", **cloud.at)
        with refused("CNAMEAlreadyExists"):
            created(cloud, config("one", (NAME,), arn))


class TestList:
    def test_says_which_is_a_staging_distribution(self, cloud: Cloud) -> None:
        create = cloud.cloudfront.create_distribution
        primary = create(DistributionConfig=config("one"))["Distribution"]["Id"]
        other: Any = {**config("two"), "Staging": True}
        staging = create(DistributionConfig=other)
        items = cloud.cloudfront.list_distributions()["DistributionList"]["Items"]
        assert {each["Id"]: each["Staging"] for each in items} == {
            primary: False,
            staging["Distribution"]["Id"]: True,
        }

    def test_comes_in_pages_of_a_hundred(self, cloud: Cloud) -> None:
        ids = [resources.distribution(f"E{number}", [], **cloud.at) for number in range(101)]
        first = cloud.cloudfront.list_distributions()["DistributionList"]
        assert (first["IsTruncated"], len(first["Items"])) == (True, 100)
        pages = cloud.cloudfront.get_paginator("list_distributions").paginate()
        items = [each for page in pages for each in page["DistributionList"]["Items"]]
        assert [each["Id"] for each in items] == ids


class TestStatedAddress:
    def test_a_distribution_at_its_id(self, cloud: Cloud) -> None:
        resources.distribution("E12ABC", [NAME], **cloud.at)
        resources.distribution("EBARE", [], **cloud.at)
        shown = cloud.cloudfront.get_distribution(Id="E12ABC")["Distribution"]
        assert shown["Id"] == "E12ABC"
        assert shown["ARN"] == "arn:aws:cloudfront::123456789012:distribution/E12ABC"
        assert shown["DistributionConfig"]["Aliases"].get("Items") == [NAME]
        listed = cloud.cloudfront.list_distributions()["DistributionList"]
        assert [row["Id"] for row in listed.get("Items", [])] == ["E12ABC", "EBARE"]
        Edit(cloud, "E12ABC").submit()
