"""What has to be there before certrail comes: the accounts, zones and resources that a pipelines
file names.

certrail creates no infrastructure. On AWS the roles, distributions, listeners and hosted zones are
the user's own; here each kind has one function that makes what its targets point to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import boto3

from certrail.pipelines import Pipelines
from certrail.pipelines.zones import Route53Zone, zone_of
from certrail.target import Target
from deployers.kinds.all import AnyTarget
from deployers.kinds.apigateway import Apigateway, EndpointType
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.listener import Listener
from sandbox import resources

Statements = Sequence[Mapping[str, Any]]


def furnish(
    pipelines: Pipelines[AnyTarget],
    session: boto3.Session,
    endpoint: str,
    *,
    allowed: Mapping[str, Statements] | None = None,
) -> None:
    """Make the accounts, zones and resources that `pipelines` names and that are not there yet.

    allowed: by the name of an account, the statements of its role's policy; a role that has none
    may do nothing, and one that is there keeps what it has.
    """
    for name, account in pipelines.accounts.items():
        resources.role(
            account.role_arn,
            (allowed or {}).get(name, ()),
            external_id=account.external_id,
            session=session,
            endpoint=endpoint,
        )
    for pipeline in pipelines.pipelines:
        for domain in pipeline.domains:
            _hosted_zone(domain, pipelines, session, endpoint)
        for target in pipeline.targets:
            if make := MAKERS.get(type(target)):
                place = Place(session, endpoint, _number(pipelines, target.account))
                make(target, pipeline.domains, place)


def _number(pipelines: Pipelines[AnyTarget], account: str | None) -> str:
    """The twelve digits of the account that a target or a zone names."""
    if account is None:
        return resources.ACCOUNT
    return pipelines.accounts[account].role_arn.split(":")[4]


def _hosted_zone(
    domain: str, pipelines: Pipelines[AnyTarget], session: boto3.Session, endpoint: str
) -> None:
    entry = zone_of(domain.removeprefix("*."), pipelines.zones)
    name, account = _registered(domain), None
    if isinstance(entry, Route53Zone) and entry.account is not None:
        name, account = entry.zone, entry.account
    place = Place(session, endpoint, _number(pipelines, account))
    route53 = place.client("route53")
    there = {
        zone["Name"].rstrip(".")
        for page in route53.get_paginator("list_hosted_zones").paginate()
        for zone in page["HostedZones"]
    }
    if name not in there:
        resources.hosted_zone(name, session=session, endpoint=endpoint, account=place.account)


def _registered(domain: str) -> str:
    # Good enough for the sandbox, where nobody registers names below co.uk.
    return ".".join(domain.split(".")[-2:])


@dataclass(frozen=True)
class Place:
    """Whose administrator makes things, and where."""

    session: boto3.Session
    endpoint: str
    account: str

    def client(self, service: str, region: str = "us-east-1") -> Any:
        return resources.client(service, self.session, self.endpoint, self.account, region)


def _distribution(target: Target, domains: Sequence[str], place: Place) -> None:
    assert isinstance(target, Cloudfront)  # noqa: S101 (the key of MAKERS)
    there = place.client("cloudfront").list_distributions()["DistributionList"].get("Items", [])
    if target.distribution not in {each["Id"] for each in there}:
        resources.distribution(
            target.distribution,
            domains,
            session=place.session,
            endpoint=place.endpoint,
            account=place.account,
        )


def _domain_name(target: Target, domains: Sequence[str], place: Place) -> None:
    assert isinstance(target, Apigateway)  # noqa: S101 (the key of MAKERS)
    client = place.client("apigateway", target.region)
    try:
        client.get_domain_name(domainName=target.domain_name)
    except client.exceptions.NotFoundException:
        resources.domain_name(
            target.domain_name,
            session=place.session,
            endpoint=place.endpoint,
            account=place.account,
            region=target.region,
            edge=target.endpoint is EndpointType.EDGE,
        )


def _listener(target: Target, domains: Sequence[str], place: Place) -> None:
    assert isinstance(target, Listener)  # noqa: S101 (the key of MAKERS)
    client = place.client("elbv2", target.listener.split(":")[3])
    try:
        client.describe_listeners(ListenerArns=[target.listener])
    except client.exceptions.ListenerNotFoundException:
        resources.listener(target.listener, session=place.session, endpoint=place.endpoint)


MAKERS: Mapping[type[Target], Callable[[Target, Sequence[str], Place], None]] = {
    Apigateway: _domain_name,
    Cloudfront: _distribution,
    Listener: _listener,
}
