"""Elastic Load Balancing v2: what the listener certificate calls enforce.

Sources:
  API  https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_ModifyListener.html
       https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_AddListenerCertificates.html
       https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_RemoveListenerCertificates.html
       https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeListenerCertificates.html
       https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTags.html
       https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeAccountLimits.html
  ALB  https://docs.aws.amazon.com/elasticloadbalancing/latest/application/https-listener-certificates.html
  NLB  https://docs.aws.amazon.com/elasticloadbalancing/latest/network/tls-listener-certificates.html

moto keeps one list, `listener.certificates`, and so do these rules: the default comes first, the
certificate list (what SNI chooses from) follows. A default that is also in the list is in it twice,
as DescribeListenerCertificates shows it.
"""

import hashlib
from threading import RLock
from types import ModuleType
from typing import Any

from moto.acm.models import acm_backends
from moto.core import errors
from moto.core.responses import ActionResult
from moto.elbv2.exceptions import (
    ELBClientError,
    ListenerNotFoundError,
    LoadBalancerNotFoundError,
    TooManyCertificatesError,
)
from moto.elbv2.models import ELBv2Backend, FakeListener, FakeLoadBalancer
from moto.elbv2.responses import ELBV2Response
from moto.iam.models import iam_backends

from sandbox.propagation import propagation
from sandbox.rules.acm import domain_names, key_algorithm

SECURE = ("HTTPS", "TLS")
EXTRA_CERTIFICATES = 25
# The quotas that an account begins with.
LIMITS = {
    "target-groups": 3000,
    "targets-per-application-load-balancer": 1000,
    "listeners-per-application-load-balancer": 50,
    "rules-per-application-load-balancer": 100,
    "application-load-balancers": 50,
    "network-load-balancers": 50,
    "certificates-per-application-load-balancer": EXTRA_CERTIFICATES,
    "certificates-per-network-load-balancer": EXTRA_CERTIFICATES,
}
PAGE = 400
TAGGED_AT_ONCE = 20
EC_KEYS = {"EC_prime256v1", "EC_secp384r1", "EC_secp521r1"}
KEYS = {
    "application": EC_KEYS | {"RSA_2048", "RSA_3072", "RSA_4096"},
    "network": EC_KEYS | {"RSA_1024", "RSA_2048", "RSA_3072"},
}

_one_at_a_time = RLock()


def set_certificates(listener: FakeListener, certificates: list[str]) -> None:
    """The default first, then the list. What they were is served until the change has arrived."""
    propagation.replaced(listener.arn, tuple(listener.certificates))
    listener.certificates = certificates


def listener_of(backend: ELBv2Backend, arn: str) -> FakeListener:
    return backend.describe_listeners(load_balancer_arn=None, listener_arns=[arn])[0]


# The rules.


def only_arns(certificates: list[dict[str, Any]]) -> list[str]:
    """ "Set CertificateArn to the certificate ARN but do not set IsDefault" (all four calls)."""
    if any("IsDefault" in certificate for certificate in certificates):
        raise ELBClientError("ValidationError", "You cannot specify IsDefault for a certificate")
    return [certificate["CertificateArn"] for certificate in certificates]


def one_certificate(protocol: str, arns: list[str]) -> None:
    """HTTPS and TLS listeners: "You must provide exactly one certificate". Others have none."""
    if protocol in SECURE and not arns:
        raise ELBClientError(
            "ValidationError", f"A certificate must be specified for {protocol} listeners"
        )
    if protocol not in SECURE and arns:
        raise ELBClientError(
            "ValidationError", f"Certificates cannot be specified for {protocol} listeners"
        )
    if len(arns) > 1:
        raise ELBClientError("ValidationError", "Up to 1 certificate can be specified")


def usable_certificate(backend: ELBv2Backend, balancer_type: str, arn: str) -> None:
    """In the load balancer's own region and account, issued, with a name, and a supported key.

    ALB: RSA 2048, 3072 and 4096, all three curves. NLB: RSA 1024, 2048 and 3072, not 4096, all
    three curves. UnsupportedCertificate is what users report; the service model does not name it.
    """
    if ":iam:" in arn:
        if iam_backends[backend.account_id]["aws"].get_certificate_by_arn(arn) is None:
            raise ELBClientError("CertificateNotFound", f"Certificate '{arn}' not found")
        return
    # A certificate of another region or account is simply not there.
    bundle = acm_backends[backend.account_id][backend.region_name]._certificates.get(arn)
    if bundle is None:
        raise ELBClientError("CertificateNotFound", f"Certificate '{arn}' not found")
    bundle.check()
    if (
        bundle.status != "ISSUED"
        or not domain_names(bundle)
        or key_algorithm(bundle._cert) not in KEYS[balancer_type]
    ):
        raise ELBClientError(
            "UnsupportedCertificate",
            f"The certificate '{arn}' must have a fully-qualified domain name, a supported "
            "signature, and a supported key size.",
        )


