"""Records: what was last done to a target, how it ended, and what it holds; and how far a
certificate has come with all of a pipeline's targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from certrail.target import Deployed


class State(StrEnum):
    DEPLOYING = "deploying"
    DEPLOYED = "deployed"
    SERVED = "served"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """What clients see of a target.

    until: when AWS's own time for it to be served everywhere is over: what is not served then is
    not late but wrong. next: when to look again; None where there is nothing to wait for.
    looks: how often somebody looked since the wait began. saw: what was not as it should be, empty
    where all was. reached: whether anything answered: where nothing does, nothing is known.
    shadowed: whether all that is shown instead is what clients believe, and none of certrail's.
    failed: whether that is the last word: the target is not served.
    served_at: when all of it was served first.
    nodes: what each of the target's machines said, by id; empty where it has none. came: when one
    was seen first that was not there before, for an hour.
    tolerated: whether so few of them failed that it is their fault and not the certificate's.
    """

    until: datetime
    next: datetime | None
    looks: int = 0
    saw: str = ""
    reached: bool = True
    shadowed: bool = False
    failed: bool = False
    served_at: datetime | None = None
    nodes: Mapping[str, str] = field(default_factory=dict)
    came: Mapping[str, datetime] = field(default_factory=dict)
    tolerated: bool = False


@dataclass(frozen=True)
class Record:
    """One object under `deployments/`.

    address, kind: of the target. state: how the last attempt stands.
    generation, fingerprint: of the bundle the last attempt was about.
    spec: digest of the target's entry in the file.
    needs: the resources it was bound to, by address.
    held: what the target held after the last attempt that succeeded; a failure leaves it.
    at: when the attempt was written; a look at what clients get leaves it. by: who did it.
    before: fingerprint of what the target held before the attempt that succeeded last, None for the
    first.
    until: when another run may take over an attempt that never ended.
    claim: the attempt's random name, so that no two of them ever write the same bytes.
    attempts: failed ones in a row. error: the last one's text, kept until one succeeds.
    next_attempt: None where no retry helps before somebody changes something.
    refused: whether it was the bundle itself that the service refused.
    repaired: what AWS had instead of what was deployed, where this attempt began because somebody
    had changed it.
    check: what clients see of it; None until it is deployed, and where nobody can look.
    good: fingerprint of what clients were seen to get last, and got all of; None where they were
    seen not to get that any more.
    missed: whether it was the last word that clients do not get it, of this attempt or of one
    before, and they were not seen to get it since.
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
    by: str = ""
    before: str | None = None
    until: datetime | None = None
    claim: str | None = None
    attempts: int = 0
    error: str | None = None
    next_attempt: datetime | None = None
    refused: bool = False
    repaired: str | None = None
    check: Check | None = None
    good: str | None = None
    missed: bool = False


@dataclass(frozen=True)
class Rollout:
    """One object under `rollouts/`: how far a generation has come with all of a pipeline's targets.

    passed: how many waves are served, have baked, and were quiet. began_at: of the wave after them,
    None before. waits_for: why that one has not begun. served_at: when it was served, and its bake
    began. next: when to look again; None where there is nothing to wait for. done_at: when the last
    wave had passed. failed: why it goes no further, until what made it fail is no more.
    proven: fingerprint of the last bundle before this generation with which all waves passed.
    waits_since: when that wave began to wait; None where it does not. warned_at: when people were
    told that some target holds a certificate that soon ends; None where none does.
    """

    pipeline: str
    generation: int
    fingerprint: str
    at: datetime
    began_at: datetime | None
    passed: int = 0
    waits_for: str | None = None
    served_at: datetime | None = None
    next: datetime | None = None
    done_at: datetime | None = None
    failed: str | None = None
    proven: str | None = None
    waits_since: datetime | None = None
    warned_at: datetime | None = None

    def proven_before(self, generation: int) -> str | None:
        """Fingerprint of the last bundle before that generation with which all waves passed."""
        return self.fingerprint if self.done_at and self.generation < generation else self.proven


@dataclass(frozen=True)
class Selected:
    """What one selection of the file finds. key: of the selection. targets: as `as_job` makes them.

    at: when it changed last. error: why something was not looked for, or is not followed; the
    targets are then those of before. since: when it was first followed, None where it never was.
    gone: addresses that were found before `at` and are not any more: they keep the certificate
    that they have, and it expires there.
    """

    key: str
    targets: tuple[dict[str, Any], ...]
    at: datetime
    error: str | None = None
    since: datetime | None = None
    gone: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """One object under `found/`: the targets that a pipeline's selections find."""

    pipeline: str
    selections: tuple[Selected, ...] = ()
