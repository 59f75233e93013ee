"""listener: the certificates of an HTTPS or TLS listener of an ALB or NLB.

A listener has a default certificate and a list. A client that sends a server name gets the list's
best match, and the default only where nothing in the list matches: so the certificate is always put
into the list, and into the default's place where asked.
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/https-listener-certificates.html
https://docs.aws.amazon.com/elasticloadbalancing/latest/network/tls-listener-certificates.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field

from certrail.bundle import Facts
from certrail.errors import AwsError, BundleRefused, DeployError, TargetMissing, TargetRefused
from certrail.grants import Grant, Scope
from certrail.keys import ALB, NLB, SECURE, KeyType
from certrail.target import LEFT, Context, Deployed, Endpoint, Link, Wrong, asked_for, region_named
from deployers.kinds.acm import Acm

if TYPE_CHECKING:
    from types_boto3_elbv2 import ElasticLoadBalancingv2Client

ARN = re.compile(
    r"(?P<service>arn:aws[a-z-]*:elasticloadbalancing:(?P<region>[a-z0-9-]+):[0-9]{12}:)"
    r"listener/(?P<path>(?P<balancer>(?P<kind>app|net)/[A-Za-z0-9-]+/[0-9a-f]+)/[0-9a-f]+)"
)


def _arn(text: str) -> str:
    match = ARN.fullmatch(text)
    if match is None:
        raise Wrong(
            f"`{text}` is not the ARN of a listener of an ALB or NLB",
            "it looks like `arn:aws:elasticloadbalancing:eu-central-1:111111111111:"
            "listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2`",
        )
    region_named(match["region"])
    return text


@dataclass(frozen=True)
class Held:
    """The certificates of a listener, by ARN. default: None where it takes none."""

    default: str | None
    listed: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        return self.listed | frozenset([self.default] if self.default else [])


class Listener(Link):
    """One listener: the certificate in its list, or in its default's place as well."""

    type: Literal["listener"] = "listener"
    listener: Annotated[str, AfterValidator(_arn)] = Field(
        description="ARN of an HTTPS listener of an ALB, or a TLS listener of an NLB.",
        examples=[
            "arn:aws:elasticloadbalancing:eu-central-1:111111111111:"
            "listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2"
        ],
    )
    default: bool = Field(
        default=False,
        description="Also for clients that send no server name, or one that no certificate of the "
        "listener matches. One pipeline per listener may have it.",
    )

    @classmethod
    def grants(
        cls, scope: Scope, targets: Sequence[Self] = (), everywhere: Sequence[str] = ()
    ) -> Sequence[Grant]:
        service = "elasticloadbalancing"
        # These three know no resource.
        look = [f"{service}:DescribeListenerCertificates", f"{service}:DescribeListeners"]
        if everywhere or any(target.verify for target in targets):
            look.append(f"{service}:DescribeLoadBalancers")
        attach = (f"{service}:AddListenerCertificates", f"{service}:RemoveListenerCertificates")
        every = tuple(
            scope.arn(service, region, f"listener/{kind}/*")
            for region in everywhere
            for kind in ("app", "net")
        )
        named = tuple(sorted({target.listener for target in targets}))
        regions = {*everywhere, *(target._part("region") for target in targets)}
        grants = [
            Grant("Look", tuple(look), regions=tuple(sorted(regions))),
            Grant("Attach", attach, named + every),
        ]
        defaults = tuple(sorted({target.listener for target in targets if target.default}))
        if defaults or every:
            grants.append(Grant("SetDefault", (f"{service}:ModifyListener",), defaults + every))
        return grants

    @property
    def key_types(self) -> frozenset[KeyType]:
        return ALB if self._part("kind") == "app" else NLB

    @property
    def address(self) -> str:
        return f"listener/{self._part('path')}"

    @property
    def claim(self) -> str | None:
        return f"{self.address}/default" if self.default else None

    @property
    def needs(self) -> tuple[Acm, ...]:
        return (self._home,)

    @property
    def _home(self) -> Acm:
        return Acm(region=self._part("region"), account=self.account)

    def _part(self, name: str) -> str:
        match = ARN.fullmatch(self.listener)
        assert match  # noqa: S101 (the field's validator)
        return match[name]

    def propagation(self, *, relinked: bool) -> timedelta:
        # AWS gives no figure: "After a certificate is renewed, new requests use the renewed
        # certificate" (the pages above). It is seconds to minutes, and this leaves room.
        return timedelta(minutes=30)

    def observe(self, context: Context) -> Deployed | None:
        held = self._read(context)
        if self.is_left(held.all, context):
            return LEFT
        # The import it should have, or the one before, whose successor's wave has not begun.
        for known in (context.needs.get(self._home.address), context.held):
            if known and self._has(known.resource, held):
                # Of several for one name the load balancer shows one, and may choose this.
                stale = self._superseded(context, known.resource)
                if beside := min(stale & held.all, default=None):
                    return Deployed("", beside)
                return Deployed(
                    known.fingerprint,
                    known.resource,
                    known.not_after,
                    endpoints=self._endpoints(context, context.names, known.resource, held),
                )
        if self.default and held.default:
            return Deployed("", held.default)
        if context.held and context.held.resource in held.listed:
            return Deployed("", context.held.resource)
        return None

    def link(self, facts: Facts, context: Context) -> Deployed:
        elb = context.aws.elbv2(self._part("region"))
        home = context.needs[self._home.address]
        arn = home.resource
        held = self._read(context)
        if self.is_left(held.all, context):
            return LEFT
        superseded = self._superseded(context, arn)
        if self.follows and superseded.isdisjoint(held.all):
            # It has followed. What its owner has changed since is his.
            wanted = held
        else:
            # A default that was an import of ours follows, whoever made it the default.
            taken = (self.default and not self.follows) or held.default in home.superseded
            wanted = Held(arn if taken else held.default, (held.listed - superseded) | {arn})
            # Of a default, not even the entry in the list can be removed.
            if wanted.default in superseded & held.listed:
                wanted = Held(wanted.default, wanted.listed | {wanted.default})
        if wanted != held:
            self._check_protocol(context)
        try:
            # In this order there is never a moment in which the new name is not served.
            if wanted.listed - held.listed:
                elb.add_listener_certificates(
                    ListenerArn=self.listener, Certificates=[{"CertificateArn": arn}]
                )
            if wanted.default != held.default:
                elb.modify_listener(
                    ListenerArn=self.listener, Certificates=[{"CertificateArn": arn}]
                )
            for old in held.listed - wanted.listed:
                elb.remove_listener_certificates(
                    ListenerArn=self.listener, Certificates=[{"CertificateArn": old}]
                )
        except AwsError as error:
            raise self._refused(error, arn) from error
        endpoints = self._endpoints(context, facts.domains, arn, wanted)
        return Deployed(facts.fingerprint, arn, facts.not_after, endpoints=endpoints)

    def _has(self, arn: str, held: Held) -> bool:
        """Whether the listener has the import where it is to have it."""
        if self.follows:
            return arn in held.all
        return arn in held.listed and self.default <= (arn == held.default)

    def _superseded(self, context: Context, arn: str) -> set[str]:
        """What is to stand nowhere on the listener once `arn` does."""
        home = context.needs.get(self._home.address)
        before = {*home.superseded} if home else set()
        return (before | ({context.held.resource} if context.held else set())) - {arn}

    def _endpoints(
        self, context: Context, names: tuple[str, ...], arn: str, held: Held
    ) -> tuple[Endpoint, ...]:
        """At the load balancer's own name, behind which are the addresses of all its zones."""
        if not self.verify or not names:
            return ()
        elb = context.aws.elbv2(self._part("region"))
        try:
            host = self._host(elb, context)
            if host is None:
                return ()
            (listener,) = elb.describe_listeners(ListenerArns=[self.listener])["Listeners"]
        except AwsError as error:
            raise self._refused(error, "") from error
        default = self.default and arn == held.default
        asked = asked_for(names) + (("",) if default else ())
        return (Endpoint(host, listener["Port"], asked),)

    def _host(self, elb: ElasticLoadBalancingv2Client, context: Context) -> str | None:
        """The load balancer's name, which it keeps for life; None where it is an internal one."""
        if context.held and context.held.endpoints:
            return context.held.endpoints[0].host
        arn = f"{self._part('service')}loadbalancer/{self._part('balancer')}"
        (balancer,) = elb.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"]
        return None if balancer["Scheme"] == "internal" else balancer["DNSName"]

    def _read(self, context: Context) -> Held:
        pages = context.aws.elbv2(self._part("region")).get_paginator(
            "describe_listener_certificates"
        )
        default, listed = None, set()
        try:
            for page in pages.paginate(ListenerArn=self.listener):
                for certificate in page["Certificates"]:
                    arn = certificate["CertificateArn"]
                    if certificate.get("IsDefault"):
                        default = arn
                    else:
                        listed.add(arn)
        except AwsError as error:
            raise self._refused(error, "") from error
        return Held(default, frozenset(listed))

    def _check_protocol(self, context: Context) -> None:
        elb = context.aws.elbv2(self._part("region"))
        (found,) = elb.describe_listeners(ListenerArns=[self.listener])["Listeners"]
        if (protocol := found["Protocol"]) not in SECURE:
            raise TargetRefused(
                f"the listener speaks {protocol}, which has no certificates",
                where=self.address,
                next="Name an HTTPS or TLS listener",
            )

    def _refused(self, error: AwsError, arn: str) -> AwsError | DeployError:
        match error.code:
            case "ListenerNotFound" | "LoadBalancerNotFound":
                return TargetMissing(
                    f"there is no listener {self.listener}",
                    where=self.address,
                    next="Remove the target from pipelines.yaml, or correct its `listener`",
                )
            case "CertificateNotFound":
                return TargetRefused(
                    f"the load balancer does not know {arn} yet ({error.what})",
                    where=self.address,
                    next="Right after an import this passes by itself; the daily run makes one "
                    "again that somebody deleted",
                    retryable=True,
                )
            case "TooManyCertificates":
                return TargetRefused(
                    f"the load balancer has no room for another certificate ({error.what})",
                    where=self.address,
                    next="Remove certificates that nothing needs, or ask for a higher quota "
                    "(25 per load balancer besides the defaults)",
                )
            # Not in the service model, but what the service answers.
            case "UnsupportedCertificate":
                return BundleRefused(
                    f"the load balancer cannot use {arn} ({error.what})",
                    where=self.address,
                    next="Choose another `key_type` for the pipeline",
                )
            case _:
                return error
