"""Deploying one target: the one way, for the Lambda functions and for `certrail apply`.

read the record, then what is current
  → waiting, or somebody else is at it: stop here, nothing is written
  → nothing to do: remove what is not needed any more, and stop
claim the record (conditionally: of two deployers one goes on)
read the bundle and check it → deploy → write what came of it → tell
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from certrail.aws import Aws, calls_end_after
from certrail.bundle import short
from certrail.errors import BundleRefused, Busy, CertrailError, Superseded, TargetRefused
from certrail.records import Check, Record, State
from certrail.store import Current, Store, record_key
from certrail.target import LEFT, Context, Deployed, Link, Node, Preflight, Rotation, Target
from deployers.job import Role
from deployers.looks import SILENT
from deployers.rollout import held_by_needs, holds, in_progress, is_broken, settled, waits_for

log = logging.getLogger(__name__)

# Longer than a deployer may run (60 s), shorter than its queue hides a message (6 minutes): who
# takes over from one that died finds the claim expired.
LEASE = timedelta(minutes=5)
# Of which so much is left for the last call to arrive.
ON_ITS_WAY = timedelta(seconds=30)
RETRY_AFTER = (
    timedelta(minutes=1),
    timedelta(minutes=10),
    timedelta(minutes=100),
    timedelta(days=1),
)


class Result(StrEnum):
    DEPLOYED = "deployed"
    UNCHANGED = "unchanged"
    WAITING = "waiting"


@dataclass(frozen=True)
class Outcome:
    """How a deployment ended that did not fail. held: what the target holds now. repaired: what AWS
    had instead of what the record said, None where it had that, or nobody looked."""

    result: Result
    reason: str
    held: Deployed | None = None
    fingerprint: str = ""
    generation: int = 0
    repaired: str | None = None


@dataclass(frozen=True)
class Attempt:
    """An attempt that ended, well or not, and whose end is on the record.

    before: the record as it was, None where there was none. record: as it is now.
    """

    before: Record | None
    record: Record


def tell_nobody(attempt: Attempt) -> None:
    pass


@calls_end_after(LEASE - ON_ITS_WAY)
def deploy_target(
    store: Store,
    target: Target,
    pipeline: str,
    *,
    role: Role | None,
    aws: Aws,
    now: datetime,
    rotation: Rotation = Rotation.IN_PLACE,
    generation: int | None = None,
    by: str = "",
    tell: Callable[[Attempt], None] = tell_nobody,
) -> Outcome:
    """Make one target hold the pipeline's current bundle, and its record say so.

    aws: of the account certrail runs in; role: for a target in another one. rotation: of the
    pipeline. generation: the only one to deploy, as its wave has begun, or the one that the target
    is to keep until then; None for any. by: who does it, for the record. tell: called with an
    attempt whose end was just written.

    Raises Busy where somebody else is deploying it, Superseded where the target has a newer
    generation; neither touches the record. Nor does an AwsError or StateError from reading the
    bucket before the claim, or from tidying up. Every later failure is on the record when it is
    raised.
    """
    key = record_key(pipeline, target.address)
    # The record before the pointer: a record is never newer than the pointer read after it.
    seen = store.read(key, Record)
    record = seen.value if seen else None
    current = store.current(pipeline)
    if current is None:
        return Outcome(Result.WAITING, "waiting for the first certificate")
    if record and record.generation > current.generation:
        raise Superseded(
            f"the target has generation {record.generation}, and {current.generation} is current",
            where=target.address,
            next="Nothing older replaces it; restore the version of current.json with the highest "
            "generation",
        )
    earlier = None
    if generation is not None and generation != current.generation:
        earlier = _kept(store, target, record, generation)
        if earlier is None:
            return Outcome(
                Result.WAITING,
                f"generation {current.generation} is current, and its turn may be later",
                record.held if record else None,
            )
        current = earlier
    if record and in_progress(record, now):
        raise _busy(target)
    records = _records_of_needs(store, target, pipeline)
    if record and earlier:
        # It is to stay as it is, also where what it needs has gone on.
        records = {
            address: _as_bound(each, record) if each.generation > record.generation else each
            for address, each in records.items()
        }
    if waiting := waits_for(target, current, records):
        return Outcome(Result.WAITING, waiting, record.held if record else None)
    needs = held_by_needs(target, records)
    bound = {address: held.resource for address, held in needs.items()}
    same = record is not None and settled(record, target, current, bound)

    def context() -> Context:
        held = record.held if record else None
        names = current.facts.domains
        return _context(store, pipeline, role, aws, held, needs, rotation, now, names)

    # A repair that failed or never ended is one still.
    repaired = record.repaired if record and same else None
    if seen and record and same and holds(record):
        here, repaired = _compared(target, record, context)
        if here:
            if tidied := target.tidy(here):
                store.write(key, replace(record, held=tidied, at=now), Record, seen.etag)
            return _outcome(
                Result.UNCHANGED, "AWS has what the record says", current, tidied or record.held
            )

    claim = Record(
        pipeline=pipeline,
        address=target.address,
        kind=target.type,
        state=State.DEPLOYING,
        generation=current.generation,
        fingerprint=current.fingerprint,
        spec=target.spec,
        needs=bound,
        held=record.held if record else None,
        before=record.before if record else None,
        by=by,
        at=now,
        until=now + LEASE,
        claim=str(uuid.uuid4()),
        attempts=record.attempts if record and same else 0,
        good=record.good if record else None,
        error=record.error if record else None,
        repaired=repaired,
        missed=record is not None and record.missed,
    )
    try:
        etag = store.write(key, claim, Record, seen.etag if seen else None)
    except Superseded as error:
        raise _busy(target) from error
    try:
        if current.facts.key_type not in target.key_types:
            raise _not_served(target, current)
        if isinstance(target, Link):
            held = target.link(current.facts, context())
        else:
            held = target.deploy(store.bundle(current), context())
    except BaseException as error:
        failed = _failed(claim, error, now)
        store.write(key, failed, Record, etag)
        tell(Attempt(record, failed))
        raise
    # Of what is somebody else's now, nothing was put back.
    repaired = repaired if held != LEFT else None
    check = _check(target, record, bound, held, now, repaired=repaired is not None)
    done = replace(
        claim,
        state=State.DEPLOYED,
        held=held,
        before=claim.held.fingerprint if claim.held else None,
        until=None,
        claim=None,
        attempts=0,
        error=None,
        repaired=repaired,
        check=check,
        # Where nobody looks, nobody would ever see it end.
        missed=claim.missed and check is not None,
    )
    store.write(key, done, Record, etag)
    tell(Attempt(record, done))
    if held == LEFT:
        reason = "left alone, as its owner has chosen another certificate for it"
    else:
        reason = f"now holds {short(current.fingerprint)}" + (f"; {repaired}" if repaired else "")
    return _outcome(Result.DEPLOYED, reason, current, held, repaired)


def observe_target(
    store: Store, target: Target, pipeline: str, *, role: Role | None, aws: Aws
) -> Deployed | None:
    """What AWS says the target holds. Reads only. Raises DeployError and its kinds, AwsError."""
    seen = store.read(record_key(pipeline, target.address), Record)
    needs = held_by_needs(target, _records_of_needs(store, target, pipeline))
    held = seen.value.held if seen else None
    return target.observe(_context(store, pipeline, role, aws, held, needs))


def nodes_of(
    store: Store, target: Target, pipeline: str, record: Record, *, role: Role | None, aws: Aws
) -> Sequence[Node]:
    """What the target's machines say. record: the target's. Reads only. Raises AwsError."""
    return target.nodes(_context(store, pipeline, role, aws, record.held, {}))


def preflight_target(
    store: Store,
    target: Target,
    wanted: Current,
    *,
    role: Role | None,
    aws: Aws,
    rotation: Rotation,
    now: datetime,
) -> Preflight | None:
    """What deploying this bundle to the target would do, where it has a choice. Reads only. Raises
    as `observe_target`."""
    seen = store.read(record_key(wanted.pipeline, target.address), Record)
    held = seen.value.held if seen else None
    context = _context(store, wanted.pipeline, role, aws, held, {}, rotation, now)
    return target.preflight(wanted.facts, replace(context, chained=wanted.chained))


def _kept(store: Store, target: Target, record: Record | None, generation: int) -> Current | None:
    """The bundle of an earlier generation, where the target holds that one or is to hold it again,
    and the file says of it what it said then."""
    if record is None or record.generation != generation:
        return None
    if not (holds(record) or is_broken(record)):
        return None
    if record.spec != target.spec:
        return None
    there = store.published_as(record.pipeline, record.fingerprint)
    return replace(there, generation=record.generation) if there else None


def _as_bound(needed: Record, record: Record) -> Record:
    """What a target of an earlier generation was bound to, where what it needs has a later one."""
    if record.held is None or needed.address not in record.needs:
        return needed
    bound = Deployed(record.held.fingerprint, record.needs[needed.address], record.held.not_after)
    return replace(
        needed,
        state=State.DEPLOYED,
        generation=record.generation,
        fingerprint=record.fingerprint,
        held=bound,
    )


def _not_served(target: Target, current: Current) -> TargetRefused:
    return TargetRefused(
        f"it cannot serve {current.facts.key_type} keys",
        where=target.address,
        next=f"Choose another `key_type` for the pipeline: {', '.join(sorted(target.key_types))}",
    )


def _check(
    target: Target,
    before: Record | None,
    bound: Mapping[str, str],
    held: Deployed,
    now: datetime,
    *,
    repaired: bool,
) -> Check | None:
    """What there is to look at, from now on."""
    if not held.endpoints and not held.nodes:
        return None
    # What somebody had pointed elsewhere is pointed back. What was never deployed may have pointed
    # here already, at an import that was adopted.
    relinked = repaired or (before is not None and dict(before.needs) != dict(bound))
    machines = before.check if before else None
    return Check(
        until=now + target.propagation(relinked=relinked),
        next=now,
        # So that it is known which ones are new.
        nodes=dict.fromkeys(machines.nodes, SILENT) if machines else {},
        came=machines.came if machines else {},
    )


def _compared(
    target: Target, record: Record, context: Callable[[], Context]
) -> tuple[Context | None, str | None]:
    """In which AWS has what the record says, None where it has not, or cannot be asked; and, where
    somebody changed it, what it has instead."""
    try:
        here = context()
        there = target.observe(here)
    except CertrailError as error:
        # Deploying meets the same failure, and puts it on the record.
        log.warning("%s: could not be compared: %s", target.address, error)
        return None, None
    different = drift(record, there)
    # An alias more, a port changed: clients are to be looked at there, too.
    moved = there and record.held and there.endpoints != record.held.endpoints
    return (None if different or moved else here), different


def drift(record: Record, there: Deployed | None) -> str | None:
    """What AWS has instead of what the record says, half a sentence; None where it has that.

    there: as `observe` says it.
    """
    held = record.held
    if there is None:
        return "nothing was there any more"
    if held is None or there.resource != held.resource:
        return f"{there.resource} was in its place"
    if there.version != held.version:
        return f"somebody had written version {there.version}"
    if there.fingerprint == held.fingerprint:
        return None
    if there.fingerprint:
        return f"{short(there.fingerprint)} was in its place"
    return "somebody had changed it"


def _context(
    store: Store,
    pipeline: str,
    role: Role | None,
    aws: Aws,
    held: Deployed | None,
    needs: Mapping[str, Deployed],
    rotation: Rotation = Rotation.IN_PLACE,
    now: datetime | None = None,
    names: tuple[str, ...] = (),
) -> Context:
    there = aws.acting_as(role.role_arn, role.external_id) if role else aws
    return Context(
        pipeline=pipeline,
        owner=store.bucket,
        aws=there,
        held=held,
        needs=needs,
        rotation=rotation,
        now=now or datetime.now(UTC),
        names=names,
    )


def _records_of_needs(store: Store, target: Target, pipeline: str) -> dict[str, Record]:
    found = {
        needed.address: store.read(record_key(pipeline, needed.address), Record)
        for needed in target.needs
    }
    return {address: seen.value for address, seen in found.items() if seen}


def _failed(claim: Record, error: BaseException, now: datetime) -> Record:
    attempts = claim.attempts + 1
    if isinstance(error, CertrailError):
        text, retryable = str(error), error.retryable
    else:
        # Of an error that nobody foresaw, not even the text is safe to keep.
        text, retryable = f"{type(error).__name__} (unforeseen; see the log)", True
    delay = RETRY_AFTER[min(attempts, len(RETRY_AFTER)) - 1]
    return replace(
        claim,
        state=State.FAILED,
        until=None,
        claim=None,
        attempts=attempts,
        error=text,
        next_attempt=now + delay if retryable else None,
        refused=isinstance(error, BundleRefused),
    )


def _busy(target: Target) -> Busy:
    return Busy(
        "somebody else is deploying this target",
        where=target.address,
        next="It ends by itself within five minutes",
    )


def _outcome(
    result: Result,
    reason: str,
    current: Current,
    held: Deployed | None,
    repaired: str | None = None,
) -> Outcome:
    return Outcome(result, reason, held, current.fingerprint, current.generation, repaired)
