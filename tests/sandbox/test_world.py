"""What a pipelines file names is there: in its account, behind a role that certrail may assume."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import boto3
import pytest

from certrail.aws import Aws
from certrail.errors import AccessDenied, AwsError
from certrail.pipelines import Pipelines, load
from deployers.kinds.all import AnyTarget
from sandbox.server import Server
from sandbox.world import furnish
from tests.sandbox.aws import REGION, allow
from tests.sandbox.aws import Aws as Administrator

EDGE, DATA = "222222222222", "333333333333"
LISTENER = (
    f"arn:aws:elasticloadbalancing:eu-west-1:{DATA}:"
    "listener/app/web/50dc6c495c0c9188/f2f7dc8efc522ab2"
)
TEXT = dedent(
    f"""
    issuers:
      ca: {{directory: "https://ca.example/directory"}}
    accounts:
      edge: {{role_arn: "arn:aws:iam::{EDGE}:role/ops/certrail", external_id: "a-text"}}
      data: {{role_arn: "arn:aws:iam::{DATA}:role/certrail"}}
    zones:
      - {{provider: route53, zone: example.net, account: edge}}
    pipelines:
      - name: shop
        domains: [shop.example.com, shop.example.net]
        targets:
          - {{type: cloudfront, distribution: E1EDGE, account: edge}}
          - {{type: listener, listener: "{LISTENER}", account: data}}
    """
)


@pytest.fixture
def pipelines() -> Pipelines[AnyTarget]:
    return load(TEXT, "pipelines.yaml", Pipelines[AnyTarget])


@pytest.fixture
def furnished(server: Server, pipelines: Pipelines[AnyTarget]) -> Server:
    allowed = {"edge": [allow("cloudfront:ListDistributions")]}
    furnish(pipelines, Administrator(server).session, server.endpoint, allowed=allowed)
    return server


@pytest.fixture
def ours(server: Server, monkeypatch: pytest.MonkeyPatch) -> Aws:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    return Aws(boto3.Session("ours", "secret", region_name=REGION))


def test_each_thing_is_in_its_account(furnished: Server) -> None:
    def ids(account: str) -> list[str]:
        client = Administrator(furnished, account=account)("cloudfront")
        there = client.list_distributions()["DistributionList"].get("Items", [])
        return [each["Id"] for each in there]

    assert (ids("123456789012"), ids(EDGE), ids(DATA)) == ([], ["E1EDGE"], [])
    elb = Administrator(furnished, account=DATA)("elbv2", "eu-west-1")
    assert len(elb.describe_listeners(ListenerArns=[LISTENER])["Listeners"]) == 1


def test_each_zone_is_in_its_account(furnished: Server) -> None:
    def zones(account: str | None) -> list[str]:
        client = Administrator(furnished, account=account)("route53")
        return [zone["Name"] for zone in client.list_hosted_zones()["HostedZones"]]

    assert (zones(None), zones(EDGE), zones(DATA)) == (["example.com."], ["example.net."], [])


def test_the_roles_may_be_assumed_with_the_external_id(
    furnished: Server, pipelines: Pipelines[AnyTarget], ours: Aws
) -> None:
    edge, data = (pipelines.accounts[name] for name in ("edge", "data"))
    distributions: Any = ours.acting_as(edge.role_arn, edge.external_id).cloudfront()
    assert len(distributions.list_distributions()["DistributionList"]["Items"]) == 1
    with pytest.raises(AccessDenied):
        ours.acting_as(edge.role_arn, "another-text")
    with pytest.raises(AccessDenied):
        ours.acting_as(edge.role_arn)
    # A role that nobody gave a policy is there, and may do nothing.
    with pytest.raises(AccessDenied):
        ours.acting_as(data.role_arn).cloudfront().list_distributions()


def test_again_changes_nothing(
    furnished: Server, pipelines: Pipelines[AnyTarget], ours: Aws
) -> None:
    mark = furnished.calls.mark()
    furnish(pipelines, Administrator(furnished).session, furnished.endpoint)
    written = [call.action for call in furnished.calls.writes(since=mark)]
    assert written == []
    edge = pipelines.accounts["edge"]
    ours.acting_as(edge.role_arn, edge.external_id).cloudfront().list_distributions()


def test_a_role_that_is_not_there(server: Server, ours: Aws) -> None:
    with pytest.raises(AwsError):
        ours.acting_as(f"arn:aws:iam::{EDGE}:role/certrail")
