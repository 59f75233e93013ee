"""`certrail plan`: what would change and why. Records first, then what AWS itself says."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from certrail.errors import CertrailError
from certrail.pipelines import Pipeline, Pipelines
from certrail.store import Current, Store
from certrail.target import Deployed, Preflight, Target
from cli.workspace import Workspace, find_for
from deployers.deploy import drift, observe_target, preflight_target
from deployers.find import Followed
from deployers.finder import Findings
from deployers.job import role_of
from deployers.kinds.all import AnyTarget
from deployers.rollout import Action, Step
from deployers.rollout import plan as steps
from deployers.view import READERS, TARGET, look_at
from issuer import reissue
from issuer.due import Due
from issuer.survey import Standing, survey

# Shown as work to do although the records see none: AWS does not have what they say.
REPAIR = "repair"


@dataclass(frozen=True)
class TargetPlan:
    """step: what the records say. holds: what AWS says the target has. drift: what AWS has instead
    of what the record says, None where it has that. error: why AWS did not say. preflight: what
    deploying it would do, where it has a choice."""

    step: Step
    holds: Deployed | None
    wanted: str | None
    drift: str | None = None
    error: CertrailError | None = None
    preflight: Preflight | None = None

    @property
    def address(self) -> str:
        return self.step.target.address

    @property
    def drifted(self) -> bool:
        return self.step.action is Action.NONE and self.drift is not None

    @property
    def action(self) -> str:
        return REPAIR if self.drifted else str(self.step.action)

    @property
    def reason(self) -> str:
        if self.error:
            return str(self.error)
        reason = self.drift if self.drift and self.drifted else self.step.reason
        parts = [reason, *self.ways]
        if self.drift and self.step.action is Action.WAIT:
            parts.insert(1, f"meanwhile {self.drift}, which its turn repairs")
        return "; ".join(parts)

    @property
    def ways(self) -> list[str]:
        """How it would be done, who has to move, and who cannot."""
        if self.preflight is None:
            return []
        why = f" ({'; '.join(self.preflight.reasons)})" if self.preflight.reasons else ""
        movers = [
            f"{address} moves" if not stays else f"{address} stays: {stays}"
            for address, stays in self.movers
        ]
        return [f"{self.preflight.way}{why}", *movers]

    @property
    def movers(self) -> list[tuple[str, str]]:
        """Addresses, and why each cannot follow."""
        return [
            (TARGET.validate_python(mover.job).address, mover.stays)
            for mover in (self.preflight.movers if self.preflight else ())
        ]

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
            "way": str(self.preflight.way) if self.preflight else None,
            "why": list(self.preflight.reasons) if self.preflight else [],
            "moves": [
                {"target": address, "stays": stays or None} for address, stays in self.movers
            ],
        }


@dataclass(frozen=True)
class PipelinePlan:
    """due: why a certificate would be issued first, None where it would not. followed: what its
    selections find now."""

    name: str
    domains: Sequence[str]
    current: Current | None
    due: Due | None
    targets: Sequence[TargetPlan]
    failures: Sequence[CertrailError] = ()
    followed: Sequence[Followed] = ()

    @property
    def waits(self) -> bool:
        return (
            self.due is not None
            or any(target.waits for target in self.targets)
            or any(each.new or each.gone for each in self.followed)
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.name,
            "domains": list(self.domains),
            "generation": self.current.generation if self.current else None,
            "fingerprint": self.current.fingerprint if self.current else None,
            "not_after": self.current.facts.not_after.isoformat() if self.current else None,
            "issue": self.due.text if self.due else None,
            "targets": [target.as_json() for target in self.targets],
            "selections": [selection_json(each) for each in self.followed],
            "errors": [str(error) for error in self.failures],
        }


def selection_json(followed: Followed) -> dict[str, Any]:
    return {
        "selection": str(followed.selection),
        "finds": [target.address for target in followed.targets],
        "new": list(followed.new),
        "gone": dict(followed.gone),
        "left": dict(followed.left),
        "errors": [str(error) for error in followed.errors],
    }


def plan(workspace: Workspace, names: Sequence[str] | None, now: datetime) -> list[PipelinePlan]:
    """The plan for the local file: records first, then what AWS itself says. Reads only."""
    file = workspace.local()
    store = workspace.store
    chosen = workspace.chosen(file, names)
    asked = reissue.wishes(store)
    findings = find_for(workspace, file, chosen, now)
    with ThreadPoolExecutor(READERS) as readers:
        return [
            _plan(workspace, store, file, pipeline, standing, findings, now, readers)
            for pipeline, standing in zip(chosen, survey(store, chosen, asked), strict=True)
        ]


def _plan(
    workspace: Workspace,
    store: Store,
    file: Pipelines[AnyTarget],
    pipeline: Pipeline[AnyTarget],
    standing: Standing,
    findings: Findings,
    now: datetime,
    readers: ThreadPoolExecutor,
) -> PipelinePlan:
    try:
        if unknown := findings.failures.get(pipeline.name):
            raise unknown
        view = look_at(store, pipeline, readers, findings.of(pipeline.name))
        if standing.error:
            raise standing.error
    except CertrailError as error:
        return PipelinePlan(pipeline.name, pipeline.domains, None, None, (), (error,))
    current = view.current
    followed = findings.followed.get(pipeline.name, ())

    def preflight_of(target: Target) -> Preflight | None:
        if current is None:
            return None
        return preflight_target(
            store,
            target,
            current,
            role=role_of(target, file.accounts),
            aws=workspace.aws,
            rotation=pipeline.rotation,
            now=now,
        )

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
            preflight = preflight_of(step.target)
        except CertrailError as error:
            return TargetPlan(step, None, wanted, error=unreadable or error)
        record = view.records.get(step.target.address)
        differs = drift(record, holds) if record else None
        return TargetPlan(step, holds, wanted, differs, unreadable, preflight)

    planned = steps(view.targets, current, view.records, now, gates=view.gates)
    targets = list(readers.map(observed, planned))
    return PipelinePlan(
        name=pipeline.name,
        domains=pipeline.domains,
        current=current,
        due=standing.due(now),
        targets=targets,
        failures=[
            *(error for each in followed for error in each.errors),
            *(target.error for target in targets if target.error),
        ],
        followed=followed,
    )
