"""Challenge records by dynamic updates (RFC 2136), signed with TSIG (RFC 8945): BIND, Knot, NSD's
primaries, PowerDNS and others.

Of each name only our own record is added and deleted, so that what others have there stays, and
nobody reads to write.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Literal

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update

from certrail import credentials
from certrail.aws import Aws
from certrail.errors import CertrailError, DnsError, RecordsLeft
from certrail.nameservers import Server, parse_servers
from certrail.pipelines.zones import Rfc2136Zone
from issuer.clock import Clock
from issuer.dns import Token, left_behind
from issuer.dns.authoritative import address_of

TTL = 60
# A primary may tell all its secondaries before it answers.
TIMEOUT = 10.0
# Zones are looked up by so many queries at once.
AT_ONCE = 8

REMEDIES = {
    dns.rcode.REFUSED: "Allow the key to update TXT records of these names (BIND: `update-policy`)",
    dns.rcode.NOTAUTH: "Give the primary name server of the zone as `server`",
    dns.rcode.NOTIMP: "Give a name server that takes dynamic updates as `server`",
}


class Rfc2136:
    """Challenge records in the zones of one name server. nameservers: see `Dns`.

    Raises DnsError where the entry's server cannot be read.
    """

    most: int | None = None

    def __init__(
        self, aws: Aws, entry: Rfc2136Zone, nameservers: Sequence[Server] | None = None
    ) -> None:
        self._aws = aws
        self._entry = entry
        self._server = _only(entry)
        self._nameservers = nameservers
        self._zones: dict[str, dns.name.Name] = {}

    def locate(self, names: Iterable[str]) -> dict[str, CertrailError]:
        # Before there are several threads, and once: a server that is down, or does not know the
        # key, is not asked a hundred times.
        self._ask(_question(dns.name.from_text(self._entry.zone), dns.rdatatype.SOA))
        lost: dict[str, CertrailError] = {}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            looking = {name: pool.submit(self._zone, name) for name in names}
            for name, found in looking.items():
                try:
                    found.result()
                except DnsError as error:
                    lost[name] = error
        return lost

    def place(self, tokens: Sequence[Token], clock: Clock, placed: list[Token]) -> None:
        for zone, there in self._by_zone(tokens).items():
            before = len(placed)
            placed += there
            try:
                self._update("add", zone, there)
            except DnsError as error:
                if not error.retryable:
                    del placed[before:]
                raise

    def remove(self, tokens: Sequence[Token]) -> list[RecordsLeft]:
        try:
            lost = self.locate({token.name for token in tokens})
        except CertrailError as error:
            return [left_behind(f"zone {self._entry.zone}", tokens, error)]
        failures = [
            left_behind(
                f"zone {self._entry.zone}", [each for each in tokens if each.name == name], error
            )
            for name, error in lost.items()
        ]
        there = [token for token in tokens if token.name not in lost]
        for zone, own in self._by_zone(there).items():
            try:
                self._update("delete", zone, own)
            except DnsError as error:
                where = f"zone {zone.to_text(omit_final_dot=True)}"
                failures.append(left_behind(where, own, error))
        return failures

    def servers(self, name: str) -> Sequence[Server]:
        if self._nameservers is not None:
            return [self._server, *self._nameservers]
        zone = self._zone(name)
        answer = self._ask(_question(zone, dns.rdatatype.NS))
        return [
            self._server,
            *(
                Server(record.target.to_text(omit_final_dot=True))
                for records in answer.answer
                if records.rdtype == dns.rdatatype.NS
                for record in records
            ),
        ]

    @cached_property
    def _keyring(self) -> Mapping[dns.name.Name, dns.tsig.Key]:
        entry = self._entry
        secret = credentials.fetch(self._aws, entry.key_secret)
        try:
            key = base64.b64decode(secret.reveal(), validate=True)
        except binascii.Error:
            # Not with the cause, which may show what it could not read.
            raise DnsError(
                "the TSIG key is not base64",
                where=entry.key_secret,
                next="Store what the server's configuration has as the key's `secret`, alone",
            ) from None
        name = dns.name.from_text(entry.key_name)
        return {name: dns.tsig.Key(name, key, entry.key_algorithm)}

    def _by_zone(self, tokens: Sequence[Token]) -> dict[dns.name.Name, list[Token]]:
        by_zone: dict[dns.name.Name, list[Token]] = defaultdict(list)
        for token in tokens:
            by_zone[self._zone(token.name)].append(token)
        return by_zone

    def _zone(self, name: str) -> dns.name.Name:
        """The zone that the server has the name in. Raises DnsError."""
        if name not in self._zones:
            self._zones[name] = self._look_up(name)
        return self._zones[name]

    def _look_up(self, name: str) -> dns.name.Name:
        owner = dns.name.from_text(name)
        at = owner
        while at != dns.name.root:
            answer = self._ask(_question(at, dns.rdatatype.SOA))
            if answer.rcode() == dns.rcode.SERVFAIL:
                raise self._refused("SOA query", answer.rcode())
            if cut := _referral(answer, owner):
                raise self._failed(
                    f"{cut.to_text(omit_final_dot=True)} is delegated from here to others",
                    "Add an entry to `zones` for it",
                )
            # In a negative answer it is among the authority (RFC 2308, 2.1 and 2.2).
            if answer.flags & dns.flags.AA:
                for records in (*answer.answer, *answer.authority):
                    if records.rdtype == dns.rdatatype.SOA and owner.is_subdomain(records.name):
                        return records.name
            at = at.parent()
        raise DnsError(
            f"no zone for {name.removeprefix('_acme-challenge.')} at this name server",
            where=f"name server {self._server}",
            next="Give the primary name server of the zone as `server`, or correct the name",
        )

    def _update(
        self, action: Literal["add", "delete"], zone: dns.name.Name, tokens: Sequence[Token]
    ) -> None:
        # An order has a hundred names at most: all fit into one message, of 64 KiB.
        update = dns.update.UpdateMessage(zone)
        for token in tokens:
            owner, value = dns.name.from_text(token.name), f'"{token.value}"'
            if action == "add":
                update.add(owner, TTL, dns.rdatatype.TXT, value)
            else:
                update.delete(owner, dns.rdatatype.TXT, value)
        rcode = self._ask(update).rcode()
        if rcode != dns.rcode.NOERROR:
            raise self._refused(f"update of {zone.to_text(omit_final_dot=True)}", rcode)

    def _ask(self, message: dns.message.Message) -> dns.message.Message:
        """Signed, as the server may show some zones to the key's owner only. Raises DnsError."""
        message.use_tsig(self._keyring)
        key = f"TSIG key `{self._entry.key_name}`"
        try:
            return dns.query.tcp(
                message, address_of(self._server), timeout=TIMEOUT, port=self._server.port
            )
        except dns.tsig.PeerBadKey as error:
            raise self._failed(
                f"the server does not know the {key} with {self._entry.key_algorithm}",
                "Compare `key_name` and `key_algorithm` with the server's configuration",
            ) from error
        except (dns.tsig.PeerBadSignature, dns.tsig.BadSignature) as error:
            raise self._failed(
                f"the server has another secret for the {key}",
                f"Store the server's under {self._entry.key_secret}, in base64",
            ) from error
        except (dns.tsig.PeerBadTime, dns.tsig.BadTime) as error:
            raise self._failed(
                f"the server's clock is not ours, so it does not take the {key}",
                "Set the name server's clock right",
            ) from error
        except (dns.exception.DNSException, OSError) as error:
            raise self._failed(
                f"no answer ({type(error).__name__}: {error})",
                "Check that it runs, and that its TCP port can be reached from here",
                retryable=True,
            ) from error

    def _refused(self, what: str, rcode: dns.rcode.Rcode) -> DnsError:
        return self._failed(
            f"the server answered {dns.rcode.to_text(rcode)} to the {what}",
            REMEDIES.get(rcode, "The server's log says why"),
            retryable=rcode == dns.rcode.SERVFAIL,
        )

    def _failed(self, what: str, next: str, *, retryable: bool = False) -> DnsError:
        return DnsError(what, where=f"name server {self._server}", next=next, retryable=retryable)


def _only(entry: Rfc2136Zone) -> Server:
    try:
        (server,) = parse_servers(entry.server)
    except ValueError as error:
        raise DnsError(
            f"`{entry.server}` is not one name server",
            where=f"zone {entry.zone}",
            next="Write a host or an address, and `:port` where it is not 53",
        ) from error
    return server


def _question(name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.Message:
    """Without recursion: what the server only knows from others is no zone of its own."""
    return dns.message.make_query(name, kind, flags=dns.flags.Flag(0))


def _referral(answer: dns.message.Message, name: dns.name.Name) -> dns.name.Name | None:
    """The zone that the name is in and that other servers have (RFC 1034, 4.3.2, 3b)."""
    if answer.flags & dns.flags.AA or answer.answer:
        return None
    for records in answer.authority:
        inside = name.is_subdomain(records.name) and records.name != dns.name.root
        if records.rdtype == dns.rdatatype.NS and inside:
            return records.name
    return None
