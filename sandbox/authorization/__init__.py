"""What each API call must be allowed to do: IAM actions, resource ARNs and condition keys.

An action is often, but not always, named like the API operation; the tables follow AWS's Service
Authorization Reference (https://docs.aws.amazon.com/service-authorization/latest/reference/). Only
services that certrail's functions use are modelled, and only the operations such functions could
sensibly use; for any other `needs` raises `Unmodelled`, so that nothing passes by being unknown.

One module per service: its tables first, then its `needs`. `request` is what they have in common.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sandbox.authorization import (
    acm,
    apigateway,
    cloudfront,
    elbv2,
    kms,
    others,
    route53,
    s3,
    secretsmanager,
    sqs,
    ssm,
)
from sandbox.authorization.request import Unmodelled
from sandbox.calls import Call
from sandbox.policies import Need

__all__ = ["Unmodelled", "needs", "resource"]


def needs(call: Call) -> tuple[Need, ...]:
    """Every permission the call needs; all must be granted. Raises Unmodelled."""
    if call.params is None:
        raise Unmodelled(f"the sandbox cannot read the parameters of {call.action}")
    find = SERVICES.get(call.service)
    if find is None:
        raise Unmodelled(f"the sandbox does not model IAM for the service {call.service}")
    return tuple(find(call, call.params))


def resource(call: Call) -> str:
    """The ARN the call is about, "*" where it is about none, "" where that is not known."""
    try:
        first = needs(call)
    except Unmodelled:
        return ""
    return first[0].resource if first else "*"


# By IAM's prefix.
SERVICES: dict[str, Callable[[Call, Mapping[str, Any]], list[Need]]] = {
    "acm": acm.needs,
    "apigateway": apigateway.needs,
    "cloudfront": cloudfront.needs,
    "cloudwatch": others.cloudwatch,
    "elasticloadbalancing": elbv2.needs,
    "events": others.events,
    "kms": kms.needs,
    "lambda": others.lambda_,
    "logs": others.logs,
    "route53": route53.needs,
    "s3": s3.needs,
    "secretsmanager": secretsmanager.needs,
    "sqs": sqs.needs,
    "ssm": ssm.needs,
    "sts": others.sts,
    "tag": others.tag,
}
