"""CloudFront: what CreateDistribution, UpdateDistribution and DeleteDistribution enforce, and what
ListDistributions tells.

Sources:
  API           https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_UpdateDistribution.html
  certificate   https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_ViewerCertificate.html
  names         https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/CNAMEs.html
  requirements  https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cnames-and-https-requirements.html

Not enforced: that the certificate comes from a CA on Mozilla's list. No local CA is on it.
"""

from collections.abc import Iterator
from threading import RLock
from types import ModuleType
from typing import Any

from moto.acm.models import CertBundle, acm_backends
from moto.cloudfront import models
from moto.cloudfront.exceptions import (
    CloudFrontException,
    DistributionAlreadyExists,
    DomainNameNotAnS3Bucket,
    InvalidIfMatchVersion,
    NoSuchDistribution,
    OriginDoesNotExist,
)
from moto.cloudfront.models import (
    DISTRIBUTION_CONFIG_FIELDS,
    CloudFrontBackend,
    Distribution,
    DistributionConfig,
    cloudfront_backends,
    random_id,
)
from moto.core.utils import utcnow

from sandbox.propagation import propagation
from sandbox.rules.acm import covers, key_algorithm

CERTIFICATE_REGION = "us-east-1"
# RSA up to 4096 and P-256. P-384 is documented both ways and users report it refused.
KEYS = {"RSA_1024", "RSA_2048", "RSA_3072", "RSA_4096", "EC_prime256v1"}
PROTOCOLS = {
    "SSLv3",
    "TLSv1",
    "TLSv1_2016",
    "TLSv1.1_2016",
    "TLSv1.2_2018",
    "TLSv1.2_2019",
    "TLSv1.2_2021",
    "TLSv1.2_2025",
    "TLSv1.3_2025",
}
UNUSABLE = (
    "The specified SSL certificate doesn't exist, isn't in us-east-1 region, isn't valid, or "
    "doesn't include a valid certificate chain."
)
NOT_COVERED = (
    "The certificate that is attached to your distribution doesn't cover the alternate domain "
    "name (CNAME) that you're trying to add. For more details, see: "
    "https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/CNAMEs.html"
    "#alternate-domain-names-requirements"
)
NO_CERTIFICATE = (
    "To add an alternate domain name (CNAME) to a CloudFront distribution, you must attach a "
    "trusted certificate that validates your authorization to use the domain name."
)

# Read before it is replaced: installing again changes nothing.
SUMMARY_FIELDS = [*DISTRIBUTION_CONFIG_FIELDS, "Staging"]

_one_at_a_time = RLock()


# The configuration: what was submitted, whole, with the values CloudFront fills in.


def consistent_quantities(value: Any) -> None:
    """InconsistentQuantities: each `Quantity` must be the number of its `Items`."""
    if isinstance(value, dict):
        if "Quantity" in value and int(value["Quantity"]) != len(value.get("Items") or []):
            raise CloudFrontException(
                "InconsistentQuantities",
                "The value of Quantity and the size of Items don't match.",
            )
        for member in value.values():
            consistent_quantities(member)
    elif isinstance(value, list):
        for member in value:
            consistent_quantities(member)


def without_empty_items(value: Any) -> Any:
    """CloudFront leaves `Items` out where `Quantity` is 0."""
    if isinstance(value, dict):
        return {
            name: without_empty_items(member)
            for name, member in value.items()
            if not (name == "Items" and not member) and member is not None
        }
    if isinstance(value, list):
        return [without_empty_items(member) for member in value]
    return value


def cache_behavior(submitted: dict[str, Any]) -> dict[str, Any]:
    filled = {
        "TrustedSigners": {"Enabled": False, "Quantity": 0},
        "TrustedKeyGroups": {"Enabled": False, "Quantity": 0},
        "SmoothStreaming": False,
        "Compress": False,
        "LambdaFunctionAssociations": {"Quantity": 0},
        "FunctionAssociations": {"Quantity": 0},
        "FieldLevelEncryptionId": "",
        "GrpcConfig": {"Enabled": False},
        **submitted,
    }
    filled["AllowedMethods"] = {
        "CachedMethods": {"Quantity": 2, "Items": ["HEAD", "GET"]},
        **submitted.get("AllowedMethods", {"Quantity": 2, "Items": ["HEAD", "GET"]}),
    }
    return filled


def origin(submitted: dict[str, Any]) -> dict[str, Any]:
    filled = {
        "OriginPath": "",
        "CustomHeaders": {"Quantity": 0},
        "ConnectionAttempts": 3,
        "ConnectionTimeout": 10,
        "OriginShield": {"Enabled": False},
        "OriginAccessControlId": "",
        **submitted,
    }
    if "CustomOriginConfig" in submitted:
        filled["CustomOriginConfig"] = {
            "OriginSslProtocols": {"Quantity": 3, "Items": ["TLSv1", "TLSv1.1", "TLSv1.2"]},
            "OriginReadTimeout": 30,
            "OriginKeepaliveTimeout": 5,
            **submitted["CustomOriginConfig"],
        }
    if "S3OriginConfig" in submitted and not submitted["DomainName"].endswith("amazonaws.com"):
        raise DomainNameNotAnS3Bucket
    return filled


