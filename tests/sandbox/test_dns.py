"""The name server answers as Route 53 and the DNS's own rules say, asked with dnspython."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import boto3
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import resources
from sandbox.dns import NameServer, closest
from sandbox.pebble import free_ports
from sandbox.server import Server

OTHER_ACCOUNT = "222222222222"


class World:
    """Hosted zones, and a resolver that asks the name server."""

    def __init__(self, server: Server, nameserver: NameServer) -> None:
        self.nameserver = nameserver
        self.server = server
        self.session = boto3.Session(
            aws_access_key_id="test", aws_secret_access_key="test", region_name="eu-central-1"
        )
        self.resolver = dns.resolver.Resolver(configure=False)
        address, port = nameserver.address
        self.resolver.nameservers = [address]
        self.resolver.port = port
        self.resolver.lifetime = 5

    def zone(self, name: str, **more: Any) -> str:
        return resources.hosted_zone(
            name, session=self.session, endpoint=self.server.endpoint, **more
        )

    def put(self, zone: str, name: str, kind: str, *values: str, **more: Any) -> None:
        self.change("UPSERT", zone, name, kind, *values, **more)

    def change(
        self, action: Any, zone: str, name: str, kind: Any, *values: str, **more: Any
    ) -> None:
        records: Any = {"Name": name, "Type": kind, "TTL": 30, **more}
        records["ResourceRecords"] = [{"Value": value} for value in values]
        self.session.client(
            "route53", endpoint_url=self.server.endpoint
        ).change_resource_record_sets(
            HostedZoneId=zone,
            ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": records}]},
        )

    def ask(self, name: str, kind: str, *, tcp: bool = False) -> list[str]:
        answer = self.resolver.resolve(name, kind, tcp=tcp, search=False)
        return sorted(each.to_text() for each in answer)

    def query(self, name: str, kind: str, **more: Any) -> dns.message.Message:
        address, port = self.nameserver.address
        return dns.query.udp(dns.message.make_query(name, kind, **more), address, 5, port)


@pytest.fixture(scope="module")
def nameserver() -> Iterator[NameServer]:
    with NameServer() as running:
        yield running


@pytest.fixture
def world(server: Server, nameserver: NameServer) -> World:
    return World(server, nameserver)


@pytest.mark.parametrize("tcp", [False, True])
def test_every_type_of_record(world: World, tcp: bool) -> None:
    zone = world.zone("example.com")
    world.put(zone, "www.example.com", "A", "192.0.2.1", "192.0.2.2")
    world.put(zone, "www.example.com", "AAAA", "2001:db8::1")
    world.put(zone, "text.example.com", "TXT", '"one" "two"', '"three"')
    world.put(zone, "alias.example.com", "CNAME", "www.example.com")
    world.put(zone, "example.com", "CAA", '0 issue "letsencrypt.org"')

    assert world.ask("www.example.com", "A", tcp=tcp) == ["192.0.2.1", "192.0.2.2"]
    assert world.ask("WWW.Example.COM", "AAAA", tcp=tcp) == ["2001:db8::1"]
    assert world.ask("text.example.com", "TXT", tcp=tcp) == ['"one" "two"', '"three"']
    assert world.ask("alias.example.com", "CNAME", tcp=tcp) == ["www.example.com."]
    assert world.ask("example.com", "CAA", tcp=tcp) == ['0 issue "letsencrypt.org"']
    assert len(world.ask("example.com", "NS", tcp=tcp)) == 4
    (soa,) = world.ask("example.com", "SOA", tcp=tcp)
    assert soa.endswith(" 7200 900 1209600 86400")
    answer = world.query("www.example.com", "A")
    assert answer.flags & dns.flags.AA
    assert answer.answer[0].ttl == 30


def test_multivalue_record_sets_are_one_answer(world: World) -> None:
    zone = world.zone("example.com")
    for number in range(8):
        world.put(
            zone,
            "_acme-challenge.example.com",
            "TXT",
            f'"token-{number}"',
            SetIdentifier=f"token-{number}",
            MultiValueAnswer=True,
        )
    everything = [f'"token-{number}"' for number in range(8)]
    assert world.ask("_acme-challenge.example.com", "TXT") == everything
    world.change(
        "DELETE",
        zone,
        "_acme-challenge.example.com",
        "TXT",
        '"token-3"',
        SetIdentifier="token-3",
        MultiValueAnswer=True,
    )
    everything.remove('"token-3"')
    assert world.ask("_acme-challenge.example.com", "TXT") == everything


def test_at_most_eight_multivalue_record_sets(world: World) -> None:
    zone = world.zone("example.com")
    for number in range(9):
        more = {"SetIdentifier": str(number), "MultiValueAnswer": True}
        world.put(zone, "many.example.com", "TXT", f'"{number}"', **more)
    assert len(world.ask("many.example.com", "TXT")) == 8


def test_no_such_name_and_no_such_type(world: World) -> None:
    zone = world.zone("example.com")
    world.put(zone, "deep.www.example.com", "A", "192.0.2.1")
    missing = world.query("nothing.example.com", "TXT")
    assert missing.rcode() == dns.rcode.NXDOMAIN
    # www exists because something below it does (RFC 4592, 2.2.2).
    for name in ("deep.www.example.com", "www.example.com"):
        without = world.query(name, "TXT")
        assert without.rcode() == dns.rcode.NOERROR
        assert not without.answer
    for answer in (missing, without):
        (soa,) = answer.authority
        assert soa.name == dns.name.from_text("example.com")
        assert soa.rdtype == dns.rdatatype.SOA


def test_names_outside_every_public_zone(world: World) -> None:
    world.zone("private.example", private=True)
    for name in ("example.net", "private.example", "."):
        answer = world.query(name, "TXT")
        assert answer.rcode() == dns.rcode.REFUSED
        assert not answer.flags & dns.flags.AA


def test_zones_of_all_accounts(world: World) -> None:
    world.zone("example.com")
    world.zone("example.org", account=OTHER_ACCOUNT)
    assert len(world.ask("example.com", "SOA")) == len(world.ask("example.org", "SOA")) == 1


def test_the_closest_zone_answers(world: World) -> None:
    parent, child = world.zone("example.com"), world.zone("sub.example.com")
    world.put(parent, "a.sub.example.com", "A", "192.0.2.1")
    world.put(child, "b.sub.example.com", "A", "192.0.2.2")
    world.put(parent, "asub.example.com", "A", "192.0.2.3")
    assert world.query("a.sub.example.com", "A").rcode() == dns.rcode.NXDOMAIN
    assert world.ask("b.sub.example.com", "A") == ["192.0.2.2"]
    assert world.ask("asub.example.com", "A") == ["192.0.2.3"]


def test_the_older_of_two_zones_of_one_name_answers(world: World) -> None:
    first, second = world.zone("example.com"), world.zone("example.com")
    world.put(second, "www.example.com", "A", "192.0.2.2")
    assert world.query("www.example.com", "A").rcode() == dns.rcode.NXDOMAIN
    world.put(first, "www.example.com", "A", "192.0.2.1")
    assert world.ask("www.example.com", "A") == ["192.0.2.1"]


def test_what_is_delegated_to_servers_elsewhere_is_not_answered(world: World) -> None:
    zone = world.zone("example.com")
    world.put(zone, "sub.example.com", "NS", "ns.elsewhere.example")
    world.put(zone, "www.sub.example.com", "A", "192.0.2.1")
    answer = world.query("www.sub.example.com", "A")
    assert not answer.answer
    assert not answer.flags & dns.flags.AA
    assert answer.authority[0].to_text().endswith("NS ns.elsewhere.example.")


@pytest.mark.parametrize("star", ["*", "\\052"])
def test_wildcards(world: World, star: str) -> None:
    zone = world.zone("example.com")
    world.put(zone, f"{star}.example.com", "A", "192.0.2.1")
    world.put(zone, "here.example.com", "TXT", '"x"')
    world.put(zone, "deep.below.example.com", "TXT", '"x"')
    assert world.ask("any.example.com", "A") == ["192.0.2.1"]
    assert world.ask("any.how.example.com", "A") == ["192.0.2.1"]
    # Not for a name that is there, nor for one below it (RFC 4592, 2.2.1).
    for name in ("here.example.com", "below.example.com"):
        assert world.query(name, "A").rcode() == dns.rcode.NOERROR
        assert not world.query(name, "A").answer
    assert world.query("any.below.example.com", "A").rcode() == dns.rcode.NXDOMAIN


def test_a_chain_of_cnames_is_one_answer(world: World) -> None:
    here, there = world.zone("example.com"), world.zone("example.org")
    world.put(here, "_acme-challenge.example.com", "CNAME", "one.example.org")
    world.put(there, "one.example.org", "CNAME", "two.example.org.")
    world.put(there, "two.example.org", "TXT", '"token"')
    answer = world.query("_acme-challenge.example.com", "TXT")
    assert [(each.name.to_text(), each.rdtype.name) for each in answer.answer] == [
        ("_acme-challenge.example.com.", "CNAME"),
        ("one.example.org.", "CNAME"),
        ("two.example.org.", "TXT"),
    ]
    world.change("DELETE", there, "two.example.org", "TXT", '"token"')
    broken = world.query("_acme-challenge.example.com", "TXT")
    assert broken.rcode() == dns.rcode.NXDOMAIN
    assert len(broken.answer) == 2
    assert broken.authority[0].name == dns.name.from_text("example.org")


def test_a_chain_that_leaves_the_sandbox_ends_there(world: World) -> None:
    zone = world.zone("example.com")
    world.put(zone, "www.example.com", "CNAME", "elsewhere.example.net")
    answer = world.query("www.example.com", "A")
    assert answer.rcode() == dns.rcode.NOERROR
    assert [each.rdtype.name for each in answer.answer] == ["CNAME"]


def test_a_circle_of_cnames_is_a_failure(world: World) -> None:
    zone = world.zone("example.com")
    world.put(zone, "a.example.com", "CNAME", "b.example.com")
    world.put(zone, "b.example.com", "CNAME", "a.example.com")
    assert world.query("a.example.com", "A").rcode() == dns.rcode.SERVFAIL


def test_a_name_server_that_lags_behind(world: World) -> None:
    zone = world.zone("example.com")
    world.put(zone, "www.example.com", "A", "192.0.2.1")
    with world.nameserver.hide("WWW.example.com."):
        assert world.query("www.example.com", "A").rcode() == dns.rcode.NXDOMAIN
    assert world.ask("www.example.com", "A") == ["192.0.2.1"]


def test_localhost(world: World) -> None:
    assert world.ask("localhost", "A") == ["127.0.0.1"]
    assert world.ask("pebble.localhost", "AAAA") == ["::1"]
    assert world.query("localhost", "TXT").rcode() == dns.rcode.NOERROR


def test_what_does_not_fit_is_cut_off_and_asked_again_by_tcp(world: World) -> None:
    zone = world.zone("example.com")
    values = [f'"{str(number) * 100}"' for number in range(9)]
    world.put(zone, "long.example.com", "TXT", *values)
    assert world.query("long.example.com", "TXT").flags & dns.flags.TC
    assert (
        not world.query("long.example.com", "TXT", use_edns=True, payload=4096).flags & dns.flags.TC
    )
    # The resolver sees the flag, and comes back by TCP.
    world.resolver.use_edns(-1)
    assert world.ask("long.example.com", "TXT") == values


def test_edns(world: World) -> None:
    world.zone("example.com")
    answer = world.query("example.com", "SOA", use_edns=0, payload=1400)
    assert answer.edns == 0
    assert answer.payload == 1232
    assert world.query("example.com", "SOA").edns == -1
    query = dns.message.make_query("example.com", "SOA", use_edns=1)
    newer = world.nameserver.respond(query.to_wire(), udp=True)
    assert newer is not None
    assert dns.message.from_wire(newer).rcode() == dns.rcode.BADVERS


def test_what_cannot_be_answered(world: World) -> None:
    query = dns.message.make_query("example.com", "A")
    respond = world.nameserver.respond
    assert respond(b"\0\1\2", udp=True) is None
    assert respond(dns.message.make_response(query).to_wire(), udp=True) is None

    broken = respond(query.to_wire()[:-3], udp=True)
    assert broken is not None
    unreadable = dns.message.from_wire(broken)
    assert (unreadable.id, unreadable.rcode()) == (query.id, dns.rcode.FORMERR)

    update = dns.message.make_query("example.com", "A")
    update.set_opcode(dns.opcode.NOTIFY)
    refused = respond(update.to_wire(), udp=True)
    assert refused is not None
    assert dns.message.from_wire(refused).rcode() == dns.rcode.NOTIMP

    chaos = respond(dns.message.make_query("version.bind", "TXT", "CH").to_wire(), udp=True)
    assert chaos is not None
    assert dns.message.from_wire(chaos).rcode() == dns.rcode.REFUSED


def test_several_questions_on_one_connection(world: World) -> None:
    world.zone("example.com")
    queries = [dns.message.make_query("example.com", "SOA") for _ in range(3)]
    framed = b"".join(len(wire).to_bytes(2) + wire for wire in (q.to_wire() for q in queries))
    with socket.create_connection(world.nameserver.address, timeout=5) as connection:
        # Cut where it hurts: within a length.
        for piece in (framed[:1], framed[1:40], framed[40:]):
            connection.sendall(piece)
        for query in queries:
            answer, _ = dns.query.receive_tcp(connection)
            assert query.is_response(answer)


def test_stop_ends_connections_and_its_thread() -> None:
    nameserver = NameServer()
    nameserver.start()
    before = threading.active_count()
    with socket.create_connection(nameserver.address, timeout=5) as connection:
        # Answered: so the connection is not only in the backlog.
        query = dns.message.make_query("localhost", "A")
        dns.query.send_tcp(connection, query)
        dns.query.receive_tcp(connection)
        nameserver.stop()
        nameserver.stop()
        assert connection.recv(1) == b""
    assert threading.active_count() == before - 1
    again = NameServer(port=nameserver.address[1])
    with again:
        assert again.address == nameserver.address


# Zone choice.

LABELS = st.sampled_from(["a", "b", "ab", "example", "com", "co"])
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(
    lambda each: dns.name.from_text(".".join(each))
)


@given(name=NAMES, zones=st.sets(NAMES, max_size=12))
def test_no_zone_is_closer(name: dns.name.Name, zones: set[dns.name.Name]) -> None:
    found = closest(name, {zone: zone for zone in zones})
    around = [zone for zone in zones if name.is_subdomain(zone)]
    assert found == max(around, key=len, default=None)


def test_a_zone_of_another_server(world: World) -> None:
    """As if both were the world's; and SERVFAIL where the other does not answer."""
    zone = world.zone("here.example")
    world.put(zone, "www.here.example", "CNAME", "www.there.example")
    free = free_ports(1)[0]
    with NameServer() as other:
        there = world.zone("there.example")
        world.put(there, "www.there.example", "TXT", '"found"')
        with world.nameserver.beside("there.example", other.address):
            assert world.ask("www.here.example", "TXT") == ['"found"']
            with pytest.raises(dns.resolver.NXDOMAIN):
                world.ask("other.there.example", "TXT")
        with (
            world.nameserver.beside("there.example", ("127.0.0.1", free)),
            pytest.raises(dns.resolver.NoNameservers),
        ):
            world.ask("www.here.example", "TXT")
    assert world.ask("www.here.example", "TXT") == ['"found"']


