"""The finder: works out what the selections of the file find, and writes it down for the router.

The bucket's `found/<pipeline>.json` is written only where something changed: that is an event, and
the router looks at the pipeline. A selection that cannot be looked for, or that finds too much,
keeps what it found before; it is counted and told every hour until it is well again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from certrail import log
from certrail.aws import Aws
from certrail.bundle import covers
from certrail.errors import CertrailError, NothingPushed, raise_together
from certrail.pipelines import Pipeline, Pipelines, load
from certrail.records import Found, Selected
from certrail.store import CONFIG_KEY, Store, Versioned, found_key
from certrail.target import with_needs
from certrail.telling import put_metrics
from deployers.find import Followed, look_everywhere, settle
from deployers.inventory import Inventory
from deployers.kinds.all import AnyTarget
from deployers.telling import Telling
from deployers.view import TARGET

logger = logging.getLogger(__name__)

METRIC = "SelectionsFailed"
# Of what the finder does not even look for any more.
REMOVED = ("a selection", "was found by one that the file does not have any more")
FOUND = "found/"


def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point of the schedule, and of a pipelines file that was pushed."""
    log.to_lambda()
    aws = _aws()
    store = Store(os.environ["CERTRAIL_BUCKET"], aws)
    now = datetime.now(UTC)
    try:
        text = store.pipelines_text()
    except NothingPushed as error:
        # The state of every new stack, and no reason to wake anybody.
        logger.info("nothing to do: %s", error)
        return {}
    file = load(text, CONFIG_KEY, Pipelines[AnyTarget])
    findings = find(store, Inventory(aws, file.accounts), file, now)
    if store.pipelines_text() != text:
        # That was an event, too, and its run knows better what is meant.
        logger.info("the file was pushed while this run looked: what it saw is not kept")
        return {}
    by = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "finder")
    tell = partial(tell_lost, Telling(aws, store.bucket, now, by), file, findings)
    failures = {**findings.failures, **keep(store, findings, now, tell)}
    log_news(findings)
    count_failed(findings, now)
    raise_together(
        "what some selections find could not be read or written", list(failures.values())
    )
    return {}


@cache
def _aws() -> Aws:
    # Kept while the function is warm: clients take longer to make than most runs take.
    return Aws()


@dataclass(frozen=True)
class Findings:
    """What the selections find, by pipeline: of those that were looked for.

    before: as the bucket has it, where it has something. failures: by pipeline, why its selections
    were left alone.
    """

    followed: Mapping[str, Sequence[Followed]]
    before: Mapping[str, Versioned[Found]]
    failures: Mapping[str, CertrailError] = field(default_factory=dict)

    def of(self, pipeline: str) -> Found:
        """As it stands now, without the moments."""
        followed = self.followed.get(pipeline, ())
        return Found(pipeline, tuple(each.as_record(datetime.min) for each in followed))


def find(
    store: Store,
    inventory: Inventory,
    file: Pipelines[AnyTarget],
    now: datetime,
    chosen: Collection[str] | None = None,
) -> Findings:
    """Look for what the selections of the file find. Reads only.

    chosen: names of the pipelines to look for; what the others found before stays. None for all.
    Raises AwsError where the bucket cannot be read.
    """
    before: dict[str, Versioned[Found]] = {}
    unreadable: dict[str, CertrailError] = {}
    there = set(store.keys(FOUND))
    for pipeline in file.pipelines:
        if found_key(pipeline.name) in there:
            try:
                seen = store.read(found_key(pipeline.name), Found)
            except CertrailError as error:
                unreadable[pipeline.name] = error
            else:
                before |= {pipeline.name: seen} if seen else {}
    known = [
        # What it names itself counts all the same.
        replace(pipeline, selections=()) if pipeline.name in unreadable else pipeline
        for pipeline in file.pipelines
    ]
    wanted = [
        pipeline
        for pipeline in known
        if pipeline.selections and (chosen is None or pipeline.name in chosen)
    ]
    names: dict[str, Sequence[str]] = {}
    failures = dict(unreadable)
    for pipeline in list(wanted):
        try:
            names[pipeline.name] = _names(store, pipeline)
        except CertrailError as error:
            failures[pipeline.name] = error
            wanted.remove(pipeline)
    looks = look_everywhere(wanted, inventory, names)
    values = {name: seen.value for name, seen in before.items()}
    followed = settle(known, values, looks, now, nothing_new=bool(unreadable))
    return Findings(
        {pipeline.name: followed[pipeline.name] for pipeline in wanted},
        {name: seen for name, seen in before.items() if chosen is None or name in chosen},
        failures,
    )


