"""The sandbox's name server: the world's DNS, as far as Route 53 in this process makes it up.

It answers with authority for every public hosted zone of every account, by UDP and TCP; for zones
that another server has it asks that one (`beside`). The services' own names for load balancers,
distributions and custom domains have the addresses that `sandbox.fronts` gives them. Sources:
  RFC 1034 (4.3.2, the algorithm), RFC 4592 (wildcards), RFC 2308 (negative answers)
  naming      https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/DomainNameFormat.html
  multivalue  https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/routing-policy-multivalue.html

Not as AWS: of two zones with one name the older answers (nobody delegates here); a routing policy
other than multivalue answers with its first record set; alias records have no addresses; a CNAME is
followed through all zones, as a resolver would (Pebble wants the whole chain in one answer).
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from sandbox import fronts
from sandbox.part import Part

if TYPE_CHECKING:
    from moto.route53.models import FakeZone, RecordSet

HOST = "127.0.0.1"
START_ATTEMPTS = 5
# What fits into a packet that nobody fragments (dnsflagday.net/2020).
UDP_SIZE = 1232
PLAIN_UDP_SIZE = 512
NEGATIVE_TTL = 60
CHAIN = 16
OTHERS_TIMEOUT = 1.0
# "up to eight healthy records" (multivalue).
MULTIVALUE_ANSWERS = 8
LOOPBACK = {dns.rdatatype.A: "127.0.0.1", dns.rdatatype.AAAA: "::1"}
OCTAL = re.compile(r"\\([0-3][0-7]{2})")
LOCALHOST = dns.name.from_text("localhost.")
# Where AWS names what its customers make, and for how long such an answer holds.
SERVICES = [dns.name.from_text(name) for name in ("amazonaws.com.", "cloudfront.net.")]
SERVICES_TTL = 60

ZoneT = TypeVar("ZoneT")


class NameServer(Part):
    """Answers on 127.0.0.1 from one thread, as a context manager; port 0 is any free one."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._hidden: set[dns.name.Name] = set()
        self._others: dict[dns.name.Name, tuple[str, int]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._serving = threading.Event()

    def start(self) -> None:
        """Answer from now on. OSError if the port is taken."""
        tcp, udp = _bound(self._port)
        self.address: tuple[str, int] = udp.getsockname()
        self._serving.clear()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._serve, args=[self._loop, tcp, udp], name="nameserver", daemon=True
        )
        self._thread.start()
        # Before it runs for good the loop cannot be told to stop.
        self._serving.wait()

    def stop(self) -> None:
        """Close every connection and end the thread. Calling it again changes nothing."""
        if self._loop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop = self._thread = None

    @contextmanager
    def hide(self, name: str) -> Iterator[None]:
        """Within the block, know nothing of `name`: a name server that lags behind."""
        hidden = _absolute(name)
        self._hidden = self._hidden | {hidden}
        try:
            yield
        finally:
            self._hidden = self._hidden - {hidden}

    @contextmanager
    def beside(self, zone: str, address: tuple[str, int]) -> Iterator[None]:
        """Within the block, answer for `zone` what another name server answers for it."""
        origin = _absolute(zone)
        self._others = self._others | {origin: address}
        try:
            yield
        finally:
            self._others = {key: self._others[key] for key in self._others.keys() - {origin}}

    def _serve(
        self, loop: asyncio.AbstractEventLoop, tcp: socket.socket, udp: socket.socket
    ) -> None:
        connections: set[asyncio.BaseTransport] = set()
        packets, _ = loop.run_until_complete(
            loop.create_datagram_endpoint(lambda: _Udp(self), sock=udp)
        )
        server = loop.run_until_complete(
            loop.create_server(lambda: _Tcp(self, connections), sock=tcp)
        )
        loop.call_soon(self._serving.set)
        loop.run_forever()
        server.close()
        for transport in [packets, *connections]:
            transport.close()
        loop.run_until_complete(server.wait_closed())
        # The transports close their sockets in callbacks, one turn of the loop later.
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    def respond(self, packet: bytes, *, udp: bool) -> bytes | None:
        """The answer to one message; None where there is nothing to answer to."""
        try:
            query = dns.message.from_wire(packet)
        except dns.message.ShortHeader:
            return None
        except dns.exception.DNSException:
            # The id, and "I cannot read this" (RFC 1035, 4.1.1).
            flags = dns.flags.QR | dns.rcode.FORMERR
            return packet[:2] + flags.to_bytes(2) + bytes(8)
        if query.flags & dns.flags.QR:
            return None
        answer = dns.message.make_response(query, our_payload=UDP_SIZE)
        self._fill(query, answer)
        if not udp:
            return answer.to_wire(max_size=65535)
        size = min(query.payload, UDP_SIZE) if query.edns >= 0 else PLAIN_UDP_SIZE
        return answer.to_wire(max_size=max(size, PLAIN_UDP_SIZE), prefer_truncation=True)

    def _fill(self, query: dns.message.Message, answer: dns.message.Message) -> None:
        if query.edns > 0:
            answer.set_rcode(dns.rcode.BADVERS)
        elif query.opcode() != dns.opcode.QUERY:
            answer.set_rcode(dns.rcode.NOTIMP)
        elif len(query.question) != 1:
            answer.set_rcode(dns.rcode.FORMERR)
        elif query.question[0].rdclass != dns.rdataclass.IN:
            answer.set_rcode(dns.rcode.REFUSED)
        else:
            question = query.question[0]
            try:
                _look_up(question.name, question.rdtype, self._zones(), self._others, answer)
            except (dns.exception.DNSException, OSError):
                # A record set that Route 53 should not have taken, or another server is down.
                answer.answer, answer.authority = [], []
                answer.set_rcode(dns.rcode.SERVFAIL)

    def _zones(self) -> dict[dns.name.Name, Zone]:
        zones: dict[dns.name.Name, Zone] = {}
        for zone in _public_zones():
            origin = _absolute(zone.name)
            if origin not in zones:
                shown: dict[dns.name.Name, list[RecordSet]] = {}
                for record in zone.rrsets:
                    owner = _absolute(record.name)
                    if owner not in self._hidden:
                        shown.setdefault(owner, []).append(record)
                zones[origin] = Zone(origin, shown)
        return zones


