"""listener: HTTPS and TLS listeners, by what Elastic Load Balancing lists of them and of their load
balancers, or by the certificates they have.

https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_Listener.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from certrail.bundle import covers
from certrail.grants import Grant, Scope
from certrail.pipelines.selection import (
    Candidate,
    Certificate,
    Covering,
    Item,
    Location,
    Regional,
)
from certrail.target import Wrong
from deployers.kinds.acm import Acm
from deployers.kinds.listener import Listener


class ListenerSelection(Regional, Covering):
    """Listeners that are found."""

    kind = Listener
    things = "listeners"
    id_key = "ListenerArn"
    where = frozenset({"account", "listener", "default"})
    specimen: ClassVar[Mapping[str, Any]] = {
        "ListenerArn": "arn:aws:elasticloadbalancing:eu-central-1:111111111111:"
        "listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2",
        "LoadBalancerArn": "arn:aws:elasticloadbalancing:eu-central-1:111111111111:"
        "loadbalancer/app/shop/50dc6c495c0c9188",
        "Port": 443,
        "Protocol": "HTTPS",
        "Certificates": [
            {"CertificateArn": "arn:aws:acm:eu-central-1:111111111111:certificate/example"}
        ],
        "SslPolicy": "ELBSecurityPolicy-TLS13-1-2-2021-06",
        "DefaultActions": [{"Type": "forward"}],
        "LoadBalancer": {
            "LoadBalancerArn": "arn:aws:elasticloadbalancing:eu-central-1:111111111111:"
            "loadbalancer/app/shop/50dc6c495c0c9188",
            "DNSName": "shop-1234567890.eu-central-1.elb.amazonaws.com",
            "CanonicalHostedZoneId": "Z215JYRZR1TBD5",
            "CreatedTime": "2026-01-01T00:00:00+00:00",
            "LoadBalancerName": "shop",
            "Scheme": "internet-facing",
            "VpcId": "vpc-0123456789abcdef0",
            "State": {"Code": "active"},
            "Type": "application",
            "AvailabilityZones": [{"ZoneName": "eu-central-1a", "SubnetId": "subnet-0123"}],
            "SecurityGroups": [],
            "IpAddressType": "ipv4",
            "Tags": {},
        },
    }

    type: Literal["listener"] = "listener"
    default: bool = Field(
        default=False,
        description="As of a listener that is named. With `covers` it is found out for each: where "
        "the names of its default certificate are covered.",
    )

    @model_validator(mode="after")
    def _default_is_found_out(self) -> Self:
        if self.by_names and "default" in self.model_fields_set:
            raise Wrong(
                "with `covers`, `default` is found out for each listener", "remove `default`"
            )
        return self

    @classmethod
    def grants(
        cls, scope: Scope, regions: Sequence[str], *, by_names: bool = True
    ) -> Sequence[Grant]:
        service = "elasticloadbalancing"
        listing = ("DescribeListeners", "DescribeLoadBalancers", "DescribeTags")
        listed = tuple(f"{service}:{operation}" for operation in listing)
        held = ("acm:ListCertificates", f"{service}:DescribeListenerCertificates")
        certificates = tuple(scope.arn("acm", region, "certificate/*") for region in regions)
        of_names = [
            Grant("ListCertificates", held, regions=tuple(regions)),
            Grant("ReadNamesOfCertificates", ("acm:DescribeCertificate",), certificates),
        ]
        return [
            Grant("ListListeners", listed, regions=tuple(regions)),
            *(of_names if by_names else []),
        ]

    @property
    def homes(self) -> tuple[Acm, ...]:
        return tuple(Acm(account=at.account, region=at.region) for at in self.locations)

    @property
    def reads_certificates(self) -> bool:
        return self.by_names

    def at(self, target: Listener) -> Location:
        (home,) = target.needs
        return Location(target.account, home.region)

    def _candidate(self, at: Location, item: Item, names: Sequence[str]) -> Candidate | None:
        there = {"account": at.account, "listener": item.id}
        if not self.by_names:
            return Candidate(item, self._made(**there, default=self.default))
        covered = [_all_covered(names, each) for each in item.certificates]
        touched = [_some_covered(names, each) for each in item.certificates]
        if not any(touched):
            return None
        because = zip(item.certificates, covered, strict=True)
        with_default, without = (self._made(**there, default=each) for each in (True, False))
        return Candidate(
            item,
            target=with_default if covered[0] else without,
            begins=any(covered),
            # While a name is taken from the pipeline, its own certificate there has it still.
            stays=with_default if touched[0] else None,
            otherwise=without,
            because=tuple(certificate.names for certificate, is_covered in because if is_covered),
        )


def _all_covered(names: Sequence[str], certificate: Certificate) -> bool:
    return bool(certificate.names) and all(covers(names, name) for name in certificate.names)


def _some_covered(names: Sequence[str], certificate: Certificate) -> bool:
    """Whether they share a name, be it one that is a wildcard in either."""
    return any(
        covers(names, name) or any(covers((name,), each) for each in names)
        for name in certificate.names
    )
