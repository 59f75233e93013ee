"""A nameserver that can be told to know nothing of a name."""

from __future__ import annotations

import socketserver
import threading
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from moto.backends import get_backend


class TcpServer(socketserver.ThreadingTCPServer):
    # Pebble asks three times for each name, all at once.
    request_queue_size = 512
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
