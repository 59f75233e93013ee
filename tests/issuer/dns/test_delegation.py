"""Challenge names that are CNAMEs: the records go to where they lead, and the CA finds them."""

from __future__ import annotations

import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import dns.message
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwk import JWKEC

from certrail.errors import DnsError, FailedTogether
from certrail.nameservers import Server
from certrail.pipelines.resolved import Issuer
from certrail.pipelines.zones import Rfc2136Zone, Route53Zone
from issuer.acme import Client
from issuer.dns import Token, challenge_name
from issuer.dns.delegation import follow
from issuer.dns.route53 import Route53
from sandbox.pebble import free_ports
from tests.issuer.dns.bind import WRITER, Bind
from tests.issuer.dns.world import OTHER_ACCOUNT, World, token, within


def delegate(world: World, name: str, target: str) -> None:
    world.record(name, "CNAME", target)


def test_a_chain_into_another_zone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    zone = f"acme-{world.zone}"
    world.hosted_zone(zone)
    own = challenge_name(world.zone)
    delegate(world, own, f"one.{world.zone}")
    delegate(world, f"one.{world.zone}", f"Two.{zone}")
    dns = world.dns()
    with caplog.at_level(logging.INFO):
        dns.locate([own])
    assert f"{own} is delegated to two.{zone}" in caplog.messages
    with dns.presenting([token(world.zone)], within(20)):
        assert world.texts(zone) == [f"two.{zone}."]
    assert world.texts(zone) == []


def test_what_a_run_that_died_left_behind(world: World) -> None:
    """It is known by the challenge's name."""
    delegate(world, challenge_name(world.zone), f"one.{world.zone}")
    left = token(world.zone)
    Route53(world.aws).place([Token(f"one.{world.zone}", left.value)], within(20), [])
    world.dns().remove([left])
    assert world.texts() == []


def test_the_longest_chain_that_is_followed(world: World) -> None:
    names = [challenge_name(world.zone), *(f"n{number}.{world.zone}" for number in range(17))]
    for name, target in pairwise(names[:17]):
        delegate(world, name, target)
    servers = [Server(*world.sandbox.dns)]
    assert follow([names[0]], servers) == ({names[0]: names[16]}, [])
    delegate(world, names[16], names[17])
    with pytest.raises(DnsError, match="more than 16 CNAMEs"):
        world.dns().locate([names[0]])


def test_a_circle(world: World) -> None:
    own, one, two = challenge_name(world.zone), f"one.{world.zone}", f"two.{world.zone}"
    delegate(world, own, one)
    delegate(world, one, two)
    delegate(world, two, one)
    with pytest.raises(DnsError, match=rf"in a circle: {own} → {one} → {two} → {one}"):
        world.dns().locate([own])


def test_two_names_at_one_record(world: World) -> None:
    shared = f"_acme-challenge.shared.{world.zone}"
    names = [f"a.{world.zone}", f"b.{world.zone}"]
    for name in names:
        delegate(world, challenge_name(name), shared)
    dns = world.dns()
    dns.locate(map(challenge_name, names))
    with dns.presenting([token(name, name[0]) for name in names], within(20)):
        assert world.texts() == [f"{shared}."] * 2
    assert world.texts() == []


def test_more_names_at_one_record_than_route_53_answers_with(world: World) -> None:
    shared = f"shared.{world.zone}"
    names = [challenge_name(f"n{number}.{world.zone}") for number in range(5)]
    for name in names:
        delegate(world, name, shared)
    dns = world.dns()
    # Each name and its wildcard.
    dns.locate(names[:4] * 2)
    with pytest.raises(DnsError, match=f"10 challenge records .* {shared}, .* 8 at most"):
        dns.locate(names * 2)


def test_a_wildcard_is_for_hosts(world: World) -> None:
    """`*.shop.example.com` answers for `_acme-challenge.shop.example.com`, but the challenge's own
    record goes before it."""
    delegate(world, f"*.{world.zone}", f"shop.{world.zone}")
    dns = world.dns()
    dns.locate([challenge_name(world.zone)])
    with dns.presenting([token(world.zone)], within(20)):
        assert world.texts() == [f"_acme-challenge.{world.zone}."]
    assert world.texts() == []


