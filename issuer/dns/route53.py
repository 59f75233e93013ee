"""Challenge records in Route 53.

One record set a token, told apart by its identifier, with multivalue routing: whoever writes for
the same name at the same time writes another record set, and nobody reads to write. Route 53
answers with at most eight of them
(docs.aws.amazon.com/Route53/latest/DeveloperGuide/routing-policy-multivalue.html).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from certrail.aws import Aws
from certrail.errors import AwsError, CertrailError, DnsError, RecordsLeft
from certrail.grants import Conditions, Grant, Scope
from certrail.nameservers import Server
from issuer.clock import Backoff, Clock
from issuer.dns import Token, left_behind

if TYPE_CHECKING:
    from types_boto3_route53.type_defs import (
        ChangeTypeDef,
        GetHostedZoneResponseTypeDef,
        HostedZoneTypeDef,
    )

TTL = 60
# A request takes 1000 records and 32,000 characters of values, and UPSERT counts twice
# (docs.aws.amazon.com/Route53/latest/APIReference/API_ChangeResourceRecordSets.html). A token has
# 45 characters.
BATCH = 300
# "up to eight healthy records" (routing-policy-multivalue.html).
MULTIVALUE_ANSWERS = 8


@dataclass(frozen=True)
class Zone:
    """name: lower case, without the trailing dot. id: without `/hostedzone/`."""

    name: str
    id: str


@dataclass(frozen=True)
class Batch:
    """Tokens that are written to one zone in one change."""

    zone: Zone
    tokens: tuple[Token, ...]


def zones_of(name: str, zones: Iterable[Zone]) -> tuple[Zone, ...]:
    """The zones with the longest name that `name` is in, at the boundary of a label. More than one
    where several zones have that same name: which of them is delegated only the world's DNS knows,
    so the records go into each.

    Raises DnsError where there is none.
    """
    zones = tuple(zones)
    name = name.lower().rstrip(".")
    around = [zone for zone in zones if name == zone.name or name.endswith(f".{zone.name}")]
    if not around:
        seen = ", ".join(sorted({zone.name for zone in zones})) or "none at all"
        raise DnsError(
            f"no public hosted zone for {name.removeprefix('_acme-challenge.')}; the zones of this "
            f"account are: {seen}",
            where="Route 53",
            next="Create the zone, or correct the name in the pipelines file",
        )
    longest = max(len(zone.name) for zone in around)
    return tuple(zone for zone in around if len(zone.name) == longest)


def grants(scope: Scope, zone_ids: Sequence[str | None], names: Sequence[str]) -> Sequence[Grant]:
    """What IAM has to allow for challenge records in one account.

    zone_ids: None for a zone that is found by its name. names: of the records, with IAM's
    wildcards, lower case, without the trailing dot.

    https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/specifying-rrset-conditions.html
    """
    route53 = f"arn:{scope.partition}:route53:::"
    chosen = ["*"] if None in zone_ids else sorted({str(each) for each in zone_ids})
    zones = tuple(f"{route53}hostedzone/{each}" for each in chosen)
    change = "route53:ChangeResourceRecordSets"
    only: Conditions = {
        "ForAllValues:StringLike": {f"{change}NormalizedRecordNames": tuple(names)},
        "ForAllValues:StringEquals": {
            f"{change}RecordTypes": "TXT",
            f"{change}Actions": ("UPSERT", "DELETE"),
        },
    }
    found = [Grant("FindZones", ("route53:ListHostedZones",))] if None in zone_ids else []
    return [
        *found,
        Grant("AwaitChange", ("route53:GetChange",), (f"{route53}change/*",)),
        Grant("FindNameServers", ("route53:GetHostedZone",), zones),
        Grant("WriteChallengesOnly", (change,), zones, only),
    ]


class Route53:
    """Challenge records in the public hosted zones of one account.

    zone_id: the one zone to write to; None for those of the account that the names are in.
    nameservers: see `Dns`.
    """

    most: int | None = MULTIVALUE_ANSWERS

    def __init__(
        self,
        aws: Aws,
        zone_id: str | None = None,
        nameservers: Sequence[Server] | None = None,
    ) -> None:
        self._route53 = aws.route53()
        self._zone_id = zone_id
        self._nameservers = nameservers
        self._delegations: dict[Zone, tuple[Server, ...]] = {}

    def locate(self, names: Iterable[str]) -> dict[str, CertrailError]:
        lost: dict[str, CertrailError] = {}
        for name in names:
            try:
                zones_of(name, self._zones)
            except DnsError as error:
                lost[name] = error
        return lost

    def place(self, tokens: Sequence[Token], clock: Clock, placed: list[Token]) -> None:
        # All are under way before the first is waited for.
        changes = [self._submit(batch, placed) for batch in self._batches(tokens)]
        for change in changes:
            self._await_in_sync(change, clock)

    def remove(self, tokens: Sequence[Token]) -> list[RecordsLeft]:
        failures: list[RecordsLeft] = []
        try:
            # Where there is no zone any more, there is no record.
            lost = self.locate({token.name for token in tokens})
        except CertrailError as error:
            return [left_behind("Route 53", tokens, error)]
        for batch in self._batches([token for token in tokens if token.name not in lost]):
            try:
                self._change(batch.zone, "DELETE", batch.tokens)
            except AwsError as error:
                if error.code == "InvalidChangeBatch":
                    # All or nothing: one that is gone keeps the others.
                    failures += self._remove_each(batch)
                else:
                    failures.append(left_behind(f"zone {batch.zone.name}", batch.tokens, error))
        return failures

    def servers(self, name: str) -> Sequence[Server]:
        if self._nameservers is not None:
            return self._nameservers
        return [server for zone in zones_of(name, self._zones) for server in self._serving(zone)]

    @cached_property
    def _zones(self) -> tuple[Zone, ...]:
        if self._zone_id is not None:
            return (self._chosen(self._zone_id),)
        pages = self._route53.get_paginator("list_hosted_zones").paginate()
        return tuple(
            _zone(zone) for page in pages for zone in page["HostedZones"] if not _is_private(zone)
        )

    def _chosen(self, zone_id: str) -> Zone:
        answer = self._route53.get_hosted_zone(Id=zone_id)
        if _is_private(answer["HostedZone"]):
            raise DnsError(
                "this hosted zone is private: no CA sees its records",
                where=f"Route 53, zone {zone_id}",
                next="Give the id of the public zone, or leave `zone_id` out",
            )
        zone = _zone(answer["HostedZone"])
        self._delegations[zone] = _servers(answer)
        return zone

    def _serving(self, zone: Zone) -> tuple[Server, ...]:
        if zone not in self._delegations:
            self._delegations[zone] = _servers(self._route53.get_hosted_zone(Id=zone.id))
        return self._delegations[zone]

    def _batches(self, tokens: Sequence[Token]) -> list[Batch]:
        by_zone: dict[Zone, list[Token]] = {}
        for token in dict.fromkeys(tokens):
            for zone in zones_of(token.name, self._zones):
                by_zone.setdefault(zone, []).append(token)
        return [
            Batch(zone, tuple(there[start : start + BATCH]))
            for zone, there in by_zone.items()
            for start in range(0, len(there), BATCH)
        ]

    def _submit(self, batch: Batch, placed: list[Token]) -> str:
        """Returns the change's id."""
        before = len(placed)
        placed += batch.tokens
        try:
            return self._change(batch.zone, "UPSERT", batch.tokens)
        except AwsError as error:
            if not error.retryable:
                del placed[before:]
            if error.code == "InvalidChangeBatch":
                raise DnsError(
                    f"the challenge records cannot be written ({error.what})",
                    where=f"zone {batch.zone.name}",
                    next="Delete the TXT or CNAME record that has the challenge's name",
                ) from error
            raise

    def _change(
        self, zone: Zone, action: Literal["UPSERT", "DELETE"], tokens: Sequence[Token]
    ) -> str:
        changes: list[ChangeTypeDef] = [
            {
                "Action": action,
                "ResourceRecordSet": {
                    "Name": token.name,
                    "Type": "TXT",
                    "SetIdentifier": _identifier(token),
                    "MultiValueAnswer": True,
                    "TTL": TTL,
                    "ResourceRecords": [{"Value": f'"{token.value}"'}],
                },
            }
            for token in tokens
        ]
        answer = self._route53.change_resource_record_sets(
            HostedZoneId=zone.id,
            ChangeBatch={"Comment": "certrail: ACME challenge", "Changes": changes},
        )
        return answer["ChangeInfo"]["Id"].rpartition("/")[2]

    def _await_in_sync(self, change: str, clock: Clock) -> None:
        backoff = Backoff(clock, "Route 53 to spread the challenge records", first=0.2)
        while self._route53.get_change(Id=change)["ChangeInfo"]["Status"] != "INSYNC":
            backoff.pause()

    def _remove_each(self, batch: Batch) -> Iterator[RecordsLeft]:
        for token in batch.tokens:
            try:
                self._change(batch.zone, "DELETE", [token])
            except AwsError as error:
                if error.code != "InvalidChangeBatch" or "not found" not in error.what:
                    yield left_behind(f"zone {batch.zone.name}", [token], error)


def _zone(zone: HostedZoneTypeDef) -> Zone:
    return Zone(_name(zone["Name"]), zone["Id"].rpartition("/")[2])


def _is_private(zone: HostedZoneTypeDef) -> bool:
    return zone.get("Config", {}).get("PrivateZone", False)


def _servers(answer: GetHostedZoneResponseTypeDef) -> tuple[Server, ...]:
    return tuple(Server(name) for name in answer["DelegationSet"]["NameServers"])


def _identifier(token: Token) -> str:
    """Up to 128 characters; a digest, so that the token itself is in the record only."""
    return f"certrail-{hashlib.sha256(token.value.encode()).hexdigest()[:32]}"


def _name(zone: str) -> str:
    return zone.lower().rstrip(".")
