"""nginx, HAProxy and Apache of Debian, each with a configuration of its own on loopback."""

from __future__ import annotations

import shlex
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread

from tests.certrail.bundles import authority
from tests.fleet.instances import PATHS, free_port, handshake

ADDRESS = "127.0.0.1"
PATIENCE = 30.0


@dataclass
class Server:
    """folder: has its configuration, its programs in `bin/`, and what the installer writes."""

    name: str
    folder: Path
    port: int
    configuration: Path
    start: list[str]
    test: list[str]
    reload: list[str]
    stop: list[str]
    formats: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        """What certrail-install is told about it: the test and the reload are the service's own,
        with this configuration."""
        return (
            *("--test", shlex.join(self.test), "--reload", shlex.join(self.reload)),
            *("--connect", f"{ADDRESS}:{self.port}"),
            *(("--format", self.formats) if self.formats else ()),
        )

    @property
    def serves(self) -> str:
        return handshake(ADDRESS, self.port, None)

    def comes_to_serve(self, fingerprint: str) -> bool:
        """Connect until it does: after a reload the processes before accept for a moment still."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.serves == fingerprint:
                return True
        return False

    @contextmanager
    def running(self) -> Iterator[Server]:
        subprocess.run(self.start, check=True, capture_output=True)
        try:
            yield self
        finally:
            # It may be down by now: some tests are about that.
            subprocess.run(self.stop, check=False, capture_output=True)


def nginx(folder: Path, live: Path) -> Server:
    port = free_port()
    configuration = folder / "nginx.conf"
    paths = " ".join(f"{name}_temp_path {folder}/{name};" for name in PATHS)
    configuration.write_text(f"""\
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  {paths}
  server {{
    listen {ADDRESS}:{port} ssl;
    ssl_certificate {live}/fullchain.pem;
    ssl_certificate_key {live}/privkey.pem;
    return 204;
  }}
}}
""")
    command = ["/usr/sbin/nginx", "-p", str(folder), "-c", str(configuration)]
    return Server(
        *("nginx", folder, port, configuration, command),
        test=[*command, "-t"],
        reload=[*command, "-s", "reload"],
        stop=[*command, "-s", "stop"],
    )


def haproxy(folder: Path, live: Path) -> Server:
    port = free_port()
    configuration = folder / "haproxy.cfg"
    configuration.write_text(f"""\
global
  stats socket {folder}/stats.sock mode 600 level admin expose-fd listeners
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend https
  bind {ADDRESS}:{port} ssl crt {live}/haproxy.pem
  http-request return status 204
""")
    pid = folder / "haproxy.pid"
    command = ["/usr/sbin/haproxy", "-f", str(configuration)]
    return Server(
        *("haproxy", folder, port, configuration),
        start=[*command, "-W", "-D", "-p", str(pid)],
        test=[*command, "-c"],
        reload=["sh", "-c", f'kill -USR2 "$(cat {pid})"'],
        stop=["sh", "-c", f'kill -TERM "$(cat {pid})"'],
        formats="haproxy",
    )


def apache(folder: Path, live: Path) -> Server:
    port = free_port()
    configuration = folder / "apache2.conf"
    configuration.write_text(f"""\
ServerRoot {folder}
ServerName shop.example.com
PidFile {folder}/apache2.pid
DefaultRuntimeDir {folder}
ErrorLog {folder}/error.log
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule socache_shmcb_module /usr/lib/apache2/modules/mod_socache_shmcb.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
User nobody
Group nogroup
StartServers 1
Listen {ADDRESS}:{port}
DocumentRoot {folder}
SSLEngine on
SSLCertificateFile {live}/fullchain.pem
SSLCertificateKeyFile {live}/privkey.pem
""")
    command = ["/usr/sbin/apache2", "-f", str(configuration)]
    return Server(
        *("apache", folder, port, configuration),
        start=[*command, "-k", "start"],
        test=[*command, "-t"],
        reload=[*command, "-k", "graceful"],
        stop=[*command, "-k", "stop"],
    )


SERVERS = {"nginx": nginx, "haproxy": haproxy, "apache": apache}


class Client:
    """Connects without end, and believes only what leads to the root.

    got: the fingerprints that it got, each once, as they came. failed: what went wrong.
    """

    def __init__(self, server: Server) -> None:
        self._port = server.port
        self._trusted = ssl.create_default_context(cadata=authority().root)
        self.got: list[str] = []
        self.failed: list[str] = []
        self.connections = 0
        self._stopping = False
        self._turned = Condition()
        self._thread = Thread(target=self._connect, daemon=True)

    def __enter__(self) -> Client:
        self._thread.start()
        self.round()
        return self

    def __exit__(self, *_: object) -> None:
        self.round()
        self._stopping = True
        self._thread.join()

    def round(self) -> None:
        """Wait until it has connected once more, from now on."""
        with self._turned:
            wanted = self.connections + 2
            assert self._turned.wait_for(lambda: self.connections >= wanted, PATIENCE)

    def _connect(self) -> None:
        while not self._stopping:
            try:
                shown = handshake(ADDRESS, self._port, self._trusted)
            except OSError as error:
                self.failed.append(repr(error))
            else:
                if shown not in self.got[-1:]:
                    self.got.append(shown)
            with self._turned:
                self.connections += 1
                self._turned.notify_all()
