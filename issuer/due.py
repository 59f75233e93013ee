"""Whether a pipeline needs a certificate now, and why. Pure: no clock, no bucket."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from certrail.pipelines.resolved import Issuer, Pipeline
from certrail.store import Current, Issued, Rollback
from issuer.lease import Progress
from issuer.reissue import Asked
from issuer.renewal import Renewal, window

# After a rollback the certificate that is current again may be due at once. Another one would meet
# what the last one met: somebody is given the time to look.
HOLD = timedelta(days=1)


class Why(StrEnum):
    FIRST = "first"
    CHANGED = "changed"
    ASKED = "asked"
    WINDOW = "window"
    AGE = "age"
    UNFINISHED = "unfinished"
    RECORDS = "records"


@dataclass(frozen=True)
class Due:
    """why: for programs. text: for people. since: when the reason arose, if at a moment."""

    pipeline: str
    why: Why
    text: str
    since: datetime | None = None


def due(
    pipeline: Pipeline[Any],
    current: Current | None,
    now: datetime,
    *,
    renewal: Renewal | None = None,
    progress: Progress | None = None,
    died: bool = False,
    asked: Asked | None = None,
) -> Due | None:
    """Why the pipeline needs a certificate now, None where it does not.

    renewal: what the CA said of the current one. progress: how issuing stands. died: whether the
    last run never said how it ended: what it left is finished. asked: what was published since
    answers it, so that asking twice at once issues once.

    Nothing is due where it is not ours to issue. After a rollback nothing is due until
    `held_until`, but what is asked for, and what the file has changed since the certificate was
    ordered that was rolled back from.
    """
    if pipeline.incoming is not None:
        return None
    if current is None:
        return Due(pipeline.name, Why.FIRST, "no certificate yet")
    back = current.rollback
    held = back if back and now < held_until(back, current) else None
    if changes := _changes(pipeline, (held and held.issued) or current.issued):
        return Due(pipeline.name, Why.CHANGED, f"the pipelines file changed: {', '.join(changes)}")
    # By its moment, too: a pointer that was restored has an older generation.
    if (
        asked is not None
        and current.generation <= asked.generation
        and current.published_at <= asked.at
    ):
        return Due(pipeline.name, Why.ASKED, asked.why, asked.at)
    when = window(current, renewal, pipeline.renew_before)
    if now >= when.moment and not held:
        since = f"due since {when.moment:%Y-%m-%d %H:%M} UTC"
        if when.by_ca:
            return Due(pipeline.name, Why.WINDOW, f"{since}, as the CA asks", when.moment)
        return Due(pipeline.name, Why.AGE, since, when.moment)
    if progress is not None and died and not held and _is_in_flight(pipeline, current, progress):
        return Due(pipeline.name, Why.UNFINISHED, "a run ended before it was done")
    if progress is not None and progress.records:
        return Due(pipeline.name, Why.RECORDS, "a run left challenge records")
    return None


def held_until(back: Rollback, current: Current) -> datetime:
    """Until when nothing is renewed after a rollback: for a day, or half of what was left then."""
    return back.at + min(HOLD, (current.facts.not_after - back.at) / 2)


def _is_in_flight(pipeline: Pipeline[Any], current: Current, progress: Progress) -> bool:
    """Whether there is an order that can still become a certificate. What a failure has left is
    tried again when it is due."""
    return progress.wanted == wanted(pipeline) and any(
        url != current.issued.order for url in progress.orders.values()
    )


def waits(
    pipeline: Pipeline[Any],
    progress: Progress | None,
    until: datetime,
    reason: Due | None,
    pushed_at: datetime | None = None,
) -> bool:
    """Whether an earlier run's next attempt is still to come at `until`.

    A changed file does not wait: the failure may be what it repairs. Nor does a reason that arose
    since, such as a window of the CA's that has opened; nor, where a person was needed, a file that
    was pushed since, though it is the same.
    """
    if progress is None or progress.next_attempt is None or until >= progress.next_attempt:
        return False
    if progress.configuration != pipeline.configuration:
        return False
    news = [reason.since if reason else None, pushed_at if progress.permanent else None]
    ended = progress.ended_at
    return not any(ended and since and ended < since for since in news)


def issuer_of(pipeline: Pipeline[Any], issued: Issued) -> Issuer | None:
    """The pipeline's issuer that a certificate came from: two may be at the same CA."""
    there = [each for each in pipeline.issuers if each.directory == issued.directory]
    return next((each for each in there if each.name == issued.issuer), next(iter(there), None))


def wanted(pipeline: Pipeline[Any]) -> str:
    """A digest of what the file asks for: everything that, changed, means another certificate."""
    asks = [
        sorted(set(pipeline.domains)),
        pipeline.key_type,
        [[each.directory, each.profile, each.preferred_chain] for each in pipeline.issuers],
    ]
    return hashlib.sha256(json.dumps(asks).encode()).hexdigest()[:16]


def _changes(pipeline: Pipeline[Any], issued: Issued) -> list[str]:
    # The one that issued may stand anywhere in the list: the next renewal tries the first again.
    issuer = issuer_of(pipeline, issued)
    if issuer is None:
        return ["issuer"]
    pairs = {
        "domains": (set(pipeline.domains), set(issued.domains)),
        "key type": (pipeline.key_type, issued.key_type),
        "profile": (issuer.profile, issued.profile),
        "preferred chain": (issuer.preferred_chain, issued.preferred_chain),
    }
    return [name for name, (wants, has) in pairs.items() if wants != has]
