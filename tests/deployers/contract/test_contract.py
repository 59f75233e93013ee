"""What every kind keeps to. A new kind gets these by its world in worlds.py."""

from __future__ import annotations

import inspect
import json
import logging
import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from certrail.errors import AccessDenied
from certrail.records import State
from certrail.target import Target, as_job, with_needs
from cli.reference import READER
from deployers.handler import kind_named
from deployers.kinds.all import KINDS, AnyTarget
from deployers.rollout import Action
from sandbox import authorization
from tests.deployers.cloud import ACCOUNT, Cloud
from tests.deployers.contract.worlds import WORLDS

ROOT = Path(__file__).parents[3]
# The operation where IAM's action is an HTTP method.
METHODS = {"PATCH": "UpdateDomainName"}
DENY = {"Effect": "Deny", "Action": "*"}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def target(kind: str, cloud: Cloud) -> Target:
    return WORLDS[kind](cloud)


def needs_first(cloud: Cloud, target: Target) -> None:
    """Deploy what the target needs, so that only the target itself is left."""
    for needed in list(with_needs([target]).values())[:-1]:
        cloud.deploy(needed)


def test_what_was_deployed_is_observed(cloud: Cloud, target: Target) -> None:
    current = cloud.publish()
    assert cloud.settle(target) == {}
    there = cloud.observe(target)
    record = cloud.recorded(target)
    assert there is not None
    assert there.fingerprint == record.fingerprint == current.fingerprint
    assert record.held is not None
    assert there.resource == record.held.resource
    assert there.not_after == current.facts.not_after
    assert record.generation == 1


def test_nothing_is_held_before(cloud: Cloud, target: Target) -> None:
    there = cloud.observe(target)
    assert there is None or there.fingerprint == ""


def test_a_renewal_replaces(cloud: Cloud, target: Target) -> None:
    first = cloud.publish()
    assert cloud.settle(target) == {}
    before = cloud.observe(target)
    second = cloud.publish()
    assert cloud.settle(target) == {}
    after = cloud.observe(target)
    assert before is not None
    assert after is not None
    assert (before.fingerprint, after.fingerprint) == (first.fingerprint, second.fingerprint)
    assert before.resource == after.resource


def test_observing_only_reads(cloud: Cloud, target: Target) -> None:
    cloud.publish()
    cloud.settle(target)
    with cloud.journal() as calls:
        cloud.observe(target)
    assert calls
    assert [call.action for call in calls if call.writes] == []


def test_a_second_deployment_makes_no_write(cloud: Cloud, target: Target) -> None:
    cloud.publish()
    cloud.settle(target)
    record = cloud.recorded(target)
    first = len(cloud.calls)
    for step in cloud.plan(target, reconcile=True):
        assert step.action is Action.CHECK
        cloud.deploy(step.target)
    assert [call.action for call in cloud.calls[first:] if call.writes] == []
    assert cloud.recorded(target) == record


def test_deploying_what_is_there_makes_no_write(cloud: Cloud, target: Target) -> None:
    """`deploy` itself, as it runs again after a crash before the record was written."""
    cloud.publish()
    cloud.settle(target)
    cloud.client("s3").delete_object(
        Bucket=cloud.store.bucket, Key=f"deployments/shop/{target.address}.json"
    )
    with cloud.journal() as calls:
        cloud.deploy(target)
    assert [call.action for call in calls if call.writes] == []


def test_calls_stay_within_the_declared_permissions(cloud: Cloud, target: Target) -> None:
    cloud.publish()
    needs_first(cloud, target)
    with cloud.journal() as calls:
        cloud.deploy(target)
        cloud.publish()
    needs_first(cloud, target)
    with cloud.journal() as more:
        cloud.deploy(target)
        cloud.observe(target)
    needed = {need.action for call in calls + more for need in authorization.needs(call)}
    assert needed <= target.permissions()


def test_no_key_material_is_shown(
    cloud: Cloud, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="certrail")
    caplog.set_level(logging.DEBUG, logger="deployers")
    current = cloud.publish()
    bundle = cloud.store.bundle(current)
    secret = bundle.private_key.reveal().splitlines()[1][:32]
    needs_first(cloud, target)
    for action in target.permissions():
        operation = action.partition(":")[2]
        if not operation.startswith(("Describe", "Get", "List")):
            cloud.refuse(METHODS.get(operation, operation), "AccessDenied", "You may not.", 403)
    failures = cloud.settle(target)
    shown = [caplog.text, repr(bundle), repr(failures), repr(cloud.recorded(target))]
    assert failures
    shown += [str(error) + repr(error) for error in failures.values()]
    for key in cloud.store.keys("deployments/"):
        body = cloud.client("s3").get_object(Bucket=cloud.store.bucket, Key=key)["Body"].read()
        shown.append(body.decode())
    for text in shown:
        assert secret not in text
        assert "PRIVATE KEY" not in text


# What it says about itself


def test_the_module_is_named_for_the_type(kind: str) -> None:
    target = KINDS[kind]
    assert target.model_fields["type"].default == kind
    assert target.__module__ == f"deployers.kinds.{kind}"
    assert kind_named(kind) is target


def test_it_has_permissions_and_a_description_of_every_field(kind: str) -> None:
    target = KINDS[kind]
    assert target.permissions()
    assert inspect.getdoc(inspect.getmodule(target))
    for name, field in target.model_fields.items():
        assert name == "type" or field.description, name


def test_it_travels_as_a_job(cloud: Cloud, target: Target) -> None:
    again = type(target).model_validate(as_job(target))
    assert again == target
    assert again.spec == target.spec


@pytest.fixture
def page(kind: str) -> str:
    return (ROOT / "docs" / "targets" / f"{kind}.md").read_text()


def test_its_page_has_examples_that_load(page: str, kind: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        targets = yaml.safe_load(block)
        assert targets
        for entry in targets:
            assert isinstance(TypeAdapter(AnyTarget).validate_python(entry), KINDS[kind])


def test_the_policy_on_its_page_is_enough(cloud: Cloud, target: Target, page: str) -> None:
    (policy,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    policy = policy.replace(READER.account, ACCOUNT).replace(READER.owner, cloud.store.bucket)
    role = cloud.role(ACCOUNT, json.loads(policy)["Statement"])
    for _ in range(2):
        cloud.publish()
        needs_first(cloud, target)
        cloud.deploy(target, role=role)
        cloud.deploy(target, role=role)
    assert cloud.recorded(target).generation == 2


def test_without_its_permissions_it_says_which_one(cloud: Cloud, target: Target) -> None:
    cloud.publish()
    needs_first(cloud, target)
    with pytest.raises(AccessDenied, match=r"Allow [a-z]+:[A-Za-z]+ in the policy"):
        cloud.deploy(target, role=cloud.role(ACCOUNT, [{**DENY, "Resource": "*"}]))
    assert cloud.recorded(target).state is State.FAILED
