"""Requests as calls: the action is right for every protocol, and nothing secret is remembered."""

import json
import threading
from typing import Any

import pytest

from sandbox import authorization
from sandbox.calls import Journal
from sandbox.resources import throwaway_certificate
from tests.sandbox.aws import ACCOUNT, REGION, Aws, World, refused

ZONE = "Z0123456789ABCDEFGHIJ"
CERTIFICATE = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/11111111-1111-1111-1111-111111111111"
LISTENER = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:listener/app/web/1/2"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/some"


@pytest.mark.parametrize(
    ("asked", "params", "action", "resource"),
    [
        ("acm.list_certificates", {}, "acm:ListCertificates", "*"),
        (
            "acm.describe_certificate",
            {"CertificateArn": CERTIFICATE},
            "acm:DescribeCertificate",
            CERTIFICATE,
        ),
        (
            "cloudfront.get_distribution_config",
            {"Id": "E1"},
            "cloudfront:GetDistributionConfig",
            f"arn:aws:cloudfront::{ACCOUNT}:distribution/E1",
        ),
        ("cloudfront.list_distributions", {}, "cloudfront:ListDistributions", "*"),
        ("cloudwatch.list_metrics", {}, "cloudwatch:ListMetrics", "*"),
        (
            "elbv2.remove_listener_certificates",
            {"ListenerArn": LISTENER, "Certificates": [{"CertificateArn": CERTIFICATE}]},
            "elasticloadbalancing:RemoveListenerCertificates",
            LISTENER,
        ),
        (
            "events.describe_rule",
            {"Name": "rule"},
            "events:DescribeRule",
            f"arn:aws:events:{REGION}:{ACCOUNT}:rule/rule",
        ),
        (
            "kms.describe_key",
            {"KeyId": "k-1"},
            "kms:DescribeKey",
            f"arn:aws:kms:{REGION}:{ACCOUNT}:key/k-1",
        ),
        (
            "lambda.invoke",
            {"FunctionName": "f"},
            "lambda:Invoke",
            f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f",
        ),
        (
            "route53.list_resource_record_sets",
            {"HostedZoneId": ZONE},
            "route53:ListResourceRecordSets",
            f"arn:aws:route53:::hostedzone/{ZONE}",
        ),
        (
            "route53.get_change",
            {"Id": "/change/C1"},
            "route53:GetChange",
            "arn:aws:route53:::change/C1",
        ),
        ("route53.list_hosted_zones_by_name", {}, "route53:ListHostedZonesByName", "*"),
        ("s3.list_buckets", {}, "s3:ListBuckets", "*"),
        ("s3.list_objects_v2", {"Bucket": "b1b"}, "s3:ListObjectsV2", "arn:aws:s3:::b1b"),
        ("s3.list_objects", {"Bucket": "b1b"}, "s3:ListObjects", "arn:aws:s3:::b1b"),
        ("s3.head_bucket", {"Bucket": "b1b"}, "s3:HeadBucket", "arn:aws:s3:::b1b"),
        ("s3.get_object", {"Bucket": "b1b", "Key": "k/l"}, "s3:GetObject", "arn:aws:s3:::b1b/k/l"),
        (
            "s3.get_object_tagging",
            {"Bucket": "b1b", "Key": "k"},
            "s3:GetObjectTagging",
            "arn:aws:s3:::b1b/k",
        ),
        (
            "s3.get_bucket_versioning",
            {"Bucket": "b1b"},
            "s3:GetBucketVersioning",
            "arn:aws:s3:::b1b",
        ),
        (
            "secretsmanager.describe_secret",
            {"SecretId": "a/b"},
            "secretsmanager:DescribeSecret",
            f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:a/b",
        ),
        (
            "sqs.get_queue_url",
            {"QueueName": "q"},
            "sqs:GetQueueUrl",
            f"arn:aws:sqs:{REGION}:{ACCOUNT}:q",
        ),
        (
            "sts.assume_role",
            {"RoleArn": ROLE, "RoleSessionName": "some"},
            "sts:AssumeRole",
            ROLE,
        ),
        ("resourcegroupstaggingapi.get_resources", {}, "tag:GetResources", "*"),
        ("scheduler.list_schedules", {}, "scheduler:ListSchedules", ""),
    ],
)
def test_action_and_resource(
    world: World, asked: str, params: dict[str, Any], action: str, resource: str
) -> None:
    service, operation = asked.split(".")
    call = getattr(world.admin(service), operation)
    with (
        world.server.refuse("*", "AccessDenied") as hits,
        pytest.raises(Exception, match=r"403|Den"),
    ):
        call(**params)
    (hit,) = hits
    assert (hit.action, hit.account, hit.region) == (
        action,
        ACCOUNT,
        "us-east-1" if service in {"cloudfront", "route53"} else REGION,
    )
    assert authorization.resource(hit) == resource
    assert not hit.writes or hit.operation in {"RemoveListenerCertificates", "Invoke"}


