"""The `certrail` command: the functions of the Lambda functions, with a terminal.

Results go to stdout, everything else to stderr. Exit codes: 0 fine, 1 failed, 2 bad input,
3 changes wait (`plan --check`), or there are orphans (`orphans --check`).
"""

from __future__ import annotations

import getpass
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from certrail import log
from certrail.errors import CertrailError, Fault, PipelinesInvalid
from certrail.pipelines import Pipelines
from cli import account as accounting
from cli import apply as applying
from cli import bring as bringing
from cli import iam as granting
from cli import orphans as orphaned
from cli import plan as planning
from cli import reference, render
from cli import reissue as reissuing
from cli import revoke as revoking
from cli import rollback as rolling_back
from cli import status as reporting
from cli.profiles import unknown_profiles
from cli.workspace import BadInput, Workspace, issue_here
from deployers.kinds.all import AnyTarget
from issuer.revoke import Reason

FAILED, BAD_INPUT, CHANGES_WAIT = 1, 2, 3
# How often `reissue` looks how far it is, in seconds.
POLL = 10.0

app = typer.Typer(
    help="Certificates over ACME, put where AWS uses them, and kept there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

File = Annotated[
    Path, typer.Option("--file", "-f", envvar="CERTRAIL_FILE", help="The pipelines file.")
]
Bucket = Annotated[
    str,
    typer.Option(
        envvar="CERTRAIL_BUCKET", help="certrail's bucket: the stack's output `BucketName`."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="[PIPELINE]...", help="Only these pipelines.")
]
DEFAULT_FILE = Path("pipelines.yaml")


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
) -> None:
    log.to_terminal(verbose=verbose)


@app.command()
def validate(file: File = DEFAULT_FILE, as_json: Json = False) -> None:
    """Check the pipelines file, offline; every fault with its line."""
    try:
        pipelines = Workspace(file).local()
    except PipelinesInvalid as invalid:
        if not as_json:
            raise
        render.as_json([vars(fault) for fault in invalid.faults])
        raise typer.Exit(BAD_INPUT) from None
    if as_json:
        render.as_json([])
    else:
        targets = sum(len(pipeline.targets) for pipeline in pipelines.pipelines)
        selections = sum(len(pipeline.selections) for pipeline in pipelines.pipelines)
        found = f", {selections} selections" if selections else ""
        counted = f"{len(pipelines.pipelines)} pipelines, {targets} targets{found}"
        render.line(f"{file}: {counted}, no faults")


@app.command()
def schema() -> None:
    """Print the JSON Schema of the pipelines file."""
    render.line(reference.schema(Pipelines[AnyTarget]).rstrip("\n"))


@app.command()
def plan(
    names: Names = None,
    file: File = DEFAULT_FILE,
    bucket: Bucket = "",
    as_json: Json = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 3 where changes wait, for CI.")
    ] = False,
) -> None:
    """Say what would change and why. Reads only."""
    workspace = Workspace(file, bucket)
    with render.working("Reading AWS"):
        plans = planning.plan(workspace, names, datetime.now(UTC))
    if as_json:
        render.as_json([each.as_json() for each in plans])
    else:
        render.plans(plans)
    if any(each.failures for each in plans):
        raise typer.Exit(FAILED)
    if check and any(each.waits for each in plans):
        raise typer.Exit(CHANGES_WAIT)


@app.command()
def apply(
    names: Names = None,
    file: File = DEFAULT_FILE,
    bucket: Bucket = "",
    wait: Annotated[
        int, typer.Option(metavar="MINUTES", help="How long to wait until clients get it.", min=0)
    ] = 3,
    as_json: Json = False,
) -> None:
    """Carry out the plan from here, without any Lambda function, wave by wave."""
    workspace = Workspace(file, bucket)
    outcomes = applying.apply(workspace, names, timedelta(minutes=wait), tell=render.progress)
    if as_json:
        render.as_json([outcome.as_json() for outcome in outcomes])
    else:
        render.outcomes(outcomes)
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(FAILED)


@app.command()
def issue(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline's name.")],
    file: File = DEFAULT_FILE,
    bucket: Bucket = "",
    minutes: Annotated[int, typer.Option(help="Give up after this long.", min=1)] = 15,
    as_json: Json = False,
) -> None:
    """Issue one pipeline's certificate now, due or not, and publish it; or look now for what
    somebody else has brought."""
    log.to_terminal(verbose=True)
    workspace = Workspace(file, bucket)
    local = workspace.local()
    issued = [
        (pipeline, issue_here(workspace, local, pipeline, timedelta(minutes=minutes), asked=True))
        for pipeline in workspace.called(local, name)
    ]
    if as_json:
        render.as_json([render.current_json(current) for _, current in issued])
    else:
        for pipeline, current in issued:
            nothing_new = current is None and pipeline.incoming is not None
            said = f"{pipeline.name}: nothing new came in"
            render.line(said if nothing_new else render.current_line(current))


