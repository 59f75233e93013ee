"""The key types a certificate may have, by the names used in pipelines.yaml; who serves which."""

from __future__ import annotations

from enum import StrEnum


class KeyType(StrEnum):
    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"

    @property
    def is_rsa(self) -> bool:
        """Or ECDSA: what a client and a server agree on (RFC 8446, 4.2.3), whatever the size."""
        return self.startswith("rsa-")


# What a service serves of what ACM takes. Where AWS's pages contradict each other, or users report
# a refusal, the smaller set.
# https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cnames-and-https-requirements.html
CLOUDFRONT = frozenset({KeyType.ECDSA_P256, KeyType.RSA_2048, KeyType.RSA_3072})
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/https-listener-certificates.html
ALB = frozenset(KeyType)
# https://docs.aws.amazon.com/elasticloadbalancing/latest/network/tls-listener-certificates.html
NLB = ALB - {KeyType.RSA_4096}
# What their listeners speak that have certificates.
SECURE = ("HTTPS", "TLS")
# https://docs.aws.amazon.com/apigateway/latest/developerguide/how-to-specify-certificate-for-custom-domain-name.html
API_GATEWAY = frozenset({KeyType.ECDSA_P256, KeyType.RSA_2048})
