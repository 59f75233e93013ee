"""secretsmanager: certificate, chain and private key as one JSON secret.

One secret, one version, one value: a reader never sees a certificate with another one's key.
https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from certrail.bundle import Bundle
from certrail.errors import AwsError, DeployError, NotOurs, TargetMissing, TargetRefused
from certrail.grants import Grant, Scope
from certrail.secret import Secret
from certrail.store import spell
from certrail.target import Context, Deployed, Region, Tags, Target, Wrong, place
from deployers import kms, secret_policy
from deployers.document import Shape, shaped, stamp
from deployers.kms import same_key
from deployers.ownership import OWNER, PIPELINE, identity, tags_of

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
# Of AWSCURRENT; of another label they have it at their end.
FINGERPRINT, VERSION, NOT_AFTER = "certrail:fingerprint", "certrail:version", "certrail:not-after"
# Whether the secret's policy may have a statement of ours: `yes` before it gets one.
READERS = "certrail:readers"
CURRENT = "AWSCURRENT"


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


SecretName = Annotated[str, AfterValidator(_name)]


def _stage(text: str) -> str:
    if text != CURRENT and text.upper().startswith("AWS"):
        raise Wrong(
            f"`{text}` is a label of AWS's own", "leave `stage` out, or choose one like `CANARY`"
        )
    # It becomes part of tags and of a statement's id.
    if not re.fullmatch(r"[A-Za-z0-9]{1,64}", text):
        raise Wrong(f"`{text}` is not a label", "1 to 64 ASCII letters and digits, like `CANARY`")
    return text


def _reader(text: str) -> str:
    if "*" in text:
        raise Wrong(f"`{text}` would let strangers read the key", "name accounts, roles or users")
    if not secret_policy.READER.fullmatch(text):
        raise Wrong(
            f"`{text}` is neither an account nor a role or user",
            'write `"222222222222"` or `arn:aws:iam::222222222222:role/web`',
        )
    return text


Stage = Annotated[str, AfterValidator(_stage)]


class Secretsmanager(Target):
    """One secret."""

    type: Literal["secretsmanager"] = "secretsmanager"
    name: SecretName = Field(
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
    stage: Stage = Field(
        default=CURRENT,
        description="Staging label that is moved to the new version, for a canary: readers that "
        "ask for it get the new certificate, all others wait for the target without `stage`.",
        examples=["CANARY"],
    )
    readers: tuple[Annotated[str, AfterValidator(_reader)], ...] = Field(
        default=(),
        description="Accounts, roles and users in other accounts that the secret's policy lets "
        "read it. Needs `kms_key`.",
        examples=[["arn:aws:iam::222222222222:role/web"]],
    )
    tags: Tags = Field(default={}, description="Tags of the secret, besides certrail's own.")

    @model_validator(mode="after")
    def _key_for_readers(self) -> Self:
        """docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_examples_cross.html"""
        own = self.kms_key is None or "alias/aws/" in self.kms_key
        if self.readers and own:
            raise Wrong(
                "`readers` in other accounts can never use AWS's own key",
                "add `kms_key`, a key of yours whose policy lets them decrypt",
            )
        return self

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
        if shared := (*secrets(each for each in targets if each.readers), *every):
            grants.append(Grant("Share", secret_policy.SHARE, shared))
        keys = [(each.kms_key, each.region) for each in targets if each.kms_key]
        return [*grants, *kms.grants("secretsmanager", USE_KEY, keys, scope, everywhere)]

    @property
    def address(self) -> str:
        # A name has no colon.
        return self._secret if self.stage == CURRENT else f"{self._secret}:{self.stage}"

    @property
    def claim(self) -> str:
        """Labels of one secret belong to one pipeline."""
        return self._secret

    @property
    def group(self) -> str:
        return self._secret

    @property
    def _secret(self) -> str:
        return f"secretsmanager/{place(self.account, self.region)}/{self.name}"

    def _tag(self, name: str) -> str:
        return name if self.stage == CURRENT else f"{name}:{self.stage}"

    def observe(self, context: Context) -> Deployed | None:
        client = context.aws.secretsmanager(self.region)
        found = self._read(client)
        if found is None:
            return None
        version, tags = self._held(found), tags_of(found.get("Tags", []))
        # The tags say which version they speak of; after a foreign write they speak of another.
        known = version is not None and tags.get(self._tag(VERSION)) == version
        complete = (
            known
            and not self._lacking(found)
            and not _failed_replicas(found)
            and self._is_shared(client, found)
        )
        end = tags.get(self._tag(NOT_AFTER))
        return Deployed(
            tags.get(self._tag(FINGERPRINT), "") if complete else "",
            found["ARN"],
            datetime.fromisoformat(end) if known and end else None,
            version,
        )

    def deploy(self, bundle: Bundle, context: Context) -> Deployed:
        client = context.aws.secretsmanager(self.region)
        value = shaped(bundle, self.shape, limit=VALUE_LIMIT, where=self.address)
        # As the version's id, the digest makes a repeated write the same write.
        version = hashlib.sha256(value.reveal().encode()).hexdigest()
        tags = {
            **self.tags,
            **identity(context),
            self._tag(FINGERPRINT): bundle.fingerprint,
            self._tag(VERSION): version,
            self._tag(NOT_AFTER): stamp(bundle.facts.not_after),
            **({self._tag(READERS): "yes"} if self.readers else {}),
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

    def _held(self, found: DescribeSecretResponseTypeDef) -> str | None:
        """The version that has the label."""
        stages = found.get("VersionIdsToStages", {})
        return next((version for version, names in stages.items() if self.stage in names), None)

    def _lacking(self, found: DescribeSecretResponseTypeDef) -> tuple[str, ...]:
        """The regions that have no copy yet."""
        present = {replica["Region"] for replica in found.get("ReplicationStatus", [])}
        return tuple(region for region in self.replica_regions if region not in present)

    def _check_ours(self, found: DescribeSecretResponseTypeDef, context: Context) -> None:
        tags = tags_of(found.get("Tags", []))
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
        arn = client.create_secret(**request)["ARN"]
        if self.stage != CURRENT:
            # AWSCURRENT, too, is on a secret's first version, always. Nobody could read another one
            # before, and the target without `stage` finds done what it is to do.
            # docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html
            client.update_secret_version_stage(
                SecretId=arn, VersionStage=self.stage, MoveToVersionId=version
            )
        if self.readers:
            self._share(client, arn)
        return arn

    def _update(
        self,
        client: SecretsManagerClient,
        found: DescribeSecretResponseTypeDef,
        value: Secret,
        version: str,
        tags: Mapping[str, str],
    ) -> None:
        arn, present = found["ARN"], tags_of(found.get("Tags", []))
        if self.kms_key and not same_key(self.kms_key, found.get("KmsKeyId")):
            client.update_secret(SecretId=arn, KmsKeyId=self.kms_key)
        if self._held(found) != version:
            client.put_secret_value(
                SecretId=arn,
                SecretString=value.reveal(),
                ClientRequestToken=version,
                VersionStages=[self.stage],
            )
            # Where the content is that of a version that is there, an older one or the canary's,
            # the call above succeeds and moves nothing: then the label is moved to that version.
            now = self._held(client.describe_secret(SecretId=arn))
            if now != version:
                before: Any = {"RemoveFromVersionId": now} if now else {}
                client.update_secret_version_stage(
                    SecretId=arn, VersionStage=self.stage, MoveToVersionId=version, **before
                )
        if regions := self._lacking(found):
            client.replicate_secret_to_regions(
                SecretId=arn, AddReplicaRegions=[{"Region": region} for region in regions]
            )
        # After the value: the tags must not speak of a version before it is there.
        self._set_tags(client, arn, {k: v for k, v in tags.items() if present.get(k) != v})
        # After the tags: who cannot be let in keeps nobody else from the certificate.
        if self.readers or present.get(self._tag(READERS)) == "yes":
            self._share(client, arn)
            if not self.readers:
                self._set_tags(client, arn, {self._tag(READERS): "no"})

    def _set_tags(self, client: SecretsManagerClient, arn: str, tags: Mapping[str, str]) -> None:
        if tags:
            client.tag_resource(
                SecretId=arn, Tags=[{"Key": key, "Value": text} for key, text in tags.items()]
            )

    # Readers in other accounts

    @property
    def _sid(self) -> str:
        return "CertrailReaders" + ("" if self.stage == CURRENT else self.stage)

    def _is_shared(
        self, client: SecretsManagerClient, found: DescribeSecretResponseTypeDef
    ) -> bool:
        if not self.readers:
            # Without asking, for which there may be no right: the tag tells.
            return tags_of(found.get("Tags", [])).get(self._tag(READERS)) != "yes"
        return secret_policy.is_shared(client, found["ARN"], self._sid, self.readers)

    def _share(self, client: SecretsManagerClient, arn: str) -> None:
        secret_policy.share(client, arn, self._sid, self.readers)

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
        if error.code == "PublicPolicyException":
            return TargetRefused(
                f"the secret's policy lets strangers in, with a statement of somebody else's "
                f"({error.what})",
                where=self.address,
                next="Look at it with `aws secretsmanager get-resource-policy`, and narrow it",
            )
        if error.code == "MalformedPolicyDocumentException":
            return TargetRefused(
                f"AWS does not take the secret's policy ({error.what}); the secret is up to date",
                where=self.address,
                next="Each of `readers` must exist: correct them, or make the role first",
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


def _failed_replicas(found: DescribeSecretResponseTypeDef) -> tuple[str, ...]:
    return tuple(
        f"{replica['Region']} ({replica.get('StatusMessage', 'no reason given')})"
        for replica in found.get("ReplicationStatus", [])
        if replica.get("Status") == "Failed"
    )
