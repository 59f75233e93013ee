"""Pebble, Route 53 and a nameserver for it, as the tests of the issuer need them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import trustme
from moto.backends import get_backend


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    hidden = ""


class UdpServer(socketserver.ThreadingUDPServer):
    hidden = ""


class Tcp(socketserver.StreamRequestHandler):
    server: TcpServer

    def handle(self) -> None:
        while size := self.rfile.read(2):
            reply = answer(self.rfile.read(int.from_bytes(size)), self.server.hidden)
            self.wfile.write(len(reply).to_bytes(2) + reply)


class Udp(socketserver.DatagramRequestHandler):
    server: UdpServer

    def handle(self) -> None:
        self.wfile.write(answer(self.rfile.read(), self.server.hidden))


class Nameserver:
    """Answers TXT questions from the Route 53 that moto emulates in this process; by TCP too, which
    is how Pebble asks. hidden: a name it knows nothing of."""

    def __init__(self, hidden: str = "") -> None:
        self._tcp = TcpServer(("127.0.0.1", 0), Tcp)
        self.port = int(self._tcp.server_address[1])
        self._udp = UdpServer(("127.0.0.1", self.port), Udp)
        self._tcp.hidden = self._udp.hidden = hidden
        self._threads = [
            threading.Thread(target=server.serve_forever, args=[0.05])
            for server in (self._tcp, self._udp)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for server in (self._tcp, self._udp):
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()


def answer(packet: bytes, hidden: str) -> bytes:
    query = dns.message.from_wire(packet)
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.AA
    name = query.question[0].name
    texts = [
        value
        for record in records()
        if record.type == "TXT" and record.name == name.to_text().lower() != f"{hidden}."
        for value in record.records
    ]
    if texts and query.question[0].rdtype == dns.rdatatype.TXT:
        reply.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", *texts))
    return reply.to_wire()


def records() -> list[Any]:
    backend: Any = get_backend("route53")
    zones = backend["123456789012"]["aws"].zones.values()
    return [record for zone in zones for record in zone.rrsets]


@dataclass(frozen=True)
class Pebble:
    directory: str
    ca_bundle: Path


@contextmanager
def pebble(
    folder: Path, nameserver: int, *, bad_nonces: int = 0, reuse: int = 0, chain: int = 1
) -> Iterator[Pebble]:
    program = shutil.which("pebble")
    assert program, "pebble is not on PATH"
    folder.mkdir(parents=True, exist_ok=True)
    ca = trustme.CA()
    own = ca.issue_cert("localhost", "127.0.0.1")
    own.private_key_pem.write_to_path(folder / "key.pem")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    port, management = free_port(), free_port()
    config = {
        "pebble": {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(folder / "cert.pem"),
            "privateKey": str(folder / "key.pem"),
            "httpPort": 5002,
            "tlsPort": 5001,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            "keyAlgorithm": "ecdsa",
            "domainBlocklist": ["blocked.example"],
            "retryAfter": {"authz": 0, "order": 0},
            "profiles": {
                "default": {"description": "90 days", "validityPeriod": 7776000},
            },
        }
    }
    (folder / "config.json").write_text(json.dumps(config))
    log = (folder / "log.txt").open("w")
    process = subprocess.Popen(
        [program, "-config", folder / "config.json", "-dnsserver", f"127.0.0.1:{nameserver}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_WFE_NONCEREJECT": str(bad_nonces),
            "PEBBLE_AUTHZREUSE": str(reuse),
            "PEBBLE_CHAIN_LENGTH": str(chain),
        },
    )
    assert process.stdout
    try:
        for line in process.stdout:
            if "ACME directory available" in line:
                break
        else:
            raise AssertionError("pebble did not start")
        drain = threading.Thread(target=lambda: [log.write(line) for line in process.stdout or ()])
        drain.start()
        yield Pebble(f"https://localhost:{port}/dir", folder / "ca.pem")
    finally:
        process.terminate()
        process.wait()
        drain.join()
        process.stdout.close()
        log.close()
