"""What a client on the internet finds of the emulated AWS: names, addresses and certificates.

A front is what stands at addresses: a load balancer, a distribution, a custom domain name of API
Gateway. All are read from moto's memory at each look, so nothing needs to be started or kept. Which
certificate a front shows:

  ALB         https://docs.aws.amazon.com/elasticloadbalancing/latest/application/https-listener-certificates.html
  NLB         https://docs.aws.amazon.com/elasticloadbalancing/latest/network/tls-listener-certificates.html
  CloudFront  https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cnames-https-dedicated-ip-or-sni.html
  aliases     https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/CNAMEs.html
  API Gateway https://docs.aws.amazon.com/apigateway/latest/developerguide/how-to-custom-domains.html

Addresses are made up: IPv4 from what is set aside for benchmarks (RFC 2544), IPv6 for documentation
(RFC 3849), and private ones for internal load balancers, as on AWS. A change arrives at the
addresses of a front one after the other, at the last one after the whole delay of `propagation`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from threading import Lock
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from certrail.bundle import covers
from sandbox.propagation import Service, propagation

if TYPE_CHECKING:
    from moto.acm.models import CertBundle
    from moto.apigateway.models import DomainName
    from moto.cloudfront.models import Distribution as MotoDistribution
    from moto.cloudfront.models import DistributionConfig
    from moto.elbv2.models import FakeListener, FakeLoadBalancer

Address = IPv4Address | IPv6Address

PUBLIC = IPv4Network("198.18.0.0/15")
PRIVATE = IPv4Network("10.0.0.0/8")
IPV6 = IPv6Network("2001:db8::/32")
HTTPS = 443
SECURE = ("HTTPS", "TLS")
# The number is ours; CloudFront answers with four or so at a time.
EDGES = 2
ZONES_OF_API_GATEWAY = 2


@dataclass(frozen=True)
class Certificate:
    """PEM: the leaf, then its chain as ACM has it; and the key."""

    fullchain: bytes
    key: bytes

    @property
    def leaf(self) -> x509.Certificate:
        return _first(self.fullchain)


@lru_cache(1 << 12)
def _first(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


# What a server shows to a client that asks for this name, or for none (None): one certificate for
# each key algorithm, of which the client takes what it can. None at all ends the handshake.
Choice = Callable[[str | None], Sequence[Certificate]]


class Front(ABC):
    """Something that stands at addresses."""

    @property
    @abstractmethod
    def dns_name(self) -> str:
        """The service's own name for it."""

    @property
    def is_public(self) -> bool:
        """Whether the internet reaches it."""
        return True

    @property
    @abstractmethod
    def addresses(self) -> tuple[Address, ...]: ...

    @abstractmethod
    def choice(self, address: Address, port: int) -> Choice | None:
        """What is shown there; None where nothing speaks TLS at this port."""

    def share(self, address: Address) -> float:
        """The part of a delay after which a change arrives at this address: 1/2 and 1 of two."""
        alike = [each for each in self.addresses if each.version == address.version]
        return (alike.index(address) + 1) / len(alike)


@dataclass(frozen=True)
class LoadBalancer(Front):
    """An ALB or an NLB, with an address in each of its zones."""

    balancer: FakeLoadBalancer

    @property
    def dns_name(self) -> str:
        return self.balancer.dns_name

    @property
    def is_public(self) -> bool:
        return self.balancer.scheme != "internal"

    @property
    def addresses(self) -> tuple[Address, ...]:
        arn, zones = self.balancer.arn, len(self.balancer.subnets)
        network = PUBLIC if self.is_public else PRIVATE
        dualstack = self.balancer.ip_address_type == "dualstack"
        return (*_ipv4(arn, zones, network), *(_ipv6(arn, zones) if dualstack else ()))

    def choice(self, address: Address, port: int) -> Choice | None:
        for listener in list(self.balancer.listeners.values()):
            if int(listener.port) == port and listener.protocol in SECURE:
                return self._listener(listener, self.share(address))
        return None

    def _listener(self, listener: FakeListener, share: float) -> Choice:
        now = tuple(listener.certificates)
        arns = propagation.served(listener.arn, now, "elbv2", "relink", share)
        return listener_choice(
            _imported(arns[:1], "elbv2", share),
            _imported(arns[1:], "elbv2", share),
            is_alb=self.balancer.type == "application",
            now=propagation.clock(),
        )


