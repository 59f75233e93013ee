"""API Gateway: what the calls for custom domain names (of REST APIs) enforce.

Sources:
  API       https://docs.aws.amazon.com/apigateway/latest/api/API_UpdateDomainName.html
  patch     https://docs.aws.amazon.com/apigateway/latest/api/patch-operations.html
  edge      https://docs.aws.amazon.com/apigateway/latest/developerguide/how-to-edge-optimized-custom-domain-name.html
  regional  https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-regional-api-custom-domain-create.html

Not modelled: private domain names, mutual TLS, certificates in the request itself, a move between
edge-optimized and regional, the same names through the API of HTTP APIs (`apigatewayv2`). Where AWS
publishes no message, it is ours.
"""

import json
from collections.abc import Callable
from threading import RLock
from typing import Any
from urllib.parse import unquote

from moto.acm.models import CertBundle, acm_backends
from moto.apigateway.exceptions import BadRequestException, ConflictException
from moto.apigateway.models import APIGatewayBackend, DomainName, apigateway_backends
from moto.apigateway.responses import APIGatewayResponse

from sandbox.fronts import CustomDomain
from sandbox.propagation import propagation
from sandbox.rules import cloudfront, elbv2
from sandbox.rules.acm import covers, key_algorithm

# What this sandbox can change; AWS lists more paths (patch).
EDGE_PATH = "/certificateArn"
REGIONAL_PATH = "/regionalCertificateArn"
POLICY_PATH = "/securityPolicy"
PAGE, LARGEST_PAGE = 25, 500

_one_at_a_time = RLock()


# The rules.


def usable_certificate(backend: APIGatewayBackend, front: CustomDomain, arn: str | None) -> None:
    """In this account, in us-east-1 for an edge-optimized domain and else in the domain's region,
    issued, with a key that can be used there, and for the domain's name."""
    kind = "EDGE" if front.is_edge else "REGIONAL"
    if not arn:
        raise BadRequestException(f"A certificate was not provided for the endpoint type {kind}.")
    region = cloudfront.CERTIFICATE_REGION if front.is_edge else front.region
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[2] != "acm" or parts[3] != region:
        raise BadRequestException(
            f"Invalid certificate ARN: {arn}. Certificate must be in '{region}'."
        )
    bundle: CertBundle | None = None
    if parts[4] == backend.account_id:
        bundle = acm_backends[backend.account_id][region]._certificates.get(arn)
    if bundle is None:
        raise BadRequestException(f"Invalid certificate ARN: {arn}. There is no such certificate.")
    bundle.check()
    keys = cloudfront.KEYS if front.is_edge else elbv2.KEYS["application"]
    if bundle.status != "ISSUED" or key_algorithm(bundle._cert) not in keys:
        raise BadRequestException(f"The certificate {arn} cannot be used for a domain name.")
    name = front.domain.domain_name
    if covers(bundle.sans, name):
        return
    if front.is_edge:
        raise BadRequestException(
            f"Unable to associate certificate {arn} with CloudFront. This error may prevent the "
            f"domain name {name} from being used in API Gateway for up to 40 minutes. Please "
            "ensure the certificate domain name matches the requested domain name, and that this "
            "user has permission to call cloudfront:UpdateDistribution on '*' resources."
        )
    raise BadRequestException(f"The certificate {arn} does not cover the domain name {name}.")


def nobody_has(region: str, name: str) -> None:
    """ "A custom domain name must be unique within a Region across all AWS accounts" (regional)."""
    for by_region in list(apigateway_backends.values()):
        if region in by_region and name in by_region[region].domain_names:
            raise ConflictException("The domain name you provided already exists.")


def status(front: CustomDomain) -> str:
    """UPDATING until another certificate is served everywhere, and AVAILABLE then."""
    served = propagation.still_served(front.arn, front.certificate, "apigateway", "relink")
    under_way = len(list(served)) > 1
    return "UPDATING" if under_way else front.domain.domain_name_status


# The operations.


_moto_create = APIGatewayBackend.create_domain_name


