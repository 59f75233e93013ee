"""Selections on the command line: what plan shows, apply writes, status tells, and orphans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from moto.acm.models import acm_backends

from certrail.records import Found
from certrail.store import Store, found_key
from deployers import inventory
from sandbox import Sandbox, resources
from tests.cli.conftest import BUCKET, Certrail

WEB = (
    "arn:aws:elasticloadbalancing:eu-central-1:123456789012:"
    "listener/app/web/aaaaaaaaaaaaaaaa/000000000000000{}"
)
ADDRESS = "listener/app/web/aaaaaaaaaaaaaaaa/000000000000000{}"
FILE = """\
issuers:
  sandbox: {directory: DIRECTORY}
defaults: {region: eu-central-1}
pipelines:
  - name: shop
    domains: [shop.example.com, "*.shop.example.com"]
    targets:
      - {type: listener, covers: true}
  - name: fleet
    domains: [mail.example.org]
    targets:
      - {type: secretsmanager, select: "[?Tags.tls == 'fleet']"}
"""


class Estate:
    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.at: Any = {"session": sandbox.session(), "endpoint": sandbox.endpoint}

    def client(self, service: Any, region: str = "eu-central-1") -> Any:
        return self.sandbox.session().client(
            service, endpoint_url=self.sandbox.endpoint, region_name=region
        )

    def listener(self, number: int, *names: str) -> None:
        resources.listener(WEB.format(number), names=names, **self.at)


@pytest.fixture
def estate(file: Path, sandbox: Sandbox) -> Estate:
    file.write_text(FILE.replace("DIRECTORY", sandbox.directory))
    return Estate(sandbox)


def test_validate_counts_them(certrail: Certrail, file: Path, estate: Estate) -> None:
    said = f"{file}: 2 pipelines, 0 targets, 2 selections, no faults\n"
    assert certrail("validate").out == said


def test_plan_shows_what_each_finds_and_writes_nothing(
    certrail: Certrail, store: Store, estate: Estate
) -> None:
    estate.listener(1, "a.shop.example.com")
    estate.listener(2, "www.example.com")
    mark = estate.sandbox.server.calls.mark()
    result = certrail("plan", "shop", "--check")
    assert estate.sandbox.server.calls.writes(since=mark) == []
    assert result.code == 3
    lines = [line.strip() for line in result.out.splitlines()]
    assert "selection listener `covers`: finds 1, 1 new" in lines
    assert f"+  {ADDRESS.format(1)}  new" in lines
    (shop,) = certrail("plan", "shop", "--json").json()
    assert [each["target"] for each in shop["targets"]] == [
        "acm/eu-central-1",
        ADDRESS.format(1),
    ]
    assert shop["selections"] == [
        {
            "selection": "listener `covers`",
            "finds": [ADDRESS.format(1)],
            "new": [ADDRESS.format(1)],
            "gone": {},
            "left": {},
            "errors": [],
        }
    ]


def test_apply_writes_what_it_finds_and_deploys_it(
    certrail: Certrail, store: Store, estate: Estate
) -> None:
    estate.listener(1, "a.shop.example.com")
    assert certrail("apply", "shop").code == 0
    seen = store.read(found_key("shop"), Found)
    assert seen
    (selected,) = seen.value.selections
    assert [job["listener"] for job in selected.targets] == [WEB.format(1)]
    certrail("push")
    (shop,) = certrail("status", "shop", "--json").json()
    assert {each["target"]: each["state"] for each in shop["targets"]} == {
        "acm/eu-central-1": "deployed",
        ADDRESS.format(1): "served",
    }
    again = certrail("plan", "shop", "--check")
    assert (again.code, "nothing would change" in again.out) == (0, True)


def test_one_that_is_gone_and_one_that_explodes(
    certrail: Certrail, store: Store, estate: Estate
) -> None:
    estate.listener(1, "a.shop.example.com")
    certrail("apply", "shop")
    elb = estate.client("elbv2")
    elb.add_tags(ResourceArns=[WEB.format(1)], Tags=[{"Key": "certrail:ignore", "Value": "true"}])
    estate.listener(2, "b.shop.example.com")
    result = certrail("plan", "shop")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert (
        f"- {ADDRESS.format(1)} has the tag certrail:ignore; not touched, its certificate expires"
    ) in lines
    assert f"+ {ADDRESS.format(2)} new" in lines
    for number in range(3, 9):
        estate.listener(number, f"n{number}.shop.example.com")
    exploded = certrail("plan", "shop")
    assert exploded.code == 1
    assert "it finds 7 where 1 were found before, and 5 would be the most" in exploded.out
    assert "set `limit: 7`" in exploded.out
    applied = certrail("apply", "shop")
    assert applied.code == 1
    certrail("push")
    told = certrail("status", "shop")
    assert told.code == 1
    assert "selection listener `covers`: 1 found; listener `covers`: it finds 7" in told.out


def test_status_says_what_is_found_no_more(certrail: Certrail, estate: Estate) -> None:
    estate.listener(1, "a.shop.example.com")
    certrail("apply", "shop")
    estate.client("elbv2").add_tags(
        ResourceArns=[WEB.format(1)], Tags=[{"Key": "certrail:ignore", "Value": "true"}]
    )
    certrail("apply", "shop")
    certrail("push")
    told = certrail("status", "shop").out
    assert "selection listener `covers`: 0 found, no more since " in told
    assert f"UTC: {ADDRESS.format(1)}\n" in told


def test_status_says_where_nobody_has_looked(certrail: Certrail, estate: Estate) -> None:
    certrail("push")
    assert "selection listener `covers`: nobody has looked yet" in certrail("status", "shop").out


def test_a_found_object_that_cannot_be_read(
    certrail: Certrail, store: Store, estate: Estate
) -> None:
    estate.client("s3").put_object(Bucket=BUCKET, Key=found_key("shop"), Body=b"{")
    result = certrail("plan")
    assert result.code == 1
    assert f"s3://{BUCKET}/{found_key('shop')}: not a valid document" in result.out


class TestOrphans:
    def test_what_no_pipeline_reaches(self, certrail: Certrail, estate: Estate) -> None:
        estate.listener(1, "a.shop.example.com")
        estate.listener(2, "www.example.com", "example.com", "api.example.com", "x.example.com")
        resources.distribution("E1", ["mail.example.org"], **estate.at)
        resources.distribution("E2", [], **estate.at)
        result = certrail("orphans", "--check")
        assert result.code == 3
        rows = [" ".join(line.split()) for line in result.out.splitlines()]
        # In every sandbox there is the distribution that FILE of conftest names.
        assert any(
            row.startswith("cloudfront/E1 self, us-east-1 mail.example.org until ")
            and row.endswith("covered by fleet")
            for row in rows
        )
        (listener,) = [row for row in rows if row.startswith("listener/")]
        assert listener.startswith(
            f"{ADDRESS.format(2)} self, eu-central-1 www.example.com, example.com, "
            "api.example.com and 1 more until "
        )
        assert "cloudfront/E2" not in result.out
        assert rows[-1] == "3 endpoints are not reached by a pipeline"

    def test_domain_names_of_api_gateway(
        self, certrail: Certrail, file: Path, estate: Estate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many pages there are, and wherever the certificate is."""
        monkeypatch.setattr(inventory, "DOMAINS", 1)
        named = "named.example.com"
        for name in ("api.shop.example.com", named):
            resources.domain_name(name, region="eu-central-1", **estate.at)
        resources.domain_name("edge.example.net", region="eu-central-1", edge=True, **estate.at)
        estate.client("apigateway").create_domain_name(
            domainName="left.example.net",
            endpointConfiguration={"types": ["REGIONAL"]},
            regionalCertificateArn=resources.imported_certificate(
                ["left.example.net"], region="eu-central-1"
            ),
            tags={"certrail:ignore": "true"},
        )
        listed = "      - {type: listener, covers: true}\n"
        target = f"      - {{type: apigateway, domain_name: {named}}}\n"
        file.write_text(
            file.read_text()
            .replace(listed, listed + target)
            .replace('"*.shop.example.com"]', '"*.shop.example.com", named.example.com]')
        )
        result = certrail("orphans", "--check", "--json")
        assert result.code == 3
        assert result.json()["errors"] == []
        found = {
            each["endpoint"].partition("/")[2]: each
            for each in result.json()["orphans"]
            if each["endpoint"].startswith("apigateway/")
        }
        assert {name: (each["pipelines"], each["ignored"]) for name, each in found.items()} == {
            "eu-central-1/api.shop.example.com": (["shop"], False),
            "eu-central-1/edge.example.net": ([], False),
            "eu-central-1/left.example.net": ([], True),
        }
        assert all(
            each["not_after"] and each["region"] == "eu-central-1" for each in found.values()
        )

    def test_as_json(self, certrail: Certrail, estate: Estate) -> None:
        estate.listener(2, "www.example.com")
        found = certrail("orphans", "--json").json()
        assert found["errors"] == []
        (listener,) = [each for each in found["orphans"] if each["region"] == "eu-central-1"]
        assert listener["not_after"]
        assert listener | {"not_after": None} == {
            "endpoint": ADDRESS.format(2),
            "account": None,
            "region": "eu-central-1",
            "names": ["www.example.com"],
            "not_after": None,
            "renewed_by_acm": False,
            "pipelines": [],
            "ignored": False,
        }

    def test_what_is_named_or_ignored_is_none(
        self, certrail: Certrail, file: Path, estate: Estate
    ) -> None:
        estate.listener(1, "www.example.com")
        file.write_text(
            file.read_text().replace(
                "{type: listener, covers: true}", f"{{type: listener, listener: '{WEB.format(1)}'}}"
            )
        )
        estate.client("cloudfront").tag_resource(
            Resource="arn:aws:cloudfront::123456789012:distribution/E1SHOPEXAMPLE1",
            Tags={"Items": [{"Key": "certrail:ignore", "Value": "true"}]},
        )
        result = certrail("orphans", "--check")
        assert (result.code, result.out) == (
            0,
            "every endpoint is reached by a pipeline; 1 passed over by its tag\n",
        )

    def test_one_that_acm_renews(self, certrail: Certrail, estate: Estate) -> None:
        estate.listener(1, "www.example.com")
        acm = estate.client("acm")
        arn = acm.request_certificate(DomainName="www.example.com", ValidationMethod="DNS")[
            "CertificateArn"
        ]
        # Else it takes a minute.
        acm_backends["123456789012"]["eu-central-1"]._certificates[arn].status = "ISSUED"
        estate.client("elbv2").modify_listener(
            ListenerArn=WEB.format(1), Certificates=[{"CertificateArn": arn}]
        )
        assert "renewed by ACM" in certrail("orphans").out

    def test_where_it_may_not_look(self, certrail: Certrail, estate: Estate) -> None:
        with estate.sandbox.server.refuse("elasticloadbalancing:*", "AccessDenied"):
            result = certrail("orphans")
        assert result.code == 1
        assert "elasticloadbalancing:DescribeLoadBalancers" in result.out
        assert "not everything could be looked at" in result.out
        assert "every endpoint is reached" not in result.out
