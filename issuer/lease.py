"""`orders/<pipeline>.json`: who is issuing now, the order in flight, and how earlier tries ended.

Every write is conditional on the version read, so two runs cannot both hold a lease. One that dies
with its run expires a minute after that run's deadline.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from certrail.errors import (
    AcmeRefused,
    Busy,
    CertrailError,
    FailedTogether,
    Superseded,
    raise_together,
)
from certrail.store import Store, Versioned, order_key
from issuer.clock import Clock

# What cleaning up after the deadline may take.
GRACE = timedelta(minutes=1)

# After one failure, two, three; then daily (letsencrypt.org/docs/integration-guide, "Retrying
# Failures").
DELAYS = (timedelta(minutes=1), timedelta(minutes=10), timedelta(minutes=100))
DAILY = timedelta(days=1)


@dataclass(frozen=True)
class Progress:
    """How issuing for one pipeline stands.

    wanted: digest of what the file asked for, see `due.wanted`. holder: the run that issues now,
    None when none does; until: when its lease ends. order: URL of the order in flight.
    attempts: failed ones in a row. error: the last one's text. failed_at: when it ended.
    next_attempt: when the schedule tries again. permanent: nothing changes before somebody acts.
    """

    wanted: str
    holder: str | None = None
    until: datetime | None = None
    order: str | None = None
    attempts: int = 0
    error: str | None = None
    failed_at: datetime | None = None
    next_attempt: datetime | None = None
    permanent: bool = False

    def held(self, now: datetime) -> bool:
        return self.until is not None and now < self.until


class Lease:
    """The right to issue for a pipeline, and the document it is written in."""

    def __init__(self, store: Store, pipeline: str, held: Versioned[Progress]) -> None:
        self._store = store
        self._key = order_key(pipeline)
        self._held = held

    @property
    def progress(self) -> Progress:
        return self._held.value

    def ordered(self, url: str) -> None:
        """Remember the order, before anything else is done with it. Raises Superseded where the
        lease ran out and another run took it."""
        self._write(replace(self.progress, order=url))

    def release(self) -> None:
        """Nothing was done, or nothing is known about how it ended."""
        self._write(replace(self.progress, holder=None, until=None))

    def succeeded(self) -> None:
        self._write(Progress(self.progress.wanted))

    def failed(self, error: Exception, now: datetime) -> None:
        retryable = isinstance(error, CertrailError) and error.retryable
        attempts = self.progress.attempts + 1
        delay = DELAYS[attempts - 1] if retryable and attempts <= len(DELAYS) else DAILY
        next_attempt = now + delay
        for each in error.failures if isinstance(error, FailedTogether) else (error,):
            if isinstance(each, AcmeRefused) and each.retry_at:
                next_attempt = max(next_attempt, each.retry_at)
        self._write(
            replace(
                self.progress,
                holder=None,
                until=None,
                attempts=attempts,
                error=str(error) or type(error).__name__,
                failed_at=now,
                next_attempt=next_attempt,
                permanent=not retryable,
            )
        )

    def _write(self, progress: Progress) -> None:
        etag = self._store.write(self._key, progress, Progress, self._held.etag)
        self._held = Versioned(progress, etag)


def read(store: Store, pipeline: str) -> Progress | None:
    found = store.read(order_key(pipeline), Progress)
    return found.value if found else None


@contextmanager
def leased(store: Store, pipeline: str, wanted: str, clock: Clock) -> Iterator[Lease]:
    """Hold the pipeline's lease while the block runs, and write down how the block ended.

    Raises Busy where another run holds it.
    """
    lease = _take(store, pipeline, wanted, clock)
    try:
        yield lease
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


def _take(store: Store, pipeline: str, wanted: str, clock: Clock) -> Lease:
    key = order_key(pipeline)
    found = store.read(key, Progress)
    before = found.value if found else Progress(wanted)
    now = clock.now()
    if before.held(now):
        raise _busy(pipeline, before.until)
    if before.wanted != wanted:
        before = Progress(wanted)
    mine = replace(before, holder=uuid.uuid4().hex, until=clock.deadline + GRACE)
    try:
        etag = store.write(key, mine, Progress, found.etag if found else None)
    except Superseded as error:
        raise _busy(pipeline, None) from error
    return Lease(store, pipeline, Versioned(mine, etag))


def _busy(pipeline: str, until: datetime | None) -> Busy:
    ends = f", until {until:%H:%M:%S} UTC at the latest" if until else ""
    return Busy(
        f"another run is issuing for this pipeline{ends}",
        where=pipeline,
        next="Nothing needs doing: wait for it",
    )
