"""What uses an import: `InUseBy`, resolved to targets that can be pointed to another one.

https://docs.aws.amazon.com/acm/latest/APIReference/API_CertificateDetail.html

Behind API Gateway, AppSync, Cognito and others stand load balancers and distributions of accounts
of AWS's, which nobody else can look into. Those of API Gateway are explained by its custom domain
names, which say their certificate; what is not explained belongs to something that cannot be moved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from certrail.aws import Aws
from certrail.errors import AccessDenied, AwsError
from certrail.grants import Grant, Scope
from certrail.keys import ALB, API_GATEWAY, CLOUDFRONT, NLB, SECURE
from deployers.preflight import User

# Services whose update call takes no other certificate (botocore's models of their update calls).
WITHOUT_SWAP = {
    "appsync": "AppSync cannot point a domain to another certificate",
    "ec2": "Verified Access cannot point an endpoint to another certificate",
    "iot": "IoT cannot point a domain configuration to another certificate",
}
# What DescribeAccountLimits calls the quota, by how a load balancer's path begins. Defaults do not
# count. Where AWS does not say it, it is the one that everybody begins with.
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html
# https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-limits.html
CERTIFICATES = {
    "app": "certificates-per-application-load-balancer",
    "net": "certificates-per-network-load-balancer",
}
CERTIFICATES_AT_FIRST = 25
# How a region that the account has not enabled answers.
NOT_ENABLED = {"AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException"}
GET_CONFIG = "cloudfront:GetDistributionConfig"
# What GetDomainNames gives at once.
DOMAINS = 500


def grants(scope: Scope, regions: Sequence[str]) -> list[Grant]:
    """What IAM has to allow to read who uses imports of these regions; a star for any."""
    of_cloudfront = "*" in regions or "us-east-1" in regions
    domains = ["*"] if of_cloudfront else regions
    listeners = ("DescribeAccountLimits", "DescribeListenerCertificates", "DescribeListeners")
    distributions = (scope.arn("cloudfront", "", "distribution/*"),)
    return [
        *([Grant("SeeDistributions", (GET_CONFIG,), distributions)] if of_cloudfront else []),
        Grant(
            "SeeListeners",
            tuple(f"elasticloadbalancing:{operation}" for operation in listeners),
            regions=tuple(regions),
        ),
        # An edge-optimized domain name may belong to any region.
        Grant(
            "SeeDomainNames",
            ("apigateway:GET",),
            tuple(f"arn:{scope.partition}:apigateway:{region}::/domainnames" for region in domains),
        ),
    ]


def users_of(
    certificate: str, in_use_by: Sequence[str], aws: Aws, account: str | None
) -> list[User]:
    """certificate: its ARN. in_use_by: as DescribeCertificate has it. account: its name in the
    file, for the targets. Reads only. Raises AwsError."""
    found: list[User] = []
    foreign: Counter[str] = Counter()
    owner = certificate.split(":")[4]
    for arn in in_use_by:
        _, _, service, region, whose, resource = arn.split(":", 5)
        match service, resource.split("/"):
            case "cloudfront" | "elasticloadbalancing", _ if whose != owner:
                foreign[service] += 1
            case "cloudfront", ["distribution", distribution]:
                found += _distribution(distribution, certificate, aws, account)
            case "elasticloadbalancing", ["loadbalancer", "app" | "net", _, _]:
                found += _listeners(arn, region, certificate, aws, account)
            case _:
                why = WITHOUT_SWAP.get(service, "certrail has no kind of target that moves it")
                found.append(User(arn, stuck=why, names=None))
    if foreign["elasticloadbalancing"]:
        found += _regional_domains(foreign["elasticloadbalancing"], certificate, aws, account)
    if foreign["cloudfront"]:
        found += _edge_domains(foreign["cloudfront"], certificate, aws, account)
    return found


def _job(kind: str, account: str | None, **fields: Any) -> dict[str, Any]:
    """As `as_job` makes it. The kinds themselves are not imported: whoever deploys one of them
    carries no other."""
    return {"type": kind, **({"account": account} if account else {}), **fields}


def _distribution(
    distribution: str, certificate: str, aws: Aws, account: str | None
) -> Iterator[User]:
    try:
        config: Any = aws.cloudfront().get_distribution_config(Id=distribution)[
            "DistributionConfig"
        ]
    except AwsError as error:
        if error.code == "NoSuchDistribution":
            # `InUseBy` lags behind.
            return
        raise
    if config.get("ViewerCertificate", {}).get("ACMCertificateArn") != certificate:
        return
    yield User(
        f"cloudfront/{distribution}",
        _job("cloudfront", account, distribution=distribution),
        names=tuple(config.get("Aliases", {}).get("Items", ())),
        key_types=CLOUDFRONT,
        # Promoting it would carry the certificate over to the primary one.
        stays="a staging distribution: update or promote it" if config.get("Staging") else "",
    )


def _listeners(
    balancer: str, region: str, certificate: str, aws: Aws, account: str | None
) -> Iterator[User]:
    elb = aws.elbv2(region)
    try:
        listeners = [
            listener
            for page in elb.get_paginator("describe_listeners").paginate(LoadBalancerArn=balancer)
            for listener in page["Listeners"]
            if listener["Protocol"] in SECURE
        ]
    except AwsError as error:
        if error.code == "LoadBalancerNotFound":
            return
        raise
    held = {
        listener["ListenerArn"]: [
            (each["CertificateArn"], each.get("IsDefault", False))
            for page in elb.get_paginator("describe_listener_certificates").paginate(
                ListenerArn=listener["ListenerArn"]
            )
            for each in page["Certificates"]
        ]
        for listener in listeners
    }
    places = {
        arn: [is_default for each, is_default in certificates if each == certificate]
        for arn, certificates in held.items()
    }
    if not any(places.values()):
        return
    kind = balancer.partition(":loadbalancer/")[2].partition("/")[0]
    limit = _limit(CERTIFICATES[kind], region, aws)
    listed = sum(not is_default for each in held.values() for _, is_default in each)
    room = limit - listed
    for arn, here in places.items():
        if not here:
            continue
        default = {"default": True} if any(here) else {}
        yield User(
            f"listener/{arn.partition(':listener/')[2]}",
            _job("listener", account, listener=arn, **default),
            key_types=ALB if kind == "app" else NLB,
            # For a moment the list has both.
            stays=""
            if room > 0
            else f"its load balancer may list {limit} certificates and lists {listed}, and both "
            "are listed while it moves: remove one that nothing needs, or ask for more",
        )
        if all(here):
            # The list gets one that it did not have.
            room -= 1


def _limit(name: str, region: str, aws: Aws) -> int:
    pages = aws.elbv2(region).get_paginator("describe_account_limits")
    found = (
        int(limit["Max"])
        for page in pages.paginate()
        for limit in page["Limits"]
        if limit.get("Name") == name
    )
    return next(found, CERTIFICATES_AT_FIRST)


def _regional_domains(
    count: int, certificate: str, aws: Aws, account: str | None
) -> Iterator[User]:
    region = certificate.split(":")[3]
    found = 0
    for domain in _domains(region, aws):
        if domain.get("regionalCertificateArn") == certificate:
            found += 1
            yield _user(domain, region, "regional", account)
        elif domain.get("certificateArn") == certificate and "PRIVATE" in _types(domain):
            found += 1
            yield User(
                f"the private domain name {domain['domainName']} of API Gateway",
                stuck="certrail has no kind of target that moves it",
                names=(domain["domainName"],),
            )
    if found < count:
        yield User(
            f"{_several(count - found, 'load balancer')} of AWS's own",
            stuck=f"no domain name of API Gateway in {region} explains it",
            names=None,
        )


def _edge_domains(count: int, certificate: str, aws: Aws, account: str | None) -> Iterator[User]:
    """An edge-optimized domain name may belong to any region; its certificate is in us-east-1."""
    found, unasked = 0, []
    for region in aws.regions("apigateway", certificate.split(":")[1]):
        if found >= count:
            return
        try:
            domains = _domains(region, aws)
        except AwsError as error:
            if error.code not in NOT_ENABLED and not isinstance(error, AccessDenied):
                raise
            unasked.append(region)
            continue
        for domain in domains:
            if domain.get("certificateArn") == certificate and "PRIVATE" not in _types(domain):
                found += 1
                yield _user(domain, region, "edge", account)
    if found < count:
        but = f" ({', '.join(unasked)} could not be asked)" if unasked else ""
        yield User(
            f"{_several(count - found, 'distribution')} of AWS's own",
            stuck="no edge-optimized domain name of API Gateway explains it: most often it is a "
            f"domain of AppSync or Cognito{but}",
            names=None,
        )


def _domains(region: str, aws: Aws) -> list[Any]:
    pages = aws.apigateway(region).get_paginator("get_domain_names")
    return [
        domain
        for page in pages.paginate(PaginationConfig={"PageSize": DOMAINS})
        for domain in page.get("items", ())
    ]


def _user(domain: Any, region: str, endpoint: str, account: str | None) -> User:
    name = domain["domainName"]
    if domain.get("ownershipVerificationCertificateArn"):
        return User(
            f"the domain name {name} of API Gateway",
            stuck="with mutual TLS it takes another certificate only together with a proof that "
            "the name is yours",
            names=(name,),
        )
    fields = {"domain_name": name, "region": region}
    if endpoint == "edge":
        fields["endpoint"] = endpoint
    return User(
        f"apigateway/{region}/{name}",
        _job("apigateway", account, **fields),
        names=(name,),
        key_types=API_GATEWAY,
    )


def _types(domain: Any) -> list[str]:
    types: list[str] = domain.get("endpointConfiguration", {}).get("types", [])
    return types


def _several(count: int, what: str) -> str:
    return f"a {what}" if count == 1 else f"{count} {what}s"
