"""acm: an imported certificate in AWS Certificate Manager, which everything else points to.

A renewal is imported again under the same ARN: whatever uses the certificate goes on using it, and
takes no call. Where that will not do, or the file wants it so, a new import takes the place of the
old one, everybody who uses that is moved, and it is deleted when nobody does any more.
https://docs.aws.amazon.com/acm/latest/userguide/import-reimport.html
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from certrail.bundle import Bundle, Facts, fingerprint, split
from certrail.errors import AwsError, BundleRefused, NotOurs, TargetMissing, TargetRefused
from certrail.grants import Conditions, Grant, Scope
from certrail.target import (
    Context,
    Deployed,
    Mover,
    Preflight,
    Region,
    Succession,
    Tags,
    Target,
    Wrong,
    place,
)
from deployers import users
from deployers.ownership import OWNER, identity, tags_of
from deployers.preflight import Import, User, decide, must_know_users, refusals

if TYPE_CHECKING:
    from types_boto3_acm import ACMClient
    from types_boto3_acm.type_defs import (
        CertificateDetailTypeDef,
        ImportCertificateRequestTypeDef,
    )

    from certrail.aws import Aws

ARN = re.compile(r"arn:aws[a-z-]*:acm:([a-z0-9-]+):([0-9]{12}):certificate/[A-Za-z0-9-]+")
# A day after it was replaced, an import that nobody uses is deleted: by then no edge of CloudFront
# serves it any more (preflight.CLOUDFRONT_LAG), and `InUseBy`, which lags behind, is true again. A
# rollback in the meantime finds it.
RETIRE_AFTER = timedelta(days=1)
# AWS has no figure for how long other services do not know an import yet: it is seconds.
KNOWN_AFTER = timedelta(hours=1)
DESCRIBE = "acm:DescribeCertificate"
READ = (DESCRIBE, "acm:GetCertificate", "acm:ListTagsForCertificate")
IMPORT, TAG = "acm:ImportCertificate", "acm:AddTagsToCertificate"

log = logging.getLogger(__name__)


def _arn(text: str) -> str:
    if not ARN.fullmatch(text):
        raise Wrong(
            f"`{text}` is not the ARN of a certificate",
            "it looks like `arn:aws:acm:eu-central-1:111111111111:certificate/…`",
        )
    return text


class Acm(Target):
    """The pipeline's certificate in one region of one account."""

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

    @classmethod
    def grants(
        cls, scope: Scope, targets: Sequence[Self] = (), everywhere: Sequence[str] = ()
    ) -> Sequence[Grant]:
        """A certificate shows nothing that is not public, so any may be read: with a condition on
        tags, one that is gone would be forbidden instead of missing."""
        regions = tuple(sorted({*everywhere, *(target.region for target in targets)}))
        within = _certificates(scope, regions)
        return [
            Grant("LookAtImports", READ, within),
            *_importing(scope, targets, everywhere),
            Grant("FindByTag", ("tag:GetResources",), regions=regions),
            Grant("RetireItsOwn", ("acm:DeleteCertificate",), within, _ours(scope)),
            *users.grants(scope, regions),
        ]

    @property
    def address(self) -> str:
        return f"acm/{place(self.account, self.region)}"

    @property
    def claim(self) -> str | None:
        return f"acm/{self.certificate_arn}" if self.certificate_arn else None

    @property
    def replaceable(self) -> bool:
        return self.certificate_arn is None

    def observe(self, context: Context) -> Deployed | None:
        there = self._find(context)
        return self._deployed(context, there) if there else None

    def preflight(self, facts: Facts, context: Context) -> Preflight | None:
        there = self._find(context, facts)
        if there is None or self._deployed(context, there).fingerprint == facts.fingerprint:
            return None
        return self._decide(there, facts, context, chained=context.chained)

    def deploy(self, bundle: Bundle, context: Context) -> Deployed:
        client = context.aws.acm(self.region)
        there = self._find(context, bundle.facts)
        if there is None:
            arn = self._import(client, bundle, context)
            return Deployed(bundle.fingerprint, arn, bundle.facts.not_after, since=context.now)
        arn = there["CertificateArn"]
        if self._holds(client, arn, bundle):
            self._tag(client, arn)
            return self._holding(bundle, arn, context)
        before = self._decide(there, bundle.facts, context, chained=bool(bundle.chain))
        match before.way:
            case Succession.IN_PLACE:
                for reason in before.reasons:
                    log.warning("imported in place, although: %s", reason)
                self._tag(client, arn)
                self._import(client, bundle, context, arn)
                return self._holding(bundle, arn, context)
            case Succession.REPLACE:
                return self._replace(bundle, there, before, context)
            case Succession.REFUSED:
                raise TargetRefused(
                    f"this certificate cannot take the place of the one under {arn}: "
                    f"{'; '.join(before.reasons)}",
                    where=self.address,
                    next="Issue it with what the import has now, or take away what holds the "
                    "import; what is served stays as it is (docs/targets/acm.md)",
                )

    def tidy(self, context: Context) -> Deployed | None:
        """Delete the imports whose place others took, and those that a run left behind which ended
        before its record: ours by both tags, unused, and a day old as such."""
        held = context.held
        if held is None or (held.since and context.now - held.since < RETIRE_AFTER):
            return None
        ours = set(self._tagged(context))
        retired: list[str] = []
        left: dict[str, datetime] = {}
        for arn in [*held.superseded, *sorted(ours - {*held.superseded})]:
            if arn in {held.resource, self.certificate_arn}:
                continue
            there = _describe(context.aws.acm(self.region), arn)
            if there is None:
                continue
            if arn in ours and self._retire(there, context):
                retired.append(arn)
            elif there.get("InUseBy") or arn in ours:
                left[arn] = there["NotAfter"]
        superseded = tuple(arn for arn in held.superseded if arn in left)
        after = replace(
            held,
            superseded=superseded,
            superseded_end=min((left[arn] for arn in superseded), default=None),
            # As long as one is there, somebody may still have to move.
            followers=held.followers if superseded else (),
            retired=tuple(retired) or held.retired,
        )
        return after if after != held else None

    # The ways

    def _decide(
        self, there: CertificateDetailTypeDef, facts: Facts, context: Context, *, chained: bool
    ) -> Preflight:
        present = _read(there)
        known = must_know_users(present, facts, context.rotation, context.now)
        return decide(
            present,
            facts,
            self._users(present, context) if known else [],
            rotation=context.rotation,
            now=context.now,
            adopted=self.certificate_arn is not None,
            chained=chained,
        )

    def _users(self, present: Import, context: Context) -> list[User]:
        return users.users_of(present.arn, present.in_use_by, context.aws, self.account)

    def _holding(self, bundle: Bundle, arn: str, context: Context) -> Deployed:
        """What the target holds, now that its import has the bundle."""
        held = context.held
        if held is None or held.resource != arn:
            # The record was lost, or the import that it names; whoever used another one follows.
            return self._succeed(bundle, arn, context)
        return replace(held, fingerprint=bundle.fingerprint, not_after=bundle.facts.not_after)

    def _replace(
        self,
        bundle: Bundle,
        there: CertificateDetailTypeDef,
        before: Preflight,
        context: Context,
    ) -> Deployed:
        """Point to another import: one that has the bundle since a rollback took its place or a run
        ended before its record, else a new one."""
        client = context.aws.acm(self.region)
        old = there["CertificateArn"]
        ours = (arn for arn in self._tagged(context) if arn != old and _describe(client, arn))
        new = next((arn for arn in ours if self._holds(client, arn, bundle)), None)
        if new is None:
            new = self._import(client, bundle, context, replacing=True)
        else:
            self._tag(client, new)
        log.info("%s takes the place of %s: %s", new, old, "; ".join(before.reasons))
        return self._succeed(bundle, new, context, there, before.movers)

    def _succeed(
        self,
        bundle: Bundle,
        arn: str,
        context: Context,
        old: CertificateDetailTypeDef | None = None,
        movers: Sequence[Mover] = (),
    ) -> Deployed:
        """`arn` is what everybody is to point to from now on. movers: from `old`."""
        superseded = {old["CertificateArn"]: old["NotAfter"]} if old else {}
        followers = [mover.job for mover in movers]
        known = context.held.superseded if context.held else ()
        for other in dict.fromkeys([*known, *self._tagged(context)]):
            if other == arn or other in superseded:
                continue
            there = _describe(context.aws.acm(self.region), other)
            if there is None:
                continue
            # Somebody may have stayed on it, or was to move in a wave that never began.
            superseded[other] = there["NotAfter"]
            users = self._users(_read(there), context)
            followers += [user.job for user in users if user.job and user.job not in followers]
        return Deployed(
            bundle.fingerprint,
            arn,
            bundle.facts.not_after,
            since=context.now,
            superseded=tuple(superseded),
            superseded_end=min(superseded.values(), default=None),
            followers=tuple(followers),
        )

    def _retire(self, there: CertificateDetailTypeDef, context: Context) -> bool:
        """Delete an import, if nobody uses it and it has been there long enough."""
        client, arn = context.aws.acm(self.region), there["CertificateArn"]
        if there["Type"] != "IMPORTED" or there.get("InUseBy"):
            return False
        if context.now - there["ImportedAt"] < RETIRE_AFTER:
            return False
        # The tags by which it was found are those of an index that lags behind.
        if not identity(context).items() <= _tags(client, arn).items():
            return False
        try:
            client.delete_certificate(CertificateArn=arn)
        except AwsError as error:
            if error.code in {"ResourceInUseException", "ResourceNotFoundException"}:
                log.info("%s is not deleted: %s", arn, error)
                return False
            raise
        log.info(
            "deleted %s, which nothing uses since another import took its place",
            arn,
            extra={"pipeline": context.pipeline, "target": self.address},
        )
        return True

    # Finding

    def _find(
        self, context: Context, facts: Facts | None = None
    ) -> CertificateDetailTypeDef | None:
        """The import: the adopted one, the record's, or of those that carry our tags the newest
        that AWS would let the certificate take the place of.

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
        if recorded:
            return recorded
        tagged = (_describe(client, arn) for arn in self._tagged(context))
        return max(
            (there for there in tagged if there and there["Type"] == "IMPORTED"),
            key=lambda there: (
                facts is None or not any(refusals(_read(there), facts)),
                there["ImportedAt"],
            ),
            default=None,
        )

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

    def _deployed(self, context: Context, there: CertificateDetailTypeDef) -> Deployed:
        arn = there["CertificateArn"]
        held = context.aws.acm(self.region).get_certificate(CertificateArn=arn)
        return Deployed(fingerprint(held["Certificate"]), arn, there["NotAfter"])

    def _holds(self, client: ACMClient, arn: str, bundle: Bundle) -> bool:
        held = client.get_certificate(CertificateArn=arn)
        leaf, chain = _ders(held["Certificate"]), _ders(held.get("CertificateChain", ""))
        # ACM shows the leaf as the chain of what was imported without one.
        return leaf == _ders(bundle.certificate) and (
            chain == _ders(bundle.chain) or (not bundle.chain and chain == leaf)
        )

    # Writing

    def _import(
        self,
        client: ACMClient,
        bundle: Bundle,
        context: Context,
        arn: str | None = None,
        *,
        replacing: bool = False,
    ) -> str:
        """Import as new, with the tags that say whose it is in the same call; or again under `arn`,
        where AWS takes no tags. replacing: whether it takes the place of another one: people who
        look at the two of them are then told which is which."""
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
            if replacing:
                tags["certrail:fingerprint"] = bundle.fingerprint
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
            if error.code == "ValidationException" and "'tags." in error.what:
                raise TargetRefused(
                    f"ACM refused the tags ({error.what})",
                    where=self.address,
                    next="Correct the target's `tags`",
                ) from error
            if error.code in {"ValidationException", "InvalidParameterException"}:
                raise BundleRefused(
                    f"ACM refused the certificate ({error.what})",
                    where=self.address,
                    next="See docs/targets/acm.md",
                ) from error
            raise

    def _tag(self, client: ACMClient, arn: str) -> None:
        """Tags the file gained since the import. What others set stays."""
        if not self.tags:
            return
        present = _tags(client, arn)
        wanted = {key: value for key, value in self.tags.items() if present.get(key) != value}
        if wanted:
            client.add_tags_to_certificate(
                CertificateArn=arn,
                Tags=[{"Key": key, "Value": value} for key, value in wanted.items()],
            )


def _importing(scope: Scope, targets: Sequence[Acm], everywhere: Sequence[str]) -> Iterator[Grant]:
    """https://docs.aws.amazon.com/service-authorization/latest/reference/list_acm.html"""
    if everywhere:
        # Also those that a file may name, which have no tag of ours.
        yield Grant("Import", (TAG, IMPORT), _certificates(scope, everywhere))
    # Tags that the file gained are set before the next import.
    again = (TAG, IMPORT) if any(target.tags for target in targets) else (IMPORT,)
    if own := sorted({target.region for target in targets if not target.certificate_arn}):
        new = {"StringEquals": {f"aws:RequestTag/{OWNER}": scope.owner}}
        yield Grant("ImportNew", (TAG, IMPORT), _certificates(scope, own), new)
        yield Grant("ImportAgain", again, _certificates(scope, own), _ours(scope))
    if adopted := {target.certificate_arn for target in targets if target.certificate_arn}:
        yield Grant("ImportAdopted", again, tuple(sorted(adopted)))


