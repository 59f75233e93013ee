"""What would change and why, doing it from here, and what was done: `plan`, `apply`, `status`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from certrail.errors import Busy, CertrailError
from certrail.pipelines import Pipeline, Pipelines
from certrail.records import Record, State
from certrail.store import Current, Store
from certrail.target import Deployed, with_needs
from cli.workspace import Workspace, issue_here
from deployers.deploy import Result, deploy_target, observe_target
from deployers.job import role_of
from deployers.kinds.all import AnyTarget
from deployers.rollout import Action, Step
from deployers.rollout import plan as steps
from deployers.view import READERS, View, look_at
from issuer import lease
from issuer.due import Due, due

# Shown as work to do although the records see none: AWS does not have what they say.
REPAIR = "repair"
# How long `apply` lets one certificate take.
PATIENCE = timedelta(minutes=15)


@dataclass(frozen=True)
class TargetPlan:
    """step: what the records say. holds: what AWS says the target has. error: why AWS did not."""

    step: Step
    holds: Deployed | None
    wanted: str | None
    error: CertrailError | None = None

    @property
    def address(self) -> str:
        return self.step.target.address

    @property
    def drifted(self) -> bool:
        return (
            self.step.action is Action.NONE
            and not self.error
            and (self.holds is None or self.holds.fingerprint != self.wanted)
        )

    @property
    def action(self) -> str:
        return REPAIR if self.drifted else str(self.step.action)

    @property
    def reason(self) -> str:
        if self.error:
            return str(self.error)
        return "AWS does not have what the record says" if self.drifted else self.step.reason

    @property
    def waits(self) -> bool:
        return self.drifted or self.step.action is not Action.NONE

    def as_json(self) -> dict[str, Any]:
        return {
            "target": self.address,
            "action": self.action,
            "reason": self.reason,
            "holds": self.holds.fingerprint if self.holds else None,
            "wanted": self.wanted,
            "error": str(self.error) if self.error else None,
        }


@dataclass(frozen=True)
class PipelinePlan:
    """due: why a certificate would be issued first, None where it would not."""

    name: str
    domains: Sequence[str]
    current: Current | None
    due: Due | None
    targets: Sequence[TargetPlan]
    failures: Sequence[CertrailError] = ()

    @property
    def waits(self) -> bool:
        return self.due is not None or any(target.waits for target in self.targets)

    def as_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.name,
            "domains": list(self.domains),
            "generation": self.current.generation if self.current else None,
            "fingerprint": self.current.fingerprint if self.current else None,
            "not_after": self.current.facts.not_after.isoformat() if self.current else None,
            "issue": self.due.text if self.due else None,
            "targets": [target.as_json() for target in self.targets],
            "errors": [str(error) for error in self.failures],
        }


def plan(workspace: Workspace, names: Sequence[str] | None, now: datetime) -> list[PipelinePlan]:
    """The plan for the local file: records first, then what AWS itself says. Reads only."""
    file = workspace.local()
    store = workspace.store
    with ThreadPoolExecutor(READERS) as readers:
        return [
            _plan(workspace, store, file, pipeline, now, readers)
            for pipeline in workspace.chosen(file, names)
        ]


def _plan(
    workspace: Workspace,
    store: Store,
    file: Pipelines[AnyTarget],
    pipeline: Pipeline[AnyTarget],
    now: datetime,
    readers: ThreadPoolExecutor,
) -> PipelinePlan:
    try:
        view = look_at(store, pipeline, readers)
    except CertrailError as error:
        return PipelinePlan(pipeline.name, pipeline.domains, None, None, (), (error,))
    current = view.current

    def observed(step: Step) -> TargetPlan:
        wanted = current.fingerprint if current else None
        unreadable = view.unreadable.get(step.target.address)
        try:
            holds = observe_target(
                store,
                step.target,
                pipeline.name,
                role=role_of(step.target, file.accounts),
                aws=workspace.aws,
            )
        except CertrailError as error:
            return TargetPlan(step, None, wanted, unreadable or error)
        return TargetPlan(step, holds, wanted, unreadable)

    targets = list(readers.map(observed, steps(pipeline.targets, current, view.records, now)))
    return PipelinePlan(
        name=pipeline.name,
        domains=pipeline.domains,
        current=current,
        due=due(pipeline, current, now),
        targets=targets,
        failures=[target.error for target in targets if target.error],
    )


@dataclass(frozen=True)
class Outcome:
    """How one step of `apply` ended. what: the certificate, or a target's address."""

    pipeline: str
    what: str
    result: str
    fingerprint: str | None
    error: CertrailError | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "what": self.what,
            "result": self.result,
            "fingerprint": self.fingerprint,
            "error": str(self.error) if self.error else None,
        }


