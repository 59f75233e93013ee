"""The bucket: certrail's whole state.

    config/pipelines.yaml                                   what the user edits
    accounts/<issuer>.json                                  ACME account: URI and key
    budgets/<issuer>.json                                   what the CA's rate limits leave
    certificates/<pipeline>/<fingerprint>/cert.pem chain.pem fullchain.pem privkey.pem
    certificates/<pipeline>/<fingerprint>/bundle.json       the pointer as it was at its publication
    certificates/<pipeline>/<fingerprint>/revoked.json      that it was revoked: never gone back to
    certificates/<pipeline>/current.json                    the commit point
    certificates/<pipeline>/ordered/<order>/<type>/privkey.pem   key of an order in flight
    orders/<pipeline>.json                                  lease, orders in flight, next attempt
    renewals/<pipeline>.json                                when the CA wants a renewal
    config/reissue.json                                     what `certrail reissue` asked for
    deployments/<pipeline>/<address>.json                   one record per target
    rollouts/<pipeline>.json                                how far the current one has come
    found/<pipeline>.json                                   what the file's selections find
    incoming/<pipeline>/…                                   what somebody else brings; only read

The files of a bundle are written once and never overwritten; `current.json` is written last, and
only if nobody else moved it meanwhile. A reader follows the pointer and checks the digests, so it
sees one whole bundle or an error, never a mixed pair
(docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from certrail.aws import Aws
from certrail.bundle import Bundle, Facts, fingerprint, short
from certrail.errors import AwsError, BundleBroken, NothingPushed, StateError, Superseded
from certrail.keys import KeyType
from certrail.records import Rollout
from certrail.secret import Secret

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import TagTypeDef

T = TypeVar("T")

log = logging.getLogger(__name__)

CONFIG_KEY = "config/pipelines.yaml"
REISSUE_KEY = "config/reissue.json"
# The lifecycle rule of template.yaml expires objects with this tag.
SUPERSEDED_TAG: TagTypeDef = {"Key": "certrail-superseded", "Value": "true"}
# The rule does not know this one. To take the tag away would need another permission.
KEPT_TAG: TagTypeDef = {"Key": "certrail-superseded", "Value": "false"}


@dataclass(frozen=True)
class Issued:
    """What was asked of which CA for a bundle: compared with the file to see what changed.

    domains: as in the file, lower case, in the order of the file. account: the ACME account's URI.
    preferred_chain: as in the file. order: its URL. instead_of: why each issuer that stands before
    this one in the file did not issue, by its name.
    """

    issuer: str
    directory: str
    account: str
    profile: str | None
    key_type: KeyType
    domains: tuple[str, ...]
    preferred_chain: str | None = None
    order: str | None = None
    instead_of: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rollback:
    """Why a generation has an earlier bundle. of, generation: of what it was rolled back from.
    issued: what had been asked of the CA for that."""

    of: str
    generation: int
    reason: str
    by: str
    at: datetime
    issued: Issued | None = None


@dataclass(frozen=True)
class Current:
    """The pointer to the bundle a pipeline should be serving (`current.json`).

    generation: 1 for a pipeline's first bundle; only grows.
    previous: fingerprint of the bundle before this one, kept for a rollback.
    rollback: where this generation is one.
    files: SHA-256 in hex of each file of the bundle, by name.
    """

    pipeline: str
    generation: int
    facts: Facts
    issued: Issued
    files: Mapping[str, str]
    published_at: datetime
    previous: str | None = None
    rollback: Rollback | None = None

    @property
    def fingerprint(self) -> str:
        return self.facts.fingerprint

    @property
    def chained(self) -> bool:
        """Whether it comes with intermediates: known without reading them."""
        return self.files["fullchain.pem"] != self.files["cert.pem"]


@dataclass(frozen=True)
class Revoked:
    """That a certificate was revoked. reason: RFC 5280's word for it."""

    reason: str
    at: datetime


@dataclass(frozen=True)
class Brought:
    """An object under `incoming/`, as it was listed. at: when it was written."""

    key: str
    etag: str
    size: int
    at: datetime

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]


@dataclass(frozen=True)
class Versioned(Generic[T]):
    """A document and the ETag it was read with, to write it back conditionally."""

    value: T
    etag: str


def spell(name: str) -> str:
    """A name as part of an object key or a tag, where `*` is not allowed or not wise."""
    return name.replace("*.", "_wildcard.")


