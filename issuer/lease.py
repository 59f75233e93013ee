"""`orders/<pipeline>.json`: who is issuing now, the orders in flight, and how earlier tries ended.

Every write is conditional on the version read, so two runs cannot both hold a lease. One that dies
with its run expires a minute after that run's deadline.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from certrail.errors import (
    AcmeRefused,
    Busy,
    CertrailError,
    FailedTogether,
    Incomplete,
    NoIssuer,
    OverBudget,
    Superseded,
    raise_together,
)
from certrail.store import Store, Versioned, order_key
from issuer.clock import Clock
from issuer.dns import Token

# What cleaning up after the deadline may take.
GRACE = timedelta(minutes=1)

# After one failure, two, three; then daily (letsencrypt.org/docs/integration-guide, "Retrying
# Failures").
DELAYS = (timedelta(minutes=1), timedelta(minutes=10), timedelta(minutes=100))
DAILY = timedelta(days=1)
# What a CA may ask us to wait at most for its rate limits, of which Let's Encrypt's longest is a
# week. For all else, which may be a proxy's word, it is a day.
LONGEST = timedelta(days=8)


@dataclass(frozen=True)
class Progress:
    """How issuing for one pipeline stands.

    wanted: digest of the certificate that the file asked for, see `due.wanted`; where it comes from
    elsewhere, of what was found, see `incoming`. configuration: of all that the file says about
    issuing it; another one may repair a failure. holder: the run that issues now, None when none
    does; until: when its lease ends. orders: URL of the order in flight, by issuer.
    records: challenge records that a run has placed, or was about to, and that may still be there.
    attempts: failed ones in a row. error: the last one's text. ended_at: when the last run ended
    without a certificate.
    waits_for: what no failure is, and yet is waited for. next_attempt: when the schedule tries
    again. permanent: nothing changes before somebody acts.
    """

    wanted: str
    configuration: str = ""
    holder: str | None = None
    until: datetime | None = None
    orders: Mapping[str, str] = field(default_factory=dict)
    records: tuple[Token, ...] = ()
    attempts: int = 0
    error: str | None = None
    ended_at: datetime | None = None
    waits_for: str | None = None
    next_attempt: datetime | None = None
    permanent: bool = False

    def held(self, now: datetime) -> bool:
        return self.until is not None and now < self.until


class Lease:
    """The right to issue for a pipeline, and the document it is written in.

    took_over: the run that held it before never said how it ended.
    """

    def __init__(
        self, store: Store, pipeline: str, held: Versioned[Progress], took_over: bool
    ) -> None:
        self._store = store
        self._key = order_key(pipeline)
        self._held = held
        self.took_over = took_over

    @property
    def progress(self) -> Progress:
        return self._held.value

    def begin(self, wanted: str) -> None:
        """Forget how it stood, but for records that are still there."""
        before = self.progress
        self._write(replace(self._afresh(wanted), holder=before.holder, until=before.until))

    def ordered(self, issuer: str, url: str) -> None:
        """Remember the order, before anything else is done with it. Raises Superseded where the
        lease ran out and another run took it."""
        self._write(replace(self.progress, orders={**self.progress.orders, issuer: url}))

    def dropped(self, issuer: str) -> None:
        """The order can come to nothing any more."""
        orders = {name: url for name, url in self.progress.orders.items() if name != issuer}
        self._write(replace(self.progress, orders=orders))

    def placing(self, records: Sequence[Token]) -> None:
        """Remember the records, before the first is placed."""
        every = tuple(dict.fromkeys([*self.progress.records, *records]))
        self._write(replace(self.progress, records=every))

    def cleaned(self, gone: Sequence[Token]) -> None:
        """These records are gone; the next write says so."""
        left = tuple(each for each in self.progress.records if each not in gone)
        self._held = replace(self._held, value=replace(self.progress, records=left))

    def release(self) -> None:
        """Nothing was done, or nothing is known about how it ended."""
        self._write(replace(self.progress, holder=None, until=None))

    def succeeded(self, *, troubled: bool) -> None:
        """troubled: whether something is left to do, which is counted as one more attempt."""
        attempts = self.progress.attempts if troubled else 0
        self._write(replace(self._afresh(self.progress.wanted), attempts=attempts))

    def failed(self, error: Exception, now: datetime) -> None:
        retryable = isinstance(error, CertrailError) and error.retryable
        attempts = self.progress.attempts + 1
        delay = DELAYS[attempts - 1] if retryable and attempts <= len(DELAYS) else DAILY
        next_attempt = now + delay
        if told := retry_at(error):
            longest = LONGEST if _is_rate_limit(error) else DAILY
            next_attempt = max(next_attempt, min(told, now + longest))
        self._write(
            replace(
                self.progress,
                holder=None,
                until=None,
                attempts=attempts,
                error=str(error) or type(error).__name__,
                ended_at=now,
                waits_for=None,
                next_attempt=next_attempt,
                permanent=not retryable,
            )
        )

    def waits(self, error: OverBudget | Incomplete, now: datetime) -> None:
        """No failure: the CA's limits are waited for, or the rest of what somebody brings."""
        self._write(
            replace(
                self.progress,
                holder=None,
                until=None,
                attempts=0,
                error=None,
                permanent=False,
                ended_at=now,
                waits_for=str(error),
                next_attempt=error.retry_at,
            )
        )

    def _afresh(self, wanted: str) -> Progress:
        before = self.progress
        return Progress(wanted, before.configuration, records=before.records)

    def _write(self, progress: Progress) -> None:
        etag = self._store.write(self._key, progress, Progress, self._held.etag)
        self._held = Versioned(progress, etag)


