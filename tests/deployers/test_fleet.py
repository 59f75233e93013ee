"""fleet: one association, told once for each certificate, and what its instances say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from certrail.errors import NotOurs, TargetMissing, TargetRefused
from certrail.records import Record, State
from certrail.store import record_key
from certrail.target import Context, Deployed
from deployers.kinds.fleet import Fleet
from deployers.looks import SILENT
from sandbox.calls import READS, Call
from tests.certrail.bundles import NOW
from tests.deployers.cloud import ACCOUNT, REGION, Cloud
from tests.deployers.contract.worlds import fleet
from tests.fleet.instances import instance, state_manager

NAME = "certrail-web"


@pytest.fixture
def target(cloud: Cloud) -> Fleet:
    made = fleet(cloud)
    assert isinstance(made, Fleet)
    return made


def associations(cloud: Cloud) -> list[dict[str, Any]]:
    ssm = cloud.client("ssm")
    ids = [each["AssociationId"] for each in ssm.list_associations()["Associations"]]
    return [ssm.describe_association(AssociationId=each)["AssociationDescription"] for each in ids]


def writes(calls: list[Call]) -> Counter[str]:
    return Counter(
        call.action
        for call in calls
        if call.action.startswith("ssm:") and not READS.match(call.operation)
    )


def test_a_certificate_is_one_association_and_a_renewal_one_update(
    cloud: Cloud, target: Fleet
) -> None:
    cloud.publish()
    with cloud.journal() as first:
        assert cloud.settle(target) == {}
    second = cloud.publish()
    with cloud.journal() as renewal:
        assert cloud.settle(target) == {}
    assert writes(first) == {"ssm:CreateAssociation": 1}
    assert writes(renewal) == {"ssm:UpdateAssociation": 1}
    (there,) = associations(cloud)
    assert there["AssociationName"] == NAME
    assert there["Parameters"]["Fingerprint"] == [second.fingerprint]


def test_an_attempt_that_ended_before_it_was_recorded_makes_no_second_one(
    cloud: Cloud, target: Fleet
) -> None:
    cloud.publish()
    assert cloud.settle(target) == {}
    key = f"deployments/shop/fleet/{REGION}/web.json"
    cloud.client("s3").delete_object(Bucket=cloud.store.bucket, Key=key)
    assert cloud.record(target) is None
    assert cloud.settle(target) == {}
    assert len(associations(cloud)) == 1


def test_an_association_of_somebody_else_is_left_alone(cloud: Cloud, target: Fleet) -> None:
    theirs = {
        "Name": "certrail-install",
        "AssociationName": NAME,
        "Targets": [{"Key": "tag:theirs", "Values": ["1"]}],
        "Parameters": {"Secret": ["theirs"]},
    }
    cloud.client("ssm").create_association(**theirs)
    cloud.publish()
    failures = cloud.settle(target)
    assert isinstance(failures[target.address], NotOurs)
    (there,) = associations(cloud)
    assert there["Parameters"] == {"Secret": ["theirs"]}


@pytest.mark.parametrize("by_hand", ["changed", "deleted"])
def test_what_somebody_did_to_it_is_repaired(cloud: Cloud, target: Fleet, by_hand: str) -> None:
    cloud.publish()
    assert cloud.settle(target) == {}
    ours = dict(associations(cloud)[0])
    if by_hand == "changed":
        wrong = {**ours, "MaxConcurrency": "100%"}
        cloud.client("ssm").update_association(**wrong)
    else:
        state_manager(cloud).associations.clear()
    outcome = cloud.deploy(target)
    assert outcome.repaired
    (there,) = associations(cloud)
    same = ours.keys() - {"AssociationId"}
    assert {key: there[key] for key in same} == {key: ours[key] for key in same}


def test_state_manager_that_is_busy_is_asked_again(cloud: Cloud, target: Fleet) -> None:
    cloud.publish()
    cloud.refuse("CreateAssociation", "TooManyUpdates", "Too many concurrent updates.", 400)
    error = cloud.settle(target)[target.address]
    assert isinstance(error, TargetRefused)
    later = NOW + timedelta(minutes=1)
    assert cloud.recorded(target).next_attempt == later
    assert cloud.settle(target, now=later) == {}


def test_the_next_certificate_knows_which_instances_were_there(cloud: Cloud, target: Fleet) -> None:
    cloud.publish()
    cloud.settle(target)
    seen = cloud.store.read(record_key("shop", target.address), Record)
    assert seen
    assert seen.value.check
    well = replace(seen.value.check, nodes={"i-1": "serves it"}, came={"i-1": NOW})
    cloud.store.write(
        record_key("shop", target.address), replace(seen.value, check=well), Record, seen.etag
    )
    cloud.publish()
    cloud.settle(target)
    check = cloud.recorded(target).check
    assert check
    assert (check.nodes, check.came) == ({"i-1": SILENT}, {"i-1": NOW})


def test_without_its_document_it_says_what_to_do(cloud: Cloud, target: Fleet) -> None:
    cloud.client("ssm").delete_document(Name="certrail-install")
    cloud.publish()
    error = cloud.settle(target)[target.address]
    assert isinstance(error, TargetMissing)
    assert "no document certrail-install in eu-central-1" in str(error)
    assert cloud.recorded(target).state is State.FAILED


def say(cloud: Cloud, number: int, **content: str) -> None:
    """What an instance writes into its inventory, of another fleet, too."""
    other = {"Fleet": "other", "Fingerprint": "ffff", "Outcome": "failed", "Error": "theirs"}
    cloud.client("ssm").put_inventory(
        InstanceId=instance(number).id,
        Items=[
            {
                "TypeName": "Custom:certrail",
                "SchemaVersion": "1.0",
                "CaptureTime": "2026-11-28T00:00:00Z",
                "Content": [other, content],
            }
        ],
    )


OLD, NEW = "0" * 64, "1" * 64


@pytest.mark.parametrize(
    ("said", "fingerprint", "error"),
    [
        ({"Wanted": NEW, "Fingerprint": NEW, "Outcome": "installed"}, NEW, ""),
        ({"Wanted": NEW, "Fingerprint": OLD, "Outcome": "failed", "Error": "no"}, OLD, "no"),
        ({"Wanted": NEW, "Fingerprint": OLD, "Outcome": "refused", "Error": "no"}, OLD, "no"),
        # It has the new one, and does not serve it.
        ({"Wanted": NEW, "Fingerprint": NEW, "Outcome": "failed", "Error": "no"}, NEW, "no"),
        # AWS did not answer, and it serves what it should.
        ({"Wanted": NEW, "Fingerprint": NEW, "Outcome": "refused", "Error": "no"}, NEW, ""),
        # What it says of the certificate before says nothing against this one.
        ({"Wanted": OLD, "Fingerprint": OLD, "Outcome": "failed", "Error": "no"}, OLD, ""),
    ],
)
def test_what_an_instance_says_is_about_what_was_wanted(
    cloud: Cloud, target: Fleet, said: dict[str, str], fingerprint: str, error: str
) -> None:
    state_manager(cloud).launch(instance(1))
    say(cloud, 1, Fleet="web", **said)
    held = Deployed(NEW, "association", nodes=True)
    (node,) = target.nodes(Context("shop", cloud.store.bucket, cloud.aws, held))
    assert (node.fingerprint, node.error) == (fingerprint, error)


def test_asking_a_hundred_instances_is_five_calls(cloud: Cloud, target: Fleet) -> None:
    there = state_manager(cloud)
    for number in range(100):
        there.launch(instance(number, online=number % 10 != 0))
    there.launch(instance(100, tags={"certrail": "other"}))
    for number in range(50):
        say(cloud, number, Fleet="web", Fingerprint="0a1b", Outcome="installed")
    with cloud.journal() as calls:
        nodes = target.nodes(Context("shop", cloud.store.bucket, cloud.aws))
    assert Counter(call.operation for call in calls) == {
        "DescribeInstanceInformation": 2,
        "GetInventory": 3,
    }
    assert len(nodes) == 100
    assert sum(node.online for node in nodes) == 90
    assert {node.id for node in nodes if node.fingerprint == "0a1b"} == {
        instance(number).id for number in range(50)
    }


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "Web Fleet", "small letters"),
        ("instances", {}, "there are 0 tags"),
        ("instances", {str(number): "1" for number in range(6)}, "there are 6 tags"),
        ("directory", "/etc/it's", "absolute path"),
        ("owner", "root;reboot", "`user` or `user:group`"),
        ("connect", "$(reboot):443", "127.0.0.1:443"),
        ("may_fail", "101%", "a share like"),
        ("may_fail", "05", "a share like"),
        ("fields", {"cert": "crt"}, "there is no `cert`"),
        ("formats", ["jks"], "password_file"),
        ("concurrency", "0", "a share like"),
    ],
)
def test_what_no_fleet_can_have_is_refused(field: str, value: object, says: str) -> None:
    fields = {"name": "web", "region": REGION, "instances": {"a": "b"}, "secret": "tls/a/bundle"}
    with pytest.raises(ValidationError, match=says):
        Fleet.model_validate({**fields, field: value})


@pytest.mark.parametrize(
    ("may_fail", "nodes", "tolerated"), [("10%", 20, 2), ("10%", 9, 0), ("3", 20, 3), ("0", 99, 0)]
)
def test_how_many_may_fail(may_fail: str, nodes: int, tolerated: int) -> None:
    fields = {"name": "web", "region": REGION, "instances": {"a": "b"}, "secret": "tls/a/bundle"}
    assert Fleet.model_validate({**fields, "may_fail": may_fail}).tolerated(nodes) == tolerated


def test_it_needs_the_secret_that_the_file_names() -> None:
    made = Fleet(
        name="web", region=REGION, instances={"a": "b"}, secret="tls/a/bundle", account="edge"
    )
    (secret,) = made.needs
    assert secret.address == f"secretsmanager/edge:{REGION}/tls/a/bundle"
    assert made.address == f"fleet/edge:{REGION}/web"
    assert ACCOUNT not in made.address
