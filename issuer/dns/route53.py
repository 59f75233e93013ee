"""Challenge records in Route 53.

One record set a token, told apart by its identifier, with multivalue routing: whoever writes for
the same name at the same time writes another record set, and nobody reads to write. Route 53
answers with at most eight of them
(docs.aws.amazon.com/Route53/latest/DeveloperGuide/routing-policy-multivalue.html).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from certrail.aws import Aws
from certrail.errors import AwsError, CertrailError, DnsError, raise_together
from issuer.clock import Backoff, Clock
from issuer.dns import Token
from issuer.dns.authoritative import Server, await_visible

if TYPE_CHECKING:
    from types_boto3_route53.type_defs import ChangeTypeDef

TTL = 60
# A request takes 1000 records and 32,000 characters of values, and UPSERT counts twice
# (docs.aws.amazon.com/Route53/latest/APIReference/API_ChangeResourceRecordSets.html). A token has
# 45 characters.
BATCH = 300


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


class Route53:
    """Challenge records in the public hosted zones of one account.

    nameservers: asked instead of the zones' own, where those cannot be reached from here or are
    not what the CA asks. None for the zones' own.
    """

    def __init__(self, aws: Aws, nameservers: Sequence[Server] | None = None) -> None:
        self._route53 = aws.route53()
        self._nameservers = nameservers

    def locate(self, names: Iterable[str]) -> None:
        failures: list[CertrailError] = []
        for name in names:
            try:
                zones_of(name, self._zones)
            except DnsError as error:
                failures.append(error)
        raise_together("not every name has a zone", failures)

    @contextmanager
    def presenting(self, tokens: Sequence[Token], clock: Clock) -> Iterator[None]:
        placed: list[Batch] = []
        try:
            changes = [self._place(batch, placed) for batch in self._batches(tokens)]
            for change in changes:
                self._await_in_sync(change, clock)
            for zone, there in _by_zone(placed).items():
                await_visible(there, self._servers(zone), clock)
            yield
        except CertrailError as error:
            raise_together(
                "the challenge failed, and left records behind", [error, *self._remove(placed)]
            )
        except BaseException as error:
            for left in self._remove(placed):
                error.add_note(str(left))
            raise
        else:
            raise_together("challenge records were left behind", self._remove(placed))

    @cached_property
    def _zones(self) -> tuple[Zone, ...]:
        pages = self._route53.get_paginator("list_hosted_zones").paginate()
        return tuple(
            Zone(_name(zone["Name"]), zone["Id"].rpartition("/")[2])
            for page in pages
            for zone in page["HostedZones"]
            if not zone.get("Config", {}).get("PrivateZone", False)
        )

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

    def _place(self, batch: Batch, placed: list[Batch]) -> str:
        """Submit the batch, and return the change's id."""
        # Noted before the call: one whose answer is lost may have been obeyed.
        placed.append(batch)
        try:
            return self._change(batch.zone, "UPSERT", batch.tokens)
        except AwsError as error:
            if not error.retryable:
                placed.remove(batch)
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

    def _servers(self, zone: Zone) -> Sequence[Server]:
        if self._nameservers is not None:
            return self._nameservers
        names = self._route53.get_hosted_zone(Id=zone.id)["DelegationSet"]["NameServers"]
        return [Server(name) for name in names]

    def _remove(self, placed: Sequence[Batch]) -> list[CertrailError]:
        """Delete what was placed, and return what could not be."""
        failures: list[CertrailError] = []
        for batch in placed:
            try:
                self._change(batch.zone, "DELETE", batch.tokens)
            except AwsError as error:
                if error.code == "InvalidChangeBatch":
                    # All or nothing: one that is gone keeps the others.
                    failures += self._remove_each(batch)
                else:
                    failures.append(_left(batch.zone, batch.tokens, error))
        return failures

    def _remove_each(self, batch: Batch) -> Iterator[CertrailError]:
        for token in batch.tokens:
            try:
                self._change(batch.zone, "DELETE", [token])
            except AwsError as error:
                if error.code != "InvalidChangeBatch" or "not found" not in error.what:
                    yield _left(batch.zone, [token], error)


def _left(zone: Zone, tokens: Sequence[Token], cause: AwsError) -> DnsError:
    names = ", ".join(sorted({token.name for token in tokens}))
    error = DnsError(
        f"challenge records could not be removed ({cause})",
        where=f"zone {zone.name}",
        next=f"Delete the TXT records of {names}",
        retryable=cause.retryable,
    )
    error.__cause__ = cause
    return error


def _by_zone(batches: Sequence[Batch]) -> Mapping[Zone, list[Token]]:
    return {
        zone: [token for batch in there for token in batch.tokens]
        for zone, there in groupby(batches, key=lambda batch: batch.zone)
    }


def _identifier(token: Token) -> str:
    """Up to 128 characters; a digest, so that the token itself is in the record only."""
    return f"certrail-{hashlib.sha256(token.value.encode()).hexdigest()[:32]}"


def _name(zone: str) -> str:
    return zone.lower().rstrip(".")
