"""The issuer's two Lambda functions.

`schedule` finds out what is due and sends one message a pipeline, the most urgent first; `work`
issues for one. What they do when something fails:

- Inside a run, what passes by itself (a busy CA, a lost connection, throttling) is tried again.
- A run that fails writes down why and when to try next: after 1, 10 and 100 minutes, then daily,
  or when the CA said. What needs a person is tried daily, because that person may repair something
  that no event tells of: a zone, a policy. A changed pipelines file is tried at once.
- A run that the CA's limits have no room for is no failure. Its place is reserved, and it waits.
- The message itself comes back for what lies less than an hour ahead: `work` sets its visibility
  to that moment and does not acknowledge it. Until then it holds up its group, which is the
  certificates for the same names. Everything later is left to the schedule, which sends what comes
  before its next look.
- A message that comes twice, or for a certificate that is current, does nothing and asks the CA
  nothing. One whose function was killed comes back when the dead run's lease is over, at most as
  often as the queue's `maxReceiveCount` allows.
- Every failed run counts one `IssuesFailed` in CloudWatch, and is an event. What raises is what
  nobody foresaw.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Protocol

from certrail import log as logs
from certrail.aws import Aws
from certrail.errors import (
    Busy,
    CertrailError,
    NothingPushed,
    OverBudget,
    raise_together,
)
from certrail.messages import hold_back
from certrail.nameservers import parse_servers
from certrail.pipelines.load import load
from certrail.pipelines.model import Opaque
from certrail.pipelines.resolved import Pipelines
from certrail.store import CONFIG_KEY, Store
from issuer import lease, reissue
from issuer.account import Accounts
from issuer.clock import Clock
from issuer.dns.challenges import Dns
from issuer.due import wanted
from issuer.issue import issue
from issuer.reissue import Asked
from issuer.renewal import Renewal
from issuer.survey import AHEAD, Standing, ask_the_cas, most_urgent_first, record, survey
from issuer.telling import Telling

log = logging.getLogger(__name__)

# Left of a function's time for removing records and writing down how it ended.
MARGIN = timedelta(seconds=60)
DONE: dict[str, Any] = {"batchItemFailures": []}


class LambdaContext(Protocol):
    def get_remaining_time_in_millis(self) -> int: ...


def schedule(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Ask the CAs when to renew, tell how every certificate stands, and send one message for each
    pipeline that is due and waits for nothing.

    The event says nothing that the bucket does not. Returns {"due": {pipeline: reason}}.
    """
    logs.to_lambda()
    aws, store = _aws(), _store()
    try:
        file = _pipelines(store)
    except NothingPushed as error:
        # The state of every new stack, and no reason to wake anybody.
        log.info("nothing to do: %s", error)
        return {"due": {}}
    clock = _clock(context)
    failures: list[CertrailError] = []
    # One broken document is no reason to let anything expire that it is not about.
    asked: Mapping[str, Asked] = {}
    try:
        asked = reissue.read(store).asked
    except CertrailError as error:
        failures.append(error)
    standings = survey(store, file.pipelines, asked)
    failures += [each.error for each in standings if each.error]
    readable = [each for each in standings if not each.error]
    looked_at, unwritten = ask_the_cas(store, readable, clock)
    failures += unwritten
    sent: dict[str, str] = {}
    for standing in most_urgent_first(looked_at, clock.now()):
        try:
            sent[standing.pipeline.name] = _send(aws, standing, clock.now())
        except CertrailError as error:
            failures.append(error)
    # After the sending: to be told of a risk is worth less than the renewal.
    for standing in looked_at:
        try:
            _tell(aws, store, standing, clock.now())
        except CertrailError as error:
            failures.append(error)
    raise_together("not every pipeline could be looked at", failures)
    return {"due": sent}


