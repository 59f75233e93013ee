"""Secrets Manager: secrets, and the KMS keys they are encrypted with."""

from collections.abc import Mapping
from typing import Any

from moto.secretsmanager.models import secretsmanager_backends

from sandbox.authorization.kms import through
from sandbox.authorization.request import here, modelled, request_context, tagged
from sandbox.calls import Call
from sandbox.policies import Need

WHOLE = {"GetRandomPassword", "ListSecrets"}
ONE = {
    "CreateSecret",
    "DeleteSecret",
    "DescribeSecret",
    "GetResourcePolicy",
    "GetSecretValue",
    "ListSecretVersionIds",
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
}
# The calls that encrypt or decrypt a value, if that value is in them.
ENCRYPT = {"CreateSecret", "PutSecretValue", "UpdateSecret", "ReplicateSecretToRegions"}


def needs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = request_context(call, params.get("Tags")) | {
        key: str(params[name]) for name, key in KEYS.items() if name in params
    }
    if call.operation in WHOLE:
        return [Need(call.action, "*", context)]
    modelled(call, ONE)
    named = params.get("SecretId") or params.get("Name", "")
    secret = _secret(call, named)
    if secret is not None:
        context |= tagged("secretsmanager", secret.tags or [])
    regions = tuple(each["Region"] for each in params.get("AddReplicaRegions", ()))
    if regions:
        context["secretsmanager:AddReplicaRegions"] = regions
    arn = secret_arn(call, named)
    found = [Need(call.action, arn, context)]
    if call.operation == "CreateSecret":
        if params.get("Tags"):
            found.append(Need("secretsmanager:TagResource", arn, context))
        if regions:
            found.append(Need("secretsmanager:ReplicateSecretToRegions", arn, context))
    kms_key = params.get("KmsKeyId") or getattr(secret, "kms_key_id", None)
    about = {"SecretARN": arn}
    if call.operation in ENCRYPT:
        found += through("secretsmanager", "kms:GenerateDataKey", call, kms_key, about)
    if call.operation in ENCRYPT or call.operation == "GetSecretValue":
        found += through("secretsmanager", "kms:Decrypt", call, kms_key, about)
    return found


def _secret(call: Call, named: str) -> Any:
    return secretsmanager_backends[call.account][call.region].secrets.get(named)


def secret_arn(call: Call, named: str) -> str:
    """The secret's ARN with its six random characters.

    A secret that does not exist yet has six of its own, unknown to any policy: `name-??????` and
    `name*` cover it, `name` does not.
    """
    secret = _secret(call, named)
    if secret is not None:
        return str(secret.arn)
    if named.startswith("arn:"):
        return named
    return here(call, f"secret:{named}-XXXXXX")