@app.command()
def bring(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline's name.")],
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Files of one bundle, or their folder.")
    ],
    file: File = DEFAULT_FILE,
    bucket: Bucket = "",
) -> None:
    """Check a certificate that somebody else issued, and put it under incoming/: the Lambda
    functions do the rest."""
    for key in bringing.bring(Workspace(file, bucket), name, paths):
        render.line(key)


@app.command()
def reissue(
    every: Annotated[bool, typer.Option("--all", help="Every pipeline.")] = False,
    issuer: Annotated[
        str | None, typer.Option(help="All whose certificate is from this issuer.")
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--pipeline", metavar="PIPELINE", help="This pipeline.")
    ] = None,
    why: Annotated[str, typer.Option(help="What the log and the status say.")] = "reissue",
    wait: Annotated[bool, typer.Option(help="Show the progress until all is done.")] = True,
    bucket: Bucket = "",
    as_json: Json = False,
) -> None:
    """Ask for new certificates before they are due, as fast as the CA's limits let.

    The Lambda functions do it; Ctrl-C ends only the watching.
    """
    workspace = Workspace(DEFAULT_FILE, bucket)
    chosen = reissuing.choose(workspace, names or [], issuer, every=every)
    wishes = reissuing.begin(workspace, chosen, why, datetime.now(UTC))
    count = "a new certificate" if len(wishes) == 1 else f"{len(wishes)} new certificates"
    render.progress(f"asked for {count}")
    if not wait:
        if as_json:
            render.as_json({"asked": list(wishes)})
        return
    states = reissuing.follow(workspace, chosen, wishes, lambda: time.sleep(POLL))
    try:
        with render.Watching() as watching:
            for state in states:
                watching.tell(render.reissue_line(state))
    except KeyboardInterrupt:
        render.progress("not watched any more, it goes on: `certrail status` shows how")
        raise typer.Exit(FAILED) from None
    if as_json:
        render.as_json(state.as_json())
    else:
        render.line(render.reissue_line(state))
        for name, error in state.failed:
            render.line(f"  {name}: {error}")
    if state.failed:
        raise typer.Exit(FAILED)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline's name.")],
    reason: Annotated[Reason, typer.Option(help="Why, as the CA publishes it.")],
    fingerprint: Annotated[
        str | None,
        typer.Option(help="Of an earlier certificate, or its start; left out, the current one."),
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Although it is current, and served until replaced.")
    ] = False,
    bucket: Bucket = "",
) -> None:
    """Revoke a certificate. One that is current is asked for anew first."""
    workspace = Workspace(DEFAULT_FILE, bucket)
    for line in revoking.revoke(workspace, name, reason, fingerprint, at_once=now):
        render.line(line)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline's name.")],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FINGERPRINT",
            help="Of an earlier certificate, or its start; left out, the one before.",
        ),
    ] = None,
    why: Annotated[str, typer.Option(help="What records and status say.")] = "asked for",
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    bucket: Bucket = "",
    as_json: Json = False,
) -> None:
    """Make an earlier certificate the current one again, at once where the current one was.

    First it says what that will take. The Lambda functions do it.
    """
    workspace = Workspace(DEFAULT_FILE, bucket)
    plan = rolling_back.plan(workspace, name, to, datetime.now(UTC))
    for text in render.way_back(plan):
        render.progress(text)
    if not yes and not typer.confirm("Roll back?", err=True):
        raise typer.Exit(FAILED)
    by = f"certrail rollback ({getpass.getuser()})"
    current = rolling_back.carry_out(workspace, plan, why, by, datetime.now(UTC))
    if as_json:
        render.as_json(plan.as_json() | {"generation": current.generation})
    else:
        render.line(render.current_line(current))
        render.progress("`certrail status` shows how far it is")


@app.command()
def iam(
    account: Annotated[
        str | None,
        typer.Argument(metavar="[ACCOUNT]", help="Only this one of the file's `accounts`."),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARN",
            help="Who may assume the role, with wildcards, several with commas: the stack's output "
            "`ActingRoleArns`. Left out, whoever your account lets.",
        ),
    ] = None,
    template: Annotated[
        bool, typer.Option("--template", help="As a CloudFormation template, for one ACCOUNT.")
    ] = False,
    file: File = DEFAULT_FILE,
    bucket: Bucket = "",
    as_json: Json = False,
) -> None:
    """Print what the roles in other accounts need for this file, and no more.

    Without ACCOUNT also how narrow the stack's own roles could be.
    """
    if template and account is None:
        raise BadInput("a template is of one account", next="Name one of the file's `accounts`")
    trusted = [arn for each in trust or () for arn in each.split(",")]
    roles = granting.iam(Workspace(file, bucket), account, trusted)
    if template:
        render.as_json(granting.template(roles[0]))
    elif as_json:
        render.as_json([each.as_json() for each in roles])
    else:
        render.roles(roles)


