"""`budgets/<issuer>.json`: what the CA has counted against its rate limits, and who waits for what,
so that no order is made that the CA would refuse.

Let's Encrypt keeps a token bucket for each counted thing, as one moment: when the bucket will be
full again (GCRA, github.com/letsencrypt/boulder/tree/main/ratelimits). An order must find a token
in each of its buckets, but most are taken later (its transaction.go, and ra.go):

    bucket                     looked at    taken
    orders                     new order    new order
    certificates/<domain>      new order    when the certificate is issued
    duplicates/<digest>        new order    when the certificate is issued
    failures/<name>            new order    when a validation fails

Between the look and the taking others look too, so here each order has a place from the moment it
is asked for until it ends, and a token in a place is taken for everybody else. The order of calls:

    reserve → a moment to come   write it down, come back then, ask again
    reserve → now                make the order, within GRACE
    issued or failed             the place is free; what the CA counted is counted

The first half of this file is arithmetic, from ledger to ledger; the second keeps it in the bucket.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from itertools import pairwise
from typing import TypeVar

from publicsuffixlist import PublicSuffixList

from certrail.errors import Superseded
from certrail.pipelines.authorities import NO_LIMITS, Limits, Rate
from certrail.store import Store, budget_key

T = TypeVar("T")

# A run makes its order within this time after it was told to, or never: a function lives no longer
# (docs.aws.amazon.com/lambda/latest/dg/configuration-timeout.html).
GRACE = timedelta(minutes=15)

# Longer than the longest pause between two tries of a pipeline (lease.DAILY): whoever has not come
# back by then was taken out of the file.
FORGOTTEN = timedelta(days=2)

# Five workers at most write at once, and each time one of them succeeds.
TRIES = 20


class Kind(StrEnum):
    """What an order is to the CA, which renewals cost less (letsencrypt.org/docs/rate-limits).

    fresh: anything else, also one with `replaces` for other names than before: the CA lets it
    pass, but counts its certificate for the domains as any other.
    renewal: of exactly the names of an earlier certificate; no orders or certificates are counted.
    ari: a renewal that says which certificate it `replaces`, within the window; nothing is looked
    at, yet its certificate is counted as a duplicate.
    """

    FRESH = "fresh"
    RENEWAL = "renewal"
    ARI = "ari"


@dataclass(frozen=True)
class Order:
    """names: as they are sent to the CA: A-labels in lower case, wildcards with their `*`."""

    names: frozenset[str]
    kind: Kind

    @property
    def digest(self) -> str:
        return _digest([self.kind, *sorted(self.names)])

    def takes(self, limits: Limits) -> dict[str, Rate]:
        """The buckets that this order and its certificate take a token from."""
        taken = [f"duplicates/{_digest(sorted(self.names))}"]
        if self.kind is Kind.FRESH:
            domains = sorted({registered_domain(name) for name in self.names})
            taken = ["orders", *(f"certificates/{domain}" for domain in domains), *taken]
        return {bucket: rate for bucket in taken if (rate := _rate(limits, bucket))}


@dataclass(frozen=True)
class Place:
    """Where an order stands, from its first `reserve` to its end.

    order: its digest. takes: the buckets it takes a token from. moment: from when it may be made.
    told: when its holder was told to make it, None while it waits.
    """

    order: str
    takes: tuple[str, ...]
    moment: datetime
    told: datetime | None = None


@dataclass(frozen=True)
class Ledger:
    """full: by bucket, the moment when all its tokens are there again; those not listed are full.
    places: by holder."""

    full: Mapping[str, datetime] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)


@dataclass(frozen=True)
class Left:
    """What may be ordered at once. orders: None where they are not counted. certificates: by
    registered domain, those of which some are gone. waiting: by holder, when its turn comes."""

    orders: int | None
    certificates: Mapping[str, int]
    waiting: Mapping[str, datetime]


def registered_domain(name: str) -> str:
    """The domain that a name's certificates are counted for: one label more than the public suffix,
    those of the list's private part included; a public suffix itself counts for itself
    (`coveringIdentifier` in Boulder's ratelimits/utilities.go)."""
    return _public_suffixes().privatesuffix(name) or name


# Arithmetic


def reserved(
    ledger: Ledger, limits: Limits, order: Order, holder: str, now: datetime
) -> tuple[Ledger, datetime]:
    """The ledger with a place for the order, and the moment from which it may be made."""
    mine = ledger.places.get(holder)
    if mine and mine.order != order.digest:
        ledger, mine = _given_up(ledger, limits, holder, now), None
    if mine and (now < mine.moment or (mine.told and now <= mine.told + GRACE)):
        return ledger, mine.moment
    if mine and mine.told:
        # That run is over, and all that is known of it is that it may have made its order.
        ledger = _given_up(ledger, limits, holder, now)

    others = [place for each, place in ledger.places.items() if each != holder]
    moment = _earliest(ledger, limits, order, others, now)
    if mine and moment > now and _earliest(ledger, limits, order, _told(others), now) == now:
        # Its turn has come: those who still wait for theirs do not hold it up.
        moment = now
    place = Place(order.digest, tuple(order.takes(limits)), moment, now if moment == now else None)
    return replace(ledger, places={**ledger.places, holder: place}), moment


def ended(
    ledger: Ledger,
    limits: Limits,
    order: Order,
    holder: str,
    now: datetime,
    *,
    issued: bool,
    failed: Iterable[str] = (),
) -> Ledger:
    """The ledger after an order that ended. failed: the names whose validation failed."""
    taken = [bucket for bucket in order.takes(limits) if issued or bucket == "orders"]
    ledger = _taken(ledger, limits, taken, now, now)
    ledger = _taken(ledger, limits, map(_failures, failed), now, now)
    places = {
        each: place
        for each, place in ledger.places.items()
        if each != holder or place.order != order.digest
    }
    return replace(ledger, places=places)


def left(ledger: Ledger, limits: Limits, now: datetime) -> Left:
    """What the limits leave, less what the orders being made now will take."""
    told = list(_told(ledger.places.values()))
    certificates = {}
    for bucket in sorted({*ledger.full, *(bucket for place in told for bucket in place.takes)}):
        kind, _, domain = bucket.partition("/")
        if kind == "certificates" and limits.certificates:
            count = _tokens(ledger, bucket, limits.certificates, told, now)
            if count < limits.certificates.burst:
                certificates[domain] = count
    return Left(
        _tokens(ledger, "orders", limits.orders, told, now) if limits.orders else None,
        certificates,
        {holder: place.moment for holder, place in ledger.places.items() if not place.told},
    )


def pruned(ledger: Ledger, now: datetime) -> Ledger:
    """The ledger without what no longer says anything."""
    return Ledger(
        {bucket: full for bucket, full in ledger.full.items() if full > now},
        {
            holder: place
            for holder, place in ledger.places.items()
            if now <= (place.told or place.moment) + FORGOTTEN
        },
    )


def _taken(
    ledger: Ledger, limits: Limits, buckets: Iterable[str], at: datetime, now: datetime
) -> Ledger:
    """The ledger after the CA took a token from each of the buckets, at `at` at the latest."""
    full = dict(ledger.full)
    for bucket in buckets:
        if rate := _rate(limits, bucket):
            # What is taken for a certificate or a failure is taken only if it is there, so no
            # bucket is ever more than empty (`BatchSpend` in Boulder's ratelimits/limiter.go).
            empty = now + rate.burst * rate.refill
            full[bucket] = min(max(full.get(bucket, at), at) + rate.refill, empty)
    return replace(ledger, full=full)


def _given_up(ledger: Ledger, limits: Limits, holder: str, now: datetime) -> Ledger:
    """The ledger without the holder's place. Its order counts, if it may have been made."""
    places = dict(ledger.places)
    place = places.pop(holder)
    if place.told and "orders" in place.takes:
        ledger = _taken(ledger, limits, ["orders"], min(now, place.told + GRACE), now)
    return replace(ledger, places=places)


def _told(places: Iterable[Place]) -> Iterator[Place]:
    return (place for place in places if place.told)


def _earliest(
    ledger: Ledger, limits: Limits, order: Order, others: Iterable[Place], now: datetime
) -> datetime:
    """The first moment from `now` on when the order finds all its tokens, and leaves to all others
    those that they will want by their moments."""
    if order.kind is Kind.ARI:
        return now
    moment = now
    for bucket in map(_failures, order.names):
        if (rate := _rate(limits, bucket)) and bucket in ledger.full:
            moment = max(moment, ledger.full[bucket] - _reach(rate))
    others = list(others)
    openings = [
        list(_openings(ledger, bucket, rate, others, now))
        for bucket, rate in order.takes(limits).items()
    ]
    while True:
        later = max(
            (
                max(moment, next(start for start, end in each if end is None or moment <= end))
                for each in openings
            ),
            default=moment,
        )
        if later == moment:
            return moment
        moment = later


def _openings(
    ledger: Ledger, bucket: str, rate: Rate, others: Iterable[Place], now: datetime
) -> Iterator[tuple[datetime, datetime | None]]:
    """The intervals in which one token more may be taken from the bucket, in order; the last has no
    end. Only looking at the end of the queue would not do: a place that waits a week for one bucket
    would keep everybody out of its other ones for that week."""
    others = [place for place in others if bucket in place.takes]
    full = _full(ledger, bucket, rate, _told(others), now)
    waiting = sorted(max(place.moment, now) for place in others if not place.told)

    # Before each of those who wait: when the bucket would be full again.
    before: list[datetime] = []
    for moment in waiting:
        before.append(full)
        full = max(full, moment) + rate.refill

    # Before each of them: the latest that the bucket may be full again if all are to find theirs.
    bounds: list[datetime] = []
    for moment in reversed(waiting):
        bound = moment + _reach(rate)
        bounds.append(min(bound, bounds[-1] - rate.refill) if bounds else bound)
    bounds.reverse()

    gaps = zip(pairwise([now, *waiting]), before, bounds, strict=False)
    for (since, until), full_then, bound in gaps:
        start = max(since, full_then - _reach(rate))
        end = min(until, bound - rate.refill)
        if full_then + rate.refill <= bound and start <= end:
            yield start, end
    yield full - _reach(rate), None


def _full(
    ledger: Ledger, bucket: str, rate: Rate, told: Iterable[Place], now: datetime
) -> datetime:
    """When the bucket would be full again if all who were told to order took theirs by now. Those
    who take it later leave no less to whoever comes after them."""
    # A new order is counted within GRACE; its certificate may come at any time.
    moments = sorted(
        min(now, place.told + GRACE) if bucket == "orders" else now
        for place in told
        if bucket in place.takes and place.told
    )
    full = ledger.full.get(bucket, min([now, *moments]))
    for moment in moments:
        full = max(full, moment) + rate.refill
    return full


def _tokens(ledger: Ledger, bucket: str, rate: Rate, told: Iterable[Place], now: datetime) -> int:
    missing = max(_full(ledger, bucket, rate, told, now) - now, timedelta())
    return max(0, (rate.burst * rate.refill - missing) // rate.refill)


def _reach(rate: Rate) -> timedelta:
    """How long before a bucket is full it has one token."""
    return (rate.burst - 1) * rate.refill


def _failures(name: str) -> str:
    return f"failures/{name}"


def _rate(limits: Limits, bucket: str) -> Rate | None:
    return {
        "orders": limits.orders,
        "certificates": limits.certificates,
        "duplicates": limits.duplicates,
        "failures": limits.failures,
    }[bucket.partition("/")[0]]


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256(",".join(texts).encode()).hexdigest()[:16]


@cache
def _public_suffixes() -> PublicSuffixList:
    # Reading the list takes 30 ms.
    return PublicSuffixList()


# The bucket


def reserve(
    store: Store, issuer: str, limits: Limits, order: Order, holder: str, now: datetime
) -> datetime:
    """The moment from which `holder`, a pipeline, may make this order: now or earlier, and it may,
    once, within GRACE; or later, and it should ask again then.

    Asked again before that moment, or within GRACE after it was told to order, the answer is the
    same and nothing is written. Asked at its moment or later, the answer is now, unless somebody
    else was late and so took the token: then it is the next moment. Asked for another order, the
    place of the first is given up.

    Raises Superseded after TRIES writes that others were quicker with, StateError where the ledger
    cannot be read.
    """
    if limits == NO_LIMITS:
        return now
    return _change(store, issuer, now, lambda ledger: reserved(ledger, limits, order, holder, now))


def issued(
    store: Store, issuer: str, limits: Limits, order: Order, holder: str, now: datetime
) -> None:
    """The order's certificate was issued. To be told once; raises as `reserve` does."""
    if limits != NO_LIMITS:
        _end(store, issuer, now, lambda it: ended(it, limits, order, holder, now, issued=True))


def failed(
    store: Store,
    issuer: str,
    limits: Limits,
    order: Order,
    holder: str,
    now: datetime,
    names: Iterable[str],
) -> None:
    """The order came to nothing. names: those whose validation failed, spelled as in the order. To
    be told once; raises as `reserve` does. An order that goes on in a later run has not ended."""
    names = tuple(names)
    if limits != NO_LIMITS:
        _end(
            store,
            issuer,
            now,
            lambda it: ended(it, limits, order, holder, now, issued=False, failed=names),
        )


def read(store: Store, issuer: str) -> Ledger:
    return store.read_or(budget_key(issuer), Ledger, Ledger()).value


def _end(store: Store, issuer: str, now: datetime, end: Callable[[Ledger], Ledger]) -> None:
    _change(store, issuer, now, lambda ledger: (end(ledger), None))


def _change(
    store: Store, issuer: str, now: datetime, change: Callable[[Ledger], tuple[Ledger, T]]
) -> T:
    key = budget_key(issuer)
    tries = 0
    while True:
        # One that is broken is no reason to let certificates expire: the CA counts, too.
        found = store.read_or(key, Ledger, Ledger())
        after, answer = change(found.value)
        if after == found.value:
            return answer
        try:
            store.write(key, pruned(after, now), Ledger, found.etag or None)
        except Superseded:
            tries += 1
            if tries == TRIES:
                raise
        else:
            return answer
