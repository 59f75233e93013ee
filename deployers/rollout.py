"""What is to be done for each target of a pipeline, and why: a pure function of the state.

The router sends jobs from it, `certrail plan` and `certrail status` show it, `certrail apply`
follows it. The same state gets the same answer, and a state in which everything is deployed gets
nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from certrail.bundle import short
from certrail.records import Record, Rollout, State
from certrail.store import Current
from certrail.target import Deployed, Target, with_needs
from certrail.waves import Wave, wave_numbers


class Action(StrEnum):
    """What the next step of a target is. The first six are work, the rest is not."""

    CREATE = "create"  # nothing was ever deployed there
    UPDATE = "update"  # a newer bundle is there
    CHANGE = "change"  # the file says something else about the target
    RELINK = "relink"  # what it needs is another resource now
    RETRY = "retry"  # the last attempt failed, or never ended
    CHECK = "check"  # deployed; compare it with what AWS has
    WAIT = "wait"  # something else must be done first
    BUSY = "busy"  # somebody is at it
    FAILED = "failed"  # no retry helps before somebody changes something
    NONE = "none"


# The states in which a target holds what its record says.
HOLDS = frozenset({State.DEPLOYED, State.SERVED})
WORK = frozenset(
    {Action.CREATE, Action.UPDATE, Action.CHANGE, Action.RELINK, Action.RETRY, Action.CHECK}
)


@dataclass(frozen=True)
class Step:
    """One target's next step. needs: the resources it will be bound to, by address. generation:
    the one that the step is about, of what it is to hold until its wave begins an earlier one."""

    target: Target
    action: Action
    reason: str
    needs: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0

    @property
    def ready(self) -> bool:
        return self.action in WORK


@dataclass(frozen=True)
class Gates:
    """Which targets may get the current bundle: those of the waves that have begun.

    waves: number of each target's wave, by address. names: of the waves. passed: how many have
    passed. begun: whether the one after them has; waits_for: why not, where that is known.
    stopped: why no further target gets it, None while it goes on. back: where the current bundle is
    one that was gone back to.
    """

    waves: Mapping[str, int] = field(default_factory=dict)
    names: Sequence[str] = ("",)
    passed: int = 0
    begun: bool = True
    waits_for: str | None = None
    stopped: str | None = None
    back: Current | None = None

    def closed_to(self, address: str, record: Record | None) -> str | None:
        """Why this one has to wait, None where it may go. record: its own."""
        if self.back and record and _goes_back(self.back, record):
            return None
        wave = self.waves.get(address, len(self.names) - 1)
        if self.stopped:
            return f"stopped: {self.stopped}"
        if wave > self.passed:
            return f"waiting for wave `{self.names[self.passed]}`"
        if wave == self.passed and not self.begun:
            why = self.waits_for or "its alarms are looked at first"
            return f"wave `{self.names[wave]}` has not begun: {why}"
        return None


OPEN = Gates()


def gates(
    waves: Sequence[Wave],
    targets: Iterable[Target],
    current: Current | None,
    rollout: Rollout | None,
) -> Gates:
    """rollout: how far it has come; one that is about another generation says little."""
    numbers, names = wave_numbers(targets, waves), [wave.name for wave in waves]
    if current is None:
        return Gates(numbers, names, begun=not waves[0].alarms)
    if at_once(current, rollout) or is_over(rollout, current):
        return Gates(numbers, names, len(names))
    back = current if current.rollback else None
    if rollout is None or rollout.generation != current.generation:
        # Whether alarms ring is no part of the state: a rollout's document says that they do not.
        return Gates(numbers, names, begun=not waves[0].alarms, back=back)
    return Gates(
        numbers,
        names,
        rollout.passed,
        rollout.began_at is not None,
        rollout.waits_for,
        rollout.failed,
        back,
    )


def is_over(rollout: Rollout | None, current: Current) -> bool:
    """Whether all waves have passed with it, whatever the file says of waves by now."""
    if rollout is None or rollout.generation != current.generation:
        return False
    return rollout.done_at is not None


def at_once(current: Current, rollout: Rollout | None) -> bool:
    """Whether no wave waits for another one: on the way back to a bundle that had passed them all.
    Another one goes back at once to where it was left, and takes its waves to where it never was.
    """
    if current.rollback is None or rollout is None:
        return False
    return current.fingerprint == rollout.proven_before(current.generation)


def _goes_back(current: Current, record: Record) -> bool:
    """Whether a target was given what is gone back from, or still holds what is gone back to."""
    left = current.rollback is not None and record.generation == current.rollback.generation
    return left or (record.held is not None and record.held.fingerprint == current.fingerprint)


def plan(
    targets: Iterable[Target],
    current: Current | None,
    records: Mapping[str, Record],
    now: datetime,
    *,
    gates: Gates = OPEN,
    reconcile: bool = False,
) -> list[Step]:
    """The next step of each target and of what it needs, each after what it needs.

    records: by address; a target without one was never deployed. gates: which may get the current
    bundle yet. reconcile: also check what is deployed, and try again what failed.
    """
    return [
        _step(target, current, records, now, gates, reconcile=reconcile)
        for target in with_needs(targets).values()
    ]


def kept(
    targets: Iterable[Target],
    current: Current | None,
    records: Mapping[str, Record],
    gates: Gates,
    now: datetime,
    *,
    reconcile: bool,
) -> Iterator[Step]:
    """What is to be done for targets whose wave has not begun: each is to hold what it has until
    then. reconcile: also check that they do."""
    for target in with_needs(targets).values():
        record = records.get(target.address)
        if current is None or record is None or record.generation >= current.generation:
            continue
        closed = gates.closed_to(target.address, record)
        if not closed or record.spec != target.spec:
            continue
        has = f"{short(record.fingerprint)} until then"
        if reconcile and holds(record):
            reason = f"{closed}; does it hold {has}?"
            yield Step(target, Action.CHECK, reason, record.needs, record.generation)
        elif is_broken(record) and (reconcile or retry_is_due(record, now)):
            reason = f"{closed}; it is to hold {has}, and {record.error or 'does not'}"
            yield Step(target, Action.RETRY, reason, record.needs, record.generation)


def waits_for(target: Target, current: Current, records: Mapping[str, Record]) -> str | None:
    """Why a target cannot be deployed yet, or None where everything it needs holds the bundle."""
    for needed in target.needs:
        record = records.get(needed.address)
        if record is None or (record.state is State.FAILED and not holds(record)):
            failed = ", which failed" if record else ""
            return f"waiting for {needed.address}{failed}"
        if (
            not holds(record)
            or record.generation != current.generation
            or record.fingerprint != current.fingerprint
        ):
            return f"waiting for {needed.address}"
    return None


def holds(record: Record) -> bool:
    """Whether the target holds what its record says: also where clients are seen not to get it."""
    not_served = record.state is State.FAILED and record.check is not None and record.check.failed
    return record.state in HOLDS or not_served


def is_broken(record: Record) -> bool:
    """Whether somebody changed what the target held, and it was not repaired yet."""
    return record.repaired is not None and not holds(record)


def retry_is_due(record: Record, now: datetime) -> bool:
    """Whether an attempt that failed, or never ended, is to be made again by itself."""
    if record.state is State.DEPLOYING:
        return not in_progress(record, now)
    return record.next_attempt is not None and record.next_attempt <= now


def held_by_needs(target: Target, records: Mapping[str, Record]) -> dict[str, Deployed]:
    """What the targets that this one needs hold, by address; those that hold nothing left out."""
    return {
        needed.address: record.held
        for needed in target.needs
        if (record := records.get(needed.address)) and record.held
    }


def in_progress(record: Record, now: datetime) -> bool:
    return record.state is State.DEPLOYING and record.until is not None and record.until > now


def settled(record: Record, target: Target, current: Current, needs: Mapping[str, str]) -> bool:
    """Whether the record is about just this: bundle, entry in the file, and what it is bound to."""
    return (
        record.generation == current.generation
        and record.fingerprint == current.fingerprint
        and record.spec == target.spec
        and dict(record.needs) == dict(needs)
    )


def _step(
    target: Target,
    current: Current | None,
    records: Mapping[str, Record],
    now: datetime,
    gates: Gates,
    *,
    reconcile: bool,
) -> Step:
    record = records.get(target.address)
    if current is None:
        return Step(target, Action.WAIT, "waiting for the first certificate")
    if record and in_progress(record, now):
        return Step(target, Action.BUSY, f"in progress since {_at(record.at)}")
    if record and record.generation > current.generation:
        return Step(
            target,
            Action.WAIT,
            f"it has generation {record.generation}, and nothing older replaces it",
        )
    has_it = record is not None and record.generation == current.generation
    if not has_it and (closed := gates.closed_to(target.address, record)):
        return Step(target, Action.WAIT, closed)
    if waiting := waits_for(target, current, records):
        return Step(target, Action.WAIT, waiting)
    needs = {address: held.resource for address, held in held_by_needs(target, records).items()}
    action, reason = _action(target, current, record, needs, now, reconcile=reconcile)
    return Step(target, action, reason, needs, current.generation)


def _action(
    target: Target,
    current: Current,
    record: Record | None,
    needs: Mapping[str, str],
    now: datetime,
    *,
    reconcile: bool,
) -> tuple[Action, str]:
    new = short(current.fingerprint)
    if record is None:
        return Action.CREATE, f"never deployed; {new} is current"
    if not settled(record, target, current, needs):
        if record.held is None:
            return Action.CREATE, f"never deployed; {new} is current"
        if (record.generation, record.fingerprint) != (current.generation, current.fingerprint):
            return Action.UPDATE, f"holds {short(record.held.fingerprint)}; {new} is current"
        if record.spec != target.spec:
            return Action.CHANGE, "its entry in the pipelines file changed"
        moved = ", ".join(sorted(needs.keys() | record.needs.keys()))
        return Action.RELINK, f"{moved} is another resource now"
    match record.state:
        case State.DEPLOYING:
            return Action.RETRY, f"the attempt of {_at(record.at)} never ended"
        case State.FAILED:
            error = record.error or "no reason was recorded"
            if holds(record):
                # Nothing is to be deployed: whether AWS still has it can be looked at.
                return (Action.CHECK if reconcile else Action.FAILED), error
            if reconcile or retry_is_due(record, now):
                return Action.RETRY, f"failed {record.attempts} times: {error}"
            if record.next_attempt:
                return Action.WAIT, f"next attempt at {_at(record.next_attempt)}: {error}"
            return Action.FAILED, error
        case _:
            if reconcile:
                return Action.CHECK, f"holds {new}; is it still there?"
            return Action.NONE, f"holds {new}"


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