def retry_at(error: Exception) -> datetime | None:
    """The moment before which no further try makes sense, where the CA or its limits said so."""
    if isinstance(error, NoIssuer):
        # One that can be tried again is enough.
        told = [retry_at(each) for each in error.failures]
        return min((each for each in told if each), default=None) if all(told) else None
    if isinstance(error, FailedTogether):
        return max((each for each in map(retry_at, error.failures) if each), default=None)
    return error.retry_at if isinstance(error, AcmeRefused | OverBudget) else None


def _is_rate_limit(error: Exception) -> bool:
    each = error.failures if isinstance(error, FailedTogether) else (error,)
    return any(isinstance(one, AcmeRefused) and one.type == "rateLimited" for one in each)


def read(store: Store, pipeline: str) -> Progress | None:
    found = store.read(order_key(pipeline), Progress)
    return found.value if found else None


@contextmanager
def leased(
    store: Store, pipeline: str, wanted: str, clock: Clock, configuration: str = ""
) -> Iterator[Lease]:
    """Hold the pipeline's lease while the block runs, and write down how the block ended.

    Raises Busy where another run holds it.
    """
    lease = _take(store, pipeline, Progress(wanted, configuration), clock)
    try:
        yield lease
    except (OverBudget, Incomplete) as error:
        lease.waits(error, clock.now())
        raise
    except Exception as error:
        try:
            lease.failed(error, clock.now())
        except CertrailError as unwritten:
            if not isinstance(error, CertrailError):
                raise
            raise_together("the run failed, and that could not be recorded", [error, unwritten])
        raise
    except BaseException:
        # Ctrl-C: nobody's failure.
        lease.release()
        raise


def _take(store: Store, pipeline: str, fresh: Progress, clock: Clock) -> Lease:
    key = order_key(pipeline)
    found = store.read(key, Progress)
    before = found.value if found else fresh
    now = clock.now()
    if before.held(now):
        raise _busy(pipeline, before.until)
    mine = replace(
        before,
        configuration=fresh.configuration,
        holder=uuid.uuid4().hex,
        until=clock.deadline + GRACE,
    )
    try:
        etag = store.write(key, mine, Progress, found.etag if found else None)
    except Superseded as error:
        raise _busy(pipeline, None) from error
    return Lease(store, pipeline, Versioned(mine, etag), took_over=before.holder is not None)


def _busy(pipeline: str, until: datetime | None) -> Busy:
    ends = f", until {until:%H:%M:%S} UTC at the latest" if until else ""
    return Busy(
        f"another run is issuing for this pipeline{ends}",
        where=pipeline,
        next="Nothing needs doing: wait for it",
    )
