"""Secrets Manager: what CreateSecret, PutSecretValue, UpdateSecret and the version stages enforce.

Sources:
  quotas  https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
  create  https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html
  put     https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html
  update  https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecret.html
  policy  https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutResourcePolicy.html
  cross   https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_examples_cross.html
  copies  https://docs.aws.amazon.com/secretsmanager/latest/userguide/replicate-secrets.html
  stages  https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html

moto already has right: the length of ClientRequestToken, a repeated token with the same content (no
new version) and with other content (ResourceExistsException), GetSecretValue of a deleted secret,
replicas that follow later puts, RotationEnabled. The tests hold it to that.
"""

import base64
import json
import re
import time
from collections.abc import Callable
from threading import RLock
from typing import Any

from moto.iam.models import iam_backends
from moto.secretsmanager.exceptions import (
    InvalidParameterException,
    InvalidRequestException,
    OperationNotPermittedOnReplica,
    ResourceExistsException,
    SecretNotFoundException,
    SecretsManagerClientError,
    ValidationException,
)
from moto.secretsmanager.models import (
    FakeSecret,
    ReplicaSecret,
    SecretsManagerBackend,
    secretsmanager_backends,
)
from moto.secretsmanager.responses import SecretsManagerResponse

VALUE_BYTES = 65_536
VERSIONS = 100
POLICY_LENGTH = 20_480
YOUNG_SECONDS = 24 * 3600
NAME = re.compile(r"[A-Za-z0-9/_+=.@-]{1,512}")

_one_at_a_time = RLock()


# The rules.


def valid_name(name: str) -> None:
    """Create: ASCII letters, digits and /_+=.@- ."""
    if not NAME.fullmatch(name):
        raise ValidationException(
            "Invalid name. Must be a valid name containing alphanumeric characters, or any of "
            "the following: -/_+=.@!"
        )


def small_enough(secret_string: str | None, secret_binary: str | None) -> None:
    """Quotas: a secret value is at most 65,536 bytes."""
    text = len((secret_string or "").encode())
    binary = len(base64.b64decode(secret_binary or ""))
    for field, size in (("secretString", text), ("secretBinary", binary)):
        if size > VALUE_BYTES:
            raise ValidationException(
                f"1 validation error detected: Value at '{field}' failed to satisfy constraint: "
                f"Member must have length less than or equal to {VALUE_BYTES}"
            )


def not_deleted(secret: FakeSecret | ReplicaSecret, doing: str) -> None:
    """A secret scheduled for deletion cannot be read or written (InvalidRequestException)."""
    if secret.is_deleted():
        raise InvalidRequestException(
            f"You can't perform {doing} on the secret because it was marked for deletion."
        )


def room_for_a_version(secret: FakeSecret, version_id: str | None) -> None:
    """Quotas: 100 versions per secret, and none younger than 24 hours is removed to make room."""
    if version_id in secret.versions:
        return
    since = time.time() - YOUNG_SECONDS
    young = [each for each in secret.versions.values() if each["createdate"] > since]
    if len(young) >= VERSIONS:
        raise SecretsManagerClientError(
            "LimitExceededException",
            f"You've exceeded the limit of {VERSIONS} versions for this secret.",
        )


def primary(backend: SecretsManagerBackend, secret_id: str) -> FakeSecret:
    secret = backend.describe_secret(secret_id)
    if isinstance(secret, ReplicaSecret):
        raise OperationNotPermittedOnReplica
    return secret


# The operations.


_moto_create = SecretsManagerBackend.create_secret


def create_secret(
    self: SecretsManagerBackend,
    name: str,
    secret_string: str | None,
    secret_binary: str | None,
    description: str | None,
    tags: list[dict[str, str]] | None,
    kms_key_id: str | None,
    client_request_token: str | None,
    replica_regions: list[dict[str, str]],
    force_overwrite: bool,
) -> str:
    valid_name(name)
    small_enough(secret_string, secret_binary)
    if client_request_token:
        self._client_request_token_validator(client_request_token)
    with _one_at_a_time:
        existing = self.secrets.get(name)
        if existing is not None and existing.is_deleted():
            raise InvalidRequestException(
                "You can't create this secret because a secret with this name is already "
                "scheduled for deletion."
            )
        return _moto_create(
            self,
            name=name,
            secret_string=secret_string,
            secret_binary=secret_binary,
            description=description,
            tags=tags,
            kms_key_id=kms_key_id,
            client_request_token=client_request_token,
            replica_regions=replica_regions,
            force_overwrite=force_overwrite,
        )


_moto_put = SecretsManagerBackend.put_secret_value


