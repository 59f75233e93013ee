"""`certrail rollback`: an earlier certificate becomes the current one again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from certrail.bundle import short
from certrail.errors import CannotRollBack, CertrailError
from certrail.pipelines import Account, Pipeline
from certrail.store import Current, Versioned, current_key
from certrail.target import Succession, Target, with_needs
from certrail.waves import ONE_WAVE
from cli.workspace import BadInput, Workspace
from deployers.deploy import preflight_target
from deployers.job import role_of
from deployers.kinds.all import AnyTarget
from deployers.rollback import RollbackPreview, find, longest_propagation, roll_back
from deployers.view import READERS, TARGET, look_at


@dataclass(frozen=True)
class Plan:
    """after: the pointer that it was made with. everywhere: whether all targets go back at once,
    and none has to wait for its wave."""

    after: Versioned[Current]
    way: RollbackPreview
    everywhere: bool

    @property
    def pipeline(self) -> str:
        return self.after.value.pipeline

    def as_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "from": self.after.value.fingerprint,
            "to": self.way.to.fingerprint,
            "not_after": self.way.to.facts.not_after.isoformat(),
            "notes": list(self.way.notes),
        }


def plan(workspace: Workspace, name: str, fingerprint: str | None, now: datetime) -> Plan:
    """What a rollback would do. Reads only. Raises BadInput, CannotRollBack,
    StateError, AwsError."""
    file = workspace.pushed()
    # Of an entry with several key types, each is a certificate of its own.
    pipeline = file.named(name)
    if pipeline is None:
        (pipeline, *_) = workspace.called(file, name)
    after = workspace.store.read(current_key(pipeline.name), Current)
    if after is None:
        raise BadInput(f"`{pipeline.name}` has no certificate yet")
    if fingerprint is None:
        _check_wanted(after.value)
    with ThreadPoolExecutor(READERS) as readers:
        # Those that selections found and those that follow an import are late, too.
        view = look_at(workspace.store, pipeline, readers)
        targets = view.targets
        propagation = longest_propagation(targets)
        way = find(workspace.store, after.value, fingerprint, propagation, now)

        def stays(target: Target) -> list[str]:
            return list(_stays(workspace, target, way.to, pipeline, file.accounts, now))

        every = with_needs(targets).values()
        notes = [note for each in readers.map(stays, every) for note in each]
    following = after.value.generation + 1
    proven = view.rollout.proven_before(following) if view.rollout else None
    everywhere = way.to.fingerprint == proven or pipeline.waves == ONE_WAVE
    return Plan(after, replace(way, notes=(*way.notes, *notes)), everywhere)


def _stays(
    workspace: Workspace,
    target: Target,
    to: Current,
    pipeline: Pipeline[AnyTarget],
    accounts: Mapping[str, Account],
    now: datetime,
) -> Iterator[str]:
    """What of AWS's will not let a target go back, one sentence each."""
    try:
        preflight = preflight_target(
            workspace.store,
            target,
            to,
            role=role_of(target, accounts),
            aws=workspace.aws,
            rotation=pipeline.rotation,
            now=now,
        )
    except CertrailError as error:
        # Whoever goes back at night may have fewer rights than the deployers.
        yield f"Whether {target.address} can go back is not known: {error}"
        return
    if preflight is None:
        return
    if preflight.way is Succession.REFUSED:
        yield f"{target.address} stays on the current one: {'; '.join(preflight.reasons)}."
    for mover in preflight.movers if preflight.way is Succession.REPLACE else ():
        if mover.stays:
            yield f"{TARGET.validate_python(mover.job).address} stays: {mover.stays}."


def _check_wanted(current: Current) -> None:
    """Refuse the way back to what was left by a rollback: nobody who does not name it means it.
    Raises CannotRollBack."""
    left = current.rollback
    if left is None or left.of != current.previous:
        return
    raise CannotRollBack(
        f"the one before is {short(left.of)}, which was left at {left.at:%Y-%m-%d %H:%M} UTC: "
        f"{left.reason}",
        where=current.pipeline,
        next=f"`--to` with the start of another certificate's fingerprint goes back to that; "
        f"`--to {short(left.of)}` goes back to this one all the same",
    )


def carry_out(workspace: Workspace, plan: Plan, why: str, by: str, now: datetime) -> Current:
    """Do it. Raises Superseded where something was published since."""
    store, to = workspace.store, plan.way.to
    # Before it is current, as a key that is current and is to be removed would be lost; and after,
    # as a publication may have said meanwhile that it is to be removed.
    store.keep_privkey(plan.pipeline, to.fingerprint)
    current = roll_back(store, plan.after, to, why, by, now)
    store.keep_privkey(plan.pipeline, to.fingerprint)
    return current