@app.command()
def status(names: Names = None, bucket: Bucket = "", as_json: Json = False) -> None:
    """Show what every target holds, what failed, and when it is tried again."""
    workspace = Workspace(DEFAULT_FILE, bucket)
    with render.working("Reading the bucket"):
        statuses = reporting.status(workspace, names, datetime.now(UTC))
    if as_json:
        render.as_json([each.as_json() for each in statuses])
    else:
        render.statuses(statuses, datetime.now(UTC))
    if any(each.failed for each in statuses):
        raise typer.Exit(FAILED)


@app.command()
def orphans(
    file: File = DEFAULT_FILE,
    bucket: Bucket = "",
    as_json: Json = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 3 where there are any, for CI.")
    ] = False,
) -> None:
    """List distributions, domain names and listeners that no pipeline reaches. Reads only."""
    workspace = Workspace(file, bucket)
    with render.working("Reading AWS"):
        found = orphaned.orphans(workspace, datetime.now(UTC))
    if as_json:
        render.as_json(found.as_json())
    else:
        render.orphans(found)
    if found.failures:
        raise typer.Exit(FAILED)
    if check and any(not each.ignored for each in found.found):
        raise typer.Exit(CHANGES_WAIT)


@app.command()
def push(file: File = DEFAULT_FILE, bucket: Bucket = "", as_json: Json = False) -> None:
    """Validate the pipelines file and upload it: the Lambda functions do the rest."""
    workspace = Workspace(file, bucket)
    pipelines = workspace.local()
    faults = []
    for found in unknown_profiles(workspace):
        if isinstance(found, Fault):
            faults.append(found)
        else:
            render.progress(f"the profiles were not checked, the CA could not be asked: {found}")
    if faults:
        # One issuer's profile is that of many pipelines.
        raise PipelinesInvalid(dict.fromkeys(faults))
    workspace.store.put_pipelines_text(workspace.text())
    if as_json:
        render.as_json({"bucket": bucket, "pipelines": [each.name for each in pipelines.pipelines]})
    else:
        render.line(f"{file}: {len(pipelines.pipelines)} pipelines pushed to s3://{bucket}")


accounts = typer.Typer(help="The ACME accounts, one per issuer.", no_args_is_help=True)
app.add_typer(accounts, name="account")
IssuerName = Annotated[str, typer.Argument(metavar="ISSUER", help="Its name in the file.")]


@accounts.command()
def show(issuer: IssuerName, bucket: Bucket = "", as_json: Json = False) -> None:
    """Show the account, made if there is none yet, and what the CA's limits leave of it."""
    shown = accounting.show(Workspace(DEFAULT_FILE, bucket), issuer, datetime.now(UTC))
    if as_json:
        render.as_json(shown.as_json())
    else:
        render.account(shown)


@accounts.command()
def rollover(issuer: IssuerName, bucket: Bucket = "") -> None:
    """Give the account a new key. Certificates are not touched."""
    render.line(accounting.roll_over(Workspace(DEFAULT_FILE, bucket), issuer))


@accounts.command()
def deactivate(
    issuer: IssuerName,
    yes: Annotated[bool, typer.Option("--yes", help="It cannot be taken back.")] = False,
    bucket: Bucket = "",
) -> None:
    """End the account for good. Its certificates stay valid, and are renewed no more."""
    render.line(accounting.deactivate(Workspace(DEFAULT_FILE, bucket), issuer, yes=yes))


@accounts.command()
def records(issuer: IssuerName, bucket: Bucket = "") -> None:
    """Print the TXT records that prove names by dns-persist-01, to be set once."""
    for record in accounting.records(Workspace(DEFAULT_FILE, bucket), issuer):
        render.line(record)


@app.command()
def sandbox(file: File = DEFAULT_FILE, as_json: Json = False) -> None:
    """Run a local AWS, CA and DNS with the template deployed, until Ctrl-C."""
    _without_profile()
    # moto and all else that the sandbox needs is an extra; the other commands do without.
    from cli.local_cloud import serve

    serve(file, Workspace(file).text(), as_json)


@app.command()
def demo(file: File = DEFAULT_FILE) -> None:
    """Show certificates travel through the template's functions to every kind of target."""
    started = time.monotonic()
    _without_profile()
    from cli.demo import demo as run_demo

    if not run_demo(file, Workspace(file).text(), started):
        raise typer.Exit(FAILED)


def _without_profile() -> None:
    """The sandbox has no profiles; moto cannot even be imported while a missing one is named."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        os.environ.pop(name, None)


def main() -> None:
    try:
        app()
    except (PipelinesInvalid, BadInput) as error:
        render.error(error)
        sys.exit(BAD_INPUT)
    except CertrailError as error:
        render.error(error)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
