"""The watcher: looks at what clients get, and lets the next wave begin, or goes back.

A message names a pipeline and is a hint: what is to be done comes from the state. Nothing waits
here. What is to be looked at later is written into the state; that write wakes the router, and it
sends a message that comes when its time is there.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Protocol

from certrail import log
from certrail.aws import Aws
from certrail.bundle import split
from certrail.errors import CertrailError, Superseded
from certrail.pipelines import Account, Pipeline, Pipelines, load
from certrail.pipelines.authorities import authority
from certrail.records import Record, Rollout, State
from certrail.store import (
    CONFIG_KEY,
    Current,
    Rollback,
    Store,
    current_key,
    record_key,
    rollout_key,
)
from certrail.target import Target, with_needs
from deployers.alarms import read as read_alarms
from deployers.deploy import nodes_of
from deployers.held import Behind, behind
from deployers.job import role_of
from deployers.judge import Alarm, GoBack, WayBack, came_before_rollouts, judged
from deployers.kinds.all import AnyTarget
from deployers.looks import asked, is_due, looked, not_asked
from deployers.reached import Reached, reached
from deployers.rollback import automatic, longest_propagation, roll_back
from deployers.rollout import at_once, gates, plan
from deployers.telling import Telling, news
from deployers.verify import Network, Wanted, look
from deployers.view import READERS, View, look_at

logger = logging.getLogger(__name__)

# Of the function's time: so long all connections of one pipeline may take, and so much is left for
# the writes after them.
PATIENCE = timedelta(seconds=60)
MARGIN = timedelta(seconds=20)


class LambdaContext(Protocol):
    def get_remaining_time_in_millis(self) -> int: ...


class Tells(Protocol):
    """Told after it was written down; who is killed in between tells nothing."""

    def done(self, rollout: Rollout, before: str | None, there: Reached) -> None:
        """The last wave has passed. before: fingerprint of what was current before. there: of all
        targets."""

    def wave_passed(self, rollout: Rollout, wave: str, there: Reached) -> None:
        """One that has a name, and is not the last. there: of its targets."""

    def rolled_back(self, rollout: Rollout, why: Rollback) -> None:
        """By whomever. rollout: of the generation that is the way back."""

    def waits(self, rollout: Rollout, wave: str) -> None:
        """A wave does not begin, `rollout.waits_for` says why."""

    def rollout_failed(self, rollout: Rollout) -> None:
        """It goes no further, `rollout.failed` says why."""

    def at_risk(self, rollout: Rollout, late: Behind, why: str) -> None:
        """What a target still holds soon ends. why: the current one has not come to it."""

    def check_failed(self, record: Record) -> None:
        """A target's clients do not get it, `record.error` says what they get."""

    def recovered(self, record: Record) -> None:
        """Clients get it after all."""


