"""listener: the certificates of an HTTPS or TLS listener of an ALB or NLB.

A listener has a default certificate and a list. A client that sends a server name gets the list's
best match, and the default only where nothing in the list matches: so the certificate is always put
into the list, and into the default's place where asked.
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/https-listener-certificates.html
https://docs.aws.amazon.com/elasticloadbalancing/latest/network/tls-listener-certificates.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from certrail.bundle import Facts
from certrail.errors import AwsError, DeployError, TargetMissing, TargetRefused
from certrail.keys import KeyType
from certrail.target import Context, Deployed, Link, Wrong, region_named
from deployers.kinds.acm import Acm

ARN = re.compile(
    r"arn:aws[a-z-]*:elasticloadbalancing:(?P<region>[a-z0-9-]+):[0-9]{12}:"
    r"listener/(?P<path>(?P<kind>app|net)/[A-Za-z0-9-]+/[0-9a-f]+/[0-9a-f]+)"
)
SECURE = ("HTTPS", "TLS")


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


class Listener(Link):
    """One listener: the certificate in its list, or in its default's place as well."""

    permissions: ClassVar[frozenset[str]] = frozenset(
        {
            "elasticloadbalancing:AddListenerCertificates",
            "elasticloadbalancing:DescribeListenerCertificates",
            "elasticloadbalancing:DescribeListeners",
            "elasticloadbalancing:ModifyListener",
            "elasticloadbalancing:RemoveListenerCertificates",
        }
    )

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

    @property
    def key_types(self) -> frozenset[KeyType]:
        every = frozenset(KeyType)
        return every if self._part("kind") == "app" else every - {KeyType.RSA_4096}

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

    def observe(self, context: Context) -> Deployed | None:
        held = self._read(context)
        home = context.needs.get(self._home.address)
        if (
            home
            and home.resource in held.listed
            and self.default <= (home.resource == held.default)
        ):
            return Deployed(home.fingerprint, home.resource, home.not_after)
        if self.default and held.default:
            return Deployed("", held.default)
        if context.held and context.held.resource in held.listed:
            return Deployed("", context.held.resource)
        return None

    def link(self, facts: Facts, context: Context) -> Deployed:
        elb = context.aws.elbv2(self._part("region"))
        arn = context.needs[self._home.address].resource
        held = self._read(context)
        superseded = context.held.resource if context.held else arn
        wanted = Held(arn if self.default else held.default, (held.listed - {superseded}) | {arn})
        # Of a default, not even the entry in the list can be removed.
        if superseded in held.listed and superseded == wanted.default:
            wanted = Held(wanted.default, wanted.listed | {superseded})
        if wanted != held:
            self._check_protocol(context)
        try:
            # In this order there is never a moment in which the new name is not served.
            if arn not in held.listed:
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
        return Deployed(facts.fingerprint, arn, facts.not_after)

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
            case "ListenerNotFound":
                return TargetMissing(
                    f"there is no listener {self.listener}",
                    where=self.address,
                    next="Remove the target from pipelines.yaml, or correct its `listener`",
                )
            case "CertificateNotFound":
                return TargetRefused(
                    f"the load balancer does not know {arn} yet ({error.what})",
                    where=self.address,
                    next="Right after an import this passes by itself",
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
                return TargetRefused(
                    f"the load balancer cannot use {arn} ({error.what})",
                    where=self.address,
                    next="Choose another `key_type` for the pipeline",
                )
            case _:
                return error
