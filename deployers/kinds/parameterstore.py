"""parameterstore: certificate, chain and private key as one SecureString of Parameter Store.

One parameter, one value: a reader never sees a certificate with another one's key. Its value is
never read; what is there is known by the parameter's version number and tags.
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field

from certrail.bundle import Bundle
from certrail.errors import AwsError, DeployError, NotOurs, TargetRefused
from certrail.grants import Grant, Scope
from certrail.secret import Secret
from certrail.store import spell
from certrail.target import Context, Deployed, Region, Tags, Target, Wrong, place
from deployers import kms
from deployers.document import Shape, shaped, stamp
from deployers.kms import same_key
from deployers.ownership import OWNER, PIPELINE, identity, tags_of

if TYPE_CHECKING:
    from types_boto3_ssm import SSMClient
    from types_boto3_ssm.literals import ParameterTierType
    from types_boto3_ssm.type_defs import ParameterMetadataTypeDef, PutParameterRequestTypeDef

# A path, or a name without any slash: `/shop` and `shop` have the same ARN.
NAME = re.compile(r"(/[A-Za-z0-9_.-]+){2,15}|[A-Za-z0-9_.-]+")
# Of 1,011 characters, which count the ARN; the longest that can stand before the name has 60.
NAME_LIMIT = 950
# docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html
STANDARD_LIMIT, ADVANCED_LIMIT = 4_096, 8_192
# A standard parameter is encrypted under the key itself, an advanced one with a data key
# (docs.aws.amazon.com/kms/latest/developerguide/services-parameter-store.html).
USE_KEY = ("kms:Encrypt", "kms:GenerateDataKey")
FINGERPRINT, NOT_AFTER = "certrail:fingerprint", "certrail:not-after"
# The version the tags speak of, and the digest of its value.
VERSION, DIGEST = "certrail:version", "certrail:digest"


def _name(text: str) -> str:
    if odd := "".join(sorted(set(re.sub(r"[A-Za-z0-9/_.-]", "", text)))):
        raise Wrong(
            f"`{text}` cannot name a parameter",
            f"leave out `{odd}`: ASCII letters, digits and `/_.-` only",
        )
    if not NAME.fullmatch(text) or len(text) > NAME_LIMIT:
        raise Wrong(
            f"`{text}` cannot name a parameter",
            f"write it like `/tls/shop/bundle`: 2 to 15 levels, {NAME_LIMIT} characters at most",
        )
    if re.match(r"/?(aws|ssm)", text, re.IGNORECASE):
        raise Wrong(f"`{text}` begins like AWS's own parameters", "choose another beginning")
    return text


class Parameterstore(Target):
    """One parameter."""

    type: Literal["parameterstore"] = "parameterstore"
    name: Annotated[str, AfterValidator(_name)] = Field(
        description="Name of the parameter; it is created where there is none.",
        examples=["/tls/shop/bundle"],
    )
    region: Region = Field(description="Region of the parameter.")
    kms_key: str | None = Field(
        default=None,
        description="Key that encrypts the parameter: id, ARN or alias. Left out, a new parameter "
        "gets AWS's own key, and an existing one keeps what it has.",
        examples=["alias/tls"],
    )
    shape: Shape | None = Field(
        default=None,
        description="JMESPath expression that makes the parameter's value from the document: an "
        "object, or one text. Left out, the whole document.",
        examples=["{crt: fullchain, key: private_key}"],
    )
    tags: Tags = Field(default={}, description="Tags of the parameter, besides certrail's own.")

    @classmethod
    def grants(
        cls, scope: Scope, targets: Sequence[Self] = (), everywhere: Sequence[str] = ()
    ) -> Sequence[Grant]:
        put = ("ssm:AddTagsToResource", "ssm:ListTagsForResource", "ssm:PutParameter")
        named = {(each.region, f"parameter/{each._path}") for each in targets}
        named |= {(region, "parameter/*") for region in everywhere}
        arns = tuple(scope.arn("ssm", region, resource) for region, resource in sorted(named))
        regions = tuple(sorted({region for region, _ in named}))
        keys = [(each.kms_key, each.region) for each in targets if each.kms_key]
        return [
            Grant("Put", put, arns),
            # Of a parameter by its name, AWS knows no resource for it.
            Grant("Describe", ("ssm:DescribeParameters",), regions=regions),
            *kms.grants("ssm", USE_KEY, keys, scope, everywhere),
        ]

    @property
    def address(self) -> str:
        return f"parameterstore/{place(self.account, self.region)}/{self._path}"

    @property
    def _path(self) -> str:
        """As it stands in the ARN."""
        return self.name.removeprefix("/")

    def observe(self, context: Context) -> Deployed | None:
        client = context.aws.ssm(self.region)
        found = self._read(client)
        if found is None:
            return None
        tags = self._tags(client)
        # The tags say which version they speak of; after a foreign write there is another.
        known = tags.get(VERSION) == str(found["Version"])
        return Deployed(
            tags.get(FINGERPRINT, "") if known else "",
            found["ARN"],
            datetime.fromisoformat(tags[NOT_AFTER]) if known and NOT_AFTER in tags else None,
            str(found["Version"]),
        )

    def deploy(self, bundle: Bundle, context: Context) -> Deployed:
        client = context.aws.ssm(self.region)
        value = self._value(bundle)
        tags = {
            **self.tags,
            **identity(context),
            FINGERPRINT: bundle.fingerprint,
            NOT_AFTER: stamp(bundle.facts.not_after),
            DIGEST: hashlib.sha256(value.reveal().encode()).hexdigest(),
        }
        found = self._read(client)
        try:
            if found is None:
                version = self._create(client, value, tags)
                arn = self._arn(context)
            else:
                version = self._update(client, found, value, tags, context)
                arn = found["ARN"]
        except AwsError as error:
            raise self._refused(error) from error
        return Deployed(bundle.fingerprint, arn, bundle.facts.not_after, str(version))

    # Reading

    def _read(self, client: SSMClient) -> ParameterMetadataTypeDef | None:
        """GetParameter would say it, too. But it hands out the value, and AWS's own key lets
        everybody in the account decrypt that, so the right to it is one that certrail goes without
        (docs.aws.amazon.com/systems-manager/latest/userguide/ps-restrict-decryption.html)."""
        pages = client.get_paginator("describe_parameters").paginate(
            ParameterFilters=[{"Key": "Name", "Option": "Equals", "Values": [self.name]}]
        )
        # AWS may answer with an empty page before the one that has it.
        return next((found for page in pages for found in page["Parameters"]), None)

    def _tags(self, client: SSMClient) -> dict[str, str]:
        answer = client.list_tags_for_resource(ResourceType="Parameter", ResourceId=self.name)
        return tags_of(answer.get("TagList", []))

    def _arn(self, context: Context) -> str:
        """Of a parameter that was just made, of which DescribeParameters may not know yet."""
        _, partition, _, _, account, _ = context.aws.caller().split(":", 5)
        return f"arn:{partition}:ssm:{self.region}:{account}:parameter/{self._path}"

    def _check_ours(
        self, found: ParameterMetadataTypeDef, tags: Mapping[str, str], context: Context
    ) -> None:
        owner, pipeline = tags.get(OWNER), tags.get(PIPELINE)
        following = "Choose another `name` for the target"
        if owner is None:
            what = "there is a parameter of this name, which certrail did not make"
            following += ", or give the parameter to certrail with the tags "
            following += f"`{OWNER}` = `{context.owner}` and "
            following += f"`{PIPELINE}` = `{spell(context.pipeline)}`"
        elif owner != context.owner:
            what = f"the parameter belongs to another installation of certrail, {owner}"
        elif pipeline != spell(context.pipeline):
            what = f"the parameter belongs to the pipeline {pipeline}"
        elif found["Type"] != "SecureString":
            # AWS changes no parameter's type, and in this one the key would be readable.
            what = f"the parameter is a {found['Type']}, not a SecureString"
            following += ", or delete the parameter"
        else:
            return
        raise NotOurs(what, where=self.address, next=following)

    # The value

    def _value(self, bundle: Bundle) -> Secret:
        value = shaped(
            bundle,
            self.shape,
            limit=ADVANCED_LIMIT,
            where=self.address,
            instead="; or take a smaller key (`ecdsa-p256`), or the kind `secretsmanager`, "
            "which has room for 65,536 bytes",
        )
        if "{{" in value.reveal():
            raise TargetRefused(
                "the value has `{{` in it, which Parameter Store takes for another parameter",
                where=self.address,
                next="Leave it out of `shape`",
            )
        return value

    # Writing

    def _create(self, client: SSMClient, value: Secret, tags: Mapping[str, str]) -> int:
        # Without Overwrite: what somebody else made meanwhile is not written over. The first
        # version of a parameter has the number 1.
        request: PutParameterRequestTypeDef = {
            "Name": self.name,
            "Value": value.reveal(),
            "Type": "SecureString",
            "Tier": _tier(value),
            "Tags": [{"Key": key, "Value": text} for key, text in {**tags, VERSION: "1"}.items()],
        }
        if self.kms_key:
            request["KeyId"] = self.kms_key
        return client.put_parameter(**request)["Version"]

    def _update(
        self,
        client: SSMClient,
        found: ParameterMetadataTypeDef,
        value: Secret,
        tags: Mapping[str, str],
        context: Context,
    ) -> int:
        present = self._tags(client)
        self._check_ours(found, present, context)
        version = found["Version"]
        key = found.get("KeyId")
        if self.kms_key and not same_key(self.kms_key, key):
            key = self.kms_key
        elif (present.get(VERSION), present.get(DIGEST)) == (str(version), tags[DIGEST]):
            key = None
        if key is not None:
            version = client.put_parameter(
                Name=self.name,
                Value=value.reveal(),
                Type="SecureString",
                Tier=_tier(value, found.get("Tier")),
                # Left out, AWS takes its own.
                KeyId=key,
                Overwrite=True,
            )["Version"]
        # After it: the tags must not speak of a version before it is there. No call does both
        # (Tags and Overwrite exclude each other).
        wanted = {**tags, VERSION: str(version)}
        changed = {each: text for each, text in wanted.items() if present.get(each) != text}
        if changed:
            client.add_tags_to_resource(
                ResourceType="Parameter",
                ResourceId=self.name,
                Tags=[{"Key": each, "Value": text} for each, text in changed.items()],
            )
        return version

    def _refused(self, error: AwsError) -> AwsError | DeployError:
        match error.code:
            case "ParameterAlreadyExists" | "TooManyUpdates":
                return TargetRefused(
                    f"somebody else wrote the parameter at the same time ({error.what})",
                    where=self.address,
                    next="It is tried again by itself",
                    retryable=True,
                )
            case "ParameterMaxVersionLimitExceeded":
                return TargetRefused(
                    f"the parameter has no room for another version ({error.what})",
                    where=self.address,
                    next="Move the label that somebody put on its oldest version to a newer one",
                )
            case "ParameterLimitExceeded":
                return TargetRefused(
                    f"the region has no room for another parameter ({error.what})",
                    where=self.address,
                    next="Delete what nobody reads, or ask AWS for more",
                )
            case _:
                return error


def _tier(value: Secret, present: str | None = None) -> ParameterTierType:
    """The smallest that has room. An advanced parameter stays one: AWS takes none back.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html
    """
    fits = len(value.reveal().encode()) <= STANDARD_LIMIT
    return "Standard" if fits and present in {None, "Standard"} else "Advanced"
