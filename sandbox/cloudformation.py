"""The resource types of our template, created as CloudFormation does: through the services' APIs.

moto's own models drop many properties without a word and skip types they do not know. These take
their place: what a resource's `put` does not understand raises, and so does a type that is not
here. Property names and meaning:
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-template-resource-type-ref.html

The API calls stay inside the process: botocore builds and checks the request, moto's dispatcher
answers it, and neither the network nor the sandbox's gate sees it.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.awslambda.models import LambdaBackend, LambdaFunction
from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.common_models import CloudFormationModel
from moto.core.responses import ActionResult
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, iam_backends
from moto.s3.responses import S3Response

Properties = dict[str, Any]
GONE = ("NotFound", "NoSuch", "NonExistent", "DoesNotExist")


class Apis:
    """botocore clients whose requests moto answers in this process, each made once."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._session = boto3.Session(
            aws_access_key_id="cloudformation",
            aws_secret_access_key="cloudformation",  # noqa: S106
        )
        self._moto = BotocoreStubber()
        self._moto.enabled = True

    def client(self, service: Any, account: str, region: str) -> Any:
        if (service, account, region) not in self._clients:
            # An endpoint of the caller's environment would send these calls over the network.
            options: Properties = {"ignore_configured_endpoint_urls": True}
            config = Config(retries={"total_max_attempts": 1}, **options)
            client: Any = self._session.client(service, region_name=region, config=config)

            def in_account(request: Any, **_: Any) -> None:
                request.headers["x-moto-account-id"] = account

            client.meta.events.register("before-sign", in_account)
            client.meta.events.register("before-send", self._moto)
            self._clients[service, account, region] = client
        return self._clients[service, account, region]


APIS = Apis()


class Resource(CloudFormationModel):
    """One resource of a stack.

    A subclass says its type, which properties cannot change in place (`fixed`: a change replaces
    the resource), and how to `put` (create, or change what is there) and `remove` it. `put` sets
    `self.physical_resource_id` and `self.attributes` (what Fn::GetAtt returns).
    """

    type: ClassVar[str]
    name_property: ClassVar[str] = ""
    fixed: ClassVar[tuple[str, ...]] = ()
    attribute_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, account: str, region: str, name: str) -> None:
        self.account = account
        self.region = region
        self.name = name
        self.physical_resource_id = name
        self.attributes: dict[str, str] = {}
        self.properties: Properties = {}
        self.exists = False

    def api(self, service: str) -> Any:
        return APIS.client(service, self.account, self.region)

    def put(self, properties: Properties) -> None:
        raise NotImplementedError

    def remove(self) -> None:
        raise NotImplementedError

    # What moto's CloudFormation calls.

    @classmethod
    def cloudformation_type(cls) -> str:
        return cls.type

    @classmethod
    def cloudformation_name_type(cls) -> str:
        return cls.name_property

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr in cls.attribute_names

    def get_cfn_attribute(self, attribute_name: str) -> str:
        if attribute_name not in self.attributes:
            raise ValidationError(message=f"{self.type} has no attribute {attribute_name}")
        return self.attributes[attribute_name]

    def is_created(self) -> bool:
        return self.exists

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: Mapping[str, Any],
        account_id: str,
        region_name: str,
        **_: Any,
    ) -> "Resource":
        resource = cls(account_id, region_name, resource_name)
        resource._settle(dict(cloudformation_json.get("Properties", {})))
        return resource

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: "Resource",
        new_resource_name: str,
        cloudformation_json: Mapping[str, Any],
        account_id: str,
        region_name: str,
    ) -> "Resource":
        properties = dict(cloudformation_json.get("Properties", {}))
        before = original_resource.properties
        if all(before.get(name) == properties.get(name) for name in cls.fixed):
            original_resource._settle(properties)
            return original_resource
        original_resource.remove()
        return cls.create_from_cloudformation_json(
            new_resource_name, cloudformation_json, account_id, region_name
        )

    def delete(self, account_id: str, region_name: str) -> None:
        try:
            self.remove()
        except ClientError as error:
            # moto deletes in no order: what went with its owner is gone already.
            if not any(word in error.response["Error"]["Code"] for word in GONE):
                raise
        except (AttributeError, TypeError) as error:
            # moto takes these two for "this model has no delete" and goes on.
            raise RuntimeError(f"{self.type} {self.name} was not deleted: {error}") from error

    def _settle(self, properties: Properties) -> None:
        self.put(dict(properties))
        self.properties = properties
        self.exists = True