def room_for_one_more(backend: ELBv2Backend, listener: FakeListener) -> None:
    """ALB and NLB quota: 25 certificates per load balancer, not counting default certificates."""
    listeners = list(backend.load_balancers[listener.load_balancer_arn].listeners.values())
    if sum(len(each.certificates) - 1 for each in listeners) >= EXTRA_CERTIFICATES:
        raise TooManyCertificatesError()


# The operations.


_moto_create_balancer = ELBv2Backend.create_load_balancer


def create_load_balancer(self: ELBv2Backend, *args: Any, **kwargs: Any) -> FakeLoadBalancer:
    """Each has a DNS name that no other has, and is internet-facing if nothing else is said."""
    balancer = _moto_create_balancer(self, *args, **kwargs)
    balancer.scheme = balancer.scheme or "internet-facing"
    balancer.dns_name = dns_name(balancer)
    return balancer


def dns_name(balancer: FakeLoadBalancer) -> str:
    """`shop-1234567890.eu-central-1.elb.amazonaws.com`, `mail-60dc….elb.eu-central-1.amazonaws.com`

    An internal ALB's begins with `internal-`. The number and the id are a digest of the ARN.
    """
    region = balancer.arn.split(":")[3]
    identity = hashlib.sha256(balancer.arn.encode()).hexdigest()[:16]
    if balancer.type == "network":
        return f"{balancer.name}-{identity}.elb.{region}.amazonaws.com".lower()
    prefix = "internal-" if balancer.scheme == "internal" else ""
    number = int(identity, 16) % 10**10
    return f"{prefix}{balancer.name}-{number}.{region}.elb.amazonaws.com".lower()


_moto_create = ELBV2Response.create_listener


def create_listener(self: ELBV2Response) -> ActionResult:
    arns = only_arns(self._get_param("Certificates", []))
    balancer = self.elbv2_backend.load_balancers.get(self._get_param("LoadBalancerArn"))
    if balancer is not None:
        one_certificate(self._get_param("Protocol"), arns)
        for arn in arns:
            usable_certificate(self.elbv2_backend, balancer.type, arn)
    return _moto_create(self)


_moto_modify = ELBv2Backend.modify_listener


def modify_listener(
    self: ELBv2Backend,
    arn: str,
    port: str | None = None,
    protocol: str | None = None,
    ssl_policy: str | None = None,
    certificates: list[dict[str, Any]] | None = None,
    actions: list[dict[str, Any]] | None = None,
) -> FakeListener:
    """Certificates is "the default certificate for the listener": the list stays as it is.

    "Any properties that you do not specify remain unchanged."
    """
    with _one_at_a_time:
        listener = listener_of(self, arn)
        balancer = self.load_balancers[listener.load_balancer_arn]
        becomes = protocol or listener.protocol
        arns = only_arns(certificates or [])
        if becomes in SECURE:
            one_certificate(becomes, arns or listener.certificates[:1])
        elif arns:
            one_certificate(becomes, arns)
        for each in arns:
            usable_certificate(self, balancer.type, each)
        if protocol is not None:
            self._validate_port_and_protocol(balancer.type, port or listener.port, protocol)
        if arns:
            listener.certificate = arns[0]
            set_certificates(listener, [arns[0], *listener.certificates[1:]])
        if becomes not in SECURE:
            listener.certificate = None
            set_certificates(listener, [])
        # moto's own method knows neither TLS nor the list, so it is told about neither.
        listener.protocol = becomes
        return _moto_modify(self, arn, port, None, ssl_policy, [], actions or [])


def add_listener_certificates(
    self: ELBv2Backend, arn: str, certificates: list[dict[str, Any]]
) -> list[str]:
    """ "You can specify one certificate per call". If it is already in the list, the call succeeds
    but the certificate is not added again."""
    with _one_at_a_time:
        listener = listener_of(self, arn)
        arns = only_arns(certificates)
        if len(arns) != 1:
            raise ELBClientError("ValidationError", "You must specify exactly one certificate")
        if listener.protocol not in SECURE:
            raise ELBClientError(
                "ValidationError",
                f"Certificates cannot be specified for {listener.protocol} listeners",
            )
        balancer = self.load_balancers[listener.load_balancer_arn]
        usable_certificate(self, balancer.type, arns[0])
        if arns[0] not in listener.certificates[1:]:
            room_for_one_more(self, listener)
            set_certificates(listener, [*listener.certificates, arns[0]])
        return listener.certificates[1:]


