"""What clients get: a TLS connection to every address behind an endpoint, for every name that is
asked for there.

    addresses of the host, IPv4 and IPv6
      → a handshake as any client makes it: does the chain build, is the name right, whose is it?
      → another certificate: once more with the wanted key's type only, as a server with an ECDSA
        and an RSA certificate for the same names shows only one of them

Standard library and dnspython only: every deployer may carry it.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import dns.exception
import dns.nameserver
import dns.resolver

from certrail.bundle import short
from certrail.errors import DeployError
from certrail.keys import KeyType
from certrail.nameservers import Server, parse_servers
from certrail.target import Endpoint
from deployers.seen import Seen, Verdict

CONNECT_TIMEOUT = 5.0
# Of one connection, with its handshake, and of one name's addresses.
TIMEOUT = 10.0
AT_ONCE = 32
# What a proxy's answer to CONNECT is allowed to be long.
LONGEST_ANSWER = 16_384


@dataclass(frozen=True)
class Wanted:
    """The certificate that must be there. anchors: PEM, what its chain must lead to; None for the
    system's roots."""

    fingerprint: str
    key_type: KeyType
    anchors: str | None = None

    @cached_property
    def contexts(self) -> Mapping[tuple[bool, bool], ssl.SSLContext]:
        """By whether only the wanted key's type is offered, and whether a name is asked for."""
        return {
            (only, named): self._context(only, named)
            for only in (False, True)
            for named in (False, True)
        }

    def _context(self, only: bool, named: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = named
        if self.anchors is None:
            context.load_default_certs()
            _require_roots(context)
        else:
            context.load_verify_locations(cadata=self.anchors)
            # An anchor need not be a root.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if only:
            # In TLS 1.3 a key's type is no part of the cipher, and Python offers no other way.
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            kind = "aRSA" if self.key_type.is_rsa else "aECDSA"
            context.set_ciphers(f"ECDHE+{kind}")
        return context


def _require_roots(context: ssl.SSLContext) -> None:
    """Without any root every chain looks wrong, and a good certificate would be rolled back."""
    # Those of a directory are read when they are needed, and not counted before.
    folder = ssl.get_default_verify_paths().capath
    if not context.cert_store_stats()["x509_ca"] and not (folder and any(Path(folder).iterdir())):
        raise DeployError(
            "this machine has no root certificates, so nobody can tell here what clients believe",
            next="Install them (`ca-certificates`; `Install Certificates.command` of python.org's "
            "Python on macOS), or name a file of them in SSL_CERT_FILE",
        )


@dataclass(frozen=True)
class Network:
    """How endpoints are reached. nameservers: those to ask, in place of the system's. proxy: of
    HTTP, asked to CONNECT (RFC 9110, 9.3.6); None for directly."""

    nameservers: tuple[Server, ...] = ()
    proxy: Server | None = None

    @classmethod
    def from_environment(cls) -> Network:
        """`CERTRAIL_NAMESERVERS` and `CERTRAIL_PROXY`. Raises ValueError."""
        proxy = parse_servers(os.environ.get("CERTRAIL_PROXY", ""))
        return cls(
            parse_servers(os.environ.get("CERTRAIL_NAMESERVERS", "")), proxy[0] if proxy else None
        )

    def addresses(self, host: str) -> tuple[str, ...]:
        """All of them. Raises Unreachable where there are none."""
        resolver = dns.resolver.Resolver(configure=not self.nameservers)
        if self.nameservers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(each.host, each.port) for each in self.nameservers
            ]
        found: list[str] = []
        unanswered: dns.exception.DNSException | None = None
        for kind in ("A", "AAAA"):
            try:
                answer = resolver.resolve(
                    host, kind, lifetime=CONNECT_TIMEOUT, raise_on_no_answer=False, search=False
                )
            except dns.resolver.NXDOMAIN:
                raise Unreachable("there is no such name in the DNS") from None
            except dns.exception.DNSException as error:
                # Of the other family, the addresses are as good as ever.
                unanswered = error
                continue
            found += sorted(str(each) for each in answer.rrset or ())
        if not found and unanswered:
            raise Unreachable(
                f"the DNS gave no answer ({type(unanswered).__name__})"
            ) from unanswered
        if not found:
            raise Unreachable("the name has no address")
        return tuple(found)

    def connect(self, address: str, port: int) -> socket.socket:
        """Raises Unreachable."""
        try:
            if self.proxy is None:
                return socket.create_connection((address, port), CONNECT_TIMEOUT)
            there = socket.create_connection((self.proxy.host, self.proxy.port), CONNECT_TIMEOUT)
        except OSError as error:
            raise Unreachable(_reason(error)) from error
        try:
            _ask_to_connect(there, at(address, port))
        except BaseException:
            there.close()
            raise
        return there


