"""Killed at every step of an install: nginx serves a whole pair at all times, and the next run
finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from tests.fleet import killing
from tests.fleet.machine import Machine, Pair
from tests.fleet.servers import nginx

MOST = 100


@pytest.mark.timeout(600)
def test_killed_at_every_step(machine: Machine) -> None:
    installed = machine.publish()
    machine.install()
    server = nginx(machine.folder, machine.live)
    arguments = machine.arguments(*server.options)
    output = machine.folder / "output"
    outputs = (output, machine.folder / "errors")
    states = set()
    with server.running():
        for step in range(1, MOST):
            renewed = machine.publish()
            code = killing.run(arguments, os.environ, outputs, machine.directory, step)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            assert output.read_text() == ""
            # What is there is whole. What nginx has, and what it has after somebody else reloads
            # it now, is what is there or the one before.
            either = {installed.fingerprint, renewed.fingerprint}
            there = Pair.read(machine.live)
            assert there.matches
            served = server.serves
            assert {there.fingerprint, served} <= either
            subprocess.run(server.test, check=True, capture_output=True)
            subprocess.run(server.reload, check=True, capture_output=True)
            assert server.serves in either
            states.add((there.fingerprint == renewed.fingerprint, served == renewed.fingerprint))

            assert killing.run(arguments, os.environ, outputs) == 0
            after = json.loads(output.read_text())
            assert after["fingerprint"] == renewed.fingerprint
            assert machine.fingerprint == renewed.fingerprint
            assert server.comes_to_serve(renewed.fingerprint)
            assert len(machine.versions) == 2
            installed = renewed
    assert json.loads(output.read_text())["outcome"] == "installed"
    # Writing a version alone has more steps than this; and there were kills before the exchange,
    # between it and the reload, and after that.
    assert step > 20
    assert states == {(False, False), (True, False), (True, True)}
