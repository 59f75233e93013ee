"""The resource types of our template, created as CloudFormation does: through the services' APIs.

moto's own models drop many properties without a word and skip types they do not know. These take
their place: what a resource's `put` does not understand raises, and so does a type that is not
here. Property names and meaning:
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-template-resource-type-ref.html

One module per service, each on top of `resource`. Where moto itself stands in the way, the module
names in `REPLACED` the classes it corrects and the methods it puts in their place.
"""

from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError

from sandbox.cloudformation import events, functions, iam, kms, s3, sns, sqs, ssm, watch
from sandbox.cloudformation.resource import Properties, Resource

MODELS: tuple[type[Resource], ...] = (
    kms.Key,
    kms.Alias,
    s3.Bucket,
    s3.BucketPolicy,
    sqs.Queue,
    sqs.QueuePolicy,
    iam.Role,
    iam.Policy,
    iam.ManagedPolicy,
    functions.Function,
    functions.EventSourceMapping,
    functions.Permission,
    functions.EventInvokeConfig,
    events.Rule,
    events.Schedule,
    events.ScheduleGroup,
    watch.Alarm,
    watch.LogGroup,
    sns.Topic,
    sns.Subscription,
    sns.TopicPolicy,
    ssm.Document,
)
TYPES = {model.type: model for model in MODELS}


def install() -> None:
    """Make these the resource types of moto's CloudFormation. Again changes nothing."""
    parsing.resource_class_from_type = resource_class_from_type
    parsing.resource_name_property_from_type = resource_name_property_from_type
    parsing.parse_and_create_resource = parse_and_create_resource
    parsing.parse_and_update_resource = parse_and_update_resource
    for service in (functions, s3):
        for owner, methods in service.REPLACED.items():
            for name, method in methods.items():
                setattr(owner, name, method)


def resource_class_from_type(resource_type: str) -> type[Resource]:
    if resource_type not in TYPES:
        raise ValidationError(message=f"the sandbox does not implement {resource_type}")
    return TYPES[resource_type]


def resource_name_property_from_type(resource_type: str) -> str:
    return resource_class_from_type(resource_type).name_property


_moto_create = parsing.parse_and_create_resource
_moto_update = parsing.parse_and_update_resource


def parse_and_create_resource(
    logical_id: str, resource_json: Properties, *args: Any, **kwargs: Any
) -> Any:
    try:
        return _moto_create(logical_id, resource_json, *args, **kwargs)
    except Exception as error:
        raise named(logical_id, resource_json, error) from error


def parse_and_update_resource(
    logical_id: str, resource_json: Properties, *args: Any, **kwargs: Any
) -> Any:
    try:
        return _moto_update(logical_id, resource_json, *args, **kwargs)
    except Exception as error:
        raise named(logical_id, resource_json, error) from error


class ResourceFailed(ValidationError):
    """A resource could not be created or updated; says which and why."""


def named(logical_id: str, resource_json: Properties, error: Exception) -> ResourceFailed:
    """moto answers any other exception with a bare HTTP 500."""
    if isinstance(error, ResourceFailed):
        return error
    reason = getattr(error, "message", None) or str(error) or repr(error)
    return ResourceFailed(message=f"{logical_id} ({resource_json['Type']}): {reason}")
