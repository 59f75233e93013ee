"""ACM: what ImportCertificate, ExportCertificate, ListCertificates, DescribeCertificate and
DeleteCertificate enforce.

Sources:
  prerequisites  https://docs.aws.amazon.com/acm/latest/userguide/import-certificate-prerequisites.html
  format         https://docs.aws.amazon.com/acm/latest/userguide/import-certificate-format.html
  reimport       https://docs.aws.amazon.com/acm/latest/userguide/import-reimport.html
  quotas         https://docs.aws.amazon.com/acm/latest/userguide/acm-limits.html
  API            https://docs.aws.amazon.com/acm/latest/APIReference/API_ImportCertificate.html
  export         https://docs.aws.amazon.com/acm/latest/APIReference/API_ExportCertificate.html

The codes are AWS's. A message is AWS's own only where somebody has published it.
"""

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from moto.acm.exceptions import AWSValidationException, CertificateNotFound
from moto.acm.models import AWSCertificateManagerBackend, CertBundle
from moto.acm.responses import AWSCertificateManagerResponse
from moto.apigateway.models import apigateway_backends
from moto.cloudfront.models import cloudfront_backends
from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.elbv2.models import elbv2_backends

from sandbox.fronts import CustomDomain
from sandbox.propagation import Service, propagation

T = TypeVar("T")

# Whose the load balancers and distributions behind API Gateway are: nobody's that one can ask.
AWS = "250044486744"
PRIVATE_KEY_BYTES = 5120
ALWAYS_LISTED = ("RSA_1024", "RSA_2048")
SUMMARY_NAMES = 100
PAGE = 1000

CURVES = {"secp256r1": "prime256v1", "secp384r1": "secp384r1", "secp521r1": "secp521r1"}
RSA_BITS = (1024, 2048, 3072, 4096)

KEY_USAGES = {
    "digital_signature": "DIGITAL_SIGNATURE",
    "content_commitment": "NON_REPUDIATION",
    "key_encipherment": "KEY_ENCIPHERMENT",
    "data_encipherment": "DATA_ENCIPHERMENT",
    "key_agreement": "KEY_AGREEMENT",
    "key_cert_sign": "CERTIFICATE_SIGNING",
    "crl_sign": "CRL_SIGNING",
}
EXTENDED_KEY_USAGES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "TLS_WEB_SERVER_AUTHENTICATION",
    ExtendedKeyUsageOID.CLIENT_AUTH: "TLS_WEB_CLIENT_AUTHENTICATION",
    ExtendedKeyUsageOID.CODE_SIGNING: "CODE_SIGNING",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "EMAIL_PROTECTION",
    ExtendedKeyUsageOID.TIME_STAMPING: "TIME_STAMPING",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSP_SIGNING",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "ANY",
}


class ImportLimit:
    """ImportCertificate's rate: a token bucket for each account and region.

    AWS's quota page says 1 request per second for ImportCertificate and names no burst. `burst` is
    therefore ours: 10 imports at once before the rate shows, so that a sandbox fills quickly and a
    caller that ignores ThrottlingException still fails. `clock` returns seconds.
    """

    def __init__(
        self, rate: float = 1.0, burst: int = 10, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self.burst = burst
        self.clock = clock
        self._lock = Lock()
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}

    def take(self, account: str, region: str) -> bool:
        """Spend one token; False if there is none left."""
        with self._lock:
            now = self.clock()
            tokens, before = self._buckets.get((account, region), (float(self.burst), now))
            tokens = min(float(self.burst), tokens + (now - before) * self.rate)
            allowed = tokens >= 1
            self._buckets[account, region] = (tokens - 1 if allowed else tokens, now)
            return allowed

    def refill(self) -> None:
        """Give every account and region its full burst again."""
        with self._lock:
            self._buckets.clear()


import_limit = ImportLimit()


# What a certificate says about itself, in ACM's words.


