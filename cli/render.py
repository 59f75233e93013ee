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
from certrail.records import Record
from certrail.store import Current
from cli.account import Shown
from cli.apply import Outcome
from cli.iam import RolePolicies
from cli.orphans import Orphan, Orphans
from cli.plan import PipelinePlan, TargetPlan
from cli.reissue import Reissue
from cli.rollback import Plan
from cli.status import PipelineStatus, SelectionStatus, TargetStatus, WaveStatus
from deployers.find import Followed

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
# Of an endpoint's names; the whole list is in `--json`.
NAMES_SHOWN = 3
STATES = {
    "deployed": "green",
    "deploying": "cyan",
    "served": "green",
    "failed": "red",
    "unreadable": "red",
}
WAVES = {"passed": "green", "running": "cyan", "baking": "cyan", "stopped": "red"}


def as_json(value: Any) -> None:
    out.print(json.dumps(value, indent=2, ensure_ascii=False), markup=False)


def line(text: str) -> None:
    out.print(text, markup=False)


def error(failure: CertrailError) -> None:
    err.print(f"[red]certrail:[/] {escape(str(failure))}")


def progress(text: str) -> None:
    err.print(text, markup=False, style="dim")


class Watching(AbstractContextManager["Watching"]):
    """One line on stderr about something that takes long, told anew only when it has changed: in
    its place on a terminal, else below the one before."""

    def __init__(self) -> None:
        self._last = ""
        self._status = err.status("") if err.is_terminal else None

    def __enter__(self) -> Watching:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def tell(self, text: str) -> None:
        if text == self._last:
            return
        self._last = text
        if self._status:
            self._status.update(escape(text))
        else:
            progress(text)


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
        for followed in plan.followed:
            _selection(followed)
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


def _selection(followed: Followed) -> None:
    """What a selection finds, below its pipeline."""
    numbers = [f"finds {len(followed.targets)}"]
    numbers += [f"{len(followed.new)} new"] if followed.new else []
    numbers += [f"{len(followed.gone)} gone"] if followed.gone else []
    out.print(f"  selection {escape(str(followed.selection))}: {', '.join(numbers)}")
    rows = [(SIGNS["create"], escape(address), "new") for address in followed.new]
    rows += [
        ("[yellow]-[/]", escape(address), f"{escape(why)}; not touched, its certificate expires")
        for address, why in followed.gone.items()
    ]
    rows += [("[dim]·[/]", escape(address), escape(why)) for address, why in followed.left.items()]
    columns([("", *row) for row in rows])
    for failure in followed.errors:
        out.print(f"    [red]![/] {escape(str(failure))}")


def outcomes(each: Sequence[Outcome]) -> None:
    rows = []
    for outcome in each:
        done = outcome.result in {"issued", "deployed", "served"}
        colour = "red" if outcome.error else "green" if done else "dim"
        rows.append(
            (
                f"[{colour}]{outcome.result}[/]",
                escape(outcome.pipeline),
                escape(outcome.what),
                short(outcome.fingerprint or ""),
                escape(str(outcome.error or outcome.note)),
            )
        )
    columns(rows)


def statuses(each: Sequence[PipelineStatus], now: datetime) -> None:
    for status in each:
        out.print(f"[bold]{escape(status.name)}[/]  {_certificate(status, now)}")
        for text in _issuing(status, now):
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
        for selection in status.selections:
            out.print(f"  {_looked_for(selection)}")
        columns([_wave(wave) for wave in status.waves])
    failed = sum(status.failed for status in each)
    coming = sum(status.due is not None for status in each)
    if failed:
        out.print(f"[red]{failed} of {len(each)} pipelines failed[/]")
    elif coming:
        out.print(f"nothing failed; {coming} of {len(each)} certificates are to be issued")
    else:
        out.print("all is well")


def orphans(found: Orphans) -> None:
    listed = [each for each in found.found if not each.ignored]
    columns(
        [
            (
                escape(each.address),
                escape(str(each.at)),
                escape(_some(each.names)),
                _ends(each),
                f"covered by {escape(', '.join(each.pipelines))}" if each.pipelines else "",
            )
            for each in listed
        ]
    )
    for failure in found.failures:
        out.print(f"[red]![/] {escape(str(failure))}")
    ignored = len(found.found) - len(listed)
    passed = f"; {ignored} passed over by {'its' if ignored == 1 else 'their'} tag"
    if listed:
        count = "1 endpoint is" if len(listed) == 1 else f"{len(listed)} endpoints are"
        said = f"{count} not reached by a pipeline"
    elif not found.failures:
        said = "every endpoint is reached by a pipeline"
    else:
        said = "none was found that no pipeline reaches"
    out.print(said + (passed if ignored else ""))
    if found.failures:
        out.print("[red]not everything could be looked at[/]")


