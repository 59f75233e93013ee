"""AWS clients, made in one place, whose failures are already certrail's errors.

Every call made through `Aws` raises `AwsError` (or `AccessDenied`) instead of botocore's
`ClientError`: the translation hangs on the client's own events, so no caller repeats it.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import OperationModel

from certrail.errors import AccessDenied, AwsError

if TYPE_CHECKING:
    from types_boto3_acm import ACMClient
    from types_boto3_cloudfront import CloudFrontClient
    from types_boto3_elbv2 import ElasticLoadBalancingv2Client
    from types_boto3_events import EventBridgeClient
    from types_boto3_resourcegroupstaggingapi import ResourceGroupsTaggingAPIClient
    from types_boto3_route53 import Route53Client
    from types_boto3_s3 import S3Client
    from types_boto3_secretsmanager import SecretsManagerClient
    from types_boto3_sqs import SQSClient
    from types_boto3_ssm import SSMClient

# The retry mode is stated because its default differs between botocore versions.
CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 5},
    connect_timeout=5,
    read_timeout=30,
    user_agent_extra="certrail",
)

# IAM's prefix where it is not the client's signing name.
IAM_PREFIX = {"tagging": "tag"}

DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}
# Answers of status 403 or 400 that no policy mends: the caller's credentials, or its clock.
NOT_SIGNED = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
TRANSIENT = {
    "ConditionalRequestConflict",
    "InternalError",
    "InternalFailure",
    "InternalServiceError",
    "PriorRequestNotComplete",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
}

LACKING = re.compile(r"not authorized to perform: ([\w-]+:\w+)")
REMEDIES = {
    "NoSuchBucket": "Check the bucket's name: it is the stack's output `BucketName`, and "
    "CERTRAIL_BUCKET or --bucket names it",
}


class Aws:
    """The clients of one account. Safe to share between threads; clients are made once."""

    def __init__(self, session: boto3.Session | None = None) -> None:
        self._session = session or boto3.Session()
        self._clients: dict[tuple[str, str | None], Any] = {}
        self._lock = threading.Lock()

    @property
    def region(self) -> str | None:
        return self._session.region_name

    def acting_as(self, role_arn: str, external_id: str | None = None) -> Aws:
        """The same in another account, by AssumeRole.

        The credentials last one hour: a role that assumes a role cannot ask for more
        (docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html).
        """
        sts = self._client("sts")
        extra = {"ExternalId": external_id} if external_id else {}
        credentials = sts.assume_role(RoleArn=role_arn, RoleSessionName="certrail", **extra)[
            "Credentials"
        ]
        return Aws(
            boto3.Session(
                aws_access_key_id=credentials["AccessKeyId"],
                aws_secret_access_key=credentials["SecretAccessKey"],
                aws_session_token=credentials["SessionToken"],
                region_name=self.region,
            )
        )

    def acm(self, region: str) -> ACMClient:
        client: ACMClient = self._client("acm", region)
        return client

    def cloudfront(self) -> CloudFrontClient:
        client: CloudFrontClient = self._client("cloudfront", "us-east-1")
        return client

    def elbv2(self, region: str) -> ElasticLoadBalancingv2Client:
        client: ElasticLoadBalancingv2Client = self._client("elbv2", region)
        return client

    def route53(self) -> Route53Client:
        client: Route53Client = self._client("route53", "us-east-1")
        return client

    def events(self) -> EventBridgeClient:
        client: EventBridgeClient = self._client("events")
        return client

    def s3(self) -> S3Client:
        client: S3Client = self._client("s3")
        return client

    def secretsmanager(self, region: str) -> SecretsManagerClient:
        client: SecretsManagerClient = self._client("secretsmanager", region)
        return client

    def sqs(self) -> SQSClient:
        client: SQSClient = self._client("sqs")
        return client

    def ssm(self, region: str) -> SSMClient:
        client: SSMClient = self._client("ssm", region)
        return client

    def tagging(self, region: str) -> ResourceGroupsTaggingAPIClient:
        client: ResourceGroupsTaggingAPIClient = self._client("resourcegroupstaggingapi", region)
        return client

    def _client(self, service: str, region: str | None = None) -> Any:
        # boto3 sessions are not thread-safe while a client is made.
        with self._lock:
            key = (service, region)
            if key not in self._clients:
                client = self._session.client(service, region_name=region, config=CONFIG)  # type: ignore[call-overload]
                client.meta.events.register("after-call", _refuse)
                client.meta.events.register("after-call-error", _unreachable)
                self._clients[key] = client
            return self._clients[key]


def _action(model: OperationModel) -> str:
    prefix = model.service_model.signing_name
    return f"{IAM_PREFIX.get(prefix, prefix)}:{model.name}"


def _refuse(http_response: Any, parsed: Any, model: OperationModel, **_: Any) -> None:
    """Called by botocore after its own retries; a refusal becomes ours here."""
    status = http_response.status_code
    if status < 300:
        return
    error = parsed.get("Error", {})
    code = str(error.get("Code", status))
    message = str(error.get("Message", "")).strip() or f"HTTP {status}"
    action = _action(model)
    cause = ClientError(parsed, model.name)
    if code in NOT_SIGNED:
        raise AwsError(
            f"{code}: {message}",
            action=action,
            code=code,
            next="Sign in to AWS again, and compare this machine's clock with the time",
            # A function gets new credentials by itself.
            retryable=True,
        ) from cause
    if code in DENIED or status == 403:
        # S3 asks KMS in the caller's name, and it may be that which is refused.
        said = LACKING.search(message)
        lacking = said[1] if said else action
        raise AccessDenied(
            message,
            action=action,
            code=code,
            next=f"Allow {lacking} in the policy of the role that made the call",
        ) from cause
    raise AwsError(
        f"{code}: {message}",
        action=action,
        code=code,
        next=REMEDIES.get(code, ""),
        retryable=code in TRANSIENT or status >= 500,
    ) from cause


def _unreachable(exception: Exception, **context: Any) -> None:
    """Called by botocore when no answer came: connection, timeout, credentials."""
    if not isinstance(exception, BotoCoreError):
        return
    # event_name is after-call-error.<service id>.<operation>
    _, service, operation = str(context["event_name"]).split(".", 2)
    raise AwsError(
        str(exception),
        action=f"{service}:{operation}",
        code=type(exception).__name__,
        retryable=True,
    ) from exception
