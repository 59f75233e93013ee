"""What a client needs to get to what the cloud serves: its name server and its proxy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from certrail.nameservers import Server
from deployers.verify import Network
from sandbox.dns import NameServer
from sandbox.edge import Edge


@contextmanager
def internet() -> Iterator[Network]:
    with ExitStack() as running:
        nameserver = running.enter_context(NameServer())
        edge = running.enter_context(Edge())
        yield Network((Server(*nameserver.address),), Server(*edge.address))
