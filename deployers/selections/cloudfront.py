"""cloudfront: distributions, by what CloudFront lists of them, or by their aliases.

https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_DistributionSummary.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from certrail.bundle import covers
from certrail.grants import Grant, Scope
from certrail.keys import CLOUDFRONT, KeyType
from certrail.pipelines.selection import Candidate, Covering, Item, Location
from deployers.kinds.acm import Acm
from deployers.kinds.cloudfront import Cloudfront

REGION = "us-east-1"


class CloudfrontSelection(Covering):
    """Distributions that are found."""

    kind = Cloudfront
    things = "distributions"
    id_key = "Id"
    where = frozenset({"account", "distribution"})
    specimen: ClassVar[Mapping[str, Any]] = {
        "Id": "E2QWRUHEXAMPLE",
        "ARN": "arn:aws:cloudfront::111111111111:distribution/E2QWRUHEXAMPLE",
        "Status": "Deployed",
        "LastModifiedTime": "2026-01-01T00:00:00+00:00",
        "DomainName": "d111111abcdef8.cloudfront.net",
        "Aliases": {"Quantity": 0},
        "Origins": {
            "Quantity": 1,
            "Items": [{"Id": "origin", "DomainName": "origin.example.com", "OriginPath": ""}],
        },
        "OriginGroups": {"Quantity": 0},
        "DefaultCacheBehavior": {
            "TargetOriginId": "origin",
            "ViewerProtocolPolicy": "redirect-to-https",
        },
        "CacheBehaviors": {"Quantity": 0},
        "CustomErrorResponses": {"Quantity": 0},
        "Comment": "",
        "PriceClass": "PriceClass_All",
        "Enabled": True,
        "ViewerCertificate": {
            "CloudFrontDefaultCertificate": True,
            "MinimumProtocolVersion": "TLSv1",
            "CertificateSource": "cloudfront",
        },
        "Restrictions": {"GeoRestriction": {"RestrictionType": "none", "Quantity": 0}},
        "WebACLId": "",
        "HttpVersion": "http2",
        "IsIPV6Enabled": True,
        "Staging": False,
    }

    type: Literal["cloudfront"] = "cloudfront"

    @classmethod
    def grants(
        cls, scope: Scope, regions: Sequence[str], *, by_names: bool = True
    ) -> Sequence[Grant]:
        distributions = (scope.arn("cloudfront", "", "distribution/*"),)
        return [
            Grant("ListDistributions", ("cloudfront:ListDistributions",)),
            Grant("ReadTagsOfDistributions", ("cloudfront:ListTagsForResource",), distributions),
        ]

    @property
    def locations(self) -> tuple[Location, ...]:
        return tuple(Location(account, REGION) for account in self.account_names)

    @property
    def homes(self) -> tuple[Acm, ...]:
        return tuple(Acm(account=at.account, region=REGION) for at in self.locations)

    @property
    def key_types(self) -> frozenset[KeyType]:
        return CLOUDFRONT

    def at(self, target: Cloudfront) -> Location:
        return Location(target.account, REGION)

    def _possible(self, at: Location, item: Item) -> bool:
        # Promoting a staging distribution carries its certificate over to the primary one.
        return not item.listed.get("Staging")

    def _candidate(self, at: Location, item: Item, names: Sequence[str]) -> Candidate | None:
        aliases = aliases_of(item)
        if self.by_names and not (aliases and all(covers(names, alias) for alias in aliases)):
            return None
        target = self._made(account=at.account, distribution=item.id)
        return Candidate(item, target, because=(aliases,) if self.by_names else ())


def aliases_of(item: Item) -> tuple[str, ...]:
    """The alternate domain names of a distribution, as CloudFront lists it."""
    return tuple(item.listed.get("Aliases", {}).get("Items", ()))