@dataclass(frozen=True)
class Distribution(Front):
    """A distribution of CloudFront."""

    distribution: MotoDistribution

    @property
    def dns_name(self) -> str:
        return self.distribution.domain_name

    @property
    def addresses(self) -> tuple[Address, ...]:
        arn = self.distribution.arn
        dualstack = vars(self.distribution.distribution_config)["IsIPV6Enabled"]
        return (*_ipv4(arn, EDGES), *(_ipv6(arn, 1) if _yes(dualstack) else ()))

    def choice(self, address: Address, port: int) -> Choice | None:
        if port != HTTPS:
            return None
        share = self.share(address)
        now: DistributionConfig = self.distribution.distribution_config
        config = propagation.served(self.distribution.arn, now, "cloudfront", "relink", share)
        arn = vars(config)["ViewerCertificate"].get("ACMCertificateArn")
        own = _imported([arn] if arn else [], "cloudfront", share)
        aliases = vars(config)["Aliases"].get("Items", [])
        return distribution_choice(self.dns_name, aliases, own)


@dataclass(frozen=True)
class CustomDomain(Front):
    """A custom domain name of API Gateway, behind a front of AWS's own."""

    region: str
    domain: DomainName

    @property
    def dns_name(self) -> str:
        domain = self.domain
        return domain.distribution_domain_name if self.is_edge else domain.regional_domain_name

    @property
    def is_edge(self) -> bool:
        return "EDGE" in self._endpoint.get("types", ["EDGE"])

    @property
    def addresses(self) -> tuple[Address, ...]:
        dualstack = self._endpoint.get("ipAddressType") == "dualstack"
        count = EDGES if self.is_edge else ZONES_OF_API_GATEWAY
        return (
            *_ipv4(self.dns_name, count),
            *(_ipv6(self.dns_name, 1) if dualstack else ()),
        )

    @property
    def certificate(self) -> str | None:
        """ARN of the certificate that it is to show."""
        domain = self.domain
        return domain.certificate_arn if self.is_edge else domain.regional_certificate_arn

    @property
    def arn(self) -> str:
        return domain_arn(self.region, self.domain.domain_name)

    def choice(self, address: Address, port: int) -> Choice | None:
        if port != HTTPS:
            return None
        share = self.share(address)
        arn = propagation.served(self.arn, self.certificate, "apigateway", "relink", share)
        own = _imported([arn] if arn else [], "apigateway", share)
        if self.is_edge:
            return distribution_choice(self.dns_name, [self.domain.domain_name], own)
        # With another name, or none, API Gateway shows what belongs to execute-api itself.
        default = _default(f"*.execute-api.{self.region}.amazonaws.com")
        return lambda name: own if name and covers([self.domain.domain_name], name) else [default]

    @property
    def _endpoint(self) -> dict[str, Any]:
        return self.domain.endpoint_configuration or {}


# Finding them.


def fronts() -> Iterator[Front]:
    """Everything that stands at an address, in every account and region."""
    # Imported here: moto takes half a second to import, and whoever made a resource has done so.
    from moto.apigateway.models import apigateway_backends
    from moto.cloudfront.models import cloudfront_backends
    from moto.elbv2.models import elbv2_backends

    for _, elb in _backends(elbv2_backends):
        for balancer in list(elb.load_balancers.values()):
            yield LoadBalancer(balancer)
    for _, cloudfront in _backends(cloudfront_backends):
        for distribution in list(cloudfront.distributions.values()):
            yield Distribution(distribution)
    for region, gateway in _backends(apigateway_backends):
        for domain in list(gateway.domain_names.values()):
            yield CustomDomain(region, domain)


def at(address: Address) -> Front | None:
    return next((front for front in fronts() if address in front.addresses), None)


def named(dns_name: str) -> Front | None:
    """The front with this name of the service's own, in lower case without a dot at the end."""
    return next((front for front in fronts() if front.dns_name.lower() == dns_name), None)


def domain_arn(region: str, name: str) -> str:
    """https://docs.aws.amazon.com/apigateway/latest/developerguide/arn-format-reference.html"""
    return f"arn:aws:apigateway:{region}::/domainnames/{name}"


def _backends(by_account: Any) -> Iterator[tuple[str, Any]]:
    """Region and backend, of all accounts."""
    # Copied at each step: the threads of moto's server add to these as we read.
    for by_region in list(by_account.values()):
        yield from list(by_region.items())