# --- the services' own names ---

WHERE = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener"
ALB = f"{WHERE}/app/web/50dc6c495c0c9188/f2f7dc8efc522ab2"


def test_a_load_balancer_has_an_address_in_each_zone(world: World) -> None:
    resources.listener(ALB, dualstack=True, session=world.session, endpoint=world.server.endpoint)
    elb = world.session.client("elbv2", endpoint_url=world.server.endpoint)
    (balancer,) = elb.describe_load_balancers()["LoadBalancers"]
    ipv4, ipv6 = (world.ask(balancer["DNSName"], kind) for kind in ("A", "AAAA"))
    assert len(ipv4) == len(ipv6) == len(balancer["AvailabilityZones"]) == 2
    assert world.ask(balancer["DNSName"].upper(), "A") == ipv4
    assert all(ip_address(each) in ip_network("198.18.0.0/15") for each in ipv4)
    assert all(ip_address(each) in ip_network("2001:db8::/32") for each in ipv6)


def test_a_domain_that_points_to_a_distribution(world: World) -> None:
    at: Any = {"session": world.session, "endpoint": world.server.endpoint}
    resources.distribution("E1", ["www.example.com"], **at)
    cloudfront = world.session.client("cloudfront", endpoint_url=world.server.endpoint)
    host = cloudfront.get_distribution(Id="E1")["Distribution"]["DomainName"]
    zone = world.zone("example.com")
    world.put(zone, "www.example.com", "CNAME", host)
    assert len(world.ask("www.example.com", "A")) == 2
    assert len(world.ask("www.example.com", "AAAA")) == 1


def test_a_service_knows_what_it_has_not_named(world: World) -> None:
    resources.listener(ALB, session=world.session, endpoint=world.server.endpoint)
    elb = world.session.client("elbv2", endpoint_url=world.server.endpoint)
    host = elb.describe_load_balancers()["LoadBalancers"][0]["DNSName"]
    answer = world.query(host, "AAAA")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    for name in (f"x{host}", "d111111abcdef8.cloudfront.net", "eu-central-1.elb.amazonaws.com"):
        assert world.query(name, "A").rcode() == dns.rcode.NXDOMAIN
    assert world.query("cloudfront.example", "A").rcode() == dns.rcode.REFUSED
