"""The sandbox's AWS, in which each test starts from nothing but a bucket; and what happened in all
random histories together."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from deployers import handler, router
from sandbox.server import Server
from tests.deployers.cloud import OURS, REGION, Cloud


@pytest.fixture(scope="package")
def one_cloud() -> Iterator[Cloud]:
    with Server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        # What another server's tests in this process left warm.
        handler._aws.cache_clear()
        router._aws.cache_clear()
        yield Cloud(server)


@pytest.fixture
def cloud(one_cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.setenv("AWS_ENDPOINT_URL", one_cloud.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", OURS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    one_cloud.reset()
    return one_cloud


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore's own retries without their waiting."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", _at_once)


def _at_once(*_: object) -> float:
    return 0.0


@pytest.fixture
def lambda_logs() -> Iterator[None]:
    """Entry points set logging up for their process; afterwards it is the test run's again."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    happened: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        happened.update(dict(report.user_properties).get("happened", {}))
    if happened:
        histories = happened.pop("histories")
        terminalreporter.section(f"{histories:,} random histories, and what happened in them")
        for what in sorted(happened):
            terminalreporter.write_line(f"{happened[what]:>12,}  {what}")
