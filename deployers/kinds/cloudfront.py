"""cloudfront: the viewer certificate of a distribution.

A distribution points to an ACM certificate in us-east-1. It is written once, to make it point
there; renewals happen under the same ARN and need no call.
https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cnames-and-https-requirements.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from certrail.bundle import Facts, covers
from certrail.errors import AwsError, NotCovered, TargetMissing, TargetRefused
from certrail.keys import KeyType
from certrail.target import Context, Deployed, Link, Wrong
from deployers.kinds.acm import Acm

if TYPE_CHECKING:
    from types_boto3_cloudfront.type_defs import GetDistributionConfigResultTypeDef

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

    permissions: ClassVar[frozenset[str]] = frozenset(
        {"cloudfront:GetDistributionConfig", "cloudfront:UpdateDistribution"}
    )

    type: Literal["cloudfront"] = "cloudfront"
    distribution: Annotated[str, AfterValidator(_id)] = Field(
        description="Id of the distribution.", examples=["E2QWRUHEXAMPLE"]
    )

    @property
    def key_types(self) -> frozenset[KeyType]:
        # P-384 is documented both ways, and users report that it is refused.
        return frozenset({KeyType.ECDSA_P256, KeyType.RSA_2048, KeyType.RSA_3072})

    @property
    def address(self) -> str:
        return f"cloudfront/{self.distribution}"

    @property
    def needs(self) -> tuple[Acm, ...]:
        return (self._home,)

    @property
    def _home(self) -> Acm:
        return Acm(region="us-east-1", account=self.account)

    def observe(self, context: Context) -> Deployed | None:
        viewer = self._read(context)["DistributionConfig"].get("ViewerCertificate", {})
        resource = viewer.get("ACMCertificateArn") or viewer.get("IAMCertificateId")
        if not resource:
            return None
        home = context.needs.get(self._home.address)
        if home is None or home.resource != resource:
            return Deployed("", resource)
        return Deployed(home.fingerprint, resource, home.not_after)

    def link(self, facts: Facts, context: Context) -> Deployed:
        home = context.needs[self._home.address]
        for _ in range(TRIES):
            answer = self._read(context)
            config = answer["DistributionConfig"]
            self._check(config, facts)
            viewer = config.get("ViewerCertificate", {})
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
                    raise self._refused(error, home.resource) from error
            return Deployed(facts.fingerprint, home.resource, facts.not_after)
        raise TargetRefused(
            f"somebody else changed the distribution {TRIES} times while it was being changed",
            where=self.address,
            next="It is tried again by itself",
            retryable=True,
        )

    def _read(self, context: Context) -> GetDistributionConfigResultTypeDef:
        try:
            return context.aws.cloudfront().get_distribution_config(Id=self.distribution)
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
                next="Name the primary distribution instead",
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

    def _refused(self, error: AwsError, arn: str) -> Exception:
        if error.code != "InvalidViewerCertificate":
            return error
        if "cover" in error.what:
            return NotCovered(
                f"CloudFront says that {arn} does not cover every alias ({error.what})",
                where=self.address,
                next="Compare the pipeline's `domains` with the distribution's aliases",
            )
        # The same words for an import of a few seconds ago and for one that will never do.
        return TargetRefused(
            f"CloudFront does not accept {arn} ({error.what})",
            where=self.address,
            next="Right after an import this passes by itself; if it stays, the certificate's CA "
            "is not one that CloudFront trusts",
            retryable=True,
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
