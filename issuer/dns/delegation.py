"""Challenge names that are CNAMEs: the CA follows them, so the records go to where they end
(letsencrypt.org/docs/challenge-types/#dns-01-challenge)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset

from certrail.errors import CertrailError, DnsError
from certrail.nameservers import Server
from issuer.dns.authoritative import AT_ONCE, QUERY_TIMEOUT, address_of

log = logging.getLogger(__name__)

# Resolvers stop somewhere, too: Unbound after 11, unless told otherwise
# (unbound.docs.nlnetlabs.nl/en/latest/manpages/unbound.conf.html, max-query-restarts).
CHAIN = 16
# A packet that UDP loses is asked for again.
ATTEMPTS = 2

Cname = Callable[[str], str | None]


def follow(
    names: Iterable[str], nameservers: Sequence[Server] | None
) -> tuple[dict[str, str], list[CertrailError]]:
    """The last name of each name's chain of CNAMEs, itself where it has none; and the failures of
    those that are not among them.

    nameservers: asked directly, and need not answer for names of others; None for this machine's
    resolver.
    """
    ends: dict[str, str] = {}
    failures: list[CertrailError] = []
    try:
        cname = _from_resolver() if nameservers is None else _from_servers(nameservers)
    except DnsError as error:
        return {}, [error]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = {name: pool.submit(_end, name, cname) for name in dict.fromkeys(names)}
        for name, end in waiting.items():
            try:
                ends[name] = end.result()
            except CertrailError as error:
                failures.append(error)
    return ends, failures


def _end(name: str, cname: Cname) -> str:
    chain = [name.lower().rstrip(".")]
    while (target := cname(chain[-1])) is not None:
        if len(chain) == 1 and _is_wildcard(chain[0], target, cname):
            return chain[0]
        if target in chain:
            raise DnsError(
                f"the CNAMEs lead in a circle: {' → '.join([*chain, target])}",
                where=name,
                next="Let the last of them lead to a name that can have a TXT record",
            )
        if len(chain) > CHAIN:
            raise DnsError(
                f"more than {CHAIN} CNAMEs in a row, which no resolver follows",
                where=name,
                next=f"Let {name} lead straight to the last of them",
            )
        chain.append(target)
    if len(chain) > 1:
        log.info("%s is delegated to %s", name, chain[-1])
    return chain[-1]


def _is_wildcard(name: str, target: str, cname: Cname) -> bool:
    """Whether the CNAME is only what a wildcard says of all names: `*.shop.example.com` is meant
    for hosts, and a record of the challenge's own name goes before it (RFC 4592, 3.3.1)."""
    return cname(f"*.{name.partition('.')[2]}") == target


def _from_resolver() -> Cname:
    try:
        resolver = dns.resolver.Resolver()
    except dns.exception.DNSException as error:
        raise _failed("", error) from error

    def cname(name: str) -> str | None:
        try:
            answer = resolver.resolve(
                dns.name.from_text(name), "CNAME", search=False, raise_on_no_answer=False
            )
        except dns.resolver.NXDOMAIN:
            return None
        except (dns.exception.DNSException, OSError) as error:
            raise _failed(name, error) from error
        return _target(answer.rrset)

    return cname


def _from_servers(servers: Sequence[Server]) -> Cname:
    def cname(name: str) -> str | None:
        failure: Exception | None = None
        for server in [*servers] * ATTEMPTS:
            try:
                answer = _ask(server, dns.name.from_text(name))
            except (dns.exception.DNSException, OSError) as error:
                failure = error
                continue
            if answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return _target(_found(answer))
            if answer.rcode() != dns.rcode.REFUSED:
                failure = DnsError(f"{server} answered {dns.rcode.to_text(answer.rcode())}")
        if failure is not None:
            raise _failed(name, failure) from failure
        # All refuse: the name is in nobody's zone here.
        return None

    return cname


def _ask(server: Server, name: dns.name.Name) -> dns.message.Message:
    query = dns.message.make_query(name, dns.rdatatype.CNAME)
    query.flags &= ~dns.flags.RD
    address = address_of(server)
    answer, _ = dns.query.udp_with_fallback(query, address, QUERY_TIMEOUT, server.port)
    return answer


def _found(answer: dns.message.Message) -> dns.rrset.RRset | None:
    name = answer.question[0].name
    return answer.get_rrset(answer.answer, name, dns.rdataclass.IN, dns.rdatatype.CNAME)


def _target(cnames: dns.rrset.RRset | None) -> str | None:
    return cnames[0].target.to_text(omit_final_dot=True).lower() if cnames else None


def _failed(name: str, cause: Exception) -> DnsError:
    return DnsError(
        "cannot find out whether the name is delegated by a CNAME "
        f"({type(cause).__name__}: {cause})",
        where=name or "this machine's resolver",
        next="Check that DNS works from here, and that the zone's nameservers answer",
        retryable=True,
    )
