"""Two fleets on one secret: what the canaries do not serve, the others never get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from textwrap import indent

import pytest

from certrail.pipelines import Pipelines, load
from certrail.records import Rollout
from certrail.store import CONFIG_KEY, Current, rollout_key
from deployers.kinds.all import AnyTarget
from deployers.rollout import plan
from deployers.verify import Network
from deployers.view import READERS, View, look_at
from deployers.watcher import Watcher
from fleet.document import document
from tests.certrail.bundles import NOW, authority
from tests.deployers.cloud import PIPELINE, Cloud
from tests.deployers.test_watcher import Heard
from tests.fleet.instances import SECRET, Client, Nginx, free_port, state_manager

MINUTE, RUN = timedelta(minutes=1), 120.0
FILE = """\
issuers:
  ca:
    directory: https://ca.example/directory
    trust: |
{root}
defaults: {{region: eu-central-1}}
pipelines:
  - name: shop
    domains: [shop.example.com, "*.shop.example.com"]
    waves: [{{name: first}}, {{name: rest}}]
    targets:
      - {{type: fleet, name: canary, instances: {{fleet: canary}}, secret: {secret},
         directory: /etc/certrail/web, stage: CANARY, wave: first, connect: "127.0.0.1:{port}",
         may_fail: "0"}}
      - {{type: fleet, name: web, instances: {{fleet: web}}, secret: {secret}, wave: rest,
         directory: /etc/certrail/web, connect: "127.0.0.1:{port}"}}
"""


@dataclass
class World:
    """A canary, and one of the others, and all functions at work."""

    cloud: Cloud
    folder: Path
    now: datetime = NOW
    heard: Heard = field(default_factory=Heard)
    machines: list[Nginx] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port = free_port()
        root = indent(authority().root, " " * 6)
        text = FILE.format(root=root, secret=SECRET, port=self.port)
        self.cloud.store.put_pipelines_text(text)
        self.file = load(text, CONFIG_KEY, Pipelines[AnyTarget])
        (self.pipeline,) = self.file.pipelines
        self.manager = state_manager(self.cloud)
        self.cloud.client("ssm").create_document(
            Content=json.dumps(document()), Name="certrail-install", DocumentType="Command"
        )
        self.watcher = Watcher(
            self.cloud.store, self.cloud.aws, Network(), self.heard, "watcher", lambda: self.now
        )

    def launch(self, number: int, fleet: str) -> Nginx:
        tags = {"fleet": fleet}
        made = Nginx.made(
            number, self.folder, self.port, self.cloud.endpoint, online=True, tags=tags
        )
        made.boot()
        self.machines.append(made)
        self.manager.launch(made.instance)
        return made

    def view(self) -> View:
        with ThreadPoolExecutor(READERS) as readers:
            return look_at(self.cloud.store, self.pipeline, readers)

    def deploy(self) -> None:
        """What the router and the deployers do, and the instances then."""
        while ready := [
            step.target
            for view in [self.view()]
            for step in plan(view.targets, view.current, view.records, self.now, gates=view.gates)
            if step.ready
        ]:
            for target in ready:
                self.cloud.deploy(target, now=self.now)
        assert self.manager.idle(RUN)

    def settle(self) -> None:
        """Everything that is to be done within a minute."""
        before: object = None
        while (view := self.view()) and (after := (view.current, view.records, view.rollout)) != (
            before
        ):
            before = after
            self.deploy()
            self.now += MINUTE
            self.watcher.watch(self.pipeline, {}, timedelta(seconds=20))

    @property
    def current(self) -> Current:
        current = self.cloud.store.current(PIPELINE)
        assert current
        return current

    @property
    def rollout(self) -> Rollout:
        found = self.cloud.store.read(rollout_key(PIPELINE), Rollout)
        assert found
        return found.value


@pytest.fixture
def world(cloud: Cloud, tmp_path: Path) -> Iterator[World]:
    tmp_path.chmod(0o755)
    made = World(cloud, tmp_path)
    yield made
    made.manager.idle(RUN)
    for each in made.machines:
        each.stop()


@pytest.mark.timeout(300)
def test_the_others_wait_until_the_canaries_serve_it(world: World) -> None:
    first = world.cloud.publish()
    for target in world.view().targets:
        for needed in target.needs:
            world.cloud.deploy(needed)
    canary, other = world.launch(1, "canary"), world.launch(2, "web")
    world.settle()
    assert world.rollout.done_at
    with Client(world.machines, authority().root) as client:
        canary.break_configuration()
        bad = world.cloud.publish()
        world.settle()
        # It did not work there: all is as it was, and the others were told nothing.
        assert world.current.rollback
        assert world.current.fingerprint == first.fingerprint
        assert (canary.serves, other.serves) == (first.fingerprint, first.fingerprint)
        assert bad.fingerprint not in {shown for _, shown in client.got}

        canary.mend_configuration()
        world.manager.schedule()
        world.settle()
        second = world.cloud.publish()
        world.deploy()
        # The canary's turn; the hour of the others' association comes, too.
        world.manager.schedule()
        assert world.manager.idle(RUN)
        assert (canary.serves, other.serves) == (second.fingerprint, first.fingerprint)

        world.settle()
        assert world.rollout.done_at
        assert (canary.serves, other.serves) == (second.fingerprint, second.fingerprint)
        client.round()
    assert client.failed == []
