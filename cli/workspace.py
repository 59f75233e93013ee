"""What a command works on: a pipelines file, a bucket, an account."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from botocore.exceptions import BotoCoreError

from certrail.aws import Aws
from certrail.errors import CertrailError
from certrail.nameservers import parse_servers
from certrail.pipelines import Issuer, Pipeline, Pipelines, load
from certrail.store import Current, Store
from deployers.finder import Findings, find
from deployers.inventory import Inventory
from deployers.kinds.all import AnyTarget
from issuer import reissue
from issuer.account import Accounts
from issuer.clock import Clock
from issuer.dns.challenges import Dns
from issuer.incoming import receive
from issuer.issue import issue
from issuer.reissue import Asked

log = logging.getLogger(__name__)

# How long a command that asks a CA for one thing waits for it.
PATIENCE = timedelta(minutes=2)


class BadInput(CertrailError):
    """What the command was given cannot be used: no file, bucket, pipeline or profile."""


@dataclass(frozen=True)
class Workspace:
    """file: the local pipelines file. bucket: certrail's bucket, empty where not given."""

    file: Path
    bucket: str = ""

    @cached_property
    def aws(self) -> Aws:
        try:
            return Aws()
        except BotoCoreError as error:
            # Its configuration is read here: a profile that is not there, a file that is none.
            raise BadInput(
                str(error),
                where="AWS configuration",
                next="Correct AWS_PROFILE and the files of `aws configure`",
            ) from error

    @cached_property
    def store(self) -> Store:
        if not self.bucket:
            raise BadInput(
                "no bucket given",
                next="Set CERTRAIL_BUCKET, or give --bucket: it is the stack's output `BucketName`",
            )
        return Store(self.bucket, self.aws)

    def text(self) -> str:
        """The local file's text. Raises BadInput where there is none."""
        try:
            return self.file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(
                f"cannot be read: {error}", where=str(self.file), next="Give --file"
            ) from error

    def local(self) -> Pipelines[AnyTarget]:
        """The local file. Raises PipelinesInvalid with every fault."""
        return load(self.text(), str(self.file), Pipelines[AnyTarget])

    def pushed(self) -> Pipelines[AnyTarget]:
        """The file the Lambda functions work by."""
        return load(self.store.pipelines_text(), "config/pipelines.yaml", Pipelines[AnyTarget])

    def chosen(
        self, file: Pipelines[AnyTarget], names: Sequence[str] | None
    ) -> list[Pipeline[AnyTarget]]:
        """The pipelines of these names, all without names; of an entry with several key types, all
        of them by the entry's name. Raises BadInput."""
        if not names:
            return list(file.pipelines)
        chosen = [pipeline for name in names for pipeline in self.called(file, name)]
        # Named twice, by its own name and by its entry's, it is meant once.
        return list({pipeline.name: pipeline for pipeline in chosen}.values())

    def called(self, file: Pipelines[AnyTarget], name: str) -> list[Pipeline[AnyTarget]]:
        if found := [each for each in file.pipelines if each.entry == name]:
            return found
        if exact := file.named(name):
            return [exact]
        known = [each.name for each in file.pipelines]
        near = get_close_matches(name, known, 1) or known
        raise BadInput(f"there is no pipeline `{name}`", next=f"There is {', '.join(near)}")

    def issuer(self, file: Pipelines[AnyTarget], name: str) -> Issuer:
        """Raises BadInput."""
        try:
            return file.issuers[name]
        except KeyError:
            raise BadInput(
                f"there is no issuer `{name}`", next=f"There is {', '.join(file.issuers)}"
            ) from None

    @cached_property
    def accounts(self) -> Accounts:
        return Accounts(self.store, self.aws)


def find_for(
    workspace: Workspace,
    file: Pipelines[AnyTarget],
    chosen: Sequence[Pipeline[AnyTarget]],
    now: datetime,
) -> Findings:
    """What the selections of these pipelines find now, with the caller's rights."""
    if not any(pipeline.selections for pipeline in chosen):
        return Findings({}, {})
    names = {pipeline.name for pipeline in chosen}
    inventory = Inventory(workspace.aws, file.accounts)
    return find(workspace.store, inventory, file, now, names)


class OnTheTerminal:
    """Who has run the command sees what happens, and needs no metric and no event."""

    def issued(self, current: Current) -> None:
        pass

    def replaces_refused(self, pipeline: str, why: str) -> None:
        log.warning("ordering without renewal information: %s", why, extra={"pipeline": pipeline})


def issue_here(
    workspace: Workspace,
    file: Pipelines[AnyTarget],
    pipeline: Pipeline[AnyTarget],
    patience: timedelta,
    *,
    asked: bool = False,
) -> Current | None:
    """Issue from this process what the issuer's function would, or take in what the receiver would.
    asked: due and wished for or not, looked at before or not.

    Returns None where nothing was due, or nothing new came in. Raises IssueError, StateError and
    their kinds, AwsError.
    """
    if pipeline.incoming is not None:
        clock = clock_here(patience)
        return receive(
            pipeline, workspace.store, workspace.aws, clock, OnTheTerminal(), asked=asked
        )
    servers = os.environ.get("CERTRAIL_NAMESERVERS")
    wish = reissue.wishes(workspace.store).get(pipeline.name)
    if asked:
        before = workspace.store.current(pipeline.name)
        generation = before.generation if before else 0
        wish = Asked(generation, "asked for by `certrail issue`", datetime.now(UTC))
    return issue(
        pipeline,
        workspace.store,
        Dns(workspace.aws, file.zones, file.accounts, parse_servers(servers) if servers else None),
        clock_here(patience),
        workspace.accounts,
        OnTheTerminal(),
        asked=wish,
    )


def clock_here(patience: timedelta) -> Clock:
    return Clock(lambda: datetime.now(UTC), time.sleep, datetime.now(UTC) + patience)
