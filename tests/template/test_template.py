"""template.yaml, as SAM transforms it: what must hold for every part, whatever is added."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

import pytest
from moto.events.models import EventPattern

import deployers.deploy
import deployers.finder
import deployers.handler
import deployers.held
import deployers.notifier
import deployers.watcher
import issuer.handler
from certrail.aws import Aws
from certrail.bundle import Facts
from certrail.errors import IssueError
from certrail.grants import EVERYWHERE, Scope
from certrail.keys import KeyType
from certrail.records import Rollout
from certrail.store import Current, Issued
from certrail.target import Deployed, Link, Target
from certrail.telling import SOURCE
from deployers import alarms
from deployers.finder import Findings
from deployers.kinds.acm import Acm
from deployers.kinds.all import KINDS
from deployers.kinds.apigateway import Apigateway
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.fleet import Fleet, asking
from deployers.kinds.listener import Listener
from deployers.kinds.parameterstore import Parameterstore
from deployers.kinds.secretsmanager import Secretsmanager
from deployers.selections.all import SELECTIONS
from issuer import incoming
from issuer.budget import GRACE
from issuer.dns import route53
from issuer.renewal import Window
from issuer.survey import AHEAD, LOOK_PATIENCE
from issuer.telling import Telling
from sandbox import Sandbox
from sandbox.events import target_input
from sandbox.policies import Need, evaluate
from sandbox.stack import transform
from tests.deployers.test_telling import RECORD

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "template.yaml"
TRANSFORMED = transform(TEMPLATE, {}, "eu-central-1")
RESOURCES: dict[str, dict[str, Any]] = TRANSFORMED["Resources"]
PARAMETERS: dict[str, dict[str, Any]] = TRANSFORMED["Parameters"]
FOURTEEN_DAYS = 14 * 24 * 3600
# What IAM gives no resource for.
WITHOUT_RESOURCE = {
    "acm:ListCertificates",
    "cloudfront:ListDistributions",
    "cloudwatch:DescribeAlarmHistory",
    "cloudwatch:DescribeAlarms",
    "elasticloadbalancing:DescribeAccountLimits",
    "elasticloadbalancing:DescribeListenerCertificates",
    "elasticloadbalancing:DescribeListeners",
    "elasticloadbalancing:DescribeLoadBalancers",
    "elasticloadbalancing:DescribeTags",
    "route53:ListHostedZones",
    "secretsmanager:ListSecrets",
    "ssm:DescribeInstanceInformation",
    "ssm:DescribeParameters",
    "ssm:GetInventory",
    "ssm:ListAssociations",
    "tag:GetResources",
}
# And where the resource is AWS's own, in accounts that nobody is told:
# docs.aws.amazon.com/apigateway/latest/developerguide/how-to-edge-optimized-custom-domain-name.html
OF_AWS_OWN = "PointAtTheEdge"
ONE_OF_EACH: tuple[Target, ...] = (
    Acm(region="eu-central-1"),
    Apigateway(domain_name="api.example.com", region="eu-central-1"),
    Cloudfront(distribution="E2QWRUHEXAMPLE"),
    Fleet(
        name="web", region="eu-central-1", instances={"certrail": "web"}, secret="tls/shop/bundle"
    ),
    Listener(
        listener="arn:aws:elasticloadbalancing:eu-central-1:111111111111:"
        "listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2"
    ),
    Parameterstore(name="/tls/shop/bundle", region="eu-central-1"),
    Secretsmanager(name="tls/shop/bundle", region="eu-central-1"),
)
# As the template says it.
HERE = Scope("${AWS::Partition}", "${AWS::AccountId}", "${Bucket}")
# What every deployer does, whatever its kind.
COMMON = {"Decrypt", "EncryptAndDecrypt", "Log", "Read", "Receive", "Tell", "Write"} | {
    "TellMissingFromForbidden"
}
BUCKET = "arn:aws:s3:::certrail"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/ours"


NOW = datetime(2026, 12, 1, tzinfo=UTC)
CURRENT = Current(
    pipeline="shop",
    generation=1,
    facts=Facts(
        fingerprint="0a1b",
        domains=("shop.example.com",),
        not_before=NOW - timedelta(days=60),
        not_after=NOW + timedelta(days=30),
        serial="01",
        issuer="CN=ca",
        key_type=KeyType.ECDSA_P256,
        key_usages=(),
        extended_key_usages=(),
    ),
    issued=Issued(
        "ca", "https://ca.example/dir", "uri", None, KeyType.ECDSA_P256, ("shop.example.com",)
    ),
    files={},
    published_at=NOW - timedelta(days=60),
)


def window_that_ends(end: datetime) -> Window:
    return Window(end - timedelta(days=2), end, end - timedelta(days=1), by_ca=True)


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    """Properties by logical id."""
    return {
        name: resource["Properties"]
        for name, resource in RESOURCES.items()
        if resource["Type"] == kind
    }


def referred(value: Any) -> str:
    """The logical id behind a Ref or GetAtt."""
    if isinstance(value, dict):
        if "Ref" in value:
            return str(value["Ref"])
        if "Fn::GetAtt" in value:
            name = value["Fn::GetAtt"]
            return str(name.partition(".")[0] if isinstance(name, str) else name[0])
    raise AssertionError(f"{value} refers to no resource")


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


QUEUES = of_type("AWS::SQS::Queue")
FUNCTIONS = of_type("AWS::Lambda::Function")
MAPPINGS = of_type("AWS::Lambda::EventSourceMapping")
ROLES = of_type("AWS::IAM::Role")
DEAD_LETTERS = {name for name in QUEUES if name.endswith("DeadLetters")}
DEPLOYERS = {
    properties["Environment"]["Variables"]["CERTRAIL_KIND"]: name
    for name, properties in FUNCTIONS.items()
    if "CERTRAIL_KIND" in properties["Environment"]["Variables"]
}


def statements(role: str) -> Iterator[dict[str, Any]]:
    for policy in ROLES[role].get("Policies", []):
        yield from policy["PolicyDocument"]["Statement"]


def as_written(statements: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Statements in one way of the several there are to write the same."""

    def value(of: Any) -> Any:
        match of:
            case {"Fn::Sub": text}:
                return text
            case {"Ref": name}:
                return f"${{{name}}}"
            case _:
                return of

    return [
        {
            **statement,
            "Action": sorted(listed(statement["Action"])),
            "Resource": [value(each) for each in listed(statement["Resource"])],
            "Condition": {
                operator: {
                    key: [value(each) for each in listed(wanted)] for key, wanted in tests.items()
                }
                for operator, tests in statement.get("Condition", {}).items()
            },
        }
        for statement in statements
    ]


