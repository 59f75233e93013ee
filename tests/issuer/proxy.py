"""A server in front of another that answers some requests itself."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass(frozen=True)
class Answer:
    """status 0: the connection ends without an answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Proxy(ThreadingHTTPServer):
    """Before a request is passed on, `instead` may answer it. `after` may replace the answer of one
    that was. `seen`: method and path of each request."""

    daemon_threads = True

    def __init__(self, upstream: str, ca_bundle: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = urlsplit(upstream)
        self.trust = ssl.create_default_context(cafile=ca_bundle)
        self.instead: Callable[[str, str], Answer | None] = lambda method, path: None
        self.after: Callable[[str, str], Answer | None] = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        self.payloads: list[dict[str, Any] | None] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        host, port = self.upstream.hostname or "", self.upstream.port
        connection = http.client.HTTPSConnection(host, port, context=self.trust)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            kept = {k: v for k, v in response.headers.items() if k.lower() not in HOP_BY_HOP}
            return Answer(response.status, kept, response.read())
        finally:
            connection.close()


class Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path))
        self.server.payloads.append(_payload(body))
        answer = self.server.instead(self.command, self.path)
        if answer is None:
            # Host is passed on as it came: Pebble makes its URLs from it.
            answer = self.server.forward(self.command, self.path, dict(self.headers), body)
            answer = self.server.after(self.command, self.path) or answer
        if answer.status == 0:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_POST = do_HEAD = do_PUT = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


def _payload(body: bytes) -> dict[str, Any] | None:
    """What a JWS signs (RFC 7515, 7.2.2)."""
    try:
        text = json.loads(body)["payload"]
        said = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, KeyError):
        return None
    return said if isinstance(said, dict) else None


@contextmanager
def in_front_of(upstream: str, ca_bundle: Path, folder: Path) -> Iterator[Proxy]:
    """A proxy of a server that `ca_bundle` vouches for. Its own root is ca.pem in `folder`."""
    proxy = Proxy(upstream, ca_bundle)
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    ca.cert_pem.write_to_path(folder / "ca.pem")
    proxy.socket = context.wrap_socket(proxy.socket, server_side=True)
    thread = threading.Thread(target=proxy.serve_forever, args=[0.05])
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


def problem(status: int, kind: str, detail: str, **headers: str) -> Answer:
    body = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(
        status, named | {"Content-Type": "application/problem+json"}, json.dumps(body).encode()
    )


def once(part: str, answer: Answer, times: int = 1) -> Callable[[str, str], Answer | None]:
    left = [answer] * times

    def fault(method: str, path: str) -> Answer | None:
        return left.pop() if part in path and method == "POST" and left else None

    return fault
