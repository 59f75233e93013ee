"""`certrail iam`: what it prints. That it is enough, and not more: tests/deployers/test_iam.py."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.grants import Grant, Scope, without_repeats
from certrail.pipelines import Pipelines, load
from cli.iam import POLICY_LIMIT, divided, needed
from cli.workspace import BadInput
from deployers.kinds.all import AnyTarget
from tests.cli.conftest import BUCKET, Certrail

EDGE = "arn:aws:iam::222222222222:role/certrail"
HOME = Scope("aws", "123456789012", BUCKET)
HEAD = """\
issuers:
  ca: {directory: "https://ca.example/directory"}
  persist: {directory: "https://persist.example/directory", validation: dns-persist-01}
defaults: {region: eu-central-1, issuer: ca}
accounts:
  edge: {role_arn: "arn:aws:iam::222222222222:role/certrail", external_id: abc}
  edge-too: {role_arn: "arn:aws:iam::222222222222:role/certrail", external_id: def}
  dns: {role_arn: "arn:aws-us-gov:iam::333333333333:role/dns"}
"""
ZONES = """\
zones:
  - {provider: route53, zone: example.com, account: dns}
  - {provider: route53, zone: acme.example.net, account: dns, zone_id: Z0123}
  - {provider: route53, zone: _acme-challenge.shop.example.org, account: edge, zone_id: Z0456}
"""
TARGETS = """\
pipelines:
  - name: shop
    domains: [shop.example.com, "*.shop.example.com", shop.example.org, example.net]
    targets:
      - {type: cloudfront, distribution: E2HERE}
      - {type: cloudfront, distribution: E2EDGE, account: edge}
      - {type: secretsmanager, name: tls/shop, account: edge-too}
