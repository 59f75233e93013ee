"""What `certrail iam` prints for zones in another account: enough to prove names there, and nothing
of it can be left out."""

from __future__ import annotations

from typing import Any

import pytest

from certrail.errors import AccessDenied, FailedTogether
from certrail.grants import Scope
from certrail.pipelines import Pipelines, load
from certrail.pipelines.model import Account
from cli.iam import needed
from deployers.kinds.all import AnyTarget
from issuer.dns import challenge_name
from issuer.dns.route53 import Route53
from tests.issuer.dns.world import EXTERNAL_ID, OTHER_ACCOUNT, World, token, within

SIDS = ("FindZones", "AwaitChange", "FindNameServers", "WriteChallengesOnly")


def file(found: str, chosen: str, zone_id: str) -> Pipelines[AnyTarget]:
    """One zone is found by its name, the other chosen by its id."""
    text = f"""
issuers: {{ca: {{directory: "https://ca.example/directory"}}}}
accounts:
  dns: {{role_arn: "arn:aws:iam::{OTHER_ACCOUNT}:role/certrail-dns", external_id: {EXTERNAL_ID}}}
zones:
  - {{provider: route53, zone: {found}, account: dns}}
  - {{provider: route53, zone: {chosen}, account: dns, zone_id: {zone_id}}}
pipelines:
  - {{name: shop, domains: [{found}, "*.www.{found}", shop.{chosen}]}}
"""
    return load(text, "pipelines.yaml", Pipelines[AnyTarget])


def prove(world: World, without: str | None = None) -> None:
    """The records of the file's names come and go, and the zones' name servers are known."""
    found, chosen = f"found-{world.zone}", f"chosen-{world.zone}"
    world.hosted_zone(found, OTHER_ACCOUNT)
    pipelines = file(found, chosen, world.hosted_zone(chosen, OTHER_ACCOUNT))
    (role,) = needed(pipelines, "dns", Scope("aws", "123456789012", "certrail-test"))
    (policy,) = role.policies
    assert [statement["Sid"] for statement in policy["Statement"]] == list(SIDS)
    left: list[Any] = [each for each in policy["Statement"] if each["Sid"] != without]
    account = world.role(OTHER_ACCOUNT, *left)
    assert account == Account(role_arn=role.role, external_id=EXTERNAL_ID)
    (pipeline,) = pipelines.pipelines
    dns = world.dns(*pipelines.zones, accounts={"dns": account})
    dns.locate(map(challenge_name, pipeline.domains))
    with dns.presenting([token(domain) for domain in pipeline.domains], within(20)):
        assert len(world.texts(found, OTHER_ACCOUNT)) == 2
        assert len(world.texts(chosen, OTHER_ACCOUNT)) == 1
    # The sandbox says which servers to ask; on AWS the zone does.
    acting = world.aws.acting_as(account.role_arn, account.external_id)
    assert Route53(acting).servers(challenge_name(found))


def test_what_it_prints_is_enough(world: World) -> None:
    prove(world)


@pytest.mark.parametrize("sid", SIDS)
def test_no_statement_can_be_left_out(world: World, sid: str) -> None:
    with pytest.raises((AccessDenied, FailedTogether), match="not authorized to perform: route53"):
        prove(world, without=sid)
