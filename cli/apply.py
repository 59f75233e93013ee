"""`certrail apply`: the plan carried out from here, without any Lambda function."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from certrail.errors import Busy, CertrailError
from certrail.pipelines import Pipeline, Pipelines
from certrail.records import Found, Record, Rollout, State
from certrail.store import Rollback
from certrail.target import Target
from cli.workspace import Workspace, clock_here, find_for, issue_here
from deployers.deploy import Result, deploy_target
from deployers.finder import Findings, keep
from deployers.held import Behind
from deployers.job import role_of
from deployers.judge import attention
from deployers.kinds.all import AnyTarget
from deployers.reached import Reached
from deployers.rollout import Step, plan
from deployers.verify import Network
from deployers.view import READERS, View, look_at
from deployers.watcher import Watcher
from issuer.clock import Clock

logger = logging.getLogger(__name__)

# How long `apply` lets one certificate take, and all connections of one pipeline.
PATIENCE = timedelta(minutes=15)
LOOK_PATIENCE = timedelta(minutes=1)


@dataclass(frozen=True)
class Outcome:
    """How one step of `apply` ended. what: the certificate, a selection, or a target's address.
    note: what is left to be done."""

    pipeline: str
    what: str
    result: str
    fingerprint: str | None
    error: CertrailError | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "what": self.what,
            "result": self.result,
            "fingerprint": self.fingerprint,
            "error": str(self.error) if self.error else None,
            "note": self.note,
        }


def apply(
    workspace: Workspace,
    names: Sequence[str] | None,
    patience: timedelta,
    tell: Callable[[str], None],
) -> list[Outcome]:
    """Issue what is due, deploy what is not deployed, and see that clients get it, from here. A
    failure stops what depends on it and nothing else.

    patience: how long to wait, for each pipeline, until clients get it and the next wave begins;
    the rest is for the Lambda functions, or for the next `apply`.
    """
    file = workspace.local()
    by = f"certrail apply, {workspace.aws.caller()}"
    outcomes: list[Outcome] = []
    chosen = workspace.chosen(file, names)
    now = datetime.now(UTC)
    findings = find_for(workspace, file, chosen, now)
    lost = {**findings.failures, **keep(workspace.store, findings, now)}
    for pipeline in chosen:
        begun = [*_selections(pipeline, findings, lost), _issue(workspace, file, pipeline)]
        for outcome in begun:
            tell(_line(outcome))
        outcomes += begun
        found = findings.of(pipeline.name)
        with ThreadPoolExecutor(READERS) as readers:
            run = _Run(workspace, file, pipeline, found, readers, clock_here(patience), by)
            for outcome in run.deploy():
                tell(_line(outcome))
            outcomes += run.outcomes.values()
    return outcomes


def _line(outcome: Outcome) -> str:
    note = f" ({outcome.note})" if outcome.note else ""
    return f"{outcome.pipeline}: {outcome.what}: {outcome.error or outcome.result}{note}"


def _selections(
    pipeline: Pipeline[AnyTarget], findings: Findings, lost: Mapping[str, CertrailError]
) -> Iterator[Outcome]:
    """What went wrong with them."""
    name = pipeline.name
    if name in lost:
        yield Outcome(name, "selections", "failed", None, lost[name])
    for followed in findings.followed.get(name, ()):
        for wrong in followed.errors:
            yield Outcome(name, str(followed.selection), "failed", None, wrong)


def _issue(
    workspace: Workspace, file: Pipelines[AnyTarget], pipeline: Pipeline[AnyTarget]
) -> Outcome:
    name = pipeline.name
    try:
        issued = issue_here(workspace, file, pipeline, PATIENCE)
        current = issued or workspace.store.current(name)
    except CertrailError as error:
        # What was published before can still be deployed.
        return Outcome(name, "certificate", "failed", None, error)
    fingerprint = current.fingerprint if current else None
    return Outcome(name, "certificate", "issued" if issued else "unchanged", fingerprint)


class _Run:
    """One pipeline's targets. outcomes: by address, in the order of the plan."""

    def __init__(
        self,
        workspace: Workspace,
        file: Pipelines[AnyTarget],
        pipeline: Pipeline[AnyTarget],
        found: Found | None,
        readers: ThreadPoolExecutor,
        clock: Clock,
        by: str,
    ) -> None:
        self._workspace = workspace
        self._file = file
        self._pipeline = pipeline
        self._found = found
        self._by = by
        self._readers = readers
        self._clock = clock
        self._done: set[tuple[int, str]] = set()
        self.outcomes: dict[str, Outcome] = {}

    def deploy(self) -> Iterator[Outcome]:
        """Yields what happens, as it happens."""
        watcher = Watcher(
            self._workspace.store,
            self._workspace.aws,
            Network.from_environment(),
            Logs(),
            self._by,
            lambda: datetime.now(UTC),
        )
        while True:
            try:
                view = self._view()
                while ready := [step for step in self._steps(view) if self._is_ready(view, step)]:
                    for step in ready:
                        yield self._deployed(view, step.target)
                    view = self._view()
                yield from self._what_waits(view)
                watcher.watch(self._pipeline, self._file.accounts, LOOK_PATIENCE)
                view = self._view()
            except CertrailError as error:
                failed = Outcome(self._pipeline.name, "targets", "failed", None, error)
                self.outcomes["targets"] = failed
                yield failed
                return
            yield from self._what_is_seen(view)
            if any(self._is_ready(view, step) for step in self._steps(view)):
                continue
            wait = self._wait(view)
            if wait is None:
                return
            self._clock.sleep(wait)

    def _view(self) -> View:
        return look_at(self._workspace.store, self._pipeline, self._readers, self._found)

    def _steps(self, view: View) -> list[Step]:
        now = datetime.now(UTC)
        return plan(view.targets, view.current, view.records, now, gates=view.gates, reconcile=True)

    def _is_ready(self, view: View, step: Step) -> bool:
        generation = view.current.generation if view.current else 0
        return step.ready and (generation, step.target.address) not in self._done

    def _deployed(self, view: View, target: Target) -> Outcome:
        name, address = self._pipeline.name, target.address
        assert view.current  # noqa: S101 (or nothing would be ready)
        self._done.add((view.current.generation, address))
        try:
            done = deploy_target(
                self._workspace.store,
                target,
                name,
                role=role_of(target, self._file.accounts),
                aws=self._workspace.aws,
                now=datetime.now(UTC),
                rotation=self._pipeline.rotation,
                generation=view.current.generation,
                by=self._by,
            )
        except CertrailError as error:
            outcome = Outcome(name, address, "failed", None, error)
        else:
            waiting = done.result is Result.WAITING
            outcome = Outcome(
                name,
                address,
                str(done.result),
                done.fingerprint or None,
                Busy(done.reason, where=address) if waiting else None,
            )
        self.outcomes[address] = outcome
        return outcome

    def _what_waits(self, view: View) -> Iterator[Outcome]:
        """For its wave, which is no failure, or for what failed."""
        for step in self._steps(view):
            address = step.target.address
            if step.ready or address in self.outcomes:
                continue
            record = view.records.get(address)
            closed = view.gates.closed_to(address, record) and not view.gates.stopped
            error = None if closed else Busy(step.reason, where=address)
            note = step.reason if closed else ""
            outcome = Outcome(self._pipeline.name, address, "waiting", None, error, note)
            self.outcomes[address] = outcome
            yield outcome

    def _what_is_seen(self, view: View) -> Iterator[Outcome]:
        for address, before in list(self.outcomes.items()):
            record = view.records.get(address)
            if record is None or record.check is None or before.error:
                continue
            if record.state is State.FAILED and record.check.failed:
                after = replace(
                    before, result="failed", error=CertrailError(record.error or ""), note=""
                )
            elif before.result != Result.DEPLOYED:
                continue
            elif record.state is State.SERVED:
                after = replace(before, result=str(State.SERVED), note="")
            else:
                after = replace(before, note=f"not served yet: {record.check.saw}")
            if after != before:
                self.outcomes[address] = after
                yield after

    def _wait(self, view: View) -> float | None:
        """Seconds until something may have changed; None where nobody waits for it here."""
        pending = [
            record.check
            for record in view.records.values()
            if record.check and record.state is State.DEPLOYED
        ]
        if pending and not any(check.reached for check in pending):
            # It will not be reached from here in a minute either.
            return None
        if view.rollout is None or view.rollout.done_at or view.rollout.failed:
            return None
        waves, numbers = self._pipeline.waves, view.gates.waves
        now = datetime.now(UTC)
        then = attention(view.rollout, view.current, waves, numbers, view.records, now)
        if then is None or then > self._clock.deadline:
            return None
        return max(1.0, (then - now).total_seconds())


