"""Whether a pipeline needs a certificate now, and why. Pure: no clock, no bucket."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from certrail.pipelines.model import Pipeline
from certrail.store import Current
from issuer.lease import Progress

# A third of the life, half of a short one: what Let's Encrypt asks of clients without renewal
# information (letsencrypt.org/docs/integration-guide, "When to Renew").
SHORT_LIFE = timedelta(days=10)


class Why(StrEnum):
    FIRST = "first"
    AGE = "age"
    CHANGED = "changed"
    ASKED = "asked"


@dataclass(frozen=True)
class Due:
    """why: for programs. text: for people."""

    pipeline: str
    why: Why
    text: str


def renew_at(not_before: datetime, not_after: datetime) -> datetime:
    """When a certificate of this life becomes due."""
    life = not_after - not_before
    return not_after - (life / 2 if life < SHORT_LIFE else life / 3)


def due(
    pipeline: Pipeline[Any], current: Current | None, now: datetime, *, asked: int | None = None
) -> Due | None:
    """Why the pipeline needs a certificate now, None where it does not.

    asked: the generation that was current when a person asked for a new one, 0 before the first.
    What was published since answers the question, so that asking twice at once issues once.
    """
    if current is None:
        return Due(pipeline.name, Why.FIRST, "no certificate yet")
    if changes := tuple(_changes(pipeline, current)):
        return Due(pipeline.name, Why.CHANGED, f"the pipelines file changed: {', '.join(changes)}")
    if asked is not None and current.generation <= asked:
        return Due(pipeline.name, Why.ASKED, "asked for")
    moment = renew_at(current.facts.not_before, current.facts.not_after)
    if now >= moment:
        return Due(pipeline.name, Why.AGE, f"due since {moment:%Y-%m-%d %H:%M} UTC")
    return None


def waits(pipeline: Pipeline[Any], progress: Progress | None, now: datetime) -> bool:
    """Whether an earlier failure's next attempt is still to come. A changed file does not wait:
    the failure may be what it repairs."""
    return (
        progress is not None
        and progress.next_attempt is not None
        and now < progress.next_attempt
        and progress.wanted == wanted(pipeline)
    )


def wanted(pipeline: Pipeline[Any]) -> str:
    """A digest of what the file asks for: everything that, changed, means another certificate."""
    asks = [
        sorted(set(pipeline.domains)),
        pipeline.key_type,
        pipeline.profile,
        pipeline.issuer.directory,
    ]
    return hashlib.sha256(json.dumps(asks).encode()).hexdigest()[:16]


def _changes(pipeline: Pipeline[Any], current: Current) -> list[str]:
    issued = current.issued
    pairs = {
        "domains": (set(pipeline.domains), set(issued.domains)),
        "key type": (pipeline.key_type, issued.key_type),
        "profile": (pipeline.profile, issued.profile),
        "issuer": (pipeline.issuer.directory, issued.directory),
    }
    return [name for name, (wants, has) in pairs.items() if wants != has]
