"""What `certrail push` asks of the CAs: whether they have the profiles that the file names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from certrail.errors import Fault, IssueError
from certrail.pipelines import Issuer
from certrail.pipelines.source import Path, parse
from certrail.pipelines.wording import nearest
from cli.workspace import Workspace, clock_here
from issuer.acme import reader

PATIENCE = timedelta(seconds=10)


def unknown_profiles(workspace: Workspace) -> Iterator[Fault | IssueError]:
    """A fault for each profile that its CA does not offer; an IssueError for each CA that could not
    be asked, which is no reason to keep a file back."""
    source = parse(workspace.text(), str(workspace.file))
    offered: dict[str, frozenset[str] | IssueError] = {}
    for pipeline in workspace.local().pipelines:
        for issuer in pipeline.issuers:
            if issuer.profile is None:
                continue
            if issuer.directory not in offered:
                offered[issuer.directory] = _offered(issuer)
                if isinstance(known := offered[issuer.directory], IssueError):
                    yield known
            known = offered[issuer.directory]
            if not isinstance(known, IssueError) and issuer.profile not in known:
                yield source.fault(
                    _place(source.lines, pipeline.entry, source.data, issuer),
                    f"the CA of `{issuer.name}` has no profile `{issuer.profile}`",
                    nearest(issuer.profile, known) or "it has none: remove the key",
                )


def _offered(issuer: Issuer) -> frozenset[str] | IssueError:
    try:
        return frozenset(reader(issuer, clock_here(PATIENCE)).profiles or ())
    except IssueError as error:
        return error


def _place(lines: object, entry: str, data: object, issuer: Issuer) -> Path:
    """Where the profile is written: at the pipeline, or at the issuer."""
    assert isinstance(data, dict)  # noqa: S101  the file was loaded
    for index, pipeline in enumerate(data["pipelines"]):
        if pipeline["name"] == entry and "profile" in pipeline:
            return ("pipelines", index, "profile")
    return ("issuers", issuer.name, "profile")
