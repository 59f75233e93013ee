"""API Gateway: custom domain names. Its IAM actions are HTTP methods, its resources are paths.

https://docs.aws.amazon.com/apigateway/latest/developerguide/how-to-edge-optimized-custom-domain-name.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-control-access-using-iam-policies-to-invoke-api.html
"""

from collections.abc import Mapping
from typing import Any

from moto.apigateway.models import apigateway_backends

from sandbox.authorization.request import modelled, request_context
from sandbox.calls import Call
from sandbox.fronts import CustomDomain, domain_arn
from sandbox.policies import Need

METHODS = {
    "CreateDomainName": "POST",
    "DeleteDomainName": "DELETE",
    "GetDomainName": "GET",
    "GetDomainNames": "GET",
    "UpdateDomainName": "PATCH",
}
WHOLE = {"CreateDomainName", "GetDomainNames"}


def needs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    modelled(call, set(METHODS))
    context = request_context(call, params.get("tags"))
    name = params.get("domainName", "")
    arn = domain_arn(call.region, "" if call.operation in WHOLE else name).rstrip("/")
    found = [Need(f"apigateway:{METHODS[call.operation]}", arn, context)]
    if call.operation in {"CreateDomainName", "UpdateDomainName"} and _is_edge(call, params, name):
        # "To set up an edge-optimized custom domain name or to update its certificate, you must
        # have a permission to update CloudFront distributions": on "*", as they are AWS's own.
        found.append(
            Need("cloudfront:UpdateDistribution", "*", request_context(call), implied=True)
        )
    return found


def _is_edge(call: Call, params: Mapping[str, Any], name: str) -> bool:
    if call.operation == "CreateDomainName":
        return "EDGE" in params.get("endpointConfiguration", {}).get("types", ["EDGE"])
    domain = apigateway_backends[call.account][call.region].domain_names.get(name)
    return domain is not None and CustomDomain(call.region, domain).is_edge
