"""The key types a certificate may have, by the names used in pipelines.yaml."""

from __future__ import annotations

from enum import StrEnum


class KeyType(StrEnum):
    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
