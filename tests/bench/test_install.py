"""bench.install runs, once instead of seven times."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bench import install


@pytest.fixture
def environment() -> Iterator[None]:
    """The bench is a process of its own, and sets what it likes."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("environment")
def test_what_was_installed_is_served(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "ROUNDS", 1)
    assert install.main() == 0
    said = capsys.readouterr().out
    assert "secret to served, 1 times" in said
    assert "ratio: " in said