def test_cfn_lint_finds_nothing() -> None:
    lint = subprocess.run(
        [str(Path(sys.executable).with_name("cfn-lint")), str(TEMPLATE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (lint.returncode, lint.stdout) == (0, "")


class TestQueues:
    @pytest.mark.parametrize("name", sorted(QUEUES.keys() - DEAD_LETTERS))
    def test_has_dead_letters_of_its_own_and_of_its_type(self, name: str) -> None:
        queue = QUEUES[name]
        redrive = queue["RedrivePolicy"]
        dead = referred(redrive["deadLetterTargetArn"])
        users = [
            other
            for other, properties in QUEUES.items()
            if "RedrivePolicy" in properties
            and referred(properties["RedrivePolicy"]["deadLetterTargetArn"]) == dead
        ]
        assert users == [name]
        assert QUEUES[dead].get("FifoQueue") == queue.get("FifoQueue")
        assert redrive["maxReceiveCount"] >= 5
        assert QUEUES[dead]["MessageRetentionPeriod"] == FOURTEEN_DAYS
        assert queue["MessageRetentionPeriod"] < FOURTEEN_DAYS

    @pytest.mark.parametrize("mapping", MAPPINGS)
    def test_hides_a_message_for_six_times_the_function(self, mapping: str) -> None:
        properties = MAPPINGS[mapping]
        queue = QUEUES[referred(properties["EventSourceArn"])]
        timeout = FUNCTIONS[referred(properties["FunctionName"])]["Timeout"]
        window = properties.get("MaximumBatchingWindowInSeconds", 0)
        assert queue["VisibilityTimeout"] >= 6 * timeout + window

    @pytest.mark.parametrize("mapping", MAPPINGS)
    def test_is_received_from_by_its_function_only(self, mapping: str) -> None:
        properties = MAPPINGS[mapping]
        receivers = {
            role: statement
            for role in ROLES
            for statement in statements(role)
            if any(
                referred(resource) == referred(properties["EventSourceArn"])
                for resource in listed(statement["Resource"])
                if isinstance(resource, dict) and "Fn::GetAtt" in resource
            )
            and "sqs:ReceiveMessage" in listed(statement["Action"])
        }
        function = referred(properties["FunctionName"])
        assert receivers.keys() == {f"{function}Role"}
        statement = receivers[f"{function}Role"]
        assert referred(statement["Resource"]) == referred(properties["EventSourceArn"])
        actions = {"sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"}
        if QUEUES[referred(properties["EventSourceArn"])].get("FifoQueue") or (
            function == "Notifier"
        ):
            # certrail.messages.hold_back: what fails in a FIFO queue holds up its group, and a
            # webhook says how long it wants to be left alone.
            actions |= {"sqs:ChangeMessageVisibility", "sqs:GetQueueUrl"}
        assert set(statement["Action"]) == actions

    @pytest.mark.parametrize("deployer", DEPLOYERS.values())
    def test_a_job_outlasts_the_claim_of_somebody_else(self, deployer: str) -> None:
        (queue,) = (
            QUEUES[referred(mapping["EventSourceArn"])]
            for mapping in MAPPINGS.values()
            if referred(mapping["FunctionName"]) == deployer
        )
        tries = queue["RedrivePolicy"]["maxReceiveCount"]
        assert (tries - 1) * deployers.handler.SOON > deployers.deploy.LEASE

    def test_are_encrypted(self) -> None:
        assert all(queue["SqsManagedSseEnabled"] is True for queue in QUEUES.values())

    def test_only_the_rules_may_send_from_outside(self) -> None:
        for policy in of_type("AWS::SQS::QueuePolicy").values():
            for statement in policy["PolicyDocument"]["Statement"]:
                sources = listed(statement["Condition"]["ArnEquals"]["aws:SourceArn"])
                rules = [source.get("Fn::If", ["", source])[1] for source in sources]
                assert {RESOURCES[referred(rule)]["Type"] for rule in rules} == {
                    "AWS::Events::Rule"
                }


class TestFunctions:
    def test_are_what_the_design_says(self) -> None:
        assert {name: properties["Handler"] for name, properties in FUNCTIONS.items()} == {
            "IssuerScheduler": "issuer.handler.schedule",
            "IssuerWorker": "issuer.handler.work",
            "Receiver": "issuer.receiver.handle",
            "Router": "deployers.router.handle",
            "Watcher": "deployers.watcher.handle",
            "Finder": "deployers.finder.handle",
            **{f"{kind.capitalize()}Deployer": "deployers.handler.handle" for kind in KINDS},
            "Notifier": "deployers.notifier.handle",
        }

    def test_run_on_one_runtime(self) -> None:
        assert {
            (properties["Runtime"], *properties["Architectures"])
            for properties in FUNCTIONS.values()
        } == {("python3.13", "arm64")}

    def test_each_has_a_role_of_its_own(self) -> None:
        roles = {name: referred(properties["Role"]) for name, properties in FUNCTIONS.items()}
        assert roles == {name: f"{name}Role" for name in FUNCTIONS}

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_writes_to_a_log_of_its_own_that_ends(self, name: str) -> None:
        config = FUNCTIONS[name]["LoggingConfig"]
        group = referred(config["LogGroup"])
        assert config["LogFormat"] == "JSON"
        assert group == f"{name}Log"
        assert of_type("AWS::Logs::LogGroup")[group]["RetentionInDays"] == {
            "Ref": "LogRetentionDays"
        }
        (log,) = [each for each in statements(f"{name}Role") if each["Sid"] == "Log"]
        assert referred(log["Resource"]) == group

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_is_built_by_its_own_target(self, name: str) -> None:
        targets = re.findall(r"build-(\w+)", (ROOT / "functions" / "Makefile").read_text())
        assert name in targets

    def test_batches_report_their_failures(self) -> None:
        for name, properties in MAPPINGS.items():
            if properties["BatchSize"] > 1 or referred(properties["FunctionName"]) in set(
                DEPLOYERS.values()
            ):
                assert properties["FunctionResponseTypes"] == ["ReportBatchItemFailures"], name

    def test_there_is_a_deployer_for_every_kind(self) -> None:
        assert DEPLOYERS.keys() == KINDS.keys()

    def test_the_router_calls_the_watcher(self) -> None:
        queue = FUNCTIONS["Router"]["Environment"]["Variables"]["CERTRAIL_WATCH_QUEUE"]
        (mapping,) = [
            each for each in MAPPINGS.values() if referred(each["FunctionName"]) == "Watcher"
        ]
        assert referred(queue) == referred(mapping["EventSourceArn"])
        # A FIFO queue has no delay for a single message.
        assert "FifoQueue" not in QUEUES[referred(queue)]

    def test_the_watcher_has_time_for_its_looks(self) -> None:
        timeout = timedelta(seconds=FUNCTIONS["Watcher"]["Timeout"])
        assert timeout >= deployers.watcher.PATIENCE + 2 * deployers.watcher.MARGIN

    def test_the_router_sends_each_kind_to_its_deployer(self) -> None:
        variables = FUNCTIONS["Router"]["Environment"]["Variables"]
        queues = {
            kind: value.removeprefix("${").removesuffix("}")
            for kind, value in json.loads(variables["CERTRAIL_QUEUES"]["Fn::Sub"]).items()
        }
        assert queues == {
            kind: referred(mapping["EventSourceArn"])
            for kind, deployer in DEPLOYERS.items()
            for mapping in MAPPINGS.values()
            if referred(mapping["FunctionName"]) == deployer
        }

    def test_only_the_rule_may_invoke(self) -> None:
        for permission in of_type("AWS::Lambda::Permission").values():
            assert RESOURCES[referred(permission["SourceArn"])]["Type"] == "AWS::Events::Rule"

    def test_the_schedule_has_time_to_ask_the_cas_and_ends_before_the_next(self) -> None:
        timeout = timedelta(seconds=FUNCTIONS["IssuerScheduler"]["Timeout"])
        assert timeout - issuer.handler.MARGIN > 10 * LOOK_PATIENCE
        assert timeout < AHEAD - timedelta(minutes=15)

    def test_the_worker_makes_its_order_while_the_place_is_its_own(self) -> None:
        assert timedelta(seconds=FUNCTIONS["IssuerWorker"]["Timeout"]) <= GRACE

    def test_schedules_are_flexible(self) -> None:
        schedules = of_type("AWS::Scheduler::Schedule")
        assert {
            (referred(schedule["Target"]["Arn"]), schedule["Target"]["Input"])
            for schedule in schedules.values()
        } == {
            ("IssuerScheduler", "{}"),
            ("Finder", "{}"),
            ("Receiver", "{}"),
            ("Router", '{"reconcile": false}'),
            ("Router", '{"reconcile": true}'),
        }
        assert all(
            schedule["FlexibleTimeWindow"]["Mode"] == "FLEXIBLE" for schedule in schedules.values()
        )


class TestRoles:
    @pytest.mark.parametrize("name", ROLES)
    def test_names_every_action(self, name: str) -> None:
        assert "ManagedPolicyArns" not in ROLES[name]
        for statement in statements(name):
            assert statement["Effect"] == "Allow"
            assert [action for action in listed(statement["Action"]) if "*" in action] == []

    @pytest.mark.parametrize("name", ROLES)
    def test_names_the_resource_where_iam_can(self, name: str) -> None:
        for statement in statements(name):
            if "*" in listed(statement["Resource"]) and statement["Sid"] != OF_AWS_OWN:
                assert set(listed(statement["Action"])) <= WITHOUT_RESOURCE

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_deployer_may_do_what_its_kind_says(self, kind: str) -> None:
        own = [each for each in statements(f"{DEPLOYERS[kind]}Role") if each["Sid"] not in COMMON]
        assert as_written(own) == as_written(
            grant.statement() for grant in KINDS[kind].grants(HERE, everywhere=EVERYWHERE)
        ), f"write the grants of {kind} into its deployer's role in template.yaml"

    def test_the_watcher_may_look_at_alarms(self) -> None:
        (asked,) = as_written(grant.statement() for grant in alarms.grants(["by its name"]))
        assert asked in as_written(statements("WatcherRole"))

    def test_the_watcher_may_ask_instances(self) -> None:
        (asked,) = as_written(grant.statement() for grant in asking(EVERYWHERE))
        assert asked in as_written(statements("WatcherRole"))

    def test_the_issuer_may_do_in_zones_what_route_53_takes(self) -> None:
        granted = {each["Sid"]: each for each in as_written(statements("IssuerWorkerRole"))}
        asked = route53.grants(HERE, [None], ["${ChallengeNames}"])
        zones = {
            "Fn::Split": [
                ",",
                {
                    "Fn::Join": [
                        "",
                        [
                            "arn:*:route53:::hostedzone/",
                            {
                                "Fn::Join": [
                                    ",arn:*:route53:::hostedzone/",
                                    {"Ref": "HostedZoneIds"},
                                ]
                            },
                        ],
                    ]
                },
            ]
        }
        for statement in as_written(grant.statement() for grant in asked):
            there = granted[statement["Sid"]]
            if there["Resource"] == [zones]:
                there["Resource"] = ["arn:${AWS::Partition}:route53:::hostedzone/*"]
            assert there == statement

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_deployer_writes_its_own_records_only(self, kind: str) -> None:
        written = [
            statement["Resource"]
            for statement in statements(f"{DEPLOYERS[kind]}Role")
            if "s3:PutObject" in listed(statement["Action"])
        ]
        assert written == [{"Fn::Sub": f"${{Bucket.Arn}}/deployments/*/{kind}/*"}]

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("document", ["current.json", "0a1b/bundle.json"])
    def test_a_deployer_reads_what_is_current_and_what_was(self, kind: str, document: str) -> None:
        key = f"${{Bucket.Arn}}/certificates/shop/{document}"
        assert any(
            fnmatchcase(key, resource["Fn::Sub"])
            for statement in statements(f"{DEPLOYERS[kind]}Role")
            if "s3:GetObject" in listed(statement["Action"])
            for resource in listed(statement["Resource"])
        )

    @pytest.mark.parametrize("kind", KINDS)
    def test_only_who_deploys_a_key_may_read_it(self, kind: str) -> None:
        key = "${Bucket.Arn}/certificates/shop/0a1b/privkey.pem"
        readable = {
            resource["Fn::Sub"]
            for statement in statements(f"{DEPLOYERS[kind]}Role")
            if "s3:GetObject" in listed(statement["Action"])
            for resource in listed(statement["Resource"])
        }
        may_read = any(fnmatchcase(key, pattern) for pattern in readable)
        assert may_read is not issubclass(KINDS[kind], Link)

    def test_the_finder_may_look_as_selections_say(self) -> None:
        own = [each for each in statements("FinderRole") if each["Sid"] not in COMMON]
        assert as_written(own) == as_written(
            grant.statement()
            for selection in SELECTIONS.values()
            for grant in selection.grants(HERE, EVERYWHERE)
        )

    def test_the_finder_writes_what_it_found_and_reads_no_key(self) -> None:
        granted = {
            action: {
                resource["Fn::Sub"].removeprefix("${Bucket.Arn}/")
                for statement in statements("FinderRole")
                if action in listed(statement["Action"])
                for resource in listed(statement["Resource"])
            }
            for action in ("s3:GetObject", "s3:PutObject")
        }
        assert granted["s3:PutObject"] == {"found/*"}
        key = "certificates/shop/0a1b/privkey.pem"
        assert not any(fnmatchcase(key, pattern) for pattern in granted["s3:GetObject"])

    def test_other_accounts_only_where_they_are_named(self) -> None:
        assert not any(
            action == "sts:AssumeRole"
            for role in ROLES
            for statement in statements(role)
            for action in listed(statement["Action"])
        )
        policy = RESOURCES["ActInOtherAccounts"]
        (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
        assert policy["Condition"] == "HasOtherAccounts"
        assert statement["Resource"] == {"Ref": "AssumableRoleArns"}

    def test_who_acts_in_other_accounts(self) -> None:
        roles = RESOURCES["ActInOtherAccounts"]["Properties"]["Roles"]
        assert {referred(role) for role in roles} == {
            "IssuerWorkerRole",
            "WatcherRole",
            "FinderRole",
            *(f"{deployer}Role" for deployer in DEPLOYERS.values()),
        }

    def test_certrail_iam_is_told_who_that_is(self) -> None:
        separator, arns = TRANSFORMED["Outputs"]["ActingRoleArns"]["Value"]["Fn::Join"]
        assert separator == ","
        assert arns == [
            {"Fn::GetAtt": [referred(role), "Arn"]}
            for role in RESOURCES["ActInOtherAccounts"]["Properties"]["Roles"]
        ]

    def test_only_what_is_its_own_is_deleted(self) -> None:
        (statement,) = [
            each
            for each in statements("AcmDeployerRole")
            if "acm:DeleteCertificate" in listed(each["Action"])
        ]
        assert statement["Condition"] == {
            "StringEquals": {"aws:ResourceTag/certrail:owner": {"Ref": "Bucket"}}
        }

    def test_secrets_of_others_only_where_they_are_named(self) -> None:
        reads = {"secretsmanager:GetSecretValue", "ssm:GetParameter"}
        for role in ("IssuerWorkerRole", "IssuerSchedulerRole"):
            granted = {each for one in statements(role) for each in listed(one["Action"])}
            assert not granted & reads
        policy = RESOURCES["IssuerReadsSecrets"]
        assert policy["Condition"] == "HasSecrets"
        assert [referred(role) for role in policy["Properties"]["Roles"]] == ["IssuerWorkerRole"]
        read, decrypt = policy["Properties"]["PolicyDocument"]["Statement"]
        assert set(read["Action"]) == reads
        assert read["Resource"] == {"Ref": "SecretArns"}
        # A secret may have a key of its own: any, but through the two services only.
        assert decrypt["Action"] == "kms:Decrypt"
        assert decrypt["Condition"] == {
            "StringLike": {
                "kms:ViaService": ["secretsmanager.*.amazonaws.com", "ssm.*.amazonaws.com"]
            }
        }

    def test_only_the_receiver_reads_what_is_brought_and_nobody_writes_it(self) -> None:
        key = "${Bucket.Arn}/incoming/shop/privkey.pem"

        def may(action: str) -> set[str]:
            return {
                role
                for role in ROLES
                for statement in statements(role)
                if action in listed(statement["Action"])
                for resource in listed(statement["Resource"])
                if fnmatchcase(key, str(resource.get("Fn::Sub")))
            }

        assert may("s3:GetObject") == {"ReceiverRole"}
        assert may("s3:PutObject") | may("s3:PutObjectTagging") == set()
        assert not any(
            action.startswith("s3:Delete")
            for role in ROLES
            for statement in statements(role)
            for action in listed(statement["Action"])
        )

    def test_the_receiver_writes_what_it_takes_in_and_how_it_went(self) -> None:
        written = {
            resource["Fn::Sub"].removeprefix("${Bucket.Arn}/")
            for statement in statements("ReceiverRole")
            if "s3:PutObject" in listed(statement["Action"])
            for resource in listed(statement["Resource"])
        }
        assert written == {"certificates/*", "orders/*"}

    def test_the_receiver_exports_what_is_named_only(self) -> None:
        policy = RESOURCES["ReceiverExports"]
        assert policy["Condition"] == "HasExportableCertificates"
        assert [referred(role) for role in policy["Properties"]["Roles"]] == ["ReceiverRole"]
        written = as_written(policy["Properties"]["PolicyDocument"]["Statement"])
        granted = incoming.grants(["${ExportableCertificateArns}"])
        assert written == as_written(grant.statement() for grant in granted)

    def test_the_receiver_reads_the_passwords_that_are_named_only(self) -> None:
        policy = RESOURCES["ReceiverReadsSecrets"]
        assert policy["Condition"] == "HasIncomingSecrets"
        assert [referred(role) for role in policy["Properties"]["Roles"]] == ["ReceiverRole"]
        read, decrypt = policy["Properties"]["PolicyDocument"]["Statement"]
        assert read["Resource"] == {"Ref": "IncomingSecretArns"}
        theirs = RESOURCES["IssuerReadsSecrets"]["Properties"]["PolicyDocument"]["Statement"]
        assert (read["Action"], decrypt) == (theirs[0]["Action"], theirs[1])

    @pytest.mark.parametrize(
        ("role", "action", "keys"),
        [
            (
                "IssuerSchedulerRole",
                "s3:GetObject",
                "config/pipelines.yaml config/reissue.json certificates/shop/current.json "
                "orders/shop.json renewals/shop.json",
            ),
            ("IssuerSchedulerRole", "s3:PutObject", "renewals/shop.json"),
            (
                "IssuerWorkerRole",
                "s3:GetObject",
                "config/pipelines.yaml config/reissue.json certificates/shop/current.json "
                "certificates/shop/0a1b/privkey.pem orders/shop.json renewals/shop.json "
                "accounts/staging.json budgets/staging.json rollouts/shop.json",
            ),
            (
                "IssuerWorkerRole",
                "s3:PutObject",
                "certificates/shop/current.json certificates/shop/0a1b/privkey.pem "
                "orders/shop.json accounts/staging.json budgets/staging.json",
            ),
        ],
    )
    def test_the_issuer_has_of_the_bucket_what_it_works_with(
        self, role: str, action: str, keys: str
    ) -> None:
        everything = (
            "config/pipelines.yaml config/reissue.json certificates/shop/current.json "
            "certificates/shop/0a1b/privkey.pem orders/shop.json renewals/shop.json "
            "accounts/staging.json budgets/staging.json deployments/shop/acm/eu-central-1.json "
            "rollouts/shop.json"
        )
        granted = [
            resource["Fn::Sub"].removeprefix("${Bucket.Arn}/")
            for statement in statements(role)
            if action in listed(statement["Action"])
            for resource in listed(statement["Resource"])
        ]
        allowed = [
            key
            for key in everything.split()
            if any(fnmatchcase(key, pattern) for pattern in granted)
        ]
        assert sorted(allowed) == sorted(keys.split())

    def test_the_watcher_reads_no_private_key_and_writes_of_a_certificate_the_pointer_only(
        self,
    ) -> None:
        keys = [
            "config/pipelines.yaml",
            "certificates/shop/current.json",
            "certificates/shop/0a1b/bundle.json",
            "certificates/shop/0a1b/chain.pem",
            "certificates/shop/0a1b/privkey.pem",
            "certificates/shop/ordered/1/rsa-2048/privkey.pem",
            "deployments/shop/acm/eu-central-1.json",
            "rollouts/shop.json",
            "orders/shop.json",
            "accounts/staging.json",
        ]

        def allowed(action: str) -> list[str]:
            granted = [
                resource["Fn::Sub"].removeprefix("${Bucket.Arn}/")
                for statement in statements("WatcherRole")
                if action in listed(statement["Action"])
                for resource in listed(statement["Resource"])
            ]
            return [key for key in keys if any(fnmatchcase(key, each) for each in granted)]

        assert allowed("s3:GetObject") == [*keys[:4], *keys[6:8]]
        assert allowed("s3:PutObject") == [keys[1], *keys[6:8]]

    @pytest.mark.parametrize(
        "role",
        [
            "IssuerSchedulerRole",
            "IssuerWorkerRole",
            "ReceiverRole",
            "WatcherRole",
            "FinderRole",
            *(f"{name}Role" for name in DEPLOYERS.values()),
        ],
    )
    def test_who_tells_may_tell_the_default_bus(self, role: str) -> None:
        (statement,) = [each for each in statements(role) if each["Sid"] == "Tell"]
        assert statement["Action"] == "events:PutEvents"
        assert statement["Resource"]["Fn::Sub"].endswith(":event-bus/default")

    @pytest.mark.parametrize(
        ("name", "record_type", "action", "allowed"),
        [
            ("_acme-challenge.example.com", "TXT", "UPSERT", True),
            ("_acme-challenge.example.com", "TXT", "DELETE", True),
            ("www.example.com", "TXT", "UPSERT", False),
            ("_acme-challenge.example.com", "CNAME", "UPSERT", False),
            ("shop.acme.example.net", "TXT", "UPSERT", False),
        ],
    )
    def test_the_issuer_writes_challenges_only(
        self, name: str, record_type: str, action: str, allowed: bool
    ) -> None:
        default = PARAMETERS["ChallengeNames"]["Default"]
        assert may_write(name, record_type, action, default.split(",")) is allowed

    @pytest.mark.parametrize(
        ("name", "allowed"),
        [
            ("_acme-challenge.example.com", True),
            ("shop.acme.example.net", True),
            ("acme.example.net", False),
            ("www.example.com", False),
        ],
    )
    def test_where_challenges_are_led_to_is_a_parameter(self, name: str, allowed: bool) -> None:
        names = ["_acme-challenge.*", "*.acme.example.net"]
        assert may_write(name, "TXT", "UPSERT", names) is allowed


def may_write(name: str, record_type: str, action: str, challenge_names: list[str]) -> bool:
    """Whether the issuer may change such a record, where these are its ChallengeNames."""
    (statement,) = [
        {**each, "Resource": "*"}
        for each in statements("IssuerWorkerRole")
        if each["Sid"] == "WriteChallengesOnly"
    ]
    written = json.dumps(statement)
    parameter = json.dumps({"Ref": "ChallengeNames"})
    assert parameter in written
    statement = json.loads(written.replace(parameter, json.dumps(challenge_names)))
    operation = "route53:ChangeResourceRecordSets"
    # One change that would do, and the one in question: both must.
    context = {
        f"{operation}NormalizedRecordNames": ("_acme-challenge.example.org", name),
        f"{operation}RecordTypes": ("TXT", record_type),
        f"{operation}Actions": ("UPSERT", action),
    }
    need = Need(operation, "arn:aws:route53:::hostedzone/Z1", context)
    return bool(evaluate([{"Statement": [statement]}], need).allowed)


class TestBucket:
    def test_is_private_versioned_and_encrypted_with_our_key(self) -> None:
        bucket = of_type("AWS::S3::Bucket")["Bucket"]
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert referred(rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"]) == "Key"
        assert rule["BucketKeyEnabled"] is True
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4
        assert RESOURCES["Key"]["Properties"]["EnableKeyRotation"] is True

    @pytest.mark.parametrize("name", ["Bucket", "Key"])
    def test_outlives_the_stack(self, name: str) -> None:
        assert RESOURCES[name]["DeletionPolicy"] == "Retain"
        assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"

    def test_only_superseded_private_keys_expire(self) -> None:
        rules = of_type("AWS::S3::Bucket")["Bucket"]["LifecycleConfiguration"]["Rules"]
        expiring = [rule for rule in rules if "ExpirationInDays" in rule]
        assert [rule["TagFilters"] for rule in expiring] == [
            [{"Key": "certrail-superseded", "Value": "true"}]
        ]

    @pytest.mark.parametrize(
        ("about", "refused"),
        [
            pytest.param({}, False, id="the bucket's default"),
            pytest.param({"": "aws:kms", "-aws-kms-key-id": KEY}, False, id="our key by name"),
            pytest.param({"": "AES256"}, True, id="S3's own key"),
            pytest.param({"": "aws:kms"}, True, id="AWS's key for S3"),
            pytest.param({"": "aws:kms", "-aws-kms-key-id": KEY + "x"}, True, id="another key"),
            pytest.param({"-customer-algorithm": "AES256"}, True, id="the caller's key"),
        ],
    )
    def test_only_our_key_encrypts(self, about: dict[str, str], refused: bool) -> None:
        headers = {f"s3:x-amz-server-side-encryption{name}": value for name, value in about.items()}
        context = {"aws:SecureTransport": "true", **headers}
        need = Need("s3:PutObject", f"{BUCKET}/accounts/staging.json", context)
        verdict = evaluate([bucket_policy()], need, ["anybody"])
        assert verdict.allowed is (False if refused else None)

    @pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject"])
    def test_refuses_plain_http(self, action: str) -> None:
        need = Need(action, f"{BUCKET}/config/pipelines.yaml", {"aws:SecureTransport": "false"})
        assert evaluate([bucket_policy()], need, ["anybody"]).allowed is False


def bucket_policy() -> dict[str, Any]:
    """With the bucket's and the key's ARN in it, as CloudFormation writes it."""
    policy = json.dumps(of_type("AWS::S3::BucketPolicy")["BucketPolicy"]["PolicyDocument"])
    for written, arn in {
        json.dumps({"Fn::GetAtt": ["Bucket", "Arn"]}): BUCKET,
        json.dumps({"Fn::Sub": "${Bucket.Arn}/*"}): f"{BUCKET}/*",
        json.dumps({"Fn::GetAtt": ["Key", "Arn"]}): KEY,
    }.items():
        assert written in policy
        policy = policy.replace(written, json.dumps(arn))
    document: dict[str, Any] = json.loads(policy)
    return document


class TestEvents:
    @pytest.mark.parametrize(
        ("key", "woken"),
        [
            ("certificates/shop/current.json", {"StateChanged"}),
            (
                "config/pipelines.yaml",
                {"StateChanged", "PipelinesPushed", "SelectionsPushed", "BroughtIn"},
            ),
            ("incoming/shop/privkey.pem", {"BroughtIn"}),
            ("config/reissue.json", {"PipelinesPushed"}),
            ("deployments/shop/acm/eu-central-1.json", {"StateChanged"}),
            ("certificates/shop/0a1b/privkey.pem", set()),
            ("found/shop.json", {"StateChanged"}),
            ("orders/shop.json", set()),
            ("renewals/shop.json", set()),
            ("budgets/letsencrypt.json", set()),
            ("accounts/letsencrypt.json", set()),
        ],
    )
    def test_wake_who_they_concern(self, key: str, woken: set[str]) -> None:
        event: Any = {
            "source": "aws.s3",
            "detail-type": "Object Created",
            "detail": {"bucket": {"name": "certrail"}, "object": {"key": key}},
        }
        assert {
            name
            for name, rule in of_type("AWS::Events::Rule").items()
            if EventPattern.load(
                json.dumps(rule["EventPattern"]).replace('{"Ref": "Bucket"}', '"certrail"')
            ).matches_event(event)
        } == woken

    @pytest.mark.parametrize(
        ("action", "woken"),
        [("ISSUANCE", True), ("RENEWAL", True), ("IMPORT", False), ("REIMPORT", False)],
    )
    def test_what_acm_issues_wakes_the_receiver_and_what_we_import_does_not(
        self, action: str, woken: bool
    ) -> None:
        pattern = of_type("AWS::Events::Rule")["RenewedByAcm"]["EventPattern"]
        event: Any = {
            "source": "aws.acm",
            "detail-type": "ACM Certificate Available",
            "detail": {"Action": action, "CertificateType": "AMAZON_ISSUED", "Exported": True},
        }
        assert EventPattern.load(json.dumps(pattern)).matches_event(event) is woken

    def test_what_is_not_delivered_is_kept(self) -> None:
        for rule in of_type("AWS::Events::Rule").values():
            for target in rule["Targets"]:
                assert referred(target["DeadLetterConfig"]["Arn"]) == "EventDeadLetters"
                assert target["RetryPolicy"]["MaximumRetryAttempts"] > 0


class TestTelling:
    RULES: ClassVar = {
        name: rule
        for name, rule in of_type("AWS::Events::Rule").items()
        if rule["EventPattern"]["source"] == [SOURCE]
    }

    def test_both_rules_hear_their_own_installation_only(self) -> None:
        assert self.RULES.keys() == {"ToldToTopic", "ToldToWebhook"}
        for rule in self.RULES.values():
            pattern = json.dumps(rule["EventPattern"]).replace('{"Ref": "Bucket"}', '"certrail"')
            assert [
                EventPattern.load(pattern).matches_event(
                    {"source": source, "detail-type": "Target Failed", "detail": {"bucket": bucket}}
                )
                for source, bucket in ((SOURCE, "certrail"), (SOURCE, "other"), ("x", "certrail"))
            ] == [True, False, False]

    def test_the_topic_gets_the_sentence(self) -> None:
        (target,) = self.RULES["ToldToTopic"]["Targets"]
        transformer = target["InputTransformer"]
        assert target["Arn"] == {"Ref": "NotifyTopicArn"}
        said = target_input(
            {"InputTransformer": transformer}, {"detail": {"summary": "it's"}, "time": ""}, "rule/x"
        )
        assert said == '"it\'s"'

    def test_nothing_is_made_for_who_is_not_to_be_told(self) -> None:
        conditions = {name: resource.get("Condition") for name, resource in RESOURCES.items()}
        assert {
            name for name, condition in conditions.items() if condition == "HasNotifyTopic"
        } == {"ToldToTopic"}
        webhook = {name for name, condition in conditions.items() if condition == "HasWebhook"}
        assert webhook == {"ToldToWebhook"} | {
            name for name in RESOURCES if name.startswith("Notifier")
        }
        assert (
            PARAMETERS["NotifyTopicArn"]["Default"],
            PARAMETERS["WebhookSecretArn"]["Default"],
        ) == ("", "")

    def test_the_shapes_are_those_that_are_known(self) -> None:
        assert PARAMETERS["WebhookShape"]["AllowedValues"] == list(deployers.notifier.SHAPES)

    def test_the_notifier_reads_its_own_secret_only(self) -> None:
        (read, decrypt) = [
            each for each in statements("NotifierRole") if each["Sid"] not in {"Log", "Receive"}
        ]
        assert read["Action"] == ["secretsmanager:GetSecretValue", "ssm:GetParameter"]
        assert read["Resource"] == {"Ref": "WebhookSecretArn"}
        assert decrypt["Action"] == "kms:Decrypt"
        assert set(decrypt["Condition"]["StringLike"]) == {"kms:ViaService"}

    def test_a_webhook_that_is_down_for_two_hours_is_told_in_the_end(self) -> None:
        tries = QUEUES["NotifierQueue"]["RedrivePolicy"]["maxReceiveCount"]
        waits = (deployers.notifier.until_next(number, None) for number in range(1, tries))
        assert sum(waits, timedelta()) > timedelta(hours=2)
        assert FUNCTIONS["Notifier"]["Timeout"] > 2 * deployers.notifier.TIMEOUT


class TestAlarms:
    ALARMS = of_type("AWS::CloudWatch::Alarm")

    def watched(self, namespace: str, metric: str) -> list[Any]:
        """The value of the one dimension of each alarm on this metric."""
        return [
            alarm["Dimensions"][0]["Value"]
            for alarm in self.ALARMS.values()
            if (alarm["Namespace"], alarm["MetricName"]) == (namespace, metric)
        ]

    def test_every_function(self) -> None:
        assert {referred(value) for value in self.watched("AWS/Lambda", "Errors")} == set(FUNCTIONS)

    def test_silence_of_what_the_schedules_invoke(self) -> None:
        schedules = of_type("AWS::Scheduler::Schedule").values()
        invoked = {referred(schedule["Target"]["Arn"]) for schedule in schedules}
        silent = self.watched("AWS/Lambda", "Invocations")
        assert {referred(value) for value in silent} == invoked
        for alarm in self.ALARMS.values():
            if alarm["MetricName"] == "Invocations":
                # Lambda writes no zeros.
                assert alarm["TreatMissingData"] == "missing"
                assert alarm["InsufficientDataActions"] == alarm["AlarmActions"]
                # Longer than the schedule's rate with its flexible window.
                assert alarm["Period"] * alarm["EvaluationPeriods"] > 2 * 75 * 60

    def test_all_dead_letters(self) -> None:
        depth = self.watched("AWS/SQS", "ApproximateNumberOfMessagesVisible")
        assert {referred(value) for value in depth} == DEAD_LETTERS

    def metrics(self, capsys: pytest.CaptureFixture[str]) -> set[tuple[str, str, str]]:
        """What was written to the log, as CloudWatch reads it: namespace, metric, dimensions."""
        return {
            (
                directive["Namespace"],
                metric["Name"],
                json.dumps({name: line[name] for name in dimensions}),
            )
            for line in map(json.loads, capsys.readouterr().out.splitlines())
            for directive in line["_aws"]["CloudWatchMetrics"]
            for metric in directive["Metrics"]
            for dimensions in directive["Dimensions"]
            if metric["Name"] in line
        }

    def test_what_the_functions_count(
        self, capsys: pytest.CaptureFixture[str], sandbox: Sandbox
    ) -> None:
        assert {target.type for target in ONE_OF_EACH} == set(KINDS)
        for target in ONE_OF_EACH:
            deployers.handler._count_failure("shop", target)
        telling = Telling(Aws(), "certrail", NOW)
        telling.failed("shop", IssueError("refused"), None)
        with sandbox.server.refuse("events:PutEvents", "AccessDenied"):
            telling.issued(CURRENT)
        telling.replaces_refused("shop", "not known")
        telling.standing(CURRENT, window_that_ends(NOW))
        deployers.telling.Telling(Aws(), "certrail", NOW, "test").rollout_failed(
            Rollout("shop", 1, "0a1b", NOW, None, failed="no")
        )
        deployers.finder.count_failed(Findings({}, {}), NOW)
        deployers.held.count_held(CURRENT, {"acm/eu-central-1": RECORD}, NOW)
        written = {metric for metric in self.metrics(capsys) if "Pipeline" not in metric[2]}
        # To be looked at; nobody is woken for them.
        curves = {
            ("certrail", name, "{}")
            for name in ("DaysLeft", "DaysSinceIssued", "HeldDaysLeft", "ReplacesRefused")
        }
        assert curves < written
        assert {
            (
                alarm["Namespace"],
                alarm["MetricName"],
                json.dumps({each["Name"]: each["Value"] for each in alarm.get("Dimensions", [])}),
            )
            for alarm in self.ALARMS.values()
            if not alarm["Namespace"].startswith("AWS/")
        } == written - curves

    @pytest.mark.parametrize(
        ("ended", "rings"),
        [(timedelta(minutes=1), True), (timedelta(), False), (-timedelta(days=1), False)],
    )
    def test_a_window_that_is_over_rings(
        self, capsys: pytest.CaptureFixture[str], ended: timedelta, rings: bool
    ) -> None:
        alarm = self.ALARMS["PastWindow"]
        Telling(Aws(), "certrail", NOW).standing(CURRENT, window_that_ends(NOW - ended))
        line = json.loads(capsys.readouterr().out)
        assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
        assert (line[alarm["MetricName"]] > alarm["Threshold"]) is rings
        # Of many certificates the worst, and no hour without a look makes it well.
        assert (alarm["Statistic"], alarm["TreatMissingData"]) == ("Maximum", "ignore")

    @pytest.mark.parametrize(
        ("left", "fingerprint", "rings"),
        [
            (timedelta(days=6), "old", True),
            (-timedelta(days=1), "old", True),
            (timedelta(days=8), "old", False),
            # What is current is the issuer's: PastWindow.
            (timedelta(days=6), "0a1b", False),
        ],
    )
    def test_what_is_held_too_long_rings(
        self,
        capsys: pytest.CaptureFixture[str],
        left: timedelta,
        fingerprint: str,
        rings: bool,
    ) -> None:
        alarm = self.ALARMS["HeldTooLong"]
        held = Deployed(fingerprint, "arn", NOW + left)
        records = {RECORD.address: replace(RECORD, held=held)}
        deployers.held.count_held(CURRENT, records, NOW)
        line = json.loads(capsys.readouterr().out)
        assert line["HeldDaysLeft"] == left / timedelta(days=1)
        assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
        assert (line[alarm["MetricName"]] > alarm["Threshold"]) is rings
        assert (alarm["Statistic"], alarm["TreatMissingData"]) == ("Maximum", "ignore")

    def test_tell_the_topic_if_there_is_one(self) -> None:
        for alarm in self.ALARMS.values():
            assert alarm["AlarmActions"] == {
                "Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]
            }
