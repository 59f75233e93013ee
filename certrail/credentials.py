"""Secrets that are named by ARN: in Secrets Manager or in Parameter Store."""

from __future__ import annotations

from certrail.aws import Aws
from certrail.errors import AwsError, StateError
from certrail.secret import Secret


def fetch(aws: Aws, arn: str) -> Secret:
    """The secret's current text, without white space around it. Raises AwsError, which names the
    secret; StateError where it is not text.

    Needs `secretsmanager:GetSecretValue` or `ssm:GetParameter`, and `kms:Decrypt` where the secret
    has a key of your own.
    """
    try:
        text = _text(aws, arn)
    except AwsError as error:
        # AWS itself only says that "the specified secret" is not there.
        raise type(error)(
            f"{error.what} ({arn})",
            action=error.action,
            code=error.code,
            next=error.next or "Compare the ARN with the one of the secret",
            retryable=error.retryable,
        ) from error
    return Secret(text.strip())


def _text(aws: Aws, arn: str) -> str:
    _, _, service, region, _, _ = arn.split(":", 5)
    if service == "ssm":
        return aws.ssm(region).get_parameter(Name=arn, WithDecryption=True)["Parameter"]["Value"]
    answer = aws.secretsmanager(region).get_secret_value(SecretId=arn)
    if "SecretString" not in answer:
        raise StateError("the secret is not text", where=arn, next="Store it as plain text")
    return answer["SecretString"]
