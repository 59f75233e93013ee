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
from certrail.target import Deployed
from cli.workspace import Workspace
from deployers.deploy import observe_target
from deployers.job import role_of
from deployers.kinds.all import AnyTarget
from deployers.rollout import Action, Step
from deployers.rollout import plan as steps
from deployers.view import READERS, look_at
from issuer import reissue
from issuer.due import Due
from issuer.survey import Standing, survey

# Shown as work to do although the records see none: AWS does not have what they say.
REPAIR = "repair"


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
    chosen = workspace.chosen(file, names)
    asked = reissue.wishes(store)
    with ThreadPoolExecutor(READERS) as readers:
        return [
            _plan(workspace, store, file, pipeline, standing, now, readers)
            for pipeline, standing in zip(chosen, survey(store, chosen, asked), strict=True)
        ]


def _plan(
    workspace: Workspace,
    store: Store,
    file: Pipelines[AnyTarget],
    pipeline: Pipeline[AnyTarget],
    standing: Standing,
    now: datetime,
    readers: ThreadPoolExecutor,
) -> PipelinePlan:
    try:
        view = look_at(store, pipeline, readers)
        if standing.error:
            raise standing.error
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
        due=standing.due(now),
        targets=targets,
        failures=[target.error for target in targets if target.error],
    )
