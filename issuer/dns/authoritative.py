"""Whether the challenge records are in the world's DNS: asked of the servers that the CA's own
resolvers will ask, so that no cache is in between and none is filled with "no such name"."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.query
import dns.rdatatype
import dns.resolver

from certrail.errors import DeadlinePassed, DnsError
from certrail.nameservers import Server
from issuer.clock import Backoff, Clock
from issuer.dns import Token

QUERY_TIMEOUT = 3.0
# A zone has four servers, and most of the time is waiting.
AT_ONCE = 32

# Route 53 has told all its servers before they are asked (INSYNC). What they do not show by now is
# asked of servers that never will.
VISIBLE_WITHIN = timedelta(minutes=3)


def address_of(server: Server) -> str:
    """The server's address. Raises DNSException where its name has none."""
    if dns.inet.is_address(server.host):
        return server.host
    # Lambda has no IPv6 to the outside unless a VPC gives it one, and every server has IPv4.
    return str(dns.resolver.resolve(server.host, "A", lifetime=QUERY_TIMEOUT)[0])


def await_visible(shown: Mapping[Server, Sequence[Token]], clock: Clock) -> None:
    """Wait until every server shows its tokens, but not longer than `VISIBLE_WITHIN`. Raises
    DnsError then, naming what is missing where; DeadlinePassed, with the same words, where the
    run's own time was over before that."""
    hurried = clock.left < VISIBLE_WITHIN.total_seconds()
    clock = replace(clock, deadline=min(clock.deadline, clock.now() + VISIBLE_WITHIN))
    backoff = Backoff(clock, "the nameservers to show the challenge records", first=0.2)
    missing = {server: tuple(tokens) for server, tokens in shown.items()}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while missing:
            answers = dict(zip(missing, pool.map(_missing, missing, missing.values()), strict=True))
            missing = {server: lacks for server, (lacks, _) in answers.items() if lacks}
            if not missing:
                return
            try:
                backoff.pause()
            except DeadlinePassed as passed:
                reasons = "; ".join(
                    f"{server}: {answers[server][1]}" for server in sorted(missing, key=str)
                )
                late = DeadlinePassed if hurried else DnsError
                raise late(
                    f"the challenge records did not appear in time ({reasons})",
                    next="Check that these nameservers serve the zone and can be reached from here",
                    retryable=True,
                ) from passed


def _missing(server: Server, tokens: Iterable[Token]) -> tuple[tuple[Token, ...], str]:
    """The tokens that the server does not show, and why."""
    by_name: dict[str, list[Token]] = defaultdict(list)
    for token in tokens:
        by_name[token.name].append(token)
    missing: list[Token] = []
    reason = ""
    try:
        address = address_of(server)
        for name, wanted in by_name.items():
            shown = _texts(address, server.port, name)
            if lacks := [token for token in wanted if token.value not in shown]:
                missing += lacks
                reason = f"{name} shows {len(shown)} records, {len(lacks)} of ours missing"
    except (dns.exception.DNSException, OSError) as error:
        # A server that does not answer one name is not asked for the others now.
        return tuple(tokens), f"{type(error).__name__}: {error}"
    return tuple(missing), reason


def _texts(address: str, port: int, name: str) -> set[str]:
    query = dns.message.make_query(name, dns.rdatatype.TXT)
    query.flags &= ~dns.flags.RD
    answer, _ = dns.query.udp_with_fallback(query, address, timeout=QUERY_TIMEOUT, port=port)
    return {
        b"".join(record.strings).decode("ascii", "replace")
        for records in answer.answer
        if records.rdtype == dns.rdatatype.TXT
        for record in records
    }
