"""The command as a user calls it, in a sandbox without the template: it acts alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from certrail.aws import Aws
from certrail.pipelines import Pipelines, load
from certrail.store import Store
from cli.__main__ import main
from deployers.kinds.all import AnyTarget
from sandbox import Sandbox
from sandbox.world import furnish
from tests.buckets import make_bucket

BUCKET = "certrail-cli"

FILE = """\
issuers:
  sandbox: {directory: DIRECTORY}
defaults: {region: eu-central-1}
pipelines:
  - name: shop
    domains: [shop.example.com, "*.shop.example.com"]
    targets:
      - {type: acm}
      - {type: cloudfront, distribution: E1SHOPEXAMPLE1}
  - name: fleet
    domains: [mail.example.org]
    targets:
      - {type: secretsmanager, name: tls/fleet/bundle}
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Certrail = Callable[..., Result]


@pytest.fixture
def certrail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Certrail:
    def run(*arguments: str) -> Result:
        monkeypatch.setattr("sys.argv", ["certrail", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def file(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pipelines file of a world in which everything it names is there."""
    monkeypatch.setenv("CERTRAIL_BUCKET", BUCKET)
    make_bucket(BUCKET, Aws())
    text = FILE.replace("DIRECTORY", sandbox.directory)
    furnish(load(text, "f", Pipelines[AnyTarget]), sandbox.session(), sandbox.endpoint)
    path = tmp_path / "pipelines.yaml"
    path.write_text(text)
    monkeypatch.setenv("CERTRAIL_FILE", str(path))
    return path


@pytest.fixture
def store(file: Path) -> Store:
    return Store(BUCKET, Aws())
