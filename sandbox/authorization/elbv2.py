"""Elastic Load Balancing v2: listeners and what they hang on."""

from collections.abc import Mapping
from typing import Any

from moto.elbv2.models import elbv2_backends

from sandbox.authorization.request import modelled, request_context, tagged
from sandbox.calls import Call
from sandbox.policies import Need

# The parameter that says what the call is about.
ABOUT = {
    "AddListenerCertificates": "ListenerArn",
    "CreateListener": "LoadBalancerArn",
    "DeleteListener": "ListenerArn",
    "DeleteLoadBalancer": "LoadBalancerArn",
    "DeleteTargetGroup": "TargetGroupArn",
    "ModifyListener": "ListenerArn",
    "ModifyLoadBalancerAttributes": "LoadBalancerArn",
    "ModifyTargetGroup": "TargetGroupArn",
    "RemoveListenerCertificates": "ListenerArn",
}


def needs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = request_context(call, params.get("Tags"))
    if call.operation.startswith("Describe"):
        return [Need(call.action, "*", context)]
    modelled(call, {*ABOUT, "AddTags", "RemoveTags"})
    named = params.get("ResourceArns") or [params.get(ABOUT[call.operation], "*")]
    return [
        Need(call.action, arn, context | tagged(_tags_of(call, arn), "elasticloadbalancing"))
        for arn in named
    ]


def _tags_of(call: Call, arn: str) -> Any:
    tagging = elbv2_backends[call.account][call.region].tagging_service
    return tagging.get_tag_dict_for_resource(arn)
