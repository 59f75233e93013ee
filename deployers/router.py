"""The router: from events to jobs, and to looks at what clients get.

An event says only which pipeline to look at. What is to be done comes from the state of the bucket,
so an event that is doubled, late, lost or unknown does no harm: an hourly run looks at everything.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from certrail import log
from certrail.aws import Aws
from certrail.errors import AwsError, CertrailError, NothingPushed, StateError, raise_together
from certrail.pipelines import Pipeline, Pipelines, load
from certrail.records import Record
from certrail.store import CONFIG_KEY, Current, Store, current_key, spell
from certrail.target import as_job
from deployers.held import behind, count_held
from deployers.job import Job, role_of
from deployers.judge import SOON, attention
from deployers.kinds.all import AnyTarget
from deployers.rollout import Action, Step, kept, plan
from deployers.view import READERS, View, look_at

if TYPE_CHECKING:
    from types_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

    Entry = SendMessageBatchRequestEntryTypeDef

logger = logging.getLogger(__name__)

# What SendMessageBatch takes at once, and what it takes as a group
# (docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html).
BATCH = 10
GROUP = re.compile(r"[!-~]{1,128}")
# The hourly schedule has a window of a quarter of an hour.
AHEAD = timedelta(minutes=75)


def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point: a batch of S3 events from the router's queue, or a schedule's event,
    `{}` or `{"reconcile": true}`."""
    log.to_lambda()
    aws = _aws()
    store = Store(os.environ["CERTRAIL_BUCKET"], aws)
    queues: dict[str, str] = json.loads(os.environ["CERTRAIL_QUEUES"])
    looks = os.environ["CERTRAIL_WATCH_QUEUE"]
    now = datetime.now(UTC)
    if "Records" not in event:
        failures = route(
            store, queues, looks, aws, None, now, reconcile=bool(event.get("reconcile"))
        )
        raise_together("some pipelines could not be routed", list(failures.values()))
        return {}
    touched = {record["messageId"]: pipelines_of(record["body"]) for record in event["Records"]}
    everything = any(names is None for names in touched.values())
    wanted = None if everything else {name for names in touched.values() for name in names or ()}
    # Who pushes the file again after having repaired a policy expects what failed to be tried.
    failures = route(store, queues, looks, aws, wanted, now, reconcile=everything)
    for error in failures.values():
        logger.error("%s", error)
    return {
        "batchItemFailures": [
            {"itemIdentifier": message}
            for message, names in touched.items()
            if failures and (names is None or names & failures.keys())
        ]
    }


@cache
def _aws() -> Aws:
    # Kept while the function is warm: clients take longer to make than most jobs take to do.
    return Aws()


def pipelines_of(body: str) -> frozenset[str] | None:
    """The pipelines an event is about, as they are spelled in keys; None for all of them.

    Nothing for what is no event of ours, such as the test event of a new notification.
    """
    try:
        key = unquote(json.loads(body)["detail"]["object"]["key"])
    except (ValueError, KeyError, TypeError):
        logger.info("a message that is no event of the bucket was put aside")
        return frozenset()
    if key == CONFIG_KEY:
        return None
    match key.split("/"):
        case ["certificates", name, "current.json"]:
            return frozenset({name})
        case ["deployments", name, _, *_]:
            return frozenset({name})
        case ["rollouts" | "found", name]:
            return frozenset({name.removesuffix(".json")})
        case _:
            return frozenset()


def route(
    store: Store,
    queues: Mapping[str, str],
    looks: str,
    aws: Aws,
    names: Iterable[str] | None,
    now: datetime,
    *,
    reconcile: bool,
) -> dict[str, CertrailError]:
    """Send a job for each target that is ready, and a message to the watcher for each pipeline that
    it is to look at soon.

    queues: URL by kind. looks: URL of the watcher's queue. names: of pipelines, as spelled in keys;
    None for all: then it is also counted how long what their targets hold still lasts.

    Returns what could not be routed, by the name in keys; the other pipelines were. Raises
    PipelinesInvalid and StateError where there is no file to go by.
    """
    wanted = None if names is None else set(names)
    if wanted == set():
        return {}
    try:
        text = store.pipelines_text()
    except NothingPushed as error:
        # The state of every new stack, and no reason to wake anybody.
        logger.info("nothing to do: %s", error)
        return {}
    file = load(text, CONFIG_KEY, Pipelines[AnyTarget])
    failures: dict[str, CertrailError] = {}
    waiting: dict[str, list[Parcel]] = defaultdict(list)
    watched: dict[str, timedelta] = {}
    # What an event is about is looked at again in time: whoever looks writes down when, and that is
    # an event. What lies further off is found by the run of the hour before.
    ahead = SOON if wanted is not None else AHEAD
    with ThreadPoolExecutor(READERS) as readers:
        for pipeline in file.pipelines:
            name = spell(pipeline.name)
            if wanted is not None and name not in wanted:
                continue
            try:
                view = look_at(store, pipeline, readers)
            except CertrailError as error:
                failures[name] = error
                continue
            for unreadable in view.unreadable.values():
                failures[name] = unreadable
            if set_back := _set_back(store, view):
                failures[name] = set_back
            for parcel in _parcels(view, file, pipeline, now, reconcile=reconcile):
                waiting[parcel.kind].append(parcel)
            then = attention(
                view.rollout,
                view.current,
                pipeline.waves,
                view.gates.waves,
                view.records,
                now,
            )
            if wanted is None and view.current:
                count_held(view.current, view.records, now)
                if _to_be_warned_of(view, view.current, now):
                    then = now
            if then and then - now <= ahead:
                watched[pipeline.name] = min(max(then - now, timedelta(0)), SOON)
    for kind, parcels in waiting.items():
        for first in range(0, len(parcels), BATCH):
            failures |= _send(aws, queues[kind], parcels[first : first + BATCH])
    delays = list(watched.items())
    for first in range(0, len(delays), BATCH):
        failures |= _ask_to_look(aws, looks, delays[first : first + BATCH])
    return failures


