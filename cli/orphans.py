"""`certrail orphans`: distributions, custom domain names of API Gateway and listeners that no
pipeline reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from certrail.bundle import covers
from certrail.errors import CertrailError
from certrail.pipelines import Pipelines
from certrail.pipelines.selection import Item, Location
from certrail.target import Target, with_needs
from cli.workspace import Workspace
from deployers.finder import find
from deployers.inventory import Inventory
from deployers.kinds.all import AnyTarget
from deployers.kinds.apigateway import Apigateway, EndpointType
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.listener import Listener
from deployers.selections.cloudfront import REGION, aliases_of
from deployers.view import with_found


@dataclass(frozen=True)
class Orphan:
    """An endpoint that no pipeline reaches.

    names: that it has certificates for, or is called by. not_after: of the certificate that ends
    first; None where it is not known. renews: whether ACM renews all of them by itself. pipelines:
    those whose certificate would cover one of them. ignored: by its tag.
    """

    address: str
    at: Location
    names: Sequence[str]
    not_after: datetime | None
    renews: bool
    pipelines: Sequence[str]
    ignored: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "endpoint": self.address,
            "account": self.at.account,
            "region": self.at.region,
            "names": list(self.names),
            "not_after": self.not_after.isoformat() if self.not_after else None,
            "renewed_by_acm": self.renews,
            "pipelines": list(self.pipelines),
            "ignored": self.ignored,
        }


@dataclass(frozen=True)
class Orphans:
    """failures: why some place could not be looked at, or some selection."""

    found: Sequence[Orphan]
    failures: Sequence[CertrailError]

    def as_json(self) -> dict[str, Any]:
        return {
            "orphans": [each.as_json() for each in self.found],
            "errors": [str(error) for error in self.failures],
        }


def orphans(workspace: Workspace, now: datetime) -> Orphans:
    """Of the local file, in the accounts and regions that it names. Reads only."""
    file = workspace.local()
    inventory = Inventory(workspace.aws, file.accounts)
    findings = find(workspace.store, inventory, file, now)
    failures = [
        *findings.failures.values(),
        *(e for each in findings.followed.values() for one in each for e in one.errors),
    ]
    reached = {
        target.address
        for pipeline in file.pipelines
        for target in with_found(pipeline, findings.of(pipeline.name))
    }
    found: list[Orphan] = []
    for kind, at in _places(file):
        try:
            items = inventory.with_certificates(at, _endpoints(inventory, kind, at))
            items = [each for each in items if _target(kind, at, each).address not in reached]
            # Tags last: of a distribution, each costs a call.
            found += [_orphan(file, kind, at, each) for each in inventory.tagged(at, items)]
        except CertrailError as error:
            failures.append(error)
    return Orphans(found, list({str(error): error for error in failures}.values()))


def _places(file: Pipelines[AnyTarget]) -> Iterator[tuple[str, Location]]:
    """Where there may be endpoints: the file's targets and selections say which accounts and
    regions are used."""
    locations = {Location(None, file.region): None} if file.region else {}
    for pipeline in file.pipelines:
        for target in with_needs(pipeline.targets).values():
            if region := getattr(target, "region", None):
                locations[Location(target.account, region)] = None
        for selection in pipeline.selections:
            locations |= dict.fromkeys(selection.locations)
    for account in dict.fromkeys(at.account for at in locations):
        yield "cloudfront", Location(account, REGION)
    for at in locations:
        yield "apigateway", at
        yield "listener", at


def _endpoints(inventory: Inventory, kind: str, at: Location) -> list[Item]:
    items = inventory.items(kind, at)
    if kind == "cloudfront":
        # Without a name of its own it needs no certificate of its own.
        return [each for each in items if aliases_of(each) and not each.listed.get("Staging")]
    if kind == "apigateway":
        # A private one cannot be a target.
        return [each for each in items if _endpoint_type(each)]
    return list(items)


def _target(kind: str, at: Location, item: Item) -> Target:
    if kind == "cloudfront":
        return Cloudfront(account=at.account, distribution=item.id)
    if kind == "apigateway":
        return Apigateway(
            account=at.account,
            region=at.region,
            domain_name=item.id,
            endpoint=_endpoint_type(item) or EndpointType.REGIONAL,
        )
    return Listener(account=at.account, listener=item.id)


def _endpoint_type(domain: Item) -> EndpointType | None:
    types = domain.listed.get("endpointConfiguration", {}).get("types", ())
    return next((each for each in EndpointType if each.upper() in types), None)


def _orphan(file: Pipelines[AnyTarget], kind: str, at: Location, item: Item) -> Orphan:
    groups = [certificate.names for certificate in item.certificates if certificate.names]
    if kind == "cloudfront":
        groups = [aliases_of(item)]
    if kind == "apigateway":
        groups = [(item.id,)]
    ends = [each.not_after for each in item.certificates if each.not_after]
    return Orphan(
        address=_target(kind, at, item).address,
        at=at,
        names=list(dict.fromkeys(name for names in groups for name in names)),
        not_after=min(ends, default=None),
        renews=bool(item.certificates) and all(each.renews for each in item.certificates),
        pipelines=[
            pipeline.name
            for pipeline in file.pipelines
            if any(all(covers(pipeline.domains, name) for name in names) for names in groups)
        ],
        ignored=item.ignored,
    )
