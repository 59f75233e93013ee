"""The issuer's two Lambda functions.

`schedule` finds out what is due and sends one message a pipeline; `work` issues for one. What they
do when something fails:

- Inside a run, what passes by itself (a busy CA, a lost connection, throttling) is tried again.
- A run that fails writes down why and when to try next: after 1, 10 and 100 minutes, then daily,
  or when the CA said. What needs a person is tried daily, because that person may repair something
  that no event tells of: a zone, a policy. A changed pipelines file is tried at once.
- The message itself comes back only for the tries after 1 and 10 minutes: `work` sets its
  visibility to that moment and raises. Until then it holds up its group, and so its pipeline only.
  Everything later is left to the schedule, and the message is acknowledged.
- A message that comes back too early, or twice, or for a certificate that is current, does nothing
  and asks the CA nothing. One whose function died comes back after the queue's visibility timeout,
  when the dead run's lease is over, at most as often as the queue's `maxReceiveCount` allows.
- Every failed run counts one `IssuesFailed` in CloudWatch, whether it raises or not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Protocol

from certrail import log as logs
from certrail.aws import Aws
from certrail.errors import Busy, CertrailError, NothingPushed, raise_together
from certrail.messages import LONGEST_WAIT, hold_back
from certrail.pipelines.load import load
from certrail.pipelines.model import Opaque, Pipeline, Pipelines
from certrail.store import CONFIG_KEY, Current, Store, spell
from issuer import lease
from issuer.clock import Clock
from issuer.dns.authoritative import parse_servers
from issuer.dns.route53 import Route53
from issuer.due import due, waits, wanted
from issuer.issue import issue

log = logging.getLogger(__name__)

# Left of the function's time for removing records and writing down how it ended.
MARGIN = timedelta(seconds=60)


class LambdaContext(Protocol):
    def get_remaining_time_in_millis(self) -> int: ...


def schedule(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Send one message for each pipeline that is due and not waiting for its next attempt.

    The event says nothing that the bucket does not. Returns {"due": {pipeline: reason}}.
    """
    logs.to_lambda()
    aws, store = _aws(), _store()
    now = datetime.now(UTC)
    sent: dict[str, str] = {}
    failures: list[CertrailError] = []
    try:
        file = _pipelines(store)
    except NothingPushed as error:
        # The state of every new stack, and no reason to wake anybody.
        log.info("nothing to do: %s", error)
        return {"due": {}}
    for pipeline in file.pipelines:
        try:
            current = store.current(pipeline.name)
            progress = lease.read(store, pipeline.name)
            reason = due(pipeline, current, now)
            if reason is None or waits(pipeline, progress, now):
                continue
            aws.sqs().send_message(
                QueueUrl=os.environ["CERTRAIL_ISSUE_QUEUE"],
                MessageBody=json.dumps({"pipeline": pipeline.name}),
                MessageGroupId=spell(pipeline.name),
                MessageDeduplicationId=_deduplication(pipeline, current, progress),
            )
        except CertrailError as error:
            # One pipeline's broken document is no reason to let the others expire.
            failures.append(error)
            continue
        sent[pipeline.name] = reason.text
        log.info("due: %s", reason.text, extra={"pipeline": pipeline.name})
    raise_together("not every pipeline could be looked at", failures)
    return {"due": sent}


def work(event: dict[str, Any], context: LambdaContext) -> None:
    """Issue for the pipeline of the one message of the event."""
    logs.to_lambda()
    (message,) = event["Records"]
    name = json.loads(message["body"])["pipeline"]
    about = {"pipeline": name}
    aws, store = _aws(), _store()
    pipeline = _pipelines(store).named(name)
    if pipeline is None:
        log.info("nothing to do: the pipelines file has it no more", extra=about)
        return
    if waits(pipeline, lease.read(store, name), datetime.now(UTC)):
        log.info("nothing to do before the next attempt", extra=about)
        return
    remaining = timedelta(milliseconds=context.get_remaining_time_in_millis())
    clock = Clock(lambda: datetime.now(UTC), time.sleep, datetime.now(UTC) + remaining - MARGIN)
    try:
        issue(pipeline, store, _dns(aws), clock)
    except Busy as busy:
        log.info("nothing to do: %s", busy, extra=about)
    except CertrailError as error:
        log.exception("no certificate", extra=about)
        _count_failure(name)
        progress = lease.read(store, name)
        if not error.retryable or progress is None or progress.next_attempt is None:
            return
        wait = progress.next_attempt - datetime.now(UTC)
        if wait > LONGEST_WAIT:
            return
        hold_back(aws, message, wait)
        raise


@cache
def _aws() -> Aws:
    return Aws()


@cache
def _store() -> Store:
    return Store(os.environ["CERTRAIL_BUCKET"], _aws())


def _dns(aws: Aws) -> Route53:
    # A new one each time: it remembers the zones it has listed.
    servers = os.environ.get("CERTRAIL_NAMESERVERS")
    return Route53(aws, parse_servers(servers) if servers else None)


def _pipelines(store: Store) -> Pipelines[Opaque]:
    return load(store.pipelines_text(), CONFIG_KEY, Pipelines[Opaque])


def _deduplication(
    pipeline: Pipeline[Any], current: Current | None, progress: lease.Progress | None
) -> str:
    """SQS drops a second message with this id for five minutes. Asked twice for the same thing it
    is the same; a change of the file, a new certificate or a failure since makes it another."""
    state = [
        pipeline.name,
        wanted(pipeline),
        current.fingerprint if current else None,
        progress.attempts if progress else 0,
    ]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _count_failure(pipeline: str) -> None:
    """A metric as a log line: in all, for the alarm, and by pipeline
    (docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
    """
    metric = {
        "_aws": {
            "Timestamp": int(time.time() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": "certrail",
                    "Dimensions": [[], ["Pipeline"]],
                    "Metrics": [{"Name": "IssuesFailed", "Unit": "Count"}],
                }
            ],
        },
        "Pipeline": pipeline,
        "IssuesFailed": 1,
    }
    sys.stdout.write(json.dumps(metric) + "\n")
    sys.stdout.flush()
