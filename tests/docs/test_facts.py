"""What the pages list is what there is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer.main
from moto.events.models import EventPattern

from certrail.aws import Aws
from certrail.errors import IssueError
from certrail.records import State
from certrail.telling import SOURCE
from cli.__main__ import app
from deployers import telling
from deployers.deploy import Attempt
from issuer import telling as issuing
from issuer.renewal import Window
from sandbox import Sandbox
from sandbox.stack import transform
from tests.certrail.bundles import NOW
from tests.deployers.test_telling import RECORD, TOLD
from tests.template.test_template import CURRENT

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
ISSUERS = {issuing.ISSUED, issuing.FAILED, issuing.AT_RISK}
KINDS = ISSUERS | {
    getattr(telling, name)
    for name in vars(telling)
    if name.isupper() and isinstance(getattr(telling, name), str)
}
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


def told(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    """One event of each kind, by detail type: the detail that was really sent."""
    issuers = issuing.Telling(Aws(), "certrail", NOW)
    issuers.issued(CURRENT)
    issuers.failed("shop", IssueError("refused"), None)
    issuers.at_risk(CURRENT, Window(NOW, NOW, NOW, by_ca=True), "the zone is gone")
    deployers = telling.Telling(Aws(), "certrail", NOW, "Deployer")
    failed = replace(RECORD, state=State.FAILED, error="no", attempts=1)
    for before, after in (
        (RECORD, failed),
        (failed, RECORD),
        (RECORD, replace(RECORD, repaired="nothing was there any more")),
        (None, RECORD),
    ):
        deployers.attempt(Attempt(before, after), added=True)
    for tell, _ in TOLD.values():
        tell(deployers)
    puts = sandbox.server.calls.of("events:PutEvents")
    entries = [entry for put in puts for entry in (put.params or {})["Entries"]]
    return {entry["DetailType"]: json.loads(entry["Detail"]) for entry in entries}


def test_every_event_is_explained_with_all_it_says(sandbox: Sandbox) -> None:
    table = OPERATIONS.partition("| detail type |")[2].partition("\n\n")[0]
    listed = {
        kind: set(re.findall(r"`(\w+)`", fields))
        for kind, fields in re.findall(r"^\| `([^`]+)` \|.*\|([^|]*)\|$", table, re.MULTILINE)
    }
    details = told(sandbox)
    assert listed.keys() == details.keys() == KINDS
    of_all, of_deployers, of_targets = (
        {"pipeline", "summary", "bucket"},
        {"generation", "from", "to", "by", "at"},
        {"target", "kind"},
    )
    for kind, detail in details.items():
        said = listed[kind] | of_all
        if kind not in ISSUERS:
            said |= of_deployers
        if kind.startswith("Target "):
            said |= of_targets
        assert detail.keys() == said, kind


def test_the_example_is_an_event(sandbox: Sandbox) -> None:
    (example,) = [block for block in blocks() if isinstance(block.get("detail-type"), str)]
    assert example["source"] == SOURCE
    assert example["detail"].keys() == told(sandbox)[example["detail-type"]].keys()


def test_the_rules_hear_what_is_told() -> None:
    patterns = [block for block in blocks() if isinstance(block.get("detail-type"), list)]
    heard = [{kind for kind in KINDS if matches(json.dumps(each), kind)} for each in patterns]
    assert heard == [
        {
            issuing.FAILED,
            issuing.AT_RISK,
            telling.TARGET_FAILED,
            telling.TARGET_AT_RISK,
            telling.NOT_SERVED,
            telling.TARGET_LOST,
            telling.STOPPED,
            telling.ROLLED_BACK,
        },
        {issuing.ISSUED},
    ]


def blocks() -> list[dict[str, Any]]:
    """The JSON that the page shows."""
    found = re.findall(r"^```json\n(.*?)^```", OPERATIONS, re.DOTALL | re.MULTILINE)
    return [json.loads(text) for text in found]


def matches(pattern: str, kind: str) -> bool:
    event: Any = {"source": SOURCE, "detail-type": kind, "detail": {"pipeline": "fleet"}}
    return EventPattern.load(pattern).matches_event(event)


def test_every_link_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]

    def anchors(page: Path) -> set[str]:
        titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    lost = []
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            there = (page.parent / path).resolve() if path else page
            if not there.exists() or (anchor and anchor not in anchors(there)):
                lost.append(f"{page.relative_to(ROOT)}: {link}")
    assert lost == []
