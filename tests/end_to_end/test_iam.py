"""Roles that may do what `certrail iam` prints and no more, as docs/accounts.md says: that of
another account, made by the template that it prints, with all that the sample file may ask for
there; and those of the stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from certrail.records import Record
from certrail.store import record_key
from cli.__main__ import app
from cli.local_cloud import DIRECTORY
from cli.plan import plan
from cli.status import status
from cli.workspace import issue_here
from sandbox import Sandbox, resources
from tests.deployers.cloud import put_alarm
from tests.end_to_end.conftest import PATIENCE, TEMPLATE, World

EDGE = "222222222222"
# What a role of the stack does with the bucket and its queues, whatever the file says.
ALWAYS = {"Log", "Tell", "Receive", "Read", "Write", "EncryptAndDecrypt"} | {
    "TagSupersededKeys",
    "TellMissingFromForbidden",
}
ROLE = f"arn:aws:iam::{EDGE}:role/certrail"
PLACE = f"eu-central-1:{EDGE}"
SAMPLE = (TEMPLATE.parent / "pipelines.yaml").read_text(encoding="utf-8")
# The sample's own lines about another account, and what is added to its pipelines.
COMMENTED = [
    "# accounts:",
    "#   edge:",
    f"#     role_arn: {ROLE}",
    "#     external_id: a-text-that-the-role-asks-for",
    "# zones:",
    "#   - provider: route53",
    "#     zone: example.net",
    "#     account: edge",
]
ALB = f"arn:aws:elasticloadbalancing:{PLACE}:listener/app/edge/00000000000000ed/00000000000000e1"
FOUND = f"arn:aws:elasticloadbalancing:{PLACE}:listener/app/edge/00000000000000ed/00000000000000e2"
ALARM = f"arn:aws:cloudwatch:{PLACE}:alarm:edge-errors"
ELSEWHERE = f"""
  - name: edge
    domains: [edge.example.net]
    waves: [{{name: canary, alarms: ["{ALARM}"]}}, {{name: rest}}]
    targets:
      - {{type: apigateway, account: edge, domain_name: edge.example.net}}
      - {{type: cloudfront, account: edge, distribution: E3EDGEEXAMPLE3, wave: canary}}
      - {{type: listener, account: edge, listener: "{ALB}", default: true}}
  - name: edge-servers
    domains: [servers.example.net]
    targets:
      - {{type: acm, account: edge, tags: {{team: servers}}}}
      - {{type: secretsmanager, account: edge, name: tls/edge/bundle, kms_key: alias/tls,
         replica_regions: [eu-west-1]}}
  - name: edge-found
    domains: [found.example.net]
    targets:
      - {{type: listener, accounts: [edge], covers: true}}
"""


@pytest.fixture(scope="module")
def deployed(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The template, told of the role; what selections, secrets and waves name is there, too."""
    sandbox.reset()
    sandbox.deploy(TEMPLATE, {"AssumableRoleArns": ROLE})
    resources.listener(
        FOUND, names=["found.example.net"], session=sandbox.session(), endpoint=sandbox.endpoint
    )
    keys = there(sandbox, "kms")
    key = keys.create_key()["KeyMetadata"]["KeyId"]
    keys.create_alias(AliasName="alias/tls", TargetKeyId=key)
    put_alarm(there(sandbox, "cloudwatch"), "edge-errors")
    yield sandbox
    sandbox.reset()


def there(sandbox: Sandbox, service: Any) -> Any:
    """A client of the other account's administrator."""
    return sandbox.session(account=EDGE).client(service, endpoint_url=sandbox.endpoint)


@pytest.fixture
def text(world: World) -> str:
    """The sample, with another account."""
    text = SAMPLE.replace(DIRECTORY, world.sandbox.directory) + ELSEWHERE
    for line in COMMENTED:
        assert f"\n{line}\n" in text
        text = text.replace(f"\n{line}\n", f"\n{line.removeprefix('# ')}\n", 1)
    return text


def made_by_certrail_iam(world: World, text: str) -> None:
    """The two commands of docs/accounts.md, and the stack's roles as narrow as the file allows."""
    world.workspace.file.write_text(text)
    people = "arn:aws:iam::123456789012:*"
    trust = f"{world.sandbox.stack.outputs['ActingRoleArns']},{people}"
    where = ["--file", str(world.workspace.file), "--bucket", world.store.bucket]
    printed = CliRunner().invoke(app, ["iam", "edge", "--template", "--trust", trust, *where])
    assert printed.exit_code == 0, printed.output
    cloudformation = there(world.sandbox, "cloudformation")
    given = {
        "StackName": "certrail-edge",
        "TemplateBody": printed.stdout,
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
    }
    if cloudformation.list_stacks()["StackSummaries"]:
        cloudformation.update_stack(**given)
    else:
        cloudformation.create_stack(**given)
    printed = CliRunner().invoke(app, ["iam", "--json", *where])
    assert printed.exit_code == 0, printed.output
    narrow(world, {role["role"]: role["policies"] for role in json.loads(printed.stdout)})


