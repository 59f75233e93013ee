"""Who makes a call, and whether that role may: IAM as the sandbox enforces it.

A call with a role's credentials needs the role's own policies to allow everything that
`authorization.needs` lists. What belongs to a resource is asked for every caller: the trust policy
of a role that is assumed, the policies of a bucket, of a key and of a secret. Any other credentials
are the administrator's, who may do everything else.

Evaluation: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
Not modelled: service control policies, grants, the resource policies of queues and functions.
`aws:SecureTransport` is always true: the sandbox's plain HTTP stands for AWS's HTTPS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from moto.iam.access_control import PermissionResult
from moto.iam.exceptions import NotFoundException
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends
from moto.s3.models import FakeBucket, s3_backends
from moto.secretsmanager.models import ReplicaSecret, secretsmanager_backends
from moto.sts.models import sts_backends

from sandbox import authorization
from sandbox.authorization import Unmodelled
from sandbox.authorization.s3 import bucket_owner
from sandbox.calls import Call, Decision
from sandbox.policies import Need, Unsupported, Verdict, document, evaluate

if TYPE_CHECKING:
    from moto.iam.models import Role
    from moto.sts.models import AssumedRole

PARTITION = "aws"
# How AWS begins the access keys of sessions, and moto with it.
TEMPORARY = "ASIA"
SILENT_RESOURCE = "no statement of the resource's own policy allows it"
# These say AccessDenied where services of the same protocol say AccessDeniedException.
QUERY_COMPATIBLE = {"sqs"}


class Session(NamedTuple):
    """Credentials of a role, as AssumeRole gives them."""

    access_key: str
    secret: str
    token: str


class NoSuchRole(LookupError):
    """The role does not exist, or may not be used by who asks."""


class Denied(Exception):
    """The call is refused. `decisions` are all that were made, the refusal last."""

    def __init__(self, code: str, message: str, decisions: tuple[Decision, ...]) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.decisions = decisions


def install() -> None:
    """Take bucket policies away from moto, which reads them without their conditions."""
    FakeBucket.get_permission = _neutral  # type: ignore[method-assign]


def _neutral(self: FakeBucket, action: str, resource: str) -> PermissionResult:
    return PermissionResult.NEUTRAL


def session(role_arn: str, service: str | None = None, name: str = "sandbox") -> Session:
    """Credentials of a role, for the sandbox's own services to hand on.

    With `service` ("lambda.amazonaws.com") the role's trust policy must allow it to that service.
    Raises NoSuchRole.
    """
    role = _role(role_arn)
    if role is None:
        raise NoSuchRole(f"there is no role {role_arn}")
    if service:
        asked = Need("sts:AssumeRole", context={"aws:SourceAccount": _account(role_arn)})
        verdict = evaluate([document(role.assume_role_policy_document)], asked, [service])
        if not verdict.allowed:
            raise NoSuchRole(f"the trust policy of {role_arn} does not let {service} assume it")
    assumed = sts_backends[_account(role_arn)][PARTITION].assume_role(
        region_name="us-east-1",
        role_session_name=name,
        role_arn=role_arn,
        policy=None,  # type: ignore[arg-type]
        duration=3600,
        external_id=None,  # type: ignore[arg-type]
    )
    return Session(assumed.access_key_id, assumed.secret_access_key, assumed.session_token)


@dataclass(frozen=True)
class Caller:
    """Who a call's credentials belong to; `assumed` is None for the administrator."""

    arn: str
    account: str
    assumed: AssumedRole | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What a policy's Principal may call it, most general last."""
        general = (self.account, f"arn:aws:iam::{self.account}:root")
        return (*self.own_names, *general)

    @property
    def own_names(self) -> tuple[str, ...]:
        return (self.arn, self.assumed.role_arn) if self.assumed else (self.arn,)


def caller(call: Call) -> Caller:
    for account in list(sts_backends):
        for assumed in list(sts_backends[account][PARTITION].assumed_roles):
            if assumed.access_key_id == call.access_key:
                return Caller(assumed.arn, account, assumed)
    return Caller(f"arn:aws:iam::{call.account}:user/administrator", call.account)


