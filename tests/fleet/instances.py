"""Instances of a fleet: nginx of their own, and clients that never stop connecting to it."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread

from fleet import certrail_install
from sandbox.instances import Instance, StateManager
from sandbox.rules import statemanager
from tests.deployers.cloud import ACCOUNT, OURS, REGION, Cloud

TAGS = {"certrail": "web"}
DIRECTORY = "/etc/certrail/web"
SECRET = "tls/shop/bundle"
NGINX = """\
pid {root}/nginx.pid;
error_log {root}/error.log;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  {paths}
  server {{
    listen {address}:{port} ssl;
    ssl_certificate {root}{directory}/live/fullchain.pem;
    ssl_certificate_key {root}{directory}/live/privkey.pem;
    return 204;
  }}
}}
"""
PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
PATIENCE = 30.0


def state_manager(cloud: Cloud) -> StateManager:
    assert cloud.server
    return statemanager.state_manager(ACCOUNT, REGION)


def instance(
    number: int,
    directory: Path = Path("/nowhere"),
    *,
    tags: Mapping[str, str] = TAGS,
    online: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Instance:
    """Its loopback is 127.0.1.<number>."""
    return Instance(
        id=f"i-{number:017x}",
        tags=tags,
        directory=directory,
        address=f"127.0.1.{number}",
        environment=environment or {},
        online=online,
    )


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


@dataclass
class Nginx:
    """An instance that serves its certificate with an nginx of its own."""

    instance: Instance
    port: int

    @classmethod
    def made(
        cls,
        number: int,
        folder: Path,
        port: int,
        endpoint: str,
        online: bool,
        tags: Mapping[str, str] = TAGS,
    ) -> Nginx:
        root = folder / str(number)
        for name in ("bin", "etc/nginx", "spool"):
            (root / name).mkdir(parents=True)
        here = instance(
            number,
            root,
            tags=tags,
            online=online,
            environment={
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": OURS,
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_DEFAULT_REGION": REGION,
                "HOME": str(root),
            },
        )
        made = cls(here, port)
        configuration = root / "etc/nginx/nginx.conf"
        configuration.write_text(
            NGINX.format(
                root=root,
                address=here.address,
                port=port,
                directory=DIRECTORY,
                paths=" ".join(f"{name}_temp_path {root}/spool/{name};" for name in PATHS),
            )
        )
        made._program("nginx", f'exec /usr/sbin/nginx -p {root} -c {configuration} "$@"')
        made._program("python3", f'exec {sys.executable} "$@"')
        # What systemd does on an instance that has it.
        made._program("systemctl", f"exec {root}/bin/nginx -s reload")
        return made

    def _program(self, name: str, line: str) -> None:
        program = self.instance.directory / "bin" / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)

    @property
    def configuration(self) -> Path:
        return self.instance.directory / "etc/nginx/nginx.conf"

    def boot(self) -> None:
        """What its image does before the agent is there: the certificate, then nginx."""
        done = subprocess.run(
            [
                *(sys.executable, certrail_install.__file__, "--secret", SECRET),
                *("--region", REGION, "--service", "none"),
                *("--directory", f"{self.instance.directory}{DIRECTORY}"),
            ],
            env={**os.environ, **self.instance.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        subprocess.run([self.instance.directory / "bin/nginx"], check=True)

    def break_configuration(self) -> None:
        self.configuration.write_text(self.configuration.read_text().rstrip().removesuffix("}"))

    def mend_configuration(self) -> None:
        self.configuration.write_text(self.configuration.read_text() + "}\n")

    def stop(self) -> None:
        pid = self.instance.directory / "nginx.pid"
        if pid.exists():
            quit_ = ["/bin/kill", "-TERM", pid.read_text().strip()]
            subprocess.run(quit_, check=False, capture_output=True)

    @property
    def serves(self) -> str:
        """The fingerprint that a client gets."""
        return handshake(self.instance.address, self.port, None)


def handshake(address: str, port: int, trusted: ssl.SSLContext | None) -> str:
    """Connect as a client does; with `trusted`, one that believes only what leads there."""
    context = trusted
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((address, port), 10) as connection,
        context.wrap_socket(connection, server_hostname="shop.example.com") as tls,
    ):
        shown = tls.getpeercert(binary_form=True)
        assert shown
        return hashlib.sha256(shown).hexdigest()


@dataclass
class Client:
    """Connects to one instance after the other, without end, and believes the root only.

    got: how often which fingerprint came from which instance. failed: what went wrong.
    """

    machines: list[Nginx]
    root: str
    got: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    rounds: int = 0
    _stopping: bool = False
    _turned: Condition = field(default_factory=Condition)
    _thread: Thread | None = None

    def __enter__(self) -> Client:
        self._thread = Thread(target=self._connect, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        assert self._thread
        self._thread.join()

    def round(self) -> None:
        """Wait until it was everywhere once more, from now on."""
        with self._turned:
            wanted = self.rounds + 2
            assert self._turned.wait_for(lambda: self.rounds >= wanted, PATIENCE)

    def _connect(self) -> None:
        context = ssl.create_default_context(cadata=self.root)
        while not self._stopping:
            for each in list(self.machines):
                try:
                    shown = handshake(each.instance.address, each.port, context)
                except (OSError, ssl.SSLError) as error:
                    self.failed.append(f"{each.instance.id}: {error!r}")
                else:
                    self.got[each.instance.id, shown] += 1
            with self._turned:
                self.rounds += 1
                self._turned.notify_all()
