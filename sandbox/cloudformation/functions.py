"""Lambda: functions, what invokes them and who may."""

from collections.abc import Callable
from typing import Any

from moto.awslambda.models import LambdaBackend, LambdaFunction

from sandbox.cloudformation.resource import Properties, Resource, holds, refuse, tag_map


class Function(Resource):
    """A function whose code is not stored: the sandbox runs it from the source tree."""

    type = "AWS::Lambda::Function"
    name_property = "FunctionName"
    fixed = ("FunctionName", "PackageType", "Architectures")
    attribute_names = ("Arn",)

    def put(self, properties: Properties) -> None:
        api = self.api("lambda")
        self.name = self.physical_resource_id = self.name[:64]
        properties.pop("FunctionName", None)
        properties.pop("Code")
        reserved = properties.pop("ReservedConcurrentExecutions", None)
        tags = tag_map(properties.pop("Tags", []))
        if self.exists:
            unchangeable = ("Architectures", "PackageType")
            api.update_function_configuration(
                FunctionName=self.name,
                **{k: v for k, v in properties.items() if k not in unchangeable},
            )
            api.tag_resource(Resource=self.attributes["Arn"], Tags=tags)
        else:
            code = {"ZipFile": b"run from the source tree"}
            made = api.create_function(FunctionName=self.name, Code=code, Tags=tags, **properties)
            self.attributes = {"Arn": made["FunctionArn"]}
        if reserved is not None:
            api.put_function_concurrency(
                FunctionName=self.name, ReservedConcurrentExecutions=reserved
            )
        elif "ReservedConcurrentExecutions" in self.properties:
            api.delete_function_concurrency(FunctionName=self.name)
        told = api.get_function_configuration(FunctionName=self.name)
        refuse(self.type, {k for k, v in properties.items() if not holds(told.get(k), v)})

    def remove(self) -> None:
        self.api("lambda").delete_function(FunctionName=self.name)


class EventSourceMapping(Resource):
    type = "AWS::Lambda::EventSourceMapping"
    fixed = ("EventSourceArn",)
    attribute_names = ("Id",)

    def put(self, properties: Properties) -> None:
        api = self.api("lambda")
        properties.pop("Tags", None)
        if self.exists:
            changes = {k: v for k, v in properties.items() if k != "EventSourceArn"}
            api.update_event_source_mapping(UUID=self.physical_resource_id, **changes)
        else:
            made = api.create_event_source_mapping(**properties)
            self.physical_resource_id = made["UUID"]
            self.attributes = {"Id": made["UUID"]}
        told = api.get_event_source_mapping(UUID=self.physical_resource_id)
        told["Enabled"] = told["State"] == "Enabled"
        told["FunctionName"] = properties["FunctionName"]
        refuse(self.type, {k for k, v in properties.items() if not holds(told.get(k), v)})

    def remove(self) -> None:
        self.api("lambda").delete_event_source_mapping(UUID=self.physical_resource_id)


class Permission(Resource):
    type = "AWS::Lambda::Permission"
    fixed = ("Action", "FunctionName", "Principal", "SourceAccount", "SourceArn")

    def put(self, properties: Properties) -> None:
        self.function = properties["FunctionName"]
        self.api("lambda").add_permission(StatementId=self.name, **properties)

    def remove(self) -> None:
        self.api("lambda").remove_permission(FunctionName=self.function, StatementId=self.name)


class EventInvokeConfig(Resource):
    type = "AWS::Lambda::EventInvokeConfig"
    fixed = ("FunctionName", "Qualifier")

    def put(self, properties: Properties) -> None:
        self.function = properties["FunctionName"]
        if properties["Qualifier"] != "$LATEST":
            refuse(self.type, {"Qualifier other than $LATEST"})
        if self.exists:
            # moto would append the new one, and go on telling the old one.
            self.remove()
        self.api("lambda").put_function_event_invoke_config(**properties)

    def remove(self) -> None:
        self.api("lambda").delete_function_event_invoke_config(FunctionName=self.function)


# moto keeps no LoggingConfig, and of an update less than of a creation.
_moto_get_configuration = LambdaFunction.get_configuration
_moto_update_configuration = LambdaFunction.update_configuration
_moto_create_function = LambdaBackend.create_function


def get_configuration(self: LambdaFunction, on_create: bool = False) -> Properties:
    logs = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{self.function_name}"}
    stated = getattr(self, "logging_config", None) or {}
    if stated.get("LogFormat") == "JSON":
        logs |= {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}
    return {**_moto_get_configuration(self, on_create), "LoggingConfig": {**logs, **stated}}


def update_configuration(self: LambdaFunction, config_updates: Properties) -> Properties:
    self.logging_config = config_updates.get("LoggingConfig")  # type: ignore[attr-defined]
    if "TracingConfig" in config_updates:
        self.tracing_config = config_updates["TracingConfig"]
    if "EphemeralStorage" in config_updates:
        self.ephemeral_storage = config_updates["EphemeralStorage"]["Size"]
    _moto_update_configuration(self, config_updates)
    return self.get_configuration()


def create_function(self: LambdaBackend, spec: Properties) -> LambdaFunction:
    function = _moto_create_function(self, spec)
    function.logging_config = spec.get("LoggingConfig")  # type: ignore[attr-defined]
    return function


REPLACED: dict[type, dict[str, Callable[..., Any]]] = {
    LambdaFunction: {
        "get_configuration": get_configuration,
        "update_configuration": update_configuration,
    },
    LambdaBackend: {"create_function": create_function},
}
