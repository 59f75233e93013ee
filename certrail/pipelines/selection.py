"""Selections of pipelines.yaml: targets of one kind that are found instead of named.

A selection says what to look for: `select`, a JMESPath expression over what the service lists, or
`covers`, whatever the pipeline's certificate covers. Here is what the file says, and what of a list
it means; who reads the lists, and what is followed of it, is in `deployers/`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from certrail.errors import SelectionError
from certrail.grants import Grant, Scope
from certrail.keys import KeyType
from certrail.pipelines.entry import OneOrMore, as_list
from certrail.target import FromDefaults, Region, Target, Wrong

# What `accounts` calls the account certrail runs in.
SELF = "self"
# A resource with this tag, `true`, is passed over by every selection, and so are the listeners of a
# load balancer that has it.
IGNORE = "certrail:ignore"

Accounts = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(as_list), OneOrMore()]
Regions = Annotated[
    tuple[Region, ...],
    Field(min_length=1, examples=[["eu-central-1"]]),
    BeforeValidator(as_list),
    OneOrMore(),
    FromDefaults("region"),
]


@dataclass(frozen=True)
class Location:
    """Where to look. account: name of an entry of `accounts`; None for the one certrail runs in."""

    account: str | None
    region: str

    def __str__(self) -> str:
        return f"{self.account or SELF}, {self.region}"


@dataclass(frozen=True)
class Certificate:
    """One that an endpoint has. names: empty where they are not known, as those of IAM's are not.
    renews: whether ACM issued it, and renews it by itself."""

    arn: str
    names: tuple[str, ...] = ()
    not_after: datetime | None = None
    renews: bool = False


@dataclass(frozen=True)
class Item:
    """What a service lists: one distribution, domain name, listener or secret.

    id: what a target calls it. listed: as the service has it, as JSON, with `Tags` as a mapping
    where they were read. certificates: the default first; empty where they were not read.
    """

    id: str
    arn: str
    listed: Mapping[str, Any]
    certificates: tuple[Certificate, ...] = ()

    @property
    def ignored(self) -> bool:
        """Whether somebody has tagged it, or its load balancer, to be left alone. Its tags must
        have been read."""
        tagged = (self.listed, self.listed.get("LoadBalancer", {}))
        return any(str(each.get("Tags", {}).get(IGNORE, "")).lower() == "true" for each in tagged)


@dataclass(frozen=True)
class Candidate:
    """A target that a selection finds.

    begins: whether it may become one; else only who found it before keeps it. stays: what it is
    for whom it was that before; None where that is the same. otherwise: what it is without what
    another pipeline holds already; None where there is no such thing. because: the names of each
    certificate there for which it was found; empty where it was not found for a certificate.
    """

    item: Item
    target: Target
    begins: bool = True
    stays: Target | None = None
    otherwise: Target | None = None
    because: tuple[tuple[str, ...], ...] = ()

    def after(self, before: Target | None) -> Target | None:
        """The target it is for whom it was `before`; None where it is none."""
        if before is not None and self.stays is not None and self.stays.claim == before.claim:
            return self.stays
        return self.target if self.begins or before is not None else None


class Selection(BaseModel, ABC):
    """Targets of one kind that are found. The fields are what pipelines.yaml may say.

    kind: of the targets. where: the fields of a target that say which one it is; of the rest the
    selection says the same for all. things: what the service lists, and id_key: the key of such a
    thing that a target calls it by. specimen: one of them, without tags, that `select` is tried on
    when the file is read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[type[Target]]
    where: ClassVar[frozenset[str]]
    things: ClassVar[str]
    id_key: ClassVar[str]
    specimen: ClassVar[Mapping[str, Any]]

    type: str
    select: str | None = Field(
        default=None,
        description="JMESPath expression that makes, of the list that the service gives, a list of "
        "those that are meant.",
        examples=["[?Tags.team == 'shop']"],
    )
    accounts: Accounts = Field(
        default=(SELF,),
        description="Names of entries of `accounts` to look in, or `self`; left out, the account "
        "certrail runs in.",
        examples=[["self", "edge"]],
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="The most that it may find; left out, 25 the first time, and then at most "
        "twice as many as before and three. Where it finds more, it goes on with what it found "
        "before.",
    )
    key_type: KeyType | None = Field(
        default=None,
        description="Which certificate, where the pipeline's `key_type` lists several; left out, "
        "the first.",
    )
    wave: str | None = Field(
        default=None,
        description="Wave of the pipeline's `waves` in which they get a new certificate; left out, "
        "the last.",
    )

    @field_validator("select")
    @classmethod
    def _makes_a_list(cls, text: str | None) -> str | None:
        if text is None:
            return None
        try:
            made = jmespath.search(text, [{**cls.specimen, "Tags": {}}])
        except JMESPathError as error:
            reason = _reason(error)
            raise Wrong(
                f"`{text}` cannot be applied to a list of {cls.things} ({reason})",
                "an item may lack what it looks at: `Tags.team || ''` stands for that"
                if "invalid type" in reason
                else "it looks like `[?Tags.team == 'shop']`",
            ) from None
        if not isinstance(made, list):
            raise Wrong(
                f"`{text}` makes no list",
                "it is given a list, and looks like `[?Tags.team == 'shop']`",
            )
        return text

    @classmethod
    @abstractmethod
    def grants(
        cls, scope: Scope, regions: Sequence[str], *, by_names: bool = True
    ) -> Sequence[Grant]:
        """What IAM has to allow to look in these regions of an account. by_names: also for what a
        certificate covers."""

    # Where to look

    @property
    @abstractmethod
    def locations(self) -> tuple[Location, ...]:
        """In the order of the file."""

    @property
    def account_names(self) -> tuple[str | None, ...]:
        return tuple(None if name == SELF else name for name in dict.fromkeys(self.accounts))

    @property
    @abstractmethod
    def homes(self) -> tuple[Target, ...]:
        """What the targets need, wherever they are found."""

    @property
    def key_types(self) -> frozenset[KeyType]:
        """What the service can serve."""
        return frozenset(KeyType)

    @property
    def key(self) -> str:
        """A digest of what is looked for and where: what was found before is told apart by it."""
        looked_for = self.model_dump_json(include=LOOKED_FOR & type(self).model_fields.keys())
        return hashlib.sha256(looked_for.encode()).hexdigest()[:16]

    @property
    def by_names(self) -> bool:
        """Whether it looks for what the certificate covers."""
        return self.select is None

    @property
    def reads_certificates(self) -> bool:
        """Whether every item's certificates must be known to choose."""
        return False

    @property
    def reads_tags(self) -> bool:
        """Whether every item's tags must be known to choose."""
        return self.select is not None and "Tags" in self.select

    def __str__(self) -> str:
        looked_for = f"`{self.select}`" if self.select else "`covers`"
        return f"{self.type} {looked_for}"

    # What it finds

    def chosen(
        self, at: Location, items: Sequence[Item], names: Sequence[str]
    ) -> tuple[list[Candidate], list[SelectionError]]:
        """What is meant of the items at a location, and why some of it cannot be a target.

        names: of the certificate. Raises SelectionError where the expression cannot be applied, or
        makes something else.
        """
        possible = [item for item in items if self._possible(at, item)]
        found: list[Candidate] = []
        broken: list[SelectionError] = []
        for item in possible if self.by_names else self._selected(at, possible):
            try:
                candidate = self._candidate(at, item, names)
            except ValidationError as error:
                broken += [] if item.ignored else [self._impossible(at, item, error)]
            else:
                found += [candidate] if candidate else []
        return found, broken

    @abstractmethod
    def at(self, target: Any) -> Location:
        """Where a target is that this selection found."""

    def again(self, job: Mapping[str, Any]) -> Target:
        """A target that was found before, as `as_job` made it, with what the selection says now.
        Raises pydantic's ValidationError."""
        return self._made(**{name: job[name] for name in self.where if name in job})

    def _selected(self, at: Location, items: Sequence[Item]) -> list[Item]:
        assert self.select is not None  # noqa: S101 (the model's validator)
        known = {name: item for item in items for name in (item.id, item.arn)}
        try:
            made = jmespath.search(self.select, [item.listed for item in items])
        except JMESPathError as error:
            raise self._broken(at, f"cannot be applied ({_reason(error)})") from None
        if not isinstance(made, list):
            raise self._broken(at, "makes no list")
        chosen: dict[str, Item] = {}
        for each in made:
            name = each if isinstance(each, str) else self._name(each)
            if name not in known:
                said = json.dumps(each)
                raise self._broken(at, f"makes {said[:80]}, which is none of the {self.things}")
            chosen[known[name].id] = known[name]
        return list(chosen.values())

    def _impossible(self, at: Location, item: Item, error: ValidationError) -> SelectionError:
        wrong = error.errors()[0].get("ctx", {}).get("error")
        return SelectionError(
            wrong.what if isinstance(wrong, Wrong) else f"{item.id} cannot be a target",
            where=f"{self} in {at}",
            next="Leave it out with `select`, or tag it `certrail:ignore` = `true`",
        )

    def _broken(self, at: Location, what: str) -> SelectionError:
        return SelectionError(
            f"the expression {what}",
            where=f"{self} in {at}",
            next="Correct `select`; `certrail plan` shows what it finds",
        )

    def _name(self, each: Any) -> str:
        return str(each.get(self.id_key)) if isinstance(each, Mapping) else ""

    def _made(self, **where: Any) -> Target:
        taken = self.model_dump(
            mode="json", exclude_unset=True, include=self.kind.model_fields.keys() - self.where
        )
        # Of a covered listener's `default` each target says its own.
        return self.kind.model_validate({**taken, "type": self.type, **where})

    def _possible(self, at: Location, item: Item) -> bool:
        """Whether a target may be that at all."""
        return True

    @abstractmethod
    def _candidate(self, at: Location, item: Item, names: Sequence[str]) -> Candidate | None:
        """The target that an item is, where it was selected; with `covers`, None where the names
        do not cover it. Raises pydantic's ValidationError where it cannot be a target."""


