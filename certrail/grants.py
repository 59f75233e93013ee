"""What IAM has to allow, said once: the template's roles, the pages and `certrail iam` are made of
it, or compared with it.

Which resources and which conditions AWS looks at differs by action. A condition on a key that it
does not supply never holds, so each one here is in the Service Authorization Reference:
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# All regions, for grants that are not about certain targets.
EVERYWHERE = ("*",)

Conditions = Mapping[str, Mapping[str, str | tuple[str, ...]]]


@dataclass(frozen=True)
class Scope:
    """Whose resources grants are about.

    partition, account: as in an ARN. owner: the bucket's name, which certrail's tags carry.
    """

    partition: str
    account: str
    owner: str

    def arn(self, service: str, region: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{region}:{self.account}:{resource}"


@dataclass(frozen=True)
class Grant:
    """One statement that allows.

    sid: unique within its kind. resources: ARNs with IAM's wildcards; a star where the actions know
    no resource, and then `regions` says in which they are allowed, with a star for any. conditions:
    by operator and key, as in a policy.
    """

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)
    conditions: Conditions = field(default_factory=dict)
    regions: tuple[str, ...] = EVERYWHERE

    def statement(self) -> dict[str, Any]:
        """As it stands in a policy."""
        conditions = dict(self.conditions)
        if "*" not in self.regions:
            conditions["StringEquals"] = {"aws:RequestedRegion": self.regions}
        statement: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": _one_or_list(self.actions),
            "Resource": _one_or_list(self.resources),
        }
        if conditions:
            statement["Condition"] = {
                operator: {key: _one_or_list(value) for key, value in tests.items()}
                for operator, tests in conditions.items()
            }
        return statement


def without_repeats(grants: Iterable[Grant]) -> Iterator[Grant]:
    """The same, for one role: what an earlier one allows already is left out of the later ones."""
    allowed: set[tuple[str, str, str, str]] = set()
    for grant in grants:
        conditions = repr(grant.conditions)
        alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for action in grant.actions:
            new = tuple(
                (resource, region)
                for resource in grant.resources
                for region in grant.regions
                if allowed.isdisjoint(
                    (action, resource, where, how)
                    for where in (region, "*")
                    for how in (conditions, "{}")
                )
            )
            allowed |= {(action, *each, conditions) for each in new}
            if new:
                alike.setdefault(new, []).append(action)
        for number, (new, actions) in enumerate(alike.items()):
            resources, regions = zip(*new, strict=True)
            yield replace(
                grant,
                sid=f"{grant.sid}{'And' * number}",
                actions=tuple(actions),
                resources=tuple(dict.fromkeys(resources)),
                regions=tuple(dict.fromkeys(regions)),
            )


def _one_or_list(value: str | tuple[str, ...]) -> str | list[str]:
    if isinstance(value, str):
        return value
    return value[0] if len(value) == 1 else list(value)
