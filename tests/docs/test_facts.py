"""What the pages list is what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import typer.main
from moto.events.models import EventPattern

from cli.__main__ import app
from issuer.telling import AT_RISK, FAILED, ISSUED, SOURCE
from sandbox.stack import transform

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
TEMPLATE = transform(ROOT / "template.yaml", {}, "eu-central-1")


def commands(group: Any, before: str) -> list[str]:
    found = []
    for name, command in group.commands.items():
        several = hasattr(command, "commands")
        found += commands(command, f"{before} {name}") if several else [f"{before} {name}"]
    return found


def test_every_command_is_in_the_readme() -> None:
    listed = re.findall(r"^\| `(certrail [a-z ]+?)(?: [A-Z]+)?` \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(commands(typer.main.get_command(app), "certrail"))


def test_every_parameter_of_the_template_is_explained() -> None:
    table = OPERATIONS.partition("| parameter |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(TEMPLATE["Parameters"])


def test_every_alarm_is_explained() -> None:
    table = OPERATIONS.partition("| alarm |")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| `(…?)(\w+)` \|", table, re.MULTILINE)
    alarms = [
        name
        for name, resource in TEMPLATE["Resources"].items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    ]
    for alarm in alarms:
        assert any(
            alarm.endswith(name) if several else alarm == name for several, name in listed
        ), alarm


def test_the_rules_hear_what_the_issuer_tells() -> None:
    table = OPERATIONS.partition("| detail type |")[2].partition("\n\n")[0]
    kinds = {ISSUED, FAILED, AT_RISK}
    assert set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == kinds
    patterns = [
        text
        for text in re.findall(r"^```json\n(.*?)^```", OPERATIONS, re.DOTALL | re.MULTILINE)
        if "detail-type" in json.loads(text)
    ]
    heard = [{kind for kind in kinds if matches(pattern, kind)} for pattern in patterns]
    assert heard == [{FAILED, AT_RISK}, {ISSUED}]


def matches(pattern: str, kind: str) -> bool:
    event: Any = {"source": SOURCE, "detail-type": kind, "detail": {"pipeline": "fleet"}}
    return EventPattern.load(pattern).matches_event(event)
