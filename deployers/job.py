"""A job: one target to deploy, as it travels from the router to a deployer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from certrail.target import Rotation, Target

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
    generation: what the router saw, and what alone is deployed: of another one, the router sends
    another job, when its wave comes. One that is not current any more is only kept where it is.
    rotation: of the pipeline. added: whether the target came when
    all others had that generation already.
    """

    pipeline: str
    target: dict[str, Any]
    account: Role | None
    generation: int
    rotation: Rotation = Rotation.IN_PLACE
    added: bool = False

    def to_json(self) -> str:
        return _adapter().dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Raises pydantic's ValidationError."""
        return _adapter().validate_json(text)


@cache
def _adapter() -> TypeAdapter[Job]:
    # It takes milliseconds to make one, and the router sends many jobs.
    return TypeAdapter(Job)


def role_of(target: Target, accounts: Mapping[str, Account]) -> Role | None:
    """accounts: of the pipelines file, which was checked: the target's account is among them."""
    if target.account is None:
        return None
    account = accounts[target.account]
    return Role(account.role_arn, account.external_id)