def _some(names: Sequence[str]) -> str:
    """The first names of perhaps many."""
    shown = ", ".join(names[:NAMES_SHOWN])
    more = len(names) - NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown or "names not known"


def _ends(orphan: Orphan) -> str:
    if orphan.renews:
        return "renewed by ACM"
    return f"until {orphan.not_after:%Y-%m-%d}" if orphan.not_after else "end not known"


def reissue_line(state: Reissue) -> str:
    text = f"{len(state.done)} of {state.total} reissued"
    if state.waiting:
        text += f", {len(state.waiting)} to come"
        if state.next_attempt:
            text += f" (next attempt {_at(state.next_attempt)})"
    if state.failed:
        text += f", {len(state.failed)} failed"
    return text


def account(shown: Shown) -> None:
    waiting = [f"{name} until {_at(moment)}" for name, moment in shown.left.waiting.items()]
    certificates = [f"{count} for {name}" for name, count in shown.left.certificates.items()]
    rows = {
        "account": [shown.account],
        "directory": [shown.directory],
        "key": [shown.thumbprint],
        "profiles": list(shown.profiles) or ["none"],
        "renewal windows": ["told by the CA" if shown.renewal_windows else "not told by the CA"],
        "orders left": [_orders_left(shown)],
        "certificates left": certificates or ["all" if shown.counted else "not counted"],
        "waiting": waiting or ["nothing"],
    }
    columns([(f"[dim]{name}[/]", escape(", ".join(texts))) for name, texts in rows.items()])


def _orders_left(shown: Shown) -> str:
    return "not counted" if shown.left.orders is None else str(shown.left.orders)


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
        f"{short(status.current.fingerprint)}  {status.state}, "
        f"generation {status.current.generation}, {left} days left"
    )


def _wave(wave: WaveStatus) -> tuple[str, str, str, str]:
    why = f"baked {_at(wave.until)}" if wave.until else wave.why
    there = {
        "served": len(wave.there.served),
        "deployed": len(wave.there.deployed),
        "served but for a few machines": len(wave.there.tolerated),
    }
    how = [(word, count) for word, count in there.items() if count] or [("done", 0)]
    (word, count), *more = how
    return (
        f"[{WAVES.get(wave.state, 'dim')}]{wave.state}[/]",
        f"wave {escape(wave.name)}",
        ", ".join([f"{count} of {wave.of} {word}", *(f"{count} {word}" for word, count in more)]),
        why,
    )


def way_back(plan: Plan) -> list[str]:
    """What a rollback will do, said before."""
    to = plan.way.to
    where = (
        "to every target at once"
        if plan.everywhere
        else "at once where the current one was, and in its waves where this one never was"
    )
    lines = [
        f"{plan.pipeline}: from {short(plan.after.value.fingerprint)} back to "
        f"{short(to.fingerprint)}, until {to.facts.not_after:%Y-%m-%d}: {where}, "
        f"as generation {plan.after.value.generation + 1}",
        "A secret's version stage moves back; into ACM it is imported again. Nothing is renewed "
        "by itself for a day.",
    ]
    return [*lines, *plan.way.notes]