def put_secret_value(
    self: SecretsManagerBackend,
    secret_id: str,
    secret_string: str,
    secret_binary: str,
    client_request_token: str,
    version_stages: list[str],
) -> str:
    small_enough(secret_string, secret_binary)
    with _one_at_a_time:
        secret = primary(self, secret_id)
        not_deleted(secret, "PutSecretValue")
        room_for_a_version(secret, client_request_token)
        before = {each: list(row["version_stages"]) for each, row in secret.versions.items()}
        answer = _moto_put(
            self, secret_id, secret_string, secret_binary, client_request_token, version_stages
        )
        if client_request_token not in before:
            _keep_other_labels(secret, before, client_request_token)
        return answer


def _keep_other_labels(secret: FakeSecret, before: dict[str, list[str]], new: str) -> None:
    """Put: labels that are named move, AWSPREVIOUS follows AWSCURRENT, and all others stay. moto
    takes every label from the version that was current."""
    moved = set(secret.versions[new]["version_stages"])
    if "AWSCURRENT" in moved:
        moved.add("AWSPREVIOUS")
    for each, labels in before.items():
        left = [label for label in labels if label not in moved]
        if "AWSCURRENT" in labels and "AWSCURRENT" in moved:
            left.append("AWSPREVIOUS")
        secret.versions[each]["version_stages"] = left


_moto_update = SecretsManagerBackend.update_secret


def update_secret(
    self: SecretsManagerBackend,
    secret_id: str,
    secret_string: str | None = None,
    secret_binary: str | None = None,
    client_request_token: str | None = None,
    kms_key_id: str | None = None,
    description: str | None = None,
) -> str:
    """With a value, a ClientRequestToken that already names a version always fails (update)."""
    small_enough(secret_string, secret_binary)
    with _one_at_a_time:
        secret = primary(self, secret_id)
        not_deleted(secret, "UpdateSecret")
        if secret_string is not None or secret_binary is not None:
            room_for_a_version(secret, client_request_token)
            if client_request_token in secret.versions:
                raise ResourceExistsException(
                    f"You can't use ClientRequestToken {client_request_token} because that value "
                    f"is already in use for a version of secret {secret.arn}."
                )
        return _moto_update(
            self,
            secret_id,
            secret_string=secret_string,
            secret_binary=secret_binary,
            client_request_token=client_request_token,
            kms_key_id=kms_key_id,
            description=description,
        )


_moto_stage = SecretsManagerBackend.update_secret_version_stage


def update_secret_version_stage(
    self: SecretsManagerBackend,
    secret_id: str,
    version_stage: str,
    remove_from_version_id: str,
    move_to_version_id: str,
) -> tuple[str, str]:
    """A label that another version holds moves only if RemoveFromVersionId names that version.

    moto also forgets that a moved AWSCURRENT is what GetSecretValue answers with.
    """
    with _one_at_a_time:
        secret = primary(self, secret_id)
        not_deleted(secret, "UpdateSecretVersionStage")
        holder = next(
            (
                each
                for each, row in secret.versions.items()
                if version_stage in row["version_stages"]
            ),
            None,
        )
        moves = holder is not None and move_to_version_id and holder != move_to_version_id
        if moves and remove_from_version_id != holder:
            raise InvalidParameterException(
                f"Staging label {version_stage} is currently attached to version {holder}, so "
                "you must explicitly reference that version in RemoveFromVersionId."
            )
        moved = _moto_stage(
            self, secret_id, version_stage, remove_from_version_id, move_to_version_id
        )
        if version_stage == "AWSCURRENT" and move_to_version_id:
            secret.set_default_version_id(move_to_version_id)
        return moved


_moto_tag = SecretsManagerBackend.tag_resource


def tag_resource(self: SecretsManagerBackend, arn: str, tags: dict[str, str]) -> None:
    if arn not in self.secrets:
        raise SecretNotFoundException
    not_deleted(self.secrets[arn], "TagResource")
    _moto_tag(self, arn, tags)


# Policies.


def well_formed(policy: str) -> dict[str, Any]:
    """Policy: 20,480 characters, JSON, at least one statement; principals that there are."""
    if len(policy) > POLICY_LENGTH:
        raise InvalidParameterException(
            f"The policy must have length less than or equal to {POLICY_LENGTH}."
        )
    try:
        document: dict[str, Any] = json.loads(policy)
        statements = _statements(document)
        complete = all({"Effect", "Principal", "Action", "Resource"} <= set(e) for e in statements)
    except (ValueError, AttributeError, TypeError):
        statements, complete = [], False
    if not statements or not complete:
        raise SecretsManagerClientError(
            "MalformedPolicyDocumentException", "This resource policy contains a syntax error."
        )
    for statement in statements:
        for principal in _principals(statement):
            if not _is_there(principal):
                raise SecretsManagerClientError(
                    "MalformedPolicyDocumentException",
                    "This resource policy contains an unsupported principal.",
                )
    return document


