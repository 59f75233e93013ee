"""A fleet of twenty with real nginx, of which some are offline, some broken, and one comes late."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from textwrap import indent

import pytest

from certrail.pipelines import Pipelines, load
from certrail.records import Check, Record, State
from certrail.store import CONFIG_KEY
from certrail.target import Target
from deployers.kinds.all import AnyTarget
from deployers.kinds.fleet import Fleet
from deployers.verify import Network
from deployers.watcher import Watcher
from fleet.document import document
from sandbox.instances import StateManager
from tests.certrail.bundles import NOW, authority
from tests.deployers.cloud import PIPELINE, Cloud
from tests.deployers.test_watcher import Heard
from tests.fleet.instances import SECRET, Client, Nginx, free_port, state_manager

HOUR = timedelta(hours=1)
RUN = 120.0
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
    targets:
      - type: fleet
        name: web
        instances: {{certrail: web}}
        secret: {secret}
        connect: 127.0.0.1:{port}
        concurrency: "25%"
        may_fail: "2"
"""


@dataclass
class World:
    cloud: Cloud
    folder: Path
    port: int
    now: datetime = NOW
    heard: Heard = field(default_factory=Heard)
    machines: list[Nginx] = field(default_factory=list)

    def __post_init__(self) -> None:
        text = FILE.format(root=indent(authority().root, " " * 6), secret=SECRET, port=self.port)
        self.cloud.store.put_pipelines_text(text)
        self.file = load(text, CONFIG_KEY, Pipelines[AnyTarget])
        (self.pipeline,) = self.file.pipelines
        self.cloud.client("ssm").create_document(
            Content=json.dumps(document()), Name="certrail-install", DocumentType="Command"
        )
        self.watcher = Watcher(
            self.cloud.store, self.cloud.aws, Network(), self.heard, "watcher", lambda: self.now
        )

    @property
    def target(self) -> Target:
        (target,) = self.pipeline.targets
        assert isinstance(target, Fleet)
        return target

    @property
    def manager(self) -> StateManager:
        return state_manager(self.cloud)

    def launch(self, number: int, *, online: bool = True) -> Nginx:
        made = Nginx.made(number, self.folder, self.port, self.cloud.endpoint, online)
        made.boot()
        self.machines.append(made)
        self.manager.launch(made.instance)
        return made

    def deploy(self) -> None:
        """Deploy, and let the instances do what they are told."""
        assert self.cloud.settle(self.target, now=self.now) == {}
        self.let_them_run()

    def let_them_run(self) -> None:
        assert self.manager.idle(RUN)

    def watch(self, later: timedelta = timedelta(0)) -> Check:
        self.now += later
        self.watcher.watch(self.pipeline, self.file.accounts, timedelta(seconds=20))
        check = self.record.check
        assert check
        return check

    @property
    def record(self) -> Record:
        return self.cloud.recorded(self.target)

    @property
    def state(self) -> str:
        return self.record.state.value


@pytest.fixture
def world(cloud: Cloud, tmp_path: Path) -> Iterator[World]:
    # Nothing but root may write above what the installer writes.
    tmp_path.chmod(0o755)
    made = World(cloud, tmp_path, free_port())
    yield made
    made.manager.idle(RUN)
    for each in made.machines:
        each.stop()


@pytest.mark.timeout(600)
def test_twenty_instances_of_which_some_are_offline_broken_or_late(world: World) -> None:
    first = world.cloud.publish(pipeline=PIPELINE)
    world.cloud.settle(*world.target.needs)
    for number in range(1, 21):
        world.launch(number)
    world.deploy()
    well = world.watch()
    assert world.state == State.SERVED
    assert set(well.nodes.values()) == {"serves it"}
    assert len(well.nodes) == 20

    offline, broken, good = world.machines[:3], world.machines[3:5], world.machines[5:]
    for each in offline:
        world.manager.go_offline(each.instance.id)
    for each in broken:
        each.break_configuration()
    with Client(world.machines, authority().root) as client:
        client.round()
        second = world.cloud.publish(pipeline=PIPELINE)
        world.deploy()
        client.round()
        some = world.watch()

        # Not served yet is not wrong yet; after an hour it is, and each is named.
        assert world.state == State.DEPLOYED
        assert {each.instance.id for each in good} == {
            name for name, said in some.nodes.items() if said == "serves it"
        }
        late = world.watch(HOUR)
        assert world.state == State.FAILED
        assert world.heard.what.count("check_failed") == 1
        assert "rolled_back" not in world.heard.what
        for each in offline:
            assert late.nodes[each.instance.id].startswith("offline")
            assert each.serves == first.fingerprint
        for each in broken:
            assert "unexpected end of file" in late.nodes[each.instance.id]
            assert each.instance.id in (world.record.error or "")
            assert each.serves == first.fingerprint
        assert {each.serves for each in good} == {second.fingerprint}

        newcomer = world.launch(21)
        for each in offline:
            world.manager.come_online(each.instance.id)
        world.let_them_run()
        client.round()
        assert {each.serves for each in (*offline, newcomer)} == {second.fingerprint}

        for each in broken:
            each.mend_configuration()
        world.manager.schedule()
        world.let_them_run()
        client.round()
        done = world.watch(HOUR)
    assert world.state == State.SERVED
    assert "recovered" in world.heard.what
    assert set(done.nodes.values()) == {"serves it"}
    assert len(done.nodes) == 21
    assert client.failed == []
    assert sum(client.got.values()) > 200
    assert {shown for _, shown in client.got} == {first.fingerprint, second.fingerprint}


@pytest.mark.timeout(300)
def test_nothing_that_anybody_keeps_has_the_key(world: World) -> None:
    current = world.cloud.publish(pipeline=PIPELINE)
    world.cloud.settle(*world.target.needs)
    machine = world.launch(1)
    world.deploy()
    world.watch()
    key = world.cloud.store.bundle(current).private_key.reveal()
    secret_lines = [line for line in key.splitlines() if len(line) > 40]
    assert secret_lines
    kept = [run.log for run in machine.instance.runs]
    kept += [json.dumps(each, default=str) for each in world.manager.associations.values()]
    kept += [json.dumps(each, default=str) for each in world.manager.inventory.values()]
    kept += [
        json.dumps(call.params, default=str)
        for call in world.cloud.server.calls.all()
        if call.action.startswith("ssm:")
    ]
    assert machine.instance.runs
    assert not [line for text in kept for line in secret_lines if line in text]
