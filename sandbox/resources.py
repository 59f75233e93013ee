"""Things that are there before certrail comes, each at the address a pipeline states.

AWS invents the ids of distributions and listeners; a sample `pipelines.yaml` must name them before
they exist. So these functions create a resource through the service's own API and then move it, in
moto's memory, to the stated id. They work only in the process that runs moto, with `sandbox.rules`
installed. `endpoint` is moto's URL ("http://127.0.0.1:5000"); `session` has credentials that may
create everything; `account` is whose the resource is.

Certificates they need go straight into ACM's memory: that is no call, and spends no import.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from moto.acm.models import CertBundle, acm_backends
from moto.cloudfront.models import cloudfront_backends
from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends

from sandbox.rules.elbv2 import dns_name

if TYPE_CHECKING:
    from types_boto3_apigateway import APIGatewayClient
    from types_boto3_cloudfront import CloudFrontClient
    from types_boto3_elbv2 import ElasticLoadBalancingv2Client
    from types_boto3_iam import IAMClient
    from types_boto3_route53 import Route53Client

ACCOUNT = "123456789012"
CURVES = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1(), "secp521r1": ec.SECP521R1()}


def throwaway_certificate(
    names: Sequence[str], key_type: str = "EC_prime256v1"
) -> tuple[bytes, bytes]:
    """A self-signed certificate for `names`, valid for a year, and its key: two PEM blocks.

    `key_type` is ACM's name for it: RSA_2048, RSA_3072, RSA_4096, EC_prime256v1, EC_secp384r1,
    EC_secp521r1. KeyError or ValueError for another.
    """
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if key_type.startswith("RSA_"):
        key = rsa.generate_private_key(65537, int(key_type.removeprefix("RSA_")))
    else:
        curve = key_type.removeprefix("EC_").replace("prime256v1", "secp256r1")
        key = ec.generate_private_key(CURVES[curve])
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "throwaway")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def imported_certificate(
    names: Sequence[str],
    key_type: str = "EC_prime256v1",
    *,
    account: str = ACCOUNT,
    region: str = "us-east-1",
) -> str:
    """A throwaway certificate in ACM, as if imported long ago. Returns its ARN."""
    certificate, key = throwaway_certificate(names, key_type)
    return acm_backends[account][region].import_certificate(
        certificate, key, chain=None, arn=None, tags=[]
    )


def exportable_certificate(
    certificate: bytes,
    key: bytes,
    chain: bytes,
    *,
    arn: str | None = None,
    account: str = ACCOUNT,
    region: str = "us-east-1",
) -> str:
    """A public certificate that ACM has issued and that may be exported; as one that it has renewed
    where `arn` is given. Returns its ARN."""
    bundle = CertBundle(
        account,
        certificate,
        key,
        region=region,
        arn=arn,
        cert_type="AMAZON_ISSUED",
        cert_options={"CertificateTransparencyLoggingPreference": "ENABLED", "Export": "ENABLED"},
    )
    # moto takes no chain that has an end, and appends Amazon's root to it.
    bundle.chain = chain
    acm_backends[account][region]._certificates[bundle.arn] = bundle
    return bundle.arn


def distribution(
    distribution_id: str,
    aliases: Sequence[str],
    *,
    session: boto3.Session,
    endpoint: str,
    account: str = ACCOUNT,
) -> str:
    """A distribution with this id that serves `aliases` with a throwaway certificate.

    Without aliases it has CloudFront's default certificate. Returns the id.
    """
    cloudfront: CloudFrontClient = client("cloudfront", session, endpoint, account)
    config: dict[str, Any] = {
        "CallerReference": str(uuid4()),
        "Comment": f"sandbox {distribution_id}",
        "Enabled": True,
        "Aliases": {"Quantity": len(aliases), "Items": list(aliases)},
        "Origins": {
            "Quantity": 1,
            "Items": [
                {
                    "Id": "origin",
                    "DomainName": "origin.example.net",
                    "CustomOriginConfig": {
                        "HTTPPort": 80,
                        "HTTPSPort": 443,
                        "OriginProtocolPolicy": "https-only",
                    },
                }
            ],
        },
        "DefaultCacheBehavior": {
            "TargetOriginId": "origin",
            "ViewerProtocolPolicy": "redirect-to-https",
            # CachingOptimized, one of AWS's managed cache policies.
            "CachePolicyId": "658327ea-f89d-4fab-a63d-7e88639e58f6",
        },
    }
    if aliases:
        config["ViewerCertificate"] = {
            "ACMCertificateArn": imported_certificate(aliases, account=account),
            "SSLSupportMethod": "sni-only",
            "MinimumProtocolVersion": "TLSv1.2_2021",
        }
    created = cloudfront.create_distribution(DistributionConfig=config)["Distribution"]  # type: ignore[arg-type]
    backend = cloudfront_backends[account]["aws"]
    moved = backend.distributions.pop(created["Id"])
    moved.id = moved.distribution_id = distribution_id
    moved.arn = f"arn:aws:cloudfront::{account}:distribution/{distribution_id}"
    backend.distributions[distribution_id] = moved
    return distribution_id


def listener(
    arn: str,
    *,
    session: boto3.Session,
    endpoint: str,
    protocol: str | None = None,
    names: Sequence[str] = ("placeholder.invalid",),
    internal: bool = False,
    dualstack: bool = False,
) -> str:
    """A listener at this ARN, with its load balancer and target group. Returns the ARN.

    The ARN says account, region, kind (`app` or `net`), the load balancer's name and both ids.
    `protocol` is HTTPS or TLS if not given, after the kind; with either the default certificate is
    a throwaway for `names`. Two listeners of one load balancer differ in their last id; each gets
    the next free port from 443 on. `internal` and `dualstack` (IPv6 as well) are the load
    balancer's, and count where it is not there yet.
    """
    _, _, _, region, account, path = arn.split(":", 5)
    _, kind, name, balancer_id, _ = path.split("/")
    balancer_arn = (
        f"arn:aws:elasticloadbalancing:{region}:{account}:loadbalancer/{kind}/{name}/{balancer_id}"
    )
    elb: ElasticLoadBalancingv2Client = client("elbv2", session, endpoint, account, region)
    backend = elbv2_backends[account][region]
    if balancer_arn not in backend.load_balancers:
        subnets = ec2_backends[account][region].get_default_subnets()
        created = elb.create_load_balancer(
            Name=name,
            Type="application" if kind == "app" else "network",
            Subnets=[each.id for each in subnets.values()][:2],
            Scheme="internal" if internal else "internet-facing",
            IpAddressType="dualstack" if dualstack else "ipv4",
        )["LoadBalancers"][0]
        balancer = backend.load_balancers.pop(created["LoadBalancerArn"])
        balancer.arn = balancer_arn
        balancer.dns_name = dns_name(balancer)
        backend.load_balancers[balancer_arn] = balancer
    balancer = backend.load_balancers[balancer_arn]
    protocol = protocol or ("HTTPS" if kind == "app" else "TLS")
    group = elb.create_target_group(
        Name=f"{name[:19]}-{uuid4().hex[:8]}",
        Protocol="HTTP" if kind == "app" else "TCP",
        Port=80,
        VpcId=balancer.vpc_id,
    )["TargetGroups"][0]
    certificates = (
        [{"CertificateArn": imported_certificate(names, account=account, region=region)}]
        if protocol in ("HTTPS", "TLS")
        else []
    )
    made = elb.create_listener(
        LoadBalancerArn=balancer_arn,
        Protocol=protocol,  # type: ignore[arg-type]
        Port=443 + len(balancer.listeners),
        Certificates=certificates,  # type: ignore[arg-type]
        DefaultActions=[{"Type": "forward", "TargetGroupArn": group["TargetGroupArn"]}],
    )["Listeners"][0]
    moved = balancer.listeners.pop(made["ListenerArn"])
    moved.arn = arn
    for rule in moved.rules.values():
        rule.listener_arn = arn
    balancer.listeners[arn] = moved
    return arn


def domain_name(
    name: str,
    *,
    session: boto3.Session,
    endpoint: str,
    region: str = "us-east-1",
    account: str = ACCOUNT,
    edge: bool = False,
    dualstack: bool = False,
) -> str:
    """A custom domain name of API Gateway, with a throwaway certificate: regional, or with `edge`
    edge-optimized. With `dualstack` it has IPv6 as well. Returns its ARN."""
    gateway: APIGatewayClient = client("apigateway", session, endpoint, account, region)
    where = "us-east-1" if edge else region
    arn = imported_certificate([name], account=account, region=where)
    certificate: dict[str, Any] = {"certificateArn" if edge else "regionalCertificateArn": arn}
    made = gateway.create_domain_name(
        domainName=name,
        endpointConfiguration={
            "types": ["EDGE" if edge else "REGIONAL"],
            "ipAddressType": "dualstack" if dualstack else "ipv4",
        },
        **certificate,
    )
    return made["domainNameArn"]


def role(
    arn: str,
    statements: Sequence[Mapping[str, Any]],
    *,
    session: boto3.Session,
    endpoint: str,
    external_id: str | None = None,
) -> str:
    """A role at this ARN that certrail's account may assume, with the external id if there is one.
    Its policy has these statements; without any, one that is there keeps what it has. Returns the
    ARN."""
    iam: IAMClient = client("iam", session, endpoint, arn.split(":")[4])
    path, _, name = arn.partition(":role")[2].rpartition("/")
    trust: dict[str, Any] = {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
    }
    if external_id:
        trust["Condition"] = {"StringEquals": {"sts:ExternalId": external_id}}
    with suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(RoleName=name, Path=f"{path}/", AssumeRolePolicyDocument=_policy([trust]))
    if statements:
        iam.put_role_policy(
            RoleName=name, PolicyName="certrail", PolicyDocument=_policy(statements)
        )
    return arn


def _policy(statements: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def hosted_zone(
    name: str,
    private: bool = False,
    *,
    session: boto3.Session,
    endpoint: str,
    account: str = ACCOUNT,
) -> str:
    """A hosted zone. Returns its id without `/hostedzone/`."""
    route53: Route53Client = client("route53", session, endpoint, account)
    more: dict[str, Any] = (
        {
            "HostedZoneConfig": {"PrivateZone": True},
            "VPC": {"VPCRegion": "us-east-1", "VPCId": "vpc-00000001"},
        }
        if private
        else {}
    )
    zone = route53.create_hosted_zone(Name=name, CallerReference=str(uuid4()), **more)
    return zone["HostedZone"]["Id"].removeprefix("/hostedzone/")


def client(
    service: Any, session: boto3.Session, endpoint: str, account: str, region: str = "us-east-1"
) -> Any:
    """An administrator's client in an account."""
    made: Any = session.client(service, endpoint_url=endpoint, region_name=region)

    def in_account(request: Any, **_: Any) -> None:
        # moto's own way to say whose call this is, ahead of what the credentials say.
        request.headers["x-moto-account-id"] = account

    made.meta.events.register("before-sign", in_account)
    return made
