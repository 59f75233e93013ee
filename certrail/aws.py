"""AWS clients, made in one place, whose failures are already certrail's errors.

Every call made through `Aws` raises `AwsError` (or `AccessDenied`) instead of botocore's
`ClientError`: the translation hangs on the client's own events, so no caller repeats it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader
from botocore.model import OperationModel

from certrail.errors import AccessDenied, AwsError, Busy

if TYPE_CHECKING:
    from types_boto3_acm import ACMClient
    from types_boto3_apigateway import APIGatewayClient
    from types_boto3_cloudfront import CloudFrontClient
    from types_boto3_cloudwatch import CloudWatchClient
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

# What the credentials of a role must still last for one function to do its work with them.
LEFT = timedelta(minutes=20)

# IAM's prefix where it is not the client's signing name.
IAM_PREFIX = {"monitoring": "cloudwatch", "tagging": "tag"}

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
# What both sides have to allow.
BETWEEN_ACCOUNTS = {
    "sts:AssumeRole": "`certrail iam` prints the trust policy that the role must have; the stack's "
    "parameter `AssumableRoleArns` must name the role"
}


_end: ContextVar[datetime | None] = ContextVar("_end", default=None)


@contextmanager
def calls_end_after(time: timedelta) -> Iterator[None]:
    """For so long calls are made as ever; after it each fails with Busy instead of being sent, of
    whatever client, repetitions of a call too. As a decorator: in each call of the function anew.

    For who holds a lease: a laptop that was closed in the middle and wakes up an hour later must
    not go on where somebody else has taken over. No call of AWS's that writes a certificate takes a
    condition by which AWS itself could refuse it.
    """
    token = _end.set(datetime.now(UTC) + time)
    try:
        yield
    finally:
        _end.reset(token)


class Aws:
    """The clients of one account. Safe to share between threads; clients are made once."""

    def __init__(self, session: boto3.Session | None = None) -> None:
        self._session = session or boto3.Session()
        self._clients: dict[tuple[str, str | None], Any] = {}
        self._others: dict[tuple[str, str | None], tuple[Aws, datetime]] = {}
        self._lock = threading.Lock()
        # AWS takes the credentials no more: of a role that was made anew, for example.
        self._rejected = False

    @property
    def region(self) -> str | None:
        return self._session.region_name

    def regions(self, service: str, partition: str) -> list[str]:
        """Where a partition has the service, by botocore's data; the session's own region first.
        The account may not have enabled all of them."""
        found = self._session.get_available_regions(service, partition)
        return sorted(found, key=lambda region: (region != self.region, region))

    def caller(self) -> str:
        """The ARN of who makes the calls. Needs no permission."""
        return str(self._client("sts").get_caller_identity()["Arn"])

    def acting_as(self, role_arn: str, external_id: str | None = None) -> Aws:
        """The same in another account, by AssumeRole, once for as long as the credentials last.

        That is one hour: a role that assumes a role cannot ask for more
        (docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html).
        """
        known = self._others.get((role_arn, external_id))
        if known and not known[0]._rejected and known[1] - datetime.now(UTC) > LEFT:
            return known[0]
        sts = self._client("sts")
        extra = {"ExternalId": external_id} if external_id else {}
        credentials = sts.assume_role(RoleArn=role_arn, RoleSessionName="certrail", **extra)[
            "Credentials"
        ]
        core = botocore.session.Session()
        core.register_component("data_loader", _loader())
        there = Aws(
            boto3.Session(
                aws_access_key_id=credentials["AccessKeyId"],
                aws_secret_access_key=credentials["SecretAccessKey"],
                aws_session_token=credentials["SessionToken"],
                region_name=self.region,
                botocore_session=core,
            )
        )
        self._others[role_arn, external_id] = (there, credentials["Expiration"])
        return there

    def acm(self, region: str) -> ACMClient:
        client: ACMClient = self._client("acm", region)
        return client

    def apigateway(self, region: str) -> APIGatewayClient:
        client: APIGatewayClient = self._client("apigateway", region)
        return client

    def cloudfront(self) -> CloudFrontClient:
        client: CloudFrontClient = self._client("cloudfront", "us-east-1")
        return client

    def cloudwatch(self, region: str | None = None) -> CloudWatchClient:
        client: CloudWatchClient = self._client("cloudwatch", region)
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
                client.meta.events.register("request-created", _in_time)
                client.meta.events.register("after-call", self._refuse)
                client.meta.events.register("after-call-error", _unreachable)
                self._clients[key] = client
            return self._clients[key]

    def _refuse(self, http_response: Any, parsed: Any, model: OperationModel, **_: Any) -> None:
        """Called by botocore after its own retries."""
        if http_response.status_code >= 300:
            self._rejected |= parsed.get("Error", {}).get("Code") in NOT_SIGNED
            raise _refusal(http_response.status_code, parsed, model)


@cache
def _loader() -> Loader:
    """What it has read of the services' models, most of the cost of a client, it keeps: a process
    acts in other accounts again and again."""
    return create_loader()


def _in_time(**_: Any) -> None:
    """Called by botocore before each try of a call."""
    end = _end.get()
    if end is not None and datetime.now(UTC) >= end:
        raise Busy(
            "this took so long that somebody else may have taken over",
            next="What was not done is done by the next run",
        )


def _action(model: OperationModel) -> str:
    prefix = model.service_model.signing_name
    if prefix == "apigateway":
        # docs.aws.amazon.com/service-authorization/latest/reference/list_apigateway.html
        return f"{prefix}:{model.http['method']}"
    return f"{IAM_PREFIX.get(prefix, prefix)}:{model.name}"


def _refusal(status: int, parsed: Any, model: OperationModel) -> AwsError:
    """botocore's parsed answer as certrail's error."""
    error = parsed.get("Error", {})
    code = str(error.get("Code", status))
    message = str(error.get("Message", "")).strip() or f"HTTP {status}"
    action = _action(model)
    made = AwsError(
        f"{code}: {message}",
        action=action,
        code=code,
        next=REMEDIES.get(code, ""),
        retryable=code in TRANSIENT or status >= 500,
    )
    if code in NOT_SIGNED:
        made = AwsError(
            f"{code}: {message}",
            action=action,
            code=code,
            next="Sign in to AWS again, and compare this machine's clock with the time",
            # A function gets new credentials by itself.
            retryable=True,
        )
    elif code in DENIED or status == 403:
        # S3 asks KMS in the caller's name, and it may be that which is refused.
        said = LACKING.search(message)
        lacking = said[1] if said else action
        made = AccessDenied(
            message,
            action=action,
            code=code,
            next=BETWEEN_ACCOUNTS.get(lacking)
            or f"Allow {lacking} in the policy of the role that made the call",
        )
    made.__cause__ = ClientError(parsed, model.name)
    return made


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
