"""Records: what was last done to a target, how it ended, and what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from certrail.target import Deployed


class State(StrEnum):
    DEPLOYING = "deploying"
    DEPLOYED = "deployed"
    FAILED = "failed"


@dataclass(frozen=True)
class Record:
    """One object under `deployments/`.

    address, kind: of the target. state: how the last attempt stands.
    generation, fingerprint: of the bundle the last attempt was about.
    spec: digest of the target's entry in the file.
    needs: the resources it was bound to, by address.
    held: what the target held after the last attempt that succeeded; a failure leaves it.
    at: when this was written. until: when another run may take over an attempt that never ended.
    claim: the attempt's random name, so that no two of them ever write the same bytes.
    attempts: failed ones in a row. error: the last one's text. next_attempt: None where no retry
    helps before somebody changes something.
    """

    pipeline: str
    address: str
    kind: str
    state: State
    generation: int
    fingerprint: str
    spec: str
    at: datetime
    needs: Mapping[str, str] = field(default_factory=dict)
    held: Deployed | None = None
    until: datetime | None = None
    claim: str | None = None
    attempts: int = 0
    error: str | None = None
    next_attempt: datetime | None = None
