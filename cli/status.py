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
from issuer import lease, reissue
from issuer.due import Due
from issuer.survey import Standing, survey


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
    """standing: of the certificate. past_window: whether it should have been renewed by now."""

    standing: Standing
    due: Due | None
    past_window: bool
    targets: Sequence[TargetStatus]
    error: CertrailError | None = None

    @property
    def name(self) -> str:
        return self.standing.pipeline.name

    @property
    def current(self) -> Current | None:
        return self.standing.current

    @property
    def progress(self) -> lease.Progress | None:
        """How issuing stands; None before the first try."""
        return self.standing.progress

    @property
    def failed(self) -> bool:
        issuing = self.progress is not None and self.progress.error is not None
        return (
            self.error is not None
            or issuing
            or self.past_window
            or any(target.failed for target in self.targets)
        )

    def as_json(self) -> dict[str, Any]:
        progress, when, known = self.progress, self.standing.window, self.standing.known
        issued = self.current.issued if self.current else None
        return {
            "pipeline": self.name,
            "generation": self.current.generation if self.current else None,
            "fingerprint": self.current.fingerprint if self.current else None,
            "not_after": _iso(self.current.facts.not_after) if self.current else None,
            "issuer": issued.issuer if issued else None,
            "instead_of": dict(issued.instead_of) if issued else {},
            "due": self.due.text if self.due else None,
            "renewal": {
                "start": when.start.isoformat(),
                "end": when.end.isoformat(),
                "moment": when.moment.isoformat(),
                "by_ca": when.by_ca,
                "explanation": known.explanation if known else None,
                "error": known.error if known else None,
                "past": self.past_window,
            }
            if when
            else None,
            "issue_waits_for": progress.waits_for if progress else None,
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
    chosen = workspace.chosen(workspace.pushed(), names)
    standings = survey(workspace.store, chosen, reissue.wishes(workspace.store))
    with ThreadPoolExecutor(READERS) as readers:
        return [
            _status(workspace, pipeline, standing, now, readers)
            for pipeline, standing in zip(chosen, standings, strict=True)
        ]


def _status(
    workspace: Workspace,
    pipeline: Pipeline[AnyTarget],
    standing: Standing,
    now: datetime,
    readers: ThreadPoolExecutor,
) -> PipelineStatus:
    if standing.error:
        return PipelineStatus(standing, None, False, (), standing.error)
    try:
        view = look_at(workspace.store, pipeline, readers)
    except CertrailError as error:
        return PipelineStatus(standing, None, False, (), error)
    when = standing.window
    return PipelineStatus(
        standing=standing,
        due=standing.due(now),
        past_window=when is not None and now > when.end,
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