def narrow(world: World, printed: dict[str, Any]) -> None:
    """What is printed for a role of the stack takes the place of what the template lets it do
    besides; where nothing is, there is nothing besides."""
    iam = world.client("iam")
    for role, name in world.sandbox.stack.resources.items():
        if not role.endswith(("DeployerRole", "FinderRole", "WatcherRole", "WorkerRole")):
            continue
        policy = {"RoleName": name, "PolicyName": role.removesuffix("Role")}
        there = iam.get_role_policy(**policy)["PolicyDocument"]
        left = [each for each in there["Statement"] if each["Sid"] in ALWAYS]
        left += [each for document in printed.get(role, ()) for each in document["Statement"]]
        document = {**there, "Statement": left}
        iam.put_role_policy(**policy, PolicyDocument=json.dumps(document))


def due_to_happen(world: World) -> dict[str, list[str]]:
    """What `certrail plan` finds still to do, by pipeline."""
    return {
        pipeline.name: waiting
        for pipeline in plan(world.workspace, None, datetime.now(UTC))
        if (
            waiting := [f"{each.address}: {each.reason}" for each in pipeline.targets if each.waits]
        )
    }


def states(world: World, name: str) -> dict[str, str]:
    """What `certrail status` says of a pipeline's targets."""
    (found,) = status(world.workspace, [name], datetime.now(UTC))
    assert all(wave.state == "passed" for wave in found.waves)
    return {target.address: target.state for target in found.targets}


def test_what_it_prints_is_all_that_the_account_needs(world: World, text: str) -> None:
    made_by_certrail_iam(world, text)
    world.furnish(text)
    world.push(text)
    assert due_to_happen(world) == {}
    assert states(world, "edge") == {
        "acm/edge:eu-central-1": "deployed",
        "acm/edge:us-east-1": "deployed",
        "apigateway/edge:eu-central-1/edge.example.net": "served",
        "cloudfront/E3EDGEEXAMPLE3": "served",
        f"listener/{ALB.partition(':listener/')[2]}": "served",
    }
    assert states(world, "edge-found") == {
        "acm/edge:eu-central-1": "deployed",
        f"listener/{FOUND.partition(':listener/')[2]}": "served",
    }
    assert world.sandbox.functions.failures == []

    patience = timedelta(seconds=PATIENCE)
    file = world.workspace.local()
    for name in ("edge", "edge-servers", "edge-found"):
        pipeline = file.named(name)
        assert pipeline
        issue_here(world.workspace, file, pipeline, patience, asked=True)
    world.settle()
    assert due_to_happen(world) == {}
    by_hand(world)
    assert set(due_to_happen(world)) == {"edge", "edge-servers"}
    for schedule in ("RouterDaily", "RouterHourly", "IssuerHourly"):
        world.sandbox.functions.fire_schedule(schedule)
        world.settle()
    assert due_to_happen(world) == {}
    assert world.sandbox.functions.failures == []


def by_hand(world: World) -> None:
    """Somebody changes a listener and a secret."""
    own = resources.imported_certificate(["edge.example.net"], region="eu-central-1", account=EDGE)
    there(world.sandbox, "elbv2").modify_listener(
        ListenerArn=ALB, Certificates=[{"CertificateArn": own}]
    )
    there(world.sandbox, "secretsmanager").put_secret_value(
        SecretId="tls/edge/bundle", SecretString="by hand"
    )


def test_a_target_that_the_role_does_not_have_yet(world: World, text: str) -> None:
    made_by_certrail_iam(world, text)
    world.furnish(text)
    more = text.replace(
        "  - name: edge-found",
        "      - {type: secretsmanager, account: edge, name: tls/edge/more}\n  - name: edge-found",
    )
    world.push(more)
    lacking = "secretsmanager/edge:eu-central-1/tls/edge/more"
    assert states(world, "edge-servers") == {
        "acm/edge:eu-central-1": "deployed",
        "secretsmanager/edge:eu-central-1/tls/edge/bundle": "deployed",
        lacking: "failed",
    }
    record = world.store.read(record_key("edge-servers", lacking), Record)
    assert record
    assert "not authorized to perform: secretsmanager:" in (record.value.error or "")
    made_by_certrail_iam(world, more)
    world.sandbox.functions.fire_schedule("RouterDaily")
    world.settle()
    assert due_to_happen(world) == {}