def current_key(pipeline: str) -> str:
    return f"certificates/{spell(pipeline)}/current.json"


def order_key(pipeline: str) -> str:
    return f"orders/{spell(pipeline)}.json"


def renewal_key(pipeline: str) -> str:
    return f"renewals/{spell(pipeline)}.json"


def rollout_key(pipeline: str) -> str:
    return f"rollouts/{spell(pipeline)}.json"


def found_key(pipeline: str) -> str:
    return f"found/{spell(pipeline)}.json"


def incoming_prefix(pipeline: str) -> str:
    return f"incoming/{spell(pipeline)}/"


def budget_key(issuer: str) -> str:
    return f"budgets/{issuer}.json"


def account_key(issuer: str) -> str:
    return f"accounts/{issuer}.json"


def record_prefix(pipeline: str) -> str:
    return f"deployments/{spell(pipeline)}/"


def record_key(pipeline: str, address: str) -> str:
    return f"{record_prefix(pipeline)}{address}.json"


class Store:
    """Reads and writes the bucket. Raises `AwsError` for a refused call, `StateError` and its kinds
    for content that cannot be used."""

    def __init__(self, bucket: str, aws: Aws) -> None:
        self.bucket = bucket
        self._s3 = aws.s3()

    # Documents

    def read(self, key: str, kind: type[T]) -> Versioned[T] | None:
        """The JSON document at `key`, or None where there is none. Raises StateError where the
        document is not of this kind: it is left as it is, for a person to look at."""
        found = self._get(key)
        if found is None:
            return None
        body, etag = found
        try:
            return Versioned(_adapter(kind).validate_json(body), etag)
        except ValidationError as error:
            # The input itself may hold an account key, so only the places and reasons are told.
            reasons = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'document'}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_context=False)
            )
            raise StateError(
                f"not a valid document ({reasons})",
                where=f"s3://{self.bucket}/{key}",
                next="Restore an earlier version of the object, or delete it if it is not needed",
            ) from None

    def read_or(self, key: str, kind: type[T], empty: T) -> Versioned[T]:
        """As `read`, of a document that can be made anew: `empty` where there is none, or where it
        cannot be read, to be written over with the ETag it has; empty, too, where there is none."""
        found = self._get(key)
        if found is None:
            return Versioned(empty, "")
        body, etag = found
        try:
            return Versioned(_adapter(kind).validate_json(body), etag)
        except ValidationError:
            log.warning("not a valid document, and made anew: s3://%s/%s", self.bucket, key)
            return Versioned(empty, etag)

    def write(self, key: str, value: T, kind: type[T], etag: str | None) -> str:
        """Write a document over the version `etag`, or as a new one where `etag` is None. Returns
        the new ETag. Raises Superseded where somebody else wrote it meanwhile."""
        return self._put_document(key, _adapter(kind).dump_json(value, indent=2), etag)

    def require_kms(self, key: str) -> None:
        """Raise StateError where the object at `key`, just written, was not encrypted with KMS:
        asked with one that may be read, before one is written that may not."""
        _require_kms(self.bucket, self._s3.head_object(Bucket=self.bucket, Key=key))

    def keys(self, prefix: str) -> Iterator[str]:
        for page in self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        ):
            for item in page.get("Contents", []):
                yield item["Key"]

    # The pipelines file

    def pipelines_text(self) -> str:
        """The text of `config/pipelines.yaml`. Raises NothingPushed in a bucket still empty,
        StateError where certificates are there and the file that says to renew them is not."""
        found = self._get(CONFIG_KEY)
        if found is None:
            published = next(self.keys("certificates/"), None)
            raise (StateError if published else NothingPushed)(
                "there is no pipelines file in the bucket"
                + (", so nothing in it is renewed" if published else ""),
                where=f"s3://{self.bucket}/{CONFIG_KEY}",
                next="Run `certrail push`",
            )
        return found[0].decode()

    def pushed_at(self) -> datetime | None:
        """When the pipelines file was pushed last, None where it was not."""
        try:
            answer = self._s3.head_object(Bucket=self.bucket, Key=CONFIG_KEY)
        except AwsError as error:
            if error.code in {"404", "NoSuchKey"}:
                return None
            raise
        return answer["LastModified"]

    def put_pipelines_text(self, text: str) -> None:
        self._s3.put_object(
            Bucket=self.bucket, Key=CONFIG_KEY, Body=text.encode(), ContentType="application/yaml"
        )

    # Bundles

    def current(self, pipeline: str) -> Current | None:
        found = self.read(current_key(pipeline), Current)
        return found.value if found else None

    def bundle(self, current: Current) -> Bundle:
        """The bundle `current` points to. Raises BundleBroken where a file is missing or is not
        what was published."""
        files = {name: self._bundle_file(current, name) for name in current.files}
        try:
            certificate, chain, key = files["cert.pem"], files["chain.pem"], files["privkey.pem"]
        except KeyError as missing:
            raise self._broken(current, f"current.json does not list {missing}") from None
        if fingerprint(certificate) != current.fingerprint:
            raise self._broken(current, "cert.pem is not the certificate of current.json")
        return Bundle(current.facts, certificate, chain, Secret(key))

    def chain(self, current: Current) -> str:
        """The intermediates of the bundle `current` points to, PEM. Raises BundleBroken."""
        return self._bundle_file(current, "chain.pem")

    def published(self, pipeline: str, fingerprint: str) -> tuple[str, Secret | None] | None:
        """Certificate, PEM, and private key of a bundle, current or not; without the key where the
        lifecycle rule has removed it."""
        prefix = _bundle_prefix(pipeline, fingerprint)
        certificate, key = self._get(f"{prefix}cert.pem"), self._get(f"{prefix}privkey.pem")
        if certificate is None:
            return None
        return certificate[0].decode(), Secret(key[0].decode()) if key else None

    def publish(
        self,
        pipeline: str,
        bundle: Bundle,
        issued: Issued,
        *,
        after: Versioned[Current] | None,
        now: datetime,
    ) -> Current:
        """Make `bundle` the pipeline's current one: files first, the pointer last.

        after: the pointer as read before the order was made, None for a first bundle. Raises
        Superseded where another writer published since; the files written here stay, unused.
        """
        files = {
            "cert.pem": bundle.certificate,
            "chain.pem": bundle.chain,
            "fullchain.pem": bundle.fullchain,
            "privkey.pem": bundle.private_key.reveal(),
        }
        prefix = _bundle_prefix(pipeline, bundle.fingerprint)
        for name, text in files.items():
            self._put_once(prefix + name, text.encode())
        current = Current(
            pipeline=pipeline,
            generation=after.value.generation + 1 if after else 1,
            facts=bundle.facts,
            issued=issued,
            files={name: _digest(text.encode()) for name, text in files.items()},
            published_at=now,
            previous=after.value.fingerprint if after else None,
        )
        self._put_once_document(f"{prefix}bundle.json", current)
        if after:
            # Published before these documents were kept, it has none yet.
            was = _bundle_prefix(pipeline, after.value.fingerprint)
            self._put_once_document(f"{was}bundle.json", after.value)
        self.write(current_key(pipeline), current, Current, after.etag if after else None)
        self._supersede_keys_but(current)
        return current

    def published_as(self, pipeline: str, fingerprint: str) -> Current | None:
        """The pointer of a bundle as it was when that was published; None where there is no such
        bundle, or it was published before these were kept."""
        found = self.read(f"{_bundle_prefix(pipeline, fingerprint)}bundle.json", Current)
        return found.value if found else None

    def revoked(self, pipeline: str, fingerprint: str) -> Revoked | None:
        """What is known of a bundle's revocation; None where nothing is."""
        found = self.read(_revoked_key(pipeline, fingerprint), Revoked)
        return found.value if found else None

    def mark_revoked(self, pipeline: str, fingerprint: str, revoked: Revoked) -> None:
        """Say that a bundle was revoked. The first word stands."""
        with suppress(Superseded):
            self.write(_revoked_key(pipeline, fingerprint), revoked, Revoked, None)

    def roll_back(
        self, to: Current, why: Rollback, *, after: Versioned[Current], now: datetime
    ) -> Current:
        """Make an earlier bundle the current one again, as a new generation.

        to: as `published_as` has it. after: the pointer as read before it was decided. Raises
        Superseded where another writer published since.

        Whether the private key is still there is asked before (`has_privkey`); one that the
        lifecycle rule was to remove is kept before and after (`keep_privkey`).
        """
        current = replace(
            to,
            generation=after.value.generation + 1,
            published_at=now,
            previous=after.value.fingerprint,
            rollback=replace(why, issued=after.value.issued),
        )
        self.write(current_key(to.pipeline), current, Current, after.etag)
        return current

    def fingerprints(self, pipeline: str) -> list[str]:
        """Of all the bundles there are."""
        folder = current_key(pipeline).removesuffix("current.json")
        parts = (key.removeprefix(folder).split("/") for key in self.keys(folder))
        return sorted({part[0] for part in parts if part[1:] == ["cert.pem"]})

    def has_privkey(self, pipeline: str, fingerprint: str) -> bool:
        """Whether a bundle's private key is there. Lists, and does not read."""
        name = f"{_bundle_prefix(pipeline, fingerprint)}privkey.pem"
        return name in self.keys(name)

    def is_superseded(self, pipeline: str, fingerprint: str) -> bool:
        """Whether the lifecycle rule is about to remove a bundle's private key."""
        name = f"{_bundle_prefix(pipeline, fingerprint)}privkey.pem"
        tags = self._s3.get_object_tagging(Bucket=self.bucket, Key=name)["TagSet"]
        return SUPERSEDED_TAG in tags

    def keep_privkey(self, pipeline: str, fingerprint: str) -> None:
        """Take back that the lifecycle rule may remove a bundle's private key. Done before
        the pointer is moved, and after: a publication may tag it in between, and one that tags it
        later looks at the pointer after that, and does the same."""
        self._keep(f"{_bundle_prefix(pipeline, fingerprint)}privkey.pem")

    # What somebody else brings

    def brought(self, pipeline: str) -> list[Brought]:
        """What lies under `incoming/` for a pipeline, not what lies in folders there."""
        prefix = incoming_prefix(pipeline)
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix, Delimiter="/"
        )
        return [
            Brought(item["Key"], item["ETag"], item["Size"], item["LastModified"])
            for page in pages
            for item in page.get("Contents", [])
            if item["Key"] != prefix
        ]

    def read_brought(self, file: Brought) -> bytes:
        """The object as it was listed. Raises AwsError `PreconditionFailed` where it was written
        again since, `NoSuchKey` where it has gone."""
        answer = self._s3.get_object(Bucket=self.bucket, Key=file.key, IfMatch=file.etag)
        return answer["Body"].read()

    def bring(self, pipeline: str, name: str, body: bytes) -> str:
        """Put a file there, as somebody else would. Returns its key."""
        key = f"{incoming_prefix(pipeline)}{name}"
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return key

    # Keys of orders

    def order_privkey(self, pipeline: str, order: str, kind: KeyType) -> Secret | None:
        """The private key of this type that was kept for an order, by the order's URL."""
        found = self._get(f"{_order_prefix(pipeline, order)}{kind}/privkey.pem")
        return Secret(found[0].decode()) if found else None

    def keep_order_privkey(self, pipeline: str, order: str, kind: KeyType, key: Secret) -> None:
        """Keep a key before the order is finalized with it: whoever finds the certificate finds its
        key. Raises BundleBroken where another is kept for this order, StateError without KMS."""
        name = f"{_order_prefix(pipeline, order)}{kind}/privkey.pem"
        self._put_once(name, key.reveal().encode())

    def forget_order_privkeys(self, pipeline: str, order: str) -> None:
        """Let the lifecycle rule remove the order's keys: one is in a bundle now, or the order is
        over."""
        for key in self.keys(_order_prefix(pipeline, order)):
            self._supersede(key)

    def _supersede_keys_but(self, current: Current) -> None:
        """Tag every key that no rollback will want any more: all but those of this bundle, of the
        one before, and of the last one with which all waves had passed. An earlier run may have
        ended before it came to that. The certificate is published whatever becomes of it; the next
        publication tries again."""
        folder = current_key(current.pipeline).removesuffix("current.json")
        tagged: dict[str, str] = {}
        try:
            rollout = self.read(rollout_key(current.pipeline), Rollout)
            proven = rollout.value.proven_before(current.generation) if rollout else None
            kept = {current.fingerprint, current.previous, proven, "ordered"}
            for key in self.keys(folder):
                fingerprint, _, name = key.removeprefix(folder).partition("/")
                if name == "privkey.pem" and fingerprint not in kept:
                    self._supersede(key)
                    tagged[fingerprint] = key
        except (AwsError, StateError) as error:
            log.warning("private keys that are not needed any more stay: %s", error)
        # Somebody may have rolled back to one of them meanwhile.
        since = self.current(current.pipeline) if tagged else None
        for needed in (since.fingerprint, since.previous) if since else ():
            if needed in tagged:
                self._keep(tagged[needed])

    def _supersede(self, key: str) -> None:
        self._s3.put_object_tagging(
            Bucket=self.bucket, Key=key, Tagging={"TagSet": [SUPERSEDED_TAG]}
        )

    def _keep(self, key: str) -> None:
        self._s3.put_object_tagging(Bucket=self.bucket, Key=key, Tagging={"TagSet": [KEPT_TAG]})

    def _bundle_file(self, current: Current, name: str) -> str:
        found = self._get(_bundle_prefix(current.pipeline, current.fingerprint) + name)
        if found is None:
            raise self._broken(current, f"{name} is missing")
        body, _ = found
        if _digest(body) != current.files[name]:
            raise self._broken(current, f"{name} is not what was published (digest differs)")
        return body.decode()

    def _broken(self, current: Current, what: str) -> BundleBroken:
        prefix = _bundle_prefix(current.pipeline, current.fingerprint)
        return BundleBroken(
            f"bundle {short(current.fingerprint)} is broken: {what}",
            where=f"s3://{self.bucket}/{prefix}",
            next=f"Restore the object's earlier version, or `certrail issue {current.pipeline}`",
        )

    # Objects

    def _get(self, key: str) -> tuple[bytes, str] | None:
        try:
            answer = self._s3.get_object(Bucket=self.bucket, Key=key)
        except AwsError as error:
            if error.code == "NoSuchKey":
                return None
            raise
        return answer["Body"].read(), answer["ETag"]

    def _put_document(self, key: str, body: bytes, etag: str | None) -> str:
        condition: dict[str, Any] = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            answer = self._s3.put_object(
                Bucket=self.bucket, Key=key, Body=body, ContentType="application/json", **condition
            )
        except AwsError as error:
            # Three ways to say that somebody else was quicker. The last is 404: the version to
            # replace was deleted meanwhile
            # (docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
            if error.code not in {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"}:
                raise
            # botocore may have repeated a write that had succeeded: then the content is ours.
            found = self._get(key)
            if found is not None and found[0] == body:
                return found[1]
            raise Superseded(
                "somebody else wrote this meanwhile",
                where=f"s3://{self.bucket}/{key}",
                next="Nothing was overwritten; the next run reads it again",
            ) from error
        return answer["ETag"]

    def _put_once_document(self, key: str, current: Current) -> None:
        """An earlier run may have come as far as this; what it wrote stands."""
        try:
            self._put_document(key, _adapter(Current).dump_json(current, indent=2), None)
        except Superseded:
            log.info("published before: s3://%s/%s", self.bucket, key)

    def _put_once(self, key: str, body: bytes) -> None:
        try:
            answer = self._s3.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=body,
                ContentType="application/x-pem-file",
                IfNoneMatch="*",
            )
        except AwsError as error:
            if error.code != "PreconditionFailed":
                raise
            found = self._get(key)
            if found is None or found[0] != body:
                raise BundleBroken(
                    "another file is already stored under this fingerprint",
                    where=f"s3://{self.bucket}/{key}",
                    next="It was left as it is; find out who wrote it",
                ) from error
            return
        # cert.pem is written first, so an unencrypted bucket is found before the key goes there.
        _require_kms(self.bucket, answer)


_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    if kind not in _adapters:
        # It takes ten milliseconds to make one.
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def _require_kms(bucket: str, answer: Mapping[str, Any]) -> None:
    if answer.get("ServerSideEncryption") not in {"aws:kms", "aws:kms:dsse"}:
        raise StateError(
            "the bucket does not encrypt with KMS, so no private key is written to it",
            where=f"s3://{bucket}",
            next="Set the bucket's default encryption to SSE-KMS, as template.yaml does",
        )


def _bundle_prefix(pipeline: str, fingerprint: str) -> str:
    return f"certificates/{spell(pipeline)}/{fingerprint}/"


def _revoked_key(pipeline: str, fingerprint: str) -> str:
    return f"{_bundle_prefix(pipeline, fingerprint)}revoked.json"


def _order_prefix(pipeline: str, order: str) -> str:
    name = hashlib.sha256(order.encode()).hexdigest()[:32]
    return f"certificates/{spell(pipeline)}/ordered/{name}/"


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
