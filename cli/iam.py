"""`certrail iam`: the policies of the roles that a pipelines file needs, from the same grants that
the template's roles are compared with."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from certrail.grants import Grant, Scope, without_repeats
from certrail.pipelines import Pipelines
from certrail.pipelines.model import Validation
from certrail.pipelines.selection import Selection
from certrail.pipelines.zones import Route53Zone, zone_of
from certrail.target import with_needs
from cli.workspace import BadInput, Workspace
from deployers import alarms
from deployers.kinds.all import KINDS, AnyTarget
from deployers.kinds.fleet import Fleet, asking
from deployers.selections.all import SELECTIONS
from issuer.dns import challenge_name, route53

VERSION = "2012-10-17"
# IAM counts no white space, and attaches ten managed policies to a role unless it is asked for more
# (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
POLICY_LIMIT = 6_144
POLICIES_LIMIT = 10

Document = Mapping[str, Any]


@dataclass(frozen=True)
class RolePolicies:
    """What one role has to have.

    account: its name in the file; None for a role of the stack. role: its ARN; of one in the stack,
    its logical id in template.yaml. trust: who may assume it; None in the stack. policies: what it
    may do, each short enough for a managed policy; none where the file has nothing for it to do.
    """

    account: str | None
    role: str
    trust: Document | None
    policies: Sequence[Document]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def iam(workspace: Workspace, account: str | None, trusted: Sequence[str]) -> list[RolePolicies]:
    """`needed` by the local file. Asks AWS for nothing but the number of the account that certrail
    runs in. Raises BadInput, AwsError."""
    file, owner = workspace.local(), workspace.store.bucket
    if account is not None and account not in file.accounts:
        known = ", ".join(file.accounts) or "no account in the file"
        raise BadInput(f"there is no account `{account}`", next=f"There is {known}")
    for arn in trusted:
        if not arn.startswith("arn:"):
            raise BadInput(f"`{arn}` is no ARN", next="Give the stack's output `ActingRoleArns`")
    _, partition, _, _, number, _ = workspace.aws.caller().split(":", 5)
    return needed(file, account, Scope(partition, number, owner), trusted)


def needed(
    file: Pipelines[AnyTarget], account: str | None, home: Scope, trusted: Sequence[str] = ()
) -> list[RolePolicies]:
    """The role in an account of the file; without one those in all of them and in the stack, which
    are then as narrow as the file allows.

    home: where certrail runs. trusted: ARNs with wildcards of those who may assume a role; without
    any, whoever the account lets. Raises BadInput.
    """
    if account is not None:
        return [_elsewhere(file, account, home, trusted)]
    named = [_elsewhere(file, name, home, trusted) for name in file.accounts]
    return [*_stack(file, home), *named]


def template(role: RolePolicies) -> Document:
    """A CloudFormation template that makes the role, and keeps it as the file says when it is
    deployed again."""
    path, _, name = role.role.partition(":role")[2].rpartition("/")
    resources: dict[str, Any] = {
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "RoleName": name,
                "Path": f"{path}/",
                "AssumeRolePolicyDocument": role.trust,
            },
        }
    }
    for number, policy in enumerate(role.policies, 1):
        resources[f"Policy{number}"] = {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "Description": "What certrail does here, made by certrail iam",
                "PolicyDocument": policy,
                "Roles": [{"Ref": "Role"}],
            },
        }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"certrail - the role of the account {role.account} in its pipelines file",
        "Resources": resources,
    }


def _stack(file: Pipelines[AnyTarget], home: Scope) -> Iterator[RolePolicies]:
    found = {
        **{f"{kind.capitalize()}DeployerRole": own for kind, own in _by_kind(file, {None}, home)},
        "FinderRole": list(_looks(file, {None}, home)),
        "IssuerWorkerRole": _zones(file, {None}, home),
        "WatcherRole": [*_alarms(file, None), *_instances(file)],
    }
    for role, grants in found.items():
        if grants:
            yield RolePolicies(None, role, None, divided(grants))


def _elsewhere(
    file: Pipelines[AnyTarget], account: str, home: Scope, trusted: Sequence[str]
) -> RolePolicies:
    """Accounts of the file that share a role share its policies."""
    role = file.accounts[account].role_arn
    same = {name: entry for name, entry in file.accounts.items() if entry.role_arn == role}
    _, partition, _, _, number, _ = role.split(":", 5)
    there = Scope(partition, number, home.owner)
    grants = [
        *(
            replace(grant, sid=f"{kind.capitalize()}{grant.sid}")
            for kind, own in _by_kind(file, set(same), there)
            for grant in own
        ),
        *_zones(file, set(same), there),
        *_looks(file, set(same), there),
        *_alarms(file, role),
    ]
    conditions: dict[str, Any] = {}
    if ids := sorted({entry.external_id for entry in same.values() if entry.external_id}):
        conditions["StringEquals"] = {"sts:ExternalId": ids[0] if len(ids) == 1 else ids}
    if trusted:
        # As principals, roles would be remembered by their unique id, and a stack that is made anew
        # would be a stranger
        # (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html).
        conditions["ArnLike"] = {"aws:PrincipalArn": list(trusted)}
    trust = {
        "Sid": "FromCertrail",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:{home.partition}:iam::{home.account}:root"},
        "Action": "sts:AssumeRole",
        **({"Condition": conditions} if conditions else {}),
    }
    return RolePolicies(account, role, _document([trust]), divided(without_repeats(grants)))


def _by_kind(
    file: Pipelines[AnyTarget], accounts: Collection[str | None], scope: Scope
) -> Iterator[tuple[str, Sequence[Grant]]]:
    """For the targets there, and for any that selections may find there."""
    selections = _selections(file, accounts)
    targets = [
        target
        for pipeline in file.pipelines
        for target in with_needs(pipeline.targets).values()
        if target.account in accounts
    ]
    for selection in selections:
        targets += [home for home in selection.homes if home.account in accounts]
    for name, kind in KINDS.items():
        own = [target for target in targets if target.type == name]
        anywhere = _regions([each for each in selections if each.type == name], accounts)
        if own or anywhere:
            yield name, kind.grants(scope, own, anywhere)


def _looks(
    file: Pipelines[AnyTarget], accounts: Collection[str | None], scope: Scope
) -> Iterator[Grant]:
    """For the finder, which looks there for what selections mean."""
    selections = _selections(file, accounts)
    for name, kind in SELECTIONS.items():
        if own := [each for each in selections if each.type == name]:
            by_names = any(each.by_names for each in own)
            yield from kind.grants(scope, _regions(own, accounts), by_names=by_names)


def _selections(
    file: Pipelines[AnyTarget], accounts: Collection[str | None]
) -> Sequence[Selection]:
    return [
        selection
        for pipeline in file.pipelines
        for selection in pipeline.selections
        if any(at.account in accounts for at in selection.locations)
    ]


def _regions(selections: Sequence[Selection], accounts: Collection[str | None]) -> Sequence[str]:
    return sorted(
        {at.region for each in selections for at in each.locations if at.account in accounts}
    )


def _zones(
    file: Pipelines[AnyTarget], accounts: Collection[str | None], scope: Scope
) -> Sequence[Grant]:
    """For the challenge records that are written to Route 53 there."""
    challenges = {
        challenge_name(domain)
        for pipeline in file.pipelines
        if any(issuer.validation is Validation.DNS_01 for issuer in pipeline.issuers)
        for domain in pipeline.domains
    }
    zones = {name: zone_of(name, file.zones) for name in challenges}
    ids: list[str | None] = []
    names: set[str] = set()
    if None in accounts and None in zones.values():
        ids.append(None)
        names.add("_acme-challenge.*")
    for zone in file.zones:
        if isinstance(zone, Route53Zone) and zone.account in accounts:
            ids.append(zone.zone_id)
            names |= _records(zone.zone, for_names_in_it=zone in zones.values())
    return route53.grants(scope, ids, sorted(names)) if ids else ()


def _alarms(file: Pipelines[AnyTarget], role: str | None) -> Sequence[Grant]:
    """For the alarms that waves name, which the first role in their account looks at."""
    roles: dict[str | None, str] = {}
    for account in file.accounts.values():
        roles.setdefault(account.role_arn.split(":")[4], account.role_arn)
    names = [
        name
        for pipeline in file.pipelines
        for wave in pipeline.waves
        for name in wave.alarms
        if roles.get(alarms.account_of(name)) == role
    ]
    return alarms.grants(names) if names else ()


def _instances(file: Pipelines[AnyTarget]) -> Sequence[Grant]:
    """For the watcher to ask the fleets of its own account whether they serve."""
    regions = {
        target.region
        for pipeline in file.pipelines
        for target in pipeline.targets
        if isinstance(target, Fleet) and target.account is None
    }
    return asking(sorted(regions)) if regions else ()


def _records(zone: str, *, for_names_in_it: bool) -> set[str]:
    """The names of the records that may be written to a zone, with IAM's wildcards. Of one that no
    name of the file is in, only the CNAMEs that lead there would tell."""
    if not for_names_in_it:
        return {zone, f"*.{zone}"}
    if zone.startswith("_acme-challenge."):
        return {zone}
    return {f"_acme-challenge.{zone}", f"_acme-challenge.*.{zone}"}


def _document(statements: Sequence[Document]) -> Document:
    return {"Version": VERSION, "Statement": list(statements)}


def divided(grants: Iterable[Grant]) -> list[Document]:
    """The policies that make the grants, none longer than a managed one may be.

    Raises BadInput where a role cannot have so many.
    """
    policies: list[list[Document]] = [[]]
    for statement in (part for each in grants for part in _parts(each.statement())):
        if policies[-1] and _length([*policies[-1], statement]) > POLICY_LIMIT:
            policies.append([])
        policies[-1].append(statement)
    if len(policies) > POLICIES_LIMIT:
        raise BadInput(
            f"the role would need {len(policies)} policies, and IAM attaches {POLICIES_LIMIT}",
            next="Divide the targets among several entries of `accounts`, each with its own role",
        )
    return [_document(each) for each in policies if each]


def _parts(statement: Document) -> Iterator[Document]:
    """The statement, its resources divided among several where it is too long for a policy."""
    if _length([statement]) <= POLICY_LIMIT or isinstance(statement["Resource"], str):
        yield statement
        return
    resources = statement["Resource"]
    # As many as fit beside the rest of the statement, by the longest of them.
    rest = _length([{**statement, "Resource": []}]) + len("999")
    size = (POLICY_LIMIT - rest) // (max(map(len, resources)) + len('"",'))
    for number, start in enumerate(range(0, len(resources), size), 1):
        yield {
            **statement,
            "Sid": f"{statement['Sid']}{number}",
            "Resource": resources[start : start + size],
        }


def _length(statements: Sequence[Document]) -> int:
    return len(json.dumps(_document(statements), separators=(",", ":")))
