"""What every kind of target is: two methods, the rest is derived.

A kind writes `observe` and `deploy`. Plan, apply, status, idempotence, drift repair and rollback
are computed once from these, in `deployers/`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr

from certrail.aws import Aws
from certrail.bundle import Bundle, Facts
from certrail.grants import EVERYWHERE, Grant, Scope
from certrail.keys import KeyType


class Wrong(ValueError):
    """Raised by a field's validator: what is wrong with the value, and what would be right.

    Both are half sentences without a full stop; the loader puts `file:line:` before them and an
    arrow between them.
    """

    def __init__(self, what: str, right: str = "") -> None:
        super().__init__(f"{what} → {right}" if right else what)
        self.what = what
        self.right = right


@dataclass(frozen=True)
class FromDefaults:
    """Marks a required field that `defaults` fills where a target leaves it out. The target itself
    always has a value. key: in `defaults`, where it is not the field's own name."""

    key: str = ""


# `eu-central-1`, `us-gov-west-1`, `eusc-de-east-1`; behind it the letter of a zone, told apart.
REGION = re.compile(r"([a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2})([a-z]?)")


def region_named(text: str) -> str:
    """The text, where it has the shape of a region's name. Raises Wrong."""
    match = REGION.fullmatch(text.strip().lower())
    if match is None:
        raise Wrong(f"`{text}` is not a region", "a region is named like `eu-central-1`")
    if match[1] != text:
        raise Wrong(f"`{text}` is not a region", f"did you mean `{match[1]}`?")
    return text


# As a target's field: `region: Region = Field(description="…")`.
Region = Annotated[
    str, AfterValidator(region_named), FromDefaults(), Field(examples=["eu-central-1"])
]

# AWS allows 50 tags on a resource; certrail's own need room.
TAGS_LIMIT = 40
# What all services take: https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html
TAG_KEY, TAG_VALUE = 128, 256


def _tags(tags: dict[str, str]) -> dict[str, str]:
    for key, value in tags.items():
        if key.lower().startswith(("certrail:", "aws:")):
            raise Wrong(f"the tag `{key}` is reserved", "choose another name for it")
        if not 1 <= len(key) <= TAG_KEY or len(value) > TAG_VALUE:
            raise Wrong(
                f"the tag `{key}` is too long, or has no name",
                f"{TAG_KEY} characters for its name, {TAG_VALUE} for its value at most",
            )
        if refused := sorted({each for each in key + value if not _in_tags(each)}):
            raise Wrong(
                f"the tag `{key}` has {' '.join(refused)}",
                "letters, digits, spaces and `_.:/=+-@` are what AWS takes",
            )
    if len(tags) > TAGS_LIMIT:
        raise Wrong(f"there are {len(tags)} tags", f"{TAGS_LIMIT} at most")
    return tags


def _in_tags(character: str) -> bool:
    return character in "_.:/=+-@" or unicodedata.category(character)[0] in "LNZ"


# As a target's field: tags that users set, besides certrail's own.
Tags = Annotated[dict[str, str], AfterValidator(_tags)]


class Rotation(StrEnum):
    """How a new certificate takes the place of the one before."""

    IN_PLACE = "in-place"
    REPLACE = "replace"


@dataclass(frozen=True)
class Endpoint:
    """Where a client finds what a target holds.

    host: DNS name of the service's own, behind which are one or more addresses.
    server_names: what a client asks for (SNI), no wildcards; empty text for one that asks for none.
    """

    host: str
    port: int
    server_names: tuple[str, ...]


def asked_for(names: Iterable[str]) -> tuple[str, ...]:
    """What clients of these names ask for: in place of a wildcard, one name that it stands for."""
    plain = (
        f"certrail-check.{name.removeprefix('*.')}" if name.startswith("*.") else name
        for name in (each.lower().rstrip(".") for each in names)
    )
    return tuple(dict.fromkeys(plain))


@dataclass(frozen=True)
class Node:
    """One machine of a target, and what it said last.

    id: AWS's name for it, `i-0abc…`. online: whether it can be told anything now. fingerprint: of
    the certificate that it has in place, empty where it said nothing yet. error: why it does not
    serve what the target is to hold, empty where it said nothing of that.
    """

    id: str
    online: bool
    fingerprint: str = ""
    error: str = ""