def _names(store: Store, pipeline: Pipeline[Any]) -> Sequence[str]:
    """What a certificate covers that is there now and will be there after the next renewal."""
    if not any(selection.by_names for selection in pipeline.selections):
        return ()
    current = store.current(pipeline.name)
    if current is None:
        return pipeline.domains
    there, wanted = current.facts.domains, pipeline.domains
    both = [name for name in wanted if covers(there, name)]
    return [*both, *(name for name in there if covers(wanted, name) and name not in both)]


def tell_nobody(pipeline: str) -> None:
    pass


def keep(
    store: Store,
    findings: Findings,
    now: datetime,
    tell: Callable[[str], None] = tell_nobody,
) -> dict[str, CertrailError]:
    """Write down what changed. Returns why something could not be written, by pipeline: also where
    another run wrote meanwhile, which may have looked for what an earlier file means.

    tell: called with the name of each pipeline of which this run wrote what its selections find.
    """
    failures: dict[str, CertrailError] = {}
    for name in sorted(findings.followed.keys() | findings.before.keys()):
        if name in findings.failures:
            continue
        seen = findings.before.get(name)
        now_found = _dated(findings.of(name), seen.value if seen else Found(name), now)
        if now_found == (seen.value if seen else Found(name)):
            continue
        try:
            store.write(found_key(name), now_found, Found, seen.etag if seen else None)
        except CertrailError as error:
            failures[name] = error
        else:
            tell(name)
    return failures


def _dated(found: Found, before: Found, now: datetime) -> Found:
    """With the moment of what changed; what did not change stays as it was written."""
    known = {selected.key: selected for selected in before.selections}

    def dated(selected: Selected) -> Selected:
        old = known.get(selected.key)
        if old and replace(old, at=selected.at, gone=()) == replace(selected, gone=()):
            return old
        return replace(selected, at=now)

    return Found(found.pipeline, tuple(dated(selected) for selected in found.selections))


def tell_lost(
    telling: Telling, file: Pipelines[AnyTarget], findings: Findings, pipeline: str
) -> None:
    """Tell what the selections of a pipeline find no more. What the file reaches otherwise does not
    expire there."""
    named = {address for each in file.pipelines for address in with_needs(each.targets)}
    found = {
        target.address
        for several in findings.followed.values()
        for each in several
        for target in each.targets
    }
    gone = {
        address: (str(each.selection), why)
        for each in findings.followed.get(pipeline, ())
        for address, why in each.gone.items()
    }
    before = findings.before.get(pipeline)
    for selected in before.value.selections if before else ():
        for job in selected.targets:
            target = TARGET.validate_python(job)
            if target.address not in named | found:
                selection, why = gone.get(target.address, REMOVED)
                telling.lost(pipeline, target, selection, why)


def log_news(findings: Findings) -> None:
    """What is new, what is gone, and what is wrong."""
    for name, followed in findings.followed.items():
        about = {"pipeline": name}
        for each in followed:
            for address in each.new:
                logger.info("%s finds %s", each.selection, address, extra=about)
            for address, why in each.gone.items():
                logger.warning(
                    "%s is no target of %s any more: it %s. Nothing there is touched, and the "
                    "certificate that it has expires there",
                    address,
                    each.selection,
                    why,
                    extra=about,
                )
            for error in each.errors:
                logger.error("%s", error, extra=about)


def count_failed(findings: Findings, now: datetime) -> None:
    """How many selections failed; 0, too, ends the alarm."""
    failed = [
        f"{name}: {each.selection}"
        for name, followed in findings.followed.items()
        for each in followed
        if each.errors
    ]
    count = len(failed) + len(findings.failures)
    put_metrics(now, {METRIC: (count, "Count")}, [[]], selections="; ".join(failed))
