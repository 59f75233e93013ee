"""The ACME accounts: one per issuer, each kept in `accounts/<issuer>.json` for good.

The key is stored before the CA hears of it, and only if nobody else stored one. Making an account
is idempotent by key (RFC 8555, 7.3), so two first runs, or one that died between the two steps,
end with the same account. A new key is stored beside the old one before the CA hears of it, and
takes its place after, so a rollover that died in the middle is finished by whoever comes next.
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

from certrail import credentials
from certrail.aws import Aws
from certrail.errors import AcmeRefused, StateError, Superseded
from certrail.pipelines.resolved import Issuer
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


Key = Annotated[Secret, PlainValidator(_sealed), PlainSerializer(_opened)]


@dataclass(frozen=True)
class Account:
    """directory: of the CA the account is at. uri: None until the CA has confirmed it.
    key: a JSON Web Key (RFC 7517) with its private part. next_key: the one that is to take its
    place, while the CA may not have heard of it. deactivated: for good, by `certrail account`.
    """

    directory: str
    uri: str | None
    key: Key
    next_key: Key | None = None
    deactivated: bool = False


class Accounts:
    """The accounts in a bucket, and the clients that speak for them, which are kept: a process that
    issues again needs neither the directory nor a first nonce."""

    def __init__(self, store: Store, aws: Aws) -> None:
        self._store = store
        self._aws = aws
        self._clients: dict[str, Client] = {}

    def exists(self, issuer: Issuer) -> bool:
        """Whether the issuer was ever used."""
        return self._store.read(account_key(issuer.name), Account) is not None

    def connect(self, issuer: Issuer, clock: Clock) -> Client:
        """A client with the issuer's account, which is made on the first run.

        Raises StateError where the stored account is of another CA, its key cannot be read, or it
        was deactivated; none of them makes a new one. Raises AwsError where the secret of an
        external account cannot be read.
        """
        held = self._settled(issuer, clock)
        client = self._client(issuer, held.value, clock)
        if held.value.uri is None:
            bound = issuer.external_account
            mac_key = credentials.fetch(self._aws, bound.secret).reveal() if bound else None
            confirmed = replace(held.value, uri=client.new_account(issuer.email, mac_key))
            try:
                self._store.write(account_key(issuer.name), confirmed, Account, held.etag)
            except Superseded:
                # Another first run, with the same key and so with the same account.
                if self._stored(issuer).value != confirmed:
                    raise
        return client

    def roll_over(self, issuer: Issuer, clock: Clock) -> Client:
        """Give the account a new key. Raises what `connect` raises, and AcmeRefused."""
        client = self.connect(issuer, clock)
        held = self._stored(issuer)
        fresh = JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
        both = replace(held.value, next_key=Secret(fresh.json_dumps()))
        etag = self._store.write(account_key(issuer.name), both, Account, held.etag)
        _change(client, fresh)
        rolled = replace(both, key=Secret(fresh.json_dumps()), next_key=None)
        try:
            # Another run that found the next key meanwhile has written the same.
            self._store.write(account_key(issuer.name), rolled, Account, etag)
        except Superseded:
            # Or it was refused, and gave the key up that the CA has taken since.
            held = self._stored(issuer)
            rolled = replace(held.value, key=rolled.key, next_key=None)
            self._store.write(account_key(issuer.name), rolled, Account, held.etag)
        return self._client(issuer, rolled, clock)

    def deactivate(self, issuer: Issuer, clock: Clock) -> str:
        """End the issuer's account at the CA for good, and return its URI. Its certificates stay
        valid."""
        client = self.connect(issuer, clock)
        client.deactivate()
        held = self._stored(issuer)
        ended = replace(held.value, deactivated=True)
        self._store.write(account_key(issuer.name), ended, Account, held.etag)
        return client.account

    def is_outdated(self, client: Client) -> bool:
        """Whether the account has got another key since the client has it."""
        held = self._stored(client.issuer)
        key = _key(held.value.key, self._where(client.issuer))
        return bool(key.thumbprint() != client.thumbprint)

    def _settled(self, issuer: Issuer, clock: Clock) -> Versioned[Account]:
        """The stored account, once a rollover that was left in the middle is finished: perhaps it
        is not over, so its key is given up only where the CA refuses it."""
        held = self._stored(issuer)
        if held.value.next_key is None:
            return held
        client = self._client(issuer, held.value, clock)
        settled = replace(held.value, next_key=None)
        try:
            _change(client, _key(held.value.next_key, self._where(issuer)))
            settled = replace(settled, key=held.value.next_key)
        except AcmeRefused as error:
            if error.retryable:
                raise
        return Versioned(
            settled, self._store.write(account_key(issuer.name), settled, Account, held.etag)
        )

    def _client(self, issuer: Issuer, account: Account, clock: Clock) -> Client:
        key = _key(account.key, self._where(issuer))
        kept = self._clients.get(issuer.name)
        if (
            kept is None
            or replace(kept.issuer, profile=issuer.profile) != issuer
            or kept.thumbprint != key.thumbprint()
            or kept.account != (account.uri or "")
        ):
            kept = Client(issuer, key, clock, account.uri)
            self._clients[issuer.name] = kept
        # It may be the same CA with another profile.
        kept.issuer, kept.clock = issuer, clock
        return kept

    def _stored(self, issuer: Issuer) -> Versioned[Account]:
        found = self._store.read(account_key(issuer.name), Account)
        if found is None:
            fresh = JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
            account = Account(issuer.directory, None, Secret(fresh.json_dumps()))
            try:
                etag = self._store.write(account_key(issuer.name), account, Account, None)
            except Superseded:
                return self._stored(issuer)
            return Versioned(account, etag)
        if found.value.directory != issuer.directory:
            raise StateError(
                f"the account stored for issuer `{issuer.name}` is at {found.value.directory}, and "
                f"the pipelines file now says {issuer.directory}",
                where=self._where(issuer),
                next="Give the other CA an issuer name of its own in the pipelines file",
            )
        if found.value.deactivated:
            raise StateError(
                f"the account of issuer `{issuer.name}` was deactivated",
                where=self._where(issuer),
                next="Delete the object, and the next run makes a new account",
            )
        return found

    def _where(self, issuer: Issuer) -> str:
        return f"s3://{self._store.bucket}/{account_key(issuer.name)}"


def _change(client: Client, key: JWKEC) -> None:
    """Let the account have the key, if it has not yet. Raises AcmeRefused."""
    try:
        client.change_key(key)
    except AcmeRefused:
        # An earlier try arrived although its answer did not: the old key counts no more.
        if not client.knows_key(key):
            raise


def _key(stored: Secret, where: str) -> JWKEC:
    try:
        key = JWK.json_loads(stored.reveal())
        numbers = key.to_json()
        if isinstance(key, JWKEC) and numbers.get("crv") == "P-256" and "d" in numbers:
            return key
    except (JoseError, ValueError, TypeError):
        # Its words may quote the key.
        pass
    raise StateError(
        "the account's key is not a private P-256 JSON Web Key",
        where=where,
        next="Restore an earlier version of the object",
    )
