"""Challenge records at any provider that the package dns-lexicon knows.

The package is an extra, and loaded by name when a zone asks for it: it is not part of the functions
as they are built, which have what their modules import (functions/build.py).
"""

from __future__ import annotations

import importlib
import json
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import dns.exception
import dns.resolver

from certrail import credentials
from certrail.aws import Aws
from certrail.errors import CertrailError, DnsError, RecordsLeft
from certrail.nameservers import Server
from certrail.pipelines.zones import LexiconZone
from issuer.clock import Clock
from issuer.dns import Token, left_behind
from issuer.dns.authoritative import QUERY_TIMEOUT

PROVIDERS = "lexicon._private.providers"
# Shorter values are no secrets, and would make holes into every message.
SECRET_LENGTH = 5


class Lexicon:
    """Challenge records in one zone of a provider; the entry's `zone` is the provider's. It tells
    nothing about when its servers know a record. nameservers: see `Dns`."""

    most: int | None = None

    def __init__(
        self, aws: Aws, entry: LexiconZone, nameservers: Sequence[Server] | None = None
    ) -> None:
        self._aws = aws
        self._entry = entry
        self._nameservers = nameservers

    def locate(self, names: Iterable[str]) -> dict[str, CertrailError]:
        # All names are in the entry's zone. Signing in is what asks the provider for it.
        with self._signed_in():
            return {}

    def place(self, tokens: Sequence[Token], clock: Clock, placed: list[Token]) -> None:
        with self._signed_in() as provider:
            for token in tokens:
                placed.append(token)
                with self._telling(f"write the record of {token.name}"):
                    if not provider.create_record("TXT", token.name, token.value):
                        raise self._failed("the provider did not say why")

    def remove(self, tokens: Sequence[Token]) -> list[RecordsLeft]:
        failures: list[RecordsLeft] = []
        try:
            with self._signed_in() as provider:
                for token in tokens:
                    try:
                        self._remove(provider, token)
                    except DnsError as error:
                        failures.append(left_behind(self._where, [token], error))
        except CertrailError as error:
            failures.append(left_behind(self._where, tokens, error))
        return failures

    def servers(self, name: str) -> Sequence[Server]:
        if self._nameservers is not None:
            return self._nameservers
        try:
            answer = dns.resolver.resolve(f"{self._entry.zone}.", "NS", lifetime=QUERY_TIMEOUT)
        except (dns.exception.DNSException, OSError) as error:
            raise DnsError(
                f"cannot find the zone's nameservers ({type(error).__name__}: {error})",
                where=f"zone {self._entry.zone}",
                next="Let `zone` be the zone as the provider has it",
                retryable=True,
            ) from error
        return [Server(record.target.to_text(omit_final_dot=True)) for record in answer]

    def _remove(self, provider: Any, token: Token) -> None:
        with self._telling(f"remove the record of {token.name}"):
            provider.delete_record(rtype="TXT", name=token.name, content=token.value)

    @contextmanager
    def _signed_in(self) -> Iterator[Any]:
        """A lexicon.interfaces.Provider. Raises DnsError, AwsError."""
        options, kind = self._options, self._kind
        with self._telling("sign in"):
            # As the command line hands them on: some providers look for `domain` among their own
            # options, others for theirs among the general ones.
            config = importlib.import_module("lexicon.config").ConfigResolver()
            about = {"provider_name": self._entry.name, "domain": self._entry.zone}
            provider = kind(config.with_args(Namespace(**(dict(options) | about))))
            provider.authenticate()
        try:
            yield provider
        finally:
            with self._telling("sign out"):
                provider.cleanup()

    @cached_property
    def _options(self) -> Mapping[str, Any]:
        arn = self._entry.credentials
        try:
            options = json.loads(credentials.fetch(self._aws, arn).reveal())
        except ValueError:
            options = None
        if not isinstance(options, dict):
            # Not with the cause, which shows what it could not read.
            raise DnsError(
                "the provider's options are not a JSON object",
                where=arn,
                next='Store them like {"auth_token": "…"}',
            ) from None
        return options

    @property
    def _kind(self) -> Any:
        # lexicon.client.Client would fetch the public suffix list from the web first, to guess the
        # zone that the entry names.
        try:
            return importlib.import_module(f"{PROVIDERS}.{self._entry.name}").Provider
        except ModuleNotFoundError as error:
            if error.name == "lexicon":
                what, next = (
                    "the package dns-lexicon is not installed",
                    "Install certrail[lexicon] where certrail issues",
                )
            elif str(error.name).startswith(PROVIDERS):
                what, next = (
                    "dns-lexicon has no such provider",
                    "`lexicon --help` lists the names for `name`",
                )
            else:
                what, next = (
                    f"the provider needs the package {error.name}",
                    f"Install dns-lexicon[{self._entry.name}] where certrail issues",
                )
            raise DnsError(what, where=self._where, next=next) from error

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        """Providers raise whatever they like, and their words may have credentials in them, in
        whatever coding: what is told is the sort of failure."""
        try:
            yield
        except CertrailError:
            raise
        except Exception as error:  # noqa: BLE001
            status = getattr(getattr(error, "response", None), "status_code", None)
            said = type(error).__name__ + (f", HTTP {status}" if status else "")
            # Without the cause, which may show a secret.
            raise self._failed(f"could not {doing} ({said})") from None

    def _failed(self, what: str) -> DnsError:
        return DnsError(
            what,
            where=self._where,
            next=f"Check the options in {self._entry.credentials}, and that the provider has the "
            f"zone {self._entry.zone}",
            # It may be the network as well as the credentials: there is no telling.
            retryable=True,
        )

    @property
    def _where(self) -> str:
        return f"provider {self._entry.name} (dns-lexicon)"
