"""Real services, clients that never stop connecting, and everything that can go wrong with them."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.fleet.machine import Machine
from tests.fleet.servers import SERVERS, Client, Server, nginx

# A client may see the one before for as long as old workers take to let go of the port.


@pytest.mark.parametrize("name", SERVERS)
def test_no_connection_fails_while_the_certificate_changes(machine: Machine, name: str) -> None:
    server = SERVERS[name](machine.folder, machine.live)
    bundles = [machine.publish()]
    # As an image does it, before the service is there.
    machine.install(*(("--format", server.formats) if server.formats else ()))
    with server.running(), Client(server) as client:
        for _ in range(2):
            bundles.append(machine.publish())
            ran = machine.install(*server.options)
            assert (ran.code, ran.outcome, ran.said["served"]) == (0, "installed", True)
            client.round()
            assert server.comes_to_serve(bundles[-1].fingerprint)
        assert machine.install(*server.options).outcome == "unchanged"
    assert client.failed == []
    assert client.got[0] == bundles[0].fingerprint
    assert client.got[-1] == bundles[2].fingerprint
    assert set(client.got) == {each.fingerprint for each in bundles}
    assert client.connections > 10


@pytest.fixture
def server(machine: Machine) -> Iterator[Server]:
    """nginx that serves what is installed, and that nothing but it may change."""
    machine.publish()
    machine.install()
    with nginx(machine.folder, machine.live).running() as running:
        assert machine.install(*running.options).outcome == "unchanged"
        yield running


def check_put_back(machine: Machine, server: Server, installed: str) -> None:
    assert machine.fingerprint == installed
    assert server.comes_to_serve(installed)
    assert machine.versions == [machine.live.resolve().name]


def test_a_configuration_that_is_broken(machine: Machine, server: Server) -> None:
    installed = machine.fingerprint
    good = server.configuration.read_text()
    server.configuration.write_text(good.rstrip().removesuffix("}"))
    renewed = machine.publish()
    for _ in range(3):
        ran = machine.install(*server.options)
        assert (ran.code, ran.outcome) == (1, "failed")
        assert ran.error.startswith("the configuration test failed")
        assert "unexpected end of file" in ran.error
        assert ran.said["fingerprint"] == installed
        # What never worked does not pile up.
        check_put_back(machine, server, installed)
    # Nobody told the service of it, so nobody has to see that it is as before.
    ran = machine.install(*server.options, "--connect", "")
    assert (ran.code, ran.outcome) == (1, "failed")
    server.configuration.write_text(good)
    assert machine.install(*server.options).outcome == "installed"
    assert server.comes_to_serve(renewed.fingerprint)


def test_a_reload_that_fails(machine: Machine, server: Server) -> None:
    """Only where the new one is live: the way back is reloaded by the same command."""
    installed = machine.fingerprint
    machine.publish()
    reload_ = f"{shlex.join(server.reload)} && test {machine.fingerprint[:8]} = \
$(basename $(readlink {machine.live}) | cut -c8-15)"
    with Client(server) as client:
        ran = machine.install(*server.options, "--reload", shlex.join(["sh", "-c", reload_]))
    assert (ran.code, ran.outcome) == (1, "failed")
    assert ran.error.startswith("the reload failed")
    check_put_back(machine, server, installed)
    assert client.failed == []


def test_a_port_that_shows_another_certificate(machine: Machine, server: Server) -> None:
    """nginx reads its certificate from elsewhere: reloads go well, and nothing comes of it."""
    installed = machine.fingerprint
    elsewhere = machine.folder / "elsewhere"
    elsewhere.mkdir()
    for name in ("fullchain.pem", "privkey.pem"):
        (elsewhere / name).write_bytes((machine.live / name).read_bytes())
    configuration = server.configuration.read_text()
    server.configuration.write_text(configuration.replace(str(machine.live), str(elsewhere)))
    renewed = machine.publish()
    ran = machine.install(*server.options)
    assert (ran.code, ran.outcome) == (1, "failed")
    assert f"shows {installed} after 20 s, and not {renewed.fingerprint}" in ran.error
    assert f"{machine.live}" in ran.said["next"]
    check_put_back(machine, server, installed)


def test_the_way_back_fails_too(machine: Machine, server: Server) -> None:
    installed = machine.fingerprint
    machine.publish()
    stopping = shlex.join(["sh", "-c", f"{shlex.join(server.stop)}; false"])
    ran = machine.install(*server.options, "--reload", stopping)
    assert (ran.code, ran.outcome) == (4, "failed")
    assert "; and the way back failed, too: " in ran.error
    assert "look at it now" in ran.said["next"]
    assert machine.fingerprint == installed
    # Somebody looked.
    with server.running():
        assert server.serves == installed
        assert machine.install(*server.options).outcome == "installed"


def test_a_service_that_is_down_keeps_its_certificate(machine: Machine) -> None:
    """It was confirmed, and is no reason to go back to the one before."""
    machine.publish()
    machine.install()
    renewed = machine.publish()
    machine.install()
    server = nginx(machine.folder, machine.live)
    ran = machine.install(*server.options)
    assert (ran.code, ran.outcome) == (4, "failed")
    assert machine.fingerprint == ran.said["fingerprint"] == renewed.fingerprint
    with server.running():
        assert machine.install(*server.options).outcome == "unchanged"


def test_a_first_certificate_that_does_not_work_is_none(machine: Machine) -> None:
    machine.publish()
    ran = machine.install("--reload", "false")
    assert (ran.code, ran.outcome, ran.said["fingerprint"]) == (1, "failed", None)
    assert not machine.live.is_symlink()
    assert machine.versions == []


def test_a_reload_that_starts_the_service(machine: Machine) -> None:
    """The daemon keeps the outputs it was born with, and is not waited for."""
    bundle = machine.publish()
    server = nginx(machine.folder, machine.live)
    daemon = shlex.join(["sh", "-c", f"{shlex.join(server.start)}; sleep 300 &"])
    try:
        ran = machine.install(*server.options, "--reload", daemon)
        assert (ran.code, ran.outcome) == (0, "installed")
        assert server.serves == bundle.fingerprint
    finally:
        subprocess.run(server.stop, check=True, capture_output=True)


def test_no_such_command(machine: Machine) -> None:
    machine.publish()
    ran = machine.install("--test", "no-such-program -t")
    assert ran.error == "the configuration test could not run: there is no no-such-program"


# What `--service` runs where no systemd has the service


@pytest.mark.parametrize(
    ("service", "ran"),
    [
        ("nginx", ["nginx -t", "nginx -s reload"]),
        ("apache", ["apachectl configtest", "apachectl graceful"]),
        ("haproxy", ["haproxy -c -f /etc/haproxy/haproxy.cfg", "sh -c kill -USR2 "]),
    ],
)
def test_the_services_own_commands(machine: Machine, service: str, ran: list[str]) -> None:
    machine.publish()
    programs = machine.folder / "bin"
    programs.mkdir()
    journal = machine.folder / "journal"
    for name in ("nginx", "apachectl", "haproxy", "sh"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {journal}\n')
        program.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    assert machine.install("--service", service, environment={"PATH": path}).code == 0
    for expected, line in zip(ran, journal.read_text().splitlines(), strict=True):
        assert line.startswith(expected)