class Unreachable(Exception):
    """No connection, so nothing is known of the certificate. Its text says why."""


def look(
    endpoints: Iterable[Endpoint], wanted: Wanted, way: Network, patience: timedelta
) -> dict[Endpoint, tuple[Seen, ...]]:
    """What clients get at each endpoint. patience: for all of it; what it does not suffice for is
    SKIPPED. Raises DeployError where there are no roots to judge by."""
    deadline = time.monotonic() + patience.total_seconds()
    assert wanted.contexts  # noqa: S101 (made before several threads want them)
    every = list(dict.fromkeys(endpoints))
    hosts = list(dict.fromkeys(endpoint.host for endpoint in every))
    # A name more would wait as long for nothing, and a hundred of them longer than there is time.
    away: dict[str, Seen] = {}

    def resolved(host: str) -> tuple[str, ...] | Seen:
        if time.monotonic() >= deadline:
            return Seen(host, "", Verdict.SKIPPED, "there was no time left to look")
        try:
            return way.addresses(host)
        except Unreachable as error:
            return Seen(host, "", Verdict.UNREACHABLE, str(error))

    def seen(one: tuple[Endpoint, str, str]) -> Seen:
        endpoint, address, name = one
        where = at(address, endpoint.port)
        if time.monotonic() >= deadline:
            return Seen(where, name, Verdict.SKIPPED, "there was no time left to look")
        if where in away:
            return replace(away[where], server_name=name)
        result = _look(where, address, endpoint.port, name, wanted, way)
        if result.verdict is Verdict.UNREACHABLE:
            away[where] = result
        return result

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(hosts, pool.map(resolved, hosts), strict=True))
        asked = [
            (endpoint, address, name)
            for endpoint in every
            if isinstance(addresses := found[endpoint.host], tuple)
            for address in addresses
            for name in endpoint.server_names
        ]
        # The first name everywhere: then it is known what cannot be reached. The rest one endpoint
        # after the other, in any order: where there is not the time for all, some are done with,
        # and others the next time.
        turns = dict(zip(every, random.sample(range(len(every)), len(every)), strict=True))
        asked.sort(
            key=lambda one: 0 if one[2] == one[0].server_names[0] else 1 + turns[one[0]],
        )
        shown = list(zip(asked, pool.map(seen, asked), strict=True))
    return {
        endpoint: (there,)
        if isinstance(there := found[endpoint.host], Seen)
        else tuple(each for (whose, _, _), each in shown if whose is endpoint)
        for endpoint in every
    }


