"""What has to be there before certrail comes: the zones and resources that a pipelines file names.

certrail creates no infrastructure. On AWS the distributions, listeners and hosted zones are the
user's own; here each kind has one function that makes what its targets point to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import boto3

from certrail.pipelines import Pipelines
from certrail.target import Target
from deployers.kinds.all import AnyTarget
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.listener import Listener
from sandbox import resources


def furnish(pipelines: Pipelines[AnyTarget], session: boto3.Session, endpoint: str) -> None:
    """Make the zones and resources that `pipelines` names and that are not there yet."""
    route53 = session.client("route53", endpoint_url=endpoint)
    there = {
        zone["Name"].rstrip(".")
        for page in route53.get_paginator("list_hosted_zones").paginate()
        for zone in page["HostedZones"]
    }
    for pipeline in pipelines.pipelines:
        for zone in {_zone(domain) for domain in pipeline.domains} - there:
            resources.hosted_zone(zone, session=session, endpoint=endpoint)
            there.add(zone)
        for target in pipeline.targets:
            if make := MAKERS.get(type(target)):
                make(target, pipeline.domains, session, endpoint)


def _zone(domain: str) -> str:
    # Good enough for the sandbox, where nobody registers names below co.uk.
    return ".".join(domain.split(".")[-2:])


def _distribution(
    target: Target, domains: Sequence[str], session: boto3.Session, endpoint: str
) -> None:
    assert isinstance(target, Cloudfront)  # noqa: S101 (the key of MAKERS)
    client = session.client("cloudfront", endpoint_url=endpoint)
    there = client.list_distributions()["DistributionList"].get("Items", [])
    if target.distribution not in {each["Id"] for each in there}:
        resources.distribution(target.distribution, domains, session=session, endpoint=endpoint)


def _listener(
    target: Target, domains: Sequence[str], session: boto3.Session, endpoint: str
) -> None:
    assert isinstance(target, Listener)  # noqa: S101 (the key of MAKERS)
    region = target.listener.split(":")[3]
    client = session.client("elbv2", endpoint_url=endpoint, region_name=region)
    try:
        client.describe_listeners(ListenerArns=[target.listener])
    except client.exceptions.ListenerNotFoundException:
        resources.listener(target.listener, session=session, endpoint=endpoint)


MAKERS: Mapping[type[Target], Callable[[Target, Sequence[str], boto3.Session, str], None]] = {
    Cloudfront: _distribution,
    Listener: _listener,
}