class Logs:
    """Says in the log what the watcher tells: nobody else is to hear of what you see."""

    def done(self, rollout: Rollout, before: str | None, there: Reached) -> None:
        logger.info("%s", there, extra=_about(rollout))

    def wave_passed(self, rollout: Rollout, wave: str, there: Reached) -> None:
        logger.info("wave `%s` has passed: %s", wave, there, extra=_about(rollout))

    def rolled_back(self, rollout: Rollout, why: Rollback) -> None:
        logger.error("rolled back: %s", why.reason, extra=_about(rollout))

    def waits(self, rollout: Rollout, wave: str) -> None:
        logger.warning("wave `%s` waits: %s", wave, rollout.waits_for, extra=_about(rollout))

    def rollout_failed(self, rollout: Rollout) -> None:
        logger.error("goes no further: %s", rollout.failed, extra=_about(rollout))

    def at_risk(self, rollout: Rollout, late: Behind, why: str) -> None:
        about = {**_about(rollout), "target": late.record.address}
        until = f"{late.not_after:%Y-%m-%d %H:%M} UTC"
        logger.error("holds what ends %s: %s", until, why, extra=about)

    def check_failed(self, record: Record) -> None:
        logger.error(
            "%s", record.error, extra={"pipeline": record.pipeline, "target": record.address}
        )

    def recovered(self, record: Record) -> None:
        about = {"pipeline": record.pipeline, "target": record.address}
        logger.info("served again", extra=about)


def _about(rollout: Rollout) -> dict[str, object]:
    return {
        "pipeline": rollout.pipeline,
        "fingerprint": rollout.fingerprint,
        "generation": rollout.generation,
    }
