"""The way from a client to what the emulated AWS serves: real TLS at made-up addresses.

One socket on 127.0.0.1 speaks HTTP CONNECT (RFC 9110, 9.3.6). `CONNECT 198.18.0.5:443 HTTP/1.1`
leads to whatever stands at that address now (`sandbox.fronts`), which shakes hands with the
certificate that AWS would show to this client, and answers one HTTP request. The sandbox's name
server knows the addresses.

Not as AWS: TLS 1.2 and 1.3 whatever the listener's or distribution's security policy says.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

from sandbox import fronts
from sandbox.fronts import Address, Certificate, Choice
from sandbox.part import Part

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
# How long a client may be silent, in seconds.
PATIENCE = 10
# ECDSA before RSA, as load balancers prefer it: of two certificates in one context OpenSSL shows
# the first that the client can use. Level 0: what AWS serves, old keys too, is the client's to
# refuse.
CIPHERS = "ECDHE+aECDSA+AESGCM:ECDHE+aECDSA:ECDHE+aRSA+AESGCM:ECDHE+aRSA:@SECLEVEL=0"
REQUEST_LIMIT = 1 << 16
BODY = b"served by the sandbox\n"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


class Edge(Part):
    """Listens on 127.0.0.1, as a context manager; port 0 is any free one. Needs moto in this
    process, with `sandbox.rules` installed, and nothing else."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._listener: _Listener | None = None
        self._thread: Thread | None = None

    def start(self) -> None:
        """Connect clients from now on. OSError if the port is taken."""
        self._listener = _Listener(self._port)
        self._thread = Thread(target=self._listener.serve_forever, args=(0.05,), name="edge")
        self._thread.start()

    def stop(self) -> None:
        """End every connection and thread. Calling it again changes nothing."""
        if self._listener is None or self._thread is None:
            return
        self._listener.shutdown()
        self._thread.join()
        self._listener.close_connections()
        self._listener.server_close()
        self._listener = self._thread = None

    @property
    def address(self) -> tuple[str, int]:
        """Of the proxy."""
        if self._listener is None:
            raise RuntimeError("the sandbox's edge is not running")
        return HOST, self._listener.server_address[1]


class _Listener(ThreadingMixIn, TCPServer):
    """A thread per connection."""

    allow_reuse_address = True
    request_queue_size = 128
    block_on_close = True

    def __init__(self, port: int) -> None:
        self._open: set[socket.socket] = set()
        self._lock = Lock()
        super().__init__((HOST, port), _Connection)

    @contextmanager
    def watching(self, connection: socket.socket) -> Iterator[None]:
        """Within the block, `close_connections` ends this one."""
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)

    def close_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                # One that is over, or has become TLS, is in there under another name or none.
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client may hang up, or not like what it is shown; anything else is a fault of ours.
        if not isinstance(sys.exception(), OSError):
            log.exception("a connection from %s could not be served", client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = PATIENCE
    # What follows the request is TLS, and not for this class to read.
    rbufsize = 0
    server: _Listener

    def handle(self) -> None:
        with self.server.watching(self.connection):
            self.handle_one_request()

    def do_CONNECT(self) -> None:
        try:
            address, port = _authority(self.path)
        except ValueError:
            self._refuse(HTTPStatus.BAD_REQUEST, f"{self.path} is no address and port")
            return
        front = fronts.at(address)
        if front is None:
            self._refuse(HTTPStatus.BAD_GATEWAY, f"nothing is at {address}")
        elif not front.is_public:
            # Packets to it get lost, out here.
            self._refuse(HTTPStatus.GATEWAY_TIMEOUT, f"{address} does not answer")
        elif (choice := front.choice(address, port)) is None:
            self._refuse(HTTPStatus.BAD_GATEWAY, f"{address} refuses connections to {port}")
        else:
            self.send_response_only(HTTPStatus.OK, "Connection established")
            self.end_headers()
            self._serve(choice)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        body = f"{reason}\n".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _serve(self, choice: Choice) -> None:
        """Be the server that stands there, for one request."""
        with (
            _choosing(choice).wrap_socket(
                self.connection, server_side=True, do_handshake_on_connect=False
            ) as tls,
            self.server.watching(tls),
        ):
            tls.do_handshake()
            request = b""
            while b"\r\n\r\n" not in request and len(request) < REQUEST_LIMIT:
                if not (more := tls.recv(4096)):
                    return
                request += more
            tls.sendall(ANSWER)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def _authority(text: str) -> tuple[Address, int]:
    """`198.18.0.5:443` or `[2001:db8::1]:443`. Raises ValueError."""
    parts = urlsplit(f"//{text}")
    if parts.hostname is None or parts.port is None:
        raise ValueError(text)
    return ip_address(parts.hostname), parts.port


# TLS.


def _choosing(choice: Choice) -> ssl.SSLContext:
    """A context that shows what `choice` says for the name that the client asks for."""
    context = _server_context()

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        certificates = choice(name.lower().rstrip(".") if name else None)
        if not certificates:
            return ssl.AlertDescription.ALERT_DESCRIPTION_HANDSHAKE_FAILURE
        connection.context = _showing(tuple(certificates))
        return None

    context.sni_callback = choose
    return context


@lru_cache(1 << 10)
def _showing(certificates: Sequence[Certificate]) -> ssl.SSLContext:
    """A context with these certificates, one for each key algorithm."""
    context = _server_context()
    for each in certificates:
        with tempfile.TemporaryDirectory(prefix="certrail-edge-") as folder:
            # Python reads them from files only; the folder is nobody else's.
            file = Path(folder, "pair.pem")
            file.write_bytes(each.fullchain.rstrip() + b"\n" + each.key)
            context.load_cert_chain(file)
    return context


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # Nobody resumes a session: every connection is to show a certificate.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    return context
