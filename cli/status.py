"""`certrail status`: what the bucket says of every pipeline and target. Asks S3 only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from certrail.errors import CertrailError
from certrail.pipelines import Pipeline
from certrail.records import Record, State
from certrail.store import Current
from cli.workspace import Workspace
from deployers.kinds.all import AnyTarget
from deployers.rollout import Step
from deployers.rollout import plan as steps
from deployers.view import READERS, View, look_at
from issuer import lease
from issuer.due import Due, due


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
