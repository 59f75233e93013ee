"""The sandbox: AWS, a certificate authority and DNS on this machine, in one process and its
children, in which `template.yaml` runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import botocore.session

from sandbox import stack as stacks
from sandbox.dns import NameServer
from sandbox.edge import Edge
from sandbox.events import Events
from sandbox.functions import Functions
from sandbox.part import Part
from sandbox.pebble import Options, Pebble
from sandbox.server import Server
from sandbox.stack import Stack

ACCOUNT = "123456789012"
REGION = "eu-central-1"
CREDENTIALS = {"aws_access_key_id": "sandbox", "aws_secret_access_key": "sandbox"}
# The functions run from the source tree that this module is part of.
SOURCE = Path(__file__).parents[1]


class Sandbox(Part):
    """All parts together, as a context manager. One at a time in a process: moto's state is global.

    pebble: how the CA behaves. acme_port: its port if that is free, else any; 0 is any.
    region: of the stack and of sessions that ask for no other.
    verbose: what the functions log goes to stderr as well.

    server: the AWS endpoint, with its journal of calls. events: EventBridge, polite or rude.
    ca: Pebble, with its log and roots. nameserver: what answers for Route 53.
    edge: the proxy that leads to what distributions, load balancers and domains serve.
    """

    def __init__(
        self,
        *,
        pebble: Options | None = None,
        acme_port: int = 0,
        region: str = REGION,
        verbose: bool = False,
    ) -> None:
        self.server = Server()
        self.nameserver = NameServer()
        self.edge = Edge()
        self.events = Events()
        self.region = region
        self._pebble_options = pebble
        self._acme_port = acme_port
        self._verbose = verbose
        self._stack: Stack | None = None
        self._functions: Functions | None = None
        self._running = ExitStack()

    # Life.

    def start(self) -> None:
        """Return when all parts answer. Raises PebbleMissing or PebbleFailed."""
        with ExitStack() as running:
            self._folder = Path(
                running.enter_context(tempfile.TemporaryDirectory(prefix="certrail-sandbox-"))
            )
            running.enter_context(self.nameserver)
            self.ca = Pebble(self.dns, self._pebble_options, preferred_port=self._acme_port)
            running.callback(self.ca.stop)
            with ThreadPoolExecutor(1) as beside:
                # The first time, this fetches Pebble; loading moto takes a second every time.
                ca_started = beside.submit(self.ca.start)
                running.enter_context(self.server)
                ca_started.result()
            roots = range(1 + (self._pebble_options.alternate_roots if self._pebble_options else 0))
            self.roots.write_text("".join(self.ca.root(number) for number in roots))
            running.enter_context(self.edge)
            running.enter_context(self.events)
            self._write_aws_config()
            self._running = running.pop_all()

    def stop(self) -> None:
        """End every thread and child. Calling it again changes nothing."""
        try:
            self._stop_functions()
        finally:
            self._running.close()

    def reset(self) -> None:
        """AWS as it was at the start: nothing deployed, no resources, no calls. The CA stays."""
        self._stop_functions()
        self.events.calm()
        self.events.delivered.clear()
        self.events.held.clear()
        self.events.dropped.clear()
        self.server.reset()

    # The template.

    def deploy(self, template: Path, parameters: Mapping[str, str] | None = None) -> Stack:
        """Create or update the stack, and run its functions from then on. Raises StackFailed."""
        self._stack = stacks.deploy(
            template, self.endpoint, parameters or {}, session=self.session()
        )
        if self._functions is None:
            self._functions = Functions(
                self._stack,
                self.endpoint,
                SOURCE,
                events=self.events,
                environment={
                    "REQUESTS_CA_BUNDLE": str(self.ca_bundle),
                    "CERTRAIL_NAMESERVERS": self._nameservers,
                    "CERTRAIL_PROXY": self._proxy,
                    "SSL_CERT_FILE": str(self.roots),
                    "AWS_EC2_METADATA_DISABLED": "true",
                },
                verbose=self._verbose,
            )
            self._functions.start()
        else:
            self._functions.update(self._stack)
        return self._stack

    @property
    def is_deployed(self) -> bool:
        return self._stack is not None

    @property
    def stack(self) -> Stack:
        if self._stack is None:
            raise RuntimeError("nothing is deployed in the sandbox: call deploy() first")
        return self._stack

    @property
    def functions(self) -> Functions:
        if self._functions is None:
            raise RuntimeError("no functions run in the sandbox: call deploy() first")
        return self._functions

    def _stop_functions(self) -> None:
        functions, self._functions, self._stack = self._functions, None, None
        if functions is not None:
            functions.stop()

    # Where things are.

    @property
    def endpoint(self) -> str:
        """AWS, like http://127.0.0.1:40123"""
        return self.server.endpoint

    @property
    def directory(self) -> str:
        """The CA's ACME directory (RFC 8555, 7.1.1)."""
        return self.ca.directory

    @property
    def ca_bundle(self) -> Path:
        """PEM that Pebble's own TLS certificate chains to (not those it issues; see `ca.root`)."""
        return self.ca.ca_bundle

    @property
    def roots(self) -> Path:
        """PEM of the CA's roots, which are the system's roots of whoever is in this world."""
        return self._folder / "roots.pem"

    @property
    def dns(self) -> tuple[str, int]:
        """Address and port of the name server, UDP and TCP."""
        return self.nameserver.address

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process a client of the sandbox, and of nothing else of the user's. A
        profile that AWS_PROFILE may name is not in its configuration: unset that."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            **{name.upper(): value for name, value in CREDENTIALS.items()},
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_CONFIG_FILE": str(self._aws_config),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "REQUESTS_CA_BUNDLE": str(self.ca_bundle),
            "CERTRAIL_NAMESERVERS": self._nameservers,
            "CERTRAIL_PROXY": self._proxy,
            "SSL_CERT_FILE": str(self.roots),
        }

    def session(self, region: str | None = None, account: str | None = None) -> boto3.Session:
        """The administrator of an account; clients of this session go to the sandbox, whatever the
        environment says. region: `self.region` if not given; account: ACCOUNT."""
        core = botocore.session.Session()
        core.set_config_variable("config_file", str(self._aws_config))
        core.set_config_variable("credentials_file", os.devnull)
        core.set_config_variable("profile", "default")
        if account is not None:

            def in_account(**event: Any) -> None:
                # moto's own way to say whose call this is.
                event["request"].headers["x-moto-account-id"] = account

            core.register("before-sign", in_account)
        return boto3.Session(
            botocore_session=core, region_name=region or self.region, **CREDENTIALS
        )

    @property
    def _nameservers(self) -> str:
        return "{}:{}".format(*self.dns)

    @property
    def _proxy(self) -> str:
        return "{}:{}".format(*self.edge.address)

    @property
    def _aws_config(self) -> Path:
        return self._folder / "aws-config"

    def _write_aws_config(self) -> None:
        self._aws_config.write_text(f"[default]\nendpoint_url = {self.endpoint}\n")