def _to_be_warned_of(view: View, current: Current, now: datetime) -> bool:
    """Whether a target holds something that soon ends, and nobody was told. A wave that a failed
    deployment holds back has nothing else for the watcher to look at."""
    late = behind(current, view.records)
    told = view.rollout is not None and view.rollout.warned_at is not None
    return late is not None and late.soon <= now and not told


def _set_back(store: Store, view: View) -> StateError | None:
    """Somebody deleted current.json or restored an old one: the targets would wait in silence until
    their certificate expires. Records are read before the pointer: no race looks like this."""
    newest = max((record.generation for record in view.records.values()), default=0)
    if view.current is None or newest <= view.current.generation:
        return None
    return StateError(
        f"generation {view.current.generation} is current, and targets have {newest} already: "
        "they get nothing any more",
        where=f"s3://{store.bucket}/{current_key(view.current.pipeline)}",
        next="Restore the object's version with the highest generation",
    )


@dataclass(frozen=True)
class Parcel:
    """A message and where it goes. pipeline: as spelled in keys."""

    pipeline: str
    kind: str
    group: str
    once: str
    body: str


def _parcels(
    view: View, file: Pipelines[Any], pipeline: Pipeline[Any], now: datetime, *, reconcile: bool
) -> Iterator[Parcel]:
    current = view.current
    if current is None:
        return
    steps = plan(view.targets, current, view.records, now, gates=view.gates, reconcile=reconcile)
    keeping = kept(view.targets, current, view.records, view.gates, now, reconcile=reconcile)
    for step in (*steps, *keeping):
        target = step.target
        if not step.ready or target.address in view.unreadable:
            continue
        fields = {"pipeline": pipeline.name, "target": target.address, "action": step.action}
        logger.info("%s", step.reason, extra=fields)
        job = Job(
            pipeline=pipeline.name,
            target=as_job(target),
            account=role_of(target, file.accounts),
            generation=step.generation,
            rotation=pipeline.rotation,
            added=step.action is Action.CREATE and view.done,
        )
        yield Parcel(
            pipeline=spell(pipeline.name),
            kind=target.type,
            group=_group(target.group),
            once=_once(pipeline.name, step, view.records, now),
            body=job.to_json(),
        )


def _group(name: str) -> str:
    """A target's group in the characters and the length that SQS takes."""
    return name if GROUP.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()


def _once(pipeline: str, step: Step, records: Mapping[str, Record], now: datetime) -> str:
    """The deduplication id: the same for as long as nothing was written that changes the job.

    A burst of events sends one job; a record that was written since makes it another one.
    """
    target = step.target
    about = [target, *target.needs]
    written = [records[each.address].at for each in about if each.address in records]
    facts = [
        pipeline,
        target.address,
        step.generation,
        target.spec,
        sorted(step.needs.items()),
        [moment.isoformat() for moment in written],
        now.date().isoformat() if step.action is Action.CHECK else "",
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _send(aws: Aws, queue: str, parcels: Sequence[Parcel]) -> dict[str, CertrailError]:
    """Send one batch. Returns what was not taken, by pipeline: its messages come again."""
    entries: list[Entry] = [
        {
            "Id": str(index),
            "MessageBody": parcel.body,
            "MessageGroupId": parcel.group,
            "MessageDeduplicationId": parcel.once,
        }
        for index, parcel in enumerate(parcels)
    ]
    return _deliver(aws, queue, entries, [parcel.pipeline for parcel in parcels])


def _ask_to_look(
    aws: Aws, queue: str, delays: Sequence[tuple[str, timedelta]]
) -> dict[str, CertrailError]:
    """A message to the watcher for each pipeline, that comes after its delay. A standard queue: a
    FIFO queue has no delay for a single message, and a message too many does no harm."""
    entries: list[Entry] = [
        {
            "Id": str(index),
            "MessageBody": json.dumps({"pipeline": name}),
            # Rounded up: a second too early would be a look for nothing.
            "DelaySeconds": math.ceil(delay.total_seconds()),
        }
        for index, (name, delay) in enumerate(delays)
    ]
    return _deliver(aws, queue, entries, [spell(name) for name, _ in delays])


def _deliver(
    aws: Aws, queue: str, entries: Sequence[Entry], pipelines: Sequence[str]
) -> dict[str, CertrailError]:
    """pipelines: of the entries. Returns what was not taken, by pipeline."""
    try:
        answer = aws.sqs().send_message_batch(QueueUrl=queue, Entries=entries)
    except AwsError as error:
        return dict.fromkeys(pipelines, error)
    return {
        pipelines[int(failed["Id"])]: AwsError(
            f"{failed['Code']}: {failed.get('Message', 'no reason given')}",
            action="sqs:SendMessage",
            code=failed["Code"],
            retryable=not failed["SenderFault"],
        )
        for failed in answer.get("Failed", [])
    }
