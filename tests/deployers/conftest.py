"""One moto server with every rule installed; each test starts from an empty cloud."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from sandbox import rules
from tests.deployers.cloud import Cloud


@pytest.fixture(scope="package")
def moto() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    rules.install()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="package")
def one_cloud(moto: str) -> Iterator[Cloud]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", moto)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        yield Cloud(moto)


@pytest.fixture
def cloud(one_cloud: Cloud) -> Cloud:
    one_cloud.reset()
    return one_cloud


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore's own retries without their waiting."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", _at_once)


def _at_once(*_: object) -> float:
    return 0.0
