"""Certificates that somebody else issued: found, checked, and published like our own.

What lies under `incoming/<pipeline>/` is read and never written: what we did not create we do not
overwrite and do not delete. How it went stands where issuing stands, in `orders/<pipeline>.json`.

What was taken once is not taken again, until something there is written anew: who rolled back from
it stays where he is.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from certrail import credentials
from certrail.aws import Aws
from certrail.bundle import Bundle, short
from certrail.errors import AwsError, BundleBroken, Incomplete, Superseded
from certrail.grants import Grant, Scope
from certrail.pipelines.model import INCOMING, Incoming
from certrail.pipelines.resolved import Pipeline
from certrail.secret import Secret
from certrail.store import Brought, Current, Issued, Store, current_key, incoming_prefix
from issuer import lease
from issuer.checks import checked
from issuer.clock import Clock
from issuer.due import waits
from issuer.layouts import (
    CERTBOT,
    PKCS12,
    Foreign,
    bundles,
    from_acm,
    misfit,
    opened,
)
from issuer.lease import leased
from issuer.run import log

if TYPE_CHECKING:
    from types_boto3_acm import ACMClient
    from types_boto3_acm.type_defs import CertificateDetailTypeDef

# Ten times what the longest chain with the largest key takes.
LARGEST = 1_000_000
# Four files are four uploads: so long after the last one more may come.
PATIENCE = timedelta(hours=1)
# Somebody writes at this moment: what comes of it is an event of its own.
SOON = timedelta(minutes=1)
# Who writes there now, and what is read when it has gone.
MOVED = {"PreconditionFailed", "NoSuchKey", "404"}


class Source(Protocol):
    """Where a bundle lies. where: for people. mark: another one when there is something new."""

    @property
    def where(self) -> str: ...

    @property
    def mark(self) -> str: ...

    def open(self, now: datetime) -> Foreign:
        """Raises BundleBroken, Incomplete, AwsError, StateError."""


class Teller(Protocol):
    def issued(self, current: Current) -> None: ...


def receive(
    pipeline: Pipeline[Any],
    store: Store,
    aws: Aws,
    clock: Clock,
    teller: Teller,
    *,
    asked: bool = False,
) -> Current | None:
    """Publish what came in for a pipeline that is not ours to issue. asked: also where it was
    looked at before.

    Returns what is current after it, None where there was nothing new. What is current stays where
    anything is wrong. Raises BundleBroken and Superseded for what cannot be taken, Incomplete where
    the rest is waited for, StateError, AwsError, all written to `orders/<pipeline>.json` first; and
    Busy.
    """
    assert pipeline.incoming is not None  # noqa: S101  the caller chose it
    name = pipeline.name
    source: Source | None
    try:
        source = find(pipeline, pipeline.incoming, store, aws)
    except AwsError as error:
        source = Unseen(error)
    progress = lease.read(store, name)
    mark = source.mark if source else ""
    if not asked and _is_settled(pipeline, progress, mark, store, clock.now()):
        return None
    with leased(store, name, mark, clock, pipeline.configuration) as held:
        if held.progress.wanted != mark:
            held.begin(mark)
        before = store.read(current_key(name), Current)
        current = before.value if before else None
        taken = None
        if source is not None:
            bundle = _checked(pipeline, source, clock.now())
            if _is_news(bundle, current, source):
                issued = Issued(
                    issuer=INCOMING,
                    directory=source.where,
                    account="",
                    profile=None,
                    key_type=pipeline.key_type,
                    domains=pipeline.domains,
                )
                taken = store.publish(name, bundle, issued, after=before, now=clock.now())
                fields = {"pipeline": name, "fingerprint": taken.fingerprint}
                log.info("published what came in: %s", source.where, extra=fields)
                teller.issued(taken)
        held.succeeded(troubled=False)
        return taken


def find(pipeline: Pipeline[Any], incoming: Incoming, store: Store, aws: Aws) -> Source | None:
    """Where the bundle lies that was brought last; None where there is none. Raises AwsError."""
    if incoming.certificate_arn is not None:
        arn = incoming.certificate_arn
        acm = aws.acm(arn.split(":")[3])
        return InAcm(acm, acm.describe_certificate(CertificateArn=arn)["Certificate"])
    there = {file.name: file for file in store.brought(pipeline.name)}
    lying = [tuple(there[name] for name in names) for names in bundles(there)]
    if not lying:
        return None
    # By name where two came in the same second: S3 tells no more.
    files = max(lying, key=lambda each: max((file.at, file.name) for file in each))
    folder = f"s3://{store.bucket}/{incoming_prefix(pipeline.name)}"
    return InBucket(store, folder, files, incoming.password_secret, aws)


def _is_settled(
    pipeline: Pipeline[Any],
    progress: lease.Progress | None,
    mark: str,
    store: Store,
    now: datetime,
) -> bool:
    """Whether this was looked at before, and nothing has changed since."""
    if progress is None:
        return not mark
    if progress.wanted != mark or progress.configuration != pipeline.configuration:
        return False
    if progress.holder is not None and not progress.held(now):
        return False
    if progress.error is None and progress.waits_for is None:
        return True
    return waits(pipeline, progress, now, None, store.pushed_at())


def _checked(pipeline: Pipeline[Any], source: Source, now: datetime) -> Bundle:
    foreign = source.open(now)
    try:
        return checked(
            foreign.fullchain,
            foreign.private_key,
            domains=pipeline.domains,
            key_type=pipeline.key_type,
            now=now,
        )
    except BundleBroken as error:
        raise BundleBroken(
            error.what,
            where=source.where,
            next="Bring another one, or change `domains` or `key_type` of the pipeline; what is "
            "current stays",
        ) from None


def _is_news(bundle: Bundle, current: Current | None, source: Source) -> bool:
    """Raises Superseded where what is current is newer."""
    if current is None:
        return True
    back = current.rollback
    if bundle.fingerprint in {current.fingerprint, back.of if back else None}:
        return False
    if bundle.facts.not_before < current.facts.not_before:
        raise Superseded(
            f"{short(bundle.fingerprint)} is valid from {bundle.facts.not_before:%Y-%m-%d %H:%M} "
            f"UTC, and {short(current.fingerprint)}, which is current, from "
            f"{current.facts.not_before:%Y-%m-%d %H:%M} UTC: it is older, and not taken",
            where=source.where,
            next="Bring a newer one; to go back to an earlier one, run `certrail rollback "
            f"{current.pipeline}`",
            retryable=False,
        )
    return True


@dataclass(frozen=True)
class InBucket:
    """Files under `incoming/`, of one layout. folder: with a slash at its end."""

    store: Store
    folder: str
    files: tuple[Brought, ...]
    password_secret: str | None
    aws: Aws

    @property
    def where(self) -> str:
        return self.folder + (self.files[0].name if len(self.files) == 1 else "")

    @property
    def mark(self) -> str:
        return _digest(sorted([file.key, file.etag] for file in self.files))

    def open(self, now: datetime) -> Foreign:
        files = {file.name: self._read(file, now) for file in self.files}
        if self.files[0].name in CERTBOT:
            self._require_whole(files, now)
        password = None
        if self.password_secret and self.files[0].name.endswith(PKCS12):
            password = credentials.fetch(self.aws, self.password_secret)
        return opened(files, password, self.folder)

    def _require_whole(self, files: Mapping[str, bytes], now: datetime) -> None:
        why = misfit(files, self.folder)
        if why is None:
            return
        over = max(file.at for file in self.files) + PATIENCE
        remedy = f"Upload all of {', '.join(CERTBOT)} of one certificate, in any order"
        if now < over:
            raise Incomplete(why, where=self.folder, next=remedy, retry_at=over)
        raise BundleBroken(
            f"{why}, and nothing came for an hour", where=self.folder, next=f"{remedy}, once more"
        )

    def _read(self, file: Brought, now: datetime) -> bytes:
        at = f"{self.folder}{file.name}"
        if file.size > LARGEST:
            raise BundleBroken(
                f"it is {file.size} bytes long, and a bundle has at most {LARGEST}",
                where=at,
                next="Bring the certificate, its chain and its key, and nothing else",
            )
        try:
            return self.store.read_brought(file)
        except AwsError as error:
            if error.code not in MOVED:
                raise
            raise Incomplete(
                "it is written at this moment",
                where=at,
                next="Nothing needs doing: it is looked at again",
                retry_at=now + SOON,
            ) from error


@dataclass(frozen=True)
class InAcm:
    """A certificate of ACM that can be exported. described: as ACM does."""

    acm: ACMClient
    described: CertificateDetailTypeDef

    @property
    def where(self) -> str:
        return self.described["CertificateArn"]

    @property
    def mark(self) -> str:
        return _digest([self.where, self.described.get("Serial"), self.described["Status"]])

    def open(self, now: datetime) -> Foreign:
        options = self.described.get("Options", {})
        if self.described.get("Type") != "PRIVATE" and options.get("Export") != "ENABLED":
            raise BundleBroken(
                "ACM does not export this certificate",
                where=self.where,
                next="Request one with the option `Export=ENABLED`; what it is cannot be changed",
            )
        if (status := self.described["Status"]) != "ISSUED":
            raise BundleBroken(
                f"the certificate is {status} in ACM",
                where=self.where,
                next="See to it in ACM that it is issued; it is looked at every hour",
            )
        # Of hexadecimal digits: ACM takes ASCII, but not #, $ and %.
        passphrase = Secret(secrets.token_hex(32))
        answer = self.acm.export_certificate(
            CertificateArn=self.where, Passphrase=passphrase.reveal().encode()
        )
        said = {key: str(value) for key, value in answer.items() if key != "ResponseMetadata"}
        return from_acm(said, passphrase, self.where)


@dataclass(frozen=True)
class Unseen:
    """What AWS does not let us see."""

    error: AwsError
    where: str = ""

    @property
    def mark(self) -> str:
        return _digest([str(self.error)])

    def open(self, now: datetime) -> Foreign:
        raise self.error


def grants(certificates: Sequence[str]) -> tuple[Grant, ...]:
    """What exporting from ACM takes. certificates: ARNs."""
    return (
        Grant(
            "ExportCertificates",
            ("acm:DescribeCertificate", "acm:ExportCertificate"),
            tuple(certificates),
        ),
    )


def grants_to_bring(scope: Scope, region: str, key: str, pipeline: str) -> tuple[Grant, ...]:
    """What somebody needs who brings bundles for one pipeline. region: the bucket's. key: ARN of
    the bucket's."""
    folder = f"arn:{scope.partition}:s3:::{scope.owner}/{incoming_prefix(pipeline)}*"
    through = {"StringEquals": {"kms:ViaService": f"s3.{region}.amazonaws.com"}}
    return (
        Grant("Bring", ("s3:PutObject",), (folder,)),
        Grant("EncryptThroughS3", ("kms:GenerateDataKey",), (key,), through),
    )


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