@dataclass(frozen=True)
class Deployed:
    """What a target holds.

    fingerprint: of the leaf it serves, empty where something is there that certrail cannot read.
    resource: the ARN of what holds it: the ACM certificate, the secret; empty where its owner has
    chosen something of his own for it (`Link.follows`).
    not_after: aware, UTC, where the service tells it.
    version: the service's own name for the content, where it has one (a secret's version id).
    since: when it came to be `resource` that everybody is to point to; None where nobody knows.
    superseded: the resources whose place it took and that may still be there, the last one first:
    nothing is to point to them any more. superseded_end: when the first of them ends.
    followers: targets, as `as_job` makes them, that point to one of those and that the file may not
    name: they are to point to `resource`, too.
    retired: of the superseded, those that were deleted last.
    endpoints: where a client must find it; empty where nobody can look.
    nodes: whether machines fetch it from there, and say what they serve.
    """

    fingerprint: str
    resource: str
    not_after: datetime | None = None
    version: str | None = None
    since: datetime | None = None
    superseded: tuple[str, ...] = ()
    superseded_end: datetime | None = None
    followers: tuple[dict[str, Any], ...] = ()
    retired: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    nodes: bool = False

    @property
    def replaced(self) -> str | None:
        """The resource whose place `resource` took."""
        return next(iter(self.superseded), None)


# At the end of the digest of a target that no pipeline names.
FOLLOWS = "-follows"
# What a target holds that is its owner's, and no business of certrail's any more.
LEFT = Deployed("", "")


class Succession(StrEnum):
    """How a certificate takes the place of the one before."""

    IN_PLACE = "in place"
    REPLACE = "new ARN"
    REFUSED = "refused"


@dataclass(frozen=True)
class Mover:
    """Who points to a resource and is to point to another one.

    job: as `as_job` makes it. stays: why it cannot follow; empty where it can.
    """

    job: dict[str, Any]
    stays: str = ""


@dataclass(frozen=True)
class Preflight:
    """What a deployment will do, known before its first write.

    reasons: why it is not in place, or why it is although something speaks against it.
    movers: with a new ARN, who has to move.
    """

    way: Succession
    reasons: tuple[str, ...] = ()
    movers: tuple[Mover, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a target is deployed with, besides the bundle.

    pipeline: its name. owner: who certrail is here, the bucket's name: two installations in one
    account do not touch each other's imports. aws: clients of the target's own account.
    held: what the target's record says it held last; None before the first deployment.
    needs: by address, what the targets that this one needs hold. rotation: of the pipeline.
    now: aware, UTC. names: of the current certificate, where the target is to hold it; empty where
    only that is asked what it holds. chained: whether that certificate comes with intermediates.
    """

    pipeline: str
    owner: str
    aws: Aws
    held: Deployed | None = None
    needs: Mapping[str, Deployed] = field(default_factory=dict)
    rotation: Rotation = Rotation.IN_PLACE
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    names: tuple[str, ...] = ()
    chained: bool = True


class Target(BaseModel, ABC):
    """One place a bundle goes. The fields are what pipelines.yaml may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    account: str | None = Field(
        default=None,
        description="Name of an entry of `accounts`; left out, the account certrail runs in.",
    )
    key_type: KeyType | None = Field(
        default=None,
        description="Which certificate, where the pipeline's `key_type` lists several; left out, "
        "the first.",
    )
    wave: str | None = Field(
        default=None,
        description="Wave of the pipeline's `waves` in which it gets a new certificate; left out, "
        "the last.",
    )

    @classmethod
    @abstractmethod
    def grants(
        cls, scope: Scope, targets: Sequence[Self] = (), everywhere: Sequence[str] = ()
    ) -> Sequence[Grant]:
        """What IAM has to allow for `observe` and `deploy` of these targets, all in one account,
        and of any other one in the regions `everywhere`."""

    @classmethod
    def permissions(cls) -> frozenset[str]:
        """The IAM actions of `observe` and `deploy`, whatever the target."""
        every = cls.grants(Scope("*", "*", "*"), everywhere=EVERYWHERE)
        return frozenset(action for grant in every for action in grant.actions)

    @property
    def key_types(self) -> frozenset[KeyType]:
        """What the service can serve here."""
        return frozenset(KeyType)

    @property
    @abstractmethod
    def address(self) -> str:
        """`<type>/<where>`: names the target in plans, logs, records and errors, unique within a
        pipeline."""

    @property
    def claim(self) -> str | None:
        """What at most one pipeline may hold, None where several may share it."""
        return self.address

    @property
    def group(self) -> str:
        """What must not run twice at once: the message group of its queue."""
        return self.address

    @property
    def needs(self) -> tuple[Target, ...]:
        """The targets that must hold the bundle before this one can."""
        return ()

    @abstractmethod
    def observe(self, context: Context) -> Deployed | None:
        """What the target holds now, None where it holds nothing. Reads only. Raises TargetMissing
        where the resource itself is not there, AwsError."""

    @abstractmethod
    def deploy(self, bundle: Bundle, context: Context) -> Deployed:
        """Make the target hold the bundle, and say what it then holds. May be repeated; makes no
        write where `observe` already matches. Raises DeployError and its kinds, AwsError."""

    def preflight(self, facts: Facts, context: Context) -> Preflight | None:
        """What `deploy` of such a certificate would do, where there is a choice; None where there
        is none. Reads only. Raises as `observe` does."""
        return None

    def nodes(self, context: Context) -> Sequence[Node]:
        """The machines that fetch what the target holds, where it is `Deployed.nodes`. Reads only.
        Raises AwsError."""
        return ()

    def tolerated(self, nodes: int) -> int:
        """How many of so many machines may fail before the certificate is held to be at fault."""
        return 0

    def tidy(self, context: Context) -> Deployed | None:
        """Remove what earlier deployments left behind and nothing uses. Called now and then while
        the target holds what it should. Returns what it holds then, None where nothing changed.
        Raises AwsError."""
        return None

    @property
    def replaceable(self) -> bool:
        """Whether another resource may take the place of this one."""
        return True

    def propagation(self, *, relinked: bool) -> timedelta:
        """How long AWS may take until every client gets what was deployed. relinked: whether the
        target was made to point to another resource, instead of that one's content changing."""
        return timedelta(0)

    @property
    def spec(self) -> str:
        """A digest of what the file says of this target: a change of it is a reason to deploy."""
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:16]