def key_algorithm(certificate: x509.Certificate) -> str:
    """ACM's enum value for the key (`RSA_2048`, `EC_prime256v1`); a key without one is refused."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in RSA_BITS:
        return f"RSA_{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
        return f"EC_{CURVES[key.curve.name]}"
    raise AWSValidationException("The certificate's key algorithm or key size is not supported.")


def key_usages(certificate: x509.Certificate) -> list[str]:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return []
    names = [name for attribute, name in KEY_USAGES.items() if getattr(usage, attribute)]
    if usage.key_agreement and usage.encipher_only:
        names.append("ENCIPHER_ONLY")
    if usage.key_agreement and usage.decipher_only:
        names.append("DECIPHER_ONLY")
    return names


def extended_key_usages(certificate: x509.Certificate) -> list[dict[str, str]]:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return []
    return [
        {"Name": EXTENDED_KEY_USAGES.get(oid, "CUSTOM"), "OID": oid.dotted_string} for oid in usage
    ]


def serial(certificate: x509.Certificate) -> str:
    digits = f"{certificate.serial_number:x}"
    return bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2)).hex(":")


def domain_names(bundle: CertBundle) -> set[str]:
    return {name.lower() for name in [*bundle.sans, bundle.common_name] if name}


def covers(names: Iterable[str], host: str) -> bool:
    """Does one of a certificate's names serve `host`: the name itself or a same-level wildcard?"""
    host = host.lower()
    wildcard = "*." + host.partition(".")[2]
    return any(name.lower() in (host, wildcard) for name in names)


# The rules of ImportCertificate.


def exactly_one_block(pem: bytes) -> None:
    """A fullchain is refused: "You can specify only one certificate in this field"."""
    if len(re.findall(rb"-----BEGIN [^-]+-----", pem)) > 1:
        raise AWSValidationException(
            "The certificate field contains more than one certificate. "
            "You can specify only one certificate in this field."
        )


def no_stray_spaces(*pems: bytes) -> None:
    """Format: spaces at the ends of lines make a PEM block invalid."""
    if any(re.search(rb"[ \t]\r?$", pem, re.MULTILINE) for pem in pems):
        raise AWSValidationException("The certificate is not PEM-encoded or is not valid.")


def plain_private_key(pem: bytes) -> None:
    """Prerequisites: the private key is unencrypted and no larger than 5 KB (5,120 bytes)."""
    if len(pem) > PRIVATE_KEY_BYTES:
        raise AWSValidationException(
            f"The private key is larger than the maximum of {PRIVATE_KEY_BYTES} bytes."
        )
    if b"ENCRYPTED" in pem:
        raise AWSValidationException("The private key is encrypted. It must be unencrypted.")


