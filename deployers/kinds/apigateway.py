"""apigateway: the certificate of a custom domain name of API Gateway: of REST and HTTP APIs alike.

A regional domain name points to an ACM certificate in its own region, an edge-optimized one to one
in us-east-1. It is written once, to make it point there; renewals happen under the same ARN and
need no call.
https://docs.aws.amazon.com/apigateway/latest/developerguide/how-to-specify-certificate-for-custom-domain-name.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from certrail.bundle import Facts, covers
from certrail.errors import AwsError, BundleRefused, NotCovered, TargetMissing, TargetRefused
from certrail.grants import Grant, Scope
from certrail.keys import API_GATEWAY, KeyType
from certrail.store import spell
from certrail.target import LEFT, Context, Deployed, Endpoint, Link, Region, Wrong, asked_for, place
from deployers.kinds.acm import Acm, is_gone, may_be_unknown, may_look_for_it
from deployers.preflight import CLOUDFRONT_LAG

UPDATE_DISTRIBUTION = "cloudfront:UpdateDistribution"
DOMAIN_NAME = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
# No figure is given. "It takes about 40 minutes" until an edge-optimized one is ready; behind it is
# a distribution, and CloudFront may serve the old content for a day after a reimport.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/how-to-edge-optimized-custom-domain-name.html
REGIONAL, RELINKED_EDGE = timedelta(minutes=30), timedelta(hours=1)


class EndpointType(StrEnum):
    REGIONAL = "regional"
    EDGE = "edge"


def _domain_name(text: str) -> str:
    if not DOMAIN_NAME.fullmatch(text):
        raise Wrong(
            f"`{text}` is not a custom domain name",
            "write it as API Gateway has it, in lower case, like `api.example.com`",
        )
    return text


class Apigateway(Link):
    """One custom domain name."""

    type: Literal["apigateway"] = "apigateway"
    domain_name: Annotated[str, AfterValidator(_domain_name)] = Field(
        description="The custom domain name.", examples=["api.example.com"]
    )
    region: Region = Field(description="Region in which the domain name is set up.")
    endpoint: EndpointType = Field(
        default=EndpointType.REGIONAL,
        description="Of an edge-optimized domain name, whose certificate is in us-east-1, `edge`.",
    )

    @classmethod
    def grants(
        cls, scope: Scope, targets: Sequence[Self] = (), everywhere: Sequence[str] = ()
    ) -> Sequence[Grant]:
        named = {(target.region, target.domain_name) for target in targets}
        # API Gateway's ARNs name no account.
        arns = tuple(
            f"arn:{scope.partition}:apigateway:{region}::/domainnames/{name}"
            for region, name in sorted(named | {(region, "*") for region in everywhere})
        )
        homes = {target._home.region for target in targets}
        grants = [
            Grant("Point", ("apigateway:GET", "apigateway:PATCH"), arns),
            may_look_for_it(scope, sorted({*homes, *everywhere})),
        ]
        if everywhere or any(target.endpoint is EndpointType.EDGE for target in targets):
            # API Gateway changes a distribution of its own, which is in an account of AWS's, and
            # asks whether who wants that may change any (the page above, edge-optimized).
            grants.append(Grant("PointAtTheEdge", (UPDATE_DISTRIBUTION,)))
        return grants

    @property
    def key_types(self) -> frozenset[KeyType]:
        return API_GATEWAY

    @property
    def address(self) -> str:
        return f"apigateway/{place(self.account, self.region)}/{spell(self.domain_name)}"

    @property
    def needs(self) -> tuple[Acm, ...]:
        return (self._home,)

    @property
    def _home(self) -> Acm:
        region = "us-east-1" if self.endpoint is EndpointType.EDGE else self.region
        return Acm(region=region, account=self.account)

    @property
    def _member(self) -> str:
        """Where the domain name has the ARN, and what a patch calls it."""
        return "certificateArn" if self.endpoint is EndpointType.EDGE else "regionalCertificateArn"

    def observe(self, context: Context) -> Deployed | None:
        domain = self._read(context)
        resource = domain.get(self._member)
        if self.is_left([resource], context):
            return LEFT
        if not resource:
            return None
        # The import it should point to, or the one before, whose successor's wave has not begun.
        for known in (context.needs.get(self._home.address), context.held):
            if known and known.resource == resource:
                return Deployed(
                    known.fingerprint, resource, known.not_after, endpoints=self._endpoints(domain)
                )
        return Deployed("", resource)

    def link(self, facts: Facts, context: Context) -> Deployed:
        home = context.needs[self._home.address]
        domain = self._read(context)
        if self.is_left([domain.get(self._member)], context):
            return LEFT
        self._check(domain, facts)
        if domain.get(self._member) != home.resource:
            self._check_available(domain)
            try:
                domain = context.aws.apigateway(self.region).update_domain_name(
                    domainName=self.domain_name,
                    patchOperations=[
                        {"op": "replace", "path": f"/{self._member}", "value": home.resource}
                    ],
                )
            except AwsError as error:
                raise self._refused(error, home, context) from error
        return Deployed(
            facts.fingerprint, home.resource, facts.not_after, endpoints=self._endpoints(domain)
        )

    def propagation(self, *, relinked: bool) -> timedelta:
        if self.endpoint is EndpointType.REGIONAL:
            return REGIONAL
        return RELINKED_EDGE if relinked else CLOUDFRONT_LAG

    def _endpoints(self, domain: Any) -> tuple[Endpoint, ...]:
        edge = self.endpoint is EndpointType.EDGE
        host = domain.get("distributionDomainName" if edge else "regionalDomainName")
        if not self.verify or not host:
            return ()
        return (Endpoint(host, 443, asked_for([self.domain_name])),)

    def _read(self, context: Context) -> Any:
        try:
            return context.aws.apigateway(self.region).get_domain_name(domainName=self.domain_name)
        except AwsError as error:
            if error.code == "NotFoundException":
                raise TargetMissing(
                    f"there is no custom domain name {self.domain_name} in {self.region}",
                    where=self.address,
                    next="Remove the target from pipelines.yaml, or correct `domain_name` and "
                    "`region`",
                ) from error
            raise

    def _check(self, domain: Any, facts: Facts) -> None:
        """Refuse before any write what API Gateway would refuse, or lock the domain name for."""
        types = domain.get("endpointConfiguration", {}).get("types", [])
        if self.endpoint.upper() not in types:
            raise TargetRefused(
                f"the domain name is {' and '.join(types).lower()}, not {self.endpoint}",
                where=self.address,
                next="Correct the target's `endpoint`",
            )
        if domain.get("ownershipVerificationCertificateArn"):
            raise TargetRefused(
                "with mutual TLS and an imported certificate, API Gateway locks the domain name "
                "where the issuer changes, which public CAs do without notice",
                where=self.address,
                next="Give the domain name a certificate that ACM issues, and remove the target",
            )
        if not covers(facts.domains, self.domain_name):
            raise NotCovered(
                f"the certificate does not cover {self.domain_name}",
                where=self.address,
                next="Add the name to the pipeline's `domains`, or remove the target",
            )

    def _check_available(self, domain: Any) -> None:
        status = domain.get("domainNameStatus", "AVAILABLE")
        if status in {"UPDATING", "PENDING"}:
            raise TargetRefused(
                f"the domain name is {status}: another change of it is under way",
                where=self.address,
                next="It is tried again by itself",
                retryable=True,
            )

    def _refused(self, error: AwsError, home: Deployed, context: Context) -> Exception:
        arn = home.resource
        match error.code:
            case "ConflictException":
                return TargetRefused(
                    f"another change of the domain name is under way ({error.what})",
                    where=self.address,
                    next="It is tried again by itself",
                    retryable=True,
                )
            case "BadRequestException" if may_be_unknown(home, context.now):
                return TargetRefused(
                    f"API Gateway does not accept {arn} yet ({error.what})",
                    where=self.address,
                    next="Right after an import this passes by itself; if it stays, the reason in "
                    "brackets is API Gateway's own",
                    retryable=True,
                )
            case "BadRequestException" if is_gone(home, self._home, context.aws):
                return TargetMissing(
                    f"somebody deleted {arn}, which the domain name is to point to",
                    where=self.address,
                    next="The daily run imports it again, and points the domain name to that",
                )
            case "BadRequestException" if UPDATE_DISTRIBUTION in error.what:
                # One text for all causes. The names were compared before.
                return TargetRefused(
                    f"API Gateway cannot change the distribution behind it ({error.what})",
                    where=self.address,
                    next=f"Allow {UPDATE_DISTRIBUTION} in the policy of the role that made the "
                    "call; where it is allowed, CloudFront does not take the certificate, most "
                    "often because of its CA: `certrail rollback` goes back to the one before",
                )
            case "BadRequestException":
                return BundleRefused(
                    f"API Gateway does not accept {arn} ({error.what})",
                    where=self.address,
                    next="The reason in brackets is API Gateway's own",
                )
            case _:
                return error
