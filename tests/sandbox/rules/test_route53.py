"""Route 53 refuses what AWS refuses; beside each refusal, the legal variant that passes."""

from typing import Any

import pytest

from sandbox import resources
from sandbox.rules import route53 as rules
from tests.sandbox.rules.conftest import Cloud, refused

CHALLENGE = "_acme-challenge.example.com"


@pytest.fixture
def zone(cloud: Cloud) -> str:
    return resources.hosted_zone("example.com", **cloud.at)


def txt(*values: str, name: str = CHALLENGE, ttl: int = 60, **more: Any) -> Any:
    return {
        "Name": name,
        "Type": "TXT",
        "TTL": ttl,
        "ResourceRecords": [{"Value": value} for value in values],
        **more,
    }


def token(value: str, identifier: str) -> Any:
    return txt(f'"{value}"', MultiValueAnswer=True, SetIdentifier=identifier)


def change(cloud: Cloud, zone: str, *changes: tuple[str, Any]) -> Any:
    batch: Any = {
        "Changes": [{"Action": action, "ResourceRecordSet": record} for action, record in changes]
    }
    return cloud.route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)[
        "ChangeInfo"
    ]


def records(cloud: Cloud, zone: str, *types: str, size: int = 300) -> list[Any]:
    pages = cloud.route53.get_paginator("list_resource_record_sets").paginate(
        HostedZoneId=zone, PaginationConfig={"PageSize": size}
    )
    rows = [row for page in pages for row in page["ResourceRecordSets"]]
    return [row for row in rows if row["Type"] in (types or ("TXT",))]


class TestTxt:
    @pytest.mark.parametrize(
        "value", ["token", '"token', 'token"', "'token'", '"a" b', '"a"b"'], ids=repr
    )
    def test_unquoted(self, cloud: Cloud, zone: str, value: str) -> None:
        with refused("InvalidChangeBatch", "quotation marks", status=400):
            change(cloud, zone, ("CREATE", txt(value)))

    @pytest.mark.parametrize("value", ['"token"', '"a" "b"', '"say \\"hi\\""', '""'], ids=repr)
    def test_quoted(self, cloud: Cloud, zone: str, value: str) -> None:
        change(cloud, zone, ("CREATE", txt(value)))
        assert records(cloud, zone)[0]["ResourceRecords"] == [{"Value": value}]

    def test_at_most_255_characters_each(self, cloud: Cloud, zone: str) -> None:
        with refused("InvalidChangeBatch", "CharacterStringTooLong"):
            change(cloud, zone, ("CREATE", txt(f'"{"x" * 256}"')))
        change(cloud, zone, ("CREATE", txt(f'"{"x" * 255}" "{"y" * 255}"')))

    def test_a_value_twice(self, cloud: Cloud, zone: str) -> None:
        with refused("InvalidChangeBatch", "Duplicate"):
            change(cloud, zone, ("CREATE", txt('"a"', '"a"')))
        change(cloud, zone, ("CREATE", txt('"a"', '"b"')))