def work(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Issue for the pipeline of the one message of the event.

    Returns which messages are not acknowledged, as `ReportBatchItemFailures` wants it
    (docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html).
    """
    logs.to_lambda()
    (message,) = event["Records"]
    name = json.loads(message["body"])["pipeline"]
    about = {"pipeline": name}
    aws, store = _aws(), _store()
    # Should this function be killed, the message comes back when its lease is over, not when the
    # queue's visibility timeout is.
    try:
        hold_back(aws, message, left(context) + MARGIN)
    except CertrailError as error:
        log.warning("a killed run would be followed late: %s", error, extra=about)
    file = _pipelines(store)
    pipeline = file.named(name)
    if pipeline is None:
        log.info("nothing to do: the pipelines file has it no more", extra=about)
        return DONE
    (standing,) = survey(store, [pipeline], reissue.wishes(store))
    if standing.error:
        raise standing.error
    now = datetime.now(UTC)
    reason, progress = standing.due(now), standing.progress
    if reason is None or (progress and progress.held(now)):
        log.info("nothing to do", extra=about)
        return DONE
    if progress and standing.waits(now, reason):
        log.info("nothing to do before the next attempt", extra=about)
        return _come_back(aws, message, progress.next_attempt)
    telling = Telling(aws, store.bucket, datetime.now(UTC))
    try:
        issue(
            pipeline,
            store,
            _dns(aws, file),
            _clock(context),
            _accounts(),
            telling,
            asked=standing.asked,
        )
    except Busy as busy:
        log.info("nothing to do: %s", busy, extra=about)
    except OverBudget as full:
        log.info("waiting: %s", full, extra=about)
        return _come_back(aws, message, full.retry_at)
    except CertrailError as error:
        log.exception("no certificate", extra=about)
        progress = lease.read(store, name)
        next_attempt = progress.next_attempt if progress else None
        telling.failed(name, error, next_attempt)
        return _come_back(aws, message, next_attempt if error.retryable else None)
    return DONE


def _come_back(aws: Aws, message: dict[str, Any], at: datetime | None) -> dict[str, Any]:
    """See the message again at that moment, where the schedule would be too late."""
    wait = at - datetime.now(UTC) if at else None
    if wait is None or wait > AHEAD:
        return DONE
    hold_back(aws, message, wait)
    return {"batchItemFailures": [{"itemIdentifier": message["messageId"]}]}


def _send(aws: Aws, standing: Standing, now: datetime) -> str:
    reason = standing.due(now)
    assert reason is not None  # noqa: S101  chosen for it
    aws.sqs().send_message(
        QueueUrl=os.environ["CERTRAIL_ISSUE_QUEUE"],
        MessageBody=json.dumps({"pipeline": standing.pipeline.name}),
        MessageGroupId=_group(standing),
        MessageDeduplicationId=_deduplication(standing),
    )
    log.info("due: %s", reason.text, extra={"pipeline": standing.pipeline.name})
    return reason.text


def _tell(aws: Aws, store: Store, standing: Standing, now: datetime) -> None:
    current, when = standing.current, standing.window
    if current is None or when is None:
        return
    telling = Telling(aws, store.bucket, now)
    telling.standing(current, when)
    known = standing.known
    if now > when.end and not (known and known.told_at_risk):
        progress = standing.progress
        untold = (
            "nothing newer came in" if standing.pipeline.incoming else "no run was finished yet"
        )
        why = (progress and (progress.error or progress.waits_for)) or untold
        if telling.at_risk(current, when, why):
            told = replace(known or Renewal(current.fingerprint), told_at_risk=True)
            record(store, standing, told)


@cache
def _aws() -> Aws:
    return Aws()


@cache
def _store() -> Store:
    return Store(os.environ["CERTRAIL_BUCKET"], _aws())


@cache
def _accounts() -> Accounts:
    return Accounts(_store(), _aws())


def _dns(aws: Aws, file: Pipelines[Opaque]) -> Dns:
    # A new one each time: it remembers the zones it has listed and the roles it has assumed.
    servers = os.environ.get("CERTRAIL_NAMESERVERS")
    return Dns(aws, file.zones, file.accounts, parse_servers(servers) if servers else None)


def left(context: LambdaContext) -> timedelta:
    return timedelta(milliseconds=context.get_remaining_time_in_millis())


def _clock(context: LambdaContext) -> Clock:
    return Clock(lambda: datetime.now(UTC), time.sleep, datetime.now(UTC) + left(context) - MARGIN)


def _pipelines(store: Store) -> Pipelines[Opaque]:
    return load(store.pipelines_text(), CONFIG_KEY, Pipelines[Opaque])


def _group(standing: Standing) -> str:
    """Certificates for the same names are issued one after the other: a CA may hand the same order
    to both, and to it belongs one key."""
    return _digest(sorted(set(standing.pipeline.domains)))


def _deduplication(standing: Standing) -> str:
    """SQS drops a second message with this id for five minutes. Asked twice for the same thing it
    is the same; a change of the file, a new certificate or a failure since makes it another."""
    current, progress = standing.current, standing.progress
    return _digest(
        [
            standing.pipeline.name,
            wanted(standing.pipeline),
            current.fingerprint if current else None,
            progress.attempts if progress else 0,
            standing.asked.generation if standing.asked else None,
        ]
    )


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
