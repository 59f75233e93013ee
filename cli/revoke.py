"""`certrail revoke`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from certrail.bundle import short
from certrail.errors import CertrailError, raise_together
from certrail.pipelines import Issuer, Pipeline, Pipelines
from certrail.store import Current, current_key
from cli.workspace import PATIENCE, BadInput, Workspace, clock_here
from deployers.kinds.all import AnyTarget
from issuer.due import issuer_of
from issuer.reissue import Asked, ask
from issuer.revoke import Reason
from issuer.revoke import revoke as revoke_certificate


def revoke(
    workspace: Workspace, name: str, reason: Reason, fingerprint: str | None, *, at_once: bool
) -> Iterator[str]:
    """Revoke the current certificates of that name, or the one with the fingerprint, and tell what
    was done. Raises BadInput where a current one would be revoked and that was not said to be
    meant."""
    file = workspace.pushed()
    pipelines = workspace.called(file, name)
    if any(pipeline.incoming is not None for pipeline in pipelines):
        raise BadInput(
            "this certificate is not ours to revoke",
            where=name,
            next="Bring another one first, and have this one revoked where it was issued",
        )
    chosen = (
        [_by_fingerprint(workspace, pipelines, fingerprint)]
        if fingerprint
        else [(pipeline, _current(workspace, pipeline).fingerprint) for pipeline in pipelines]
    )
    failures: list[CertrailError] = []
    for pipeline, wanted in chosen:
        current = workspace.store.current(pipeline.name)
        if current and wanted == current.fingerprint:
            if not at_once:
                raise BadInput(
                    f"{short(wanted)} is current: clients would be served a revoked certificate",
                    where=pipeline.name,
                    next=f"Run `certrail reissue --pipeline {pipeline.name}` first, and this with "
                    f"--fingerprint {short(wanted)} when the new one is served; or give --now",
                )
            _ask_for_another(workspace, current, reason)
            yield f"{pipeline.name}: a new certificate is asked for"
        try:
            issuer = revoke_certificate(
                pipeline.name,
                wanted,
                reason,
                _likeliest_first(file, pipeline, current),
                workspace.store,
                workspace.accounts,
                clock_here(PATIENCE),
            )
        except CertrailError as error:
            failures.append(error)
        else:
            yield f"{pipeline.name}: {short(wanted)} is revoked at {issuer} ({reason})"
    raise_together("not every certificate was revoked", failures)


def _likeliest_first(
    file: Pipelines[AnyTarget], pipeline: Pipeline[AnyTarget], current: Current | None
) -> list[Issuer]:
    """All of the file: a pipeline may have had another when an earlier certificate was issued."""
    first = issuer_of(pipeline, current.issued) if current else None
    likely = [*([first] if first else []), *pipeline.issuers, *file.issuers.values()]
    return list({each.name: each for each in likely}.values())


def _current(workspace: Workspace, pipeline: Pipeline[AnyTarget]) -> Current:
    current = workspace.store.current(pipeline.name)
    if current is None:
        raise BadInput(f"`{pipeline.name}` has no certificate yet")
    return current


def _by_fingerprint(
    workspace: Workspace, pipelines: Sequence[Pipeline[AnyTarget]], given: str
) -> tuple[Pipeline[AnyTarget], str]:
    """The one certificate in the bucket whose fingerprint starts so, and its pipeline. Colons and
    capitals, as other programs write them, may be in it."""
    start = given.lower().replace(":", "")
    found: dict[str, Pipeline[AnyTarget]] = {}
    for pipeline in pipelines:
        folder = current_key(pipeline.name).removesuffix("current.json")
        for key in workspace.store.keys(f"{folder}{start}"):
            fingerprint, _, file = key.removeprefix(folder).partition("/")
            if file == "cert.pem":
                found[fingerprint] = pipeline
    if len(found) != 1:
        names = ", ".join(pipeline.name for pipeline in pipelines)
        several = f"several certificates of {names} start with `{given}`"
        raise BadInput(
            several if found else f"there is no certificate `{given}` of {names}",
            next="Give more of its fingerprint"
            if found
            else "Look under certificates/ in the bucket: the folders there are the fingerprints",
        )
    ((fingerprint, pipeline),) = found.items()
    return pipeline, fingerprint


def _ask_for_another(workspace: Workspace, current: Current, reason: Reason) -> None:
    """First, so that nothing stays revoked and unreplaced."""
    why = f"the current certificate is revoked ({reason})"
    ask(workspace.store, {current.pipeline: Asked(current.generation, why, datetime.now(UTC))})
