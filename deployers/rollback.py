"""The way back to an earlier certificate: what is in the way, and what it will take.

Said before it is tried: neither ACM nor CloudFront undoes anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from certrail.bundle import short
from certrail.errors import CannotRollBack
from certrail.store import Current, Rollback, Store, Versioned
from certrail.target import Target
from deployers.judge import WayBack


@dataclass(frozen=True)
class RollbackPreview:
    """to: the bundle. notes: what it will take, one sentence each."""

    to: Current
    notes: tuple[str, ...]


def longest_propagation(targets: Iterable[Target]) -> timedelta:
    """How long AWS may take until the last client gets a bundle."""
    times = (target.propagation(relinked=False) for target in targets)
    return max(times, default=timedelta(0))


def automatic(
    store: Store, current: Current, fingerprint: str, propagation: timedelta, now: datetime
) -> WayBack:
    """The way back to an earlier bundle, for who has nobody to ask. Reads no private key."""
    if current.rollback:
        again = f"`certrail issue {current.pipeline}` makes another certificate"
        return WayBack(None, f"generation {current.generation} is itself a rollback; {again}")
    try:
        before = _kept(store, current.pipeline, fingerprint, now)
    except CannotRollBack as error:
        return WayBack(None, error.what)
    ends = before.facts.not_after
    if ends <= now + propagation:
        name = short(before.fingerprint)
        return WayBack(None, f"{name} ends {ends:%Y-%m-%d %H:%M} UTC, before all clients had it")
    return WayBack(before)


def find(
    store: Store,
    current: Current,
    wanted: str | None,
    propagation: timedelta,
    now: datetime,
) -> RollbackPreview:
    """The way back that somebody asks for. wanted: the start of a fingerprint; None for the bundle
    before. Raises CannotRollBack, with all that is in the way."""
    pipeline = current.pipeline
    to = _kept(store, pipeline, _fingerprint(store, current, wanted), now)
    return RollbackPreview(to, tuple(_notes(store, current, to, propagation, now)))


def _kept(store: Store, pipeline: str, fingerprint: str, now: datetime) -> Current:
    """The bundle, where it is valid and all of it is still there. Raises CannotRollBack."""
    name = short(fingerprint)
    to = store.published_as(pipeline, fingerprint)
    if to is None:
        raise CannotRollBack(
            f"{name} was published before certrail kept what a rollback needs",
            where=pipeline,
            next=f"`certrail issue {pipeline}` makes a new certificate",
        )
    if revoked := store.revoked(pipeline, fingerprint):
        raise CannotRollBack(
            f"{name} was revoked ({revoked.reason}, {revoked.at:%Y-%m-%d %H:%M} UTC)",
            where=pipeline,
            next=f"`certrail issue {pipeline}` makes a new certificate",
        )
    ends = to.facts.not_after
    if ends <= now:
        raise CannotRollBack(
            f"{name} has ended ({ends:%Y-%m-%d %H:%M} UTC)",
            where=pipeline,
            next=f"`certrail issue {pipeline}` makes a new certificate",
        )
    if not store.has_privkey(pipeline, fingerprint):
        raise CannotRollBack(
            f"the private key of {name} is gone",
            where=pipeline,
            next="Keys two generations back are removed. Where the bucket still keeps the object's "
            f"earlier version, delete the delete marker of its privkey.pem; or `certrail issue "
            f"{pipeline}`",
        )
    return to


def _fingerprint(store: Store, current: Current, wanted: str | None) -> str:
    pipeline = current.pipeline
    if wanted is None:
        if current.previous is None:
            raise CannotRollBack("it is the pipeline's first certificate", where=pipeline)
        return current.previous
    there = [each for each in store.fingerprints(pipeline) if each.startswith(wanted.lower())]
    if len(there) != 1:
        raise CannotRollBack(
            f"{len(there) or 'no'} certificates of this pipeline begin with {wanted}",
            where=pipeline,
            next="Give more of the fingerprint" if there else "`certrail status` shows them",
        )
    if there[0] == current.fingerprint:
        raise CannotRollBack(f"{short(there[0])} is the current certificate", where=pipeline)
    return there[0]


def _notes(
    store: Store, current: Current, to: Current, propagation: timedelta, now: datetime
) -> Iterable[str]:
    new, old = current.facts, to.facts
    if old.not_after <= now + propagation:
        yield (
            f"It ends {old.not_after:%Y-%m-%d %H:%M} UTC, and AWS may take "
            f"{propagation.total_seconds() / 3600:.0f} hours until every client gets it."
        )
    if store.is_superseded(current.pipeline, to.fingerprint):
        yield "Its private key is about to be removed; it will be kept."
    if lost := sorted(set(new.domains) - set(old.domains)):
        names = ", ".join(lost)
        yield f"It does not cover {names}: targets that serve these names stay as they are."
    # What ACM lets go, and what it does not: docs/targets/acm.md.
    usages = {*new.key_usages, *new.extended_key_usages} - {"TLS_WEB_CLIENT_AUTHENTICATION"}
    lacking = usages - {*old.key_usages, *old.extended_key_usages}
    if not new.key_type.is_rsa:
        lacking.discard("KEY_ENCIPHERMENT")
    what = ""
    if old.key_type is not new.key_type:
        what = f"Its key is {old.key_type}, and the current one's {new.key_type}"
    elif lacking:
        what = f"It lacks {', '.join(sorted(lacking))}, which the current one has"
    if what:
        yield (
            f"{what}: ACM does not take it under the same ARN, so it gets another, and what uses "
            "the old one is moved over."
        )


def roll_back(
    store: Store, after: Versioned[Current], to: Current, reason: str, by: str, now: datetime
) -> Current:
    """Make the earlier bundle the current one. Raises Superseded where somebody published
    meanwhile."""
    current = after.value
    why = Rollback(current.fingerprint, current.generation, reason, by, now)
    return store.roll_back(to, why, after=after, now=now)
