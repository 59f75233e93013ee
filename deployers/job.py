"""A job: one target to deploy, as it travels from the router to a deployer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from certrail.target import Target

if TYPE_CHECKING:
    from certrail.pipelines import Account


@dataclass(frozen=True)
class Role:
    """The role to assume in a target's account."""

    role_arn: str
    external_id: str | None = None


@dataclass(frozen=True)
class Job:
    """The body of a queue message.

    target: as `certrail.target.as_job` makes it. account: None in the account certrail runs in.
    generation: what the router saw; the deployer takes what is current when it runs.
    """

    pipeline: str
    target: dict[str, Any]
    account: Role | None
    generation: int

    def to_json(self) -> str:
        return TypeAdapter(Job).dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Raises pydantic's ValidationError."""
        return TypeAdapter(cls).validate_json(text)


def role_of(target: Target, accounts: Mapping[str, Account]) -> Role | None:
    """accounts: of the pipelines file, which was checked: the target's account is among them."""
    if target.account is None:
        return None
    account = accounts[target.account]
    return Role(account.role_arn, account.external_id)
