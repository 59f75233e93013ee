"""State Manager, inventory and managed instances, none of which moto has.

Sources:
  create     https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_CreateAssociation.html
  update     https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_UpdateAssociation.html
  describe   https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_DescribeAssociation.html
  list       https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_ListAssociations.html
  instances  https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_DescribeInstanceInformation.html
  put        https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutInventory.html
  get        https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetInventory.html
  document   https://docs.aws.amazon.com/systems-manager/latest/userguide/documents-syntax-data-elements-parameters.html

Not modelled: targets other than tags, versions of associations, compliance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ssm.exceptions import InvalidDocument, SSMException, ValidationException
from moto.ssm.models import SimpleSystemManagerBackend, ssm_backends
from moto.ssm.responses import SimpleSystemManagerResponse

from sandbox.instances import Instance, StateManager

KEYS = 5
# "The minimum interval for an association is 30 minutes" (create, ScheduleExpression).
SHORTEST = 30
RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
MINUTES = {"minute": 1, "hour": 60, "day": 1440}
ERRORS = re.compile(r"([1-9][0-9]*|0)|([1-9][0-9]%|[0-9]%|100%)")
CONCURRENCY = re.compile(r"([1-9][0-9]*)|([1-9][0-9]%|[1-9]%|100%)")
NAMED = re.compile(r"[a-zA-Z0-9_\-.]{3,128}")
TYPE = re.compile(r"(AWS|Custom):.+")
LARGEST_PAGE, SMALLEST_PAGE = 50, 5
FILTER_VALUES = 40
# What an update empties where it is left out (update).
OPTIONAL = ("AssociationName", "ScheduleExpression", "MaxConcurrency", "MaxErrors")


def state_manager(account: str, region: str) -> StateManager:
    """Of this account and region; it goes when moto is reset."""
    backend: Any = ssm_backends[account][region]
    if not hasattr(backend, "state_manager"):
        backend.state_manager = StateManager(region)
    there: StateManager = backend.state_manager
    return there


def _there(self: SimpleSystemManagerResponse) -> StateManager:
    return state_manager(self.current_account, self.region)


# Associations


def answer_create_association(self: SimpleSystemManagerResponse) -> ActionResult:
    made = {"AssociationId": str(uuid4()), **_settings(self, self._get_param("Name"))}
    made["Tags"] = {each["Key"]: each["Value"] for each in self._get_param("Tags") or []}
    there = _there(self)
    there.associations[made["AssociationId"]] = made
    there.apply(made)
    return ActionResult({"AssociationDescription": _description(made)})


def answer_update_association(self: SimpleSystemManagerResponse) -> ActionResult:
    """ "When you update an association, the association immediately runs against the specified
    targets" (update). What is left out is emptied."""
    found = _found(self)
    found |= _settings(self, self._get_param("Name") or found["Name"])
    _there(self).apply(found)
    return ActionResult({"AssociationDescription": _description(found)})


def answer_describe_association(self: SimpleSystemManagerResponse) -> ActionResult:
    return ActionResult({"AssociationDescription": _description(_found(self))})


def answer_list_associations(self: SimpleSystemManagerResponse) -> ActionResult:
    filters = self._get_param("AssociationFilterList") or []
    for each in filters:
        if each["key"] not in {"AssociationId", "AssociationName", "Name"}:
            raise ValidationException(f"the sandbox does not know the filter {each['key']}")
    return ActionResult(
        {
            "Associations": [
                _description(each)
                for each in _there(self).associations.values()
                if all(each[one["key"]] == one["value"] for one in filters)
            ]
        }
    )


def _found(self: SimpleSystemManagerResponse) -> dict[str, Any]:
    found = _there(self).associations.get(self._get_param("AssociationId"))
    if found is None:
        raise SSMException("AssociationDoesNotExist", "The specified association does not exist.")
    return found


def _description(association: Mapping[str, Any]) -> dict[str, Any]:
    shown = ("AssociationId", "Name", "Targets", "Parameters", *OPTIONAL)
    said = {name: association[name] for name in shown if association[name] is not None}
    # AWS promises no order, and no empty values: who compares must not count on them.
    said["Targets"] = said["Targets"][::-1]
    said["Parameters"] = {
        name: values for name, values in said["Parameters"].items() if values != [""]
    }
    return said


def _settings(self: SimpleSystemManagerResponse, name: str) -> dict[str, Any]:
    """What a call says, checked."""
    content = _document(self.ssm_backend, name)
    targets = self._get_param("Targets") or []
    if not 1 <= len(targets) <= KEYS:
        raise SSMException("InvalidTarget", "The target isn't valid.")
    for target in targets:
        if not target["Key"].startswith("tag:"):
            raise ValidationException("the sandbox knows targets by tag only")
    schedule = self._get_param("ScheduleExpression")
    if schedule is not None:
        rate = RATE.fullmatch(schedule)
        if rate is None or int(rate[1]) * MINUTES[rate[2]] < SHORTEST:
            raise SSMException("InvalidSchedule", "The schedule is invalid.")
    for field, pattern in (("MaxErrors", ERRORS), ("MaxConcurrency", CONCURRENCY)):
        text = self._get_param(field)
        if text is not None and not pattern.fullmatch(text):
            raise ValidationException(f"Value at '{field}' failed to satisfy constraint")
    called = self._get_param("AssociationName")
    if called is not None and not NAMED.fullmatch(called):
        raise ValidationException("Value at 'associationName' failed to satisfy constraint")
    parameters = self._get_param("Parameters") or {}
    return {
        "Name": name,
        "Targets": targets,
        "Parameters": parameters,
        **{field: self._get_param(field) for field in OPTIONAL},
        "commands": _commands(content, parameters),
    }


