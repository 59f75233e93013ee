"""A zone in the sandbox for each test, and BIND where a test asks for it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from certrail.aws import Aws
from sandbox import Sandbox
from tests.issuer.dns.bind import Bind
from tests.issuer.dns.world import World


@pytest.fixture
def world(sandbox: Sandbox) -> World:
    world = World(sandbox, Aws(), f"z{uuid.uuid4().hex[:12]}.example")
    world.hosted_zone(world.zone)
    return world


@pytest.fixture
def bind() -> Iterator[Bind]:
    """A zone of its own, whose challenge name has a record of somebody else already."""
    zone = f"b{uuid.uuid4().hex[:12]}.example"
    with Bind(zone, '_acme-challenge TXT "theirs"') as running:
        yield running
