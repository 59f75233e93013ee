"""fleet: EC2 instances that fetch a secret and serve it themselves.

What runs on an instance is `certrail-install`, out of a Systems Manager document of the stack. An
association of State Manager runs it: at once on all instances that have the fleet's tags whenever
the association changes, and from then on by its schedule and on each instance that comes later or
was offline. So a deployment is one update of the association. It names the secret and the
fingerprint that is wanted; no key material is in it.

An instance says what became of it in its inventory: so nothing waits for it here, and it does not
matter who ran the installer.

https://docs.aws.amazon.com/systems-manager/latest/userguide/state-manager-about.html
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_UpdateAssociation.html
https://docs.aws.amazon.com/systems-manager/latest/userguide/inventory-custom.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from certrail.bundle import Facts
from certrail.errors import AwsError, NotOurs, TargetMissing, TargetRefused
from certrail.grants import Grant, Scope
from certrail.target import Context, Deployed, Link, Node, Region, Wrong, place
from deployers.kinds.secretsmanager import CURRENT, SecretName, Secretsmanager, Stage
from deployers.ownership import OWNER

if TYPE_CHECKING:
    from types_boto3_ssm import SSMClient
    from types_boto3_ssm.type_defs import AssociationDescriptionTypeDef

DOCUMENT = "certrail-install"
# One for all fleets: an account may have 20 types (inventory-custom, above).
INVENTORY = "Custom:certrail"
# State Manager takes no shorter interval (API_CreateAssociation, ScheduleExpression).
SCHEDULE = "rate(30 minutes)"
# What one answer of DescribeInstanceInformation holds, and what a filter of GetInventory takes.
PAGE, FILTER = 50, 40
FIELDS = ("certificate", "chain", "private_key")
# Of `instances`: what SSM takes as targets (API_Target and API_CreateAssociation).
KEYS = 5
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
TAG = re.compile(r"[\w .:/=@-]{1,128}")
PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")
OWNERS = re.compile(r"[a-z_][a-z0-9_-]{0,31}(:[a-z_][a-z0-9_-]{0,31})?")
HOST_PORT = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}:[0-9]{1,5}")
HOST = re.compile(r"[A-Za-z0-9.-]{1,253}")
SHARE = re.compile(r"[1-9][0-9]{0,6}|[1-9][0-9]?%|100%")
MAY_FAIL = re.compile(r"0|[1-9][0-9]{0,6}|[0-9]%|[1-9][0-9]%|100%")
FIELD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def _matching(pattern: re.Pattern[str], right: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise Wrong(f"`{text}` does not fit", right)
        return text

    return AfterValidator(check)


def _fields(fields: dict[str, str]) -> dict[str, str]:
    for ours, theirs in fields.items():
        if ours not in FIELDS:
            raise Wrong(f"there is no `{ours}`", f"one of `{'`, `'.join(FIELDS)}`")
        if not FIELD.fullmatch(theirs):
            raise Wrong(f"`{theirs}` is no key", "letters, digits and `_.-`")
    return fields


def _instances(tags: dict[str, str]) -> dict[str, str]:
    if not 1 <= len(tags) <= KEYS:
        raise Wrong(f"there are {len(tags)} tags", f"1 to {KEYS}, which an instance must all have")
    for text in (*tags, *tags.values()):
        if not TAG.fullmatch(text):
            raise Wrong(f"`{text}` is no tag", "letters, digits, spaces and `_.:/=@-`")
    return tags


OnInstance = Annotated[str, _matching(PATH, "an absolute path without spaces")]
Service = Literal["nginx", "apache", "haproxy", "none"]
Layout = Literal["haproxy", "pkcs12", "jks"]


class Fleet(Link):
    """Instances that have the same tags and serve the same secret."""

    type: Literal["fleet"] = "fleet"
    name: Annotated[str, _matching(NAME, "small letters, digits and `-`, 63 at most")] = Field(
        description="Name of the fleet: of its association and of its entry in the inventory.",
        examples=["web"],
    )
    region: Region = Field(description="Region of the instances and of the secret.")
    instances: Annotated[dict[str, str], AfterValidator(_instances)] = Field(
        description="Tags that an instance must have, all of them, to be one of the fleet.",
        examples=[{"certrail": "web"}],
    )
    secret: SecretName = Field(
        description="Name of the secret that they read. Where no `secretsmanager` target names it, "
        "it is written all the same.",
        examples=["tls/shop/bundle"],
    )
    stage: Stage = Field(
        default=CURRENT,
        description="Staging label of the secret that they read; with another one than AWS's own "
        "they are the canaries of a [wave](../pipelines.md#waves).",
        examples=["CANARY"],
    )
    service: Service = Field(
        default="nginx",
        description="What serves it: its configuration is tested, and it is reloaded.",
    )
    directory: OnInstance | None = Field(
        default=None,
        description="Where the files go on an instance, below `live/`; left out, "
        "`/etc/certrail/<name>`. An instance of several fleets has them side by side.",
        examples=["/etc/certrail/web"],
    )
    formats: tuple[Layout, ...] = Field(
        default=(),
        description="Files besides the PEM ones: `haproxy` is one with chain and key, `pkcs12` and "
        "`jks` are keystores.",
    )
    password_file: Annotated[str, _matching(PATH, "an absolute path without spaces")] | None = (
        Field(
            default=None,
            description="File on an instance with the keystores' password; `pkcs12` and `jks` "
            "need it.",
        )
    )
    fields: Annotated[dict[str, str], AfterValidator(_fields)] = Field(
        default={},
        description="What the secret calls its parts, where a `shape` made another document of it.",
        examples=[{"certificate": "crt", "private_key": "key"}],
    )
    owner: Annotated[str, _matching(OWNERS, "`user` or `user:group`")] | None = Field(
        default=None,
        description="User, and group that may read the files too; left out, root alone.",
        examples=["root:ssl-cert"],
    )
    connect: Annotated[str, _matching(HOST_PORT, "`127.0.0.1:443`")] | None = Field(
        default="127.0.0.1:443",
        description="Where an instance connects to itself, to see that it is served; null where "
        "nothing listens there.",
    )
    server_name: Annotated[str, _matching(HOST, "a host name")] | None = Field(
        default=None, description="What it asks for there; left out, no name."
    )
    concurrency: Annotated[str, _matching(SHARE, "a number, or a share like `10%`")] = Field(
        default="10%", description="How many instances install at once."
    )
    may_fail: Annotated[str, _matching(MAY_FAIL, "a number, or a share like `10%`")] = Field(
        default="10%",
        description="How many may fail by their own fault. More: the others are spared, and the "
        "certificate is held to be at fault.",
    )
    document: str = Field(
        default=DOCUMENT,
        description="Name of the document that has the installer: the stack's name and `-install`.",
    )

    @model_validator(mode="after")
    def _password(self) -> Self:
        if {"pkcs12", "jks"} & set(self.formats) and not self.password_file:
            raise Wrong("keystores have a password", "say in `password_file` where it is")
        return self

    @classmethod
    def grants(
        cls, scope: Scope, targets: Sequence[Self] = (), everywhere: Sequence[str] = ()
    ) -> Sequence[Grant]:
        regions = tuple(sorted({*everywhere, *(target.region for target in targets)}))
        manage = (
            "ssm:AddTagsToResource",
            "ssm:CreateAssociation",
            "ssm:DescribeAssociation",
            "ssm:ListTagsForResource",
            "ssm:UpdateAssociation",
        )
        documents = {(target.region, target.document) for target in targets}
        documents |= {(region, "*-install") for region in everywhere}
        arns = [scope.arn("ssm", region, f"document/{name}") for region, name in sorted(documents)]
        arns += [scope.arn("ssm", region, "association/*") for region in regions]
        arns += [scope.arn("ec2", region, "instance/*") for region in regions]
        return [
            Grant("FindAssociations", ("ssm:ListAssociations",), regions=regions),
            *asking(regions),
            Grant("RunInstaller", manage, tuple(sorted(arns))),
        ]

    @property
    def address(self) -> str:
        return f"fleet/{place(self.account, self.region)}/{self.name}"

    @property
    def needs(self) -> tuple[Secretsmanager, ...]:
        return (self._source,)

    @property
    def _source(self) -> Secretsmanager:
        return Secretsmanager(
            name=self.secret,
            stage=self.stage,
            region=self.region,
            account=self.account,
            key_type=self.key_type,
        )

    def propagation(self, *, relinked: bool) -> timedelta:
        # A tenth at once, and two runs of the schedule for who missed the first.
        return timedelta(hours=1)

    def tolerated(self, nodes: int) -> int:
        if self.may_fail.endswith("%"):
            return math.floor(nodes * int(self.may_fail[:-1]) / 100)
        return int(self.may_fail)

    def observe(self, context: Context) -> Deployed | None:
        client = context.aws.ssm(self.region)
        there = self._find(client, context)
        if there is None:
            return None
        fingerprint = next(iter(there.get("Parameters", {}).get("Fingerprint", [])), "")
        needed = context.needs.get(self._source.address)
        held = context.held
        same = held is not None and held.fingerprint == fingerprint
        if needed is None or self._differs(there, self._wanted(needed.resource, fingerprint)):
            fingerprint = ""
        return Deployed(
            fingerprint,
            there["AssociationId"],
            held.not_after if held and same else None,
            nodes=self.verify,
        )

    def link(self, facts: Facts, context: Context) -> Deployed:
        client = context.aws.ssm(self.region)
        wanted = self._wanted(context.needs[self._source.address].resource, facts.fingerprint)
        there = self._find(client, context)
        try:
            if there is None:
                made: Any = client.create_association(
                    **wanted, Tags=[{"Key": OWNER, "Value": context.owner}]
                )
                association = made["AssociationDescription"]["AssociationId"]
            else:
                self._check_ours(client, there, context)
                association = there["AssociationId"]
                if self._differs(there, wanted):
                    # What is left out is not kept but emptied, so all of it goes there.
                    client.update_association(AssociationId=association, **wanted)
        except AwsError as error:
            raise self._refused(error) from error
        return Deployed(facts.fingerprint, association, facts.not_after, nodes=self.verify)

    def nodes(self, context: Context) -> Sequence[Node]:
        client = context.aws.ssm(self.region)
        pages = client.get_paginator("describe_instance_information").paginate(
            Filters=[
                {"Key": f"tag:{key}", "Values": [value]} for key, value in self.instances.items()
            ],
            PaginationConfig={"PageSize": PAGE},
        )
        there = {
            each["InstanceId"]: each
            for page in pages
            for each in page["InstanceInformationList"]
            if each.get("PlatformType") == "Linux"
        }
        names = sorted(there)
        said: dict[str, Mapping[str, str]] = {}
        for first in range(0, len(names), FILTER):
            said |= self._said(client, names[first : first + FILTER])
        wanted = context.held.fingerprint if context.held else ""
        return [
            Node(
                name,
                there[name].get("PingStatus") == "Online",
                fingerprint=said.get(name, {}).get("Fingerprint", ""),
                error=_error(said.get(name, {}), wanted),
            )
            for name in names
        ]

    def _said(self, client: SSMClient, instances: Sequence[str]) -> dict[str, Mapping[str, str]]:
        """What instances wrote into their inventory about this fleet, by id."""
        pages = client.get_paginator("get_inventory").paginate(
            Filters=[
                {
                    "Key": "AWS:InstanceInformation.InstanceId",
                    "Values": list(instances),
                    "Type": "Equal",
                }
            ],
            ResultAttributes=[{"TypeName": INVENTORY}],
        )
        return {
            entity["Id"]: content
            for page in pages
            for entity in page["Entities"]
            if INVENTORY in (data := entity.get("Data", {}))
            for content in data[INVENTORY]["Content"]
            if content["Fleet"] == self.name
        }

    # The association

    def _wanted(self, secret: str, fingerprint: str) -> dict[str, Any]:
        user, _, group = (self.owner or "").partition(":")
        parameters = {
            "Connect": self.connect or "",
            "Directory": self.directory or f"/etc/certrail/{self.name}",
            "Fields": ",".join(f"{ours}={theirs}" for ours, theirs in sorted(self.fields.items())),
            "Fingerprint": fingerprint,
            "Fleet": self.name,
            "Formats": ",".join(self.formats),
            "Group": group,
            "Owner": user,
            "PasswordFile": self.password_file or "",
            "Region": self.region,
            "Secret": secret,
            "ServerName": self.server_name or "",
            "Service": self.service,
            "Stage": self.stage,
        }
        return {
            "AssociationName": f"certrail-{self.name}",
            "Name": self.document,
            "Targets": [
                {"Key": f"tag:{key}", "Values": [value]}
                for key, value in sorted(self.instances.items())
            ],
            "Parameters": {name: [value] for name, value in parameters.items() if value},
            "ScheduleExpression": SCHEDULE,
            "MaxConcurrency": self.concurrency,
            "MaxErrors": self.may_fail,
        }

    def _differs(self, there: AssociationDescriptionTypeDef, wanted: Mapping[str, Any]) -> bool:
        """AWS does not say that it gives back lists in their order, nor empty parameters."""
        same = {name: value for name, value in wanted.items() if name != "Targets"}
        has: dict[str, Any] = {name: there.get(name) for name in same}
        has["Parameters"] = {
            name: values for name, values in (has["Parameters"] or {}).items() if values != [""]
        }
        return has != same or _pairs(there.get("Targets", [])) != _pairs(wanted["Targets"])

    def _find(self, client: SSMClient, context: Context) -> AssociationDescriptionTypeDef | None:
        """The one on the record, or, where a deployment ended before it was recorded, of the
        fleet's name: names are not unique in State Manager, and ours is the one with our tag."""
        known = [context.held.resource] if context.held else []
        try:
            if not known:
                pages = client.get_paginator("list_associations").paginate(
                    AssociationFilterList=[
                        {"key": "AssociationName", "value": f"certrail-{self.name}"}
                    ]
                )
                known = [each["AssociationId"] for page in pages for each in page["Associations"]]
            if len(known) > 1:
                known = [each for each in known if _is_ours(client, each, context)] or known
            if not known:
                return None
            found = client.describe_association(AssociationId=known[0])
            return found["AssociationDescription"]
        except AwsError as error:
            if error.code == "AssociationDoesNotExist":
                return None
            raise

    def _check_ours(
        self, client: SSMClient, there: AssociationDescriptionTypeDef, context: Context
    ) -> None:
        if not _is_ours(client, there["AssociationId"], context):
            raise NotOurs(
                f"the association {there['AssociationId']} is named certrail-{self.name} and was "
                "not made by this installation of certrail",
                where=self.address,
                next="Choose another `name` for the fleet",
            )

    def _refused(self, error: AwsError) -> AwsError | TargetMissing | TargetRefused:
        if error.code in {"InvalidDocument", "InvalidDocumentVersion"}:
            return TargetMissing(
                f"there is no document {self.document} in {self.region}",
                where=self.address,
                next="`document` is the stack's name and `-install`; how it comes into another "
                "region or account is in docs/targets/fleet.md",
            )
        if error.code in {"InvalidParameters", "InvalidTarget", "InvalidSchedule"}:
            return TargetRefused(
                f"State Manager does not take the association ({error.what})",
                where=self.address,
                next="Update the stack: its document is older than this certrail",
            )
        if error.code == "TooManyUpdates":
            return TargetRefused(
                f"State Manager is still busy with another change ({error.what})",
                where=self.address,
                next="It is tried again by itself",
                retryable=True,
            )
        if error.code == "AssociationVersionLimitExceeded":
            return TargetRefused(
                "the association has as many versions as State Manager keeps",
                where=self.address,
                next="Delete the association: the next deployment makes a new one",
            )
        return error


def _is_ours(client: SSMClient, association: str, context: Context) -> bool:
    tags = client.list_tags_for_resource(ResourceType="Association", ResourceId=association)
    return {"Key": OWNER, "Value": context.owner} in tags["TagList"]


def _error(said: Mapping[str, str], wanted: str) -> str:
    """Why an instance does not serve what is wanted, as far as it tried that. Where it could not
    even look, as when AWS did not answer, it has what it had."""
    if said.get("Wanted") != wanted:
        return ""
    has_it = said.get("Fingerprint") == wanted and said.get("Outcome") != "failed"
    return "" if has_it else said.get("Error", "")


def _pairs(targets: Sequence[Any]) -> set[tuple[str, tuple[str, ...]]]:
    return {(each["Key"], tuple(sorted(each["Values"]))) for each in targets}


def asking(regions: Sequence[str]) -> list[Grant]:
    """What IAM has to allow to see instances and what they say. Neither knows a resource:
    docs.aws.amazon.com/service-authorization/latest/reference/list_awssystemsmanager.html"""
    ask = ("ssm:DescribeInstanceInformation", "ssm:GetInventory")
    return [Grant("AskInstances", ask, regions=tuple(regions))]