@dataclass(frozen=True)
class Watcher:
    """now: aware, UTC. by: who it is, for what it writes."""

    store: Store
    aws: Aws
    way: Network
    tells: Tells
    by: str
    now: Callable[[], datetime]

    def watch(
        self, pipeline: Pipeline[Any], accounts: Mapping[str, Account], patience: timedelta
    ) -> None:
        """Do what is due for one pipeline. patience: for all connections. Raises StateError,
        AwsError; what was written until then stands."""
        began = self.now()
        with ThreadPoolExecutor(READERS) as readers:
            view = look_at(self.store, pipeline, readers)
            if view.current is None or not view.targets:
                return
            records = self._look(view, view.current, pipeline, accounts, patience, readers, began)
        self._judge(view, view.current, records, pipeline, accounts, began)

    # Looks

    def _look(
        self,
        view: View,
        current: Current,
        pipeline: Pipeline[Any],
        accounts: Mapping[str, Account],
        patience: timedelta,
        readers: ThreadPoolExecutor,
        began: datetime,
    ) -> dict[str, Record]:
        """The records, with those that were due looked at."""
        due = [each for each in view.records.values() if is_due(each, current, began)]
        if not due:
            return dict(view.records)
        wanted = Wanted(
            current.fingerprint, current.facts.key_type, self._anchors(current, pipeline)
        )
        targets = with_needs(view.targets)
        endpoints = {each.address: each.held.endpoints for each in due if each.held}
        seen = look(
            (each for there in endpoints.values() for each in there), wanted, self.way, patience
        )

        def written(record: Record) -> Record:
            if record.held and record.held.nodes:
                return self._write(
                    record, self._asked(record, targets[record.address], accounts, began)
                )
            there = {each: seen[each] for each in endpoints.get(record.address, ())}
            return self._write(record, looked(record, current.previous, there, began))

        after = list(readers.map(written, due))
        return {**view.records, **{each.address: each for each in after}}

    def _asked(
        self,
        record: Record,
        target: Target,
        accounts: Mapping[str, Account],
        began: datetime,
    ) -> Record:
        """What the target's machines say. One that cannot be asked is not its neighbours' fault."""
        role = role_of(target, accounts)
        try:
            nodes = nodes_of(self.store, target, record.pipeline, record, role=role, aws=self.aws)
        except CertrailError as error:
            return not_asked(record, str(error), began)
        return asked(record, nodes, target.tolerated(len(nodes)), began)

    def _anchors(self, current: Current, pipeline: Pipeline[Any]) -> str | None:
        """What the chain must lead to: the root that the file gives the issuer; where nobody trusts
        the CA, the end of the chain that was published; else the system's roots."""
        issued = current.issued
        if pipeline.incoming is not None:
            return pipeline.incoming.trust
        same = [each for each in pipeline.issuers if each.directory == issued.directory]
        trust = next((each.trust for each in same if each.name == issued.issuer), None)
        trust = trust or next((each.trust for each in same if each.trust), None)
        if trust or authority(None, issued.directory).trusted:
            return trust
        return next(reversed(split(self.store.chain(current))), None)

    def _write(self, before: Record, after: Record) -> Record:
        """The record as it is then: where somebody wrote it meanwhile, as he did."""
        key = record_key(before.pipeline, before.address)
        there = self.store.read(key, Record)
        if there is None or there.value != before:
            return there.value if there else before
        try:
            self.store.write(key, after, Record, there.etag)
        except Superseded as error:
            logger.info("%s", error)
            return before
        if before.missed and after.state is State.SERVED:
            self.tells.recovered(after)
        elif before.state is not State.FAILED and after.state is State.FAILED:
            self.tells.check_failed(after)
        return after

    # Waves

    def _judge(
        self,
        view: View,
        current: Current,
        records: Mapping[str, Record],
        pipeline: Pipeline[Any],
        accounts: Mapping[str, Account],
        began: datetime,
    ) -> None:
        key = rollout_key(pipeline.name)
        there = self.store.read(key, Rollout)
        before = there.value if there else None

        def way_back(fingerprint: str) -> WayBack:
            propagation = longest_propagation(view.targets)
            return automatic(self.store, current, fingerprint, propagation, self.now())

        judgement = judged(
            before,
            current,
            pipeline.waves,
            view.gates.waves,
            records,
            self._alarms(before, current, pipeline, accounts),
            way_back,
            began,
        )
        late = behind(current, records)
        if late and late.soon > began:
            late = None
        after = _with_its_times(before, judgement.rollout, late, began)
        if judgement.back is not None:
            self._go_back(current, judgement.back)
        elif before is None or replace(after, at=before.at) != before:
            try:
                self.store.write(
                    key, replace(after, at=began), Rollout, there.etag if there else None
                )
            except Superseded as error:
                logger.info("%s", error)
            else:
                if before or not came_before_rollouts(current, view.gates.waves, records):
                    self._tell(before, after, view, current, records, pipeline)
                if late and after.warned_at == began:
                    why = self._why(late, view, after, current, records, pipeline)
                    self.tells.at_risk(after, late, why)

    def _alarms(
        self,
        rollout: Rollout | None,
        current: Current,
        pipeline: Pipeline[Any],
        accounts: Mapping[str, Account],
    ) -> dict[str, Alarm]:
        """Those of the waves that are still to pass."""
        passed, since = 0, None
        if rollout and rollout.generation == current.generation:
            passed = len(pipeline.waves) if rollout.done_at else rollout.passed
            # Once it has failed over one that rang, that one is only to be quiet.
            since = None if rollout.failed else rollout.began_at
        if at_once(current, rollout):
            return {}
        names = [name for wave in pipeline.waves[passed:] for name in wave.alarms]
        return read_alarms(names, accounts, self.aws, since)

    def _go_back(self, current: Current, back: GoBack) -> None:
        after = self.store.read(current_key(current.pipeline), Current)
        if after is None or after.value != current:
            return
        about = {"pipeline": current.pipeline, "fingerprint": current.fingerprint}
        try:
            roll_back(self.store, after, back.to, back.why, self.by, self.now())
        except Superseded as error:
            # Another run was quicker, or a new certificate was published.
            logger.info("%s", error, extra=about)
        else:
            logger.error("rolled back: %s", back.why, extra=about)

    def _tell(
        self,
        before: Rollout | None,
        after: Rollout,
        view: View,
        current: Current,
        records: Mapping[str, Record],
        pipeline: Pipeline[Any],
    ) -> None:
        new = before is None or before.generation != after.generation
        if new and current.rollback:
            self.tells.rolled_back(after, current.rollback)
        stopped_before = None if new or before is None else before.failed
        if after.failed and news(stopped_before, after.failed):
            self.tells.rollout_failed(after)
        waited = None if new or before is None else before.waits_since
        if after.waits_since and after.waits_since != waited and not after.failed:
            self.tells.waits(after, pipeline.waves[after.passed].name)
        passed = 0 if new or before is None else before.passed
        # An import that the file does not name is seen by who uses it.
        targets = [each.address for each in view.targets]
        for number in range(passed, after.passed) if not at_once(current, after) else ():
            wave = pipeline.waves[number]
            if after.done_at is None and wave.name:
                members = [each for each in targets if view.gates.waves[each] == number]
                self.tells.wave_passed(after, wave.name, reached(members, records, current))
        if after.done_at and (new or before is None or not before.done_at):
            self.tells.done(after, current.previous, reached(targets, records, current))

    def _why(
        self,
        late: Behind,
        view: View,
        rollout: Rollout,
        current: Current,
        records: Mapping[str, Record],
        pipeline: Pipeline[Any],
    ) -> str:
        """Why the current certificate has not come to this target."""
        if rollout.failed or rollout.waits_for:
            return rollout.failed or rollout.waits_for or ""
        closed = gates(pipeline.waves, view.targets, current, rollout)
        steps = plan(view.targets, current, records, self.now(), gates=closed)
        return next(each.reason for each in steps if each.target.address == late.record.address)


