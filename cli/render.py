"""What people read: tables on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from certrail.bundle import short
from certrail.errors import CertrailError
from certrail.store import Current
from cli.apply import Outcome
from cli.plan import PipelinePlan, TargetPlan
from cli.status import PipelineStatus, TargetStatus

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

SIGNS = {
    "create": "[green]+[/]",
    "none": "[dim]=[/]",
    "wait": "[dim]…[/]",
    "busy": "[cyan]…[/]",
    "failed": "[red]![/]",
}
CHANGES = "[yellow]~[/]"
STATES = {"deployed": "green", "deploying": "cyan", "failed": "red", "unreadable": "red"}


def as_json(value: Any) -> None:
    out.print(json.dumps(value, indent=2, ensure_ascii=False), markup=False)


def line(text: str) -> None:
    out.print(text, markup=False)


def error(failure: CertrailError) -> None:
    err.print(f"[red]certrail:[/] {escape(str(failure))}")


def progress(text: str) -> None:
    err.print(text, markup=False, style="dim")


def working(what: str) -> AbstractContextManager[Any]:
    """A spinner on stderr while something takes long; nothing where stderr is no terminal."""
    return err.status(f"{what} …")


def current_line(current: Current | None) -> str:
    if current is None:
        return "nothing was issued: another run has just done it"
    until = f"{current.facts.not_after:%Y-%m-%d}"
    return (
        f"{current.pipeline}: generation {current.generation}, {short(current.fingerprint)}, "
        f"{', '.join(current.facts.domains)}, until {until}"
    )


def current_json(current: Current | None) -> dict[str, Any] | None:
    if current is None:
        return None
    return {
        "pipeline": current.pipeline,
        "generation": current.generation,
        "fingerprint": current.fingerprint,
        "domains": list(current.facts.domains),
        "not_after": current.facts.not_after.isoformat(),
    }


def plans(each: Sequence[PipelinePlan]) -> None:
    for plan in each:
        out.print(f"[bold]{escape(plan.name)}[/]  {escape(' '.join(plan.domains))}")
        for failure in plan.failures if not plan.targets else ():
            out.print(f"  [red]![/] {escape(str(failure))}")
        rows = []
        if plan.due:
            sign = CHANGES if plan.current else SIGNS["create"]
            rows.append((sign, "certificate", "", f"issue: {escape(plan.due.text)}"))
        elif plan.current:
            facts = plan.current.facts
            until = f"until {facts.not_after:%Y-%m-%d}, generation {plan.current.generation}"
            rows.append((SIGNS["none"], "certificate", short(facts.fingerprint), until))
        rows += [
            (_sign(target), escape(target.address), _change(target), escape(target.reason))
            for target in plan.targets
        ]
        columns(rows)
    waiting = sum(plan.waits for plan in each)
    unknown = sum(bool(plan.failures) for plan in each)
    if waiting or not unknown:
        out.print(
            f"{waiting} of {len(each)} pipelines would change"
            if waiting
            else "nothing would change"
        )
    if unknown:
        out.print(f"[red]{unknown} of {len(each)} pipelines could not be read in full[/]")


def outcomes(each: Sequence[Outcome]) -> None:
    rows = []
    for outcome in each:
        done = outcome.result in {"issued", "deployed"}
        colour = "red" if outcome.error else "green" if done else "dim"
        rows.append(
            (
                f"[{colour}]{outcome.result}[/]",
                escape(outcome.pipeline),
                escape(outcome.what),
                short(outcome.fingerprint or ""),
                escape(str(outcome.error or "")),
            )
        )
    columns(rows)


def statuses(each: Sequence[PipelineStatus], now: datetime) -> None:
    for status in each:
        out.print(f"[bold]{escape(status.name)}[/]  {_certificate(status, now)}")
        for text in _issuing(status):
            out.print(f"  {text}")
        rows = []
        for target in status.targets:
            colour = STATES.get(target.state, "dim")
            held = target.record.held if target.record else None
            rows.append(
                (
                    f"[{colour}]{target.state}[/]",
                    escape(target.address),
                    short(held.fingerprint) if held else "",
                    escape(_remark(target)),
                )
            )
        columns(rows)
    failed = sum(status.failed for status in each)
    out.print(f"[red]{failed} of {len(each)} pipelines failed[/]" if failed else "all is well")


def columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of markup under each other. Not rich's own table: that shortens what does not fit,
    and the end of an error is what to do about it."""
    widths = [max(map(cell_width, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell + " " * (width - cell_width(cell)) for cell, width in zip(row, widths, strict=True)
        ]
        out.print("  " + "  ".join(cells).rstrip())


def cell_width(markup: str) -> int:
    return Text.from_markup(markup).cell_len


def _certificate(status: PipelineStatus, now: datetime) -> str:
    if status.error:
        return f"[red]{escape(str(status.error))}[/]"
    if status.current is None:
        return "[yellow]no certificate yet[/]"
    left = (status.current.facts.not_after - now).days
    return (
        f"{short(status.current.fingerprint)}  generation {status.current.generation}, "
        f"{left} days left"
    )


def _issuing(status: PipelineStatus) -> list[str]:
    lines = []
    if status.due:
        lines.append(f"[yellow]due:[/] {escape(status.due.text)}")
    if status.progress and status.progress.error:
        lines.append(f"[red]not issued:[/] {escape(status.progress.error)}")
        if status.progress.next_attempt:
            lines.append(f"next attempt {_at(status.progress.next_attempt)}")
    return lines


def _remark(target: TargetStatus) -> str:
    if target.error:
        return str(target.error)
    record = target.record
    if record is None:
        return target.step.reason
    if record.error:
        again = record.next_attempt
        when = f"next attempt {_at(again)}" if again else "not tried again before something changes"
        return f"{record.error} ({when})"
    return f"since {_at(record.at)}"


def _sign(target: TargetPlan) -> str:
    return SIGNS["failed"] if target.error else SIGNS.get(target.action, CHANGES)


def _change(target: TargetPlan) -> str:
    held = short(target.holds.fingerprint) or "another" if target.holds else "none"
    wanted = short(target.wanted or "") or "?"
    return held if held == wanted else f"{held} → {wanted}"


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