@dataclass(frozen=True)
class Zone:
    """A hosted zone as the DNS sees it; names are absolute and in lower case."""

    origin: dns.name.Name
    records: Mapping[dns.name.Name, list[RecordSet]]

    def at(self, name: dns.name.Name) -> list[RecordSet] | None:
        """The record sets that answer for a name: its own, or a wildcard's. None: no such name.

        A name exists, without records, if there is one below it; and where a name exists, no
        wildcard answers for it (RFC 4592, 2.2.2 and 3.3.1).
        """
        encloser = name
        while not self._exists(encloser):
            encloser = encloser.parent()
        if encloser == name:
            return self._own(name)
        wildcard = dns.name.Name([b"*", *encloser.labels])
        return self._own(wildcard) if self._exists(wildcard) else None

    def delegation(self, name: dns.name.Name) -> dns.rrset.RRset | None:
        """NS records below the origin that give this name to other servers."""
        cuts = [
            owner
            for owner, records in self.records.items()
            if any(record.type == "NS" for record in records)
            and owner != self.origin
            and name.is_subdomain(owner)
        ]
        if not cuts:
            return None
        cut = min(cuts, key=len)
        return _rrset(cut, dns.rdatatype.NS, self._own(cut))

    def soa(self) -> dns.rrset.RRset | None:
        """For a negative answer: with the time for which it holds as TTL (RFC 2308, 3)."""
        soa = _rrset(self.origin, dns.rdatatype.SOA, self._own(self.origin))
        if soa is not None:
            soa.ttl = NEGATIVE_TTL
        return soa

    def _exists(self, name: dns.name.Name) -> bool:
        return (
            name == self.origin
            or name in self.records
            or any(owner.is_subdomain(name) for owner in self.records)
        )

    def _own(self, name: dns.name.Name) -> list[RecordSet]:
        return self.records.get(name, [])


def closest(name: dns.name.Name, zones: Mapping[dns.name.Name, ZoneT]) -> ZoneT | None:
    """The zone with the longest name that `name` is, or is below."""
    while name not in zones:
        if name == dns.name.root:
            return None
        name = name.parent()
    return zones[name]


def _look_up(
    name: dns.name.Name,
    kind: dns.rdatatype.RdataType,
    zones: Mapping[dns.name.Name, Zone],
    others: Mapping[dns.name.Name, tuple[str, int]],
    answer: dns.message.Message,
) -> None:
    """Fill in the answer, along CNAMEs (RFC 1034, 4.3.2, step 3a) and through all zones."""
    if name.canonicalize().is_subdomain(LOCALHOST):
        _answer_loopback(name, kind, answer)
        return
    for _ in range(CHAIN):
        if (other := closest(name.canonicalize(), others)) is not None:
            _ask_other(name, kind, other, answer)
            return
        zone = closest(name.canonicalize(), zones)
        if zone is None and any(name.canonicalize().is_subdomain(each) for each in SERVICES):
            _answer_service(name, kind, answer)
            return
        if zone is None:
            if not answer.answer:
                answer.set_rcode(dns.rcode.REFUSED)
            return
        if cut := zone.delegation(name.canonicalize()):
            answer.authority.append(cut)
            return
        answer.flags |= dns.flags.AA
        records = zone.at(name.canonicalize())
        cname = _rrset(name, dns.rdatatype.CNAME, records or [])
        if cname is not None and kind not in (dns.rdatatype.CNAME, dns.rdatatype.ANY):
            answer.answer.append(cname)
            name = cname[0].target
            continue
        found = list(_found(name, kind, records or []))
        answer.answer += found
        if records is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        if not found and (soa := zone.soa()):
            answer.authority.append(soa)
        return
    # A chain that goes on and on, or in a circle.
    answer.answer.clear()
    answer.set_rcode(dns.rcode.SERVFAIL)