def _look(where: str, address: str, port: int, name: str, wanted: Wanted, way: Network) -> Seen:
    """All that one client asks for, and perhaps another with fewer wishes."""
    first: Seen | None = None
    for only in (False, True):
        try:
            shown, distrust = _handshake(
                address, port, name, wanted.contexts[only, bool(name)], way
            )
        except Unreachable as error:
            result = Seen(where, name, Verdict.UNREACHABLE, f"cannot be reached ({error})")
        except (TimeoutError, ConnectionError) as error:
            # A firewall on the way takes the connection and lets no greeting pass.
            text = f"takes the connection, and no TLS comes back ({_reason(error)})"
            result = Seen(where, name, Verdict.UNREACHABLE, text)
        except OSError as error:
            reason = _reason(error)
            text = f"the TLS handshake fails ({reason})"
            result = Seen(where, name, Verdict.REFUSED, text)
            if first and reason == "TLSV1_ALERT_PROTOCOL_VERSION":
                alone = "it speaks TLS 1.3 only, in which nobody can ask for one kind of key"
                return replace(first, text=f"{first.text}; {alone}")
        else:
            if shown == wanted.fingerprint and distrust is None:
                return Seen(where, name, Verdict.GOOD, f"serves {short(shown)}", shown, True)
            if shown == wanted.fingerprint:
                text = f"serves {short(shown)}, which a client does not believe: {distrust}"
                return Seen(where, name, Verdict.UNTRUSTED, text, shown)
            text = f"serves {short(shown)}, not {short(wanted.fingerprint)}"
            result = Seen(where, name, Verdict.OTHER, text, shown, distrust is None)
        if result.verdict is not Verdict.OTHER:
            break
        first = first or result
    return first or result


def _handshake(
    address: str, port: int, name: str, context: ssl.SSLContext, way: Network
) -> tuple[str, str | None]:
    """The fingerprint of the certificate that is shown, and why a client would not believe it.
    Raises Unreachable where there is no connection, OSError where there is no handshake."""
    ends = time.monotonic() + TIMEOUT
    with closing(way.connect(address, port)) as there:
        there.settimeout(max(0.1, ends - time.monotonic()))
        with context.wrap_socket(
            there, server_hostname=name or None, do_handshake_on_connect=False
        ) as tls:
            distrust: str | None = None
            try:
                tls.do_handshake()
                leaf = tls.getpeercert(binary_form=True)
            except ssl.SSLCertVerificationError as error:
                distrust = error.verify_message.rstrip(". ") or "verification failed"
                leaf = _leaf(tls)
            except ssl.SSLError as error:
                # Up to TLS 1.2, a server that wants a certificate of the client's hangs up after it
                # has shown its own, which was believed. What the client minds is another matter: a
                # signature, say, that the certificate's key did not make.
                leaf = _leaf(tls)
                if not (leaf and _server_hung_up(error)):
                    raise
    if not leaf:
        raise ssl.SSLError(f"no certificate was shown ({distrust})")
    return hashlib.sha256(leaf).hexdigest(), distrust


def _server_hung_up(error: ssl.SSLError) -> bool:
    return isinstance(error, ssl.SSLEOFError) or "ALERT" in (error.reason or "")


def _leaf(tls: ssl.SSLSocket) -> bytes | None:
    """What the server showed in a handshake that failed over it: asked again without verifying, an
    address with several servers behind it could show something else. DER."""
    if hasattr(tls, "get_unverified_chain"):
        chain: list[bytes] = tls.get_unverified_chain()
        return chain[0] if chain else None
    # Before Python 3.13 it is there, and private.
    chain_of_3_11 = tls._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    if not chain_of_3_11:
        return None
    return ssl.PEM_cert_to_DER_cert(chain_of_3_11[0].public_bytes())


def _ask_to_connect(there: socket.socket, target: str) -> None:
    """Until the proxy has connected, it speaks; then the other end does, and not before we do."""
    try:
        there.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            if not (more := there.recv(4096)) or len(answer) > LONGEST_ANSWER:
                raise Unreachable("the proxy gave no whole answer")
            answer += more
    except OSError as error:
        raise Unreachable(f"the proxy: {_reason(error)}") from error
    status = answer.split(b"\r\n", 1)[0].decode("latin-1")
    if not status.partition(" ")[2].startswith("2"):
        raise Unreachable(f"the proxy answers `{status}`")


def at(address: str, port: int) -> str:
    """`198.18.0.4:443`, `[2001:db8::4]:443`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return error.strerror or str(error) or type(error).__name__