def create_domain_name(
    self: APIGatewayBackend, domain_name: str, *args: Any, **kwargs: Any
) -> DomainName:
    with _one_at_a_time:
        nobody_has(self.region_name, domain_name)
        created = _moto_create(self, domain_name, *args, **kwargs)
        # moto's domain does not know where it is, and shows its ARN to nobody.
        created.region_name = self.region_name  # type: ignore[attr-defined]
        created.endpoint_configuration = {
            "types": ["EDGE"],
            "ipAddressType": "ipv4",
            **(created.endpoint_configuration or {}),
        }
        try:
            front = CustomDomain(self.region_name, created)
            usable_certificate(self, front, front.certificate)
        except BadRequestException:
            del self.domain_names[domain_name]
            raise
        return created


def update_domain_name(
    self: APIGatewayBackend, name: str, operations: list[dict[str, Any]]
) -> DomainName:
    """All operations or none. "If the status is UPDATING, the domain cannot be modified further
    until the existing operation is complete" (API)."""
    with _one_at_a_time:
        domain = self.get_domain_name(name)
        front = CustomDomain(self.region_name, domain)
        if status(front) != "AVAILABLE":
            raise ConflictException(f"The domain name {name} is being updated. Try again later.")
        certificate = EDGE_PATH if front.is_edge else REGIONAL_PATH
        paths = [certificate, POLICY_PATH]
        for each in operations:
            if each.get("op") != "replace" or each.get("path") not in paths:
                raise BadRequestException(
                    f"Invalid patch path  '{each.get('path')}' specified for op '{each.get('op')}'."
                    f" Must be one of: [{', '.join(paths)}]"
                )
            if each["path"] == certificate:
                usable_certificate(self, front, each.get("value"))
        for each in operations:
            if each["path"] == POLICY_PATH:
                domain.security_policy = each["value"]
            elif each["value"] != front.certificate:
                propagation.replaced(front.arn, front.certificate)
                field = "certificate_arn" if front.is_edge else "regional_certificate_arn"
                setattr(domain, field, each["value"])
        return domain


_moto_to_json = DomainName.to_json


def to_json(self: DomainName) -> dict[str, Any]:
    """Of the two kinds of domain each shows its own fields, and none shows a private key."""
    front = CustomDomain(self.region_name, self)  # type: ignore[attr-defined]
    hidden = {
        "certificateBody",
        "certificateChain",
        "certificatePrivateKey",
        *(
            ("regionalDomainName", "regionalHostedZoneId", "regionalCertificateArn")
            if front.is_edge
            else ("distributionDomainName", "distributionHostedZoneId", "certificateArn")
        ),
    }
    return {
        **{name: value for name, value in _moto_to_json(self).items() if name not in hidden},
        "domainNameArn": front.arn,
        "domainNameStatus": status(front),
    }


_moto_answer_one = APIGatewayResponse.get_domain_name


def answer_one(self: APIGatewayResponse) -> Any:
    """moto looks for a wildcard by the name that its path has: `%2A.example.com`."""
    self.path = unquote(self.path)
    return _moto_answer_one(self)


def answer_update(self: APIGatewayResponse) -> str:
    name = unquote(self.path).split("/")[2]
    operations = self._get_param("patchOperations") or []
    return json.dumps(update_domain_name(self.backend, name, operations).to_json())


def answer_list(self: APIGatewayResponse) -> str:
    """Paginated; `position` is the name that ended the page before."""
    size = int(self._get_param("limit") or PAGE)
    if not 1 <= size <= LARGEST_PAGE:
        raise BadRequestException(f"The limit must be between 1 and {LARGEST_PAGE}.")
    domains = sorted(self.backend.get_domain_names(), key=lambda each: each.domain_name)
    after = self._get_param("position") or ""
    rest = [each for each in domains if each.domain_name > after]
    answer: dict[str, Any] = {"item": [each.to_json() for each in rest[:size]]}
    if len(rest) > size:
        answer["position"] = rest[size - 1].domain_name
    return json.dumps(answer)


REPLACED: dict[type, dict[str, Callable[..., Any]]] = {
    APIGatewayBackend: {"create_domain_name": create_domain_name},
    DomainName: {"to_json": to_json},
    APIGatewayResponse: {
        "get_domain_name": answer_one,
        "get_domain_names": answer_list,
        "update_domain_name": answer_update,
    },
}
