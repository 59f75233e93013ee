"""The services with little to say: STS, tagging, EventBridge, CloudWatch, Lambda."""

from collections.abc import Mapping
from typing import Any

from sandbox.authorization.request import Unmodelled, here, last, modelled, request_context
from sandbox.calls import Call
from sandbox.policies import Need


def sts(call: Call, params: Mapping[str, Any]) -> list[Need]:
    if call.operation == "GetCallerIdentity":
        # Needs no permission, and none can be taken away.
        return []
    modelled(call, {"AssumeRole"})
    context = request_context(call, params.get("Tags"))
    if "ExternalId" in params:
        context["sts:ExternalId"] = params["ExternalId"]
    context["sts:RoleSessionName"] = params.get("RoleSessionName", "")
    return [Need(call.action, params.get("RoleArn", ""), context)]


def tag(call: Call, params: Mapping[str, Any]) -> list[Need]:
    modelled(call, {"GetResources", "GetTagKeys", "GetTagValues"})
    return [Need(call.action, "*", request_context(call))]


def events(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = request_context(call)
    if call.operation == "PutEvents":
        buses = {entry.get("EventBusName", "default") for entry in params.get("Entries", ())}
        return [Need(call.action, _bus(call, bus), context) for bus in sorted(buses)]
    if call.operation in {"ListEventBuses", "ListRules"}:
        return [Need(call.action, "*", context)]
    name = params.get("Name") or params.get("Rule")
    if not name:
        raise Unmodelled(f"the sandbox does not know which resource {call.action} needs")
    if call.operation == "DescribeEventBus":
        return [Need(call.action, _bus(call, name), context)]
    bus = last(params.get("EventBusName", "default"))
    path = name if bus == "default" else f"{bus}/{name}"
    return [Need(call.action, here(call, f"rule/{path}"), context)]


def _bus(call: Call, name: str) -> str:
    return name if name.startswith("arn:") else here(call, f"event-bus/{name}")


def logs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    group = params.get("logGroupName")
    stream = params.get("logStreamName")
    if call.operation == "DescribeLogGroups" or not group:
        return [Need(call.action, here(call, "log-group:*"), request_context(call))]
    suffix = f":log-stream:{stream}" if stream else ":*"
    if call.operation == "CreateLogGroup":
        suffix = ""
    return [Need(call.action, here(call, f"log-group:{group}{suffix}"), request_context(call))]


def cloudwatch(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = request_context(call, params.get("Tags"))
    if call.operation == "DescribeAlarms":
        # Whatever it asks for, it is asked of all.
        return [Need(call.action, here(call, "alarm:*"), context)]
    if call.operation in {"DescribeAlarmHistory", "PutMetricAlarm", "SetAlarmState"}:
        return [Need(call.action, here(call, f"alarm:{params.get('AlarmName', '')}"), context)]
    modelled(call, {"PutMetricData", "GetMetricData", "GetMetricStatistics", "ListMetrics"})
    if "Namespace" in params:
        context["cloudwatch:namespace"] = params["Namespace"]
    return [Need(call.action, "*", context)]


def lambda_(call: Call, params: Mapping[str, Any]) -> list[Need]:
    modelled(call, {"Invoke", "GetFunction"})
    name = params.get("FunctionName", "")
    if not name.startswith("arn:"):
        name = here(call, f"function:{name}")
    if params.get("Qualifier"):
        name = f"{name}:{params['Qualifier']}"
    action = "lambda:InvokeFunction" if call.operation == "Invoke" else call.action
    return [Need(action, name, request_context(call))]