def remove_listener_certificates(
    self: ELBv2Backend, arn: str, certificates: list[dict[str, Any]]
) -> None:
    """The default cannot be removed, not even a list entry that is also the default.

    The second half is what hashicorp/terraform-provider-aws has met since December 2023.
    """
    with _one_at_a_time:
        listener = listener_of(self, arn)
        arns = only_arns(certificates)
        if len(arns) != 1:
            raise ELBClientError("ValidationError", "You must specify exactly one certificate")
        if arns[0] in listener.certificates[:1]:
            raise ELBClientError("OperationNotPermitted", "Default certificate cannot be removed")
        set_certificates(listener, [each for each in listener.certificates if each != arns[0]])


def describe_listener_certificates(self: ELBV2Response) -> ActionResult:
    """Paginated; a default that is also in the list "appears twice", IsDefault true and false."""
    backend = self.elbv2_backend
    certificates = backend.describe_listener_certificates(self._get_param("ListenerArn"))
    start = int(self._get_param("Marker") or 0)
    size = self._get_int_param("PageSize", PAGE)
    if not 1 <= size <= PAGE:
        raise ELBClientError("ValidationError", f"PageSize must be between 1 and {PAGE}")
    end = start + size
    rows = [
        {"CertificateArn": each, "IsDefault": position == 0}
        for position, each in enumerate(certificates)
    ]
    return ActionResult(
        {
            "Certificates": rows[start:end],
            "NextMarker": str(end) if end < len(rows) else None,
        }
    )


def describe_account_limits(self: ELBV2Response) -> ActionResult:
    """Paginated; every limit is a number as text."""
    limits = LIMITS | {name: EXTRA_CERTIFICATES for name in LIMITS if "certificates" in name}
    start = int(self._get_param("Marker") or 0)
    size = self._get_int_param("PageSize", PAGE)
    if not 1 <= size <= PAGE:
        raise ELBClientError("ValidationError", f"PageSize must be between 1 and {PAGE}")
    end = start + size
    rows = [{"Name": name, "Max": str(limit)} for name, limit in limits.items()]
    return ActionResult(
        {"Limits": rows[start:end], "NextMarker": str(end) if end < len(rows) else None}
    )


_moto_tags = ELBv2Backend.describe_tags


def describe_tags(self: ELBv2Backend, resource_arns: list[str]) -> dict[str, dict[str, str]]:
    """ "You can specify up to 20 resources in a single call", and each must be there."""
    if len(resource_arns) > TAGGED_AT_ONCE:
        raise ELBClientError(
            "ValidationError",
            f"The maximum number of resources that can be described is {TAGGED_AT_ONCE}",
        )
    for arn in resource_arns:
        if ":loadbalancer/" in arn and arn not in self.load_balancers:
            raise LoadBalancerNotFoundError()
        balancers = list(self.load_balancers.values())
        if ":listener/" in arn and not any(arn in each.listeners for each in balancers):
            raise ListenerNotFoundError()
    return _moto_tags(self, resource_arns)


def default_certificate(certificates: list[str]) -> list[dict[str, str]] | None:
    """DescribeListeners, CreateListener and ModifyListener show the default and no other."""
    return [{"CertificateArn": arn} for arn in certificates[:1]] or None


REPLACED: dict[type | ModuleType, dict[str, Any]] = {
    # moto warns about a code that the service model does not name.
    errors: {"COMMON_ERROR_CODES": [*errors.COMMON_ERROR_CODES, "UnsupportedCertificate"]},
    ELBv2Backend: {
        "create_load_balancer": create_load_balancer,
        "modify_listener": modify_listener,
        "add_listener_certificates": add_listener_certificates,
        "remove_listener_certificates": remove_listener_certificates,
        "describe_tags": describe_tags,
    },
    ELBV2Response: {
        "create_listener": create_listener,
        "describe_account_limits": describe_account_limits,
        "describe_listener_certificates": describe_listener_certificates,
        "RESPONSE_KEY_PATH_TO_TRANSFORMER": {
            **ELBV2Response.RESPONSE_KEY_PATH_TO_TRANSFORMER,
            "CreateListenerOutput.Listeners.Listener.Certificates": default_certificate,
            "DescribeListenersOutput.Listeners.Listener.Certificates": default_certificate,
            "ModifyListenerOutput.Listeners.Listener.Certificates": default_certificate,
        },
    },
}