def _yes(value: Any) -> bool:
    """A boolean as moto keeps it: itself, or the text of an XML element."""
    return str(value).lower() == "true"


# Addresses.

_given: dict[tuple[str, int, IPv4Network], IPv4Address] = {}
_taken: set[IPv4Address] = set()
_giving = Lock()


@lru_cache(1 << 14)
def _ipv4(owner: str, count: int, network: IPv4Network = PUBLIC) -> tuple[IPv4Address, ...]:
    return tuple(_own_ipv4(owner, number, network) for number in range(count))


def _own_ipv4(owner: str, number: int, network: IPv4Network) -> IPv4Address:
    """Where the owner's hash points to, or the next address that nobody else has."""
    with _giving:
        key = (owner, number, network)
        if key not in _given:
            place = _hash(owner, number)
            while (address := network[place % network.num_addresses]) in _taken:
                place += 1
            _taken.add(address)
            _given[key] = address
        return _given[key]


@lru_cache(1 << 14)
def _ipv6(owner: str, count: int) -> tuple[IPv6Address, ...]:
    return tuple(IPV6[_hash(owner, number) % IPV6.num_addresses] for number in range(count))


@lru_cache(1 << 14)
def _hash(owner: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{owner} {number}".encode()).digest()[:16], "big")


# Certificates.


def listener_choice(
    default: Sequence[Certificate],
    listed: Sequence[Certificate],
    *,
    is_alb: bool,
    now: datetime,
) -> Choice:
    """The best of the list that matches the name; the default only where nothing matches, or for
    no name.

    "Certificate selection is based on the following criteria in the following order": ECDSA over
    RSA, as far as the client can; not expired (ALB only); SHA over MD5 (ALB: the longer SHA); the
    longer key; the validity period. Of equals AWS does not say which: here it is the first in
    the list, so that an entry that should be gone shows.
    """

    def choose(name: str | None) -> Sequence[Certificate]:
        matching = [each for each in listed if name and covers(_names(each.leaf), name)]
        if not matching:
            return default
        best: dict[bool, Certificate] = {}
        for each in sorted(matching, key=rank, reverse=True):
            best.setdefault(_is_rsa(each.leaf), each)
        return list(best.values())

    def rank(certificate: Certificate) -> tuple[bool, int, int, timedelta]:
        leaf = certificate.leaf
        digest = leaf.signature_hash_algorithm
        return (
            is_alb and now < leaf.not_valid_after_utc,
            digest.digest_size if digest and is_alb else not isinstance(digest, hashes.MD5),
            leaf.public_key().key_size,  # type: ignore[union-attr]
            leaf.not_valid_after_utc - leaf.not_valid_before_utc,
        )

    return choose


def distribution_choice(
    dns_name: str, aliases: Iterable[str], own: Sequence[Certificate]
) -> Choice:
    """The viewer certificate for an alias, CloudFront's own for its own name, and for anything else
    no handshake. An alias with a wildcard stands for any number of labels (aliases)."""

    def choose(name: str | None) -> Sequence[Certificate]:
        if name == dns_name.lower():
            return [_default("*.cloudfront.net")]
        if name and any(_matches(alias.lower(), name) for alias in aliases):
            return own
        return []

    return choose


def _matches(alias: str, name: str) -> bool:
    return name.endswith(alias[1:]) if alias.startswith("*.") else name == alias


def _imported(arns: Iterable[str], service: Service, share: float) -> list[Certificate]:
    """The content of ACM certificates as this service has it by now; of others it has none."""
    from moto.acm.models import acm_backends

    found = []
    for arn in arns:
        _, _, kind, region, account, _ = arn.split(":", 5)
        if kind == "acm":
            now: CertBundle | None = acm_backends[account][region]._certificates.get(arn)
            if bundle := propagation.served(arn, now, service, "reimport", share):
                pem = bundle.cert.strip() + b"\n" + (bundle.chain or b"")
                found.append(Certificate(pem, bundle.key))
    return found


@lru_cache
def _default(name: str) -> Certificate:
    """What AWS shows under its own names."""
    from sandbox.resources import throwaway_certificate

    return Certificate(*throwaway_certificate([name]))


def _names(leaf: x509.Certificate) -> list[str]:
    found = [
        str(each.value) for each in leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    ]
    try:
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    return [*alternative.get_values_for_type(x509.DNSName), *found]


def _is_rsa(leaf: x509.Certificate) -> bool:
    return isinstance(leaf.public_key(), rsa.RSAPublicKey)