def apply(
    workspace: Workspace, names: Sequence[str] | None, tell: Callable[[str], None]
) -> list[Outcome]:
    """Issue what is due and deploy what is not deployed, from here. A failure stops what depends on
    it and nothing else."""
    file = workspace.local()
    store = workspace.store
    outcomes: list[Outcome] = []
    for pipeline in workspace.chosen(file, names):
        for outcome in _apply(workspace, store, file, pipeline):
            tell(f"{outcome.pipeline}: {outcome.what}: {outcome.error or outcome.result}")
            outcomes.append(outcome)
    return outcomes


def _apply(
    workspace: Workspace, store: Store, file: Pipelines[AnyTarget], pipeline: Pipeline[AnyTarget]
) -> Iterator[Outcome]:
    name = pipeline.name
    try:
        issued = issue_here(workspace, pipeline, PATIENCE)
        current = issued or store.current(name)
    except CertrailError as error:
        # What was published before can still be deployed.
        yield Outcome(name, "certificate", "failed", None, error)
    else:
        fingerprint = current.fingerprint if current else None
        yield Outcome(name, "certificate", "issued" if issued else "unchanged", fingerprint)
    for target in with_needs(pipeline.targets).values():
        try:
            done = deploy_target(
                store,
                target,
                name,
                role=role_of(target, file.accounts),
                aws=workspace.aws,
                now=datetime.now(UTC),
            )
        except CertrailError as error:
            yield Outcome(name, target.address, "failed", None, error)
        else:
            waiting = done.result is Result.WAITING
            yield Outcome(
                name,
                target.address,
                str(done.result),
                done.fingerprint or None,
                Busy(done.reason, where=target.address) if waiting else None,
            )


@dataclass(frozen=True)
class TargetStatus:
    """record: None where nothing was ever deployed. error: why it could not be read."""

    step: Step
    record: Record | None
    error: CertrailError | None = None

    @property
    def address(self) -> str:
        return self.step.target.address

    @property
    def state(self) -> str:
        if self.error:
            return "unreadable"
        return str(self.record.state) if self.record else "waiting"

    @property
    def failed(self) -> bool:
        return self.error is not None or (
            self.record is not None and self.record.state is State.FAILED
        )

    def as_json(self) -> dict[str, Any]:
        record = self.record
        return {
            "target": self.address,
            "state": self.state,
            "next": str(self.step.action),
            "reason": self.step.reason,
            "holds": record.held.fingerprint if record and record.held else None,
            "resource": record.held.resource if record and record.held else None,
            "generation": record.generation if record else None,
            "at": record.at.isoformat() if record else None,
            "attempts": record.attempts if record else 0,
            "error": str(self.error) if self.error else record.error if record else None,
            "next_attempt": _iso(record.next_attempt) if record else None,
        }


@dataclass(frozen=True)
class PipelineStatus:
    """progress: how issuing stands; None before the first try."""

    name: str
    current: Current | None
    due: Due | None
    progress: lease.Progress | None
    targets: Sequence[TargetStatus]
    error: CertrailError | None = None

    @property
    def failed(self) -> bool:
        issuing = self.progress is not None and self.progress.error is not None
        return self.error is not None or issuing or any(target.failed for target in self.targets)

    def as_json(self) -> dict[str, Any]:
        progress = self.progress
        return {
            "pipeline": self.name,
            "generation": self.current.generation if self.current else None,
            "fingerprint": self.current.fingerprint if self.current else None,
            "not_after": _iso(self.current.facts.not_after) if self.current else None,
            "due": self.due.text if self.due else None,
            "issue_error": progress.error if progress else None,
            "issue_attempts": progress.attempts if progress else 0,
            "issue_next_attempt": _iso(progress.next_attempt) if progress else None,
            "error": str(self.error) if self.error else None,
            "targets": [target.as_json() for target in self.targets],
        }


def status(
    workspace: Workspace, names: Sequence[str] | None, now: datetime
) -> list[PipelineStatus]:
    """What the bucket says of the pushed file's pipelines. Asks S3 only."""
    with ThreadPoolExecutor(READERS) as readers:
        return [
            _status(workspace, pipeline, now, readers)
            for pipeline in workspace.chosen(workspace.pushed(), names)
        ]


def _status(
    workspace: Workspace,
    pipeline: Pipeline[AnyTarget],
    now: datetime,
    readers: ThreadPoolExecutor,
) -> PipelineStatus:
    try:
        view = look_at(workspace.store, pipeline, readers)
        progress = lease.read(workspace.store, pipeline.name)
    except CertrailError as error:
        return PipelineStatus(pipeline.name, None, None, None, (), error)
    return PipelineStatus(
        name=pipeline.name,
        current=view.current,
        due=due(pipeline, view.current, now),
        progress=progress,
        targets=list(
            _target_statuses(view, steps(pipeline.targets, view.current, view.records, now))
        ),
    )


def _target_statuses(view: View, planned: Iterable[Step]) -> Iterator[TargetStatus]:
    for step in planned:
        address = step.target.address
        yield TargetStatus(step, view.records.get(address), view.unreadable.get(address))


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
