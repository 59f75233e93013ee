"""The zone of a name, and records that are there while needed and gone afterwards."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.errors import AccessDenied, AwsError, DeadlinePassed, DnsError, FailedTogether
from certrail.nameservers import Server, parse_servers
from certrail.pipelines.zones import Route53Zone
from issuer.dns import challenge_name
from issuer.dns.authoritative import await_visible
from issuer.dns.route53 import Route53, Zone, zones_of
from sandbox.pebble import free_ports
from tests.issuer.conftest import hurried
from tests.issuer.dns.world import EXTERNAL_ID, OTHER_ACCOUNT, World, token, within

# What the documentation says that a role in another account needs, and no more.
PAGE = Path(__file__).parents[3] / "docs/pipelines.md"
(POLICY,) = re.findall(r"^```json\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.DOTALL)
LEAST: tuple[dict[str, Any], ...] = tuple(json.loads(POLICY)["Statement"])

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


def test_there_while_needed_and_gone_afterwards(world: World) -> None:
    tokens = [token(world.zone, "a"), token(f"*.{world.zone}", "b")]
    with world.dns().presenting(tokens, within(20)):
        assert world.texts() == [f"_acme-challenge.{world.zone}."] * 2
    assert world.texts() == []


def test_nothing_to_present(world: World) -> None:
    """All names are proved already."""
    with world.dns().presenting([], within(5)):
        assert world.texts() == []


def test_private_zones_are_ignored(world: World) -> None:
    world.hosted_zone(f"inner.{world.zone}", private=True)
    with world.dns().presenting([token(f"inner.{world.zone}", "a")], within(20)):
        assert world.texts() == [f"_acme-challenge.inner.{world.zone}."]
    assert world.texts() == []


def test_zones_beyond_the_first_page(world: World) -> None:
    for number in range(101):
        world.hosted_zone(f"n{number:03}.{world.zone}")
    names = [f"n{number:03}.{world.zone}" for number in (0, 50, 100)]
    with world.dns().presenting([token(name, "a") for name in names], within(20)):
        assert len(world.texts()) == 3
    assert world.texts() == []


def test_somebody_else_s_record_is_in_the_way(world: World) -> None:
    name = challenge_name(world.zone)
    world.record(name, "TXT", '"theirs"')
    with (
        pytest.raises(DnsError, match="Delete the TXT or CNAME record"),
        world.dns().presenting([token(world.zone)], within(20)),
    ):
        pass
    assert world.texts() == [f"{name}."]


def test_one_zone_of_two_refuses(world: World) -> None:
    """What was placed in the first is removed."""
    second = f"second-{world.zone}"
    world.hosted_zone(second)
    dns = world.dns()
    dns.locate([challenge_name(second)])
    world.drop_zone(second)
    with (
        pytest.raises(AwsError, match="NoSuchHostedZone"),
        dns.presenting([token(world.zone), token(second)], within(20)),
    ):
        pass
    assert world.texts() == []


def test_already_gone(world: World) -> None:
    tokens = [token(world.zone, "a"), token(world.zone, "b")]
    with world.dns().presenting(tokens, within(20)):
        world.dns().remove(tokens[:1])
        assert len(world.texts()) == 1
    assert world.texts() == []


def test_what_a_run_that_died_left_behind(world: World) -> None:
    """Also where its zone is no more: then there is no record."""
    left = token(world.zone, "left")
    Route53(world.aws).place([left], within(20), [])
    gone = [token(world.zone, "gone"), token("nowhere.test")]
    world.dns().remove([left, *gone])
    assert world.texts() == []


def test_what_cannot_be_removed_keeps_nothing_else(world: World) -> None:
    second = f"second-{world.zone}"
    world.hosted_zone(second)
    left = [token(world.zone), token(second)]
    Route53(world.aws).place(left, within(20), [])
    refused = world.sandbox.server.refuse(
        "route53:ChangeResourceRecordSets", "AccessDenied", "No.", times=1
    )
    with refused, pytest.raises(DnsError, match="could not be removed"):
        world.dns().remove(left)
    assert len(world.texts()) == 1


def test_a_failure_in_cleaning_up_comes_with_the_first_one(world: World) -> None:
    with (
        pytest.raises(FailedTogether) as caught,
        world.dns().presenting([token(world.zone)], within(20)),
    ):
        failing(world, DnsError("the first one"))
    first, second = caught.value.failures
    assert first.what == "the first one"
    assert f"_acme-challenge.{world.zone}" in second.next


def test_a_failure_in_cleaning_up_alone(world: World) -> None:
    with (
        pytest.raises(DnsError, match="could not be removed"),
        world.dns().presenting([token(world.zone)], within(20)),
    ):
        world.drop_zone(world.zone)


def test_a_failure_in_cleaning_up_after_an_interruption(world: World) -> None:
    with (
        pytest.raises(KeyboardInterrupt) as caught,
        world.dns().presenting([token(world.zone)], within(20)),
    ):
        failing(world, KeyboardInterrupt())
    assert "could not be removed" in caught.value.__notes__[0]


def test_records_that_never_appear(world: World) -> None:
    with (
        world.sandbox.nameserver.hide(f"_acme-challenge.{world.zone}"),
        pytest.raises(DnsError, match=r"127.0.0.1:\d+: .* 1 of ours missing"),
        world.dns().presenting([token(world.zone, "a")], hurried(timedelta(minutes=10))),
    ):
        pass
    assert world.texts() == []


def test_a_server_that_does_not_answer(world: World) -> None:
    """It is the run's time that is over, not the server's; what is told is the same."""
    silent = Server("127.0.0.1", free_ports(1)[0])
    with pytest.raises(DeadlinePassed, match="did not appear in time") as caught:
        await_visible({silent: [token(world.zone)]}, within(2))
    assert caught.value.retryable


def test_the_deadline_while_route_53_is_spreading(world: World) -> None:
    with (
        pytest.raises(DeadlinePassed, match="Route 53"),
        world.dns().presenting([token(world.zone, "a")], within(0.1)),
    ):
        pass
    assert world.texts() == []


def test_writers_for_one_name_do_not_hurt_each_other(world: World) -> None:
    together = threading.Barrier(4)

    def present(number: int) -> None:
        own = token(world.zone, str(number))
        with world.dns().presenting([own], within(30)):
            together.wait()
            assert len(world.texts()) == 4
            together.wait()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(present, range(4)))
    assert world.texts() == []


# Entries of `zones`


def test_a_zone_of_another_account(world: World) -> None:
    """With the permissions that the documentation asks for."""
    name, account = f"other-{world.zone}", world.role(OTHER_ACCOUNT, *LEAST)
    world.hosted_zone(name, OTHER_ACCOUNT)
    dns = world.dns(entry(name, account="dns"), accounts={"dns": account})
    dns.locate([challenge_name(name), challenge_name(world.zone)])
    with dns.presenting([token(name), token(world.zone)], within(20)):
        assert world.texts(name, OTHER_ACCOUNT) == [f"_acme-challenge.{name}."]
        assert f"_acme-challenge.{world.zone}." in world.texts()
    assert world.texts(name, OTHER_ACCOUNT) == []
    assert world.texts() == []


def test_one_session_and_one_list_for_all_zones_of_an_account(world: World) -> None:
    names = [f"{part}-{world.zone}" for part in "abc"]
    for name in names:
        world.hosted_zone(name, OTHER_ACCOUNT)
    dns = world.dns(
        *(entry(name, account="dns") for name in names),
        accounts={"dns": world.role(OTHER_ACCOUNT, *LEAST)},
    )
    dns.locate(map(challenge_name, names))
    with dns.presenting([token(name) for name in names], within(20)):
        pass
    made = [call.action for call in world.sandbox.server.calls.all()]
    assert made.count("sts:AssumeRole") == 1
    assert made.count("route53:ListHostedZones") == 1


@pytest.mark.parametrize("external_id", ["wrong", None])
def test_a_wrong_external_id(world: World, external_id: str | None) -> None:
    name = f"other-{world.zone}"
    world.hosted_zone(name, OTHER_ACCOUNT)
    account = world.role(OTHER_ACCOUNT, *LEAST)
    wrong = account.model_copy(update={"external_id": external_id})
    assert account.external_id == EXTERNAL_ID
    dns = world.dns(entry(name, account="dns"), accounts={"dns": wrong})
    with pytest.raises(DnsError, match=r"account `dns` .*`external_id` of `accounts\.dns`"):
        dns.locate([challenge_name(name)])


def test_a_role_that_may_not_write(world: World) -> None:
    name, account = f"other-{world.zone}", world.role(OTHER_ACCOUNT, LEAST[0])
    world.hosted_zone(name, OTHER_ACCOUNT)
    dns = world.dns(entry(name, account="dns"), accounts={"dns": account})
    dns.locate([challenge_name(name)])
    with (
        pytest.raises(AccessDenied, match="Allow route53:ChangeResourceRecordSets"),
        dns.presenting([token(name)], within(20)),
    ):
        pass


def test_a_zone_by_its_id(world: World) -> None:
    """Of two with one name, and without listing any."""
    chosen = world.hosted_zone(world.zone)
    dns = world.dns(entry(world.zone, zone_id=chosen))
    dns.locate([challenge_name(world.zone)])
    # The sandbox's name server shows the older one.
    with (
        pytest.raises(DeadlinePassed, match="did not appear in time"),
        dns.presenting([token(world.zone)], within(2)),
    ):
        pass
    made = [call for call in world.sandbox.server.calls.all() if call.access_key == "sandbox"]
    changed = [c.resource for c in made if c.action == "route53:ChangeResourceRecordSets"]
    assert changed == [f"arn:aws:route53:::hostedzone/{chosen}"] * 2
    assert "route53:ListHostedZones" not in [call.action for call in made]
    assert world.texts() == []


def test_the_servers_of_a_zone(world: World) -> None:
    listed, chosen = Route53(world.aws), Route53(world.aws, world.zone_id(world.zone))
    servers = listed.servers(challenge_name(world.zone))
    assert len(servers) == 4
    assert chosen.servers(challenge_name(world.zone)) == servers


def test_the_id_of_a_private_zone(world: World) -> None:
    private = world.hosted_zone(f"inner.{world.zone}", private=True)
    dns = world.dns(entry(world.zone, zone_id=private))
    with pytest.raises(DnsError, match="is private"):
        dns.locate([challenge_name(f"inner.{world.zone}")])


def test_the_id_of_another_zone(world: World) -> None:
    other = world.hosted_zone(f"other-{world.zone}")
    dns = world.dns(entry(world.zone, zone_id=other))
    with pytest.raises(DnsError, match=f"no public hosted zone for {world.zone}"):
        dns.locate([challenge_name(world.zone)])


def failing(world: World, error: BaseException) -> None:
    world.drop_zone(world.zone)
    raise error


def entry(zone: str, **more: str) -> Route53Zone:
    return Route53Zone.model_validate({"provider": "route53", "zone": zone} | more)
