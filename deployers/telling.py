"""What the deployers say without being asked: events, as certrail.telling sends them.

Told is what changed, failed or recovered, once for each: an attempt that ended is told by the
process that wrote its end on the record, an attempt that changed nothing writes nothing, and a
message that comes twice finds it done. The record is written first: a process that ends in between
has told nothing, and the alarms and `certrail status` still say it. EventBridge itself may hand an
event over twice.

In every detail, besides what certrail.telling wants: `generation` (null where it is about none),
`from` and `to` (fingerprints; null where there is none), `by` (who did it), `at`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from certrail.aws import Aws
from certrail.bundle import short
from certrail.records import Record, Rollout, State
from certrail.store import Rollback
from certrail.target import Target
from certrail.telling import put_event, put_metrics
from deployers.deploy import Attempt
from deployers.held import Behind
from deployers.reached import Reached

TARGET_FAILED = "Target Failed"
TARGET_RECOVERED = "Target Recovered"
TARGET_REPAIRED = "Target Repaired"
TARGET_ADDED = "Target Added"
TARGET_LOST = "Target Lost"
TARGET_AT_RISK = "Target At Risk"
NOT_SERVED = "Target Not Served"
WAVE_PASSED = "Wave Passed"
SERVED = "Certificate Served"
DEPLOYED = "Certificate Deployed"
WAITING = "Rollout Waiting"
STOPPED = "Rollout Stopped"
ROLLED_BACK = "Certificate Rolled Back"

# The same failure has others each time: ids of requests (UUIDs, and S3's own); of what serves one
# name the addresses, and of a fleet the machines, which come and go, and how many more there are.
PASSING = re.compile(
    r"\b(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9A-Z]{16})\b"
    r"|\b(?:\d{1,3}\.){3}\d{1,3}:\d+\b|\[[0-9a-f:.]+\]:\d+\b"
    r"|\bm?i-[0-9a-f]{8,17}\b|\band \d+ more\b"
)


@dataclass(frozen=True)
class Telling:
    """Tells EventBridge. Needs `events:PutEvents` on the default bus. bucket: of the installation
    that tells. by: who tells."""

    aws: Aws
    bucket: str
    now: datetime
    by: str

    # Attempts at a target

    def attempt(self, attempt: Attempt, *, added: bool = False) -> None:
        """Tell what is new of an attempt that ended, if anything is. added: whether the target came
        when all others had the bundle already. Where clients did not get it, a look says whether
        they do now."""
        before, record = attempt.before, attempt.record
        if record.state is State.FAILED:
            said = before.error if before else None
            if record.attempts == 1 or news(said, record.error or ""):
                self._failed(record)
        elif before is not None and before.error is not None and not record.missed:
            self.recovered(record)
        elif record.repaired is not None:
            self._repaired(record)
        elif before is None and added:
            self._added(record)

    def _failed(self, record: Record) -> None:
        error = record.error or "no reason was recorded"
        again = record.next_attempt
        self._of_target(
            TARGET_FAILED,
            record,
            f"failed: {_within(record, error)}",
            {
                "from": record.held.fingerprint if record.held else None,
                "error": error,
                "attempts": record.attempts,
                "nextAttempt": again.isoformat() if again else None,
            },
        )

    def _repaired(self, record: Record) -> None:
        self._of_target(
            TARGET_REPAIRED,
            record,
            f"was repaired: {record.repaired}, and {short(record.fingerprint)} was put back",
            {"found": record.repaired},
        )

    def _added(self, record: Record) -> None:
        self._of_target(
            TARGET_ADDED, record, f"was added, and now holds {short(record.fingerprint)}", {}
        )

    # What is a target no more

    def lost(self, pipeline: str, target: Target, selection: str, why: str) -> None:
        """A selection does not find what it found before. why: half a sentence about it."""
        self._event(
            TARGET_LOST,
            pipeline,
            f"{target.address} is no target any more: it {why}. Nothing there is touched, so its "
            "certificate is not renewed and expires there. To have it renewed, name it in "
            f"pipelines.yaml, or let it be found again by {selection}",
            {
                "target": target.address,
                "kind": target.type,
                # Who looks for targets does not read what they hold.
                "generation": None,
                "from": None,
                "to": None,
                "by": self.by,
                "at": self.now.isoformat(),
                "selection": selection,
                "reason": why,
            },
        )

    # What clients see of a target

    def recovered(self, record: Record) -> None:
        """What failed is well again: deployed, or served."""
        does = "serves" if record.state is State.SERVED else "holds"
        self._of_target(
            TARGET_RECOVERED,
            record,
            f"has recovered, and {does} {short(record.fingerprint)}",
            {"found": record.repaired},
        )

    def check_failed(self, record: Record) -> None:
        """Clients do not get what was deployed, and it is too late for that to be AWS's time."""
        self._count(record.pipeline)
        error = record.error or "clients do not get what was deployed"
        self._of_target(
            NOT_SERVED,
            record,
            f"is not served: {_within(record, error)}",
            {"error": error, "saw": record.check.saw if record.check else ""},
        )

    # What a target still holds

    def at_risk(self, rollout: Rollout, late: Behind, why: str) -> None:
        """What it holds soon ends. why: the current one has not come to it."""
        record = late.record
        more = f" ({late.others} more targets hold an earlier one, too)" if late.others else ""
        self._event(
            TARGET_AT_RISK,
            rollout.pipeline,
            f"{record.address} still holds {late.what}, which ends "
            f"{late.not_after:%Y-%m-%d %H:%M} UTC, and not {short(rollout.fingerprint)}{more}: "
            f"{_within(record, why)}",
            {
                "target": record.address,
                "kind": record.kind,
                "generation": rollout.generation,
                "from": late.fingerprint,
                "to": rollout.fingerprint,
                "by": self.by,
                "at": self.now.isoformat(),
                "notAfter": late.not_after.isoformat(),
                "others": late.others,
                "reason": why,
            },
        )

    # All of a pipeline's targets

    def wave_passed(self, rollout: Rollout, wave: str, there: Reached) -> None:
        self._of_rollout(
            WAVE_PASSED,
            rollout,
            f"wave `{wave}` has passed: {short(rollout.fingerprint)} is {there}, and its alarms "
            "are quiet",
            {"wave": wave},
        )

    def done(self, rollout: Rollout, before: str | None, there: Reached) -> None:
        """The last wave has passed. before: fingerprint of what was current before."""
        instead = f" (in place of {short(before)})" if before else ""
        self._of_rollout(
            SERVED if there.looked_at else DEPLOYED,
            rollout,
            f"{short(rollout.fingerprint)}{instead} is {there}",
            {
                "from": before,
                "targets": there.count,
                "served": len(there.served),
                "deployed": len(there.deployed),
                "tolerated": list(there.tolerated),
            },
        )

    def waits(self, rollout: Rollout, wave: str) -> None:
        """wave: the one that has not begun."""
        self._of_rollout(
            WAITING,
            rollout,
            f"wave `{wave}` does not get {short(rollout.fingerprint)} yet: {rollout.waits_for}",
            {"wave": wave, "reason": rollout.waits_for},
        )

    def rollout_failed(self, rollout: Rollout) -> None:
        self._count(rollout.pipeline)
        self._of_rollout(
            STOPPED,
            rollout,
            f"the rollout of {short(rollout.fingerprint)} goes no further: {rollout.failed}",
            {"reason": rollout.failed},
        )

    def rolled_back(self, rollout: Rollout, why: Rollback) -> None:
        """rollout: of the generation that brings the earlier bundle back."""
        self._count(rollout.pipeline)
        self._of_rollout(
            ROLLED_BACK,
            rollout,
            f"rolled back from {short(why.of)} to {short(rollout.fingerprint)}: {why.reason}",
            {"from": why.of, "by": why.by, "at": why.at.isoformat(), "reason": why.reason},
        )

    # How it is said

    def _count(self, pipeline: str) -> None:
        """For the alarm, which rings where no topic and no webhook is set."""
        put_metrics(self.now, {"RolloutsFailed": (1, "Count")}, [[]], Pipeline=pipeline)

    def _of_target(self, kind: str, record: Record, says: str, more: dict[str, Any]) -> None:
        self._event(
            kind,
            record.pipeline,
            f"{record.address} {says}",
            {
                "target": record.address,
                "kind": record.kind,
                "generation": record.generation,
                "from": record.before,
                "to": record.fingerprint,
                "by": record.by or self.by,
                "at": record.at.isoformat(),
                **more,
            },
        )

    def _of_rollout(self, kind: str, rollout: Rollout, says: str, more: dict[str, Any]) -> None:
        self._event(
            kind,
            rollout.pipeline,
            says,
            {
                "generation": rollout.generation,
                "from": None,
                "to": rollout.fingerprint,
                "by": self.by,
                "at": rollout.at.isoformat(),
                **more,
            },
        )

    def _event(self, kind: str, pipeline: str, says: str, detail: dict[str, Any]) -> None:
        said = {"bucket": self.bucket, "pipeline": pipeline, "summary": f"{pipeline}: {says}"}
        put_event(self.aws, self.now, kind, {**said, **detail})


def _within(record: Record, error: str) -> str:
    """The error, in a sentence that names the target already."""
    return error.removeprefix(f"{record.address}: ")


def news(before: str | None, error: str) -> bool:
    """Whether an error says something that the one before it did not. Of what several targets or
    addresses fail over, it is none that one of them is well again, or fails over the same."""
    return bool(_reasons(error) - _reasons(before or ""))


def _reasons(error: str) -> frozenset[str]:
    """What it says, in parts that can be compared."""
    parts = (part.strip(" ,") for part in PASSING.sub("", error).split(";"))
    return frozenset(part for part in parts if part)
