"""`config/reissue.json`: certificates that somebody wants anew before they are due."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from certrail.errors import StateError, Superseded
from certrail.store import REISSUE_KEY, Store

log = logging.getLogger(__name__)

ATTEMPTS = 5


@dataclass(frozen=True)
class Asked:
    """A wish for a certificate newer than `generation`, 0 before the first. why: for people."""

    generation: int
    why: str
    at: datetime


@dataclass(frozen=True)
class Reissues:
    """asked: by pipeline. What is published after a wish answers it, so none is taken back."""

    asked: Mapping[str, Asked] = field(default_factory=dict)


def read(store: Store) -> Reissues:
    found = store.read(REISSUE_KEY, Reissues)
    return found.value if found else Reissues()


def wishes(store: Store) -> Mapping[str, Asked]:
    """What is asked for, by pipeline; nothing where the document is broken, which keeps nothing
    else from being issued. The schedule raises it every hour."""
    try:
        return read(store).asked
    except StateError as error:
        log.warning("no wishes: %s", error)
        return {}


def ask(store: Store, wishes: Mapping[str, Asked]) -> None:
    """Add to what is asked for. The write is an event that wakes the schedule."""
    for attempt in range(ATTEMPTS):
        found = store.read(REISSUE_KEY, Reissues)
        before = found.value.asked if found else {}
        try:
            store.write(
                REISSUE_KEY,
                Reissues({**before, **wishes}),
                Reissues,
                found.etag if found else None,
            )
        except Superseded:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return