def refuse(resource_type: str, left: Iterable[str]) -> None:
    """Raise if properties are left that nothing has been done with."""
    names = ", ".join(sorted(left))
    if names:
        raise ValidationError(message=f"the sandbox does not implement {names} of {resource_type}")


def tag_map(tags: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: str(tag["Value"]) for tag in tags}


class Key(Resource):
    type = "AWS::KMS::Key"
    attribute_names = ("Arn", "KeyId")

    def put(self, properties: Properties) -> None:
        kms = self.api("kms")
        policy = json.dumps(properties.pop("KeyPolicy"))
        description = properties.pop("Description", "")
        rotates = properties.pop("EnableKeyRotation", False)
        self.days = properties.pop("PendingWindowInDays", 30)
        tags = [
            {"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in properties.pop("Tags", [])
        ]
        refuse(self.type, properties)
        if not self.exists:
            key = kms.create_key(Policy=policy, Description=description)["KeyMetadata"]
            self.physical_resource_id = key["KeyId"]
            self.attributes = {"Arn": key["Arn"], "KeyId": key["KeyId"]}
        key_id = self.physical_resource_id
        kms.put_key_policy(KeyId=key_id, PolicyName="default", Policy=policy)
        kms.update_key_description(KeyId=key_id, Description=description)
        (kms.enable_key_rotation if rotates else kms.disable_key_rotation)(KeyId=key_id)
        if tags:
            kms.tag_resource(KeyId=key_id, Tags=tags)

    def remove(self) -> None:
        self.api("kms").schedule_key_deletion(
            KeyId=self.physical_resource_id, PendingWindowInDays=self.days
        )


class Alias(Resource):
    type = "AWS::KMS::Alias"
    name_property = "AliasName"
    fixed = ("AliasName",)

    def put(self, properties: Properties) -> None:
        name, key = properties.pop("AliasName"), properties.pop("TargetKeyId")
        refuse(self.type, properties)
        self.physical_resource_id = name
        kms = self.api("kms")
        (kms.update_alias if self.exists else kms.create_alias)(AliasName=name, TargetKeyId=key)

    def remove(self) -> None:
        self.api("kms").delete_alias(AliasName=self.physical_resource_id)


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


QUEUE_DEFAULTS = {
    "DelaySeconds": "0",
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "RedrivePolicy": "",
    "VisibilityTimeout": "30",
}


class Queue(Resource):
    type = "AWS::SQS::Queue"
    name_property = "QueueName"
    fixed = ("QueueName", "FifoQueue")
    attribute_names = ("Arn", "QueueName", "QueueUrl")

    def put(self, properties: Properties) -> None:
        sqs = self.api("sqs")
        fifo = properties.get("FifoQueue") in (True, "true")
        name = properties.pop("QueueName", self.name + (".fifo" if fifo else ""))[:80]
        tags = tag_map(properties.pop("Tags", []))
        for policy in ("RedrivePolicy", "RedriveAllowPolicy"):
            if policy in properties:
                properties[policy] = json.dumps(properties[policy])
        if "RedriveAllowPolicy" in properties:
            # moto would take it and forget it.
            refuse(self.type, {"RedriveAllowPolicy"})
        attributes = {
            key: str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in properties.items()
        }
        if self.exists:
            attributes.pop("FifoQueue", None)
            for gone in self.properties.keys() - properties.keys() & QUEUE_DEFAULTS.keys():
                attributes[gone] = QUEUE_DEFAULTS[gone]
            sqs.set_queue_attributes(QueueUrl=self.physical_resource_id, Attributes=attributes)
        else:
            url = sqs.create_queue(QueueName=name, Attributes=attributes, tags=tags)["QueueUrl"]
            self.physical_resource_id = url
            self.attributes = {
                "Arn": f"arn:aws:sqs:{self.region}:{self.account}:{name}",
                "QueueName": name,
                "QueueUrl": url,
            }
        told = sqs.get_queue_attributes(QueueUrl=self.physical_resource_id, AttributeNames=["All"])
        refuse(
            self.type,
            {name for name in attributes if attributes[name] and name not in told["Attributes"]},
        )

    def remove(self) -> None:
        self.api("sqs").delete_queue(QueueUrl=self.physical_resource_id)


class QueuePolicy(Resource):
    type = "AWS::SQS::QueuePolicy"
    fixed = ("Queues",)

    def put(self, properties: Properties) -> None:
        self.queues = properties.pop("Queues")
        document = json.dumps(properties.pop("PolicyDocument"))
        refuse(self.type, properties)
        for url in self.queues:
            self.api("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": document})

    def remove(self) -> None:
        for url in self.queues:
            self.api("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})


class Rule(Resource):
    type = "AWS::Events::Rule"
    name_property = "Name"
    fixed = ("Name", "EventBusName")
    attribute_names = ("Arn",)

    def put(self, properties: Properties) -> None:
        events = self.api("events")
        properties.pop("Name", None)
        targets = properties.pop("Targets", [])
        self.bus = properties.get("EventBusName", "default")
        if "EventPattern" in properties:
            properties["EventPattern"] = json.dumps(properties["EventPattern"])
        arn = events.put_rule(Name=self.name, **properties)["RuleArn"]
        self.attributes = {"Arn": arn}
        self._remove_targets({target["Id"] for target in targets})
        if targets:
            events.put_targets(Rule=self.name, EventBusName=self.bus, Targets=targets)

    def remove(self) -> None:
        self._remove_targets(set())
        self.api("events").delete_rule(Name=self.name, EventBusName=self.bus)

    def _remove_targets(self, kept: set[str]) -> None:
        events = self.api("events")
        there = events.list_targets_by_rule(Rule=self.name, EventBusName=self.bus)["Targets"]
        gone = [target["Id"] for target in there if target["Id"] not in kept]
        if gone:
            events.remove_targets(Rule=self.name, EventBusName=self.bus, Ids=gone)


def with_version(policy: Properties) -> str:
    """IAM takes a policy without Version (SAM writes some) for 2008-10-17; moto refuses both.

    The later version differs only where a policy has variables.
    """
    return json.dumps({"Version": "2012-10-17", **policy})


class Role(Resource):
    type = "AWS::IAM::Role"
    name_property = "RoleName"
    fixed = ("RoleName", "Path")
    attribute_names = ("Arn", "RoleId")

    def put(self, properties: Properties) -> None:
        iam = self.api("iam")
        self.name = self.physical_resource_id = self.name[:64]
        properties.pop("RoleName", None)
        trust = json.dumps(properties.pop("AssumeRolePolicyDocument"))
        inline = {
            policy["PolicyName"]: with_version(policy["PolicyDocument"])
            for policy in properties.pop("Policies", [])
        }
        managed = set(properties.pop("ManagedPolicyArns", []))
        if not self.exists:
            role = iam.create_role(
                RoleName=self.name, AssumeRolePolicyDocument=trust, **properties
            )["Role"]
            self.attributes = {"Arn": role["Arn"], "RoleId": role["RoleId"]}
        else:
            iam.update_assume_role_policy(RoleName=self.name, PolicyDocument=trust)
            iam.update_role(
                RoleName=self.name,
                **{
                    k: properties[k]
                    for k in ("Description", "MaxSessionDuration")
                    if k in properties
                },
            )
        before = {policy["PolicyName"] for policy in self.properties.get("Policies", [])}
        for gone in before - inline.keys():
            iam.delete_role_policy(RoleName=self.name, PolicyName=gone)
        for name, document in inline.items():
            iam.put_role_policy(RoleName=self.name, PolicyName=name, PolicyDocument=document)
        attached = self._attached()
        for arn in attached - managed:
            iam.detach_role_policy(RoleName=self.name, PolicyArn=arn)
        for arn in managed - attached:
            know_managed_policy(self.account, self.region, arn)
            iam.attach_role_policy(RoleName=self.name, PolicyArn=arn)

    def remove(self) -> None:
        iam = self.api("iam")
        for name in iam.list_role_policies(RoleName=self.name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=self.name, PolicyName=name)
        for arn in self._attached():
            iam.detach_role_policy(RoleName=self.name, PolicyArn=arn)
        iam.delete_role(RoleName=self.name)

    def _attached(self) -> set[str]:
        attached = self.api("iam").list_attached_role_policies(RoleName=self.name)
        return {policy["PolicyArn"] for policy in attached["AttachedPolicies"]}


@cache
def managed_policies() -> dict[str, Properties]:
    policies: dict[str, Properties] = json.loads(aws_managed_policies_data)
    return policies


def know_managed_policy(account: str, region: str, arn: str) -> None:
    """moto ships AWS's own policies, but would load all 1,500 into every account or none."""
    backend = iam_backends[account]["aws"]
    name = arn.rsplit("/", 1)[-1]
    if arn not in backend.managed_policies and name in managed_policies():
        policy = AWSManagedPolicy.from_data(name, account, region, managed_policies()[name])
        backend.managed_policies[policy.arn] = policy


class Policy(Resource):
    type = "AWS::IAM::Policy"
    fixed = ("PolicyName", "Roles")

    def put(self, properties: Properties) -> None:
        self.policy = properties.pop("PolicyName")
        self.roles = properties.pop("Roles")
        document = with_version(properties.pop("PolicyDocument"))
        refuse(self.type, properties)
        for role in self.roles:
            self.api("iam").put_role_policy(
                RoleName=role, PolicyName=self.policy, PolicyDocument=document
            )

    def remove(self) -> None:
        for role in self.roles:
            self.api("iam").delete_role_policy(RoleName=role, PolicyName=self.policy)


class Function(Resource):
    """A function whose code is not stored: the sandbox runs it from the source tree."""

    type = "AWS::Lambda::Function"
    name_property = "FunctionName"
    fixed = ("FunctionName", "PackageType", "Architectures")
    attribute_names = ("Arn",)

    def put(self, properties: Properties) -> None:
        api = self.api("lambda")
        self.name = self.physical_resource_id = self.name[:64]
        properties.pop("FunctionName", None)
        properties.pop("Code")
        reserved = properties.pop("ReservedConcurrentExecutions", None)
        tags = tag_map(properties.pop("Tags", []))
        if self.exists:
            unchangeable = ("Architectures", "PackageType")
            api.update_function_configuration(
                FunctionName=self.name,
                **{k: v for k, v in properties.items() if k not in unchangeable},
            )
            api.tag_resource(Resource=self.attributes["Arn"], Tags=tags)
        else:
            code = {"ZipFile": b"run from the source tree"}
            made = api.create_function(FunctionName=self.name, Code=code, Tags=tags, **properties)
            self.attributes = {"Arn": made["FunctionArn"]}
        if reserved is not None:
            api.put_function_concurrency(
                FunctionName=self.name, ReservedConcurrentExecutions=reserved
            )
        elif "ReservedConcurrentExecutions" in self.properties:
            api.delete_function_concurrency(FunctionName=self.name)
        told = api.get_function_configuration(FunctionName=self.name)
        refuse(self.type, {k for k, v in properties.items() if not holds(told.get(k), v)})

    def remove(self) -> None:
        self.api("lambda").delete_function(FunctionName=self.name)


def holds(told: Any, stated: Any) -> bool:
    """Whether what the API tells includes what the template states."""
    if isinstance(stated, dict) and isinstance(told, dict):
        return all(holds(told.get(name), value) for name, value in stated.items())
    return bool(told == stated)


# moto keeps no LoggingConfig, and of an update less than of a creation.
_moto_get_configuration = LambdaFunction.get_configuration
_moto_update_configuration = LambdaFunction.update_configuration
_moto_create_function = LambdaBackend.create_function


def get_configuration(self: LambdaFunction, on_create: bool = False) -> Properties:
    logs = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{self.function_name}"}
    stated = getattr(self, "logging_config", None) or {}
    if stated.get("LogFormat") == "JSON":
        logs |= {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}
    return {**_moto_get_configuration(self, on_create), "LoggingConfig": {**logs, **stated}}


def update_configuration(self: LambdaFunction, config_updates: Properties) -> Properties:
    self.logging_config = config_updates.get("LoggingConfig")  # type: ignore[attr-defined]
    if "TracingConfig" in config_updates:
        self.tracing_config = config_updates["TracingConfig"]
    if "EphemeralStorage" in config_updates:
        self.ephemeral_storage = config_updates["EphemeralStorage"]["Size"]
    _moto_update_configuration(self, config_updates)
    return self.get_configuration()


def create_function(self: LambdaBackend, spec: Properties) -> LambdaFunction:
    function = _moto_create_function(self, spec)
    function.logging_config = spec.get("LoggingConfig")  # type: ignore[attr-defined]
    return function


class EventSourceMapping(Resource):
    type = "AWS::Lambda::EventSourceMapping"
    fixed = ("EventSourceArn",)
    attribute_names = ("Id",)

    def put(self, properties: Properties) -> None:
        api = self.api("lambda")
        properties.pop("Tags", None)
        if self.exists:
            changes = {k: v for k, v in properties.items() if k != "EventSourceArn"}
            api.update_event_source_mapping(UUID=self.physical_resource_id, **changes)
        else:
            made = api.create_event_source_mapping(**properties)
            self.physical_resource_id = made["UUID"]
            self.attributes = {"Id": made["UUID"]}
        told = api.get_event_source_mapping(UUID=self.physical_resource_id)
        told["Enabled"] = told["State"] == "Enabled"
        told["FunctionName"] = properties["FunctionName"]
        refuse(self.type, {k for k, v in properties.items() if not holds(told.get(k), v)})

    def remove(self) -> None:
        self.api("lambda").delete_event_source_mapping(UUID=self.physical_resource_id)


class Permission(Resource):
    type = "AWS::Lambda::Permission"
    fixed = ("Action", "FunctionName", "Principal", "SourceAccount", "SourceArn")

    def put(self, properties: Properties) -> None:
        self.function = properties["FunctionName"]
        self.api("lambda").add_permission(StatementId=self.name, **properties)

    def remove(self) -> None:
        self.api("lambda").remove_permission(FunctionName=self.function, StatementId=self.name)


class EventInvokeConfig(Resource):
    type = "AWS::Lambda::EventInvokeConfig"
    fixed = ("FunctionName", "Qualifier")

    def put(self, properties: Properties) -> None:
        self.function = properties["FunctionName"]
        if properties["Qualifier"] != "$LATEST":
            refuse(self.type, {"Qualifier other than $LATEST"})
        if self.exists:
            # moto would append the new one, and go on telling the old one.
            self.remove()
        self.api("lambda").put_function_event_invoke_config(**properties)

    def remove(self) -> None:
        self.api("lambda").delete_function_event_invoke_config(FunctionName=self.function)


class Schedule(Resource):
    type = "AWS::Scheduler::Schedule"
    name_property = "Name"
    fixed = ("Name", "GroupName")
    attribute_names = ("Arn",)

    def put(self, properties: Properties) -> None:
        self.name = self.physical_resource_id = self.name[:64]
        self.group = properties.get("GroupName", "default")
        api = self.api("scheduler")
        write = api.update_schedule if self.exists else api.create_schedule
        self.attributes = {"Arn": write(**{**properties, "Name": self.name})["ScheduleArn"]}

    def remove(self) -> None:
        self.api("scheduler").delete_schedule(Name=self.name, GroupName=self.group)


class ScheduleGroup(Resource):
    type = "AWS::Scheduler::ScheduleGroup"
    name_property = "Name"
    fixed = ("Name",)
    attribute_names = ("Arn",)

    def put(self, properties: Properties) -> None:
        properties.pop("Name", None)
        if not self.exists:
            made = self.api("scheduler").create_schedule_group(Name=self.name, **properties)
            self.attributes = {"Arn": made["ScheduleGroupArn"]}

    def remove(self) -> None:
        self.api("scheduler").delete_schedule_group(Name=self.name)


class Alarm(Resource):
    type = "AWS::CloudWatch::Alarm"
    name_property = "AlarmName"
    fixed = ("AlarmName",)
    attribute_names = ("Arn",)

    def put(self, properties: Properties) -> None:
        api = self.api("cloudwatch")
        properties.pop("AlarmName", None)
        api.put_metric_alarm(AlarmName=self.name, **properties)
        arn = f"arn:aws:cloudwatch:{self.region}:{self.account}:alarm:{self.name}"
        self.attributes = {"Arn": arn}
        told = api.describe_alarms(AlarmNames=[self.name])["MetricAlarms"][0]
        told["Tags"] = properties.get("Tags")
        refuse(self.type, {k for k, v in properties.items() if not holds(told.get(k), v)})

    def remove(self) -> None:
        self.api("cloudwatch").delete_alarms(AlarmNames=[self.name])


class LogGroup(Resource):
    type = "AWS::Logs::LogGroup"
    name_property = "LogGroupName"
    fixed = ("LogGroupName",)
    attribute_names = ("Arn",)

    def put(self, properties: Properties) -> None:
        logs = self.api("logs")
        properties.pop("LogGroupName", None)
        days = properties.pop("RetentionInDays", None)
        key = properties.pop("KmsKeyId", None)
        tags = tag_map(properties.pop("Tags", []))
        refuse(self.type, properties)
        if not self.exists:
            extra = {"kmsKeyId": key} if key else {}
            logs.create_log_group(logGroupName=self.name, tags=tags, **extra)
            arn = f"arn:aws:logs:{self.region}:{self.account}:log-group:{self.name}:*"
            self.attributes = {"Arn": arn}
        if days is None:
            logs.delete_retention_policy(logGroupName=self.name)
        else:
            logs.put_retention_policy(logGroupName=self.name, retentionInDays=days)

    def remove(self) -> None:
        self.api("logs").delete_log_group(logGroupName=self.name)


class Topic(Resource):
    type = "AWS::SNS::Topic"
    name_property = "TopicName"
    fixed = ("TopicName", "FifoTopic")
    attribute_names = ("TopicArn", "TopicName")

    def put(self, properties: Properties) -> None:
        sns = self.api("sns")
        properties.pop("TopicName", None)
        subscriptions = properties.pop("Subscription", [])
        tags = properties.pop("Tags", [])
        if not self.exists:
            arn = sns.create_topic(Name=self.name, Tags=tags)["TopicArn"]
            self.physical_resource_id = arn
            self.attributes = {"TopicArn": arn, "TopicName": self.name}
        for name, value in properties.items():
            sns.set_topic_attributes(
                TopicArn=self.physical_resource_id, AttributeName=name, AttributeValue=str(value)
            )
        for subscription in subscriptions:
            sns.subscribe(TopicArn=self.physical_resource_id, **subscription)

    def remove(self) -> None:
        self.api("sns").delete_topic(TopicArn=self.physical_resource_id)


class Subscription(Resource):
    type = "AWS::SNS::Subscription"
    fixed = ("TopicArn", "Protocol", "Endpoint")

    def put(self, properties: Properties) -> None:
        if not self.exists:
            made = self.api("sns").subscribe(ReturnSubscriptionArn=True, **properties)
            self.physical_resource_id = made["SubscriptionArn"]

    def remove(self) -> None:
        self.api("sns").unsubscribe(SubscriptionArn=self.physical_resource_id)


class TopicPolicy(Resource):
    type = "AWS::SNS::TopicPolicy"
    fixed = ("Topics",)

    def put(self, properties: Properties) -> None:
        topics, document = properties.pop("Topics"), json.dumps(properties.pop("PolicyDocument"))
        refuse(self.type, properties)
        for arn in topics:
            self.api("sns").set_topic_attributes(
                TopicArn=arn, AttributeName="Policy", AttributeValue=document
            )

    def remove(self) -> None:
        """SNS has no call that takes a topic's policy away; it goes with the topic."""


TYPES: dict[str, type[Resource]] = {model.type: model for model in Resource.__subclasses__()}


def resource_class_from_type(resource_type: str) -> type[Resource]:
    if resource_type not in TYPES:
        raise ValidationError(message=f"the sandbox does not implement {resource_type}")
    return TYPES[resource_type]


def resource_name_property_from_type(resource_type: str) -> str:
    return resource_class_from_type(resource_type).name_property


_moto_create = parsing.parse_and_create_resource
_moto_update = parsing.parse_and_update_resource


def parse_and_create_resource(
    logical_id: str, resource_json: Properties, *args: Any, **kwargs: Any
) -> Any:
    try:
        return _moto_create(logical_id, resource_json, *args, **kwargs)
    except Exception as error:
        raise named(logical_id, resource_json, error) from error


def parse_and_update_resource(
    logical_id: str, resource_json: Properties, *args: Any, **kwargs: Any
) -> Any:
    try:
        return _moto_update(logical_id, resource_json, *args, **kwargs)
    except Exception as error:
        raise named(logical_id, resource_json, error) from error


class ResourceFailed(ValidationError):
    """A resource could not be created or updated; says which and why."""


def named(logical_id: str, resource_json: Properties, error: Exception) -> ResourceFailed:
    """moto answers any other exception with a bare HTTP 500."""
    if isinstance(error, ResourceFailed):
        return error
    reason = getattr(error, "message", None) or str(error) or repr(error)
    return ResourceFailed(message=f"{logical_id} ({resource_json['Type']}): {reason}")


def install() -> None:
    """Make these the resource types of moto's CloudFormation. Again changes nothing."""
    parsing.resource_class_from_type = resource_class_from_type
    parsing.resource_name_property_from_type = resource_name_property_from_type
    parsing.parse_and_create_resource = parse_and_create_resource
    parsing.parse_and_update_resource = parse_and_update_resource
    LambdaFunction.get_configuration = get_configuration  # type: ignore[method-assign]
    LambdaFunction.update_configuration = update_configuration  # type: ignore[method-assign]
    LambdaBackend.create_function = create_function  # type: ignore[method-assign]
    S3Response.get_bucket_notification = get_bucket_notification  # type: ignore[method-assign]
