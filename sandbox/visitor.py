"""Clients of what the emulated AWS serves: one handshake, and one client that never stops.

They reach it through `sandbox.edge` and find it through `sandbox.dns`, as certrail's own checks do,
but share no code with them.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from threading import Condition, Thread
from typing import Any, NamedTuple

import dns.exception
import dns.message
import dns.query
import dns.rdatatype
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from certrail.bundle import covers
from certrail.target import Endpoint
from sandbox.part import Part

# In seconds: for an answer, and for a round of all endpoints.
PATIENCE = 10
ROUND = 60
NameserverAddress = tuple[str, int]


class Shown(NamedTuple):
    """What a server showed. fingerprint: SHA-256 of the leaf, hex. chain: DER, the leaf first."""

    fingerprint: str
    chain: tuple[bytes, ...]


def anything() -> ssl.SSLContext:
    """A client that takes whatever it is shown, and says so itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


ANYTHING = anything()


def handshake(
    proxy: tuple[str, int],
    address: str,
    port: int,
    server_name: str | None,
    *,
    context: ssl.SSLContext = ANYTHING,
) -> Shown:
    """Connect, and see what is shown to who asks for `server_name`, or for no name.

    Raises ConnectionError where nothing can be reached there, ssl.SSLError where the handshake
    fails, and any other OSError.
    """
    with socket.create_connection(proxy, PATIENCE) as connection:
        authority = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        connection.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        # No more than the head: what follows is TLS, but only once the client has begun it.
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := connection.recv(4096)):
                raise ConnectionError(f"the proxy hung up on {authority}")
            head += more
        status = head.split(b"\r\n", 1)[0].decode()
        if status.split()[1] != "200":
            raise ConnectionError(f"{authority}: {status}")
        with context.wrap_socket(connection, server_hostname=server_name) as tls:
            # get_unverified_chain is public from Python 3.13 on.
            shown: Any = tls._sslobj  # type: ignore[attr-defined]
            chain = tuple(
                ssl.PEM_cert_to_DER_cert(each.public_bytes())
                for each in shown.get_unverified_chain()
            )
    return Shown(hashlib.sha256(chain[0]).hexdigest(), chain)


def addresses(nameserver: NameserverAddress, host: str) -> tuple[str, ...]:
    """The IPv4 and then the IPv6 addresses of a name. Raises DNSException, OSError."""
    found = []
    for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
        query = dns.message.make_query(host, kind)
        answer = dns.query.udp(query, nameserver[0], PATIENCE, nameserver[1])
        found += [
            data.to_text() for rrset in answer.answer if rrset.rdtype == kind for data in rrset
        ]
    return tuple(found)


@dataclass(frozen=True)
class Visit:
    """One connection. server_name: empty for none. fingerprint: of the leaf, empty where there was
    no handshake. wrong: what a careful client would not accept, empty where nothing."""

    at: datetime
    host: str
    address: str
    port: int
    server_name: str
    fingerprint: str
    wrong: str


class Visitor(Part):
    """Connects to every address and name of some endpoints, again and again, from a thread.

    roots: PEM of those the client trusts; without any, a chain may end where it likes.
    clock: the time at which certificates must be valid.
    visits: all that was seen, in order; safe to read at any time.
    """

    def __init__(
        self,
        proxy: tuple[str, int],
        nameserver: NameserverAddress,
        endpoints: Sequence[Endpoint],
        *,
        roots: Sequence[str] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.visits: list[Visit] = []
        self._proxy = proxy
        self._nameserver = nameserver
        self._endpoints = tuple(endpoints)
        self._roots = tuple(roots)
        self._clock = clock
        self._rounds = 0
        self._last_round: list[Visit] = []
        self._round_over = Condition()
        self._stopping = False
        self._thread: Thread | None = None

    def start(self) -> None:
        self._stopping = False
        self._thread = Thread(target=self._go_round, name="visitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the visit in progress. Calling it again changes nothing."""
        self._stopping = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def wrong(self) -> list[Visit]:
        """The visits that a careful client would not have been content with."""
        return [visit for visit in list(self.visits) if visit.wrong]

    @property
    def fingerprints(self) -> list[str]:
        """The leaves seen, each once, in the order of their first sight."""
        seen = (visit.fingerprint for visit in list(self.visits) if visit.fingerprint)
        return list(dict.fromkeys(seen))

    def a_round(self) -> list[Visit]:
        """Wait until everything was visited once more from now on: those visits. Raises
        TimeoutError."""
        with self._round_over:
            # The round in progress began before now.
            wanted = self._rounds + 2
            if not self._round_over.wait_for(lambda: self._rounds >= wanted, ROUND):
                raise TimeoutError(f"no round in {ROUND} s")
            return self._last_round

    def _go_round(self) -> None:
        while not self._stopping:
            begun = len(self.visits)
            for endpoint in self._endpoints:
                self._visit(endpoint)
            with self._round_over:
                self._last_round = self.visits[begun:]
                self._rounds += 1
                self._round_over.notify_all()

    def _visit(self, endpoint: Endpoint) -> None:
        try:
            found: Sequence[str] = addresses(self._nameserver, endpoint.host)
        except (dns.exception.DNSException, OSError):
            found = ()
        if not found:
            self._note(endpoint, "", "", "", "the host has no address")
        for address in found:
            for name in endpoint.server_names:
                if self._stopping:
                    return
                try:
                    shown = handshake(self._proxy, address, endpoint.port, name or None)
                except OSError as error:
                    self._note(endpoint, address, name, "", f"no handshake: {error}")
                else:
                    wrong = problem(shown.chain, name, self._clock(), self._roots)
                    self._note(endpoint, address, name, shown.fingerprint, wrong)

    def _note(
        self, endpoint: Endpoint, address: str, name: str, fingerprint: str, wrong: str
    ) -> None:
        self.visits.append(
            Visit(self._clock(), endpoint.host, address, endpoint.port, name, fingerprint, wrong)
        )


# What a careful client looks at (RFC 5280, 6; RFC 9525).


def problem(
    chain: Sequence[bytes], server_name: str, at: datetime, roots: Sequence[str] = ()
) -> str:
    """Why a client would not accept this chain for the name at this time; empty where it would."""
    parsed = _parsed(tuple(chain))
    if server_name and not covers(_names(parsed[0]), server_name):
        return f"the certificate is not for {server_name}"
    for each in parsed:
        if not each.not_valid_before_utc <= at < each.not_valid_after_utc:
            return f"{each.subject.rfc4514_string()} is not valid at {at}"
    return _broken(tuple(chain), tuple(roots))


@lru_cache(1 << 10)
def _parsed(chain: tuple[bytes, ...]) -> tuple[x509.Certificate, ...]:
    return tuple(x509.load_der_x509_certificate(each) for each in chain)


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


@lru_cache(1 << 10)
def _broken(chain: tuple[bytes, ...], roots: tuple[str, ...]) -> str:
    parsed = _parsed(chain)
    for certificate, issuer in pairwise(parsed):
        if not _issued_by(certificate, issuer):
            return f"{certificate.subject.rfc4514_string()} is not issued by the one after it"
    trusted = [x509.load_pem_x509_certificate(root.encode()) for root in roots]
    if trusted and not any(parsed[-1] == root or _issued_by(parsed[-1], root) for root in trusted):
        return f"{parsed[-1].issuer.rfc4514_string()} is not trusted"
    return ""


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
