"""`certrail sandbox` as a user runs it: from a shell with settings of its own, until Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cli.local_cloud import DIRECTORY
from tests.cli.conftest import FILE


@pytest.mark.parametrize("form", ["text", "json"])
def test_it_says_how_to_use_it_and_ends_with_everything_in_it(tmp_path: Path, form: str) -> None:
    file = tmp_path / "pipelines.yaml"
    file.write_text(FILE.replace("DIRECTORY", DIRECTORY))
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    certrail = [sys.executable, "-m", "cli"]
    with subprocess.Popen(
        [*certrail, "sandbox", "--file", str(file), *(["--json"] if form == "json" else [])],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"AWS_PROFILE": "nowhere", "TMPDIR": str(scratch)},
    ) as running:
        assert running.stdout is not None
        said = ""
        for line in running.stdout:
            said += line
            if line.startswith(("Ctrl-C", "}")):
                break
        exported = (
            json.loads(said)["environment"]
            if form == "json"
            else dict(re.findall(r"^export (\w+)=(.*)$", said, re.MULTILINE))
        )
        status = subprocess.run(
            [*certrail, "status", "--json"],
            check=False,
            stdout=subprocess.PIPE,
            env=os.environ | exported,
        )
        children = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(signal.SIGINT)
    assert [each["pipeline"] for each in json.loads(status.stdout)] == ["shop", "fleet"]
    # Pebble and the template's functions.
    assert len(children) > 5
    assert running.returncode == 0
    assert not [child for child in children if child.is_running()]
    assert not list(scratch.iterdir())
