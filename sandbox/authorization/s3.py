"""S3: buckets, objects, and the KMS keys that objects are encrypted with."""

from collections.abc import Mapping
from typing import Any

from moto.s3.models import FakeKey, s3_backends

from sandbox.authorization.kms import through
from sandbox.authorization.request import modelled, request_context
from sandbox.calls import Call
from sandbox.policies import Need

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
BUCKET = {
    "CreateBucket": "CreateBucket",
    "DeleteBucket": "DeleteBucket",
    "GetBucketAcl": "GetBucketAcl",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetBucketLocation": "GetBucketLocation",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "GetBucketPolicy": "GetBucketPolicy",
    "GetBucketTagging": "GetBucketTagging",
    "GetBucketVersioning": "GetBucketVersioning",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "PutBucketNotificationConfiguration": "PutBucketNotification",
    "PutBucketPolicy": "PutBucketPolicy",
    "PutBucketTagging": "PutBucketTagging",
    "PutBucketVersioning": "PutBucketVersioning",
}
OBJECT = {
    "AbortMultipartUpload": "AbortMultipartUpload",
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteObject": "DeleteObject",
    "DeleteObjectTagging": "DeleteObjectTagging",
    "GetObject": "GetObject",
    "GetObjectAttributes": "GetObjectAttributes",
    "GetObjectTagging": "GetObjectTagging",
    "HeadObject": "GetObject",
    "ListParts": "ListMultipartUploadParts",
    "PutObject": "PutObject",
    "PutObjectTagging": "PutObjectTagging",
    "UploadPart": "PutObject",
}
# Asked for one version, these are other actions.
OF_A_VERSION = {
    "DeleteObject",
    "DeleteObjectTagging",
    "GetObject",
    "GetObjectAttributes",
    "GetObjectTagging",
    "PutObjectTagging",
}
KEYS = {
    "Prefix": "s3:prefix",
    "Delimiter": "s3:delimiter",
    "MaxKeys": "s3:max-keys",
    "VersionId": "s3:VersionId",
    "IfMatch": "s3:if-match",
    "IfNoneMatch": "s3:if-none-match",
    "ACL": "s3:x-amz-acl",
    "SSECustomerAlgorithm": "s3:x-amz-server-side-encryption-customer-algorithm",
    "ServerSideEncryption": "s3:x-amz-server-side-encryption",
    "SSEKMSKeyId": "s3:x-amz-server-side-encryption-aws-kms-key-id",
}


def needs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = request_context(call) | {
        key: str(params[name]) for name, key in KEYS.items() if name in params
    }
    if call.operation == "ListBuckets":
        return [Need("s3:ListAllMyBuckets", "*", context)]
    bucket = params.get("Bucket", "")
    owner = bucket_owner(bucket)
    if owner:
        context["aws:ResourceAccount"] = owner
    arn = f"arn:aws:s3:::{bucket}"
    if call.operation in BUCKET:
        return [Need(f"s3:{BUCKET[call.operation]}", arn, context)]
    if call.operation == "DeleteObjects":
        return [
            Need(
                "s3:DeleteObjectVersion" if "VersionId" in each else "s3:DeleteObject",
                f"{arn}/{each['Key']}",
                context,
            )
            for each in params.get("Delete", {}).get("Objects", [])
        ]
    modelled(call, set(OBJECT))
    action = OBJECT[call.operation]
    if "VersionId" in params and action in OF_A_VERSION:
        action = action.replace("Object", "ObjectVersion", 1)
    key = params.get("Key", "")
    found = [Need(f"s3:{action}", f"{arn}/{key}", context)]
    if call.operation == "CopyObject":
        source = params.get("CopySource", "").lstrip("/").partition("?")[0]
        found.append(Need("s3:GetObject", f"arn:aws:s3:::{source}", context))
        found += _decrypt(call, *source.split("/", 1))
    if params.get("Tagging") and call.operation in {"PutObject", "CreateMultipartUpload"}:
        found.append(Need("s3:PutObjectTagging", f"{arn}/{key}", context))
    if action == "PutObject" and "IfMatch" in params:
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
        found.append(Need("s3:GetObject", f"{arn}/{key}", context))
    if action == "PutObject":
        found += _encrypt(call, params, bucket, key)
    if call.operation in {"GetObject", "HeadObject"} and not _is_there(bucket, key):
        # Who may not list learns 403, not 404, of what is not there, whatever its prefix:
        # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
        unprefixed = {name: value for name, value in context.items() if name != "s3:prefix"}
        found.append(Need("s3:ListBucket", arn, unprefixed, implied=True))
    if call.operation == "GetObject":
        found += _decrypt(call, bucket, key, params.get("VersionId"))
    return found


def bucket_owner(bucket: str) -> str | None:
    """The account that has the bucket; None if nobody has."""
    owner = s3_backends.bucket_accounts.get(bucket)
    return owner[1] if owner else None


def _bucket(name: str) -> Any:
    owner = s3_backends.bucket_accounts.get(name)
    return s3_backends[owner[1]][owner[0]].buckets.get(name) if owner else None


def _is_there(bucket: str, key: str) -> bool:
    found = _bucket(bucket)
    # Of a bucket that is not there, everybody learns that.
    return found is None or isinstance(found.keys.get(key), FakeKey)


def _encrypt(call: Call, params: Mapping[str, Any], bucket: str, key: str) -> list[Need]:
    """SSE-KMS: what the request asks for, or else what the bucket does by itself.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html
    """
    found = _bucket(bucket)
    rule = (found.encryption or {}).get("Rule", {}) if found else {}
    default = rule.get("ApplyServerSideEncryptionByDefault", {})
    algorithm = params.get("ServerSideEncryption") or default.get("SSEAlgorithm")
    if algorithm not in {"aws:kms", "aws:kms:dsse"}:
        return []
    kms_key = params.get("SSEKMSKeyId") or default.get("KMSMasterKeyID")
    about = _about(bucket, key, _yes(rule.get("BucketKeyEnabled")))
    found_needs = through("s3", "kms:GenerateDataKey", call, kms_key, about)
    # The parts of an upload are read again when they are put together.
    if call.operation in {"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"}:
        found_needs += through("s3", "kms:Decrypt", call, kms_key, about)
    return found_needs


def _decrypt(call: Call, bucket: str, key: str, version: str | None = None) -> list[Need]:
    found = _bucket(bucket)
    if found is None:
        return []
    versions = found.keys.getlist(key, [])
    chosen = [each for each in versions if version in (None, getattr(each, "version_id", None))]
    if not chosen or getattr(chosen[-1], "encryption", None) not in {"aws:kms", "aws:kms:dsse"}:
        return []
    about = _about(bucket, key, _yes(chosen[-1].bucket_key_enabled))
    return through("s3", "kms:Decrypt", call, chosen[-1].kms_key_id, about)


def _yes(value: Any) -> bool:
    """A boolean as moto keeps it: itself, or the text of an XML element."""
    return str(value).lower() == "true"


def _about(bucket: str, key: str, whole_bucket: bool) -> dict[str, str]:
    """The encryption context: of the object, or of the bucket where a Bucket Key serves all."""
    arn = f"arn:aws:s3:::{bucket}"
    return {"aws:s3:arn": arn if whole_bucket else f"{arn}/{key}"}
