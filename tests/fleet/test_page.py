"""What docs/fleet.md says of the installer is what the installer does, and its examples work."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from fleet import certrail_install
from fleet.certrail_install import Result
from tests.deployers.cloud import ACCOUNT
from tests.fleet.machine import Machine

PAGE = (Path(__file__).parents[2] / "docs/fleet.md").read_text()
SOURCE = ast.parse(Path(certrail_install.__file__).read_text())
RAISED = {"Problem", "refused"}


def said_in_the_code() -> set[str]:
    """Each error, with `…` where something is put in. `what` is where one of two is chosen."""
    said = set()
    for node in ast.walk(SOURCE):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in RAISED:
                said.add(written(node.args[0]))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "what":
            said.add(written(node.value))
    return said - {""}


def written(text: ast.expr) -> str:
    if isinstance(text, ast.Constant):
        return str(text.value)
    if isinstance(text, ast.JoinedStr):
        return "".join(
            str(each.value) if isinstance(each, ast.Constant) else "…" for each in text.values
        )
    return ""


def part(name: str) -> str:
    found = re.search(f"<!-- {name} -->(.*)<!-- /{name} -->", PAGE, re.DOTALL)
    assert found
    return found[1]


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_error_has_a_remedy() -> None:
    assert set(re.findall(r"^\| `(.*?)` \|", part("errors"), re.MULTILINE)) == said_in_the_code()


def test_every_option_is_explained() -> None:
    rows = re.findall(r"^\| (`--.*?) \|", part("options"), re.MULTILINE)
    explained = [option for row in rows for option in re.findall(r"--[a-z-]+", row)]
    used = [
        str(node.args[0].value)
        for node in ast.walk(SOURCE)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "add"
        and isinstance(node.args[0], ast.Constant)
    ]
    assert sorted(explained) == sorted(used)


def test_every_key_of_the_line_is_explained() -> None:
    rows = re.findall(r"^\| ((?:`[a-z]+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    explained = {key for row in rows for key in re.findall("[a-z]+", row)}
    assert explained == {each.name for each in fields(Result)}


def test_the_permissions_suffice(machine: Machine) -> None:
    (policy,) = examples("json")
    mine = json.loads(policy.replace("111111111111", ACCOUNT))
    role = machine.cloud.role(ACCOUNT, mine["Statement"]).role_arn
    machine.publish()
    assert machine.install("--role", role, "--external-id", "abc").outcome == "installed"


def test_cloud_init_writes_the_units_that_are_shown() -> None:
    (cloud_init,) = examples("yaml")
    assert cloud_init.startswith("#cloud-config\n")
    written_files = [each["content"] for each in yaml.safe_load(cloud_init)["write_files"]]
    assert written_files == examples("ini")


def test_the_unit_gives_options_that_there_are() -> None:
    service, _ = examples("ini")
    (command,) = re.findall(r"^ExecStart=(.*)$", service, re.MULTILINE)
    options = certrail_install.parse(shlex.split(command)[1:])
    assert options.directory == "/etc/certrail/bundle"
    assert f"{options.directory}/live/fullchain.pem" in PAGE


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="only systemd can judge its units"
)
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path(certrail_install.__file__).read_bytes())
    program.chmod(0o755)
    names = ("certrail-install.service", "certrail-install.timer")
    for name, unit in zip(names, examples("ini"), strict=True):
        here = unit.replace("/usr/local/sbin/certrail-install", str(program))
        (tmp_path / name).write_text(here)
    checked = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / name for name in names)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "certrail-install" not in checked.stderr
    assert checked.returncode == 0, checked.stderr
