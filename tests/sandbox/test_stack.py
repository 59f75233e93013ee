"""What a template states is there afterwards, as AWS's APIs tell it, or it is refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-untyped]

from sandbox.stack import Stack, StackFailed, delete, deploy, transform
from tests.sandbox.cloud import REGION, Cloud, cloud
from tests.sandbox.template import TEMPLATE

READ: dict[str, Callable[[Cloud, str], Any]] = {
    "AWS::CloudWatch::Alarm": lambda aws, name: aws.client("cloudwatch").describe_alarms(
        AlarmNames=[name]
    )["MetricAlarms"][0],
    "AWS::Events::Rule": lambda aws, name: aws.client("events").list_targets_by_rule(Rule=name)[
        "Targets"
    ][0],
    "AWS::IAM::Role": lambda aws, name: aws.client("iam").get_role(RoleName=name),
    "AWS::KMS::Alias": lambda aws, name: aws.client("kms").describe_key(KeyId=name),
    "AWS::KMS::Key": lambda aws, name: aws.client("kms").describe_key(KeyId=name),
    "AWS::Lambda::EventSourceMapping": lambda aws, name: aws.client(
        "lambda"
    ).get_event_source_mapping(UUID=name),
    "AWS::Lambda::Function": lambda aws, name: aws.client("lambda").get_function(FunctionName=name),
    "AWS::Logs::LogGroup": lambda aws, name: aws.client("logs").describe_log_groups(
        logGroupNamePrefix=name
    )["logGroups"][0],
    "AWS::S3::Bucket": lambda aws, name: aws.client("s3").head_bucket(Bucket=name),
    "AWS::SNS::Topic": lambda aws, name: aws.client("sns").get_topic_attributes(TopicArn=name),
    "AWS::SQS::Queue": lambda aws, name: aws.client("sqs").get_queue_attributes(
        QueueUrl=name, AttributeNames=["All"]
    ),
    "AWS::Scheduler::Schedule": lambda aws, name: aws.client("scheduler").get_schedule(Name=name),
}
# These have no call of their own that takes their physical id: they are read with their owner.
OWNED = {
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Permission",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
}


@pytest.fixture(scope="module")
def aws() -> Iterator[Cloud]:
    with cloud() as aws:
        yield aws


@pytest.fixture(scope="module")
def stack(aws: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return put(aws, tmp_path_factory.mktemp("stack"), TEMPLATE)


def put(aws: Cloud, folder: Path, template: str, name: str = "tested", **parameters: str) -> Stack:
    file = folder / "template.yaml"
    file.write_text(template)
    return deploy(file, aws.endpoint, parameters, session=aws.session, name=name)


def changed(change: Callable[[dict[str, Any]], None]) -> str:
    template = yaml_parse(TEMPLATE)
    change(template)
    return yaml.safe_dump(template)


def test_each_resource_of_the_template_is_there(aws: Cloud, stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(TEMPLATE)
    resources = transform(file, {}, REGION)["Resources"]
    del resources["Unwanted"]
    assert stack.resources.keys() == resources.keys()
    for logical_id, resource in resources.items():
        if resource["Type"] not in OWNED:
            assert READ[resource["Type"]](aws, stack.resources[logical_id]), logical_id


def test_the_bucket_is_as_stated(aws: Cloud, stack: Stack) -> None:
    s3, bucket = aws.client("s3"), stack.outputs["BucketName"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    access = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert set(access.values()) == {True}
    [rule] = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["BucketKeyEnabled"] is True
    key = stack.resources["Key"]
    assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"].endswith(key)
    [rule] = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert rule["ID"] == "old-versions"
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert rule["Filter"] == {"Prefix": "certificates/"}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    told = s3.get_bucket_notification_configuration(Bucket=bucket)
    assert told["EventBridgeConfiguration"] == {}
    ownership = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]
    assert ownership["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    [statement] = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    assert statement["Resource"] == f"arn:aws:s3:::{bucket}"


def test_the_queues_are_as_stated(aws: Cloud, stack: Stack) -> None:
    told = READ["AWS::SQS::Queue"](aws, stack.resources["Jobs"])["Attributes"]
    assert told["VisibilityTimeout"] == "30"
    redrive = json.loads(told["RedrivePolicy"])
    assert redrive["maxReceiveCount"] == 3
    assert redrive["deadLetterTargetArn"].endswith(stack.resources["DeadLetters"].split("/")[-1])
    [statement] = json.loads(told["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Condition"]["ArnEquals"]["aws:SourceArn"].endswith(
        f"rule/{stack.resources['Uploads']}"
    )
    fifo = READ["AWS::SQS::Queue"](aws, stack.resources["Ordered"])["Attributes"]
    assert fifo["FifoQueue"] == "true"


def test_the_functions_are_as_stated(aws: Cloud, stack: Stack) -> None:
    assert stack.functions.keys() == {"Work", "Step", "Wake"}
    told = READ["AWS::Lambda::Function"](aws, stack.functions["Work"])
    configuration = told["Configuration"]
    assert configuration["Architectures"] == ["arm64"]
    assert configuration["Handler"] == "functions.work"
    assert configuration["Timeout"] == 5
    assert configuration["LoggingConfig"]["LogFormat"] == "JSON"
    assert configuration["Environment"]["Variables"] == {
        "BUCKET": stack.outputs["BucketName"],
        "ORDERED": stack.resources["Ordered"],
    }
    assert told["Concurrency"] == {"ReservedConcurrentExecutions": 2}
    mapping = READ["AWS::Lambda::EventSourceMapping"](aws, stack.resources["WorkJobs"])
    assert mapping["BatchSize"] == 10
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": 2}
    api = aws.client("lambda")
    wake = stack.functions["Wake"]
    config = api.get_function_event_invoke_config(FunctionName=wake)
    assert config["MaximumRetryAttempts"] == 1
    [statement] = json.loads(api.get_policy(FunctionName=wake)["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}


def test_policies_of_roles_can_be_evaluated(aws: Cloud, stack: Stack) -> None:
    iam, role = aws.client("iam"), stack.resources["WorkRole"]
    [name] = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    bucket = stack.outputs["BucketName"]
    assert document["Statement"][0]["Resource"] == f"arn:aws:s3:::{bucket}/*"
    attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    arn = next(each["PolicyArn"] for each in attached if "SQSQueue" in each["PolicyName"])
    version = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
    assert "sqs:ReceiveMessage" in version["Document"]["Statement"][0]["Action"]


def test_a_policy_of_its_own_follows_the_template(aws: Cloud, tmp_path: Path) -> None:
    def template(action: str, service: str = "lambda", *, attached: bool = True) -> str:
        def policy(effect: str, **more: Any) -> dict[str, Any]:
            return {"Version": "2012-10-17", "Statement": [{"Effect": effect, **more}]}

        principal = {"Service": f"{service}.amazonaws.com"}
        resources: dict[str, Any] = {
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "AssumeRolePolicyDocument": policy(
                        "Allow", Principal=principal, Action="sts:AssumeRole"
                    )
                },
            }
        }
        if attached:
            resources["Policy"] = {
                "Type": "AWS::IAM::ManagedPolicy",
                "Properties": {
                    "PolicyDocument": policy("Allow", Action=action, Resource="*"),
                    "Roles": [{"Ref": "Role"}],
                },
            }
        return json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources})

    iam = aws.client("iam")

    def attached(stack: Stack) -> list[str]:
        listed = iam.list_attached_role_policies(RoleName=stack.resources["Role"])
        return [each["PolicyArn"] for each in listed["AttachedPolicies"]]

    def in_force(arn: str) -> Any:
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        read = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]
        return read["Document"]["Statement"][0]["Action"]

    # IAM keeps five versions.
    for number in range(7):
        stack = put(aws, tmp_path, template(f"s3:Get{number}"), "policy")
        (arn,) = attached(stack)
        assert in_force(arn) == f"s3:Get{number}"
    assert len(iam.list_policy_versions(PolicyArn=arn)["Versions"]) == 5
    # The role is another resource: what is attached to it from outside stays.
    assert attached(put(aws, tmp_path, template("s3:Get6", "scheduler"), "policy")) == [arn]
    with pytest.raises(StackFailed, match="quota for PolicySize: 6144"):
        put(aws, tmp_path, template("s3:Get" + 6_144 * "x"), "policy")
    assert attached(put(aws, tmp_path, template("", attached=False), "policy")) == []
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_policy(PolicyArn=arn)


def test_schedules_and_logs_are_as_stated(aws: Cloud, stack: Stack) -> None:
    schedule = READ["AWS::Scheduler::Schedule"](aws, stack.resources["WakeHourly"])
    assert schedule["ScheduleExpression"] == "rate(1 hour)"
    assert schedule["FlexibleTimeWindow"] == {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15}
    assert schedule["Target"]["Input"] == '{"scheduled": true}'
    logs = READ["AWS::Logs::LogGroup"](aws, stack.resources["WorkLogs"])
    assert logs["retentionInDays"] == 30
    alarm = READ["AWS::CloudWatch::Alarm"](aws, stack.resources["DeadLettersAlarm"])
    assert alarm["AlarmActions"] == [stack.resources["Alerts"]]
    assert alarm["TreatMissingData"] == "notBreaching"


def test_a_changed_template_updates(aws: Cloud, stack: Stack, tmp_path: Path) -> None:
    def change(template: dict[str, Any]) -> None:
        resources = template["Resources"]
        resources["Work"]["Properties"]["Timeout"] = 6
        resources["Work"]["Properties"]["Policies"][0]["Statement"][0]["Action"] = "s3:GetObject"
        resources["Jobs"]["Properties"]["VisibilityTimeout"] = 60
        del resources["Bucket"]["Properties"]["LifecycleConfiguration"]
        del resources["DeadLettersAlarm"]
        resources["More"] = {"Type": "AWS::SQS::Queue"}

    first = put(aws, tmp_path, TEMPLATE, "updated")
    second = put(aws, tmp_path, changed(change), "updated")
    assert second.functions == first.functions
    assert second.outputs == first.outputs
    told = READ["AWS::Lambda::Function"](aws, second.functions["Work"])["Configuration"]
    assert told["Timeout"] == 6
    queue = READ["AWS::SQS::Queue"](aws, second.resources["Jobs"])["Attributes"]
    assert queue["VisibilityTimeout"] == "60"
    assert READ["AWS::SQS::Queue"](aws, second.resources["More"])
    iam, role = aws.client("iam"), second.resources["WorkRole"]
    [name] = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    assert document["Statement"][0]["Action"] == "s3:GetObject"
    with pytest.raises(ClientError, match="NoSuchLifecycle"):
        aws.client("s3").get_bucket_lifecycle_configuration(Bucket=second.outputs["BucketName"])
    alarm = first.resources["DeadLettersAlarm"]
    assert aws.client("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"] == []


def test_the_same_template_changes_nothing(aws: Cloud, stack: Stack, tmp_path: Path) -> None:
    assert put(aws, tmp_path, TEMPLATE) == stack


def test_a_deleted_stack_leaves_nothing(aws: Cloud, tmp_path: Path) -> None:
    made = put(aws, tmp_path, TEMPLATE, "gone")
    delete(aws.endpoint, session=aws.session, name="gone")
    for logical_id, kind in (("Jobs", "SQS::Queue"), ("Work", "Lambda::Function")):
        with pytest.raises(ClientError):
            READ[f"AWS::{kind}"](aws, made.resources[logical_id])
    with pytest.raises(ClientError):
        aws.client("s3").head_bucket(Bucket=made.outputs["BucketName"])


@pytest.mark.parametrize(
    ("section", "properties", "said"),
    [
        ("AWS::Backup::BackupVault", {}, "does not implement AWS::Backup::BackupVault"),
        ("AWS::S3::Bucket", {"AccelerateConfiguration": {}}, "AccelerateConfiguration"),
        ("AWS::SQS::Queue", {"RedriveAllowPolicy": {"redrivePermission": "denyAll"}}, "Redrive"),
        ("AWS::Logs::LogGroup", {"RetentionInDays": 3, "Retain": 1}, "Retain"),
        ("AWS::CloudWatch::Alarm", {"Threshold": 1, "Wrong": 2}, "Wrong"),
    ],
)
def test_what_cannot_be_created_is_refused(
    aws: Cloud, tmp_path: Path, section: str, properties: dict[str, Any], said: str
) -> None:
    template = {"Resources": {"Strange": {"Type": section, "Properties": properties}}}
    with pytest.raises(StackFailed, match=said) as caught:
        put(aws, tmp_path, yaml.safe_dump(template), "strange")
    assert "Strange" in str(caught.value)
    stacks = aws.client("cloudformation").describe_stacks()["Stacks"]
    assert "strange" not in {stack["StackName"] for stack in stacks}


def test_what_sam_refuses_says_why(aws: Cloud, tmp_path: Path) -> None:
    function = {"Type": "AWS::Serverless::Function", "Properties": {"Wrong": 1}}
    with pytest.raises(StackFailed, match="Wrong"):
        put(aws, tmp_path, yaml.safe_dump({"Resources": {"F": function}}))