def test_parameters_are_what_boto3_was_given(world: World) -> None:
    changes = [
        {
            "Action": "UPSERT",
            "ResourceRecordSet": {
                "Name": "_acme-challenge.example.com.",
                "Type": "TXT",
                "TTL": 60,
                "ResourceRecords": [{"Value": '"token"'}],
            },
        }
    ]
    zone = world.admin("route53").create_hosted_zone(Name="example.com", CallerReference="1")
    zone_id = zone["HostedZone"]["Id"].removeprefix("/hostedzone/")
    world.admin("route53").change_resource_record_sets(
        HostedZoneId=zone_id, ChangeBatch={"Changes": changes}
    )
    (call,) = world.server.calls.of("route53:ChangeResourceRecordSets")
    assert call.params == {"HostedZoneId": zone_id, "ChangeBatch": {"Changes": changes}}


def test_another_account_is_told_apart(world: World) -> None:
    Aws(world.server, account="222222222222")("acm").list_certificates()
    (call,) = world.server.calls.all()
    assert call.account == "222222222222"


def test_the_journal_holds_no_secret(world: World) -> None:
    certificate, key = throwaway_certificate(["example.com"])
    text = key.decode()
    acm, secrets, s3, sqs = (
        world.admin(service) for service in ("acm", "secretsmanager", "s3", "sqs")
    )
    acm.import_certificate(Certificate=certificate, PrivateKey=key)
    secrets.create_secret(Name="s", SecretString=json.dumps({"private_key": text}))
    secrets.put_secret_value(SecretId="s", SecretBinary=key)
    secrets.update_secret(SecretId="s", SecretString="not a PEM: hunter2")
    s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="bucket", Key="privkey.pem", Body=key)
    queue = sqs.create_queue(QueueName="queue")["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody=text)
    sqs.send_message(QueueUrl=queue, MessageBody="a job")
    remembered = repr([(call, call.params) for call in world.server.calls.all()])
    assert "PRIVATE KEY" not in remembered
    assert "hunter2" not in remembered
    assert not any(line in remembered for line in text.splitlines() if len(line) > 20)
    assert "a job" in remembered
    (imported,) = world.server.calls.of("acm:ImportCertificate")
    assert imported.params == {"Certificate": certificate}


def test_marks_and_counts(world: World) -> None:
    secrets, calls = world.admin("secretsmanager"), world.server.calls
    secrets.create_secret(Name="s", SecretString="1")
    mark = calls.mark()
    secrets.describe_secret(SecretId="s")
    secrets.put_secret_value(SecretId="s", SecretString="2")
    world.admin("acm").list_certificates()
    with refused("ResourceNotFoundException"):
        secrets.put_secret_value(SecretId="other", SecretString="2")
    assert [call.operation for call in calls.writes()] == ["CreateSecret", "PutSecretValue"]
    assert [call.operation for call in calls.writes(since=mark)] == ["PutSecretValue"]
    assert calls.writes("acm", "cloudfront") == []
    assert calls.count(mark) == {
        "secretsmanager:DescribeSecret": 1,
        "secretsmanager:PutSecretValue": 2,
        "acm:ListCertificates": 1,
    }
    assert [call.status for call in calls.since(mark)] == [200, 200, 200, 404]


def test_many_threads_lose_no_call(world: World) -> None:
    acm = world.admin("acm")
    threads = [
        threading.Thread(target=lambda: [acm.list_certificates() for _ in range(10)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.server.calls.count() == {"acm:ListCertificates": 80}


def test_an_empty_journal() -> None:
    journal = Journal()
    assert (journal.mark(), journal.all(), journal.writes(), journal.count()) == (0, [], [], {})


def test_what_nobody_models_is_still_written_down(world: World) -> None:
    with world.server.refuse("*", "AccessDenied") as hits, pytest.raises(Exception, match="Denied"):
        world.admin("elb").describe_load_balancers()
    # The classic load balancer shares its signature's name with the new ones.
    assert [hit.action for hit in hits] == ["elasticloadbalancing:DescribeLoadBalancers"]
