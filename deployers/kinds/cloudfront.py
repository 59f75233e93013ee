"""cloudfront: the viewer certificate of a distribution.

A distribution points to an ACM certificate in us-east-1. It is written once, to make it point
there; renewals happen under the same ARN and need no call.
https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cnames-and-https-requirements.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from certrail.bundle import Facts, covers
from certrail.errors import AwsError, BundleRefused, NotCovered, TargetMissing, TargetRefused
from certrail.grants import Grant, Scope
from certrail.keys import CLOUDFRONT, KeyType
from certrail.target import LEFT, Context, Deployed, Endpoint, Link, Wrong, asked_for
from deployers.kinds.acm import Acm, is_gone, may_be_unknown, may_look_for_it
from deployers.preflight import CLOUDFRONT_LAG

if TYPE_CHECKING:
    from types_boto3_cloudfront.type_defs import GetDistributionResultTypeDef

ID = re.compile(r"[A-Z0-9]+")
# CloudFront changes the ETag by itself, too, when a policy that the distribution uses changes.
TRIES = 5
# The minimum that AWS recommends and every browser of the last years speaks.
MINIMUM_PROTOCOL = "TLSv1.2_2021"


def _id(text: str) -> str:
    if not ID.fullmatch(text):
        found = re.search(r"distribution/([A-Z0-9]+)$", text)
        raise Wrong(
            f"`{text}` is not the id of a distribution",
            f"write `{found[1]}`" if found else "it looks like `E2QWRUHEXAMPLE`",
        )
    return text


class Cloudfront(Link):
    """One distribution."""

    type: Literal["cloudfront"] = "cloudfront"
    distribution: Annotated[str, AfterValidator(_id)] = Field(
        description="Id of the distribution.", examples=["E2QWRUHEXAMPLE"]
    )

    @classmethod
    def grants(
        cls, scope: Scope, targets: Sequence[Self] = (), everywhere: Sequence[str] = ()
    ) -> Sequence[Grant]:
        named = ["*"] if everywhere else sorted({target.distribution for target in targets})
        # CloudFront is global: its ARNs name no region.
        arns = tuple(scope.arn("cloudfront", "", f"distribution/{name}") for name in named)
        attach = ("cloudfront:GetDistribution", "cloudfront:UpdateDistribution")
        return [Grant("Attach", attach, arns), may_look_for_it(scope, ["us-east-1"])]

    @property
    def key_types(self) -> frozenset[KeyType]:
        return CLOUDFRONT

    @property
    def address(self) -> str:
        return f"cloudfront/{self.distribution}"

    @property
    def needs(self) -> tuple[Acm, ...]:
        return (self._home,)

    @property
    def _home(self) -> Acm:
        return Acm(region="us-east-1", account=self.account)

    def propagation(self, *, relinked: bool) -> timedelta:
        # A reimport: "at least 24 hours before" its end (the page above). For an update AWS has no
        # figure; it is minutes as a rule.
        return timedelta(hours=1) if relinked else CLOUDFRONT_LAG

    def observe(self, context: Context) -> Deployed | None:
        there = self._read(context)["Distribution"]
        viewer = there["DistributionConfig"].get("ViewerCertificate", {})
        resource = viewer.get("ACMCertificateArn") or viewer.get("IAMCertificateId")
        if self.is_left([resource], context):
            return LEFT
        if not resource:
            return None
        # The import it should point to, or the one before, whose successor's wave has not begun.
        for known in (context.needs.get(self._home.address), context.held):
            if known and known.resource == resource:
                return Deployed(
                    known.fingerprint, resource, known.not_after, endpoints=self._endpoints(there)
                )
        return Deployed("", resource)

    def link(self, facts: Facts, context: Context) -> Deployed:
        home = context.needs[self._home.address]
        for _ in range(TRIES):
            answer = self._read(context)
            config = answer["Distribution"]["DistributionConfig"]
            viewer = config.get("ViewerCertificate", {})
            if self.is_left([viewer.get("ACMCertificateArn")], context):
                return LEFT
            self._check(config, facts)
            if viewer.get("ACMCertificateArn") != home.resource:
                # The update replaces the whole configuration, so all of it goes back.
                changed: Any = {**config, "ViewerCertificate": _pointing(viewer, home.resource)}
                try:
                    context.aws.cloudfront().update_distribution(
                        Id=self.distribution, IfMatch=answer["ETag"], DistributionConfig=changed
                    )
                except AwsError as error:
                    if error.code == "PreconditionFailed":
                        continue
                    raise self._refused(error, home, context) from error
            return Deployed(
                facts.fingerprint,
                home.resource,
                facts.not_after,
                endpoints=self._endpoints(answer["Distribution"]),
            )
        raise TargetRefused(
            f"somebody else changed the distribution {TRIES} times while it was being changed",
            where=self.address,
            next="It is tried again by itself",
            retryable=True,
        )

    def _endpoints(self, there: Any) -> tuple[Endpoint, ...]:
        """At its own name, not at the aliases', which may still lead elsewhere."""
        config = there["DistributionConfig"]
        aliases = config.get("Aliases", {}).get("Items", [])
        if not self.verify or not config.get("Enabled") or not aliases:
            return ()
        return (Endpoint(there["DomainName"], 443, asked_for(sorted(aliases))),)

    def _read(self, context: Context) -> GetDistributionResultTypeDef:
        try:
            return context.aws.cloudfront().get_distribution(Id=self.distribution)
        except AwsError as error:
            if error.code == "NoSuchDistribution":
                raise TargetMissing(
                    f"there is no distribution {self.distribution}",
                    where=self.address,
                    next="Remove the target from pipelines.yaml, or correct its `distribution`",
                ) from error
            raise

    def _check(self, config: Any, facts: Facts) -> None:
        """Refuse before any write what CloudFront would refuse, or undo later."""
        if config.get("Staging"):
            raise TargetRefused(
                f"{self.distribution} is a staging distribution, and promoting it would carry its "
                "certificate over to the primary one",
                where=self.address,
                next="It still has an import that was replaced: update or promote it"
                if self.follows
                else "Name the primary distribution instead",
            )
        aliases = config.get("Aliases", {}).get("Items", [])
        bare = [alias for alias in aliases if not covers(facts.domains, alias)]
        if bare:
            raise NotCovered(
                f"the certificate does not cover {', '.join(bare)}, which the distribution serves",
                where=self.address,
                next="Add the names to the pipeline's `domains`, or remove the aliases from the "
                "distribution",
            )

    def _refused(self, error: AwsError, home: Deployed, context: Context) -> Exception:
        arn = home.resource
        if error.code != "InvalidViewerCertificate":
            return error
        if "cover" in error.what:
            return NotCovered(
                f"CloudFront says that {arn} does not cover every alias ({error.what})",
                where=self.address,
                next="Compare the pipeline's `domains` with the distribution's aliases",
            )
        # The same words for an import of a few seconds ago and for one that will never do.
        if may_be_unknown(home, context.now):
            return TargetRefused(
                f"CloudFront does not accept {arn} yet ({error.what})",
                where=self.address,
                next="Right after an import this passes by itself",
                retryable=True,
            )
        if is_gone(home, self._home, context.aws):
            return TargetMissing(
                f"somebody deleted {arn}, which the distribution is to point to",
                where=self.address,
                next="The daily run imports it again, and points the distribution to that",
            )
        return BundleRefused(
            f"CloudFront does not accept {arn} ({error.what})",
            where=self.address,
            next="Most often the certificate's CA is not one that CloudFront trusts",
        )


def _pointing(viewer: Any, arn: str) -> dict[str, Any]:
    """The viewer certificate with another ARN. What the operator chose for TLS stays."""
    own = bool(viewer.get("ACMCertificateArn") or viewer.get("IAMCertificateId"))
    kept = {name: viewer[name] for name in ("SSLSupportMethod", "MinimumProtocolVersion") if own}
    # Certificate and CertificateSource are deprecated, returned, and refused when they contradict.
    return {
        "SSLSupportMethod": "sni-only",
        "MinimumProtocolVersion": MINIMUM_PROTOCOL,
        **kept,
        "ACMCertificateArn": arn,
        "CloudFrontDefaultCertificate": False,
    }
