"""AWS requests as calls, and the journal that remembers them.

A request says which API operation it is in one of four ways: a header (json), a parameter (query),
or its method and path (rest-xml, rest-json). moto's router reads all of them with botocore's own
service models; this module adds who called, and forgets what must not be remembered.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from botocore.exceptions import UnknownServiceError
from moto.core.parse import PROTOCOL_PARSERS, RequestParserError
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from moto.iam.models import get_account_id_from
from werkzeug.exceptions import NotFound

if TYPE_CHECKING:
    from moto.core.model import OperationModel, Shape

# botocore's directory where it is not the name in the signature.
MODELS = {
    "elasticloadbalancing": "elbv2",
    "monitoring": "cloudwatch",
    "tagging": "resourcegroupstaggingapi",
}
# IAM's prefix where it is not the name in the signature.
PREFIXES = {"monitoring": "cloudwatch", "tagging": "tag"}

# Services without regions: their calls are made in one, however they are signed.
GLOBAL = {"cloudfront", "iam", "route53"}

READS = re.compile(
    r"Get|List|Describe|Head|Search|BatchGet|Lookup|Validate|Estimate|Simulate|Select|Test"
    r"|AssumeRole|Receive|Decrypt|Encrypt|GenerateDataKey|ReEncrypt"
)
CREDENTIAL = re.compile(r"Credential=(?P<key>[^/]+)/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/")
# botocore's models call these sensitive; they are identifiers that IAM decisions need.
NOT_SECRET = {"SSEKMSKeyId", "CopySourceSSEKMSKeyId", "KMSMasterKeyID"}
PRIVATE_KEY = "PRIVATE KEY-----"


@dataclass(frozen=True)
class Decision:
    """What IAM said about one permission that a call needed."""

    action: str
    resource: str
    allowed: bool
    why: str


@dataclass(frozen=True)
class Call:
    """One API call.

    action: as in an IAM policy, with the API's operation: `s3:ListObjectsV2`.
    account: the twelve digits; region: as signed.
    caller: ARN of the assumed role, or of the administrator.
    params: as boto3 takes them, without anything secret; None if they could not be read.
    resource: ARN of the first thing the call is about, "*" if it has none, "" if not known.
    status: HTTP status of the answer, None as long as there is none.
    decisions: what IAM said, in order; empty for the administrator.
    """

    service: str
    action: str
    region: str
    account: str
    access_key: str
    params: Mapping[str, Any] | None
    resource: str = ""
    caller: str = ""
    status: int | None = None
    decisions: tuple[Decision, ...] = ()
    model: OperationModel | None = field(default=None, repr=False, compare=False)

    @property
    def operation(self) -> str:
        return self.action.partition(":")[2]

    @property
    def writes(self) -> bool:
        return READS.match(self.operation) is None


class Journal:
    """Every call in the order it was answered. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._calls: list[Call] = []

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()

    def mark(self) -> int:
        """The place in the journal where the next call will be."""
        with self._lock:
            return len(self._calls)

    def since(self, mark: int) -> list[Call]:
        with self._lock:
            return self._calls[mark:]

    def all(self) -> list[Call]:
        return self.since(0)

    def of(self, action: str, since: int = 0) -> list[Call]:
        return [call for call in self.since(since) if call.action == action]

    def writes(self, *services: str, since: int = 0) -> list[Call]:
        """Calls that were answered well and change something, in these services or in any."""
        return [
            call
            for call in self.since(since)
            if call.writes
            and (not services or call.service in services)
            and call.status is not None
            and call.status < 300
        ]

    def count(self, since: int = 0) -> Counter[str]:
        """How many calls there were of each action, refused ones too."""
        return Counter(call.action for call in self.since(since))


def read(environ: Mapping[str, Any], body: bytes) -> Call | None:
    """The call that a signed request makes; None if the request is not signed."""
    request = Request({**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
    signature = _signature(request)
    if signature is None:
        return None
    access_key, region, signed_for = signature
    operation, labels = _operation(request, signed_for)
    name = operation.name if operation else _stated_name(request)
    params = _params(operation, labels, request, body) if operation else None
    prefix = PREFIXES.get(signed_for, signed_for)
    return Call(
        service=prefix,
        action=f"{prefix}:{name}",
        region="us-east-1" if prefix in GLOBAL else region,
        account=request.headers.get("x-moto-account-id") or get_account_id_from(access_key),
        access_key=access_key,
        params=params,
        model=operation,
    )


def _signature(request: Request) -> tuple[str, str, str] | None:
    """Access key, region, service: from the header or, in a presigned URL, from the query."""
    scope = request.headers.get("Authorization", "")
    if "X-Amz-Credential" in request.args:
        scope = f"Credential={request.args['X-Amz-Credential']}"
    found = CREDENTIAL.search(scope)
    return (found["key"], found["region"], found["service"]) if found else None


def _operation(request: Request, signed_for: str) -> tuple[OperationModel | None, dict[str, Any]]:
    try:
        return get_service_router(MODELS.get(signed_for, signed_for)).match(request)
    except (NotFound, NotImplementedError, UnknownServiceError):
        return None, {}


def _stated_name(request: Request) -> str:
    target = request.headers.get("X-Amz-Target", "")
    return (
        target.rpartition(".")[2]
        or request.values.get("Action")
        or f"{request.method} {request.path}"
    )


def _params(
    operation: OperationModel, labels: dict[str, Any], request: Request, body: bytes
) -> Mapping[str, Any] | None:
    shape = operation.input_shape
    if shape is None:
        return {}
    protocol = determine_request_protocol(operation.service_model, request.content_type)
    try:
        parsed = PROTOCOL_PARSERS[protocol](operation).parse(
            {
                "method": request.method,
                "values": request.values,
                "headers": request.headers,
                "body": body,
                "url_path": request.path,
                "url_params": labels,
            }
        )
    except (RequestParserError, ValueError, KeyError, TypeError, AttributeError):
        # A body that does not fit its model: moto will refuse it in the service's words.
        return None
    kept = _without_secrets(shape, parsed)  # type: ignore[arg-type]
    return kept if isinstance(kept, dict) else None


def _without_secrets(shape: Shape, value: Any) -> Any:
    """The value less every member that holds key material, a secret or an object's body."""
    if shape.type_name == "structure" and isinstance(value, dict):
        members = shape.members  # type: ignore[attr-defined]
        return {
            name: _without_secrets(members[name], part)
            for name, part in value.items()
            if name in members and not _is_secret(name, members[name], part)
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [_without_secrets(shape.member, part) for part in value]  # type: ignore[attr-defined]
    return value


def _is_secret(name: str, shape: Shape, value: Any) -> bool:
    if name in NOT_SECRET:
        return False
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return bool(
        shape.metadata.get("sensitive")
        or shape.serialization.get("streaming")
        or (isinstance(text, str) and PRIVATE_KEY in text)
    )


def queue_name(url: str) -> str:
    """The name at the end of a queue's URL."""
    return url.rstrip("/").rpartition("/")[2]