def _certificates(scope: Scope, regions: Sequence[str]) -> tuple[str, ...]:
    return tuple(scope.arn("acm", region, "certificate/*") for region in regions)


def _ours(scope: Scope) -> Conditions:
    return {"StringEquals": {f"aws:ResourceTag/{OWNER}": scope.owner}}


def may_be_unknown(held: Deployed, now: datetime) -> bool:
    """Whether the import is so young that another service may not know it yet."""
    return held.since is not None and now - held.since < KNOWN_AFTER


def is_gone(held: Deployed, home: Acm, aws: Aws) -> bool:
    """Whether somebody deleted an import. Services that are to use it answer in the same words as
    for one that they will never accept."""
    return _describe(aws.acm(home.region), held.resource) is None


def may_look_for_it(scope: Scope, regions: Sequence[str]) -> Grant:
    """For `is_gone`."""
    return Grant("LookForTheImport", (DESCRIBE,), _certificates(scope, regions))


def _describe(client: ACMClient, arn: str) -> CertificateDetailTypeDef | None:
    try:
        return client.describe_certificate(CertificateArn=arn)["Certificate"]
    except AwsError as error:
        if error.code == "ResourceNotFoundException":
            return None
        raise


def _tags(client: ACMClient, arn: str) -> dict[str, str]:
    return tags_of(client.list_tags_for_certificate(CertificateArn=arn)["Tags"])


def _read(there: CertificateDetailTypeDef) -> Import:
    return Import(
        arn=there["CertificateArn"],
        algorithm=there["KeyAlgorithm"].replace("-", "_"),
        key_usages=frozenset(usage["Name"] for usage in there.get("KeyUsages", [])),
        extended_key_usages=frozenset(
            usage["Name"] for usage in there.get("ExtendedKeyUsages", [])
        ),
        names=frozenset(name.lower() for name in there.get("SubjectAlternativeNames", [])),
        not_after=there["NotAfter"],
        in_use_by=tuple(there.get("InUseBy", [])),
    )


def _ders(pem: str) -> tuple[str, ...]:
    return tuple(fingerprint(certificate) for certificate in split(pem))