def viewer_certificate(submitted: dict[str, Any]) -> dict[str, Any]:
    """One certificate, named consistently, with the deprecated pair Certificate/CertificateSource.

    API_ViewerCertificate: give exactly one of ACMCertificateArn, IAMCertificateId and
    CloudFrontDefaultCertificate=true; with either of the first two, SSLSupportMethod as well. The
    deprecated pair is still returned, and is refused where it contradicts the current fields.
    """
    arn = submitted.get("ACMCertificateArn") or ""
    iam = submitted.get("IAMCertificateId") or ""
    default = bool(submitted.get("CloudFrontDefaultCertificate"))
    old = submitted.get("Certificate") or ""
    old_source = submitted.get("CertificateSource") or ""
    if old and not (arn or iam or default):
        arn, iam = (old, "") if old_source == "acm" else ("", old)
    if (bool(arn) + bool(iam) + default) > 1 or (old and old not in (arn, iam)):
        raise CloudFrontException(
            "InvalidViewerCertificate",
            "The viewer certificate names more than one certificate: specify only one of "
            "ACMCertificateArn, IAMCertificateId and CloudFrontDefaultCertificate.",
        )
    protocol = submitted.get("MinimumProtocolVersion") or "TLSv1"
    if protocol not in PROTOCOLS:
        raise CloudFrontException(
            "InvalidMinimumProtocolVersion", f"The minimum protocol version {protocol} is unknown."
        )
    if not (arn or iam):
        return {
            "CloudFrontDefaultCertificate": True,
            "SSLSupportMethod": "vip",
            "MinimumProtocolVersion": "TLSv1",
            "CertificateSource": "cloudfront",
        }
    method = submitted.get("SSLSupportMethod")
    if not method:
        raise CloudFrontException(
            "InvalidViewerCertificate", "SSLSupportMethod is required with your own certificate."
        )
    if method == "sni-only" and protocol == "SSLv3":
        raise CloudFrontException(
            "InvalidMinimumProtocolVersion", "With sni-only the minimum is TLSv1 or higher."
        )
    return {
        "CloudFrontDefaultCertificate": False,
        **({"ACMCertificateArn": arn} if arn else {"IAMCertificateId": iam}),
        "SSLSupportMethod": method,
        "MinimumProtocolVersion": protocol,
        "Certificate": arn or iam,
        "CertificateSource": "acm" if arn else "iam",
    }


def keep_whole_config(self: DistributionConfig, config: dict[str, Any]) -> None:
    """Keep every submitted field: an UpdateDistribution replaces the whole configuration.

    "The update process replaces the existing configuration, it isn't merged" (API): a caller that
    loses a field on the round trip must be seen to lose it, and one that keeps it must find it.
    """
    consistent_quantities(config)
    filled: dict[str, Any] = {
        "Aliases": {"Quantity": 0},
        "DefaultRootObject": "",
        "OriginGroups": {"Quantity": 0},
        "CacheBehaviors": {"Quantity": 0},
        "CustomErrorResponses": {"Quantity": 0},
        "Logging": {"Enabled": False, "IncludeCookies": False, "Bucket": "", "Prefix": ""},
        "PriceClass": "PriceClass_All",
        "Restrictions": {"GeoRestriction": {"RestrictionType": "none", "Quantity": 0}},
        "WebACLId": "",
        "HttpVersion": "http2",
        "IsIPV6Enabled": True,
        "ContinuousDeploymentPolicyId": "",
        "Staging": False,
        **without_empty_items(config),
    }
    origins = [origin(each) for each in filled["Origins"].get("Items", [])]
    filled["Origins"] = {"Quantity": len(origins), "Items": origins}
    filled["DefaultCacheBehavior"] = cache_behavior(filled["DefaultCacheBehavior"])
    behaviors = [cache_behavior(each) for each in filled["CacheBehaviors"].get("Items", [])]
    if behaviors:
        filled["CacheBehaviors"] = {"Quantity": len(behaviors), "Items": behaviors}
    filled["ViewerCertificate"] = viewer_certificate(filled.get("ViewerCertificate", {}))
    known = {each["Id"] for each in origins}
    known |= {each["Id"] for each in filled["OriginGroups"].get("Items", [])}
    if any(each["TargetOriginId"] not in known for each in all_behaviors(filled)):
        raise OriginDoesNotExist
    self.__dict__.update(filled)
    self.caller_reference = config["CallerReference"]


