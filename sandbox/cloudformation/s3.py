"""S3: buckets and their policies."""

import json
from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.s3.responses import S3Response

from sandbox.cloudformation.resource import Properties, Resource, refuse

# What brings a bucket's property back to its default when the template no longer states it.
BUCKET_DEFAULTS: dict[str, tuple[str, Properties]] = {
    "BucketEncryption": ("delete_bucket_encryption", {}),
    "LifecycleConfiguration": ("delete_bucket_lifecycle", {}),
    "OwnershipControls": ("delete_bucket_ownership_controls", {}),
    "PublicAccessBlockConfiguration": ("delete_public_access_block", {}),
    "Tags": ("delete_bucket_tagging", {}),
    "VersioningConfiguration": (
        "put_bucket_versioning",
        {"VersioningConfiguration": {"Status": "Suspended"}},
    ),
}


class Bucket(Resource):
    type = "AWS::S3::Bucket"
    name_property = "BucketName"
    fixed = ("BucketName",)
    attribute_names = ("Arn", "DomainName", "RegionalDomainName")

    def put(self, properties: Properties) -> None:
        s3, bucket = self.api("s3"), self.name
        properties.pop("BucketName", None)
        if not self.exists:
            place: Properties = {"LocationConstraint": self.region}
            s3.create_bucket(
                Bucket=bucket,
                **({} if self.region == "us-east-1" else {"CreateBucketConfiguration": place}),
            )
            self.attributes = {
                "Arn": f"arn:aws:s3:::{bucket}",
                "DomainName": f"{bucket}.s3.amazonaws.com",
                "RegionalDomainName": f"{bucket}.s3.{self.region}.amazonaws.com",
            }
        for gone in self.properties.keys() - properties.keys() & BUCKET_DEFAULTS.keys():
            operation, arguments = BUCKET_DEFAULTS[gone]
            getattr(s3, operation)(Bucket=bucket, **arguments)
        if ownership := properties.pop("OwnershipControls", None):
            s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=ownership)
        if encryption := properties.pop("BucketEncryption", None):
            s3.put_bucket_encryption(
                Bucket=bucket, ServerSideEncryptionConfiguration=encryption_rules(encryption)
            )
        if access := properties.pop("PublicAccessBlockConfiguration", None):
            s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=access)
        if versioning := properties.pop("VersioningConfiguration", None):
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=versioning)
        if lifecycle := properties.pop("LifecycleConfiguration", None):
            s3.put_bucket_lifecycle_configuration(
                Bucket=bucket,
                LifecycleConfiguration={"Rules": [lifecycle_rule(r) for r in lifecycle["Rules"]]},
            )
        s3.put_bucket_notification_configuration(
            Bucket=bucket,
            NotificationConfiguration=notifications(
                properties.pop("NotificationConfiguration", {})
            ),
        )
        if tags := properties.pop("Tags", None):
            s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
        refuse(self.type, properties)

    def remove(self) -> None:
        self.api("s3").delete_bucket(Bucket=self.name)


def encryption_rules(encryption: Properties) -> Properties:
    renamed = {"ServerSideEncryptionByDefault": "ApplyServerSideEncryptionByDefault"}
    return {
        "Rules": [
            {renamed.get(name, name): value for name, value in rule.items()}
            for rule in encryption["ServerSideEncryptionConfiguration"]
        ]
    }


def lifecycle_rule(rule: Properties) -> Properties:
    """CloudFormation's words for a lifecycle rule in the API's."""
    rule = dict(rule)
    prefix, tags = rule.pop("Prefix", ""), rule.pop("TagFilters", [])
    both = {"And": {"Prefix": prefix, "Tags": tags}}
    api: Properties = {"Status": rule.pop("Status"), "Filter": both if tags else {"Prefix": prefix}}
    if "Id" in rule:
        api["ID"] = rule.pop("Id")
    expiration = {
        ours: rule.pop(name)
        for name, ours in (
            ("ExpirationInDays", "Days"),
            ("ExpiredObjectDeleteMarker", "ExpiredObjectDeleteMarker"),
        )
        if name in rule
    }
    if expiration:
        api["Expiration"] = expiration
    # NoncurrentVersionExpiration, AbortIncompleteMultipartUpload are the same in both; what the
    # API does not know, botocore refuses.
    if "AbortIncompleteMultipartUpload" in rule:
        days = rule.pop("AbortIncompleteMultipartUpload")["DaysAfterInitiation"]
        api["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": days}
    return api | rule


def notifications(configuration: Properties) -> Properties:
    configuration = dict(configuration)
    bridge = configuration.pop("EventBridgeConfiguration", None)
    refuse("AWS::S3::Bucket NotificationConfiguration", configuration)
    enabled = bridge is not None and bridge.get("EventBridgeEnabled", True)
    return {"EventBridgeConfiguration": {}} if enabled else {}


class BucketPolicy(Resource):
    type = "AWS::S3::BucketPolicy"
    fixed = ("Bucket",)

    def put(self, properties: Properties) -> None:
        self.bucket = properties.pop("Bucket")
        document = json.dumps(properties.pop("PolicyDocument"))
        refuse(self.type, properties)
        self.api("s3").put_bucket_policy(Bucket=self.bucket, Policy=document)

    def remove(self) -> None:
        self.api("s3").delete_bucket_policy(Bucket=self.bucket)


_moto_get_bucket_notification = S3Response.get_bucket_notification


def get_bucket_notification(self: S3Response) -> Any:
    """moto keeps `EventBridgeConfiguration` but does not tell it."""
    configuration = self.backend.get_bucket_notification_configuration(self.bucket_name)
    if configuration is not None and configuration.event_bridge is not None:
        serialized = self.serialized

        def told(answer: ActionResult) -> Any:
            result: Any = answer.result
            return serialized(ActionResult({**result, "EventBridgeConfiguration": {}}))

        self.serialized = told  # type: ignore[method-assign,assignment]
    return _moto_get_bucket_notification(self)


REPLACED: dict[type, dict[str, Callable[..., Any]]] = {
    S3Response: {"get_bucket_notification": get_bucket_notification}
}
