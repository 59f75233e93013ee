"""Readers in other accounts: one statement of a secret's policy. The others stay as they are.

https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_examples_cross.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types_boto3_secretsmanager import SecretsManagerClient

# What IAM has to allow who writes the policy.
SHARE = tuple(f"secretsmanager:{operation}ResourcePolicy" for operation in ("Delete", "Get", "Put"))
READER = re.compile(r"[0-9]{12}|arn:aws[a-z-]*:iam::[0-9]{12}:(root|(role|user)/[\w+=,.@/-]+)")
READ = ("secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue")


def is_shared(client: SecretsManagerClient, arn: str, sid: str, readers: Sequence[str]) -> bool:
    """Whether the policy of the secret lets in whom it should. Raises AwsError."""
    statements = _statements(_policy(client, arn))
    return with_ours(statements, sid, readers, arn) == statements


def share(client: SecretsManagerClient, arn: str, sid: str, readers: Sequence[str]) -> None:
    """Makes no write where it is so already. Raises AwsError."""
    policy = _policy(client, arn)
    statements = _statements(policy)
    wanted = with_ours(statements, sid, readers, arn)
    if wanted == statements:
        return
    if not wanted:
        client.delete_resource_policy(SecretId=arn)
        return
    text = json.dumps({"Version": "2012-10-17", **policy, "Statement": wanted})
    client.put_resource_policy(SecretId=arn, ResourcePolicy=text, BlockPublicPolicy=True)


def with_ours(
    statements: list[dict[str, Any]], sid: str, readers: Sequence[str], arn: str
) -> list[dict[str, Any]]:
    """The statements as they are to be: those of others, and one of ours where there are readers;
    one that says the same in other words stays. arn: of the secret."""
    wanted = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"AWS": [_as_arn(each, arn) for each in readers]},
        "Action": list(READ),
        "Resource": "*",
    }
    ours = [each for each in statements if each.get("Sid") == sid]
    if readers and [_plain(each, arn) for each in ours] == [_plain(wanted, arn)]:
        return statements
    others = [each for each in statements if each not in ours]
    return [*others, wanted] if readers else others


def _policy(client: SecretsManagerClient, arn: str) -> dict[str, Any]:
    text = client.get_resource_policy(SecretId=arn).get("ResourcePolicy")
    policy: dict[str, Any] = json.loads(text) if text else {}
    return policy


def _statements(policy: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = policy.get("Statement", [])
    return [found] if isinstance(found, dict) else list(found)


def _as_arn(reader: str, arn: str) -> str:
    """An account as AWS writes it when it is asked, in the secret's partition."""
    return reader if ":" in reader else f"arn:{arn.split(':')[1]}:iam::{reader}:root"


def _plain(statement: Mapping[str, Any], arn: str) -> dict[str, Any]:
    """So that two that say the same are equal: AWS makes one text of a list of one, and may order
    it anew."""

    def listed(value: Any) -> Any:
        return sorted([value] if isinstance(value, str) else value)

    principal = statement.get("Principal")
    if isinstance(principal, dict):
        principal = {
            kind: sorted(_as_arn(each, arn) for each in listed(named))
            for kind, named in principal.items()
        }
    return {**statement, "Principal": principal, "Action": listed(statement.get("Action", []))}