class Covering(Selection):
    """One that may look for names instead."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["select"]}, {"required": ["covers"]}]}
    )

    covers: bool = Field(
        default=False,
        description="Instead of `select`: every one whose names the certificate covers.",
    )
    verify: bool = Field(
        default=True,
        description="As of a target that is named: `false` for what cannot be reached from where "
        "certrail runs.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.select is None and not self.covers:
            raise Wrong("nothing is selected", "set `covers: true`, or give `select`")
        if self.select is not None and self.covers:
            raise Wrong("there are `select` and `covers`", "remove one of the two")
        return self


class Regional(Selection):
    """One that looks in regions."""

    regions: Regions = Field(description="Regions to look in.")

    @property
    def locations(self) -> tuple[Location, ...]:
        return tuple(
            Location(account, region)
            for account in self.account_names
            for region in dict.fromkeys(self.regions)
        )


# Of these the answer depends; of the rest only what becomes of it.
LOOKED_FOR = {"type", "select", "covers", "accounts", "regions"}


@dataclass(frozen=True)
class SelectedBy:
    """Marks a type of targets: which selections may stand in the file instead of an address."""

    selections: tuple[type[Selection], ...]


def _reason(error: JMESPathError) -> str:
    return str(error).splitlines()[0].removeprefix("Invalid jmespath expression: ").rstrip(":")
