"""An AWS endpoint with nothing in it, for the tests of stacks, events and functions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config

from sandbox.server import Server

REGION = "eu-central-1"


class Cloud:
    """The endpoint, and clients that may do everything."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.endpoint = server.endpoint
        self.session = boto3.Session(
            aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION
        )

    def client(self, service: Any) -> Any:
        config = Config(retries={"total_max_attempts": 1})
        return self.session.client(service, endpoint_url=self.endpoint, config=config)


@contextmanager
def cloud() -> Iterator[Cloud]:
    with Server() as server:
        server.reset()
        yield Cloud(server)