def not_public(document: dict[str, Any]) -> None:
    """Policy: with BlockPublicPolicy, nobody is let in by a star (PublicPolicyException)."""
    for statement in _statements(document):
        wide = "*" in _principals(statement) and not statement.get("Condition")
        if statement["Effect"] == "Allow" and wide:
            raise SecretsManagerClientError(
                "PublicPolicyException",
                "You can't attach a resource policy that allows broad access to the secret.",
            )


def _statements(document: dict[str, Any]) -> list[dict[str, Any]]:
    found = document.get("Statement", [])
    return [found] if isinstance(found, dict) else list(found)


def _principals(statement: dict[str, Any]) -> list[str]:
    principal = statement["Principal"]
    if principal == "*":
        return ["*"]
    named = principal.get("AWS", [])
    return [named] if isinstance(named, str) else list(named)


def _is_there(principal: str) -> bool:
    """Roles only: the sandbox has no users."""
    if ":role/" not in principal:
        return True
    roles = iam_backends[principal.split(":")[4]]["aws"].roles.values()
    return any(role.arn == principal for role in roles)


def _as_aws_shows_it(document: dict[str, Any]) -> str:
    """An account by its number is shown as its root, a list of one as a text."""
    for statement in _statements(document):
        principal = statement["Principal"]
        if isinstance(principal, dict) and "AWS" in principal:
            arns = [
                f"arn:aws:iam::{each}:root" if each.isdigit() else each
                for each in _principals(statement)
            ]
            principal["AWS"] = arns[0] if len(arns) == 1 else arns
    return json.dumps(document)


def put_resource_policy(self: SecretsManagerResponse) -> str:
    document = well_formed(self._get_param("ResourcePolicy"))
    if self._get_param("BlockPublicPolicy"):
        not_public(document)
    with _one_at_a_time:
        secret = primary(self.backend, self._get_param("SecretId"))
        not_deleted(secret, "PutResourcePolicy")
        secret.policy = _as_aws_shows_it(document)
    return json.dumps({"ARN": secret.arn, "Name": secret.name})


def get_resource_policy(self: SecretsManagerBackend, secret_id: str) -> str:
    """Copies: they have the policy of what they are copies of."""
    secret = self.describe_secret(secret_id)
    source = secret.source if isinstance(secret, ReplicaSecret) else secret
    answer = {"ARN": secret.arn, "Name": secret.name}
    if source.policy is not None:
        answer["ResourcePolicy"] = source.policy
    return json.dumps(answer)


# From another account, by the whole ARN.


def home(backend: SecretsManagerBackend, secret_id: str) -> SecretsManagerBackend:
    account = secret_id.split(":")[4] if secret_id.startswith("arn:") else backend.account_id
    found: SecretsManagerBackend = secretsmanager_backends[account][backend.region_name]
    return found


_moto_get = SecretsManagerBackend.get_secret_value


def get_secret_value(
    self: SecretsManagerBackend, secret_id: str, version_id: str, version_stage: str
) -> dict[str, Any]:
    """Cross: what AWS's own key encrypts, as all copies here, no other account reads."""
    there = home(self, secret_id)
    if there is not self and secret_id in there.secrets:
        key = getattr(there.secrets[secret_id], "kms_key_id", None)
        if key is None or "alias/aws/" in key:
            raise InvalidRequestException(
                "You can't access a secret from a different AWS account if you encrypt the secret "
                "with the default KMS service key."
            )
    return _moto_get(there, secret_id, version_id, version_stage)


_moto_describe = SecretsManagerBackend.describe_secret


def describe_secret(self: SecretsManagerBackend, secret_id: str) -> FakeSecret | ReplicaSecret:
    return _moto_describe(home(self, secret_id), secret_id)


REPLACED: dict[type, dict[str, Callable[..., Any]]] = {
    SecretsManagerBackend: {
        "create_secret": create_secret,
        "describe_secret": describe_secret,
        "get_resource_policy": get_resource_policy,
        "get_secret_value": get_secret_value,
        "put_secret_value": put_secret_value,
        "update_secret": update_secret,
        "update_secret_version_stage": update_secret_version_stage,
        "tag_resource": tag_resource,
    },
    SecretsManagerResponse: {"put_resource_policy": put_resource_policy},
}
