"""The zone of a name, and records that are there while needed and gone afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.aws import Aws
from certrail.errors import DeadlinePassed, DnsError, FailedTogether
from issuer.dns import Token, challenge_name
from issuer.dns.authoritative import Server, parse_servers
from issuer.dns.route53 import Route53, Zone, zones_of
from sandbox import Sandbox
from sandbox.pebble import free_ports
from tests.issuer.conftest import World, make_zone, within

labels = st.lists(st.sampled_from(["a", "b", "aa", "shop", "example"]), min_size=1, max_size=5)
names = labels.map(".".join)


def zone(name: str) -> Zone:
    return Zone(name, f"Z-{name}")


@given(names, st.sets(names, min_size=1))
def test_the_longest_suffix_of_whole_labels(name: str, zones: set[str]) -> None:
    parts = name.split(".")
    suffixes = [".".join(parts[start:]) for start in range(len(parts))]
    expected = next((suffix for suffix in suffixes if suffix in zones), None)
    if expected is None:
        with pytest.raises(DnsError):
            zones_of(name, map(zone, zones))
    else:
        assert zones_of(name, map(zone, zones)) == (zone(expected),)


def test_no_zone_names_the_name_and_the_zones() -> None:
    with pytest.raises(DnsError, match=r"for shop\.example; .*: a\.example, b\.example"):
        zones_of("_acme-challenge.shop.example", [zone("b.example"), zone("a.example")])


def test_a_zone_of_the_challenge_alone() -> None:
    own = zone("_acme-challenge.shop.example")
    assert zones_of("_acme-challenge.shop.example", [zone("shop.example"), own]) == (own,)


def test_two_zones_of_one_name() -> None:
    twins = (Zone("shop.example", "Z1"), Zone("shop.example", "Z2"))
    assert zones_of("_acme-challenge.shop.example", twins) == twins


def test_servers_as_written() -> None:
    assert parse_servers("127.0.0.1:5353, ns1.example.com,[::1]:54,::1") == (
        Server("127.0.0.1", 5353),
        Server("ns1.example.com"),
        Server("::1", 54),
        Server("::1"),
    )


def token(name: str, value: str) -> Token:
    return Token(challenge_name(name), value.ljust(43, "x"))


def test_there_while_needed_and_gone_afterwards(world: World) -> None:
    tokens = [token(world.zone, "a"), token(f"*.{world.zone}", "b")]
    with world.dns.presenting(tokens, within(20)):
        assert world.texts() == [f"_acme-challenge.{world.zone}."] * 2
    assert world.texts() == []


def test_private_zones_are_ignored(world: World) -> None:
    make_zone(world.aws, f"inner.{world.zone}", private=True)
    with world.dns.presenting([token(f"inner.{world.zone}", "a")], within(20)):
        assert world.texts() == [f"_acme-challenge.inner.{world.zone}."]
    assert world.texts() == []


def test_zones_beyond_the_first_page(world: World) -> None:
    for number in range(101):
        make_zone(world.aws, f"n{number:03}.{world.zone}")
    names = [f"n{number:03}.{world.zone}" for number in (0, 50, 100)]
    with world.dns.presenting([token(name, "a") for name in names], within(20)):
        assert len(world.texts()) == 3
    assert world.texts() == []


def test_somebody_else_s_record_is_in_the_way(world: World) -> None:
    name = f"_acme-challenge.{world.zone}"
    zone_id = next(z.id for z in world.dns._zones if z.name == world.zone)
    world.aws.route53().change_resource_record_sets(
        HostedZoneId=zone_id,
        ChangeBatch={
            "Changes": [
                {
                    "Action": "CREATE",
                    "ResourceRecordSet": {
                        "Name": name,
                        "Type": "TXT",
                        "TTL": 60,
                        "ResourceRecords": [{"Value": '"theirs"'}],
                    },
                }
            ]
        },
    )
    with (
        pytest.raises(DnsError, match="Delete the TXT or CNAME record"),
        world.dns.presenting([token(world.zone, "a")], within(20)),
    ):
        pass
    assert world.texts() == [f"{name}."]


def test_one_zone_of_two_refuses(world: World) -> None:
    """What was placed in the first is removed."""
    second = f"second-{world.zone}"
    zone_id = make_zone(world.aws, second)
    dns = world.dns
    dns.locate([second])
    world.aws.route53().delete_hosted_zone(Id=zone_id)
    with (
        pytest.raises(Exception, match="NoSuchHostedZone"),
        dns.presenting([token(world.zone, "a"), token(second, "b")], within(20)),
    ):
        pass
    assert world.texts() == []


def test_already_gone(world: World) -> None:
    tokens = [token(world.zone, "a"), token(world.zone, "b")]
    dns = world.dns
    with dns.presenting(tokens, within(20)):
        dns._change(zones_of(world.zone, dns._zones)[0], "DELETE", tokens[:1])
    assert world.texts() == []


def test_a_failure_in_cleaning_up_comes_with_the_first_one(world: World) -> None:
    dns = world.dns
    with (
        pytest.raises(FailedTogether) as caught,
        dns.presenting([token(world.zone, "a")], within(20)),
    ):
        fail_without_zone(world.aws, dns, world.zone)
    first, second = caught.value.failures
    assert first.what == "the first one"
    assert f"_acme-challenge.{world.zone}" in second.next


def test_a_failure_in_cleaning_up_alone(world: World) -> None:
    dns = world.dns
    with (
        pytest.raises(DnsError, match="could not be removed"),
        dns.presenting([token(world.zone, "a")], within(20)),
    ):
        remove_zone(world.aws, dns, world.zone)


def test_records_that_never_appear(world: World, sandbox: Sandbox) -> None:
    with (
        sandbox.nameserver.hide(f"_acme-challenge.{world.zone}"),
        pytest.raises(DnsError, match=r"127.0.0.1:\d+: .* 1 of ours missing"),
        world.dns.presenting([token(world.zone, "a")], within(2)),
    ):
        pass
    assert world.texts() == []


def test_a_server_that_does_not_answer(world: World) -> None:
    silent = Server("127.0.0.1", free_ports(1)[0])
    with (
        pytest.raises(DnsError, match="did not appear in time"),
        Route53(world.aws, [silent]).presenting([token(world.zone, "a")], within(2)),
    ):
        pass
    assert world.texts() == []


def test_the_deadline_while_route_53_is_spreading(world: World) -> None:
    with (
        pytest.raises(DeadlinePassed, match="Route 53"),
        world.dns.presenting([token(world.zone, "a")], within(0.1)),
    ):
        pass
    assert world.texts() == []


def test_writers_for_one_name_do_not_hurt_each_other(world: World) -> None:
    together = threading.Barrier(4)

    def present(number: int) -> None:
        own = token(world.zone, str(number))
        with world.dns.presenting([own], within(30)):
            together.wait()
            assert len(world.texts()) == 4
            together.wait()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(present, range(4)))
    assert world.texts() == []


def fail_without_zone(aws: Aws, dns: Route53, name: str) -> None:
    remove_zone(aws, dns, name)
    raise DnsError("the first one")


def remove_zone(aws: Aws, dns: Route53, name: str) -> None:
    (zone,) = [zone for zone in dns._zones if zone.name == name]
    pages = aws.route53().get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone.id)
    own = [r for page in pages for r in page["ResourceRecordSets"] if r["Type"] == "TXT"]
    aws.route53().change_resource_record_sets(
        HostedZoneId=zone.id,
        ChangeBatch={"Changes": [{"Action": "DELETE", "ResourceRecordSet": r} for r in own]},
    )
    aws.route53().delete_hosted_zone(Id=zone.id)
