"""Secrets Manager: secrets, and the KMS keys they are encrypted with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from moto.secretsmanager.models import secretsmanager_backends

from sandbox.authorization.kms import key_arn, through
from sandbox.authorization.request import here, modelled, request_context, tagged
from sandbox.calls import Call
from sandbox.policies import Need

WHOLE = {"GetRandomPassword", "ListSecrets"}
ONE = {
    "CreateSecret",
    "DeleteResourcePolicy",
    "DeleteSecret",
    "DescribeSecret",
    "GetResourcePolicy",
    "GetSecretValue",
    "ListSecretVersionIds",
    "PutResourcePolicy",
    "PutSecretValue",
    "RemoveRegionsFromReplication",
    "ReplicateSecretToRegions",
    "RestoreSecret",
    "TagResource",
    "UntagResource",
    "UpdateSecret",
    "UpdateSecretVersionStage",
}
KEYS = {
    "Name": "secretsmanager:Name",
    "SecretId": "secretsmanager:SecretId",
    "Description": "secretsmanager:Description",
    "KmsKeyId": "secretsmanager:KmsKeyId",
    "VersionId": "secretsmanager:VersionId",
    "VersionStage": "secretsmanager:VersionStage",
    "BlockPublicPolicy": "secretsmanager:BlockPublicPolicy",
}


def needs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = request_context(call, params.get("Tags")) | {
        key: _text(params[name]) for name, key in KEYS.items() if name in params
    }
    if call.operation in WHOLE:
        return [Need(call.action, "*", context)]
    modelled(call, ONE)
    named = params.get("SecretId") or params.get("Name", "")
    secret = _secret(call, named)
    if secret is not None:
        context |= tagged(secret.tags or [], "secretsmanager")
    regions = tuple(each["Region"] for each in params.get("AddReplicaRegions", ()))
    if regions:
        context["secretsmanager:AddReplicaRegions"] = regions
    arn = secret_arn(call, named, new=call.operation == "CreateSecret")
    found = [Need(call.action, arn, context)]
    if call.operation == "CreateSecret":
        if params.get("Tags"):
            found.append(Need("secretsmanager:TagResource", arn, context))
        if regions:
            found.append(Need("secretsmanager:ReplicateSecretToRegions", arn, context))
    kms_key = params.get("KmsKeyId") or getattr(secret, "kms_key_id", None)
    if kms_key and "alias/aws/" not in kms_key:
        # An alias is one of the account that has the secret.
        kms_key = key_arn(replace(call, account=arn.split(":")[4]), kms_key)
    for action in _of_the_key(call, params, secret):
        found += through("secretsmanager", action, call, kms_key, {"SecretARN": arn})
    return found


def _of_the_key(call: Call, params: Mapping[str, Any], secret: Any) -> list[str]:
    """What Secrets Manager asks of the secret's key in the caller's name.

    Stricter than AWS in one thing: without kms:Encrypt it sets the key all the same, leaves the
    versions that are there as they were, and says nothing.
    https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html
    """
    match call.operation:
        case "CreateSecret":
            return ["kms:GenerateDataKey", "kms:Decrypt"]
        case "UpdateSecret" if "KmsKeyId" in params:
            return ["kms:GenerateDataKey", "kms:Decrypt", "kms:Encrypt"]
        case "PutSecretValue" | "UpdateSecret":
            # A value under the token of a version that is there is compared with that version's.
            again = params.get("ClientRequestToken") in getattr(secret, "versions", ())
            return ["kms:GenerateDataKey", *(["kms:Decrypt"] if again else [])]
        case "GetSecretValue" | "ReplicateSecretToRegions":
            return ["kms:Decrypt"]
        case _:
            return []


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _secret(call: Call, named: str) -> Any:
    account = named.split(":")[4] if named.startswith("arn:") else call.account
    return secretsmanager_backends[account][call.region].secrets.get(named)


def secret_arn(call: Call, named: str, *, new: bool) -> str:
    """The secret's ARN with its six random characters.

    One that is being created has six of its own, unknown to any policy: `name-??????` and `name*`
    cover it, `name` does not. One that is not there has none: of `name*` and `name` only, who asks
    learns that it is not there, and of anything else that he may not.
    """
    secret = _secret(call, named)
    if secret is not None:
        return str(secret.arn)
    if named.startswith("arn:"):
        return named
    return here(call, f"secret:{named}-XXXXXX" if new else f"secret:{named}")