class TestBatch:
    def test_all_or_nothing(self, cloud: Cloud, zone: str) -> None:
        with refused("InvalidChangeBatch"):
            change(
                cloud,
                zone,
                ("CREATE", txt('"a"', name="a.example.com")),
                ("CREATE", txt('"b"', name="b.example.org")),
            )
        assert records(cloud, zone) == []

    def test_create_what_is_there(self, cloud: Cloud, zone: str) -> None:
        change(cloud, zone, ("CREATE", txt('"a"')))
        with refused("InvalidChangeBatch", "it already exists"):
            change(cloud, zone, ("CREATE", txt('"b"')))
        change(cloud, zone, ("UPSERT", txt('"b"')))
        change(cloud, zone, ("DELETE", txt('"b"')), ("CREATE", txt('"c"')))
        assert records(cloud, zone)[0]["ResourceRecords"] == [{"Value": '"c"'}]

    @pytest.mark.parametrize(
        "other", [txt('"b"'), txt('"a"', ttl=61), txt('"a"', '"b"')], ids=["value", "TTL", "more"]
    )
    def test_delete_must_say_what_is_there(self, cloud: Cloud, zone: str, other: Any) -> None:
        change(cloud, zone, ("CREATE", txt('"a"')))
        with refused("InvalidChangeBatch", "do not match the current values"):
            change(cloud, zone, ("DELETE", other))
        change(cloud, zone, ("DELETE", txt('"a"')))
        with refused("InvalidChangeBatch", "but it was not found"):
            change(cloud, zone, ("DELETE", txt('"a"')))

    def test_at_most_1000_changes(self, cloud: Cloud, zone: str) -> None:
        rows = [("CREATE", txt('"a"', name=f"n{number}.example.com")) for number in range(1001)]
        with refused("InvalidChangeBatch", "1000"):
            change(cloud, zone, *rows)
        change(cloud, zone, *rows[:1000])
        assert len(records(cloud, zone)) == 1000

    def test_an_unknown_zone(self, cloud: Cloud) -> None:
        with refused("NoSuchHostedZone"):
            change(cloud, "ZNOWHERE", ("CREATE", txt('"a"')))

    def test_without_values(self, cloud: Cloud, zone: str) -> None:
        with refused("InvalidInput"):
            change(cloud, zone, ("CREATE", {"Name": CHALLENGE, "Type": "TXT"}))


class TestNames:
    def test_a_zone_ends_at_a_dot(self, cloud: Cloud, zone: str) -> None:
        for name in ("badexample.com", "_acme-challenge.badexample.com", "example.org", "com"):
            with refused("InvalidChangeBatch", "is not permitted in zone example.com."):
                change(cloud, zone, ("CREATE", txt('"a"', name=name)))
        change(cloud, zone, ("CREATE", txt('"a"', name="EXAMPLE.com.")))
        change(cloud, zone, ("CREATE", txt('"a"', name="a.Example.com")))

    def test_a_cname_is_alone(self, cloud: Cloud, zone: str) -> None:
        cname = {
            "Name": CHALLENGE,
            "Type": "CNAME",
            "TTL": 60,
            "ResourceRecords": [{"Value": "elsewhere.example.net."}],
        }
        change(cloud, zone, ("CREATE", cname))
        with refused("InvalidChangeBatch", "conflicting RRSet of type CNAME"):
            change(cloud, zone, ("CREATE", txt('"a"')))
        with refused("InvalidChangeBatch", "conflicting RRSet"):
            change(cloud, zone, ("CREATE", {**cname, "Name": "example.com"}))
        change(cloud, zone, ("DELETE", cname), ("CREATE", txt('"a"')))


class TestMultivalue:
    def test_needs_an_identifier(self, cloud: Cloud, zone: str) -> None:
        with refused("InvalidInput", "SetIdentifier"):
            change(cloud, zone, ("CREATE", txt('"a"', MultiValueAnswer=True)))
        with refused("InvalidInput", "MultiValueAnswer"):
            change(cloud, zone, ("CREATE", txt('"a"', SetIdentifier="one")))

    def test_writers_do_not_meet(self, cloud: Cloud, zone: str) -> None:
        change(cloud, zone, ("UPSERT", token("a", "one")))
        change(cloud, zone, ("UPSERT", token("b", "two")))
        change(cloud, zone, ("DELETE", token("a", "one")))
        assert [row["SetIdentifier"] for row in records(cloud, zone)] == ["two"]

    def test_the_same_identifier_elsewhere_is_another_record(self, cloud: Cloud, zone: str) -> None:
        other = {**token("a", "one"), "Name": "other.example.com"}
        change(cloud, zone, ("CREATE", token("a", "one")), ("CREATE", other))
        change(cloud, zone, ("DELETE", token("a", "one")))
        assert [row["Name"] for row in records(cloud, zone)] == ["other.example.com."]

    def test_never_beside_a_simple_one(self, cloud: Cloud, zone: str) -> None:
        change(cloud, zone, ("CREATE", txt('"a"')))
        with refused("InvalidChangeBatch", "other RRSets exist with the same name and type"):
            change(cloud, zone, ("CREATE", token("b", "one")))
        change(cloud, zone, ("DELETE", txt('"a"')), ("CREATE", token("b", "one")))
        with refused("InvalidChangeBatch", "other RRSets exist with the same name and type"):
            change(cloud, zone, ("UPSERT", txt('"a"')))

    def test_pages_keep_a_group_whole(self, cloud: Cloud, zone: str) -> None:
        identifiers = [f"id-{number}" for number in range(5)]
        change(cloud, zone, *[("CREATE", token(each, each)) for each in identifiers])
        rows = records(cloud, zone, size=2)
        assert [row["SetIdentifier"] for row in rows] == identifiers