def decide(call: Call) -> Call:
    """The call with its caller, its resource and IAM's decisions. Raises Denied."""
    who = caller(call)
    if who.assumed is None and call.access_key.startswith(TEMPORARY):
        # A session from before a reset must not turn into the administrator.
        message = "The security token included in the request is invalid"
        raise Denied(_unknown_code(call), message, ())
    if who.assumed is None:
        call = replace(call, caller=who.arn, resource=authorization.resource(call))
        return replace(call, decisions=_of_resources(call, who))
    # A role's own account is where it acts; nothing else can say otherwise.
    call = replace(call, caller=who.arn, account=who.account)
    call = replace(call, resource=authorization.resource(call))
    decisions: list[Decision] = []
    try:
        for need in authorization.needs(call):
            decisions.append(_judge(_within(need, who), who))
            if not decisions[-1].allowed:
                raise _denied(call, tuple(decisions))
    except (Unmodelled, Unsupported) as problem:
        decisions.append(Decision(call.action, call.resource, False, f"not modelled: {problem}"))
        raise _denied(call, tuple(decisions)) from problem
    return replace(call, decisions=tuple(decisions))


def _of_resources(call: Call, who: Caller) -> tuple[Decision, ...]:
    """What roles and buckets say about the administrator, who needs no policy of his own."""
    try:
        needs = authorization.needs(call)
    except Unmodelled:
        return ()
    decisions: list[Decision] = []
    for need in needs:
        verdict = _resource_policy(_within(need, who), who)
        if verdict is None:
            continue
        foreign = who.account != _owner(need)
        allowed = bool(verdict.allowed) or (
            verdict.allowed is None and not foreign and not _must_say_yes(need)
        )
        decisions.append(Decision(need.action, need.resource, allowed, _reason(verdict)))
        if not allowed:
            raise _denied(call, tuple(decisions))
    return tuple(decisions)


def _within(need: Need, who: Caller) -> Need:
    """The need with what the request says about its caller."""
    context = {
        **need.context,
        "aws:PrincipalArn": who.assumed.role_arn if who.assumed else who.arn,
        "aws:PrincipalAccount": who.account,
        "aws:PrincipalType": "AssumedRole" if who.assumed else "User",
    }
    context.setdefault("aws:ResourceAccount", _owner(need) or who.account)
    return replace(need, context=context)


def _judge(need: Need, who: Caller) -> Decision:
    """One need of a role: its own policies, and the resource's where that has one."""
    own = _own_policies(need, who)
    resource = _resource_policy(need, who)
    if own.allowed is False or resource is None:
        return Decision(need.action, need.resource, bool(own.allowed), _reason(own))
    if resource.allowed is False:
        return Decision(need.action, need.resource, False, _reason(resource))
    if _owner(need) != who.account:
        # Between accounts both sides must say yes.
        allowed = bool(own.allowed and resource.allowed)
        silent = resource if own.allowed else own
        return Decision(need.action, need.resource, allowed, _reason(silent))
    if _must_say_yes(need):
        # If the resource's policy names the caller himself, that is enough; if it names his
        # account, his own policies must say yes too.
        named = _resource_policy(need, who, who.own_names)
        allowed = bool(resource.allowed and (own.allowed or (named and named.allowed)))
        silent = own if resource.allowed else resource
        return Decision(need.action, need.resource, allowed, _reason(silent))
    verdict = own if own.allowed else resource
    allowed = bool(verdict.allowed)
    return Decision(need.action, need.resource, allowed, _reason(verdict if allowed else own))


def _must_say_yes(need: Need) -> bool:
    """Roles and keys: without a word in their own policy nobody may, not even in their account.

    https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html
    """
    return need.action == "sts:AssumeRole" or need.resource.startswith("arn:aws:kms:")


def _own_policies(need: Need, who: Caller) -> Verdict:
    """The role's policies, within its permissions boundary and the session's policy."""
    assumed = who.assumed
    role = _role(assumed.role_arn) if assumed else None
    if assumed is None or role is None:
        return Verdict(None, "the role does not exist any more")
    limits = [[document(assumed.policy)]] if assumed.policy else []
    if role.permissions_boundary_arn:
        limits.append([_managed(role.account_id, role.permissions_boundary_arn)])
    verdict = evaluate(_documents(role), need)
    for limit in limits:
        if verdict.allowed:
            verdict = evaluate(limit, need)
    return verdict


def _documents(role: Role) -> Iterable[Mapping[str, Any]]:
    for text in list(role.policies.values()):
        yield document(text)
    for policy in list(role.managed_policies.values()):
        yield _managed(role.account_id, policy.arn)