def test_a_target_without_a_zone(world: World) -> None:
    own = challenge_name(world.zone)
    delegate(world, own, "acme.nowhere.test")
    with pytest.raises(FailedTogether) as caught:
        world.dns().locate([own, challenge_name("nowhere.test")])
    delegated, plain = caught.value.failures
    assert f"{own} is delegated to acme.nowhere.test: no public hosted zone" in delegated.what
    assert plain.what.startswith("no public hosted zone for nowhere.test")


def test_nameservers_that_do_not_answer(world: World) -> None:
    silent = Server("127.0.0.1", free_ports(1)[0])
    with pytest.raises(DnsError, match="whether the name is delegated") as caught:
        world.dns(nameservers=[silent]).locate([challenge_name(world.zone)])
    assert caught.value.retryable
    # The next one is asked.
    world.dns(nameservers=[silent, Server(*world.sandbox.dns)]).locate([challenge_name(world.zone)])


def test_many_names_are_asked_for_at_once() -> None:
    """Nobody gets an answer before everybody has asked."""
    names = [f"n{number}.example" for number in range(16)]
    with socket.socket(type=socket.SOCK_DGRAM) as bound, ThreadPoolExecutor(1) as beside:
        bound.bind(("127.0.0.1", 0))
        answered = beside.submit(answer_together, bound, len(names))
        ends, failures = follow(names, [Server(*bound.getsockname())])
        answered.result()
    assert ends == {name: name for name in names}
    assert failures == []


def answer_together(bound: socket.socket, count: int) -> None:
    asked = [bound.recvfrom(512) for _ in range(count)]
    for packet, sender in asked:
        bound.sendto(dns.message.make_response(dns.message.from_wire(packet)).to_wire(), sender)


def test_into_a_zone_of_another_account(world: World) -> None:
    zone = f"acme-{world.zone}"
    world.hosted_zone(zone, OTHER_ACCOUNT)
    everything = {"Effect": "Allow", "Action": "route53:*", "Resource": "*"}
    own = challenge_name(world.zone)
    delegate(world, own, f"k3.{zone}")
    entry = Route53Zone(provider="route53", zone=zone, account="dns")
    dns = world.dns(entry, accounts={"dns": world.role(OTHER_ACCOUNT, everything)})
    dns.locate([own])
    with dns.presenting([token(world.zone)], within(20)):
        assert world.texts(zone, OTHER_ACCOUNT) == [f"k3.{zone}."]
    assert world.texts(zone, OTHER_ACCOUNT) == []


def rfc2136(world: World, bind: Bind) -> Rfc2136Zone:
    return Rfc2136Zone(
        provider="rfc2136",
        zone=bind.zone,
        server=bind.server,
        key_name=WRITER,
        key_secret=world.secret(bind.secrets[WRITER]),
    )


@pytest.mark.parametrize("to_bind", [False, True], ids=["Route 53", "BIND"])
def test_the_ca_validates_a_delegated_name(
    world: World, bind: Bind, monkeypatch: pytest.MonkeyPatch, to_bind: bool
) -> None:
    """Two names and a wildcard, all delegated to one record."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.sandbox.ca_bundle))
    shared = f"acme.{bind.zone if to_bind else world.zone}"
    domains = [world.zone, f"*.{world.zone}", f"www.{world.zone}"]
    for domain in (world.zone, f"www.{world.zone}"):
        delegate(world, challenge_name(domain), shared)
    clock = within(60)
    key = JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    client = Client(Issuer("ca", world.sandbox.directory), key, clock)
    client.new_account(None)
    order = client.new_order(domains, None)
    to_prove = [each for each in client.authorizations(order) if each.challenge]
    tokens = [
        Token(challenge_name(each.name), client.txt(each.challenge))
        for each in to_prove
        if each.challenge
    ]
    dns = world.dns(rfc2136(world, bind))
    with world.sandbox.nameserver.beside(bind.zone, bind.address):
        dns.locate(map(challenge_name, domains))
        with dns.presenting(tokens, clock):
            for each in to_prove:
                client.respond(each)
            order = client.validated(order)
    assert order.status.name == "ready"
    assert bind.texts(shared) == set()
    assert world.texts() == []
