"""KMS: keys, used by the caller or by a service in the caller's name."""

import re
from collections.abc import Mapping
from typing import Any

from moto.kms.models import kms_backends

from sandbox.authorization.request import Context, Unmodelled, request_context
from sandbox.calls import Call
from sandbox.policies import Need

WHOLE = {"CreateKey", "GenerateRandom", "ListAliases", "ListKeys"}


def needs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = request_context(call, params.get("Tags")) | {"kms:CallerAccount": call.account}
    if call.operation in WHOLE:
        return [Need(call.action, "*", context)]
    if "KeyId" not in params:
        raise Unmodelled(f"{call.action} without KeyId: the sandbox cannot tell which key it needs")
    context |= _encryption_context(params.get("EncryptionContext", {}))
    return [_need(call.action, key_arn(call, params["KeyId"]), context)]


def _need(action: str, arn: str, context: Context, *, implied: bool = False) -> Need:
    """With the aliases of the key, which AWS knows in the policies of a caller, not of the key
    (https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html)."""
    _, _, _, region, account, name = arn.split(":", 5)
    key = kms_backends[account][region].keys.get(name.removeprefix("key/"))
    if key is not None and key.aliases:
        context = {**context, "kms:ResourceAliases": tuple(key.aliases)}
    return Need(action, arn, context, implied=implied)


def _encryption_context(pairs: Mapping[str, str]) -> Context:
    context: Context = {f"kms:EncryptionContext:{key}": value for key, value in pairs.items()}
    if pairs:
        context["kms:EncryptionContextKeys"] = tuple(pairs)
    return context


def key_arn(call: Call, key_id: str) -> str:
    """The ARN of the key that an id, an alias or an ARN of either means."""
    region, account, name = call.region, call.account, key_id
    if key_id.startswith("arn:"):
        _, _, _, region, account, name = key_id.split(":", 5)
    backend = kms_backends[account][region]
    if name.startswith("alias/"):
        for key in list(backend.keys.values()):
            if name in key.aliases:
                return key.arn
    return f"arn:aws:kms:{region}:{account}:key/{name.removeprefix('key/')}"


def through(
    service: str, action: str, call: Call, key_id: str | None, about: Mapping[str, str]
) -> list[Need]:
    """What a service asks of KMS in the caller's name.

    Nothing for the service's own key: its policy lets everybody in the account use it through the
    service (https://docs.aws.amazon.com/kms/latest/developerguide/concepts.html#aws-managed-key).
    """
    if not key_id or re.search(r"(^|:)alias/aws/", key_id):
        return []
    context = request_context(call) | {
        "kms:ViaService": f"{service}.{call.region}.amazonaws.com",
        "kms:CallerAccount": call.account,
    }
    context |= _encryption_context(about)
    return [_need(action, key_arn(call, key_id), context, implied=True)]
