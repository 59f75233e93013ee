"""Messages that the `acme` library does not have."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from acme import messages
from acme.jws import JWS
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import DeserializationError
from josepy.json_util import decode_b64jose, field
from josepy.jwa import ES256, ES384, HS256, RS256
from josepy.jwk import JWK, JWKEC, JWKRSA, JWKOct

from certrail.errors import StateError
from certrail.pipelines.model import ExternalAccount

# What is in no alphabet, Python leaves out without a word. No CA has a key of nothing.
BASE64URL = re.compile(r"[A-Za-z0-9_-]+=*")

# draft-ietf-acme-dns-persist
PERSISTENT = "dns-persist-01"


class OrderReplacing(messages.NewOrder):
    """An order that may say which certificate it takes the place of (RFC 9773, 5)."""

    replaces: str | None = field("replaces", omitempty=True)


class Empty:
    """The answer to a challenge: `{}` (RFC 8555, 7.5.1)."""

    def json_dumps(self, *, indent: int) -> str:
        return "{}"


@dataclass(frozen=True)
class KeyChange:
    """What the new key signs (RFC 8555, 7.3.5)."""

    account: str
    old_key: JWK

    def json_dumps(self, *, indent: int) -> str:
        body = {"account": self.account, "oldKey": self.old_key.to_partial_json()}
        return json.dumps(body, indent=indent)


def binding(key: JWK, bound: ExternalAccount, mac_key: str, url: str) -> dict[str, Any]:
    """The account's key, signed with what the CA gave to its customer (RFC 8555, 7.3.4).

    mac_key: base64url, as CAs hand it out, with or without padding. url: of `newAccount`.
    """
    try:
        if not BASE64URL.fullmatch(mac_key):
            raise DeserializationError("another alphabet")
        secret = decode_b64jose(mac_key.rstrip("="))
    except DeserializationError:
        # Its words quote the key.
        raise StateError(
            "the MAC key of the external account is not base64url",
            where=bound.secret,
            next="Store it as the CA gave it to you, and nothing else; where it has `+` and `/`, "
            "write `-` and `_`",
        ) from None
    public = json.dumps(key.public_key().to_partial_json()).encode()
    signed: dict[str, Any] = JWS.sign(
        public, JWKOct(key=secret), HS256, None, url, bound.key_id
    ).to_partial_json()
    return signed


def signer(key: Any) -> tuple[JWK, Any]:
    """A certificate's private key as one that signs a request."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return JWKEC(key=key), ES384 if key.key_size == 384 else ES256
    return JWKRSA(key=key), RS256
