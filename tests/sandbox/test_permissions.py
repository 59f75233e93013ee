"""IAM: what a role's policies let it do, asked through boto3 with the role's credentials."""

import json
from typing import Any

import pytest

from sandbox import permissions, resources
from sandbox.policies import Need, Unsupported, document, evaluate, matches
from tests.sandbox.aws import ACCOUNT, REGION, TRUSTS_LAMBDA, Aws, World, allow, deny, refused

OTHER = "222222222222"


class Scene:
    """Resources that the calls of the table are about, made by the administrator."""

    def __init__(self, world: World) -> None:
        admin = world.admin
        where = {"LocationConstraint": REGION}
        admin("s3").create_bucket(Bucket="bucket", CreateBucketConfiguration=where)
        admin("s3").put_object(Bucket="bucket", Key="dir/key", Body=b"")
        certificate, key = resources.throwaway_certificate(["example.com"])
        self.imported = {"Certificate": certificate, "PrivateKey": key}
        self.certificate = admin("acm").import_certificate(**self.imported)["CertificateArn"]
        zone = admin("route53").create_hosted_zone(Name="example.com", CallerReference="1")
        self.zone = zone["HostedZone"]["Id"].removeprefix("/hostedzone/")
        self.secret = admin("secretsmanager").create_secret(Name="tls/shop", SecretString="1")[
            "ARN"
        ]
        self.queue = admin("sqs").create_queue(QueueName="queue")["QueueUrl"]
        self.key = admin("kms").create_key()["KeyMetadata"]["Arn"]
        self.listener = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:listener/app/web/1/2"
        self.distribution = f"arn:aws:cloudfront::{ACCOUNT}:distribution/E1"
        admin("logs").create_log_group(logGroupName="group")

    def changes(self, action: str = "UPSERT", name: str = "_acme-challenge.example.com.") -> Any:
        record = {
            "Name": name,
            "Type": "TXT",
            "TTL": 60,
            "ResourceRecords": [{"Value": '"token"'}],
        }
        changes = [{"Action": action, "ResourceRecordSet": record}]
        return {"HostedZoneId": self.zone, "ChangeBatch": {"Changes": changes}}

    @property
    def calls(self) -> dict[str, tuple[str, dict[str, Any], str]]:
        """boto3's name of each call: the IAM action, the parameters, the right resource."""
        arn = {"CertificateArn": self.certificate}
        certificates = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/*"
        listener = {
            "ListenerArn": self.listener,
            "Certificates": [{"CertificateArn": self.certificate}],
        }
        queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue"
        zone = f"arn:aws:route53:::hostedzone/{self.zone}"
        secret = {"SecretId": "tls/shop"}
        new_secret = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:new-??????"
        object_ = {"Bucket": "bucket", "Key": "dir/key"}
        group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:group:*"
        parameter = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/certrail"
        bus = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default"
        event = {"Source": "a", "DetailType": "b", "Detail": "{}"}
        domain = f"arn:aws:apigateway:{REGION}::/domainnames/a.b"
        metric = {"Namespace": "n", "MetricData": [{"MetricName": "m", "Value": 1.0}]}
        return {
            "acm.list_certificates": ("acm:ListCertificates", {}, "*"),
            "acm.describe_certificate": ("acm:DescribeCertificate", arn, self.certificate),
            "acm.import_certificate": ("acm:ImportCertificate", self.imported, certificates),
            "acm.list_tags_for_certificate": (
                "acm:ListTagsForCertificate",
                arn,
                self.certificate,
            ),
            "cloudfront.list_distributions": ("cloudfront:ListDistributions", {}, "*"),
            "cloudfront.get_distribution": (
                "cloudfront:GetDistribution",
                {"Id": "E1"},
                self.distribution,
            ),
            "apigateway.get_domain_name": ("apigateway:GET", {"domainName": "a.b"}, domain),
            "apigateway.get_domain_names": ("apigateway:GET", {}, domain.rpartition("/")[0]),
            "apigateway.update_domain_name": ("apigateway:PATCH", {"domainName": "a.b"}, domain),
            "cloudwatch.describe_alarms": (
                "cloudwatch:DescribeAlarms",
                {"AlarmNames": ["one"]},
                f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:*",
            ),
            "cloudwatch.set_alarm_state": (
                "cloudwatch:SetAlarmState",
                {"AlarmName": "one", "StateValue": "OK", "StateReason": "a test"},
                f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:one",
            ),
            "cloudwatch.put_metric_data": ("cloudwatch:PutMetricData", metric, "*"),
            "elbv2.describe_listeners": ("elasticloadbalancing:DescribeListeners", {}, "*"),
            "elbv2.add_listener_certificates": (
                "elasticloadbalancing:AddListenerCertificates",
                listener,
                self.listener,
            ),
            "events.put_events": ("events:PutEvents", {"Entries": [event]}, bus),
            "kms.describe_key": ("kms:DescribeKey", {"KeyId": self.key}, self.key),
            "lambda.invoke": (
                "lambda:InvokeFunction",
                {"FunctionName": "f"},
                f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f",
            ),
            "logs.create_log_stream": (
                "logs:CreateLogStream",
                {"logGroupName": "group", "logStreamName": "stream"},
                group,
            ),
            "resourcegroupstaggingapi.get_resources": ("tag:GetResources", {}, "*"),
            "route53.list_hosted_zones": ("route53:ListHostedZones", {}, "*"),
            "route53.change_resource_record_sets": (
                "route53:ChangeResourceRecordSets",
                self.changes(),
                zone,
            ),
            "route53.list_resource_record_sets": (
                "route53:ListResourceRecordSets",
                {"HostedZoneId": self.zone},
                zone,
            ),
            "route53.get_change": (
                "route53:GetChange",
                {"Id": "C1"},
                "arn:aws:route53:::change/*",
            ),
            "s3.list_objects_v2": ("s3:ListBucket", {"Bucket": "bucket"}, "arn:aws:s3:::bucket"),
            "s3.get_object": ("s3:GetObject", object_, "arn:aws:s3:::bucket/dir/*"),
            "s3.put_object": ("s3:PutObject", object_, "arn:aws:s3:::bucket/dir/key"),
            "s3.delete_object": ("s3:DeleteObject", object_, "arn:aws:s3:::bucket/*"),
            "secretsmanager.list_secrets": ("secretsmanager:ListSecrets", {}, "*"),
            "secretsmanager.describe_secret": (
                "secretsmanager:DescribeSecret",
                secret,
                self.secret,
            ),
            "secretsmanager.get_secret_value": (
                "secretsmanager:GetSecretValue",
                secret,
                f"{self.secret[:-7]}-??????",
            ),
            "secretsmanager.put_secret_value": (
                "secretsmanager:PutSecretValue",
                {**secret, "SecretString": "2"},
                f"{self.secret[:-7]}-*",
            ),
            "secretsmanager.create_secret": (
                "secretsmanager:CreateSecret",
                {"Name": "new", "SecretString": "1"},
                new_secret,
            ),
            "sqs.send_message": (
                "sqs:SendMessage",
                {"QueueUrl": self.queue, "MessageBody": "m"},
                queue,
            ),
            "sqs.receive_message": ("sqs:ReceiveMessage", {"QueueUrl": self.queue}, queue),
            "ssm.get_parameter": (
                "ssm:GetParameter",
                {"Name": f"{parameter}/key", "WithDecryption": True},
                f"{parameter}/*",
            ),
            "ssm.describe_parameters": ("ssm:DescribeParameters", {}, "*"),
            "ssm.list_tags_for_resource": (
                "ssm:ListTagsForResource",
                {"ResourceType": "Parameter", "ResourceId": "/certrail/key"},
                f"{parameter}/key",
            ),
            "ssm.put_parameter": (
                "ssm:PutParameter",
                {"Name": "/certrail/new", "Value": "1", "Type": "SecureString"},
                f"{parameter}/new",
            ),
        }


CODES = {"s3", "cloudfront", "route53", "elbv2", "sqs"}


def outcome(call: Any, params: dict[str, Any]) -> str:
    """The error code; empty if the call was let through, whatever the service then said of it."""
    try:
        call(**params)
    except call.__self__.exceptions.ClientError as error:
        code = str(error.response["Error"]["Code"])
        return code if "Denied" in code else ""
    return ""


def test_the_table(world: World) -> None:
    """Every call with no policy, with *, the right resource, a wrong one, a false condition."""
    scene = Scene(world)
    role = world.role()
    aws = Aws(world.server, permissions.session(role))
    name = role.rpartition("/")[2]
    iam = world.admin("iam")
    wrong: list[str] = []
    for asked, (action, params, resource) in scene.calls.items():
        service, operation = asked.split(".")
        denied = "AccessDenied" if service in CODES else "AccessDeniedException"
        elsewhere = {"Null": {"aws:RequestedRegion": "true"}}
        here = {"StringLike": {"aws:RequestedRegion": ["us-*", "eu-*"]}}
        prefix, _, rest = resource.rpartition(":") if resource != "*" else ("arn:aws:s3::", "", "")
        for title, statements, expected in [
            ("no policy", [], denied),
            ("everything", [allow("*")], ""),
            ("right resource", [allow(action, resource)], ""),
            ("another action", [allow(f"{action}X", resource)], denied),
            ("wildcard action", [allow(f"{action[:-2]}??", resource)], ""),
            ("wrong resource", [allow(action, f"{prefix}:x{rest}")], denied),
            ("true condition", [allow(action, resource, Condition=here)], ""),
            ("false condition", [allow(action, resource, Condition=elsewhere)], denied),
            ("denied", [allow("*"), deny(action, resource)], denied),
        ]:
            policy = {"Version": "2012-10-17", "Statement": statements or [allow("iam:GetUser")]}
            iam.put_role_policy(
                RoleName=name, PolicyName="table", PolicyDocument=json.dumps(policy)
            )
            found = outcome(getattr(aws(service), operation), params)
            if found != expected:
                wrong.append(f"{asked}, {title}: {found!r} instead of {expected!r}")
    assert wrong == []


# --- what a refusal says ---


def test_the_words_of_a_refusal(world: World) -> None:
    aws = world.acting()
    who = f"arn:aws:sts::{ACCOUNT}:assumed-role/role-1/sandbox"
    arn = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:s because"
    action = "secretsmanager:GetSecretValue"
    text = f"User: {who} is not authorized to perform: {action} on resource: {arn}"
    with refused("AccessDeniedException", text, 400):
        aws("secretsmanager").get_secret_value(SecretId="s")
    because = "because no identity-based policy allows the s3:ListAllMyBuckets action"
    with refused("AccessDenied", because, 403):
        aws("s3").list_buckets()
    (call, decided) = world.server.calls.all()[-1], world.server.calls.all()[-1].decisions
    assert (call.caller, call.status) == (who, 403)
    assert [(each.action, each.allowed) for each in decided] == [("s3:ListAllMyBuckets", False)]


def test_a_refusal_names_the_condition_that_failed(world: World) -> None:
    tls = {"StringEquals": {"s3:prefix": "certificates/"}}
    aws = world.acting(allow("s3:ListBucket", Sid="Read", Condition=tls))
    with refused("AccessDenied", "statement Read: StringEquals s3:prefix ['certificates/']"):
        aws("s3").list_objects_v2(Bucket="bucket", Prefix="accounts/")


def test_decisions_are_in_the_journal(world: World) -> None:
    aws = world.acting(allow("acm:*", Sid="Certificates"))
    aws("acm").list_certificates()
    (decision,) = world.server.calls.all()[-1].decisions
    assert decision.allowed
    assert decision.why == "statement Certificates allows it"


def test_what_is_not_modelled_is_denied(world: World) -> None:
    aws = world.acting(allow("*"))
    with refused("AccessDeniedException", "does not model IAM for the service scheduler", 403):
        aws("scheduler").list_schedules()
    with refused("AccessDenied", "does not know which resource s3:PutBucketCors needs"):
        aws("s3").put_bucket_cors(Bucket="b1b", CORSConfiguration={"CORSRules": []})


def test_everybody_may_ask_who_he_is(world: World) -> None:
    identity = world.acting(deny("*"))("sts").get_caller_identity()
    assert identity["Arn"].startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/role-1/")


@pytest.mark.parametrize(
    ("asked", "code", "status"),
    [
        ("acm.list_certificates", "UnrecognizedClientException", 400),
        ("route53.list_hosted_zones", "InvalidClientTokenId", 403),
        ("s3.list_buckets", "InvalidToken", 400),
        ("sts.get_caller_identity", "InvalidClientTokenId", 403),
    ],
)
def test_a_session_does_not_outlive_the_world(
    world: World, asked: str, code: str, status: int
) -> None:
    aws = world.acting(allow("*"))
    world.server.reset()
    service, operation = asked.split(".")
    with refused(code, "The security token included in the request is invalid", status):
        getattr(aws(service), operation)()


# --- where policies come from ---


def test_attached_policies_and_boundaries_count(world: World) -> None:
    iam, role = world.admin("iam"), world.role()
    aws = Aws(world.server, permissions.session(role))

    def managed(name: str, *statements: dict[str, Any]) -> str:
        text = json.dumps({"Version": "2012-10-17", "Statement": statements})
        arn: str = iam.create_policy(PolicyName=name, PolicyDocument=text)["Policy"]["Arn"]
        return arn

    iam.attach_role_policy(RoleName="role-1", PolicyArn=managed("all", allow("acm:*")))
    aws("acm").list_certificates()
    iam.put_role_permissions_boundary(
        RoleName="role-1", PermissionsBoundary=managed("less", allow("s3:*"))
    )
    with refused("AccessDeniedException"):
        aws("acm").list_certificates()


def test_policies_that_cloudformation_made_count(world: World) -> None:
    template = {
        "Resources": {
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "RoleName": "made",
                    "AssumeRolePolicyDocument": TRUSTS_LAMBDA,
                    "Policies": [
                        {
                            "PolicyName": "inside",
                            "PolicyDocument": {
                                "Version": "2012-10-17",
                                "Statement": [allow("acm:ListCertificates")],
                            },
                        }
                    ],
                },
            }
        }
    }
    world.admin("cloudformation").create_stack(
        StackName="stack", TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_NAMED_IAM"]
    )
    role = f"arn:aws:iam::{ACCOUNT}:role/made"
    aws = Aws(world.server, permissions.session(role, "lambda.amazonaws.com"))
    aws("acm").list_certificates()
    with refused("AccessDeniedException"):
        aws("secretsmanager").list_secrets()


def test_a_session_is_only_for_a_role_that_is_there(world: World) -> None:
    with pytest.raises(permissions.NoSuchRole, match="there is no role"):
        permissions.session(f"arn:aws:iam::{ACCOUNT}:role/nobody")
    with pytest.raises(permissions.NoSuchRole, match=r"does not let scheduler.amazonaws.com"):
        permissions.session(world.role(), "scheduler.amazonaws.com")


# --- conditions of the services ---


def test_dns_records_by_name_type_and_action(world: World) -> None:
    scene = Scene(world)
    prefix = "route53:ChangeResourceRecordSets"
    only = {
        "ForAllValues:StringLike": {f"{prefix}NormalizedRecordNames": "_acme-challenge.*"},
        "ForAllValues:StringEquals": {
            f"{prefix}RecordTypes": ["TXT"],
            f"{prefix}Actions": ["UPSERT", "DELETE"],
        },
    }
    route53 = world.acting(allow("route53:ChangeResourceRecordSets", Condition=only))("route53")
    route53.change_resource_record_sets(**scene.changes(name="_ACME-challenge.Example.com."))
    with refused("AccessDenied", "NormalizedRecordNames"):
        route53.change_resource_record_sets(**scene.changes(name="www.example.com."))
    with refused("AccessDenied", "Actions"):
        route53.change_resource_record_sets(**scene.changes("CREATE"))


def test_tags_in_the_request_and_on_the_resource(world: World) -> None:
    scene = Scene(world)
    tags = [{"Key": "certrail", "Value": "shop"}]
    ours = {"StringEquals": {"aws:ResourceTag/certrail": "shop"}}
    new = {"Null": {"aws:RequestTag/certrail": "false"}}
    acm = world.acting(
        allow("acm:ImportCertificate", Condition=new),
        allow("acm:DescribeCertificate", Condition=ours),
    )("acm")
    with refused("AccessDeniedException", "Null aws:RequestTag/certrail"):
        acm.import_certificate(**scene.imported)
    # The tags themselves are a second permission.
    with refused("AccessDeniedException", "acm:AddTagsToCertificate"):
        acm.import_certificate(**scene.imported, Tags=tags)
    with refused("AccessDeniedException"):
        acm.describe_certificate(CertificateArn=scene.certificate)
    world.admin("acm").add_tags_to_certificate(CertificateArn=scene.certificate, Tags=tags)
    acm.describe_certificate(CertificateArn=scene.certificate)
    # What is gone has no tags: a condition on them hides that it is not there.
    world.admin("acm").delete_certificate(CertificateArn=scene.certificate)
    with refused("AccessDeniedException", "aws:ResourceTag/certrail"):
        acm.describe_certificate(CertificateArn=scene.certificate)


def test_a_certificate_is_new_or_ours(world: World) -> None:
    """What `certrail iam` grants: an import is tagged by whoever makes it, and imported again by
    nobody else."""
    scene = Scene(world)
    owner = "aws:{}Tag/certrail:owner".format
    tags = [{"Key": "certrail:owner", "Value": "bucket"}, {"Key": "team", "Value": "web"}]
    actions = ["acm:ImportCertificate", "acm:AddTagsToCertificate"]
    acm = world.acting(
        allow(actions, Condition={"StringEquals": {owner("Request"): "bucket"}}),
        allow(actions, Condition={"StringEquals": {owner("Resource"): "bucket"}}),
    )("acm")
    ours = acm.import_certificate(**scene.imported, Tags=tags)["CertificateArn"]
    acm.import_certificate(**scene.imported, CertificateArn=ours)
    acm.add_tags_to_certificate(CertificateArn=ours, Tags=tags[1:])
    with refused("AccessDeniedException"):
        acm.import_certificate(**scene.imported, CertificateArn=scene.certificate)
    with refused("AccessDeniedException"):
        acm.import_certificate(**scene.imported, Tags=tags[1:])


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"acm:ResourceTag/certrail": "shop"}},
        {"StringEquals": {"aws:ResourceTags/certrail": "shop"}},
        {"ForAnyValue:StringLike": {"acm:DomainNames": "*"}},
        {"Null": {"aws:SourceIp": "false"}},
    ],
)
def test_a_key_that_aws_does_not_supply_never_holds(
    world: World, condition: dict[str, Any]
) -> None:
    scene = Scene(world)
    tags = [{"Key": "certrail", "Value": "shop"}]
    world.admin("acm").add_tags_to_certificate(CertificateArn=scene.certificate, Tags=tags)
    acm = world.acting(allow("acm:DescribeCertificate", Condition=condition))("acm")
    with refused("AccessDeniedException"):
        acm.describe_certificate(CertificateArn=scene.certificate)


def test_a_secret_by_name(world: World) -> None:
    condition = {"StringLike": {"secretsmanager:Name": "tls/*"}}
    secrets = world.acting(allow("secretsmanager:CreateSecret", Condition=condition))(
        "secretsmanager"
    )
    secrets.create_secret(Name="tls/a", SecretString="1")
    with refused("AccessDeniedException"):
        secrets.create_secret(Name="other", SecretString="1")
    with refused("AccessDeniedException", "secretsmanager:TagResource"):
        secrets.create_secret(Name="tls/b", SecretString="1", Tags=[{"Key": "a", "Value": "b"}])
    with refused("AccessDeniedException", "secretsmanager:ReplicateSecretToRegions"):
        secrets.create_secret(
            Name="tls/c", SecretString="1", AddReplicaRegions=[{"Region": "us-east-1"}]
        )


def test_a_secret_that_is_not_there_has_no_suffix(world: World) -> None:
    Scene(world)
    arn = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:"
    actions = ["secretsmanager:CreateSecret", "secretsmanager:DescribeSecret"]
    half = world.acting(allow(actions, f"{arn}new-??????"))("secretsmanager")
    with refused("AccessDeniedException", f"on resource: {arn}new "):
        half.describe_secret(SecretId="new")
    whole = world.acting(allow(actions, [f"{arn}new", f"{arn}new-??????"]))("secretsmanager")
    with refused("ResourceNotFoundException"):
        whole.describe_secret(SecretId="new")
    half.create_secret(Name="new", SecretString="1")
    half.describe_secret(SecretId="new")
    with refused("AccessDeniedException"):
        whole.describe_secret(SecretId="tls/shop")


def test_who_may_not_list_does_not_learn_what_is_missing(world: World) -> None:
    Scene(world)
    reader = world.acting(allow("s3:GetObject", "arn:aws:s3:::bucket/*"))("s3")
    reader.get_object(Bucket="bucket", Key="dir/key")
    with refused("AccessDenied", "s3:ListBucket on resource: arn:aws:s3:::bucket", 403):
        reader.get_object(Bucket="bucket", Key="nothing")
    with refused("403"):
        reader.head_object(Bucket="bucket", Key="nothing")
    lister = world.acting(
        allow("s3:GetObject", "arn:aws:s3:::bucket/*"),
        allow("s3:ListBucket", "arn:aws:s3:::bucket"),
    )("s3")
    with refused("NoSuchKey", status=404):
        lister.get_object(Bucket="bucket", Key="nothing")
    versioning = {"Status": "Enabled"}
    world.admin("s3").put_bucket_versioning(Bucket="bucket", VersioningConfiguration=versioning)
    world.admin("s3").delete_object(Bucket="bucket", Key="dir/key")
    with refused("AccessDenied", "s3:ListBucket"):
        reader.get_object(Bucket="bucket", Key="dir/key")
    with refused("NoSuchKey", status=404):
        lister.get_object(Bucket="bucket", Key="dir/key")


def test_to_compare_is_to_read(world: World) -> None:
    Scene(world)
    writer = world.acting(allow("s3:PutObject"))("s3")
    writer.put_object(Bucket="bucket", Key="new", Body=b"1", IfNoneMatch="*")
    with refused("AccessDenied", "s3:GetObject on resource: arn:aws:s3:::bucket/new"):
        writer.put_object(Bucket="bucket", Key="new", Body=b"2", IfMatch='"etag"')


# --- keys, which other services use in the caller's name ---


@pytest.mark.parametrize("edge", [False, True])
def test_an_edge_optimized_domain_needs_cloudfront(world: World, edge: bool) -> None:
    endpoint = world.server.endpoint
    arn = resources.domain_name(
        "a.b", region=REGION, edge=edge, session=world.admin.session, endpoint=endpoint
    )
    patch = [{"op": "replace", "path": "/securityPolicy", "value": "TLS_1_2"}]
    change: Any = {"domainName": "a.b", "patchOperations": patch}
    gateway = allow("apigateway:PATCH", arn)
    if edge:
        with refused("AccessDeniedException", "cloudfront:UpdateDistribution"):
            world.acting(gateway)("apigateway").update_domain_name(**change)
        distributions = allow("cloudfront:UpdateDistribution")
        world.acting(gateway, distributions)("apigateway").update_domain_name(**change)
    else:
        world.acting(gateway)("apigateway").update_domain_name(**change)


def test_an_encrypted_bucket_needs_its_key(world: World) -> None:
    scene = Scene(world)
    rule = {
        "ApplyServerSideEncryptionByDefault": {
            "SSEAlgorithm": "aws:kms",
            "KMSMasterKeyID": scene.key,
        },
        "BucketKeyEnabled": False,
    }
    world.admin("s3").put_bucket_encryption(
        Bucket="bucket", ServerSideEncryptionConfiguration={"Rules": [rule]}
    )
    world.admin("s3").put_object(Bucket="bucket", Key="sealed", Body=b"1")
    through_s3 = {
        "StringEquals": {"kms:ViaService": f"s3.{REGION}.amazonaws.com"},
        "StringLike": {"kms:EncryptionContext:aws:s3:arn": "arn:aws:s3:::bucket/*"},
    }
    without = world.acting(allow("s3:*"))("s3")
    with refused("AccessDenied", f"kms:GenerateDataKey on resource: {scene.key}"):
        without.put_object(Bucket="bucket", Key="sealed", Body=b"2")
    with refused("AccessDenied", "kms:Decrypt"):
        without.get_object(Bucket="bucket", Key="sealed")
    without.head_object(Bucket="bucket", Key="sealed")
    without.get_object(Bucket="bucket", Key="dir/key")
    kms = allow(["kms:GenerateDataKey", "kms:Decrypt"], scene.key, Condition=through_s3)
    having = world.acting(allow("s3:*"), kms)
    having("s3").put_object(Bucket="bucket", Key="sealed", Body=b"3")
    assert having("s3").get_object(Bucket="bucket", Key="sealed")["Body"].read() == b"3"
    implied = [d.action for call in world.server.calls.all()[-2:] for d in call.decisions]
    assert implied == ["s3:PutObject", "kms:GenerateDataKey", "s3:GetObject", "kms:Decrypt"]
    # Through S3 only: not by the caller himself.
    with refused("AccessDeniedException"):
        having("kms").generate_data_key(KeyId=scene.key, KeySpec="AES_256")


def test_a_secret_under_a_key_of_ones_own_needs_it(world: World) -> None:
    scene = Scene(world)
    admin = world.admin("secretsmanager")
    world.admin("kms").create_alias(AliasName="alias/own", TargetKeyId=scene.key)
    admin.create_secret(Name="sealed", SecretString="1", KmsKeyId="alias/own")
    without = world.acting(allow("secretsmanager:*"))("secretsmanager")
    with refused("AccessDeniedException", f"kms:Decrypt on resource: {scene.key}"):
        without.get_secret_value(SecretId="sealed")
    with refused("AccessDeniedException", "kms:GenerateDataKey"):
        without.put_secret_value(SecretId="sealed", SecretString="2")
    without.describe_secret(SecretId="sealed")
    without.get_secret_value(SecretId="tls/shop")
    via = {"StringEquals": {"kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com"}}
    kms = allow(["kms:GenerateDataKey", "kms:Decrypt"], scene.key, Condition=via)
    having = world.acting(allow("secretsmanager:*"), kms)("secretsmanager")
    having.put_secret_value(SecretId="sealed", SecretString="2")
    assert having.get_secret_value(SecretId="sealed")["SecretString"] == "2"


def test_a_key_by_its_alias(world: World) -> None:
    scene = Scene(world)
    kms, secrets = world.admin("kms"), world.admin("secretsmanager")
    kms.create_alias(AliasName="alias/own", TargetKeyId=scene.key)
    other = kms.create_key()["KeyMetadata"]["Arn"]
    named = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/own"}}
    keys = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/*"
    use = ["kms:GenerateDataKey", "kms:Decrypt", "kms:Encrypt"]
    role = world.acting(allow("secretsmanager:*"), allow(use, keys, Condition=named))
    for key in ("alias/own", scene.key):
        role("secretsmanager").create_secret(Name=key[-8:], SecretString="1", KmsKeyId=key)
    with refused("AccessDeniedException", f"kms:GenerateDataKey on resource: {other}"):
        role("secretsmanager").create_secret(Name="sealed", SecretString="1", KmsKeyId=other)
    # The alias itself is another resource.
    aliases = f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/own"
    by_alias = world.acting(allow("secretsmanager:*"), allow(use, aliases))("secretsmanager")
    with refused("AccessDeniedException", scene.key):
        by_alias.create_secret(Name="sealed", SecretString="1", KmsKeyId="alias/own")
    # And a key's own policy knows none.
    root = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    policy = {"Version": "2012-10-17"}
    policy["Statement"] = [allow("kms:*", Principal=root, Condition=named)]  # type: ignore[assignment]
    kms.put_key_policy(KeyId=scene.key, PolicyName="default", Policy=json.dumps(policy))
    with refused("AccessDeniedException", "no resource-based policy"):
        role("secretsmanager").create_secret(Name="sealed", SecretString="1", KmsKeyId="alias/own")
    assert secrets.describe_secret(SecretId=scene.key[-8:])["KmsKeyId"] == scene.key


def test_what_secrets_manager_asks_of_a_key(world: World) -> None:
    scene = Scene(world)
    token = "t" * 32
    steps: list[tuple[str, dict[str, Any], set[str]]] = [
        (
            "create_secret",
            {"Name": "s", "SecretString": "1", "KmsKeyId": scene.key},
            {"GenerateDataKey", "Decrypt"},
        ),
        (
            "put_secret_value",
            {"SecretId": "s", "SecretString": "2", "ClientRequestToken": token},
            {"GenerateDataKey"},
        ),
        (
            "put_secret_value",
            {"SecretId": "s", "SecretString": "2", "ClientRequestToken": token},
            {"GenerateDataKey", "Decrypt"},
        ),
        (
            "update_secret",
            {"SecretId": "s", "KmsKeyId": scene.key},
            {"GenerateDataKey", "Decrypt", "Encrypt"},
        ),
        (
            "replicate_secret_to_regions",
            {"SecretId": "s", "AddReplicaRegions": [{"Region": "us-east-1"}]},
            {"Decrypt"},
        ),
        ("get_secret_value", {"SecretId": "s"}, {"Decrypt"}),
        ("describe_secret", {"SecretId": "s"}, set()),
        ("tag_resource", {"SecretId": "s", "Tags": [{"Key": "a", "Value": "b"}]}, set()),
    ]
    aws = world.acting(allow("*"))("secretsmanager")
    for operation, params, asked in steps:
        getattr(aws, operation)(**params)
        decided = {each.action for each in world.server.calls.all()[-1].decisions}
        assert {each for each in decided if each.startswith("kms:")} == {
            f"kms:{action}" for action in asked
        }, operation


# --- what belongs to the resource ---


def test_a_key_policy_decides_who_may_use_the_key(world: World) -> None:
    root = f"arn:aws:iam::{ACCOUNT}:root"
    via = {"StringEquals": {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}}
    manage = ["kms:Create*", "kms:Describe*", "kms:Put*", "kms:Get*"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            allow(manage, Principal={"AWS": root}),
            allow(["kms:Decrypt", "kms:GenerateDataKey"], Principal={"AWS": root}, Condition=via),
        ],
    }
    kms = world.admin("kms")
    key = kms.create_key(Policy=json.dumps(policy))["KeyMetadata"]["Arn"]
    everything = world.acting(allow("*"))
    for who in (everything, world.admin):
        who("kms").describe_key(KeyId=key)
        with refused("AccessDeniedException", "no resource-based policy allows"):
            who("kms").generate_data_key(KeyId=key, KeySpec="AES_256")
    where = {"LocationConstraint": REGION}
    world.admin("s3").create_bucket(Bucket="sealed", CreateBucketConfiguration=where)
    sealed = {"Bucket": "sealed", "Key": "k", "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
    for who in (everything, world.admin):
        who("s3").put_object(**sealed, Body=b"")
    with refused("AccessDenied", "no identity-based policy allows the kms:GenerateDataKey"):
        world.acting(allow("s3:*"))("s3").put_object(**sealed, Body=b"")
    # A role that the key names needs no policy of its own for it.
    named = world.role(allow("s3:*"))
    policy["Statement"] = [allow("kms:*", Principal={"AWS": named})]
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(policy))
    Aws(world.server, permissions.session(named))("s3").put_object(**sealed, Body=b"")
    with refused("AccessDenied", "no resource-based policy"):
        everything("s3").put_object(**sealed, Body=b"")


def test_a_service_assumes_a_role_for_its_own_account(world: World) -> None:
    def role(account: str) -> str:
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "scheduler.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": account}},
        }
        return world.role(trust={"Version": "2012-10-17", "Statement": [statement]})

    permissions.session(role(ACCOUNT), "scheduler.amazonaws.com")
    with pytest.raises(permissions.NoSuchRole):
        permissions.session(role(OTHER), "scheduler.amazonaws.com")


def trusting(principal: str, **more: Any) -> dict[str, Any]:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": "sts:AssumeRole",
        **more,
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def assume(aws: Aws, role: str, **more: str) -> Aws:
    made = aws("sts").assume_role(RoleArn=role, RoleSessionName="session", **more)["Credentials"]
    keys = (made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])
    return Aws(aws.server, keys)


def test_a_role_in_another_account(world: World) -> None:
    root = f"arn:aws:iam::{ACCOUNT}:root"
    with_id = {"StringEquals": {"sts:ExternalId": "secret handshake"}}
    target = world.role(
        allow("acm:ListCertificates"), trust=trusting(root, Condition=with_id), account=OTHER
    )
    caller = world.acting(allow("sts:AssumeRole", target))
    there = assume(caller, target, ExternalId="secret handshake")
    there("acm").list_certificates()
    call = world.server.calls.all()[-1]
    assert call.account == OTHER
    assert call.caller == f"arn:aws:sts::{OTHER}:assumed-role/{target.rpartition('/')[2]}/session"
    with refused("AccessDeniedException"):
        there("secretsmanager").list_secrets()
    for wrong in ({}, {"ExternalId": "guess"}):
        with refused("AccessDenied", f"sts:AssumeRole on resource: {target}", 403):
            assume(caller, target, **wrong)
    with refused("AccessDenied", "no statement allows it"):
        assume(world.acting(), target, ExternalId="secret handshake")


def test_a_role_says_who_may_assume_it(world: World) -> None:
    only_lambda, missing = world.role(), f"arn:aws:iam::{OTHER}:role/missing"
    for role in (only_lambda, missing):
        with refused("AccessDenied"):
            assume(world.acting(allow("sts:AssumeRole")), role)
        # Not even the administrator: a trust policy is the role's word, not his.
        with refused("AccessDenied"):
            assume(world.admin, role)
    by_name = world.role()
    trusted = world.role(trust=trusting(by_name))
    assume(Aws(world.server, permissions.session(by_name)), trusted)
    foreign = world.role(trust=trusting(by_name), account=OTHER)
    with refused("AccessDenied"):
        assume(Aws(world.server, permissions.session(by_name)), foreign)


def test_a_session_policy_takes_away(world: World) -> None:
    here = trusting(f"arn:aws:iam::{ACCOUNT}:root")
    role = world.role(allow("acm:*"), trust=here)
    less = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:*")]})
    with refused("AccessDeniedException"):
        assume(world.admin, role, Policy=less)("acm").list_certificates()
    assume(world.admin, role)("acm").list_certificates()


def test_a_bucket_policy_is_read_with_its_conditions(world: World) -> None:
    Scene(world)
    s3 = world.admin("s3")

    def put(*statements: dict[str, Any]) -> None:
        policy = {"Version": "2012-10-17", "Statement": statements}
        s3.put_bucket_policy(Bucket="bucket", Policy=json.dumps(policy))

    whole = ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"]
    plain = {"Bool": {"aws:SecureTransport": "false"}}
    role = world.role(allow("s3:GetObject"))
    aws = Aws(world.server, permissions.session(role))
    put(deny("s3:*", whole, Principal="*", Condition=plain))
    s3.get_object(Bucket="bucket", Key="dir/key")
    aws("s3").get_object(Bucket="bucket", Key="dir/key")
    put(deny("s3:GetObject", whole, Principal={"AWS": role}))
    with refused("AccessDenied", "explicit deny"):
        aws("s3").get_object(Bucket="bucket", Key="dir/key")
    s3.get_object(Bucket="bucket", Key="dir/key")
    put(allow("s3:ListBucket", whole, Principal={"AWS": role}))
    aws("s3").list_objects_v2(Bucket="bucket")


def test_a_bucket_of_another_account_needs_both_sides(world: World) -> None:
    Scene(world)
    foreign = Aws(
        world.server, permissions.session(world.role(allow("s3:GetObject"), account=OTHER))
    )
    with refused("AccessDenied"):
        foreign("s3").get_object(Bucket="bucket", Key="dir/key")
    policy = allow(
        "s3:GetObject", "arn:aws:s3:::bucket/*", Principal={"AWS": f"arn:aws:iam::{OTHER}:root"}
    )
    world.admin("s3").put_bucket_policy(
        Bucket="bucket", Policy=json.dumps({"Version": "2012-10-17", "Statement": [policy]})
    )
    foreign("s3").get_object(Bucket="bucket", Key="dir/key")


# --- policy documents by themselves ---


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"StringEquals": {"one": "a"}}, True),
        ({"StringEquals": {"ONE": ["b", "a"]}}, True),
        ({"StringEquals": {"one": "A"}}, False),
        ({"StringEqualsIgnoreCase": {"one": "A"}}, True),
        ({"StringNotEquals": {"one": "a"}}, False),
        ({"StringNotEquals": {"missing": "a"}}, True),
        ({"StringEquals": {"missing": "a"}}, False),
        ({"StringEqualsIfExists": {"missing": "a"}}, True),
        ({"StringLike": {"one": "?"}}, True),
        ({"StringNotLike": {"one": "b*"}}, True),
        ({"StringEquals": {"several": "x"}}, False),
        ({"ForAnyValue:StringEquals": {"several": "x"}}, True),
        ({"ForAllValues:StringEquals": {"several": "x"}}, False),
        ({"ForAllValues:StringEquals": {"several": ["x", "y", "z"]}}, True),
        ({"ForAllValues:StringEquals": {"missing": "x"}}, True),
        ({"ForAnyValue:StringEquals": {"missing": "x"}}, False),
        ({"ForAnyValue:StringNotEquals": {"several": "x"}}, True),
        ({"ArnLike": {"arn": "arn:aws:iam::*:role/a*"}}, True),
        ({"ArnLike": {"arn": "arn:aws:*:role/a*"}}, False),
        ({"ArnNotEquals": {"arn": "arn:aws:iam::1:role/abc"}}, False),
        ({"Null": {"one": "true"}}, False),
        ({"Null": {"missing": True}}, True),
        ({"Bool": {"yes": "true"}}, True),
        ({"Bool": {"yes": False}}, False),
        ({"NumericLessThanEquals": {"number": 10}}, True),
        ({"NumericGreaterThan": {"number": "10"}}, False),
        ({"StringEquals": {"one": "a"}, "Bool": {"yes": "false"}}, False),
        ({"StringEquals": {"one": "${same}"}}, True),
        ({"StringEquals": {"one": "${nothing}"}}, False),
    ],
)
def test_condition_operators(condition: dict[str, Any], holds: bool) -> None:
    context: dict[str, str | tuple[str, ...]] = {
        "one": "a",
        "same": "a",
        "several": ("x", "y"),
        "arn": "arn:aws:iam::1:role/abc",
        "yes": "true",
        "number": "10",
    }
    policy = {"Statement": allow("s3:GetObject", Condition=condition)}
    verdict = evaluate([policy], Need("s3:GetObject", "arn:aws:s3:::b/k", context))
    assert bool(verdict.allowed) is holds


def test_an_operator_nobody_knows_is_not_guessed() -> None:
    policy = {"Statement": [allow("*", Condition={"DateLessThan": {"aws:CurrentTime": "2030"}})]}
    with pytest.raises(Unsupported, match="DateLessThan"):
        evaluate([policy], Need("s3:GetObject"))


def test_not_action_and_not_resource() -> None:
    other = {"Effect": "Allow", "NotAction": "s3:*", "NotResource": "arn:aws:acm:*"}
    assert evaluate([{"Statement": other}], Need("sqs:SendMessage", "arn:aws:sqs:r:1:q")).allowed
    assert not evaluate([{"Statement": other}], Need("s3:GetObject", "arn:aws:s3:::b/k")).allowed
    assert not evaluate([{"Statement": other}], Need("acm:Get", "arn:aws:acm:r:1:c/x")).allowed


def test_wildcards_are_the_only_magic() -> None:
    assert matches("arn:aws:s3:::b/[a]*.pem", "arn:aws:s3:::b/[a]/x.pem")
    assert not matches("arn:aws:s3:::b/[a]*.pem", "arn:aws:s3:::b/a.pem")
    assert not matches("arn:aws:s3:::b", "arn:aws:s3:::bb")
    assert matches("${*}x?", "*xy")


def test_documents_as_moto_keeps_them() -> None:
    policy = {"Statement": [allow("*")]}
    assert document(json.dumps(policy)) == document(str(policy)) == document(policy) == policy
    assert document(json.dumps(policy).encode()) == policy
