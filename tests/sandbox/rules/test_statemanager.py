"""State Manager takes what AWS takes, runs when AWS runs, and instances really run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.instances import Instance, StateManager
from sandbox.rules.statemanager import state_manager
from tests.sandbox.rules.conftest import Cloud, refused

TAGS = {"fleet": "web"}
ASSOCIATION: Any = {
    "Name": "say",
    "AssociationName": "ours",
    "Targets": [{"Key": "tag:fleet", "Values": ["web"]}],
    "Parameters": {"What": ["hello"]},
    "ScheduleExpression": "rate(30 minutes)",
    "MaxConcurrency": "50%",
    "MaxErrors": "0",
}


@pytest.fixture
def ssm(cloud: Cloud) -> Any:
    client = cloud.client("ssm")
    document = {
        "schemaVersion": "2.2",
        "parameters": {
            "What": {"type": "String", "allowedPattern": "^[a-z]+$"},
            "Whom": {"type": "String", "default": "world", "allowedPattern": "^[a-z]*$"},
        },
        "mainSteps": [
            {
                "action": "aws:runShellScript",
                "name": "say",
                "inputs": {
                    "runCommand": [
                        "echo '{{ What }}' '{{ Whom }}' $AWS_SSM_INSTANCE_ID",
                        '[ "{{ What }}" != no ]',
                    ]
                },
            }
        ],
    }
    client.create_document(Content=json.dumps(document), Name="say", DocumentType="Command")
    return client


@pytest.fixture
def manager(cloud: Cloud) -> StateManager:
    return state_manager("123456789012", cloud.region)


@pytest.fixture
def launch(manager: StateManager, tmp_path: Path) -> Callable[..., Instance]:
    def launched(name: str, *, online: bool = True, **tags: str) -> Instance:
        made = Instance(name, tags or TAGS, tmp_path, "127.0.0.1", {}, online)
        manager.launch(made)
        return made

    return launched


def said(manager: StateManager) -> dict[str, list[str]]:
    assert manager.idle(30)
    return {
        name: [run.log.strip() for run in each.runs] for name, each in manager.instances.items()
    }


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Name": "nothing"}, "InvalidDocument"),
        ({"Parameters": {}}, "InvalidParameters"),
        ({"Parameters": {"What": ["$(reboot)"]}}, "InvalidParameters"),
        ({"Parameters": {"What": ["hello"], "Else": ["x"]}}, "InvalidParameters"),
        ({"Targets": []}, "InvalidTarget"),
        ({"Targets": [{"Key": f"tag:{n}", "Values": ["1"]} for n in range(6)]}, "InvalidTarget"),
        ({"ScheduleExpression": "rate(29 minutes)"}, "InvalidSchedule"),
        ({"MaxErrors": "101%"}, "ValidationException"),
        ({"MaxConcurrency": "0"}, "ValidationException"),
        ({"AssociationName": "a b"}, "ValidationException"),
    ],
)
def test_what_it_does_not_take(ssm: Any, change: dict[str, Any], code: str) -> None:
    with refused(code):
        ssm.create_association(**ASSOCIATION | change)
    assert ssm.list_associations()["Associations"] == []


def test_it_runs_on_those_that_are_there_and_on_those_that_come(
    ssm: Any, manager: StateManager, launch: Callable[..., Instance]
) -> None:
    launch("i-1")
    launch("i-2", online=False)
    launch("i-3", fleet="other")
    ssm.create_association(**ASSOCIATION)
    assert said(manager) == {"i-1": ["hello world i-1"], "i-2": [], "i-3": []}
    manager.come_online("i-2")
    launch("i-4")
    assert said(manager)["i-2"] == ["hello world i-2"]
    assert said(manager)["i-4"] == ["hello world i-4"]
    manager.schedule()
    assert [len(runs) for runs in said(manager).values()] == [2, 2, 0, 2]


def test_an_update_runs_at_once_and_empties_what_it_leaves_out(
    ssm: Any, manager: StateManager, launch: Callable[..., Instance]
) -> None:
    launch("i-1")
    made = ssm.create_association(**ASSOCIATION)["AssociationDescription"]
    assert said(manager)["i-1"] == ["hello world i-1"]
    ssm.update_association(
        AssociationId=made["AssociationId"],
        Name="say",
        Targets=ASSOCIATION["Targets"],
        Parameters={"What": ["again"], "Whom": ["you"]},
    )
    assert said(manager)["i-1"][1:] == ["again you i-1"]
    there = ssm.describe_association(AssociationId=made["AssociationId"])["AssociationDescription"]
    assert "ScheduleExpression" not in there
    assert "MaxErrors" not in there
    with refused("AssociationDoesNotExist"):
        ssm.describe_association(AssociationId="00000000-0000-0000-0000-000000000000")


def test_after_too_many_failures_the_others_are_spared(
    ssm: Any, manager: StateManager, launch: Callable[..., Instance]
) -> None:
    for number in range(6):
        launch(f"i-{number}")
    one_at_a_time = {"MaxConcurrency": "1", "MaxErrors": "1", "Parameters": {"What": ["no"]}}
    ssm.create_association(**ASSOCIATION | one_at_a_time)
    assert [len(runs) for runs in said(manager).values()] == [1, 1, 0, 0, 0, 0]


def test_instances_are_listed_by_tags_page_by_page(
    ssm: Any, launch: Callable[..., Instance]
) -> None:
    for number in range(7):
        launch(f"i-{number}", online=number != 3)
    launch("i-9", fleet="other")
    asks = {"Filters": [{"Key": "tag:fleet", "Values": ["web"]}]}
    with refused("ValidationException"):
        ssm.describe_instance_information(MaxResults=51, **asks)
    pages = ssm.get_paginator("describe_instance_information").paginate(
        **asks, PaginationConfig={"PageSize": 5}
    )
    found = [each for page in pages for each in page["InstanceInformationList"]]
    assert [each["InstanceId"] for each in found] == [f"i-{number}" for number in range(7)]
    assert [each["PingStatus"] for each in found].count("ConnectionLost") == 1


def test_an_inventory_is_its_instances_own(ssm: Any, launch: Callable[..., Instance]) -> None:
    launch("i-1")
    item: Any = {
        "TypeName": "Custom:ours",
        "SchemaVersion": "1.0",
        "CaptureTime": "2026-11-28T00:00:00Z",
        "Content": [{"Fingerprint": "0a"}],
    }
    with refused("InvalidInstanceId"):
        ssm.put_inventory(InstanceId="i-2", Items=[item])
    with refused("InvalidTypeNameException"):
        ssm.put_inventory(InstanceId="i-1", Items=[item | {"TypeName": "ours"}])
    with refused("InvalidItemContentException"):
        ssm.put_inventory(InstanceId="i-1", Items=[item | {"Content": [{"a": "x" * 5000}]}])
    ssm.put_inventory(InstanceId="i-1", Items=[item])
    ids = {"Key": "AWS:InstanceInformation.InstanceId", "Type": "Equal"}
    asks: Any = {"ResultAttributes": [{"TypeName": "Custom:ours"}]}
    with refused("ValidationException"):
        ssm.get_inventory(Filters=[ids | {"Values": ["i-1"] * 41}], **asks)
    (entity,) = ssm.get_inventory(Filters=[ids | {"Values": ["i-1", "i-2"]}], **asks)["Entities"]
    assert entity["Id"] == "i-1"
    assert entity["Data"]["Custom:ours"]["Content"] == [{"Fingerprint": "0a"}]
