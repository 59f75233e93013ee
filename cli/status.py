"""`certrail status`: what the bucket says of every pipeline and target. Asks S3 only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from certrail.errors import CertrailError
from certrail.pipelines import Pipeline
from certrail.pipelines.selection import Selection
from certrail.records import Record, Rollout, Selected, State
from certrail.store import Current, Rollback
from certrail.waves import ONE_WAVE, Wave
from cli.workspace import Workspace
from deployers.held import Behind, behind
from deployers.kinds.all import AnyTarget
from deployers.reached import Reached, reached
from deployers.rollout import Step, at_once, holds
from deployers.rollout import plan as steps
from deployers.view import READERS, View, look_at
from issuer import lease, reissue
from issuer.due import Due, held_until
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
            "by": record.by if record else None,
            "from": record.before if record else None,
            "to": record.fingerprint if record else None,
            "repaired": record.repaired if record else None,
            "attempts": record.attempts if record else 0,
            "error": str(self.error) if self.error else record.error if record else None,
            "next_attempt": _iso(record.next_attempt) if record else None,
            "check": {
                "saw": record.check.saw,
                "looks": record.check.looks,
                "until": record.check.until.isoformat(),
                "next": _iso(record.check.next),
                "served_at": _iso(record.check.served_at),
                "nodes": dict(record.check.nodes),
            }
            if record and record.check
            else None,
        }


@dataclass(frozen=True)
class WaveStatus:
    """there: those of its targets that have all there is to have. of: how many targets it has.
    state: `passed`, `running`, `baking`, `waiting` or `stopped`. until: when it has baked."""

    name: str
    state: str
    there: Reached
    of: int
    until: datetime | None = None
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "wave": self.name,
            "state": self.state,
            "served": len(self.there.served),
            "deployed": len(self.there.deployed),
            "tolerated": len(self.there.tolerated),
            "of": self.of,
            "until": _iso(self.until),
            "why": self.why or None,
        }


@dataclass(frozen=True)
class SelectionStatus:
    """found: None where nobody has looked yet."""

    selection: Selection
    found: Selected | None

    @property
    def error(self) -> str | None:
        return self.found.error if self.found else None

    def as_json(self) -> dict[str, Any]:
        return {
            "selection": str(self.selection),
            "finds": len(self.found.targets) if self.found else None,
            "gone": list(self.found.gone) if self.found else [],
            "at": self.found.at.isoformat() if self.found else None,
            "error": self.error,
        }


@dataclass(frozen=True)
class PipelineStatus:
    """standing: of the certificate. past_window: whether it should have been renewed by now.
    rollout: how far the current one has come. waves: where the file has any. late: what some target
    still holds, where that soon ends."""

    standing: Standing
    due: Due | None
    past_window: bool
    targets: Sequence[TargetStatus]
    error: CertrailError | None = None
    selections: Sequence[SelectionStatus] = ()
    rollout: Rollout | None = None
    waves: Sequence[WaveStatus] = ()
    late: Behind | None = None

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
    def rolled_back(self) -> Rollback | None:
        """Why an earlier certificate is the current one."""
        return self.current.rollback if self.current else None

    @property
    def waits_for(self) -> str | None:
        """Why the next wave does not begin."""
        rollout = self.rollout
        waits = rollout and not rollout.done_at and not rollout.failed
        return rollout.waits_for if rollout and waits else None

    @property
    def waits_since(self) -> datetime | None:
        return self.rollout.waits_since if self.rollout and self.waits_for else None

    @property
    def held_until(self) -> datetime | None:
        """Until when nothing is renewed after a rollback."""
        if self.current is None or self.current.rollback is None:
            return None
        return held_until(self.current.rollback, self.current)

    @property
    def state(self) -> str:
        """How far the current certificate has come: issued, deployed, served, failed, or rolled
        back. Served is what somebody looked at."""
        stopped = self.rollout is not None and self.rollout.failed is not None
        if stopped or any(target.failed for target in self.targets):
            return "failed"
        if self.rolled_back:
            return "rolled back"
        records = [each.record for each in self.targets]
        if self.rollout and self.rollout.done_at:
            looked_at = [each.state for each in records if each and each.check]
            return "served" if set(looked_at) == {State.SERVED} else "deployed"
        there = self.current.generation if self.current else None
        if records and all(each and each.generation == there and holds(each) for each in records):
            return "deployed"
        return "issued" if self.current else "waiting"

    @property
    def failed(self) -> bool:
        issuing = self.progress is not None and self.progress.error is not None
        return (
            self.error is not None
            or issuing
            or self.past_window
            or self.late is not None
            or (self.rollout is not None and self.rollout.failed is not None)
            or any(target.failed for target in self.targets)
            or any(selection.error for selection in self.selections)
        )

    def as_json(self) -> dict[str, Any]:
        progress, when, known = self.progress, self.standing.window, self.standing.known
        issued = self.current.issued if self.current else None
        return {
            "pipeline": self.name,
            "state": self.state,
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
            "rolled_back": {
                "from": back.of,
                "reason": back.reason,
                "by": back.by,
                "at": back.at.isoformat(),
                "not_renewed_before": _iso(self.held_until),
            }
            if (back := self.rolled_back)
            else None,
            "stopped": self.rollout.failed if self.rollout else None,
            "waits_for": self.waits_for,
            "waits_since": _iso(self.waits_since),
            "at_risk": {
                "target": late.record.address,
                "holds": late.fingerprint,
                "not_after": late.not_after.isoformat(),
                "others": late.others,
            }
            if (late := self.late)
            else None,
            "waves": [wave.as_json() for wave in self.waves],
            "targets": [target.as_json() for target in self.targets],
            "selections": [selection.as_json() for selection in self.selections],
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
    rollout = view.rollout
    if rollout and view.current and rollout.generation != view.current.generation:
        rollout = None
    late = behind(view.current, view.records) if view.current else None
    return PipelineStatus(
        standing=standing,
        due=standing.due(now),
        past_window=when is not None and now > when.end,
        targets=list(
            _target_statuses(
                view, steps(view.targets, view.current, view.records, now, gates=view.gates)
            )
        ),
        rollout=rollout,
        waves=list(_waves(view, rollout, pipeline.waves)),
        selections=_selection_statuses(pipeline, view),
        late=late if late and late.soon <= now else None,
    )


def _selection_statuses(pipeline: Pipeline[AnyTarget], view: View) -> Sequence[SelectionStatus]:
    found = {each.key: each for each in view.found.selections} if view.found else {}
    return [SelectionStatus(each, found.get(each.key)) for each in pipeline.selections]


def _waves(view: View, rollout: Rollout | None, waves: Sequence[Wave]) -> Iterator[WaveStatus]:
    current = view.current
    if waves == ONE_WAVE or current is None or at_once(current, rollout):
        return
    for number, wave in enumerate(waves):
        members = [address for address, its in view.gates.waves.items() if its == number]
        there = reached(members, view.records, current)
        passed = rollout.passed if rollout else 0
        until, why = None, ""
        if number < passed:
            state = "passed"
        elif number > passed:
            state = "waiting"
        elif rollout and rollout.failed:
            state, why = "stopped", rollout.failed
        elif not view.gates.begun:
            state, why = "waiting", view.gates.waits_for or ""
        elif rollout and rollout.served_at:
            state, until = "baking", rollout.served_at + wave.bake
        else:
            state = "running"
        yield WaveStatus(wave.name, state, there, len(members), until, why)


def _target_statuses(view: View, planned: Iterable[Step]) -> Iterator[TargetStatus]:
    for step in planned:
        address = step.target.address
        yield TargetStatus(step, view.records.get(address), view.unreadable.get(address))


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