class Link(Target):
    """A target that points to what another one holds, such as a distribution to its ACM import.

    It needs the facts of the certificate and none of its files, so who deploys it has no right to
    read a private key.
    """

    verify: bool = Field(
        default=True,
        description="Whether to connect and see that it is served; `false` for what certrail "
        "cannot reach. What is internal is never connected to.",
    )

    # No field, so that no file can say it.
    _follows: bool = PrivateAttr(default=False)

    @property
    def follows(self) -> bool:
        """Whether no pipeline names it, and it only follows from a replaced import to the one that
        took its place. Where it has neither, its owner has chosen something else in the meantime:
        it is then left alone, and holds `LEFT`."""
        return self._follows

    def as_follower(self) -> Self:
        follower = self.model_copy()
        follower._follows = True
        return follower

    def is_left(self, present: Iterable[str | None], context: Context) -> bool:
        """Whether it only follows, and what is present there is nothing to follow from."""
        imports = {
            arn for held in context.needs.values() for arn in (held.resource, *held.superseded)
        }
        return self.follows and imports.isdisjoint(present)

    @property
    def spec(self) -> str:
        # A file that begins to name it says something new.
        return f"{super().spec}{FOLLOWS}" if self.follows else super().spec

    @abstractmethod
    def link(self, facts: Facts, context: Context) -> Deployed:
        """As `deploy`, with the facts only."""

    def deploy(self, bundle: Bundle, context: Context) -> Deployed:
        return self.link(bundle.facts, context)


T = TypeVar("T", bound=Target)


def place(account: str | None, region: str) -> str:
    """The part of an address that says where: `eu-central-1`, `edge:eu-central-1`."""
    return f"{account}:{region}" if account else region


def with_needs(targets: Iterable[Target]) -> dict[str, Target]:
    """Targets and what they need, by address, each after what it needs. What the file names itself
    stands for the same thing needed by another."""
    named = {target.address: target for target in targets}
    ordered: dict[str, Target] = {}

    def add(target: Target) -> None:
        target = named.get(target.address, target)
        for needed in target.needs:
            add(needed)
        ordered.setdefault(target.address, target)

    for target in named.values():
        add(target)
    return ordered


def as_job(target: Target) -> dict[str, Any]:
    """The target as it travels in a queue message; `from_job` reads it back."""
    follows = {"follows": True} if isinstance(target, Link) and target.follows else {}
    return target.model_dump(mode="json", exclude_defaults=True) | {"type": target.type} | follows


def from_job(kind: type[T], job: Mapping[str, Any]) -> T:
    """Raises pydantic's ValidationError."""
    fields = {name: value for name, value in job.items() if name != "follows"}
    target = kind.model_validate(fields)
    if job.get("follows") and isinstance(target, Link):
        return target.as_follower()
    return target
