"""The guided tour: certificates travel through the template's functions to every target.

It believes nothing that certrail says of itself: every check compares with what AWS, here the
sandbox's, has, or counts the calls in its journal.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.markup import escape

from certrail.bundle import short
from certrail.errors import CertrailError
from cli import render
from cli.local_cloud import LocalCloud, become_its_client, local_cloud
from cli.plan import TargetPlan, plan
from cli.workspace import Workspace, issue_here
from sandbox.calls import Call
from sandbox.world import furnish

# How long the functions may take to bring one change everywhere, in seconds.
PATIENCE = 60.0
ADDED = "tls/added/bundle"
# Where what points to an import is written.
ENDPOINT_SERVICES = ("apigateway", "cloudfront", "elasticloadbalancing")

Shown = dict[tuple[str, str], TargetPlan]


@dataclass
class Tour:
    """What the steps share. wrong: everything that was not as it should be."""

    cloud: LocalCloud
    workspace: Workspace
    started: float
    wrong: list[str] = field(default_factory=list)

    def title(self, text: str) -> None:
        render.out.print(f"\n[bold]{escape(text)}[/]")

    def step(self, who: str, text: str) -> None:
        seconds = time.monotonic() - self.started
        render.out.print(f"  [dim]{seconds:5.1f} s[/]  [cyan]{who:<15}[/] {escape(text)}")

    def check(self, good: bool, text: str) -> None:
        render.out.print(f"  {'[green]✓[/]' if good else '[red]✗[/]'} {escape(text)}")
        if not good:
            self.wrong.append(text)

    def settle(self) -> None:
        """Wait until no event, message or invocation is under way."""
        functions = self.cloud.sandbox.functions
        try:
            functions.idle(PATIENCE)
        except CertrailError as error:
            self.check(False, str(error))
        for failure in functions.failures:
            self.check(False, f"a function failed: {failure}")

    def look(self) -> Shown:
        """What AWS says that every target holds, by pipeline and address."""
        plans = plan(self.workspace, None, datetime.now(UTC))
        return {(one.name, each.address): each for one in plans for each in one.targets}


def demo(file: Path, text: str, started: float) -> bool:
    """Run the tour. Returns whether everything was as it should be.

    started: on the monotonic clock, when the command was given.
    """
    render.out.print("[bold]certrail demo[/]  a local AWS, a real ACME CA, template.yaml as it is")
    with local_cloud(text, str(file)) as cloud, TemporaryDirectory() as folder:
        become_its_client(cloud)
        copy = Path(folder) / file.name
        copy.write_text(cloud.text)
        tour = Tour(cloud, Workspace(copy, cloud.store.bucket), started)
        functions = ", ".join(sorted(cloud.sandbox.stack.functions))
        tour.step("sandbox", f"AWS at {cloud.sandbox.endpoint}, CA at {cloud.sandbox.directory}")
        tour.step("cloudformation", f"stack created, with {functions}")
        cloud.sandbox.server.after.append(lambda call: _narrate(tour, call))

        first = _issue_and_deploy(tour)
        _renew(tour, first)
        _add_a_target(tour, copy)
    seconds = time.monotonic() - started
    if tour.wrong:
        render.out.print(f"\n[red]{len(tour.wrong)} things were not as they should be[/]")
        for text in tour.wrong:
            render.out.print(f"  {escape(text)}")
    else:
        render.out.print(f"\n[green]Everything was as it should be[/], in {seconds:.1f} s.")
        render.out.print(
            "Next: `certrail sandbox` to play with it, README.md for your own account."
        )
    return not tour.wrong


def _issue_and_deploy(tour: Tour) -> Shown:
    tour.title("1. certrail push: the file goes to the bucket, the functions do the rest")
    tour.workspace.store.put_pipelines_text(tour.workspace.text())
    tour.settle()
    shown = tour.look()
    _table(shown)
    tour.check(
        all(each.holds and each.holds.fingerprint == each.wanted for each in shown.values()),
        f"all {len(shown)} targets hold the certificate that their pipeline should be serving",
    )
    return shown


def _renew(tour: Tour, before: Shown) -> None:
    tour.title("2. certrail issue: every certificate is renewed, due or not")
    mark = tour.cloud.sandbox.server.calls.mark()
    for pipeline in tour.workspace.local().pipelines:
        issue_here(
            tour.workspace,
            tour.workspace.local(),
            pipeline,
            timedelta(seconds=PATIENCE),
            asked=True,
        )
    tour.settle()
    after = tour.look()
    _table(after)
    journal = tour.cloud.sandbox.server.calls
    count = journal.count(since=mark)
    imports = [key for key, each in after.items() if each.step.target.type == "acm"]
    secrets = [key for key, each in after.items() if each.step.target.type == "secretsmanager"]
    tour.check(
        all(
            each.holds
            and each.holds.fingerprint == each.wanted
            and each.wanted != before[key].wanted
            for key, each in after.items()
        ),
        "every target holds the new certificate",
    )
    tour.check(
        all(_resource(after[key]) == _resource(before[key]) for key in imports),
        f"all {len(imports)} ACM certificates kept their ARN",
    )
    tour.check(
        count["acm:ImportCertificate"] == len(imports),
        f"ACM took {count['acm:ImportCertificate']} writes, one for each import",
    )
    writes = journal.writes(*ENDPOINT_SERVICES, since=mark)
    tour.check(
        not writes,
        f"CloudFront, API Gateway and the listeners took {len(writes)} writes: AWS moved them "
        "itself",
    )
    tour.check(
        count["secretsmanager:PutSecretValue"] == len(secrets),
        f"Secrets Manager took {count['secretsmanager:PutSecretValue']} new values, one a secret",
    )


def _add_a_target(tour: Tour, copy: Path) -> None:
    pipeline = tour.workspace.local().pipelines[-1]
    lines = _one_more(copy.read_text())
    tour.title(f"3. A new target for `{pipeline.name}`: edit pipelines.yaml, certrail push")
    for line in lines:
        render.out.print(f"  [green]+ {escape(line)}[/]")
    copy.write_text(_with(copy.read_text(), lines))
    sandbox = tour.cloud.sandbox
    furnish(tour.workspace.local(), sandbox.session(), sandbox.endpoint)
    before = sandbox.server.calls.mark()
    tour.workspace.store.put_pipelines_text(tour.workspace.text())
    tour.settle()
    shown = {key: each for key, each in tour.look().items() if ADDED in each.address}
    _table(shown)
    tour.check(
        len(shown) == 1
        and all(each.holds and each.holds.fingerprint == each.wanted for each in shown.values()),
        "the new target holds the certificate",
    )
    count = sandbox.server.calls.count(since=before)
    tour.check(
        count["acm:ImportCertificate"] == count["cloudfront:UpdateDistribution"] == 0,
        "nothing else was written to",
    )


def _one_more(text: str) -> list[str]:
    """The lines of one more target for the last pipeline, indented like its others."""
    indent = re.findall(r"^( *)- type:", text, re.MULTILINE)[-1]
    return [f"{indent}- type: secretsmanager", f"{indent}  name: {ADDED}"]


def _with(text: str, lines: list[str]) -> str:
    """The file with `lines` behind its last target, whatever stands behind the pipelines."""
    last = text.rindex("- type:")
    behind = re.compile(r"^\S", re.MULTILINE).search(text, last)
    end = behind.start() if behind else len(text)
    return text[:end].rstrip("\n") + "\n" + "\n".join(lines) + "\n" + text[end:]


def _resource(target: TargetPlan) -> str:
    return target.holds.resource if target.holds else ""


def _table(shown: Shown) -> None:
    rows = [("[dim]pipeline[/]", "[dim]target[/]", "[dim]AWS holds[/]", "[dim]current[/]")]
    for (pipeline, address), each in shown.items():
        holds = short(each.holds.fingerprint) if each.holds else "nothing"
        colour = "green" if each.holds and each.holds.fingerprint == each.wanted else "red"
        current = short(each.wanted or "")
        rows.append((escape(pipeline), escape(address), f"[{colour}]{holds}[/]", current))
    render.out.print()
    render.columns(rows)


def _narrate(tour: Tour, call: Call) -> None:
    """One line for each call that moves a certificate on."""
    if call.status is None or call.status >= 300 or not call.params:
        return
    match call.action, call.params:
        case "s3:PutObject", {"Key": "config/pipelines.yaml"}:
            tour.step("push", "pipelines.yaml is in the bucket")
        case "route53:ChangeResourceRecordSets", {"ChangeBatch": {"Changes": changes}}:
            done = "removed" if changes[0]["Action"] == "DELETE" else "written"
            name = changes[0]["ResourceRecordSet"]["Name"]
            records = "record" if len(changes) == 1 else "records"
            tour.step("issuer", f"{len(changes)} challenge {records} {done}: {name}")
        case "s3:PutObject", {"Key": str(key)} if key.endswith("/current.json"):
            tour.step("issuer", f"certificate published: {key.split('/')[1]}")
        case "acm:ImportCertificate", {"CertificateArn": str(arn)}:
            tour.step("acm", f"imported again under the same ARN, {call.region}: …{arn[-12:]}")
        case "acm:ImportCertificate", _:
            tour.step("acm", f"imported, {call.region}")
        case "apigateway:UpdateDomainName", {"domainName": name}:
            tour.step("apigateway", f"{name} points to the import")
        case "cloudfront:UpdateDistribution", {"Id": distribution}:
            tour.step("cloudfront", f"{distribution} points to the import")
        case "elasticloadbalancing:AddListenerCertificates", {"ListenerArn": str(arn)}:
            tour.step("listener", f"added to the list of {arn.split('/', 1)[1]}")
        case "elasticloadbalancing:ModifyListener", {"ListenerArn": str(arn)}:
            tour.step("listener", f"is the default of {arn.split('/', 1)[1]}")
        case "ssm:PutParameter", {"Name": name}:
            tour.step("parameterstore", f"written {name}")
        case "secretsmanager:CreateSecret", {"Name": name}:
            tour.step("secretsmanager", f"created {name}")
        case "secretsmanager:PutSecretValue", {"SecretId": str(secret)}:
            tour.step("secretsmanager", f"new version of {secret.rpartition(':')[2]}")
        case _:
            pass
