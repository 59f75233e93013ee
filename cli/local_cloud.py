"""The sandbox as the command starts it: the template deployed, the file's resources there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from certrail.aws import Aws
from certrail.errors import CertrailError
from certrail.pipelines import Pipelines, load
from certrail.store import Store
from cli import render
from deployers.kinds.all import AnyTarget
from sandbox import Sandbox
from sandbox.world import furnish

TEMPLATE = Path(__file__).parents[1] / "template.yaml"
# The directory of the sample file's issuer: where Pebble listens when that port is free.
DIRECTORY = "https://localhost:14000/dir"


@dataclass(frozen=True)
class LocalCloud:
    """A running sandbox with the template deployed. text: the pipelines file as it reads there."""

    sandbox: Sandbox
    store: Store
    text: str


@contextmanager
def local_cloud(text: str, name: str) -> Iterator[LocalCloud]:
    """Start everything that the pipelines file `text` needs. Nothing is pushed yet.

    Raises PipelinesInvalid before anything is started.
    """
    load(text, name, Pipelines[AnyTarget])
    if not TEMPLATE.exists():
        raise CertrailError(
            "there is no template.yaml beside the package",
            where=str(TEMPLATE),
            next="Run the sandbox from a clone of the repository",
        )
    with ExitStack() as running:
        with render.working("Starting AWS, CA and DNS, and deploying template.yaml"):
            sandbox = running.enter_context(Sandbox(acme_port=14000))
            stack = sandbox.deploy(TEMPLATE)
            sandbox.functions.warm()
            text = text.replace(DIRECTORY, sandbox.directory)
            furnish(load(text, name, Pipelines[AnyTarget]), sandbox.session(), sandbox.endpoint)
        yield LocalCloud(sandbox, Store(stack.outputs["BucketName"], Aws(sandbox.session())), text)


def serve(file: Path, text: str, as_json: bool) -> None:
    """Run the sandbox until Ctrl-C or a termination signal; say where it is once it is there."""
    over = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with local_cloud(text, str(file)) as cloud:
        sandbox = cloud.sandbox
        cloud.store.put_pipelines_text(cloud.text)
        environment = {**sandbox.environment, "CERTRAIL_BUCKET": cloud.store.bucket}
        if as_json:
            render.as_json({"directory": sandbox.directory, "environment": environment})
        else:
            _introduce(cloud, environment)
        # Not for ever: a signal that comes while this thread waits for its turn before it sleeps is
        # heard when it wakes.
        while not over.wait(1):
            pass


def _introduce(cloud: LocalCloud, environment: Mapping[str, str]) -> None:
    sandbox = cloud.sandbox
    render.line(f"AWS     {sandbox.endpoint}")
    render.line(f"ACME    {sandbox.directory}")
    render.line(f"DNS     {sandbox.dns[0]}:{sandbox.dns[1]}")
    render.line(f"TLS     {sandbox.edge.address[0]}:{sandbox.edge.address[1]}")
    render.line(f"bucket  {cloud.store.bucket}")
    render.line("\nIn another terminal:\n")
    for name, value in environment.items():
        render.line(f"export {name}={value}")
    render.line("unset AWS_PROFILE AWS_DEFAULT_PROFILE")
    render.line("certrail status")
    render.line(f"aws --endpoint-url {sandbox.endpoint} acm list-certificates")
    render.line("\nCtrl-C ends it and everything in it.")


def become_its_client(cloud: LocalCloud) -> None:
    """Point this process at the sandbox, as the exported lines do for a shell."""
    os.environ.update(cloud.sandbox.environment)