def key_belongs_to_certificate(bundle: CertBundle) -> None:
    """Prerequisites: the key must be the certificate's own."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if bundle._key.public_key().public_bytes(*form) != bundle._cert.public_key().public_bytes(
        *form
    ):
        raise AWSValidationException("The private key does not match the certificate.")


def chain_certifies(leaf: x509.Certificate, chain: bytes) -> None:
    """Format: the leaf is not in the chain, and each certificate directly certifies the one before.

    An empty chain is legal: the page says "if you choose to provide the certificate chain".
    """
    try:
        issuers = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise AWSValidationException(
            "The certificate chain is not PEM-encoded or is not valid."
        ) from None
    now = utcnow()
    certified = leaf
    for issuer in issuers:
        if not (
            issuer.not_valid_before_utc.replace(tzinfo=None)
            <= now
            < issuer.not_valid_after_utc.replace(tzinfo=None)
        ):
            raise AWSValidationException("The certificate chain is not valid at this time.")
        try:
            if issuer == leaf:
                raise ValueError("the leaf is in its own chain")
            certified.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            raise AWSValidationException(
                "Could not validate the certificate with the certificate chain."
            ) from None
        certified = issuer


def may_replace(current: CertBundle, new: CertBundle) -> None:
    """Reimport: what a certificate may not lose, compared with the one there now.

    Key type and size stay; no Key Usage is removed (but keyEncipherment may be, of an ECDSA
    certificate, RFC 5480); no Extended Key Usage is removed (but clientAuth may be, since public
    CAs no longer issue it); not every domain name is removed.
    """
    if key_algorithm(current._cert) != key_algorithm(new._cert):
        raise AWSValidationException(
            "New certificate has a different key type or key size than the currently imported "
            "certificate"
        )
    usages = set(key_usages(current._cert)) - set(key_usages(new._cert))
    if key_algorithm(new._cert).startswith("EC_"):
        usages.discard("KEY_ENCIPHERMENT")
    if usages:
        raise AWSValidationException(
            "New certificate is missing one or more Key Usages supported by the currently "
            "imported certificate"
        )
    extended = {usage["OID"] for usage in extended_key_usages(current._cert)}
    extended -= {usage["OID"] for usage in extended_key_usages(new._cert)}
    if extended - {ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string}:
        raise AWSValidationException(
            "New certificate is missing one or more Extended Key Usages supported by the "
            "currently imported certificate"
        )
    if not domain_names(current) & domain_names(new):
        raise AWSValidationException(
            "New certificate has none of the domain names of the currently imported certificate"
        )


def import_certificate(
    self: AWSCertificateManagerBackend,
    certificate: bytes,
    private_key: bytes,
    chain: bytes | None,
    arn: str | None,
    tags: list[dict[str, str]],
) -> str:
    current = None
    if arn is not None:
        current = self._certificates.get(arn)
        if current is None:
            raise CertificateNotFound(arn=arn, account_id=self.account_id)
        if tags:
            raise AWSValidationException("Tagging is not permitted on re-import.")
        if current.type != "IMPORTED":
            raise AWSValidationException(f"Certificate {arn} is not an imported certificate.")
    exactly_one_block(certificate)
    no_stray_spaces(certificate, private_key, chain or b"")
    plain_private_key(private_key)
    bundle = CertBundle(
        self.account_id, certificate, private_key, chain=chain, region=self.region_name, arn=arn
    )
    key_algorithm(bundle._cert)
    key_belongs_to_certificate(bundle)
    if chain:
        chain_certifies(bundle._cert, chain)
    # moto appends Amazon's root to whatever was imported; GetCertificate returns what was imported.
    bundle.chain = chain or b""
    if current is not None:
        may_replace(current, bundle)
        bundle.tags = current.tags
        propagation.replaced(bundle.arn, current)
    elif tags:
        bundle.tags.add(tags)
    self._certificates[bundle.arn] = bundle
    return bundle.arn


# The rules of ExportCertificate.

_moto_export = AWSCertificateManagerBackend.export_certificate


def export_certificate(
    self: AWSCertificateManagerBackend, certificate_arn: str, passphrase: str
) -> tuple[str, str, str]:
    """Private certificates and public ones that were requested to be exported, once they are
    issued; the passphrase has 4 letters at least, of ASCII "except #, $, or %"."""
    bundle = self.get_certificate(certificate_arn)
    if bundle.type == "IMPORTED":
        raise AWSValidationException(
            f"Certificate ARN: {certificate_arn} is not a private certificate"
        )
    if bundle.status != "ISSUED":
        raise AWSError(
            f"Certificate {certificate_arn} is {bundle.status}.",
            exception_type="RequestInProgressException",
        )
    if not re.fullmatch(rb"[^#$%\x80-\xff]{4,}", base64.b64decode(passphrase)):
        raise AWSValidationException("The passphrase is too short or has a character too many.")
    exported: tuple[str, str, str] = _moto_export(self, certificate_arn, passphrase)
    return exported


# What Describe and List show.


def users(arn: str) -> list[str]:
    """What holds the certificate, or did until so short a time ago that it is still served there.

    Of API Gateway ACM knows the load balancers and distributions of AWS's own that stand before a
    domain, in an account that is AWS's as well:
    https://docs.aws.amazon.com/acm/latest/userguide/troubleshoot-apigateway.html
    """
    # Copies, because other requests create and remove while this one looks.
    _, _, _, region, account, _ = arn.split(":", 5)
    balancers = [
        balancer.arn
        for balancer in list(elbv2_backends[account][region].load_balancers.values())
        if any(
            arn in certificates
            for listener in list(balancer.listeners.values())
            for certificates in _still(listener.arn, tuple(listener.certificates), "elbv2")
        )
    ]
    distributions = [
        distribution.arn
        for distribution in list(cloudfront_backends[account]["aws"].distributions.values())
        if any(
            vars(config)["ViewerCertificate"].get("ACMCertificateArn") == arn
            for config in _still(distribution.arn, distribution.distribution_config, "cloudfront")
        )
    ]
    domains = [
        owned_by_aws(front)
        for where, backend in list(apigateway_backends[account].items())
        for domain in list(backend.domain_names.values())
        if (front := CustomDomain(where, domain))
        and arn in _still(front.arn, front.certificate, "apigateway")
    ]
    return balancers + distributions + domains


def _still(arn: str, now: T, service: Service) -> Iterator[T]:
    return propagation.still_served(arn, now, service, "relink")


def owned_by_aws(front: CustomDomain) -> str:
    """The ARN of what stands before a custom domain of API Gateway."""
    made_up = hashlib.sha256(front.arn.encode()).hexdigest()
    if front.is_edge:
        return f"arn:aws:cloudfront::{AWS}:distribution/E{made_up[:13].upper()}"
    balancer = f"loadbalancer/app/prod-{front.region}-1-az1-1-1/{made_up[:16]}"
    return f"arn:aws:elasticloadbalancing:{front.region}:{AWS}:{balancer}"


_moto_describe = CertBundle.describe


def describe(self: CertBundle) -> dict[str, Any]:
    description = _moto_describe(self)
    description["Certificate"].update(
        InUseBy=users(self.arn),
        # Hyphenated in answers though underscored in filters and in the service model:
        # https://github.com/hashicorp/terraform-provider-aws internal/service/acm/certificate.go
        KeyAlgorithm=key_algorithm(self._cert).replace("_", "-"),
        KeyUsages=[{"Name": name} for name in key_usages(self._cert)],
        ExtendedKeyUsages=extended_key_usages(self._cert),
        Serial=serial(self._cert),
        Subject=self._cert.subject.rfc4514_string(),
    )
    return description


def summary(bundle: CertBundle) -> dict[str, Any]:
    detail = bundle.describe()["Certificate"]
    names = detail["SubjectAlternativeNames"]
    return {
        **detail,
        "SubjectAlternativeNameSummaries": names[:SUMMARY_NAMES],
        "HasAdditionalSubjectAlternativeNames": len(names) > SUMMARY_NAMES,
        "KeyUsages": [usage["Name"] for usage in detail["KeyUsages"]],
        "ExtendedKeyUsages": [usage["Name"] for usage in detail["ExtendedKeyUsages"]],
        "ExportOption": bundle.cert_options["Export"],
        "Exported": bundle.cert_options["Export"] == "ENABLED",
        "InUse": bool(detail["InUseBy"]),
    }


def list_certificates(
    self: AWSCertificateManagerBackend, statuses: list[str], includes: dict[str, Any]
) -> Iterator[CertBundle]:
    """Without keyTypes, "returns only RSA_1024 and RSA_2048 certificates with at least one domain".

    https://docs.aws.amazon.com/acm/latest/APIReference/API_ListCertificates.html
    """
    wanted = (includes or {}).get("keyTypes") or ALWAYS_LISTED
    usages = set((includes or {}).get("keyUsage") or ())
    extended = set((includes or {}).get("extendedKeyUsage") or ())
    for arn in list(self._certificates):
        bundle = self.get_certificate(arn)
        purposes = {usage["Name"] for usage in extended_key_usages(bundle._cert)}
        if (
            (not statuses or bundle.status in statuses)
            and key_algorithm(bundle._cert) in wanted
            and domain_names(bundle)
            and (not usages or usages & set(key_usages(bundle._cert)))
            and (not extended or extended & purposes)
        ):
            yield bundle


def list_page(rows: list[CertBundle], token: str | None, size: int) -> tuple[int, int]:
    """Where the page starts and ends; a token is the ARN that ended the page before."""
    start = 0
    if token is not None:
        arns = [row.arn for row in rows]
        if token not in arns:
            raise AWSValidationException("The NextToken is not valid.")
        start = arns.index(token) + 1
    return start, start + size


def answer_list_certificates(self: AWSCertificateManagerResponse) -> ActionResult:
    size = self._get_param("MaxItems") or PAGE
    if not 1 <= size <= PAGE:
        raise AWSValidationException(f"MaxItems must be between 1 and {PAGE}.")
    rows = list(
        self.acm_backend.list_certificates(
            self._get_param("CertificateStatuses"), self._get_param("Includes")
        )
    )
    start, end = list_page(rows, self._get_param("NextToken"), size)
    page = rows[start:end]
    result: dict[str, Any] = {"CertificateSummaryList": [summary(row) for row in page]}
    if end < len(rows):
        result["NextToken"] = page[-1].arn
    return ActionResult(result)


_moto_import_response = AWSCertificateManagerResponse.import_certificate


def throttled_import_certificate(self: AWSCertificateManagerResponse) -> ActionResult:
    """Quotas: ImportCertificate 1 request per second; above it ThrottlingException."""
    if not import_limit.take(self.current_account, self.region):
        raise AWSError("Rate exceeded", exception_type="ThrottlingException")
    return _moto_import_response(self)


def delete_certificate(self: AWSCertificateManagerBackend, arn: str) -> None:
    """A certificate "that is being used by another AWS service" cannot be deleted.

    https://docs.aws.amazon.com/acm/latest/APIReference/API_DeleteCertificate.html
    """
    if arn not in self._certificates:
        raise CertificateNotFound(arn=arn, account_id=self.account_id)
    if users(arn):
        raise AWSError(
            f"Certificate {arn} in account {self.account_id} is in use.",
            exception_type="ResourceInUseException",
        )
    del self._certificates[arn]


REPLACED: dict[type, dict[str, Callable[..., Any]]] = {
    CertBundle: {"describe": describe},
    AWSCertificateManagerBackend: {
        "import_certificate": import_certificate,
        "export_certificate": export_certificate,
        "list_certificates": list_certificates,
        "delete_certificate": delete_certificate,
    },
    AWSCertificateManagerResponse: {
        "import_certificate": throttled_import_certificate,
        "list_certificates": answer_list_certificates,
    },
}
