"""What a command works on: a pipelines file, a bucket, an account."""

from __future__ import annotations

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
from certrail.pipelines import Pipeline, Pipelines, load
from certrail.store import Current, Store
from deployers.kinds.all import AnyTarget
from issuer.clock import Clock
from issuer.dns.authoritative import parse_servers
from issuer.dns.route53 import Route53
from issuer.issue import issue


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
        """The pipelines of these names, all without names. Raises BadInput."""
        if not names:
            return list(file.pipelines)
        return [self.one(file, name) for name in names]

    def one(self, file: Pipelines[AnyTarget], name: str) -> Pipeline[AnyTarget]:
        pipeline = file.named(name)
        if pipeline is None:
            known = [each.name for each in file.pipelines]
            near = get_close_matches(name, known, 1) or known
            raise BadInput(f"there is no pipeline `{name}`", next=f"There is {', '.join(near)}")
        return pipeline


def issue_here(
    workspace: Workspace, pipeline: Pipeline[AnyTarget], patience: timedelta, *, asked: bool = False
) -> Current | None:
    """Issue from this process what the issuer's function would. asked: due or not.

    Returns None where nothing was due. Raises IssueError and its kinds, Busy, AwsError.
    """
    servers = os.environ.get("CERTRAIL_NAMESERVERS")
    generation = None
    if asked:
        before = workspace.store.current(pipeline.name)
        generation = before.generation if before else 0
    return issue(
        pipeline,
        workspace.store,
        Route53(workspace.aws, parse_servers(servers) if servers else None),
        Clock(lambda: datetime.now(UTC), time.sleep, datetime.now(UTC) + patience),
        asked=generation,
    )
