"""acm: an imported certificate in AWS Certificate Manager, which everything else points to.

A renewal is imported again under the same ARN: whatever uses the certificate goes on using it, and
takes no call.
https://docs.aws.amazon.com/acm/latest/userguide/import-reimport.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from certrail.bundle import Bundle, covers, fingerprint, split
from certrail.errors import AwsError, NotOurs, TargetMissing, TargetRefused
from certrail.keys import KeyType
from certrail.store import spell
from certrail.target import Context, Deployed, Region, Tags, Target, Wrong, place

if TYPE_CHECKING:
    from types_boto3_acm import ACMClient
    from types_boto3_acm.type_defs import (
        CertificateDetailTypeDef,
        ImportCertificateRequestTypeDef,
    )

ARN = re.compile(r"arn:aws[a-z-]*:acm:([a-z0-9-]+):([0-9]{12}):certificate/[A-Za-z0-9-]+")
# ACM's names, with the separator it uses in answers unified.
ALGORITHM = {
    KeyType.ECDSA_P256: "EC_prime256v1",
    KeyType.ECDSA_P384: "EC_secp384r1",
    KeyType.RSA_2048: "RSA_2048",
    KeyType.RSA_3072: "RSA_3072",
    KeyType.RSA_4096: "RSA_4096",
}


def _arn(text: str) -> str:
    if not ARN.fullmatch(text):
        raise Wrong(
            f"`{text}` is not the ARN of a certificate",
            "it looks like `arn:aws:acm:eu-central-1:111111111111:certificate/…`",
        )
    return text


class Acm(Target):
    """The pipeline's certificate in one region of one account."""

    permissions: ClassVar[frozenset[str]] = frozenset(
        {
            "acm:AddTagsToCertificate",
            "acm:DescribeCertificate",
            "acm:GetCertificate",
            "acm:ImportCertificate",
            "acm:ListTagsForCertificate",
            "tag:GetResources",
        }
    )

    type: Literal["acm"] = "acm"
    region: Region = Field(description="Region of the certificate.")
    certificate_arn: Annotated[str, AfterValidator(_arn)] | None = Field(
        default=None,
        description="An import that exists already, to take over; left out, certrail makes its "
        "own.",
        examples=[
            "arn:aws:acm:eu-central-1:111111111111:certificate/12345678-1234-1234-1234-123456789012"
        ],
    )
    tags: Tags = Field(default={}, description="Tags of the certificate, besides certrail's own.")

    @model_validator(mode="after")
    def _same_region(self) -> Acm:
        match = ARN.fullmatch(self.certificate_arn or "")
        if match and match[1] != self.region:
            raise Wrong(
                f"`certificate_arn` is in {match[1]}, the target in {self.region}",
                f"set `region: {match[1]}`",
            )
        return self

    @property
    def address(self) -> str:
        return f"acm/{place(self.account, self.region)}"

    @property
    def claim(self) -> str | None:
        return f"acm/{self.certificate_arn}" if self.certificate_arn else None

    def observe(self, context: Context) -> Deployed | None:
        detail = self._find(context)
        return self._deployed(context, detail) if detail else None

    def deploy(self, bundle: Bundle, context: Context) -> Deployed:
        client = context.aws.acm(self.region)
        detail = self._find(context, bundle)
        if detail is None:
            arn = self._import(client, bundle, context)
            return Deployed(bundle.fingerprint, arn, bundle.facts.not_after)
        arn = detail["CertificateArn"]
        refusals: tuple[str, ...] = ()
        self._tag(client, arn)
        if not self._holds(client, arn, bundle):
            refusals = tuple(_refusals(detail, bundle))
            if not refusals:
                self._import(client, bundle, context, arn)
        if not refusals:
            held = context.held
            before = None
            if held:
                before = held.replaced if held.resource == arn else held.resource
            return Deployed(bundle.fingerprint, arn, bundle.facts.not_after, replaced=before)
        if self.certificate_arn:
            raise TargetRefused(
                f"this certificate cannot take the place of the one under {arn}: "
                f"{'; '.join(refusals)}",
                where=self.address,
                next="Issue it with what the import has now, or remove `certificate_arn`: certrail "
                "then makes an import of its own",
            )
        # What needs this target sees another resource and is bound to it. The old import stays: it
        # may be used by what certrail does not know.
        new = self._import(client, bundle, context)
        return Deployed(bundle.fingerprint, new, bundle.facts.not_after, replaced=arn)

    # Finding

    def _find(
        self, context: Context, bundle: Bundle | None = None
    ) -> CertificateDetailTypeDef | None:
        """The import: the adopted one, the record's, or of those that carry our tags the newest
        that can take the bundle.

        The tags are asked, too, where the record's cannot take it: a run that died after the import
        that replaces it left one that no record names.

        Not by ListCertificates, which shows RSA keys only unless asked for each type by name.
        """
        client = context.aws.acm(self.region)
        if self.certificate_arn:
            detail = _describe(client, self.certificate_arn)
            if detail is None:
                raise TargetMissing(
                    f"there is no certificate {self.certificate_arn}",
                    where=self.address,
                    next="Correct `certificate_arn`, or remove it: certrail then makes its own",
                )
            if detail["Type"] != "IMPORTED":
                raise NotOurs(
                    f"{self.certificate_arn} was issued by ACM ({detail['Type']}), not imported",
                    where=self.address,
                    next="Remove `certificate_arn`: certrail then makes an import of its own",
                )
            return detail
        recorded = _describe(client, context.held.resource) if context.held else None
        if recorded and (bundle is None or not any(_refusals(recorded, bundle))):
            return recorded
        tagged = (_describe(client, arn) for arn in self._tagged(context))
        found = max(
            (detail for detail in tagged if detail and detail["Type"] == "IMPORTED"),
            key=lambda detail: (
                bundle is None or not any(_refusals(detail, bundle)),
                detail["ImportedAt"],
            ),
            default=None,
        )
        if recorded and bundle and (found is None or any(_refusals(found, bundle))):
            return recorded
        return found

    def _tagged(self, context: Context) -> Iterator[str]:
        pages = context.aws.tagging(self.region).get_paginator("get_resources")
        for page in pages.paginate(
            ResourceTypeFilters=["acm:certificate"],
            TagFilters=[
                {"Key": key, "Values": [value]} for key, value in identity(context).items()
            ],
        ):
            for resource in page["ResourceTagMappingList"]:
                yield resource["ResourceARN"]

    def _deployed(self, context: Context, detail: CertificateDetailTypeDef) -> Deployed:
        arn = detail["CertificateArn"]
        held = context.aws.acm(self.region).get_certificate(CertificateArn=arn)
        return Deployed(fingerprint(held["Certificate"]), arn, detail["NotAfter"])

    def _holds(self, client: ACMClient, arn: str, bundle: Bundle) -> bool:
        held = client.get_certificate(CertificateArn=arn)
        leaf, chain = _ders(held["Certificate"]), _ders(held.get("CertificateChain", ""))
        # ACM shows the leaf as the chain of what was imported without one.
        return leaf == _ders(bundle.certificate) and (
            chain == _ders(bundle.chain) or (not bundle.chain and chain == leaf)
        )

    # Writing

    def _import(
        self, client: ACMClient, bundle: Bundle, context: Context, arn: str | None = None
    ) -> str:
        """Import as new, with the tags that say whose it is in the same call; or again under `arn`,
        where AWS takes no tags."""
        request: ImportCertificateRequestTypeDef = {
            "Certificate": bundle.certificate.encode(),
            "PrivateKey": bundle.private_key.reveal().encode(),
        }
        if bundle.chain:
            request["CertificateChain"] = bundle.chain.encode()
        if arn:
            request["CertificateArn"] = arn
        else:
            tags = {**self.tags, **identity(context)}
            request["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
        try:
            return client.import_certificate(**request)["CertificateArn"]
        except AwsError as error:
            if error.code == "LimitExceededException":
                raise TargetRefused(
                    f"the account's quota of imported certificates is used up ({error.what})",
                    where=self.address,
                    next="Ask for a higher quota (Service Quotas, L-3808DC70), or delete unused "
                    "imports",
                ) from error
            if error.code in {"ValidationException", "InvalidParameterException"}:
                raise TargetRefused(
                    f"ACM refused the certificate ({error.what})",
                    where=self.address,
                    next="See docs/targets/acm.md",
                ) from error
            raise

    def _tag(self, client: ACMClient, arn: str) -> None:
        """Tags the file gained since the import. What others set stays."""
        if not self.tags:
            return
        present = {
            tag["Key"]: tag.get("Value", "")
            for tag in client.list_tags_for_certificate(CertificateArn=arn)["Tags"]
        }
        wanted = {key: value for key, value in self.tags.items() if present.get(key) != value}
        if wanted:
            client.add_tags_to_certificate(
                CertificateArn=arn,
                Tags=[{"Key": key, "Value": value} for key, value in wanted.items()],
            )


def identity(context: Context) -> Mapping[str, str]:
    """The tags by which an installation knows a pipeline's resource again."""
    return {"certrail:owner": context.owner, "certrail:pipeline": spell(context.pipeline)}


def _describe(client: ACMClient, arn: str) -> CertificateDetailTypeDef | None:
    try:
        return client.describe_certificate(CertificateArn=arn)["Certificate"]
    except AwsError as error:
        if error.code == "ResourceNotFoundException":
            return None
        raise


def _refusals(detail: CertificateDetailTypeDef, bundle: Bundle) -> Iterator[str]:
    """Why a reimport would be refused by AWS, or take away what is served: known before it is
    tried (see this module's page)."""
    facts = bundle.facts
    algorithm = ALGORITHM[facts.key_type]
    present = detail["KeyAlgorithm"].replace("-", "_")
    if present != algorithm:
        yield f"the key would change from {present} to {algorithm}"
    usages = {usage["Name"] for usage in detail.get("KeyUsages", [])} - set(facts.key_usages)
    if algorithm.startswith("EC_"):
        # RFC 5480 has no such usage for these keys, and ACM lets it go.
        usages.discard("KEY_ENCIPHERMENT")
    if usages:
        yield f"the key usages {', '.join(sorted(usages))} would be lost"
    extended = {usage["Name"] for usage in detail.get("ExtendedKeyUsages", [])} - {
        *facts.extended_key_usages,
        # Public CAs no longer issue it, and ACM lets it go.
        "TLS_WEB_CLIENT_AUTHENTICATION",
        # ACM's word for a certificate without the extension.
        "NONE",
    }
    if extended:
        yield f"the extended key usages {', '.join(sorted(extended))} would be lost"
    names = {name.lower() for name in detail.get("SubjectAlternativeNames", [])}
    lost = sorted(name for name in names if not covers(facts.domains, name))
    if names.isdisjoint(name.lower() for name in facts.domains):
        yield "none of its names would stay"
    # ACM would allow it, and CloudFront would go on to serve the alias with a certificate that does
    # not have it. Bound to another import, the distribution is asked first.
    elif lost and (users := [arn for arn in detail.get("InUseBy", []) if ":cloudfront:" in arn]):
        yield f"{', '.join(lost)} would be lost, and {', '.join(users)} may serve it"


def _ders(pem: str) -> tuple[str, ...]:
    return tuple(fingerprint(certificate) for certificate in split(pem))