def _ask_other(
    name: dns.name.Name,
    kind: dns.rdatatype.RdataType,
    address: tuple[str, int],
    answer: dns.message.Message,
) -> None:
    """Add what another server answers; nobody else is answered meanwhile. Raises DNSException and
    OSError where it does not."""
    query = dns.message.make_query(name, kind, flags=dns.flags.Flag(0))
    theirs, _ = dns.query.udp_with_fallback(query, address[0], OTHERS_TIMEOUT, address[1])
    answer.set_rcode(theirs.rcode())
    answer.flags |= theirs.flags & dns.flags.AA
    answer.answer += theirs.answer
    answer.authority += theirs.authority


def _answer_loopback(
    name: dns.name.Name, kind: dns.rdatatype.RdataType, answer: dns.message.Message
) -> None:
    """RFC 6761, 6.3."""
    answer.flags |= dns.flags.AA
    if address := LOOPBACK.get(kind):
        answer.answer.append(dns.rrset.from_text(name, NEGATIVE_TTL, "IN", kind, address))


def _answer_service(
    name: dns.name.Name, kind: dns.rdatatype.RdataType, answer: dns.message.Message
) -> None:
    """The addresses of what a service named so, in an order that changes, as AWS does it."""
    answer.flags |= dns.flags.AA
    front = fronts.named(name.canonicalize().to_text(omit_final_dot=True))
    if front is None:
        answer.set_rcode(dns.rcode.NXDOMAIN)
        return
    version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(kind)
    found = [str(each) for each in front.addresses if each.version == version]
    if found:
        shuffled = random.sample(found, len(found))
        answer.answer.append(dns.rrset.from_text(name, SERVICES_TTL, "IN", kind, *shuffled))


def _found(
    name: dns.name.Name, kind: dns.rdatatype.RdataType, records: Sequence[RecordSet]
) -> Iterator[dns.rrset.RRset]:
    kinds: Iterable[dns.rdatatype.RdataType] = [kind]
    if kind == dns.rdatatype.ANY:
        kinds = {dns.rdatatype.from_text(str(record.type)) for record in records}
    for each in kinds:
        if rrset := _rrset(name, each, records):
            yield rrset


def _rrset(
    name: dns.name.Name, kind: dns.rdatatype.RdataType, records: Sequence[RecordSet]
) -> dns.rrset.RRset | None:
    """What Route 53 answers from the record sets of this type; None if there are none."""
    alike = [
        record
        for record in records
        if record.type == dns.rdatatype.to_text(kind) and record.records
    ]
    if not alike:
        return None
    if alike[0].multi_value_answer:
        alike = random.sample(alike, min(len(alike), MULTIVALUE_ANSWERS))
    else:
        alike = alike[:1]
    rrset = dns.rrset.RRset(name, dns.rdataclass.IN, kind)
    for record in alike:
        for value in record.records:
            # Route 53 takes every name in a value as absolute, with a dot at its end or without.
            rdata = dns.rdata.from_text(
                dns.rdataclass.IN, kind, value, origin=dns.name.root, relativize=False
            )
            rrset.add(rdata, int(record.ttl or 0))
    return rrset


def _public_zones() -> Iterator[FakeZone]:
    # Imported here: moto takes half a second to import, and whoever stores records has done so.
    from moto.route53.models import route53_backends

    # Copied at each step: the threads of moto's server add to these as we read.
    for account in list(route53_backends.values()):
        for backend in list(account.values()):
            yield from (zone for zone in list(backend.zones.values()) if not zone.private_zone)


# A CA asks for all names of an order at once, and every answer looks at every record set.
@lru_cache(maxsize=1 << 16)
def _absolute(name: str) -> dns.name.Name:
    # Route 53 escapes in octal, the DNS's own notation is decimal (RFC 1035, 5.1; naming).
    decimal = OCTAL.sub(lambda found: f"\\{int(found[1], 8):03}", name)
    return dns.name.from_text(decimal).canonicalize()


def _bound(port: int) -> tuple[socket.socket, socket.socket]:
    """A TCP and a UDP socket at the same port."""
    attempts = 1 if port else START_ATTEMPTS
    while True:
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            # A port that has connections in TIME_WAIT is free all the same.
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((HOST, port))
            udp.bind(tcp.getsockname())
            # From here on a client can connect, and waits until the thread accepts it.
            tcp.listen()
        except OSError:
            tcp.close()
            udp.close()
            attempts -= 1
            if not attempts:
                raise
        else:
            return tcp, udp


class _Udp(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def __init__(self, server: NameServer) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if answer := self.server.respond(data, udp=True):
            self.transport.sendto(answer, addr)


class _Tcp(asyncio.Protocol):
    """Each message is preceded by its length in two bytes (RFC 1035, 4.2.2)."""

    transport: asyncio.Transport

    def __init__(self, server: NameServer, connections: set[asyncio.BaseTransport]) -> None:
        self.server = server
        self.connections = connections
        self.received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        while len(self.received) >= 2:
            size = int.from_bytes(self.received[:2])
            if len(self.received) < 2 + size:
                return
            packet, self.received = self.received[2 : 2 + size], self.received[2 + size :]
            if answer := self.server.respond(packet, udp=False):
                self.transport.write(len(answer).to_bytes(2) + answer)
