"""The Lambda function that takes in what somebody else issued.

An event says only where to look: an object under `incoming/`, a certificate of ACM, a new pipelines
file. Once an hour everything is looked at, so one that is late, doubled or lost does no harm, and
files that never became a bundle are told of.

What went wrong stands in `orders/<pipeline>.json`, counts one `IssuesFailed`, and is an event, as
where issuing fails. A message comes back only for what may pass by itself.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import unquote

from certrail import log as logs
from certrail.aws import Aws
from certrail.errors import Busy, CertrailError, Incomplete, NothingPushed, raise_together
from certrail.pipelines.load import load
from certrail.pipelines.model import Opaque
from certrail.pipelines.resolved import Pipeline, Pipelines
from certrail.store import CONFIG_KEY, Store, incoming_prefix
from issuer import lease
from issuer.clock import Clock
from issuer.handler import MARGIN, LambdaContext, left
from issuer.incoming import receive
from issuer.telling import Telling

log = logging.getLogger(__name__)


def handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Lambda entry point: a batch of events from the receiver's queue, or a schedule's, `{}`.

    Returns which messages are not acknowledged, as `ReportBatchItemFailures` wants it. Raises, from
    a schedule, what may pass by itself.
    """
    logs.to_lambda()
    aws = _aws()
    store = Store(os.environ["CERTRAIL_BUCKET"], aws)
    try:
        file = load(store.pipelines_text(), CONFIG_KEY, Pipelines[Opaque])
    except NothingPushed as error:
        # The state of every new stack, and no reason to wake anybody.
        log.info("nothing to do: %s", error)
        return {}
    about = {record["messageId"]: told_of(record["body"]) for record in event.get("Records", ())}
    foreign = [each for each in file.pipelines if each.incoming is not None]
    meant = [each for each in foreign if not about or _is_meant(each, about.values())]
    for place in about.values():
        if place and place != CONFIG_KEY and not _who_is_meant(foreign, place):
            log.warning("no pipeline of the file takes this in: %s", place)
    clock = Clock(lambda: datetime.now(UTC), time.sleep, datetime.now(UTC) + left(context) - MARGIN)
    ended = {each.name: _received(each, store, aws, clock) for each in meant}
    passing = {name: why for name, why in ended.items() if why and why.retryable}
    if not about:
        # Where another run is at it, all that came before has a message of its own.
        lasting = [error for error in passing.values() if not isinstance(error, Busy)]
        raise_together("not everything could be taken in", lasting)
        return {}
    return {
        "batchItemFailures": [
            {"itemIdentifier": message}
            for message, place in about.items()
            if passing.keys() & {each.name for each in _who_is_meant(foreign, place)}
        ]
    }


def _received(
    pipeline: Pipeline[Any], store: Store, aws: Aws, clock: Clock
) -> CertrailError | None:
    """Why nothing was taken in, where that is a failure."""
    about = {"pipeline": pipeline.name}
    telling = Telling(aws, store.bucket, clock.now())
    try:
        receive(pipeline, store, aws, clock, telling)
    except Incomplete as waits:
        log.info("waiting: %s", waits, extra=about)
    except Busy as busy:
        log.info("waiting: %s", busy, extra=about)
        return busy
    except CertrailError as error:
        log.exception("not taken in", extra=about)
        progress = lease.read(store, pipeline.name)
        telling.failed(pipeline.name, error, progress.next_attempt if progress else None)
        return error
    return None


def told_of(body: str) -> str:
    """What an event is about: the key of an object, or the ARN of a certificate; empty where it is
    no event of ours."""
    try:
        event = json.loads(body)
        if event["source"] == "aws.acm":
            return str(event["resources"][0])
        return unquote(event["detail"]["object"]["key"])
    except (ValueError, KeyError, TypeError, IndexError):
        log.info("a message that is no event of ours was put aside")
        return ""


def _is_meant(pipeline: Pipeline[Any], places: Iterable[str]) -> bool:
    arn = pipeline.incoming.certificate_arn if pipeline.incoming else None
    folder = incoming_prefix(pipeline.name)
    return any(place in {arn, CONFIG_KEY} or place.startswith(folder) for place in places)


def _who_is_meant(pipelines: Iterable[Pipeline[Any]], place: str) -> list[Pipeline[Any]]:
    return [each for each in pipelines if _is_meant(each, [place])]


@cache
def _aws() -> Aws:
    return Aws()
