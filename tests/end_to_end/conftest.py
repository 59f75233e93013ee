"""The template's own functions, in a sandbox. One stack per worker; each test has pipelines of its
own, with names and resources that no other test uses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

from certrail.aws import Aws
from certrail.pipelines import Pipeline, Pipelines, load
from certrail.records import Record
from certrail.store import Current, Store, record_key
from cli.plan import plan
from cli.status import PipelineStatus, status
from cli.workspace import Workspace, issue_here
from deployers.kinds.all import AnyTarget
from sandbox import Sandbox
from sandbox.world import furnish

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
NUMBERS = itertools.count(1)
PATIENCE = 60.0


@dataclass
class World:
    """A pipeline `name` with resources of its own, in the deployed sandbox.

    distribution: its id. listener: its ARN. domain: what the pipeline's certificate is for. secret:
    its name. furnish makes those that a pipelines file names.
    """

    sandbox: Sandbox
    store: Store
    workspace: Workspace
    name: str

    @property
    def distribution(self) -> str:
        return f"E{self.name.upper().replace('-', '')}"

    @property
    def listener(self) -> str:
        number = self.name.rpartition("-")[2].zfill(16)
        return (
            "arn:aws:elasticloadbalancing:eu-central-1:123456789012:"
            f"listener/app/{self.name}/{number}/{number}"
        )

    @property
    def domain(self) -> str:
        return f"{self.name}.example.com"

    @property
    def secret(self) -> str:
        return f"tls/{self.name}/bundle"

    def client(self, service: Any, region: str = "eu-central-1") -> Any:
        return self.sandbox.session().client(
            service, endpoint_url=self.sandbox.endpoint, region_name=region
        )

    def text(self, targets: str, *, domains: str = "") -> str:
        """A pipelines file with this pipeline only; `targets` is the YAML of its list."""
        listed = indent(dedent(targets).strip(), " " * 6)
        return (
            f"issuers:\n  sandbox: {{directory: '{self.sandbox.directory}'}}\n"
            "defaults: {region: eu-central-1}\n"
            "pipelines:\n"
            f"  - name: {self.name}\n    domains: [{domains or self.domain}]\n"
            f"    targets:\n{listed}\n"
        )

    def everything(self) -> str:
        """One target of each kind."""
        return self.text(
            f"""
            - {{type: acm}}
            - {{type: apigateway, domain_name: {self.domain}}}
            - {{type: cloudfront, distribution: {self.distribution}}}
            - {{type: listener, listener: '{self.listener}', default: true}}
            - {{type: secretsmanager, name: {self.secret}}}
            """
        )

    def read(self, text: str) -> Pipelines[AnyTarget]:
        return load(text, "pipelines.yaml", Pipelines[AnyTarget])

    def furnish(self, text: str) -> None:
        furnish(self.read(text), self.sandbox.session(), self.sandbox.endpoint)

    def push(self, text: str, *, wait: bool = True) -> None:
        """What `certrail push` does, and then all that comes of it."""
        self.workspace.file.write_text(text)
        self.store.put_pipelines_text(text)
        if wait:
            self.settle()

    def settle(self) -> None:
        self.sandbox.functions.idle(PATIENCE)

    def pipeline(self) -> Pipeline[AnyTarget]:
        found = self.workspace.local().named(self.name)
        assert found
        return found

    def renew(self) -> Current:
        """Publish another certificate, as `certrail issue` does."""
        patience = timedelta(seconds=PATIENCE)
        current = issue_here(
            self.workspace, self.workspace.local(), self.pipeline(), patience, asked=True
        )
        assert current
        return current

    @property
    def current(self) -> Current:
        current = self.store.current(self.name)
        assert current
        return current

    def record(self, address: str) -> Record:
        found = self.store.read(record_key(self.name, address), Record)
        assert found, f"{address} has no record"
        return found.value

    def held(self) -> dict[str, str | None]:
        """By address, the fingerprint that AWS itself says each target holds."""
        (planned,) = plan(self.workspace, None, datetime.now(UTC))
        return {
            each.address: each.holds.fingerprint if each.holds else None for each in planned.targets
        }

    def status(self) -> PipelineStatus:
        (found,) = status(self.workspace, [self.name], datetime.now(UTC))
        return found


@pytest.fixture(scope="module")
def deployed(sandbox: Sandbox) -> Iterator[Sandbox]:
    sandbox.reset()
    sandbox.deploy(TEMPLATE)
    yield sandbox
    sandbox.reset()


@pytest.fixture
def world(deployed: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name, value in deployed.environment.items():
        monkeypatch.setenv(name, value)
    bucket = deployed.stack.outputs["BucketName"]
    name = f"p-{next(NUMBERS)}"
    store = Store(bucket, Aws(deployed.session()))
    yield World(deployed, store, Workspace(tmp_path / "pipelines.yaml", bucket), name)
    deployed.events.calm()
    deployed.functions.idle(PATIENCE)
