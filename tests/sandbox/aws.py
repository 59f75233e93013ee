"""A moto server of its own for each test of the sandbox's parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

REGION = "eu-central-1"


class Aws:
    """An endpoint with nothing in it, and clients for it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.session = boto3.Session(
            aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION
        )

    def client(self, service: Any) -> Any:
        config = Config(retries={"total_max_attempts": 1})
        return self.session.client(service, endpoint_url=self.endpoint, config=config)


@contextmanager
def moto() -> Iterator[Aws]:
    moto_api_backend.reset()
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield Aws(f"http://{host}:{port}")
    finally:
        server.stop()
