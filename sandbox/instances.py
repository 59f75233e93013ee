"""EC2 instances whose Systems Manager agent really runs what State Manager tells it.

An instance is a folder: its `/etc` is below it, its programs stand in `bin/`, which is first on its
PATH, and its loopback is an address of its own in 127/8. It runs the script of a document's
`aws:runShellScript` as the agent does, with the environment that the agent sets.

Not modelled: an instance's registration, patches, sessions; everything of Run Command.

Sources:
  agent        https://docs.aws.amazon.com/systems-manager/latest/userguide/documents-command-ssm-plugin-reference.html
  environment  https://docs.aws.amazon.com/systems-manager/latest/userguide/ssm-agent-technical-details.html
  concurrency  https://docs.aws.amazon.com/systems-manager/latest/userguide/state-manager-associations-creating.html
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Event, Lock, Thread
from typing import Any

LOOPBACK = "127.0.0.1"


@dataclass
class Run:
    """What came of one run of a document on an instance. log: both outputs, for who looks."""

    association: str
    exit_code: int
    log: str


@dataclass
class Instance:
    """directory: its root. address: its loopback. environment: of what the agent runs, besides what
    the agent sets; the credentials of its role. slow: seconds that each run takes longer."""

    id: str
    tags: Mapping[str, str]
    directory: Path
    address: str
    environment: Mapping[str, str]
    online: bool = True
    slow: float = 0.0
    runs: list[Run] = field(default_factory=list)
    _turn: Lock = field(default_factory=Lock)
    _stopping: Event = field(default_factory=Event)

    def run(self, association: str, region: str, commands: Sequence[str]) -> Run:
        """One at a time, as the agent does it."""
        with self._turn:
            self._stopping.wait(self.slow)
            path = f"{self.directory / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
            done = subprocess.run(
                ["/bin/sh", "-c", "\n".join(commands)],
                env={
                    "PATH": path,
                    "AWS_SSM_INSTANCE_ID": self.id,
                    "AWS_SSM_REGION_NAME": region,
                    **self.environment,
                },
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            run = Run(association, done.returncode, done.stdout)
            self.runs.append(run)
            return run

    def here(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """The same parameters, where this instance has its files and its loopback."""
        return {
            name: f"{self.directory}{value}"
            if name == "Directory"
            else value.replace(LOOPBACK, self.address)
            if name == "Connect"
            else value
            for name, value in parameters.items()
        }


class StateManager:
    """The associations, instances and inventories of one account and region."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.associations: dict[str, dict[str, Any]] = {}
        self.instances: dict[str, Instance] = {}
        # By instance and type.
        self.inventory: dict[tuple[str, str], dict[str, Any]] = {}
        self._changed = Condition()
        self._at_work = 0

    # What a test does

    def launch(self, instance: Instance) -> None:
        """It is there, and, where it is online, runs what is for it."""
        self.instances[instance.id] = instance
        if instance.online:
            self.come_online(instance.id)

    def go_offline(self, name: str) -> None:
        self.instances[name].online = False

    def come_online(self, name: str) -> None:
        """It runs what it missed, or never had."""
        instance = self.instances[name]
        instance.online = True
        for association in list(self.associations.values()):
            if matches(instance, association["Targets"]):
                self._start(association, [instance])

    def schedule(self) -> None:
        """The time of every association has come."""
        for association in list(self.associations.values()):
            self.apply(association)

    def idle(self, timeout: float) -> bool:
        """Wait until nothing runs any more; whether that came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._at_work == 0, timeout)

    # What the service does

    def of(self, targets: Iterable[Mapping[str, Any]]) -> list[Instance]:
        wanted = list(targets)
        return [each for each in self.instances.values() if matches(each, wanted)]

    def apply(self, association: dict[str, Any]) -> None:
        """Run it now, on everyone who is online."""
        there = [each for each in self.of(association["Targets"]) if each.online]
        self._start(association, there)

    def _start(self, association: dict[str, Any], instances: list[Instance]) -> None:
        with self._changed:
            self._at_work += 1
        Thread(
            target=self._run, args=(dict(association), instances), name="agents", daemon=True
        ).start()

    def _run(self, association: dict[str, Any], instances: list[Instance]) -> None:
        errors = 0
        most = share(association["MaxErrors"] or "100%", len(instances))
        at_once = max(1, share(association["MaxConcurrency"] or "50", len(instances)))

        def one(instance: Instance) -> None:
            nonlocal errors
            # "The system stops sending the operation to additional targets" after so many.
            if errors > most or not instance.online:
                return
            given = {name: values[0] for name, values in association["Parameters"].items()}
            run = instance.run(
                association["AssociationId"],
                self.region,
                filled(association["commands"], instance.here(given)),
            )
            errors += run.exit_code != 0

        try:
            with ThreadPoolExecutor(at_once) as agents:
                list(agents.map(one, instances))
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()


def matches(instance: Instance, targets: Iterable[Mapping[str, Any]]) -> bool:
    return all(
        instance.tags.get(target["Key"].removeprefix("tag:")) in target["Values"]
        for target in targets
    )


def share(text: str, count: int) -> int:
    """`10%` of the count, or the number itself."""
    return math.floor(count * int(text[:-1]) / 100) if text.endswith("%") else int(text)


def filled(commands: Sequence[str], parameters: Mapping[str, str]) -> list[str]:
    """With the parameters put in, as text, wherever they stand."""
    made = []
    for line in commands:
        text = line
        for name, value in parameters.items():
            text = text.replace(f"{{{{ {name} }}}}", value)
        made.append(text)
    return made
