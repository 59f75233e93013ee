"""When a certificate is renewed: when the CA says so (RFC 9773), or with a part of its life left.

`renewals/<pipeline>.json` keeps what the CA said of the current certificate. A moment inside its
window is chosen once, from the certificate's fingerprint and the window, so that certificates
spread over it and everybody who looks finds the same; it stays until the window changes.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from certrail.bundle import Facts
from certrail.errors import AcmeRefused, IssueError
from certrail.store import Current
from issuer.acme import Client, RenewalInfo, Unreachable

# A third of the life, half of a short one: what Let's Encrypt asks of clients without renewal
# information (letsencrypt.org/docs/integration-guide, "When to Renew").
SHORT_LIFE = timedelta(days=10)
# Let's Encrypt's own windows are two hundredths of the life; so is ours where there is none.
SPAN = 1 / 50
# From one look of the schedule to the end of the next: an hour, and its flexible quarter. A moment
# this close to the window's end might be seen only after it, when the limits apply again.
LOOK = timedelta(minutes=75)

# A certificate that would be due as soon as it is there would be ordered again and again.
REST = timedelta(days=1)

# ACM renews a public certificate of 198 days 45 days before its end, a private one of 395 days 60
# days before; certbot with a third of the life left. What is later than this is late.
# docs.aws.amazon.com/acm/latest/userguide/managed-renewal.html
AWAITED = 1 / 8

# RFC 9773, 4.3.2 and 4.3.3
SOONEST, LATEST = timedelta(minutes=1), timedelta(days=1)
UNTOLD = timedelta(hours=6)


@dataclass(frozen=True)
class Renewal:
    """What is known of the renewal of one certificate. All moments aware, UTC.

    fingerprint: of the certificate. start, end: the CA's window, None as long as it told none.
    moment: the one chosen in it. explanation: a page of the CA's about the window.
    next_look: when the CA may be asked again. failures: looks in a row that told nothing; error:
    the last one's text; unanswered: whether the CA did not answer at all. told_at_risk: whether it
    was said that the window is over.
    """

    fingerprint: str
    start: datetime | None = None
    end: datetime | None = None
    moment: datetime | None = None
    explanation: str | None = None
    next_look: datetime | None = None
    failures: int = 0
    error: str | None = None
    unanswered: bool = False
    told_at_risk: bool = False


@dataclass(frozen=True)
class Window:
    """When to renew: at `moment`, and before `end`. by_ca: whether the CA said so."""

    start: datetime
    end: datetime
    moment: datetime
    by_ca: bool


def renew_at(
    not_before: datetime, not_after: datetime, renew_before: timedelta | None = None
) -> datetime:
    """When a certificate of this life becomes due where the CA does not say. A `renew_before` as
    long as the life would make it due at once, for ever: it is not heard."""
    life = not_after - not_before
    if renew_before is not None and renew_before < life:
        return not_after - renew_before
    return not_after - (life / 2 if life < SHORT_LIFE else life / 3)


def window(
    current: Current, renewal: Renewal | None, renew_before: timedelta | None = None
) -> Window:
    """When to renew the current certificate."""
    facts = current.facts
    if (
        renewal is not None
        and renewal.fingerprint == current.fingerprint
        and renewal.start
        and renewal.end
        and renewal.moment
        # A window that opens when all is over helps nobody.
        and renewal.start < facts.not_after
    ):
        moment = _rested(current, renewal.moment)
        return Window(renewal.start, max(renewal.end, moment), moment, by_ca=True)
    start = _rested(current, renew_at(facts.not_before, facts.not_after, renew_before))
    end = min(start + (facts.not_after - facts.not_before) * SPAN, facts.not_after)
    return Window(start, end, start, by_ca=False)


def awaited(current: Current, renew_before: timedelta | None = None) -> Window:
    """By when the next certificate should be there, where somebody else issues it."""
    life = current.facts.not_after - current.facts.not_before
    said = renew_before is not None and renew_before < life
    before = renew_before if said and renew_before else life * AWAITED
    moment = _rested(current, current.facts.not_after - before)
    return Window(moment, moment, moment, by_ca=False)


def _rested(current: Current, moment: datetime) -> datetime:
    """The moment, but for one that had come when the certificate was published: then a day later,
    or a quarter of its life."""
    if moment > current.published_at:
        return moment
    life = current.facts.not_after - current.facts.not_before
    return current.published_at + min(REST, life / 4)


def certificate_id(facts: Facts) -> str | None:
    """A certificate's unique identifier (RFC 9773, 4.1), None where it cannot have one."""
    if facts.authority_key_id is None:
        return None
    number = int(facts.serial, 16)
    # As in DER: with a zero in front where the first bit would make it negative.
    serial = number.to_bytes(number.bit_length() // 8 + 1)
    return ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=")
        for part in (bytes.fromhex(facts.authority_key_id), serial)
    )


def wants_look(current: Current, renewal: Renewal | None, now: datetime) -> bool:
    """Whether the CA is to be asked about the current certificate now."""
    if now >= current.facts.not_after or certificate_id(current.facts) is None:
        return False
    if renewal is None or renewal.fingerprint != current.fingerprint or not renewal.next_look:
        return True
    return now >= renewal.next_look


def look(client: Client, current: Current, renewal: Renewal | None, now: datetime) -> Renewal:
    """Ask the CA, and return what is known then. A CA that tells nothing changes nothing but the
    time of the next look. `error` of the result says why it told nothing."""
    identifier = certificate_id(current.facts)
    if renewal is None or renewal.fingerprint != current.fingerprint:
        renewal = Renewal(current.fingerprint)
    try:
        if identifier is None or not client.has_renewal_info:
            return replace(
                renewal, next_look=now + LATEST, failures=0, error=None, unanswered=False
            )
        told = client.renewal_info(identifier)
    except IssueError as error:
        failures = renewal.failures + 1
        passing = isinstance(error, Unreachable) or (
            isinstance(error, AcmeRefused) and error.retryable
        )
        pause = SOONEST * 2 ** min(failures, 12) if passing else UNTOLD
        if isinstance(error, AcmeRefused) and error.retry_at:
            pause = max(pause, error.retry_at - now)
        pause = min(pause, LATEST)
        return replace(
            renewal,
            next_look=now + pause,
            failures=failures,
            error=str(error),
            unanswered=passing,
        )
    return _told(renewal, told, current.facts.not_after, now)


def _told(renewal: Renewal, told: RenewalInfo, not_after: datetime, now: datetime) -> Renewal:
    pause = told.retry_at - now if told.retry_at else UNTOLD
    same = (renewal.start, renewal.end) == (told.start, told.end)
    return replace(
        renewal,
        start=told.start,
        end=told.end,
        moment=renewal.moment if same else _chosen(renewal.fingerprint, told, not_after),
        explanation=told.explanation,
        next_look=now + min(max(pause, SOONEST), LATEST),
        failures=0,
        error=None,
        unanswered=False,
        # Another window may be over, too.
        told_at_risk=renewal.told_at_risk and same,
    )


def _chosen(fingerprint: str, told: RenewalInfo, not_after: datetime) -> datetime:
    """A moment in the window, early enough to be seen by a look before its end, and before the
    certificate's."""
    text = f"{fingerprint} {told.start.isoformat()} {told.end.isoformat()}"
    part = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
    room = min(told.end, not_after) - told.start - LOOK
    return told.start + max(room, timedelta(0)) * part