def _issuing(status: PipelineStatus, now: datetime) -> list[str]:
    lines = []
    foreign = status.standing.pipeline.incoming is not None
    if status.current:
        issued = status.current.issued
        by = f"[yellow]issued by {escape(issued.issuer)}[/]"
        lines += [
            f"{by} instead of {escape(name)}: {_inside(why)}"
            for name, why in issued.instead_of.items()
        ]
    if back := status.rolled_back:
        lines.append(
            f"[yellow]rolled back[/] from {short(back.of)} at {_at(back.at)} by "
            f"{escape(back.by)}: {_inside(back.reason)}"
        )
        if status.held_until and now < status.held_until:
            lines.append(f"[dim]not renewed before {_at(status.held_until)}, unless asked for[/]")
    if status.rollout and status.rollout.failed:
        lines.append(f"[red]goes no further:[/] {_inside(status.rollout.failed)}")
    if status.waits_for:
        since = f" since {_at(status.waits_since)}" if status.waits_since else ""
        lines.append(f"[yellow]its next wave waits{since}:[/] {_inside(status.waits_for)}")
    if late := status.late:
        more = f", and {late.others} more hold an earlier one, too" if late.others else ""
        lines.append(
            f"[red]soon ends:[/] {escape(late.record.address)} still holds "
            f"{late.what}, until {_at(late.not_after)}{more}"
        )
    if when := status.standing.window:
        said = f"renewal {_at(when.moment)}"
        if when.by_ca:
            said += f", in the CA's window from {_at(when.start)} to {_at(when.end)}"
        if foreign and status.past_window:
            lines.append(f"[red]nothing newer came in[/] by {_at(when.end)}")
        elif foreign:
            lines.append(f"[dim]the next one is awaited by {_at(when.end)}[/]")
        elif status.past_window:
            lines.append(f"[red]past its renewal window[/], which ended {_at(when.end)}")
        else:
            lines.append(f"[dim]{said}[/]")
    if (known := status.standing.known) and known.explanation:
        lines.append(f"the CA explains its window: {escape(known.explanation)}")
    if known and known.error:
        lines.append(f"[yellow]the CA did not say when to renew:[/] {_inside(known.error)}")
    if status.due:
        lines.append(f"[yellow]to be issued:[/] {escape(status.due.text)}")
    progress = status.progress
    if progress and progress.error:
        times = f" ({progress.attempts} times)" if progress.attempts > 1 else ""
        what = "not taken in" if foreign else "not issued"
        lines.append(f"[red]{what}{times}:[/] {_inside(progress.error)}")
    if progress and progress.waits_for:
        lines.append(f"[yellow]waits:[/] {_inside(progress.waits_for)}")
    if progress and progress.next_attempt:
        over = progress.next_attempt <= now
        lines.append(f"next attempt {'any time now' if over else _at(progress.next_attempt)}")
    return lines


def _looked_for(selection: SelectionStatus) -> str:
    text = f"selection {escape(str(selection.selection))}:"
    if selection.found is None:
        return f"[yellow]{text}[/] nobody has looked yet"
    count = f"{len(selection.found.targets)} found"
    if selection.found.gone:
        gone = ", ".join(selection.found.gone)
        count += f", no more since {_at(selection.found.at)}: {escape(gone)}"
    if selection.error:
        return f"[red]{text}[/] {count}; {_inside(selection.error)}"
    return f"[dim]{text} {count}[/]"


def _inside(text: str) -> str:
    """A text of perhaps several lines, below a pipeline."""
    return escape(text.replace("\n", "\n    "))


def _remark(target: TargetStatus) -> str:
    if target.error:
        return str(target.error)
    record = target.record
    if record is None:
        return target.step.reason
    if record.error:
        again = record.next_attempt
        when = f"next attempt {_at(again)}" if again else "not tried again before something changes"
        if record.check and record.check.failed:
            when = f"looked at again {_at(record.check.next)}" if record.check.next else ""
        return f"{record.error} ({when})"
    remark = _seen(record) + _whence(record)
    return remark + (f"; {record.repaired}" if record.repaired else "")


def _seen(record: Record) -> str:
    """Since when clients get it, or since when it is there."""
    if record.check is None:
        return f"since {_at(record.at)}"
    saw = f"{record.check.saw}" if record.check.saw else ""
    if record.check.served_at:
        return f"since {_at(record.check.served_at)}" + (f" ({saw})" if saw else "")
    again = record.check.next or record.check.until
    return (
        "not served yet"
        + (f": {saw}" if saw else "")
        + (f" (next look {_at(again)}, to be served by {_at(record.check.until)})")
    )


def _whence(record: Record) -> str:
    # Of an ARN, the name of the session or the user.
    by = record.by.rpartition("/")[2]
    before = record.before if record.before != record.fingerprint else None
    return (f", by {by}" if by else "") + (f", before {short(before)}" if before else "")


def _sign(target: TargetPlan) -> str:
    return SIGNS["failed"] if target.error else SIGNS.get(target.action, CHANGES)


def _change(target: TargetPlan) -> str:
    held = short(target.holds.fingerprint) or "another" if target.holds else "none"
    wanted = short(target.wanted or "") or "?"
    return held if held == wanted else f"{held} → {wanted}"


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def roles(found: Sequence[RolePolicies]) -> None:
    for role in found:
        whose = f"account {role.account}" if role.account else "this account"
        line(f"# {whose}: {role.role}")
        if role.trust:
            line("\n## Trust policy\n")
            as_json(role.trust)
        for number, policy in enumerate(role.policies, 1):
            line(f"\n## Policy {number} of {len(role.policies)}\n")
            as_json(policy)
        if not role.policies:
            line("\nNothing in the file acts there.")
        line("")
