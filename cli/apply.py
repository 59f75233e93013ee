"""`certrail apply`: the plan carried out from here, without any Lambda function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from certrail.errors import Busy, CertrailError
from certrail.pipelines import Pipeline, Pipelines
from certrail.store import Store
from certrail.target import with_needs
from cli.workspace import Workspace, issue_here
from deployers.deploy import Result, deploy_target
from deployers.job import role_of
from deployers.kinds.all import AnyTarget

# How long `apply` lets one certificate take.
PATIENCE = timedelta(minutes=15)


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
        issued = issue_here(workspace, file, pipeline, PATIENCE)
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
