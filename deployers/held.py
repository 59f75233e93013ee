"""What targets still hold although another certificate is the current one.

It ends, whatever holds the new one up: a wave that waits for its alarm, a rollout that was stopped,
a deployment that fails, a way that nobody thought of. So this asks the records only, and no wave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from certrail.bundle import short
from certrail.records import Record
from certrail.store import Current
from certrail.target import FOLLOWS
from certrail.telling import put_metrics

# So long before the end it is told, shown as a failure, and rings; of a short life a quarter, as
# one of six days has never got a week left. Renewals begin with a third, or before.
WEEK = timedelta(days=7)
SHARE = 4


@dataclass(frozen=True)
class Behind:
    """Of the targets that hold another certificate than the current one, the one whose certificate
    ends first. record: its record. fingerprint: empty where it is that of an import that was
    replaced. others: how many more there are. soon: from when on that is urgent."""

    record: Record
    fingerprint: str
    not_after: datetime
    others: int
    soon: datetime

    @property
    def what(self) -> str:
        return short(self.fingerprint) if self.fingerprint else "an import that was replaced"


def behind(current: Current, records: Mapping[str, Record]) -> Behind | None:
    """records: by address. None where every target has the current certificate, or has none."""
    found = [
        (record, *what)
        for record in records.values()
        if (what := _still(record, current, records)) is not None
    ]
    if not found:
        return None
    # Of those that end together, one that says why.
    record, fingerprint, not_after = min(
        found, key=lambda each: (each[2], each[0].error is None, each[0].address)
    )
    life = current.facts.not_after - current.facts.not_before
    soon = not_after - min(WEEK, life / SHARE)
    return Behind(record, fingerprint, not_after, len(found) - 1, soon)


def _still(
    record: Record, current: Current, records: Mapping[str, Record]
) -> tuple[str, datetime] | None:
    """Fingerprint and end of what a target holds instead of what is current."""
    if record.held:
        other = record.held.fingerprint != current.fingerprint
        not_after = record.held.not_after
        return (record.held.fingerprint, not_after) if other and not_after else None
    # It never followed, and so has the import that was replaced, or did when that was read.
    homes = [records[each] for each in record.needs if each in records]
    for home in homes if record.spec.endswith(FOLLOWS) else ():
        if home.held and home.held.superseded_end:
            return "", home.held.superseded_end
    return None


def count_held(current: Current, records: Mapping[str, Record], now: datetime) -> None:
    """Write how long what the targets of a pipeline hold still lasts: `HeldDaysLeft`, and
    `HoursHeldTooLong`, which the alarm looks at. The metrics are over all pipelines; the line names
    the pipeline and the target."""
    ends = [each.held.not_after for each in records.values() if each.held and each.held.not_after]
    if not ends:
        return
    late = behind(current, records)
    over = now - late.soon if late else timedelta(0)
    values = {
        "HeldDaysLeft": ((min(ends) - now) / timedelta(days=1), "None"),
        "HoursHeldTooLong": (max(0.0, over / timedelta(hours=1)), "None"),
    }
    about = {"target": late.record.address} if late else {}
    put_metrics(now, values, [[]], Pipeline=current.pipeline, **about)
