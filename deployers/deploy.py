"""Deploying one target: the one way, for the Lambda functions and for `certrail apply`.

read the record, then what is current
  → nothing to do, waiting, or somebody else is at it: stop here, nothing is written
claim the record (conditionally: of two deployers one goes on)
read the bundle and check it → deploy → write what came of it
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from certrail.aws import Aws
from certrail.bundle import short
from certrail.errors import Busy, CertrailError, Superseded
from certrail.records import Record, State
from certrail.store import Current, Store, record_key
from certrail.target import Context, Deployed, Link, Target
from deployers.job import Role
from deployers.rollout import held_by_needs, in_progress, settled, waits_for

# Longer than a deployer may run (60 s), shorter than its queue hides a message (6 minutes): who
# takes over from one that died finds the claim expired.
LEASE = timedelta(minutes=5)
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
    """How a deployment ended that did not fail. held: what the target holds now."""

    result: Result
    reason: str
    held: Deployed | None = None
    fingerprint: str = ""
    generation: int = 0


def deploy_target(
    store: Store, target: Target, pipeline: str, *, role: Role | None, aws: Aws, now: datetime
) -> Outcome:
    """Make one target hold the pipeline's current bundle, and its record say so.

    aws: of the account certrail runs in; role: for a target in another one.

    Raises Busy where somebody else is deploying it, Superseded where the target has a newer
    generation; neither touches the record. Nor does an AwsError or StateError from reading the
    bucket before the claim. Every later failure is on the record when it is raised.
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
    if record and in_progress(record, now):
        raise _busy(target)
    records = _records_of_needs(store, target, pipeline)
    if waiting := waits_for(target, current, records):
        return Outcome(Result.WAITING, waiting, record.held if record else None)
    needs = held_by_needs(target, records)
    bound = {address: held.resource for address, held in needs.items()}
    same = record is not None and settled(record, target, current, bound)
    if (
        record
        and same
        and record.state is State.DEPLOYED
        and _still_holds(store, target, record, role, aws, needs)
    ):
        return _outcome(Result.UNCHANGED, "AWS has what the record says", current, record.held)

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
        at=now,
        until=now + LEASE,
        claim=str(uuid.uuid4()),
        attempts=record.attempts if record and same else 0,
    )
    try:
        etag = store.write(key, claim, Record, seen.etag if seen else None)
    except Superseded as error:
        raise _busy(target) from error
    try:
        context = _context(store, pipeline, role, aws, claim.held, needs)
        if isinstance(target, Link):
            held = target.link(current.facts, context)
        else:
            held = target.deploy(store.bundle(current), context)
    except BaseException as error:
        store.write(key, _failed(claim, error, now), Record, etag)
        raise
    done = replace(claim, state=State.DEPLOYED, held=held, until=None, claim=None, attempts=0)
    store.write(key, done, Record, etag)
    return _outcome(Result.DEPLOYED, f"now holds {short(current.fingerprint)}", current, held)


def observe_target(
    store: Store, target: Target, pipeline: str, *, role: Role | None, aws: Aws
) -> Deployed | None:
    """What AWS says the target holds. Reads only. Raises DeployError and its kinds, AwsError."""
    seen = store.read(record_key(pipeline, target.address), Record)
    needs = held_by_needs(target, _records_of_needs(store, target, pipeline))
    held = seen.value.held if seen else None
    return target.observe(_context(store, pipeline, role, aws, held, needs))


def _still_holds(
    store: Store,
    target: Target,
    record: Record,
    role: Role | None,
    aws: Aws,
    needs: Mapping[str, Deployed],
) -> bool:
    try:
        there = target.observe(_context(store, record.pipeline, role, aws, record.held, needs))
    except CertrailError:
        # Deploying meets the same failure, and puts it on the record.
        return False
    return (
        there is not None
        and record.held is not None
        and there.fingerprint == record.fingerprint
        and there.resource == record.held.resource
        and there.version == record.held.version
    )


def _context(
    store: Store,
    pipeline: str,
    role: Role | None,
    aws: Aws,
    held: Deployed | None,
    needs: Mapping[str, Deployed],
) -> Context:
    there = aws.acting_as(role.role_arn, role.external_id) if role else aws
    return Context(pipeline=pipeline, owner=store.bucket, aws=there, held=held, needs=needs)


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
    )


def _busy(target: Target) -> Busy:
    return Busy(
        "somebody else is deploying this target",
        where=target.address,
        next="It ends by itself within five minutes",
    )


def _outcome(result: Result, reason: str, current: Current, held: Deployed | None) -> Outcome:
    return Outcome(result, reason, held, current.fingerprint, current.generation)
