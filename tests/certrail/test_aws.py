"""AWS's refusals in our words, as they come from a real call."""

from __future__ import annotations

import pytest

from certrail.aws import Aws
from certrail.errors import AccessDenied, AwsError
from sandbox import Sandbox


def test_a_bucket_that_is_not_there_says_where_its_name_is(sandbox: Sandbox) -> None:
    with pytest.raises(AwsError, match="CERTRAIL_BUCKET") as caught:
        Aws().s3().get_object(Bucket="nobodys-bucket", Key="config/pipelines.yaml")
    assert caught.value.code == "NoSuchBucket"
    assert not caught.value.retryable


def test_a_role_that_lets_nobody_in_says_which_two_sides_must(sandbox: Sandbox) -> None:
    with (
        sandbox.server.refuse("sts:AssumeRole", "AccessDenied", "Not you."),
        pytest.raises(AccessDenied, match=r"certrail iam.*AssumableRoleArns"),
    ):
        Aws().acting_as("arn:aws:iam::222222222222:role/certrail")


def test_a_permission_that_s3_needs_of_kms_is_named(sandbox: Sandbox) -> None:
    message = (
        "User: arn:aws:sts::123456789012:assumed-role/r/s is not authorized to perform: "
        "kms:Decrypt on resource: arn:aws:kms:eu-central-1:123456789012:key/k"
    )
    with (
        sandbox.server.refuse("s3:GetObject", "AccessDenied", message),
        pytest.raises(AccessDenied, match="Allow kms:Decrypt in the policy"),
    ):
        Aws().s3().get_object(Bucket="a-bucket", Key="a-key")


def test_no_answer_is_retryable(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", _at_once)
    with pytest.raises(AwsError, match="Could not connect") as caught:
        Aws().s3().get_object(Bucket="a-bucket", Key="a-key")
    assert caught.value.retryable
    assert caught.value.action == "s3:GetObject"


def _at_once(*_: object) -> float:
    return 0.0
