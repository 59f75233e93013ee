"""The ACME account: one per issuer, kept in `accounts/<issuer>.json` for good.

The key is stored before the CA hears of it, and only if nobody else stored one. Making an account
is idempotent by key (RFC 8555, 7.3), so two first runs, or one that died between the two steps,
end with the same account.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import Error as JoseError
from josepy.jwk import JWK, JWKEC
from pydantic import PlainSerializer, PlainValidator

from certrail.errors import StateError, Superseded
from certrail.secret import Secret
from certrail.store import Store, Versioned, account_key
from issuer.acme import Client
from issuer.clock import Clock


def _sealed(document: object) -> Secret:
    if not isinstance(document, Mapping):
        raise ValueError("should be a JSON Web Key")
    return Secret(json.dumps(document))


def _opened(key: Secret) -> Any:
    return json.loads(key.reveal())


@dataclass(frozen=True)
class Account:
    """directory: of the CA the account is at. uri: None until the CA has confirmed it.
    key: a JSON Web Key (RFC 7517) with its private part."""

    directory: str
    uri: str | None
    key: Annotated[Secret, PlainValidator(_sealed), PlainSerializer(_opened)]


def connect(store: Store, issuer: str, directory: str, email: str | None, clock: Clock) -> Client:
    """A client with the issuer's account, which is made on the first run.

    Raises StateError where the stored account is of another CA or its key cannot be read; neither
    makes a new one.
    """
    held = _stored(store, issuer, directory)
    client = Client(directory, _key(store, issuer, held.value), clock, held.value.uri)
    if held.value.uri is None:
        confirmed = replace(held.value, uri=client.new_account(email))
        try:
            store.write(account_key(issuer), confirmed, Account, held.etag)
        except Superseded:
            # Another first run, with the same key and so with the same account.
            if _stored(store, issuer, directory).value != confirmed:
                raise
    return client


def _stored(store: Store, issuer: str, directory: str) -> Versioned[Account]:
    found = store.read(account_key(issuer), Account)
    if found is None:
        fresh = JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
        account = Account(directory, None, Secret(fresh.json_dumps()))
        try:
            etag = store.write(account_key(issuer), account, Account, None)
        except Superseded:
            return _stored(store, issuer, directory)
        return Versioned(account, etag)
    if found.value.directory != directory:
        raise StateError(
            f"the account stored for issuer `{issuer}` is at {found.value.directory}, and the "
            f"pipelines file now says {directory}",
            where=_where(store, issuer),
            next="Give the other CA an issuer name of its own in the pipelines file",
        )
    return found


def _key(store: Store, issuer: str, account: Account) -> JWKEC:
    try:
        key = JWK.json_loads(account.key.reveal())
        numbers = key.to_json()
        if isinstance(key, JWKEC) and numbers.get("crv") == "P-256" and "d" in numbers:
            return key
    except (JoseError, ValueError, TypeError):
        # Its words may quote the key.
        pass
    raise StateError(
        "the account's key is not a private P-256 JSON Web Key",
        where=_where(store, issuer),
        next="Restore an earlier version of the object",
    )


def _where(store: Store, issuer: str) -> str:
    return f"s3://{store.bucket}/{account_key(issuer)}"
