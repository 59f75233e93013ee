"""Name servers as `CERTRAIL_NAMESERVERS` and the file say them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Server:
    """host: a name or an address."""

    host: str
    port: int = 53

    def __str__(self) -> str:
        return self.host if self.port == 53 else f"{self.host}:{self.port}"


def parse_servers(text: str) -> tuple[Server, ...]:
    """`127.0.0.1:5353,ns1.example.com,[::1]:53`. Raises ValueError."""
    return tuple(_server(part.strip()) for part in text.split(",") if part.strip())


def _server(text: str) -> Server:
    host, colon, port = text.rpartition(":")
    if not colon or (host.count(":") and not host.endswith("]")):
        return Server(text.strip("[]"))
    return Server(host.strip("[]"), int(port))