"""


def policies(text: str, account: str | None = None) -> dict[str, dict[str, Any]]:
    """By role, the statements by sid."""
    found = needed(load(text, "pipelines.yaml", Pipelines[AnyTarget]), account, HOME)
    return {
        role.account or role.role: {
            statement["Sid"]: statement
            for policy in role.policies
            for statement in policy["Statement"]
        }
        for role in found
    }


def test_each_role_gets_what_it_has_to_do() -> None:
    roles = policies(HEAD + ZONES + TARGETS)
    assert list(roles) == [
        "AcmDeployerRole",
        "CloudfrontDeployerRole",
        "IssuerWorkerRole",
        "edge",
        "edge-too",
        "dns",
    ]
    home = roles["CloudfrontDeployerRole"]["Attach"]["Resource"]
    assert home == "arn:aws:cloudfront::123456789012:distribution/E2HERE"
    edge = roles["edge"]["CloudfrontAttach"]["Resource"]
    assert edge == "arn:aws:cloudfront::222222222222:distribution/E2EDGE"


def test_accounts_that_share_a_role_share_its_policy() -> None:
    file = load(HEAD + ZONES + TARGETS, "pipelines.yaml", Pipelines[AnyTarget])
    (edge,), (too,) = needed(file, "edge", HOME), needed(file, "edge-too", HOME)
    assert (edge.trust, edge.policies) == (too.trust, too.policies)
    sids = {statement["Sid"] for policy in edge.policies for statement in policy["Statement"]}
    assert {"CloudfrontAttach", "SecretsmanagerPut", "WriteChallengesOnly"} <= sids
    assert edge.trust
    (statement,) = edge.trust["Statement"]
    assert statement["Condition"] == {"StringEquals": {"sts:ExternalId": ["abc", "def"]}}


def test_records_in_the_zones_of_the_file_only() -> None:
    roles = policies(HEAD + ZONES + TARGETS)
    names = "route53:ChangeResourceRecordSetsNormalizedRecordNames"

    def written(role: str) -> tuple[Any, Any]:
        statement = roles[role]["WriteChallengesOnly"]
        return statement["Condition"]["ForAllValues:StringLike"][names], statement["Resource"]

    # Which zone a name without an entry is in, only AWS knows.
    assert written("IssuerWorkerRole") == ("_acme-challenge.*", "arn:aws:route53:::hostedzone/*")
    assert written("edge") == (
        "_acme-challenge.shop.example.org",
        "arn:aws:route53:::hostedzone/Z0456",
    )
    assert "FindZones" not in roles["edge"]
    # No name of the file is in acme.example.net: CNAMEs lead there.
    assert written("dns") == (
        [
            "*.acme.example.net",
            "_acme-challenge.*.example.com",
            "_acme-challenge.example.com",
            "acme.example.net",
        ],
        "arn:aws-us-gov:route53:::hostedzone/*",
    )


def test_alarms_are_looked_at_where_they_are() -> None:
    alarm = "arn:aws:cloudwatch:{}:{}:alarm:errors".format
    text = TARGETS + (
        f"    waves: [{{name: first, alarms: [errors, '{alarm('eu-west-1', '222222222222')}']}}]\n"
    )
    roles = policies(HEAD + text)
    assert "Condition" not in roles["WatcherRole"]["SeeAlarms"]
    assert roles["edge"]["SeeAlarms"]["Condition"] == {
        "StringEquals": {"aws:RequestedRegion": "eu-west-1"}
    }
    assert "SeeAlarms" not in roles["dns"]


def test_the_watcher_asks_the_fleets_of_its_account() -> None:
    fleet = "      - {type: fleet, name: web, instances: {a: b}, secret: tls/shop%s}\n"
    assert "WatcherRole" not in policies(HEAD + TARGETS + fleet % ", account: edge-too")
    here = "      - {type: secretsmanager, name: tls/shop}\n" + fleet % ""
    asked = policies(HEAD + TARGETS + here)["WatcherRole"]["AskInstances"]
    assert asked["Condition"] == {"StringEquals": {"aws:RequestedRegion": "eu-central-1"}}


def test_a_selection_may_find_any_of_its_kind_where_it_looks() -> None:
    text = TARGETS + (
        "      - {type: listener, covers: true, accounts: [self, edge], regions: [eu-west-1]}\n"
        "      - {type: secretsmanager, select: '[?Name]', accounts: edge, regions: [eu-west-2]}\n"
    )
    roles = policies(HEAD + text)
    listeners = "arn:aws:elasticloadbalancing:eu-west-1:{}:listener/app/*".format
    for role, sid, number in [
        ("ListenerDeployerRole", "Attach", HOME.account),
        ("edge", "ListenerAttach", "222222222222"),
    ]:
        assert listeners(number) in roles[role][sid]["Resource"]
    assert "ListSecrets" not in roles["FinderRole"]
    edge = roles["edge"]
    for sid, region in [("ListListeners", "eu-west-1"), ("ListSecrets", "eu-west-2")]:
        assert edge[sid]["Condition"] == {"StringEquals": {"aws:RequestedRegion": region}}
    assert edge["SecretsmanagerPut"]["Resource"] == [
        "arn:aws:secretsmanager:eu-central-1:222222222222:secret:tls/shop-??????",
        "arn:aws:secretsmanager:eu-central-1:222222222222:secret:tls/shop",
        "arn:aws:secretsmanager:eu-west-2:222222222222:secret:*",
    ]
    # Their imports are in the listeners' region.
    assert "arn:aws:acm:eu-west-1:222222222222:certificate/*" in edge["AcmImportNew"]["Resource"]
    assert "dns" not in roles or "ListListeners" not in roles["dns"]


def test_who_writes_no_records_needs_no_right_to() -> None:
    text = HEAD.replace("issuer: ca", "issuer: persist") + TARGETS
    assert "IssuerWorkerRole" not in policies(text)


def test_what_it_prints(certrail: Certrail, file: Path) -> None:
    file.write_text(HEAD + ZONES + TARGETS)
    (printed,) = certrail("iam", "edge", "--json").json()
    file_says = load(file.read_text(), "pipelines.yaml", Pipelines[AnyTarget])
    (role,) = needed(file_says, "edge", HOME)
    assert printed == json.loads(json.dumps(role.as_json()))
    read = certrail("iam", "edge").out
    for document in [role.trust, *role.policies]:
        assert json.dumps(document, indent=2) in read
    everything = certrail("iam", "--json").json()
    assert [each["account"] for each in everything] == [None, None, None, "edge", "edge-too", "dns"]


def test_who_may_assume_the_role(certrail: Certrail, file: Path) -> None:
    file.write_text(HEAD + TARGETS)
    roles = [f"arn:aws:iam::123456789012:role/certrail-{name}" for name in "ab"]
    (printed,) = certrail("iam", "edge", "--json", "--trust", ",".join(roles)).json()
    (statement,) = printed["trust"]["Statement"]
    assert statement["Principal"] == {"AWS": "arn:aws:iam::123456789012:root"}
    assert statement["Condition"]["ArnLike"] == {"aws:PrincipalArn": roles}
    (dns,) = certrail("iam", "dns", "--json").json()
    assert "Condition" not in dns["trust"]["Statement"][0]
    assert dns["policies"] == []
    assert "Nothing in the file acts there." in certrail("iam", "dns").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody"], "there is no account `nobody`. There is edge, edge-too, dns"),
        (["--template"], "a template is of one account"),
        (["edge", "--trust", "certrail-AcmDeployerRole"], "is no ARN"),
        (["edge", "--bucket", ""], "no bucket given"),
    ],
)
def test_bad_input(certrail: Certrail, file: Path, arguments: list[str], said: str) -> None:
    file.write_text(HEAD + TARGETS)
    result = certrail("iam", *arguments)
    assert result.code == 2
    assert said in result.err


# Length


def test_more_than_a_policy_holds_is_divided() -> None:
    listeners = "".join(
        "      - {type: listener, account: edge, listener: 'arn:aws:elasticloadbalancing:"
        f"eu-central-1:222222222222:listener/app/web/{number:016x}/{number:016x}'}}\n"
        for number in range(120)
    )
    file = load(HEAD + TARGETS + listeners, "pipelines.yaml", Pipelines[AnyTarget])
    (role,) = needed(file, "edge", HOME)
    assert len(role.policies) > 1
    assert all(length(policy) <= POLICY_LIMIT for policy in role.policies)
    many = "".join(listeners.replace("/web/", f"/web{number}/") for number in range(5))
    file = load(HEAD + TARGETS + many, "pipelines.yaml", Pipelines[AnyTarget])
    with pytest.raises(BadInput, match=r"the role would need \d+ policies, and IAM attaches 10"):
        needed(file, "edge", HOME)


def length(policy: Mapping[str, Any]) -> int:
    """As IAM counts it: without white space."""
    return len(re.sub(r"\s", "", json.dumps(policy, indent=1)))


arns = st.text("abc/:*", min_size=1, max_size=300)
grants = st.builds(
    Grant,
    sid=st.from_regex(r"[a-z]{1,20}", fullmatch=True),
    actions=st.lists(st.sampled_from("abcd"), min_size=1, unique=True).map(tuple),
    resources=st.lists(arns, min_size=1, max_size=60, unique=True).map(tuple),
)
regional = st.builds(
    Grant,
    sid=st.from_regex(r"[a-z]{1,20}", fullmatch=True),
    actions=st.lists(st.sampled_from("abcd"), min_size=1, unique=True).map(tuple),
    regions=st.lists(st.sampled_from(["eu", "us", "*"]), min_size=1, unique=True).map(tuple),
)


@given(st.lists(grants, max_size=8, unique_by=lambda each: each.sid))
def test_divided_they_say_the_same(whole: list[Grant]) -> None:
    try:
        found = divided(whole)
    except BadInput:
        assert sum(length(each.statement()) for each in whole) > POLICY_LIMIT
        return
    assert all(length(policy) <= POLICY_LIMIT for policy in found)
    for policy in found:
        sids = [statement["Sid"] for statement in policy["Statement"]]
        assert len(set(sids)) == len(sids)
        assert all(re.fullmatch("[A-Za-z0-9]+", sid) for sid in sids)
    parts = [statement for policy in found for statement in policy["Statement"]]
    assert sorted(allowed(parts)) == sorted(allowed([each.statement() for each in whole]))


@given(st.lists(grants | regional, max_size=6, unique_by=lambda each: each.sid))
def test_without_repeats_they_say_the_same_once(whole: list[Grant]) -> None:
    left = list(without_repeats(whole))
    once = allowed([each.statement() for each in left])
    assert len(set(once)) == len(once)
    assert len({each.sid for each in left}) == len(left)
    for asked in [*allowed([each.statement() for each in whole]), *once]:
        action, resource, _ = asked
        assert asked in once or (action, resource, "") in once
    assert set(once) <= set(allowed([each.statement() for each in whole]))


def allowed(statements: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Action, resource and region, which is empty for any."""

    def listed(value: Any) -> list[str]:
        return value if isinstance(value, list) else [value]

    found = []
    for statement in statements:
        tests = statement.get("Condition", {}).get("StringEquals", {})
        found += [
            (action, resource, region)
            for action in listed(statement["Action"])
            for resource in listed(statement["Resource"])
            for region in listed(tests.get("aws:RequestedRegion", ""))
        ]
    return found