def _document(backend: SimpleSystemManagerBackend, name: str) -> dict[str, Any]:
    if name not in backend._documents:
        raise InvalidDocument("The specified document does not exist.")
    content = backend._documents[name].get_default_version().content
    made: dict[str, Any] = content if isinstance(content, dict) else json.loads(content)
    return made


def _commands(content: Mapping[str, Any], given: Mapping[str, list[str]]) -> list[str]:
    """Fills in the defaults, and holds what is given against the document's patterns."""
    declared = content.get("parameters", {})
    for name in given.keys() - declared.keys():
        raise SSMException("InvalidParameters", f"Parameter {name} is not in the document")
    commands: list[str] = list(content["mainSteps"][0]["inputs"]["runCommand"])
    for name, about in declared.items():
        values = given.get(name, [about["default"]] if "default" in about else None)
        if values is None:
            raise SSMException("InvalidParameters", f"Parameter {name} is required")
        if not re.search(about.get("allowedPattern", ""), values[0]):
            raise SSMException("InvalidParameters", f"Parameter {name} does not match its pattern")
        if name not in given:
            commands = [line.replace(f"{{{{ {name} }}}}", values[0]) for line in commands]
    return commands


_moto_list_tags = SimpleSystemManagerResponse.list_tags_for_resource


def answer_list_tags_for_resource(self: SimpleSystemManagerResponse) -> ActionResult:
    if self._get_param("ResourceType") != "Association":
        return _moto_list_tags(self)
    found = _there(self).associations.get(self._get_param("ResourceId"))
    if found is None:
        raise SSMException("InvalidResourceId", "The resource ID isn't valid.")
    tags = found["Tags"].items()
    return ActionResult({"TagList": [{"Key": key, "Value": value} for key, value in tags]})


# Instances and what they say


def answer_describe_instance_information(self: SimpleSystemManagerResponse) -> ActionResult:
    size = self._get_int_param("MaxResults", LARGEST_PAGE)
    if not SMALLEST_PAGE <= size <= LARGEST_PAGE:
        raise ValidationException("Value at 'maxResults' failed to satisfy constraint")
    after = self._get_param("NextToken") or ""
    matching = [
        each
        for each in sorted(_there(self).of(self._get_param("Filters") or []), key=_name)
        if each.id > after
    ]
    page = matching[:size]
    return ActionResult(
        {
            "InstanceInformationList": [
                {
                    "InstanceId": each.id,
                    "PingStatus": "Online" if each.online else "ConnectionLost",
                    "PlatformType": "Linux",
                    "ResourceType": "EC2Instance",
                }
                for each in page
            ],
            "NextToken": page[-1].id if len(matching) > size else None,
        }
    )


def _name(instance: Instance) -> str:
    return instance.id


def answer_put_inventory(self: SimpleSystemManagerResponse) -> ActionResult:
    there, name = _there(self), self._get_param("InstanceId")
    if name not in there.instances:
        raise SSMException("InvalidInstanceId", "The instance ID isn't valid.")
    for item in self._get_param("Items"):
        if not TYPE.fullmatch(item["TypeName"]):
            raise SSMException("InvalidTypeNameException", "The parameter type name isn't valid.")
        if item["SchemaVersion"] != "1.0":
            raise SSMException(
                "UnsupportedInventorySchemaVersionException", "The schema isn't supported."
            )
        for content in item.get("Content", []):
            for value in content.values():
                if not isinstance(value, str) or len(value) > 4096:
                    raise SSMException("InvalidItemContentException", "The content isn't valid.")
        there.inventory[name, item["TypeName"]] = item
    return EmptyResult()


def answer_get_inventory(self: SimpleSystemManagerResponse) -> ActionResult:
    there = _there(self)
    wanted: list[str] = []
    for each in self._get_param("Filters") or []:
        if each["Key"] != "AWS:InstanceInformation.InstanceId" or each["Type"] != "Equal":
            raise ValidationException("the sandbox knows this filter only by instance id")
        if len(each["Values"]) > FILTER_VALUES:
            raise ValidationException("Value at 'filters' failed to satisfy constraint")
        wanted += each["Values"]
    types = [each["TypeName"] for each in self._get_param("ResultAttributes") or []]
    return ActionResult(
        {
            "Entities": [
                {
                    "Id": name,
                    "Data": {
                        kind: {**there.inventory[name, kind], "CaptureTime": utcnow().isoformat()}
                        for kind in types
                        if (name, kind) in there.inventory
                    },
                }
                for name in wanted
                if name in there.instances
            ]
        }
    )


REPLACED: dict[type, dict[str, Callable[..., Any]]] = {
    SimpleSystemManagerResponse: {
        "create_association": answer_create_association,
        "update_association": answer_update_association,
        "describe_association": answer_describe_association,
        "list_associations": answer_list_associations,
        "list_tags_for_resource": answer_list_tags_for_resource,
        "describe_instance_information": answer_describe_instance_information,
        "put_inventory": answer_put_inventory,
        "get_inventory": answer_get_inventory,
    }
}