class TestChange:
    def test_pending_then_in_sync(self, cloud: Cloud, zone: str) -> None:
        made = change(cloud, zone, ("CREATE", txt('"a"')))
        assert made["Status"] == "PENDING"
        polled = [cloud.route53.get_change(Id=made["Id"])["ChangeInfo"] for _ in range(3)]
        assert [each["Status"] for each in polled] == ["PENDING", "INSYNC", "INSYNC"]
        assert {each["Id"] for each in polled} == {made["Id"]}

    def test_as_many_polls_as_asked(
        self, cloud: Cloud, zone: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rules.propagation, "polls", 0)
        made = change(cloud, zone, ("CREATE", txt('"a"')))
        assert cloud.route53.get_change(Id=made["Id"])["ChangeInfo"]["Status"] == "INSYNC"

    def test_an_unknown_change(self, cloud: Cloud) -> None:
        with refused("NoSuchChange", status=404):
            cloud.route53.get_change(Id="CNOTHING")

    def test_a_new_zone_is_a_change_too(self, cloud: Cloud) -> None:
        made = cloud.route53.create_hosted_zone(Name="example.net", CallerReference="1")
        assert cloud.route53.get_change(Id=made["ChangeInfo"]["Id"])["ChangeInfo"]["Id"]


class TestZones:
    def test_pages(self, cloud: Cloud) -> None:
        ids = [resources.hosted_zone(f"n{number}.example.com", **cloud.at) for number in range(5)]
        first = cloud.route53.list_hosted_zones(MaxItems="2")
        assert first["IsTruncated"] is True
        assert len(first["HostedZones"]) == 2
        pages = cloud.route53.get_paginator("list_hosted_zones").paginate(
            PaginationConfig={"PageSize": 2}
        )
        rows = [row for page in pages for row in page["HostedZones"]]
        assert [row["Id"] for row in rows] == [f"/hostedzone/{each}" for each in ids]

    def test_a_private_one_says_so(self, cloud: Cloud) -> None:
        resources.hosted_zone("example.com", private=True, **cloud.at)
        resources.hosted_zone("example.com", **cloud.at)
        rows = cloud.route53.list_hosted_zones()["HostedZones"]
        assert [row["Config"]["PrivateZone"] for row in rows] == [True, False]

    def test_an_id_begins_with_z(self, cloud: Cloud) -> None:
        zone = resources.hosted_zone("example.com", **cloud.at)
        assert zone.startswith("Z")
        assert cloud.route53.get_hosted_zone(Id=zone)["HostedZone"]["Id"] == f"/hostedzone/{zone}"
        cloud.route53.delete_hosted_zone(Id=zone)

    def test_the_apex_records_are_strings(self, cloud: Cloud, zone: str) -> None:
        soa, ns = records(cloud, zone, "SOA") + records(cloud, zone, "NS")
        (value,) = soa["ResourceRecords"]
        assert value["Value"].split()[2:] == ["1", "7200", "900", "1209600", "86400"]
        assert soa["Name"] == ns["Name"] == "example.com."
        assert len(ns["ResourceRecords"]) == 4
