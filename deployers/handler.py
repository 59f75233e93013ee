"""A deployer function: one kind, one job at a time.

CERTRAIL_KIND says which kind this function is; it imports that one and no other.
"""

from __future__ import annotations

import importlib
import logging
import os
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

from certrail import log
from certrail.aws import Aws
from certrail.errors import CertrailError
from certrail.messages import LONGEST_WAIT, hold_back
from certrail.records import Record
from certrail.store import Store, record_key
from certrail.target import Target, from_job
from certrail.telling import put_metrics
from deployers.deploy import deploy_target
from deployers.job import Job
from deployers.telling import Telling

logger = logging.getLogger(__name__)

METRIC = "DeploymentsFailed"
# Until somebody else is done. Of the five receives that a queue allows, the last is then after the
# end of any claim.
SOON = timedelta(seconds=90)


def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point of every deployer: messages of its FIFO queue.

    A failure that a retry may cure goes back to the queue, with every message behind it, until the
    next attempt that the target's record names: after 1 and 10 minutes. One that lies later, when
    the hourly schedule sends a new job, and one that needs a person are counted and done with. What
    is no job, and what nobody foresaw, is raised, and ends in the dead-letter queue.
    """
    log.to_lambda()
    kind = kind_named(os.environ["CERTRAIL_KIND"])
    aws = _aws()
    store = Store(os.environ["CERTRAIL_BUCKET"], aws)
    messages = event["Records"]
    for position, message in enumerate(messages):
        job = Job.from_json(message["body"])
        target = from_job(kind, job.target)
        fields = {"pipeline": job.pipeline, "target": target.address}
        began = datetime.now(UTC)
        by = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", kind.__name__)
        tell = partial(Telling(aws, store.bucket, began, by).attempt, added=job.added)
        try:
            outcome = deploy_target(
                store,
                target,
                job.pipeline,
                role=job.account,
                aws=aws,
                now=began,
                rotation=job.rotation,
                generation=job.generation,
                by=by,
                tell=tell,
            )
        except CertrailError as error:
            logger.exception("%s", error, extra=fields)
            if error.retryable and (wait := _wait(store, job, target, began)) <= LONGEST_WAIT:
                behind = messages[position:]
                for each in behind:
                    hold_back(aws, each, wait)
                return {"batchItemFailures": [{"itemIdentifier": m["messageId"]} for m in behind]}
            _count_failure(job.pipeline, target)
        else:
            fields |= {"action": outcome.result, "fingerprint": outcome.fingerprint}
            logger.info("%s", outcome.reason, extra=fields | {"generation": outcome.generation})
    return {"batchItemFailures": []}


@cache
def _aws() -> Aws:
    # Kept while the function is warm: clients take longer to make than most jobs take to do.
    return Aws()


def kind_named(name: str) -> type[Target]:
    """The class of a kind: `deployers.kinds.<name>.<Name>`."""
    kind: type[Target] = getattr(
        importlib.import_module(f"deployers.kinds.{name}"), name.capitalize()
    )
    return kind


def _wait(store: Store, job: Job, target: Target, began: datetime) -> timedelta:
    """Until the attempt that began then is to be repeated."""
    seen = store.read(record_key(job.pipeline, target.address), Record)
    if seen and seen.value.at == began and seen.value.next_attempt:
        return seen.value.next_attempt - datetime.now(UTC)
    # Nothing is written about it: somebody else is at the target, or the bucket did not answer.
    return SOON


def _count_failure(pipeline: str, target: Target) -> None:
    put_metrics(
        datetime.now(UTC),
        {METRIC: (1, "Count")},
        [["kind"]],
        kind=target.type,
        pipeline=pipeline,
        target=target.address,
    )
