"""All challenge records of a run: each to the provider of its zone, shown to the world while the
CA looks, and removed whatever happens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from certrail.aws import Aws
from certrail.errors import (
    AwsError,
    CertrailError,
    DnsError,
    FailedTogether,
    raise_together,
)
from certrail.nameservers import Server
from certrail.pipelines.model import Account
from certrail.pipelines.zones import AnyZone, Rfc2136Zone, Route53Zone, zone_of
from issuer.clock import Clock
from issuer.dns import Provider, Token
from issuer.dns.authoritative import await_visible
from issuer.dns.delegation import follow
from issuer.dns.lexicon import Lexicon
from issuer.dns.rfc2136 import Rfc2136
from issuer.dns.route53 import Route53

T = TypeVar("T")


class Dns:
    """Challenge records wherever the pipelines file says that a domain's go.

    Tokens and names are the challenges' own, `_acme-challenge.shop.example.com`; where such a name
    is a CNAME, the record goes to where that leads, and into that name's zone.

    zones, accounts: of the pipelines file. nameservers: asked instead of the zones' own and of this
    machine's resolver, where those cannot be reached from here or are not what the CA asks. None
    for the zones' own.

    Roles are assumed, secrets fetched and zones listed once: take a new one for each run. For one
    thread.
    """

    def __init__(
        self,
        aws: Aws,
        zones: Sequence[AnyZone] = (),
        accounts: Mapping[str, Account] | None = None,
        nameservers: Sequence[Server] | None = None,
    ) -> None:
        self._aws = aws
        self._zones = tuple(zones)
        self._accounts = accounts or {}
        self._nameservers = nameservers
        self._acting: dict[str, Aws] = {}
        self._providers: dict[Hashable, Provider] = {}
        self._ends: dict[str, str] = {}

    def locate(self, names: Iterable[str]) -> None:
        """Raise where a name's record could not be written: asked before the CA is. A name that
        gets two records, for itself and its wildcard, is there twice.

        Raises DnsError, StateError or AwsError, or all of them together.
        """
        names = list(names)
        ends, failures = self._follow(names)
        leading: dict[str, list[str]] = defaultdict(list)
        for name in names:
            if name in ends:
                leading[ends[name]].append(name)
        by_provider, unusable = self._by_provider(leading, lambda end: end)
        failures += unusable
        for provider, there in by_provider.items():
            try:
                lost = provider.locate(there)
            except CertrailError as error:
                failures += _each(error)
                continue
            failures += [_told(error, leading[end], end) for end, error in lost.items()]
            failures += [
                _too_many(leading[end], end, provider.most)
                for end in there
                if provider.most is not None and len(leading[end]) > provider.most
            ]
        raise_together("not every name can be proved by a record", failures)

    @contextmanager
    def presenting(self, tokens: Sequence[Token], clock: Clock) -> Iterator[None]:
        """All tokens are visible to the world while the block runs, and gone after it, however it
        ends. Raises DnsError, StateError, AwsError, DeadlinePassed; what fails in cleaning up is
        raised beside what failed before."""
        placed: dict[Provider, list[Token]] = {}
        try:
            self._present(tokens, clock, placed)
            yield
        except CertrailError as error:
            raise_together(
                "the challenge failed, and left records behind", [error, *_removed(placed)]
            )
        except BaseException as error:
            for left in _removed(placed):
                error.add_note(str(left))
            raise
        else:
            raise_together("challenge records were left behind", _removed(placed))

    def remove(self, tokens: Sequence[Token]) -> None:
        """Delete what another run may have placed and left behind; what is not there is fine.
        Raises what could not be removed, when all that could be is."""
        by_provider, failures = self._sorted(tokens)
        failures += _removed(by_provider)
        raise_together("challenge records were left behind", failures)

    def _present(
        self, tokens: Sequence[Token], clock: Clock, placed: dict[Provider, list[Token]]
    ) -> None:
        by_provider, failures = self._sorted(tokens)
        raise_together("not every challenge record can be placed", failures)
        placed.update({provider: [] for provider in by_provider})
        with ThreadPoolExecutor(max(1, len(by_provider))) as pool:
            placing = [
                pool.submit(provider.place, there, clock, placed[provider])
                for provider, there in by_provider.items()
            ]
        # All are done here, so that none is placed after the cleaning up.
        for each in placing:
            try:
                each.result()
            except CertrailError as error:
                failures += _each(error)
        raise_together("not every challenge record could be placed", failures)
        shown: dict[Server, list[Token]] = defaultdict(list)
        for provider, there in by_provider.items():
            for token in there:
                for server in provider.servers(token.name):
                    shown[server].append(token)
        await_visible(shown, clock)

    def _sorted(
        self, tokens: Sequence[Token]
    ) -> tuple[dict[Provider, list[Token]], list[CertrailError]]:
        """The tokens of each provider, with the names their records have; and what is wrong with
        the others."""
        ends, failures = self._follow(token.name for token in tokens)
        records = dict.fromkeys(
            Token(ends[token.name], token.value) for token in tokens if token.name in ends
        )
        by_provider, unusable = self._by_provider(records, lambda token: token.name)
        return by_provider, [*failures, *unusable]

    def _follow(self, names: Iterable[str]) -> tuple[dict[str, str], list[CertrailError]]:
        names = dict.fromkeys(names)
        ends, failures = follow((n for n in names if n not in self._ends), self._nameservers)
        self._ends |= ends
        return {name: self._ends[name] for name in names if name in self._ends}, failures

    def _by_provider(
        self, items: Iterable[T], name: Callable[[T], str]
    ) -> tuple[dict[Provider, list[T]], list[CertrailError]]:
        by_key: dict[Hashable, tuple[AnyZone | None, list[T]]] = {}
        for item in items:
            entry = zone_of(name(item), self._zones)
            by_key.setdefault(_key(entry), (entry, []))[1].append(item)
        by_provider: dict[Provider, list[T]] = {}
        failures: list[CertrailError] = []
        for key, (entry, there) in by_key.items():
            try:
                if key not in self._providers:
                    self._providers[key] = self._provider(entry)
                by_provider[self._providers[key]] = there
            except CertrailError as error:
                failures.append(error)
        return by_provider, failures

    def _provider(self, entry: AnyZone | None) -> Provider:
        if entry is None:
            return Route53(self._aws, nameservers=self._nameservers)
        if isinstance(entry, Route53Zone):
            aws = self._in(entry.account, entry.zone) if entry.account else self._aws
            return Route53(aws, entry.zone_id, self._nameservers)
        if isinstance(entry, Rfc2136Zone):
            return Rfc2136(self._aws, entry, self._nameservers)
        return Lexicon(self._aws, entry, self._nameservers)

    def _in(self, account: str, zone: str) -> Aws:
        if account not in self._acting:
            there = self._accounts[account]
            try:
                self._acting[account] = self._aws.acting_as(there.role_arn, there.external_id)
            except AwsError as error:
                raise DnsError(
                    f"cannot act in account `{account}` ({error.what})",
                    where=f"zone {zone}",
                    next=f"Compare `role_arn` and `external_id` of `accounts.{account}` with the "
                    f"role's trust policy, and allow certrail's issuer sts:AssumeRole of "
                    f"{there.role_arn}",
                    retryable=error.retryable,
                ) from error
        return self._acting[account]


def _key(entry: AnyZone | None) -> Hashable:
    """What has one provider: the zones of an account are listed once for all its entries."""
    if entry is None:
        return (None, None)
    if isinstance(entry, Route53Zone):
        return (entry.account, entry.zone_id)
    return entry


def _removed(placed: Mapping[Provider, Sequence[Token]]) -> list[CertrailError]:
    """Delete what was placed, and return what could not be."""
    return [
        failure
        for provider, there in placed.items()
        if there
        for failure in provider.remove(list(dict.fromkeys(there)))
    ]


def _each(error: CertrailError) -> Sequence[CertrailError]:
    return error.failures if isinstance(error, FailedTogether) else [error]


def _told(error: CertrailError, names: Sequence[str], end: str) -> CertrailError:
    """The failure with the names that lead there: the pipelines file says nothing of `end`."""
    origins = sorted({name for name in names if name != end})
    if not origins:
        return error
    told = DnsError(
        f"{', '.join(origins)} is delegated to {end}: {error.what}",
        where=error.where,
        next=error.next,
        retryable=error.retryable,
    )
    told.__cause__ = error
    return told


def _too_many(names: Sequence[str], end: str, most: int) -> DnsError:
    return DnsError(
        f"{len(names)} challenge records would have the name {end}, and its servers answer with "
        f"{most} at most",
        where=", ".join(sorted(set(names))),
        next="Delegate some of these names to another one, or put them into another pipeline",
    )