def _managed(account: str, arn: str) -> Mapping[str, Any]:
    policy = iam_backends[account][PARTITION].get_policy(arn)
    for version in policy.versions:
        if version.version_id == policy.default_version_id:
            return document(version.document)
    raise Unsupported(f"the managed policy {arn} has no default version")


def _resource_policy(need: Need, who: Caller, names: Iterable[str] | None = None) -> Verdict | None:
    """What the resource's own policy says; None where it has none that is modelled."""
    policies: list[str | bytes | None] = []
    if need.action == "sts:AssumeRole":
        role = _role(need.resource)
        if role is None:
            return Verdict(False, "there is no such role")
        policies = [role.assume_role_policy_document]
    elif need.resource.startswith("arn:aws:kms:"):
        _, _, _, region, account, name = need.resource.split(":", 5)
        key = kms_backends[account][region].keys.get(name.removeprefix("key/"))
        if key is None:
            return None
        policies = [key.policy]
        # Known to the caller's policies only.
        context = {k: v for k, v in need.context.items() if k != "kms:ResourceAliases"}
        need = replace(need, context=context)
    elif need.resource.startswith("arn:aws:s3:::"):
        name = need.resource.removeprefix("arn:aws:s3:::").partition("/")[0]
        owner = s3_backends.bucket_accounts.get(name)
        bucket = s3_backends[owner[1]][owner[0]].buckets.get(name) if owner else None
        if bucket is None:
            return None
        policies = [bucket.policy]
    elif need.resource.startswith("arn:aws:secretsmanager:"):
        _, _, _, region, account, _ = need.resource.split(":", 5)
        secret = secretsmanager_backends[account][region].secrets.get(need.resource)
        if secret is None:
            return None
        # A copy has the policy of what it is a copy of.
        policies = [(secret.source if isinstance(secret, ReplicaSecret) else secret).policy]
    else:
        return None
    verdict = evaluate([document(each) for each in policies if each], need, names or who.names)
    return verdict if verdict.allowed is not None else replace(verdict, why=SILENT_RESOURCE)


def _owner(need: Need) -> str | None:
    """The account that has the resource; None where nobody has it yet."""
    if need.resource.startswith("arn:aws:s3:::"):
        name = need.resource.removeprefix("arn:aws:s3:::").partition("/")[0]
        return bucket_owner(name)
    return _account(need.resource) or None


def _account(arn: str) -> str:
    parts = arn.split(":", 5)
    return parts[4] if len(parts) == 6 else ""


def _role(arn: str) -> Role | None:
    account = _account(arn)
    if not account:
        return None
    try:
        return iam_backends[account][PARTITION].get_role_by_arn(arn)
    except NotFoundException:
        return None


def _reason(verdict: Verdict) -> str:
    return "; ".join((verdict.why, *verdict.near))


def _denied(call: Call, decisions: tuple[Decision, ...]) -> Denied:
    """AWS's words for a refusal; after them, in brackets, what AWS does not tell."""
    last = decisions[-1]
    about = f" on resource: {last.resource}" if last.resource not in {"", "*"} else ""
    explicit = last.why.endswith("denies it")
    based = "resource" if last.why.startswith(SILENT_RESOURCE) else "identity"
    because = (
        f"with an explicit deny in a policy ({last.why})"
        if explicit
        else f"because no {based}-based policy allows the {last.action} action ({last.why})"
    )
    if last.action == "sts:AssumeRole" and not explicit:
        because = f"({last.why})"
    message = f"User: {call.caller} is not authorized to perform: {last.action}{about} {because}"
    return Denied(denial_code(call), message, decisions)


def denial_code(call: Call) -> str:
    """The error code with which this service refuses."""
    return "AccessDenied" if _speaks_query(call) else "AccessDeniedException"


def _unknown_code(call: Call) -> str:
    """The error code for credentials that are nobody's."""
    if call.service == "s3":
        return "InvalidToken"
    return "InvalidClientTokenId" if _speaks_query(call) else "UnrecognizedClientException"


def _speaks_query(call: Call) -> bool:
    protocol = call.model.service_model.protocol if call.model else ""
    return call.service in QUERY_COMPATIBLE or protocol in {"query", "rest-xml"}
