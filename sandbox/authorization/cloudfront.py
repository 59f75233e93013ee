"""CloudFront: distributions and their invalidations."""

from collections.abc import Mapping
from typing import Any

from moto.cloudfront.models import cloudfront_backends

from sandbox.authorization.request import modelled, request_context, tagged
from sandbox.calls import Call
from sandbox.policies import Need

WHOLE = {"ListDistributions", "ListDistributionsByWebACLId", "ListDistributionTenants"}
ONE = {
    "CreateDistribution",
    "CreateDistributionWithTags",
    "CreateInvalidation",
    "DeleteDistribution",
    "GetDistribution",
    "GetDistributionConfig",
    "GetInvalidation",
    "ListInvalidations",
    "ListTagsForResource",
    "TagResource",
    "UntagResource",
    "UpdateDistribution",
}


def needs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    tags = params.get("Tags") or params.get("DistributionConfigWithTags", {}).get("Tags")
    context = request_context(call, tags)
    if call.operation in WHOLE:
        return [Need(call.action, "*", context)]
    modelled(call, ONE)
    distribution = params.get("DistributionId") or params.get("Id") or "*"
    arn = params.get("Resource") or (
        f"arn:aws:cloudfront::{call.account}:distribution/{distribution}"
    )
    context |= tagged(_tags_of(call, arn))
    found = [Need(call.action, arn, context)]
    if call.operation == "CreateDistributionWithTags":
        found = [Need("cloudfront:CreateDistribution", arn, context)]
        found.append(Need("cloudfront:TagResource", arn, context))
    return found


def _tags_of(call: Call, arn: str) -> Any:
    return cloudfront_backends[call.account]["aws"].tagger.get_tag_dict_for_resource(arn)
