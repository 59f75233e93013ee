"""What all resource types have in common, and what moto asks of them."""

from abc import ABCMeta, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from botocore.exceptions import ClientError
from moto.cloudformation.exceptions import ValidationError
from moto.core.base_backend import InstanceTrackerMeta
from moto.core.common_models import CloudFormationModel

from sandbox.cloudformation.apis import APIS

Properties = dict[str, Any]
GONE = ("NotFound", "NoSuch", "NonExistent", "DoesNotExist")


class ResourceMeta(ABCMeta, InstanceTrackerMeta):
    """moto's models have a metaclass of their own, under which abstract methods stop nobody."""


class Resource(CloudFormationModel, metaclass=ResourceMeta):
    """One resource of a stack.

    A subclass says its type, which properties cannot change in place (`fixed`: a change replaces
    the resource), and how to `put` (create, or change what is there) and `remove` it. `put` sets
    `self.physical_resource_id` and `self.attributes` (what Fn::GetAtt returns).
    """

    # moto asks every subclass of its model, this one too, before `install` has chosen.
    type: ClassVar[str] = ""
    name_property: ClassVar[str] = ""
    fixed: ClassVar[tuple[str, ...]] = ()
    attribute_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, account: str, region: str, name: str) -> None:
        self.account = account
        self.region = region
        self.name = name
        self.physical_resource_id = name
        self.attributes: dict[str, str] = {}
        self.properties: Properties = {}
        self.exists = False

    def api(self, service: str) -> Any:
        return APIS.client(service, self.account, self.region)

    @abstractmethod
    def put(self, properties: Properties) -> None: ...

    @abstractmethod
    def remove(self) -> None: ...

    # What moto's CloudFormation calls.

    @classmethod
    def cloudformation_type(cls) -> str:
        return cls.type

    @classmethod
    def cloudformation_name_type(cls) -> str:
        return cls.name_property

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr in cls.attribute_names

    def get_cfn_attribute(self, attribute_name: str) -> str:
        if attribute_name not in self.attributes:
            raise ValidationError(message=f"{self.type} has no attribute {attribute_name}")
        return self.attributes[attribute_name]

    def is_created(self) -> bool:
        return self.exists

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: Mapping[str, Any],
        account_id: str,
        region_name: str,
        **_: Any,
    ) -> "Resource":
        resource = cls(account_id, region_name, resource_name)
        resource._settle(dict(cloudformation_json.get("Properties", {})))
        return resource

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: "Resource",
        new_resource_name: str,
        cloudformation_json: Mapping[str, Any],
        account_id: str,
        region_name: str,
    ) -> "Resource":
        properties = dict(cloudformation_json.get("Properties", {}))
        before = original_resource.properties
        if all(before.get(name) == properties.get(name) for name in cls.fixed):
            original_resource._settle(properties)
            return original_resource
        original_resource.remove()
        return cls.create_from_cloudformation_json(
            new_resource_name, cloudformation_json, account_id, region_name
        )

    def delete(self, account_id: str, region_name: str) -> None:
        try:
            self.remove()
        except ClientError as error:
            # moto deletes in no order: what went with its owner is gone already.
            if not any(word in error.response["Error"]["Code"] for word in GONE):
                raise
        except (AttributeError, TypeError) as error:
            # moto takes these two for "this model has no delete" and goes on.
            raise RuntimeError(f"{self.type} {self.name} was not deleted: {error}") from error

    def _settle(self, properties: Properties) -> None:
        self.put(dict(properties))
        self.properties = properties
        self.exists = True


def refuse(resource_type: str, left: Iterable[str]) -> None:
    """Raise if properties are left that nothing has been done with."""
    names = ", ".join(sorted(left))
    if names:
        raise ValidationError(message=f"the sandbox does not implement {names} of {resource_type}")


def holds(told: Any, stated: Any) -> bool:
    """Whether what the API tells includes what the template states."""
    if isinstance(stated, dict) and isinstance(told, dict):
        return all(holds(told.get(name), value) for name, value in stated.items())
    return bool(told == stated)


def tag_map(tags: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: str(tag["Value"]) for tag in tags}
