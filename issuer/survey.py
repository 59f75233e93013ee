"""The hourly look at all certificates: what is due, what the CAs say, what is at risk."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from certrail.errors import CertrailError, Superseded
from certrail.pipelines.resolved import Issuer, Pipeline
from certrail.store import Current, Store, Versioned, renewal_key
from issuer import lease
from issuer.acme import Client, reader
from issuer.clock import Clock
from issuer.due import Due, due, issuer_of, waits
from issuer.lease import Progress
from issuer.reissue import Asked
from issuer.renewal import Renewal, Window, awaited, look, wants_look, window

log = logging.getLogger(__name__)

# As many as the client keeps connections (botocore, `max_pool_connections`).
READERS = 10
NOT_KNOWN = Versioned(Renewal(""), "")
# The schedule comes every hour: what is sooner waits in the queue, so that it starts in time.
AHEAD = timedelta(hours=1)
# One question about one certificate is patient for so long; a CA that is down costs no more.
LOOK_PATIENCE = timedelta(seconds=8)


@dataclass(frozen=True)
class Standing:
    """How one pipeline's certificate stands, as the bucket says. pushed_at: when the file was
    pushed last. error: why it cannot be read."""

    pipeline: Pipeline[Any]
    current: Current | None = None
    progress: Progress | None = None
    renewal: Versioned[Renewal] = NOT_KNOWN
    asked: Asked | None = None
    pushed_at: datetime | None = None
    error: CertrailError | None = None

    @property
    def known(self) -> Renewal | None:
        """What the CA said of the current certificate."""
        known = self.renewal.value
        return known if self.current and known.fingerprint == self.current.fingerprint else None

    @property
    def window(self) -> Window | None:
        if self.current is None:
            return None
        if self.pipeline.incoming is not None:
            return awaited(self.current, self.pipeline.renew_before)
        return window(self.current, self.known, self.pipeline.renew_before)

    @property
    def issuer(self) -> Issuer | None:
        """The CA that issued the current certificate, where the file still has it."""
        return issuer_of(self.pipeline, self.current.issued) if self.current else None

    def due(self, now: datetime) -> Due | None:
        return due(
            self.pipeline,
            self.current,
            now,
            renewal=self.known,
            progress=self.progress,
            died=bool(self.progress and self.progress.holder and not self.progress.held(now)),
            asked=self.asked,
        )

    def waits(self, until: datetime, reason: Due | None) -> bool:
        """Whether nothing is to be done about it before that moment."""
        return waits(self.pipeline, self.progress, until, reason, self.pushed_at)


def survey(
    store: Store, pipelines: Sequence[Pipeline[Any]], asked: Mapping[str, Asked]
) -> list[Standing]:
    """How the pipelines stand, in their order. Reads the bucket only. asked: what is wished for, by
    pipeline, as `reissue.read` tells it."""
    pushed_at = store.pushed_at()

    def standing(pipeline: Pipeline[Any]) -> Standing:
        try:
            return Standing(
                pipeline,
                store.current(pipeline.name),
                lease.read(store, pipeline.name),
                store.read_or(renewal_key(pipeline.name), Renewal, NOT_KNOWN.value),
                asked.get(pipeline.name),
                pushed_at,
            )
        except CertrailError as error:
            return Standing(pipeline, error=error)

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(standing, pipelines))


def most_urgent_first(standings: Iterable[Standing], now: datetime) -> list[Standing]:
    """Those that are due, and wait for nothing that lies beyond the next look, by the end of what
    they have; the CA's limits are used up in this order. Those that have nothing yet come last:
    nothing of theirs expires."""
    never = datetime.max.replace(tzinfo=UTC)
    ready = [
        each
        for each in standings
        if (reason := each.due(now)) and not each.waits(now + AHEAD, reason)
    ]
    return sorted(ready, key=lambda each: each.current.facts.not_after if each.current else never)


def ask_the_cas(
    store: Store, standings: Sequence[Standing], clock: Clock
) -> tuple[list[Standing], list[CertrailError]]:
    """The same, with what the CAs say now written down, until the clock's deadline; what is left is
    asked next time. A CA that does not answer is not asked for the others now. And what could not
    be written down."""
    by_issuer: dict[str, list[int]] = defaultdict(list)
    for index, each in enumerate(standings):
        wants = each.current and wants_look(each.current, each.known, clock.now())
        if wants and each.issuer is not None:
            by_issuer[each.issuer.name].append(index)
    found, failures = list(standings), list[CertrailError]()
    if not by_issuer:
        return found, failures

    def ask(indices: list[int]) -> None:
        client: Client | None = None
        for index in sorted(indices, key=lambda index: _last_look(standings[index])):
            if clock.left <= 0:
                return
            standing = standings[index]
            assert standing.issuer is not None  # noqa: S101  chosen above
            short = replace(clock, deadline=min(clock.deadline, clock.now() + LOOK_PATIENCE))
            client = client or reader(standing.issuer, short)
            client.clock = short
            try:
                found[index] = _asked(store, standing, client)
            except CertrailError as error:
                failures.append(error)
            if (known := found[index].known) and known.unanswered:
                return

    with ThreadPoolExecutor(len(by_issuer)) as cas:
        # Consumed, so that what is raised there is raised here.
        list(cas.map(ask, by_issuer.values()))
    return found, failures


def _asked(store: Store, standing: Standing, client: Client) -> Standing:
    assert standing.current is not None  # noqa: S101  chosen above
    before = standing.known
    known = look(client, standing.current, before, client.clock.now())
    moved = before is None or (before.start, before.end) != (known.start, known.end)
    about = {"pipeline": standing.pipeline.name}
    if known.error:
        log.warning("no renewal information: %s", known.error, extra=about)
    elif moved and known.start and known.end and known.moment:
        log.info(
            "renewal window %s to %s, chosen %s%s",
            known.start,
            known.end,
            known.moment,
            f", see {known.explanation}" if known.explanation else "",
            extra=about,
        )
    return record(store, standing, known)


def record(store: Store, standing: Standing, known: Renewal) -> Standing:
    """Write down what is known of a renewal; another who did it first said the same."""
    before = standing.renewal.etag or None
    try:
        etag = store.write(renewal_key(standing.pipeline.name), known, Renewal, before)
    except Superseded:
        return standing
    return replace(standing, renewal=Versioned(known, etag))


def _last_look(standing: Standing) -> datetime:
    known = standing.known
    return (known and known.next_look) or datetime.min.replace(tzinfo=UTC)
