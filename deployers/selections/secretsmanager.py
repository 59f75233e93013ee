"""secretsmanager: secrets that are there, by what Secrets Manager lists of them.

https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_SecretListEntry.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from certrail.grants import Grant, Scope
from certrail.pipelines.selection import Candidate, Item, Location, Regional, Selection
from certrail.target import Region, Tags, Target
from deployers.document import Shape
from deployers.kinds.secretsmanager import Secretsmanager


class SecretsmanagerSelection(Regional):
    """Secrets that are found."""

    kind = Secretsmanager
    things = "secrets"
    id_key = "Name"
    where = frozenset({"account", "name", "region"})
    specimen: ClassVar[Mapping[str, Any]] = {
        "ARN": "arn:aws:secretsmanager:eu-central-1:111111111111:secret:tls/shop/bundle-AbCdEf",
        "Name": "tls/shop/bundle",
        "LastChangedDate": "2026-01-01T00:00:00+00:00",
        "CreatedDate": "2026-01-01T00:00:00+00:00",
        "SecretVersionsToStages": {"example": ["AWSCURRENT"]},
    }

    type: Literal["secretsmanager"] = "secretsmanager"
    select: str = Field(
        description=Selection.model_fields["select"].description,
        examples=["[?Tags.tls == 'shop']"],
    )
    kms_key: str | None = Field(
        default=None, description="As of a secret that is named.", examples=["alias/tls"]
    )
    replica_regions: tuple[Region, ...] = Field(
        default=(), description="As of a secret that is named.", examples=[["us-east-1"]]
    )
    shape: Shape | None = Field(
        default=None,
        description="As of a secret that is named.",
        examples=["{crt: fullchain, key: private_key}"],
    )
    tags: Tags = Field(default={}, description="As of a secret that is named.")

    @classmethod
    def grants(
        cls, scope: Scope, regions: Sequence[str], *, by_names: bool = True
    ) -> Sequence[Grant]:
        listing = ("secretsmanager:ListSecrets",)
        return [Grant("ListSecrets", listing, regions=tuple(regions))]

    @property
    def homes(self) -> tuple[Target, ...]:
        return ()

    def at(self, target: Secretsmanager) -> Location:
        return Location(target.account, target.region)

    def _possible(self, at: Location, item: Item) -> bool:
        # A copy in another region gets what the secret itself gets.
        return item.listed.get("PrimaryRegion") in {None, at.region}

    def _candidate(self, at: Location, item: Item, names: Sequence[str]) -> Candidate:
        return Candidate(item, self._made(account=at.account, region=at.region, name=item.id))
