"""S3: what PutObject enforces of conditional writes and of the KMS key it is given.

Sources:
  conditional  https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
  API          https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
  KMS          https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html

Not enforced: ETags of SSE-KMS objects, which on AWS are not the MD5 of the content.
"""

from collections.abc import Callable
from threading import RLock
from typing import Any

from moto.core.common_types import TYPE_RESPONSE
from moto.kms.models import kms_backends
from moto.s3.exceptions import S3ClientError
from moto.s3.responses import S3Response

_writing: dict[tuple[str, str], RLock] = {}


def only_a_star(if_none_match: str | None) -> bool:
    """Conditional: If-None-Match on a write takes `*` and nothing else (501 NotImplemented)."""
    return if_none_match in (None, "*")


# A tuple, because moto answers every code the service model does not name with status 400.
NOT_IMPLEMENTED: TYPE_RESPONSE = (
    501,
    {"Content-Type": "application/xml"},
    "<Error><Code>NotImplemented</Code><Message>A header you provided implies functionality that "
    "is not implemented.</Message><Header>If-None-Match</Header></Error>",
)


def key_exists(account: str, region: str, key_id: str | None) -> None:
    """KMS: an object can be encrypted only with a key that is there (KMS.NotFoundException)."""
    if key_id is None or key_id == "alias/aws/s3":
        return
    parts = key_id.split(":", 5)
    if len(parts) == 6:
        region, account, key_id = parts[3], parts[4], parts[5]
    backend = kms_backends[account][region]
    if key_id.startswith("alias/"):
        found = backend.alias_exists(key_id)
    else:
        found = key_id.removeprefix("key/") in backend.keys
    if not found:
        raise S3ClientError("KMS.NotFoundException", f"Key '{key_id}' does not exist")


_moto_put = S3Response.put_object


def put_object(self: S3Response) -> TYPE_RESPONSE:
    """Conditions are checked and the object written as one step: of two writers one gets 412."""
    headers = self.headers
    if not only_a_star(headers.get("If-None-Match")):
        return NOT_IMPLEMENTED
    key_exists(
        self.current_account,
        self.region,
        headers.get("x-amz-server-side-encryption-aws-kms-key-id"),
    )
    key = (self.bucket_name, self.parse_key_name())
    with _writing.setdefault(key, RLock()):
        return _moto_put(self)


REPLACED: dict[type, dict[str, Callable[..., Any]]] = {S3Response: {"put_object": put_object}}
