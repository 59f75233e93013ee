"""What each API call must be allowed to do: IAM actions, resource ARNs and condition keys.

An action is often, but not always, named like the API operation; the tables follow AWS's Service
Authorization Reference (https://docs.aws.amazon.com/service-authorization/latest/reference/). Only
services that certrail's functions use are modelled, and only the operations such functions could
sensibly use; for any other `needs` raises `Unmodelled`, so that nothing passes by being unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.calls import Call, queue_name
from sandbox.policies import Need

Context = dict[str, str | tuple[str, ...]]


class Unmodelled(Exception):
    """The sandbox does not know what this call needs."""


def needs(call: Call) -> tuple[Need, ...]:
    """Every permission the call needs; all must be granted. Raises Unmodelled."""
    if call.params is None:
        raise Unmodelled(f"the sandbox cannot read the parameters of {call.action}")
    find = SERVICES.get(call.service)
    if find is None:
        raise Unmodelled(f"the sandbox does not model IAM for the service {call.service}")
    return tuple(find(call, call.params))


def resource(call: Call) -> str:
    """The ARN the call is about, "*" where it is about none, "" where that is not known."""
    try:
        first = needs(call)
    except Unmodelled:
        return ""
    return first[0].resource if first else "*"


def _request(call: Call, tags: Any = None) -> Context:
    """The condition keys that every request has, and those of the tags it brings."""
    context: Context = {"aws:RequestedRegion": call.region, "aws:SecureTransport": "true"}
    found = _tags(tags)
    if found:
        context["aws:TagKeys"] = tuple(found)
        context |= {f"aws:RequestTag/{key}": value for key, value in found.items()}
    return context


def _tags(tags: Any) -> dict[str, str]:
    """Tags in any of the shapes AWS has for them, as one mapping."""
    if isinstance(tags, Mapping) and "Items" in tags:
        tags = tags["Items"]
    if isinstance(tags, Mapping):
        return {str(key): str(value) for key, value in tags.items()}
    return {str(tag["Key"]): str(tag.get("Value", "")) for tag in tags or ()}


def _tagged(prefix: str, tags: Any) -> Context:
    """Condition keys of the tags a resource has."""
    found = _tags(tags)
    return {f"{kind}:ResourceTag/{k}": v for kind in ("aws", prefix) for k, v in found.items()}


def _here(call: Call, rest: str) -> str:
    return f"arn:aws:{call.service}:{call.region}:{call.account}:{rest}"


def _modelled(call: Call, operations: set[str]) -> None:
    if call.operation not in operations:
        raise Unmodelled(f"the sandbox does not know which resource {call.action} needs")


# --- ACM ---

ACM_WHOLE = {"ListCertificates", "GetAccountConfiguration", "PutAccountConfiguration"}
ACM_ONE = {
    "AddTagsToCertificate",
    "DeleteCertificate",
    "DescribeCertificate",
    "ExportCertificate",
    "GetCertificate",
    "ImportCertificate",
    "ListTagsForCertificate",
    "RemoveTagsFromCertificate",
    "RenewCertificate",
    "RequestCertificate",
}


def acm(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = _request(call, params.get("Tags"))
    if call.operation in ACM_WHOLE:
        return [Need(call.action, "*", context)]
    _modelled(call, ACM_ONE)
    arn = params.get("CertificateArn")
    if arn:
        context |= _tagged("acm", _acm_tags(call, arn))
    # Without an ARN the certificate does not exist yet, and the request is for any.
    found = [Need(call.action, arn or _here(call, "certificate/*"), context)]
    if params.get("Tags") and call.operation in {"ImportCertificate", "RequestCertificate"}:
        found.append(Need("acm:AddTagsToCertificate", found[0].resource, context))
    return found


def _acm_tags(call: Call, arn: str) -> Any:
    from moto.acm.models import acm_backends

    bundle = acm_backends[call.account][call.region]._certificates.get(arn)
    return {key: value or "" for key, value in bundle.tags.items()} if bundle else {}


# --- CloudFront ---

CLOUDFRONT_WHOLE = {"ListDistributions", "ListDistributionsByWebACLId", "ListDistributionTenants"}
CLOUDFRONT_ONE = {
    "CreateDistribution",
    "CreateDistributionWithTags",
    "CreateInvalidation",
    "DeleteDistribution",
    "GetDistribution",
    "GetDistributionConfig",
    "GetInvalidation",
    "ListInvalidations",
    "ListTagsForResource",
    "TagResource",
    "UntagResource",
    "UpdateDistribution",
}


def cloudfront(call: Call, params: Mapping[str, Any]) -> list[Need]:
    tags = params.get("Tags") or params.get("DistributionConfigWithTags", {}).get("Tags")
    context = _request(call, tags)
    if call.operation in CLOUDFRONT_WHOLE:
        return [Need(call.action, "*", context)]
    _modelled(call, CLOUDFRONT_ONE)
    distribution = params.get("DistributionId") or params.get("Id") or "*"
    arn = params.get("Resource") or (
        f"arn:aws:cloudfront::{call.account}:distribution/{distribution}"
    )
    context |= _tagged("cloudfront", _cloudfront_tags(call, arn))
    found = [Need(call.action, arn, context)]
    if call.operation == "CreateDistributionWithTags":
        found = [Need("cloudfront:CreateDistribution", arn, context)]
        found.append(Need("cloudfront:TagResource", arn, context))
    return found


def _cloudfront_tags(call: Call, arn: str) -> Any:
    from moto.cloudfront.models import cloudfront_backends

    return cloudfront_backends[call.account]["aws"].tagger.get_tag_dict_for_resource(arn)


# --- Elastic Load Balancing v2 ---

ELB_ON = {
    "AddListenerCertificates": "ListenerArn",
    "CreateListener": "LoadBalancerArn",
    "DeleteListener": "ListenerArn",
    "DeleteLoadBalancer": "LoadBalancerArn",
    "DeleteTargetGroup": "TargetGroupArn",
    "ModifyListener": "ListenerArn",
    "ModifyLoadBalancerAttributes": "LoadBalancerArn",
    "ModifyTargetGroup": "TargetGroupArn",
    "RemoveListenerCertificates": "ListenerArn",
}


def elasticloadbalancing(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = _request(call, params.get("Tags"))
    if call.operation.startswith("Describe"):
        return [Need(call.action, "*", context)]
    _modelled(call, {*ELB_ON, "AddTags", "RemoveTags"})
    named = params.get("ResourceArns") or [params.get(ELB_ON[call.operation], "*")]
    return [
        Need(call.action, arn, context | _tagged("elasticloadbalancing", _elb_tags(call, arn)))
        for arn in named
    ]


def _elb_tags(call: Call, arn: str) -> Any:
    from moto.elbv2.models import elbv2_backends

    tagging = elbv2_backends[call.account][call.region].tagging_service
    return tagging.get_tag_dict_for_resource(arn)


# --- Route 53 ---

ROUTE53_WHOLE = {
    "CreateHostedZone",
    "GetHostedZoneCount",
    "ListHostedZones",
    "ListHostedZonesByName",
}
ROUTE53_ZONE = {
    "ChangeResourceRecordSets": "HostedZoneId",
    "DeleteHostedZone": "Id",
    "GetHostedZone": "Id",
    "ListResourceRecordSets": "HostedZoneId",
    "ListTagsForResource": "ResourceId",
}


def route53(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = _request(call)
    if call.operation in ROUTE53_WHOLE:
        return [Need(call.action, "*", context)]
    if call.operation == "GetChange":
        change = _last(params.get("Id", ""))
        return [Need(call.action, f"arn:aws:route53:::change/{change}", context)]
    _modelled(call, set(ROUTE53_ZONE))
    zone = _last(params.get(ROUTE53_ZONE[call.operation], ""))
    changes = params.get("ChangeBatch", {}).get("Changes", [])
    if changes:
        sets = [change["ResourceRecordSet"] for change in changes]
        kind = "route53:ChangeResourceRecordSets"
        context[f"{kind}NormalizedRecordNames"] = tuple(_normalized(s["Name"]) for s in sets)
        context[f"{kind}RecordTypes"] = tuple(s["Type"] for s in sets)
        context[f"{kind}Actions"] = tuple(change["Action"] for change in changes)
    return [Need(call.action, f"arn:aws:route53:::hostedzone/{zone}", context)]


def _normalized(name: str) -> str:
    """Lower case, no dot at the end, anything unusual as an octal escape.

    https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/specifying-rrset-conditions.html
    """
    plain = name.lower().removesuffix(".")
    return re.sub(r"[^a-z0-9._\\-]", lambda found: f"\\{ord(found[0]):03o}", plain)


def _last(path: str) -> str:
    return path.rpartition("/")[2]


# --- S3 ---

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
S3_BUCKET = {
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
S3_OBJECT = {
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
S3_OF_A_VERSION = {
    "DeleteObject",
    "DeleteObjectTagging",
    "GetObject",
    "GetObjectAttributes",
    "GetObjectTagging",
    "PutObjectTagging",
}
S3_KEYS = {
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


def s3(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = _request(call) | {
        key: str(params[name]) for name, key in S3_KEYS.items() if name in params
    }
    if call.operation == "ListBuckets":
        return [Need("s3:ListAllMyBuckets", "*", context)]
    bucket = params.get("Bucket", "")
    owner = bucket_owner(bucket)
    if owner:
        context["aws:ResourceAccount"] = owner
    arn = f"arn:aws:s3:::{bucket}"
    if call.operation in S3_BUCKET:
        return [Need(f"s3:{S3_BUCKET[call.operation]}", arn, context)]
    if call.operation == "DeleteObjects":
        return [
            Need(
                "s3:DeleteObjectVersion" if "VersionId" in each else "s3:DeleteObject",
                f"{arn}/{each['Key']}",
                context,
            )
            for each in params.get("Delete", {}).get("Objects", [])
        ]
    _modelled(call, set(S3_OBJECT))
    action = S3_OBJECT[call.operation]
    if "VersionId" in params and action in S3_OF_A_VERSION:
        action = action.replace("Object", "ObjectVersion", 1)
    key = params.get("Key", "")
    found = [Need(f"s3:{action}", f"{arn}/{key}", context)]
    if call.operation == "CopyObject":
        source = params.get("CopySource", "").lstrip("/").partition("?")[0]
        found.append(Need("s3:GetObject", f"arn:aws:s3:::{source}", context))
        found += _s3_decrypt(call, *source.split("/", 1))
    if params.get("Tagging") and call.operation in {"PutObject", "CreateMultipartUpload"}:
        found.append(Need("s3:PutObjectTagging", f"{arn}/{key}", context))
    if action == "PutObject" and "IfMatch" in params:
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
        found.append(Need("s3:GetObject", f"{arn}/{key}", context))
    if action == "PutObject":
        found += _s3_encrypt(call, params, bucket, key)
    if call.operation in {"GetObject", "HeadObject"} and not _is_there(bucket, key):
        # Who may not list learns 403, not 404, of what is not there, whatever its prefix:
        # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
        unprefixed = {name: value for name, value in context.items() if name != "s3:prefix"}
        found.append(Need("s3:ListBucket", arn, unprefixed, implied=True))
    if call.operation == "GetObject":
        found += _s3_decrypt(call, bucket, key, params.get("VersionId"))
    return found


def bucket_owner(bucket: str) -> str | None:
    """The account that has the bucket; None if nobody has."""
    from moto.s3.models import s3_backends

    owner = s3_backends.bucket_accounts.get(bucket)
    return owner[1] if owner else None


def _bucket(name: str) -> Any:
    from moto.s3.models import s3_backends

    owner = s3_backends.bucket_accounts.get(name)
    return s3_backends[owner[1]][owner[0]].buckets.get(name) if owner else None


def _is_there(bucket: str, key: str) -> bool:
    from moto.s3.models import FakeKey

    found = _bucket(bucket)
    # Of a bucket that is not there, everybody learns that.
    return found is None or isinstance(found.keys.get(key), FakeKey)


def _s3_encrypt(call: Call, params: Mapping[str, Any], bucket: str, key: str) -> list[Need]:
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
    about = _s3_about(bucket, key, _yes(rule.get("BucketKeyEnabled")))
    found_needs = _through("s3", "kms:GenerateDataKey", call, kms_key, about)
    # The parts of an upload are read again when they are put together.
    if call.operation in {"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"}:
        found_needs += _through("s3", "kms:Decrypt", call, kms_key, about)
    return found_needs


def _s3_decrypt(call: Call, bucket: str, key: str, version: str | None = None) -> list[Need]:
    found = _bucket(bucket)
    if found is None:
        return []
    versions = found.keys.getlist(key, [])
    chosen = [each for each in versions if version in (None, getattr(each, "version_id", None))]
    if not chosen or getattr(chosen[-1], "encryption", None) not in {"aws:kms", "aws:kms:dsse"}:
        return []
    about = _s3_about(bucket, key, _yes(chosen[-1].bucket_key_enabled))
    return _through("s3", "kms:Decrypt", call, chosen[-1].kms_key_id, about)


def _yes(value: Any) -> bool:
    """A boolean as moto keeps it: itself, or the text of an XML element."""
    return str(value).lower() == "true"


def _s3_about(bucket: str, key: str, whole_bucket: bool) -> dict[str, str]:
    """The encryption context: of the object, or of the bucket where a Bucket Key serves all."""
    arn = f"arn:aws:s3:::{bucket}"
    return {"aws:s3:arn": arn if whole_bucket else f"{arn}/{key}"}


# --- KMS ---

KMS_WHOLE = {"CreateKey", "GenerateRandom", "ListAliases", "ListKeys"}


def kms(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = _request(call, params.get("Tags")) | {"kms:CallerAccount": call.account}
    if call.operation in KMS_WHOLE:
        return [Need(call.action, "*", context)]
    if "KeyId" not in params:
        raise Unmodelled(f"{call.action} without KeyId: the sandbox cannot tell which key it needs")
    context |= _encryption_context(params.get("EncryptionContext", {}))
    return [Need(call.action, key_arn(call, params["KeyId"]), context)]


def _encryption_context(pairs: Mapping[str, str]) -> Context:
    context: Context = {f"kms:EncryptionContext:{key}": value for key, value in pairs.items()}
    if pairs:
        context["kms:EncryptionContextKeys"] = tuple(pairs)
    return context


def key_arn(call: Call, key_id: str) -> str:
    """The ARN of the key that an id, an alias or an ARN of either means."""
    from moto.kms.models import kms_backends

    region, account, name = call.region, call.account, key_id
    if key_id.startswith("arn:"):
        _, _, _, region, account, name = key_id.split(":", 5)
    backend = kms_backends[account][region]
    if name.startswith("alias/"):
        for key in list(backend.keys.values()):
            if name in key.aliases:
                return key.arn
    return f"arn:aws:kms:{region}:{account}:key/{name.removeprefix('key/')}"


def _through(
    service: str, action: str, call: Call, key_id: str | None, about: Mapping[str, str]
) -> list[Need]:
    """What a service asks of KMS in the caller's name.

    Nothing for the service's own key: its policy lets everybody in the account use it through the
    service (https://docs.aws.amazon.com/kms/latest/developerguide/concepts.html#aws-managed-key).
    """
    if not key_id or re.search(r"(^|:)alias/aws/", key_id):
        return []
    context = _request(call) | {
        "kms:ViaService": f"{service}.{call.region}.amazonaws.com",
        "kms:CallerAccount": call.account,
    }
    context |= _encryption_context(about)
    return [Need(action, key_arn(call, key_id), context, implied=True)]


# --- Secrets Manager ---

SECRETS_WHOLE = {"GetRandomPassword", "ListSecrets"}
SECRETS_ONE = {
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
SECRETS_KEYS = {
    "Name": "secretsmanager:Name",
    "SecretId": "secretsmanager:SecretId",
    "Description": "secretsmanager:Description",
    "KmsKeyId": "secretsmanager:KmsKeyId",
    "VersionId": "secretsmanager:VersionId",
    "VersionStage": "secretsmanager:VersionStage",
}
# The calls that encrypt or decrypt a value, if that value is in them.
SECRETS_ENCRYPT = {"CreateSecret", "PutSecretValue", "UpdateSecret", "ReplicateSecretToRegions"}


def secretsmanager(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = _request(call, params.get("Tags")) | {
        key: str(params[name]) for name, key in SECRETS_KEYS.items() if name in params
    }
    if call.operation in SECRETS_WHOLE:
        return [Need(call.action, "*", context)]
    _modelled(call, SECRETS_ONE)
    named = params.get("SecretId") or params.get("Name", "")
    secret = _secret(call, named)
    if secret is not None:
        context |= _tagged("secretsmanager", secret.tags or [])
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
    if call.operation in SECRETS_ENCRYPT:
        found += _through("secretsmanager", "kms:GenerateDataKey", call, kms_key, about)
    if call.operation in SECRETS_ENCRYPT or call.operation == "GetSecretValue":
        found += _through("secretsmanager", "kms:Decrypt", call, kms_key, about)
    return found


def _secret(call: Call, named: str) -> Any:
    from moto.secretsmanager.models import secretsmanager_backends

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
    return _here(call, f"secret:{named}-XXXXXX")


# --- SQS ---

SQS_SINGLE = {
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
    "DeleteMessageBatch": "DeleteMessage",
    "SendMessageBatch": "SendMessage",
}


def sqs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = _request(call, params.get("tags"))
    if call.operation == "ListQueues":
        return [Need(call.action, "*", context)]
    action = f"sqs:{SQS_SINGLE.get(call.operation, call.operation)}"
    if "QueueUrl" in params:
        account, name = params["QueueUrl"].rstrip("/").split("/")[-2:]
    elif "QueueName" in params:
        account, name = params.get("QueueOwnerAWSAccountId", call.account), params["QueueName"]
    else:
        raise Unmodelled(f"the sandbox cannot tell which queue {call.action} needs")
    found = [Need(action, f"arn:aws:sqs:{call.region}:{account}:{name}", context)]
    kms_key = _queue_key(call, queue_name(name))
    if action == "sqs:SendMessage":
        found += _through("sqs", "kms:GenerateDataKey", call, kms_key, {})
    if action in {"sqs:SendMessage", "sqs:ReceiveMessage"}:
        found += _through("sqs", "kms:Decrypt", call, kms_key, {})
    return found


def _queue_key(call: Call, name: str) -> str | None:
    from moto.sqs.models import sqs_backends

    queue = sqs_backends[call.account][call.region].queues.get(name)
    return getattr(queue, "kms_master_key_id", None)


# --- the rest, each with little to say ---


def sts(call: Call, params: Mapping[str, Any]) -> list[Need]:
    if call.operation == "GetCallerIdentity":
        # Needs no permission, and none can be taken away.
        return []
    _modelled(call, {"AssumeRole"})
    context = _request(call, params.get("Tags"))
    if "ExternalId" in params:
        context["sts:ExternalId"] = params["ExternalId"]
    context["sts:RoleSessionName"] = params.get("RoleSessionName", "")
    return [Need(call.action, params.get("RoleArn", ""), context)]


def tag(call: Call, params: Mapping[str, Any]) -> list[Need]:
    _modelled(call, {"GetResources", "GetTagKeys", "GetTagValues"})
    return [Need(call.action, "*", _request(call))]


def events(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = _request(call)
    if call.operation == "PutEvents":
        buses = {entry.get("EventBusName", "default") for entry in params.get("Entries", ())}
        return [Need(call.action, _bus(call, bus), context) for bus in sorted(buses)]
    if call.operation in {"ListEventBuses", "ListRules"}:
        return [Need(call.action, "*", context)]
    name = params.get("Name") or params.get("Rule")
    if not name:
        raise Unmodelled(f"the sandbox does not know which resource {call.action} needs")
    if call.operation == "DescribeEventBus":
        return [Need(call.action, _bus(call, name), context)]
    bus = _last(params.get("EventBusName", "default"))
    path = name if bus == "default" else f"{bus}/{name}"
    return [Need(call.action, _here(call, f"rule/{path}"), context)]


def _bus(call: Call, name: str) -> str:
    return name if name.startswith("arn:") else _here(call, f"event-bus/{name}")


def logs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    group = params.get("logGroupName")
    stream = params.get("logStreamName")
    if call.operation == "DescribeLogGroups" or not group:
        return [Need(call.action, _here(call, "log-group:*"), _request(call))]
    suffix = f":log-stream:{stream}" if stream else ":*"
    if call.operation == "CreateLogGroup":
        suffix = ""
    return [Need(call.action, _here(call, f"log-group:{group}{suffix}"), _request(call))]


def cloudwatch(call: Call, params: Mapping[str, Any]) -> list[Need]:
    _modelled(call, {"PutMetricData", "GetMetricData", "GetMetricStatistics", "ListMetrics"})
    context = _request(call)
    if "Namespace" in params:
        context["cloudwatch:namespace"] = params["Namespace"]
    return [Need(call.action, "*", context)]


def lambda_(call: Call, params: Mapping[str, Any]) -> list[Need]:
    _modelled(call, {"Invoke", "GetFunction"})
    name = params.get("FunctionName", "")
    if not name.startswith("arn:"):
        name = _here(call, f"function:{name}")
    if params.get("Qualifier"):
        name = f"{name}:{params['Qualifier']}"
    action = "lambda:InvokeFunction" if call.operation == "Invoke" else call.action
    return [Need(action, name, _request(call))]


SERVICES: dict[str, Callable[[Call, Mapping[str, Any]], list[Need]]] = {
    "acm": acm,
    "cloudfront": cloudfront,
    "cloudwatch": cloudwatch,
    "elasticloadbalancing": elasticloadbalancing,
    "events": events,
    "kms": kms,
    "lambda": lambda_,
    "logs": logs,
    "route53": route53,
    "s3": s3,
    "secretsmanager": secretsmanager,
    "sqs": sqs,
    "sts": sts,
    "tag": tag,
}
