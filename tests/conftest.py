"""What all tests share: no way out to a real AWS, and one sandbox per worker."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sandbox import Sandbox


@pytest.fixture(scope="session", autouse=True)
def no_real_aws() -> Iterator[None]:
    """No credentials, profile, endpoint or CA of whoever runs the tests gets in."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AWS_", "CERTRAIL_", "PEBBLE_")):
                patch.delenv(name)
        patch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def sandbox(no_real_aws: None) -> Iterator[Sandbox]:
    """The worker's sandbox, with nothing deployed in it. Who deploys resets it, too."""
    with Sandbox() as running:
        yield running


@pytest.fixture(autouse=True)
def aws_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test uses the sandbox, this process is its client, and what the test before left in
    AWS is gone; but not a deployed template, which belongs to all tests of its module."""
    if "sandbox" not in request.fixturenames:
        return
    running: Sandbox = request.getfixturevalue("sandbox")
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    if not running.is_deployed:
        running.reset()
