"""One server for all tests of the sandbox's AWS; each test starts from an empty cloud."""

from collections.abc import Iterator

import pytest

from sandbox.server import Server
from tests.sandbox.aws import World


@pytest.fixture(scope="session")
def running_server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def server(running_server: Server) -> Server:
    running_server.reset()
    return running_server


@pytest.fixture
def world(server: Server) -> World:
    return World(server)