def all_behaviors(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield config["DefaultCacheBehavior"]
    yield from config["CacheBehaviors"].get("Items", [])


def aliases(config: DistributionConfig) -> list[str]:
    return list(vars(config)["Aliases"].get("Items", []))


# The rules of a configuration against the rest of the account.


def usable_certificate(backend: CloudFrontBackend, arn: str) -> CertBundle:
    """Requirements: in ACM, in us-east-1, in this account, issued, not expired, key supported."""
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[3] != CERTIFICATE_REGION or parts[4] != backend.account_id:
        raise CloudFrontException("InvalidViewerCertificate", UNUSABLE)
    bundle = acm_backends[backend.account_id][CERTIFICATE_REGION]._certificates.get(arn)
    if bundle is None:
        raise CloudFrontException("InvalidViewerCertificate", UNUSABLE)
    bundle.check()
    if bundle.status != "ISSUED" or key_algorithm(bundle._cert) not in KEYS:
        raise CloudFrontException("InvalidViewerCertificate", UNUSABLE)
    return bundle


def certificate_covers_aliases(backend: CloudFrontBackend, config: DistributionConfig) -> None:
    """Names: every alias is in the certificate's SAN, itself or under a same-level wildcard.

    The Common Name does not count.
    """
    certificate = vars(config)["ViewerCertificate"]
    names = aliases(config)
    if certificate["CloudFrontDefaultCertificate"] and names:
        raise CloudFrontException("InvalidViewerCertificate", NO_CERTIFICATE)
    if "ACMCertificateArn" in certificate:
        bundle = usable_certificate(backend, certificate["ACMCertificateArn"])
        if not all(covers(bundle.sans, name) for name in names):
            raise CloudFrontException("InvalidViewerCertificate", NOT_COVERED)


def aliases_are_free(config: DistributionConfig, but: Distribution | None) -> None:
    """Names: one alias belongs to one distribution, of whatever account. Wildcards may overlap."""
    wanted = {name.lower() for name in aliases(config)}
    for by_partition in list(cloudfront_backends.values()):
        for backend in by_partition.values():
            for distribution in list(backend.distributions.values()):
                taken = {name.lower() for name in aliases(distribution.distribution_config)}
                if distribution is not but and wanted & taken:
                    raise CloudFrontException(
                        "CNAMEAlreadyExists",
                        "One or more of the CNAMEs you provided are already associated with a "
                        "different resource.",
                    )


# The operations.


def create_distribution_with_tags(
    self: CloudFrontBackend, distribution_config: dict[str, Any], tags: list[dict[str, str]]
) -> tuple[Distribution, str, str]:
    with _one_at_a_time:
        distribution = Distribution(self.account_id, self.region_name, distribution_config)
        config = distribution.distribution_config
        existing = self._distribution_with_caller_reference(config.caller_reference)
        if existing is not None:
            raise DistributionAlreadyExists(existing.distribution_id)
        certificate_covers_aliases(self, config)
        aliases_are_free(config, but=None)
        self.distributions[distribution.distribution_id] = distribution
        self.tagger.tag_resource(distribution.arn, tags)
    return distribution, distribution.location, distribution.etag


def matching(self: CloudFrontBackend, distribution_id: str, if_match: Any) -> Distribution:
    """IfMatch is required (InvalidIfMatchVersion) and must be current (PreconditionFailed)."""
    if distribution_id not in self.distributions:
        raise NoSuchDistribution
    if not if_match:
        raise InvalidIfMatchVersion
    distribution = self.distributions[distribution_id]
    if if_match != distribution.etag:
        raise CloudFrontException(
            "PreconditionFailed",
            "The request failed because it didn't meet the preconditions in one or more "
            "request-header fields.",
        )
    return distribution


def update_distribution(
    self: CloudFrontBackend, dist_config: dict[str, Any], _id: str, if_match: Any
) -> tuple[Distribution, str, str]:
    """CallerReference cannot change (IllegalUpdate); every update makes a new ETag."""
    with _one_at_a_time:
        distribution = matching(self, _id, if_match)
        config = DistributionConfig(dist_config)
        if config.caller_reference != distribution.distribution_config.caller_reference:
            raise CloudFrontException(
                "IllegalUpdate", "The update contains modifications that are not allowed."
            )
        certificate_covers_aliases(self, config)
        aliases_are_free(config, but=distribution)
        propagation.replaced(distribution.arn, distribution.distribution_config)
        distribution.distribution_config = config
        distribution.etag = random_id()
        distribution.last_modified_time = utcnow().strftime("%Y-%m-%dT%H:%M:%SZ")
        # InProgress until it is next read, as moto does it after a create.
        distribution.status, distribution._tick = "InProgress", 0
    return distribution, distribution.location, distribution.etag


def delete_distribution(self: CloudFrontBackend, distribution_id: str, if_match: Any) -> None:
    """A distribution must be disabled before it is deleted (DistributionNotDisabled)."""
    with _one_at_a_time:
        distribution = matching(self, distribution_id, if_match)
        if vars(distribution.distribution_config)["Enabled"]:
            raise CloudFrontException(
                "DistributionNotDisabled",
                "The distribution you are trying to delete has not been disabled.",
            )
        del self.distributions[distribution_id]


REPLACED: dict[type | ModuleType, dict[str, Any]] = {
    # "Whether the primary distribution has a staging distribution enabled" is in every summary
    # (https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_DistributionSummary.html).
    models: {"DISTRIBUTION_CONFIG_FIELDS": SUMMARY_FIELDS},
    DistributionConfig: {"__init__": keep_whole_config},
    CloudFrontBackend: {
        "create_distribution_with_tags": create_distribution_with_tags,
        "update_distribution": update_distribution,
        "delete_distribution": delete_distribution,
    },
}
