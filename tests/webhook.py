"""A webhook that really takes messages: an HTTPS server with a CA of its own."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import trustme

PATH = "/services/T000/B000/the-secret-part"


@dataclass(frozen=True)
class Answer:
    status: int
    body: str = "ok"
    headers: Mapping[str, str] = field(default_factory=dict)


class Webhook:
    """url: with its secret path. ca: PEM file of its root. answers: given in order, and then the
    last one for ever. taken: what was posted, each with how it was answered."""

    def __init__(self, port: int, ca: Path) -> None:
        self.port = port
        self.ca = ca
        self.answers: list[Answer] = [Answer(200)]
        self.taken: list[tuple[str, dict[str, str], Any, int]] = []

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}{PATH}"

    @property
    def messages(self) -> Sequence[Any]:
        """The bodies that were answered with 200."""
        return [body for _, _, body, status in self.taken if status == 200]

    def answer(self, path: str, headers: dict[str, str], body: Any) -> Answer:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.taken.append((path, headers, body, answer.status))
        return answer


@contextmanager
def webhook(folder: Path, host: str = "localhost") -> Iterator[Webhook]:
    """host: what its certificate is for."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "webhook-ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = there.answer(self.path, dict(self.headers), body)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body.encode())

        do_GET = do_POST  # noqa: N815 (the server's name for it)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        there = Webhook(server.server_address[1], folder / "webhook-ca.pem")
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield there
        finally:
            server.shutdown()
            thread.join()