def _with_its_times(
    before: Rollout | None, after: Rollout, late: Behind | None, now: datetime
) -> Rollout:
    """late: what soon ends. Since when a wave waits, and when it was told that something soon ends,
    is written down, so that it is told once."""
    if before is None or before.generation != after.generation:
        before = None
    waited = before.waits_since if before and before.passed == after.passed else None
    warned = before.warned_at if before else None
    waits = after.waits_for is not None and after.done_at is None
    return replace(
        after,
        waits_since=(waited or now) if waits else None,
        warned_at=(warned or now) if late else None,
    )


# The function


def handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Lambda entry point: messages of the watch queue, each `{"pipeline": name}`. What failed comes
    back, and in the end lies in the dead-letter queue, which has an alarm."""
    log.to_lambda()
    aws = _aws()
    store = Store(os.environ["CERTRAIL_BUCKET"], aws)
    wanted: dict[str, list[str]] = {}
    for message in event["Records"]:
        wanted.setdefault(json.loads(message["body"])["pipeline"], []).append(message["messageId"])
    file = load(store.pipelines_text(), CONFIG_KEY, Pipelines[AnyTarget])
    by = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "watcher")
    telling = Telling(aws, store.bucket, datetime.now(UTC), by)
    watcher = Watcher(
        store, aws, Network.from_environment(), telling, by, lambda: datetime.now(UTC)
    )
    failures: list[str] = []
    for name, messages in wanted.items():
        pipeline = file.named(name)
        if pipeline is None:
            # Removed from the file since.
            continue
        left = timedelta(milliseconds=context.get_remaining_time_in_millis()) - MARGIN
        if left <= timedelta(0):
            failures += messages
            continue
        try:
            watcher.watch(pipeline, file.accounts, min(left, PATIENCE))
        except CertrailError as error:
            logger.exception("%s", error, extra={"pipeline": name})
            failures += messages
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failures]}


@cache
def _aws() -> Aws:
    # Kept while the function is warm: clients take longer to make than most looks take.
    return Aws()
