"""secretsmanager: certificate, chain and private key as one JSON secret.

One secret, one version, one value: a reader never sees a certificate with another one's key.
https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator, Field

from certrail.bundle import Bundle
from certrail.errors import AwsError, DeployError, NotOurs, TargetMissing, TargetRefused
from certrail.grants import Conditions, Grant, Scope
from certrail.secret import Secret
from certrail.store import spell
from certrail.target import Context, Deployed, Region, Tags, Target, Wrong, place

if TYPE_CHECKING:
    from types_boto3_secretsmanager import SecretsManagerClient
    from types_boto3_secretsmanager.type_defs import (
        CreateSecretRequestTypeDef,
        DescribeSecretResponseTypeDef,
    )

NAME = re.compile(r"[A-Za-z0-9/_+=.@-]{1,512}")
# AWS appends a hyphen and six characters to the name to make the ARN, and takes a name that ends
# like that for a whole ARN's end.
LOOKS_LIKE_ARN = re.compile(r".*-[^/]{6}")
VALUE_LIMIT = 65_536
# Encrypt: without it a changed key does not reach the versions that are there, and nobody is told
# (docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html).
USE_KEY = ("kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey")
OWNER, PIPELINE = "certrail:owner", "certrail:pipeline"
FINGERPRINT, VERSION, NOT_AFTER = "certrail:fingerprint", "certrail:version", "certrail:not-after"


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        odd = "".join(sorted(set(re.sub(r"[A-Za-z0-9/_+=.@-]", "", text))))
        raise Wrong(
            f"`{text}` cannot name a secret",
            f"leave out `{odd}`: ASCII letters, digits and `/_+=.@-` only"
            if odd
            else "1 to 512 characters",
        )
    if LOOKS_LIKE_ARN.fullmatch(text):
        raise Wrong(
            f"`{text}` ends in a hyphen and six characters, like the end of a secret's ARN",
            f"`{text}/bundle`",
        )
    return text


# What `shape` is tried on when the file is read, so that a wrong one is found there.
SPECIMEN: dict[str, Any] = {
    "certificate": "-----BEGIN CERTIFICATE-----",
    "chain": "-----BEGIN CERTIFICATE-----",
    "fullchain": "-----BEGIN CERTIFICATE-----",
    "private_key": "-----BEGIN PRIVATE KEY-----",
    "fingerprint": "0" * 64,
    "not_before": "2026-01-01T00:00:00Z",
    "not_after": "2026-04-01T00:00:00Z",
    "domains": ["example.com"],
    "serial": "1",
    "issuer": "CN=Example",
}


def _shape(text: str) -> str:
    fields = f"the document has {', '.join(SPECIMEN)}"
    try:
        value = jmespath.search(text, SPECIMEN)
    except JMESPathError as error:
        reason = str(error).splitlines()[0].removeprefix("Invalid jmespath expression: ")
        raise Wrong(
            f"`{text}` is not a JMESPath expression for the document ({reason.rstrip(':')})", fields
        ) from None
    if value is None or not isinstance(value, dict | str):
        raise Wrong(f"`{text}` makes neither an object nor a text", fields)
    if isinstance(value, dict) and (empty := [key for key in value if value[key] is None]):
        raise Wrong(f"`{text}` finds nothing for `{'`, `'.join(empty)}`", fields)
    return text


Shape = Annotated[str, AfterValidator(_shape)]


class Secretsmanager(Target):
    """One secret."""

    type: Literal["secretsmanager"] = "secretsmanager"
    name: Annotated[str, AfterValidator(_name)] = Field(
        description="Name of the secret; it is created where there is none.",
        examples=["tls/shop/bundle"],
    )
    region: Region = Field(description="Region of the secret.")
    kms_key: str | None = Field(
        default=None,
        description="Key that encrypts the secret: id, ARN or alias. Left out, a new secret gets "
        "AWS's own key, and an existing one keeps what it has.",
        examples=["alias/tls"],
    )
    replica_regions: tuple[Region, ...] = Field(
        default=(),
        description="Other regions that get a copy, encrypted with AWS's own key there.",
        examples=[["us-east-1"]],
    )
    shape: Shape | None = Field(
        default=None,
        description="JMESPath expression that makes the secret's value from the document: an "
        "object, or one text. Left out, the whole document.",
        examples=["{crt: fullchain, key: private_key}"],
    )
    tags: Tags = Field(default={}, description="Tags of the secret, besides certrail's own.")

    @classmethod
    def grants(
        cls, scope: Scope, targets: Sequence[Self] = (), everywhere: Sequence[str] = ()
    ) -> Sequence[Grant]:
        put = tuple(
            f"secretsmanager:{operation}"
            for operation in (
                "CreateSecret",
                "DescribeSecret",
                "PutSecretValue",
                "TagResource",
                "UpdateSecretVersionStage",
            )
        )
        every = tuple(scope.arn("secretsmanager", region, "secret:*") for region in everywhere)

        def secrets(chosen: Iterable[Self], suffix: str = "-??????") -> tuple[str, ...]:
            names = sorted((each.region, each.name) for each in chosen)
            return tuple(
                scope.arn("secretsmanager", region, f"secret:{name}{suffix}")
                for region, name in names
            )

        # Of a secret that is not there AWS may ask without the six characters that it will get.
        grants = [Grant("Put", put, (*secrets(targets), *secrets(targets, ""), *every))]
        if copied := (*secrets(each for each in targets if each.replica_regions), *every):
            grants.append(Grant("Replicate", ("secretsmanager:ReplicateSecretToRegions",), copied))
        if sealed := (*secrets(each for each in targets if each.kms_key), *every):
            grants.append(Grant("SetKey", ("secretsmanager:UpdateSecret",), sealed))
        return [*grants, *_keys(scope, targets, everywhere)]

    @property
    def address(self) -> str:
        return f"secretsmanager/{place(self.account, self.region)}/{self.name}"

    def observe(self, context: Context) -> Deployed | None:
        found = self._read(context.aws.secretsmanager(self.region))
        if found is None:
            return None
        version, tags = _current(found), _tags_of(found)
        # The tags say which version they speak of; after a foreign write they speak of another.
        known = version is not None and tags.get(VERSION) == version
        complete = known and not self._lacking(found) and not _failed_replicas(found)
        return Deployed(
            tags.get(FINGERPRINT, "") if complete else "",
            found["ARN"],
            datetime.fromisoformat(tags[NOT_AFTER]) if known and NOT_AFTER in tags else None,
            version,
        )

    def deploy(self, bundle: Bundle, context: Context) -> Deployed:
        client = context.aws.secretsmanager(self.region)
        value = self._value(bundle)
        # As the version's id, the digest makes a repeated write the same write.
        version = hashlib.sha256(value.reveal().encode()).hexdigest()
        tags = {
            **self.tags,
            OWNER: context.owner,
            PIPELINE: spell(context.pipeline),
            FINGERPRINT: bundle.fingerprint,
            VERSION: version,
            NOT_AFTER: _stamp(bundle.facts.not_after),
        }
        found = self._read(client)
        try:
            if found is None:
                arn = self._create(client, value, version, tags)
                return Deployed(bundle.fingerprint, arn, bundle.facts.not_after, version)
            self._check_ours(found, context)
            self._update(client, found, value, version, tags)
        except AwsError as error:
            raise self._refused(error) from error
        failed = _failed_replicas(found)
        if failed:
            raise TargetRefused(
                f"the copies in {', '.join(failed)} failed; the secret itself is up to date",
                where=self.address,
                next="See the secret's replication status; a secret of the same name may be there",
            )
        return Deployed(bundle.fingerprint, found["ARN"], bundle.facts.not_after, version)

    # Reading

    def _read(self, client: SecretsManagerClient) -> DescribeSecretResponseTypeDef | None:
        try:
            found = client.describe_secret(SecretId=self.name)
        except AwsError as error:
            if error.code == "ResourceNotFoundException":
                return None
            raise
        if found.get("DeletedDate"):
            raise self._deleted()
        return found

    def _lacking(self, found: DescribeSecretResponseTypeDef) -> tuple[str, ...]:
        """The regions that have no copy yet."""
        present = {replica["Region"] for replica in found.get("ReplicationStatus", [])}
        return tuple(region for region in self.replica_regions if region not in present)

    def _check_ours(self, found: DescribeSecretResponseTypeDef, context: Context) -> None:
        tags = _tags_of(found)
        owner, pipeline = tags.get(OWNER), tags.get(PIPELINE)
        if found.get("OwningService"):
            what = f"the secret belongs to {found['OwningService']}"
        elif found.get("RotationEnabled"):
            what = "the secret is rotated by a function, which would overwrite it"
        elif found.get("PrimaryRegion", self.region) != self.region:
            what = f"the secret is a copy of the one in {found['PrimaryRegion']}"
        elif owner not in {None, context.owner}:
            what = f"the secret belongs to another installation of certrail, {owner}"
        elif pipeline not in {None, spell(context.pipeline)}:
            what = f"the secret belongs to the pipeline {pipeline}"
        else:
            return
        raise NotOurs(what, where=self.address, next="Choose another `name` for the target")

    # The value

    def _value(self, bundle: Bundle) -> Secret:
        value: Any = document(bundle)
        if self.shape:
            try:
                value = jmespath.search(self.shape, value)
            except JMESPathError as error:
                # Its text may quote what it was applied to: the private key.
                raise TargetRefused(
                    f"`shape` cannot be applied to the document ({type(error).__name__})",
                    where=self.address,
                    next="The document's fields are in docs/targets/secretsmanager.md",
                ) from None
        if not isinstance(value, dict | str) or not value:
            raise TargetRefused(
                f"`shape` makes {type(value).__name__}, not an object or a text",
                where=self.address,
                next="The document's fields are in docs/targets/secretsmanager.md",
            )
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        if (size := len(text.encode())) > VALUE_LIMIT:
            raise TargetRefused(
                f"the value has {size:,} bytes, and AWS takes {VALUE_LIMIT:,}",
                where=self.address,
                next="Leave out with `shape` what no reader needs",
            )
        return Secret(text)

    # Writing

    def _create(
        self, client: SecretsManagerClient, value: Secret, version: str, tags: Mapping[str, str]
    ) -> str:
        request: CreateSecretRequestTypeDef = {
            "Name": self.name,
            "SecretString": value.reveal(),
            "ClientRequestToken": version,
            "Tags": [{"Key": key, "Value": text} for key, text in tags.items()],
        }
        if self.kms_key:
            request["KmsKeyId"] = self.kms_key
        if self.replica_regions:
            request["AddReplicaRegions"] = [{"Region": region} for region in self.replica_regions]
        return client.create_secret(**request)["ARN"]

    def _update(
        self,
        client: SecretsManagerClient,
        found: DescribeSecretResponseTypeDef,
        value: Secret,
        version: str,
        tags: Mapping[str, str],
    ) -> None:
        arn = found["ARN"]
        if self.kms_key and not _same_key(self.kms_key, found.get("KmsKeyId")):
            client.update_secret(SecretId=arn, KmsKeyId=self.kms_key)
        if _current(found) != version:
            client.put_secret_value(
                SecretId=arn, SecretString=value.reveal(), ClientRequestToken=version
            )
            # Where the content is that of an older version, the call above succeeds and moves
            # nothing: then the stage is moved to that version.
            now = _current(client.describe_secret(SecretId=arn))
            if now is not None and now != version:
                client.update_secret_version_stage(
                    SecretId=arn,
                    VersionStage="AWSCURRENT",
                    MoveToVersionId=version,
                    RemoveFromVersionId=now,
                )
        if regions := self._lacking(found):
            client.replicate_secret_to_regions(
                SecretId=arn, AddReplicaRegions=[{"Region": region} for region in regions]
            )
        # Last: the tags must not speak of a version before it is there.
        present = _tags_of(found)
        changed = {key: text for key, text in tags.items() if present.get(key) != text}
        if changed:
            client.tag_resource(
                SecretId=arn, Tags=[{"Key": key, "Value": text} for key, text in changed.items()]
            )

    def _refused(self, error: AwsError) -> AwsError | DeployError:
        if error.code == "InvalidRequestException" and "delet" in error.what:
            return self._deleted()
        if error.code == "LimitExceededException":
            return TargetRefused(
                f"the secret has no room for another version ({error.what})",
                where=self.address,
                next="AWS keeps 100 versions, and each for a day at least: find out what writes "
                "so often",
            )
        moving = error.action == "secretsmanager:UpdateSecretVersionStage"
        if error.code == "ResourceExistsException" or (
            # The version that was said to be current is not, or is no more.
            moving and error.code == "InvalidParameterException"
        ):
            return TargetRefused(
                f"somebody else wrote the secret at the same time ({error.what})",
                where=self.address,
                next="It is tried again by itself",
                retryable=True,
            )
        return error

    def _deleted(self) -> TargetMissing:
        return TargetMissing(
            f"the secret {self.name} is scheduled for deletion",
            where=self.address,
            next=f"`aws secretsmanager restore-secret --secret-id {self.name} "
            f"--region {self.region}`, or choose another `name`",
        )


def _keys(
    scope: Scope, targets: Iterable[Secretsmanager], everywhere: Sequence[str]
) -> Iterator[Grant]:
    """The targets' keys, used through Secrets Manager only. By its alias a key is no resource for a
    policy; it can be asked for the aliases it has.

    https://docs.aws.amazon.com/kms/latest/developerguide/alias-authorization.html
    """
    arns = {(scope.arn("kms", region, "key/*"), region) for region in everywhere}
    aliases = set()
    for target in targets:
        key = target.kms_key or ""
        if alias := re.search("alias/.+", key):
            aliases.add((alias[0], target.region))
        elif key:
            arn = key if ":" in key else scope.arn("kms", target.region, f"key/{key}")
            arns.add((arn, target.region))
    if arns:
        named, regions = zip(*sorted(arns), strict=True)
        yield Grant("UseKeys", USE_KEY, named, _through(regions))
    if aliases:
        named, regions = zip(*sorted(aliases), strict=True)
        yield Grant(
            "UseKeysByAlias",
            USE_KEY,
            tuple(scope.arn("kms", region, "key/*") for region in sorted(set(regions))),
            {**_through(regions), "ForAnyValue:StringEquals": {"kms:ResourceAliases": named}},
        )


def _through(regions: Iterable[str]) -> Conditions:
    services = (f"secretsmanager.{region}.amazonaws.com" for region in sorted(set(regions)))
    return {"StringLike": {"kms:ViaService": tuple(services)}}


def document(bundle: Bundle) -> dict[str, Any]:
    """What `shape` is applied to. Only what the bundle itself says: the same bundle always gives
    the same bytes, and so the same version."""
    facts = bundle.facts
    return {
        "certificate": bundle.certificate,
        "chain": bundle.chain,
        "fullchain": bundle.fullchain,
        "private_key": bundle.private_key.reveal(),
        "fingerprint": facts.fingerprint,
        "not_before": _stamp(facts.not_before),
        "not_after": _stamp(facts.not_after),
        "domains": list(facts.domains),
        "serial": facts.serial,
        "issuer": facts.issuer,
    }


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _current(found: DescribeSecretResponseTypeDef) -> str | None:
    stages = found.get("VersionIdsToStages", {})
    return next((version for version, names in stages.items() if "AWSCURRENT" in names), None)


def _tags_of(found: DescribeSecretResponseTypeDef) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in found.get("Tags", [])}


def _failed_replicas(found: DescribeSecretResponseTypeDef) -> tuple[str, ...]:
    return tuple(
        f"{replica['Region']} ({replica.get('StatusMessage', 'no reason given')})"
        for replica in found.get("ReplicationStatus", [])
        if replica.get("Status") == "Failed"
    )


def _same_key(wanted: str, present: str | None) -> bool:
    """The file may say `alias/tls` or an id, where AWS answers with the ARN."""
    return present is not None and (
        present == wanted or present.endswith((f":{wanted}", f"/{wanted}"))
    )
