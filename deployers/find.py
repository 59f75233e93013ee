"""What the selections of a file find, and what is followed of it.

Looking is reading AWS; what is followed is a pure function of what was seen, of what was found
before and of what the file names. It does not depend on the order in which AWS lists things, and
the same things found again change nothing.

Who has what, where two pipelines find the same: first the one whose file entry names it, then the
one that found it before, then the one that stands first in the file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from certrail.bundle import covers
from certrail.errors import CertrailError, OverLimit
from certrail.keys import KeyType
from certrail.pipelines import Pipeline
from certrail.pipelines.selection import IGNORE, Candidate, Item, Location, Selection
from certrail.records import Found, Selected
from certrail.target import Target, as_job, with_needs
from deployers.inventory import Inventory

# Locations looked at at once. Within one, one call follows the other: services limit calls by
# account and region.
LOOKERS = 8
# Without `limit`: the most the first time, and how many more than twice as many as before.
AT_FIRST = 25
MORE = 3


@dataclass(frozen=True)
class Look:
    """What one selection sees. passed: why something it means is no target, by id. unseen: where it
    could not look. errors: why, and whatever else was wrong."""

    candidates: tuple[Candidate, ...] = ()
    passed: Mapping[str, str] = field(default_factory=dict)
    unseen: frozenset[Location] = frozenset()
    errors: tuple[CertrailError, ...] = ()


@dataclass(frozen=True)
class Followed:
    """What one selection finds. targets: by address, in its order. new, gone: against before; gone
    by address, with the reason. left: what is there, by address, and why it is not followed."""

    selection: Selection
    targets: tuple[Target, ...]
    new: tuple[str, ...] = ()
    gone: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[CertrailError, ...] = ()
    since: datetime | None = None

    def as_record(self, now: datetime) -> Selected:
        return Selected(
            key=self.selection.key,
            targets=tuple(as_job(target) for target in self.targets),
            at=now,
            error="\n".join(map(str, self.errors)) or None,
            since=self.since,
            gone=tuple(sorted(self.gone)),
        )


Which = tuple[str, str]  # a pipeline's name and a selection's key


def look_everywhere(
    pipelines: Iterable[Pipeline[Any]], inventory: Inventory, names: Mapping[str, Sequence[str]]
) -> dict[Which, Look]:
    """What each selection sees, wherever it looks. names: of the certificate, by pipeline."""
    there: dict[Location, list[tuple[Pipeline[Any], Selection]]] = defaultdict(list)
    looks: dict[Which, Look] = {}
    for pipeline in pipelines:
        for selection in pipeline.selections:
            looks[pipeline.name, selection.key] = Look()
            for at in selection.locations:
                there[at].append((pipeline, selection))

    def look_at(at: Location) -> list[tuple[Which, Look]]:
        return [
            (
                (pipeline.name, selection.key),
                look(selection, at, inventory, names[pipeline.name], pipeline.key_type),
            )
            for pipeline, selection in there[at]
        ]

    with ThreadPoolExecutor(LOOKERS) as lookers:
        for seen in lookers.map(look_at, there):
            for which, more in seen:
                looks[which] = _both(looks[which], more)
    return looks


def look(
    selection: Selection,
    at: Location,
    inventory: Inventory,
    names: Sequence[str],
    key_type: KeyType,
) -> Look:
    """What a selection sees at one location."""
    try:
        items = inventory.items(selection.type, at)
        if selection.reads_tags:
            items = inventory.tagged(at, items)
        if selection.reads_certificates:
            items = inventory.with_certificates(at, items)
        candidates, broken = selection.chosen(at, items, names)
        tagged = {each.id: each for each in inventory.tagged(at, (c.item for c in candidates))}
    except CertrailError as error:
        return Look(unseen=frozenset({at}), errors=(error,))
    passed = {
        candidate.target.address: why
        for candidate in candidates
        if (why := _unfit(candidate, tagged.get(candidate.item.id), key_type))
    }
    fit = (each for each in candidates if each.target.address not in passed)
    return Look(tuple(fit), passed, errors=tuple(broken))


def _unfit(candidate: Candidate, tagged: Item | None, key_type: KeyType) -> str | None:
    """Why something that is meant is no target all the same. tagged: None where it has gone."""
    if tagged is None:
        return "is not there any more"
    if tagged.ignored:
        return f"has the tag {IGNORE}"
    if any(key_type not in each.key_types for each in with_needs([candidate.target]).values()):
        return f"cannot serve a key of type {key_type}"
    return None


def _both(one: Look, other: Look) -> Look:
    return Look(
        one.candidates + other.candidates,
        {**one.passed, **other.passed},
        one.unseen | other.unseen,
        one.errors + other.errors,
    )


# What is followed


@dataclass(frozen=True)
class Before:
    """What a selection found before. since: when it was first followed, None where it never was."""

    targets: tuple[Target, ...] = ()
    since: datetime | None = None


def settle(
    pipelines: Sequence[Pipeline[Any]],
    found: Mapping[str, Found],
    looks: Mapping[Which, Look],
    now: datetime,
    *,
    nothing_new: bool = False,
) -> dict[str, list[Followed]]:
    """What is followed of what was seen, by pipeline, in the order of its selections.

    pipelines: all of the file. found: before, by pipeline. looks: of a selection without one, all
    stays as it is. nothing_new: where nobody knows what some pipeline found before, what is free
    may be its.
    """
    before = {
        (pipeline.name, selection.key): _before(pipeline, selection, found.get(pipeline.name))
        for pipeline in pipelines
        for selection in pipeline.selections
    }
    holders = Holders(pipelines)
    for pipeline in pipelines:
        for selection in pipeline.selections:
            which = (pipeline.name, selection.key)
            for target in before[which].targets:
                if _stays(target, selection, looks.get(which)):
                    holders.hold(pipeline, target)
    return {
        pipeline.name: _follow(pipeline, before, looks, holders, now, nothing_new=nothing_new)
        for pipeline in pipelines
        if pipeline.selections
    }


class Holders:
    """Which pipelines have which places. What the file says itself comes first."""

    def __init__(self, pipelines: Iterable[Pipeline[Any]]) -> None:
        self._claims: dict[str, str] = {}
        self._named: dict[str, dict[str, Pipeline[Any]]] = defaultdict(dict)
        self._found: dict[str, dict[str, Pipeline[Any]]] = defaultdict(dict)
        for pipeline in pipelines:
            # A fleet's secret is written for it, whether the file names it or not.
            for target in with_needs(pipeline.targets).values():
                self._named[target.address][pipeline.name] = pipeline
                if target.claim is not None:
                    self._claims[target.claim] = pipeline.name

    def hold(self, pipeline: Pipeline[Any], target: Target) -> None:
        """Where it is free: what somebody has already stays his."""
        if self.holder(pipeline, target) is None:
            if target.claim is not None:
                self._claims[target.claim] = pipeline.name
            self._found[target.address][pipeline.name] = pipeline

    def holder(self, pipeline: Pipeline[Any], target: Target) -> str | None:
        """The other pipeline that holds it, None where it is free or this one's."""
        holder = self._claims.get(target.claim) if target.claim is not None else None
        return None if holder == pipeline.name else holder

    def who_covers(self, pipeline: Pipeline[Any], candidate: Candidate, *, new: bool) -> str | None:
        """The other pipeline that is there, with all the names for which it was found; None where
        there is none. new: whether this one was not there before: else it gives way only to one
        that the file names. Of one entry's certificates with several keys, each may be there."""
        address = candidate.target.address
        there = {**self._named[address], **(self._found[address] if new else {})}
        for other in there.values():
            if other.entry != pipeline.entry and all(
                covers(other.domains, name) for names in candidate.because for name in names
            ):
                return other.name
        return None


def _before(pipeline: Pipeline[Any], selection: Selection, found: Found | None) -> Before:
    """What this selection found before. One that was changed in the file takes over what those of
    its kind found that are not in the file any more."""
    if found is None:
        return Before()
    keys = {each.key for each in pipeline.selections}
    own = [each for each in found.selections if each.key == selection.key]
    replaced = [each for each in found.selections if each.key not in keys]
    targets: dict[str, Target] = {}
    since: list[datetime] = []
    for selected in own or replaced:
        jobs = [job for job in selected.targets if job["type"] == selection.type]
        for job in jobs:
            try:
                target = selection.again(job)
            except ValidationError:
                continue  # the file says something of it now that it cannot be
            targets.setdefault(target.address, target)
        if selected.since and (jobs or own):
            since.append(selected.since)
    return Before(tuple(targets[address] for address in sorted(targets)), min(since, default=None))


def _stays(target: Target, selection: Selection, seen: Look | None) -> bool:
    """Whether what was found before was seen again, or could not be looked for."""
    at = selection.at(target)
    if at not in selection.locations:
        return False
    if seen is None or at in seen.unseen:
        return True
    return any(
        becomes.claim == target.claim or target.claim is None
        for each in seen.candidates
        if each.target.address == target.address
        if (becomes := each.after(target))
    )


def _follow(
    pipeline: Pipeline[Any],
    before: Mapping[Which, Before],
    looks: Mapping[Which, Look],
    holders: Holders,
    now: datetime,
    *,
    nothing_new: bool,
) -> list[Followed]:
    taken = set(with_needs(pipeline.targets))
    done: list[Followed] = []
    for selection in pipeline.selections:
        which = (pipeline.name, selection.key)
        followed = _follow_one(
            pipeline,
            selection,
            before[which],
            looks.get(which),
            holders,
            taken,
            now,
            nothing_new=nothing_new,
        )
        for target in followed.targets:
            holders.hold(pipeline, target)
            taken.add(target.address)
        done.append(followed)
    return done


def _follow_one(
    pipeline: Pipeline[Any],
    selection: Selection,
    before: Before,
    seen: Look | None,
    holders: Holders,
    taken: Iterable[str],
    now: datetime,
    *,
    nothing_new: bool,
) -> Followed:
    """taken: what the pipeline has already, by address."""
    left: dict[str, str] = {} if seen is None else dict(seen.passed)
    old = {each.address: each for each in before.targets if each.address not in taken}
    then = frozenset(old)
    for address, was in list(old.items()):
        if selection.at(was) not in selection.locations:
            left[address] = "is where the selection does not look any more"
            del old[address]
        elif holder := holders.holder(pipeline, was):
            left[address] = f"belongs to pipeline `{holder}`"
            del old[address]
    if seen is None:
        return _followed(selection, then, old, left, (), before.since)
    targets = {address: was for address, was in old.items() if selection.at(was) in seen.unseen}
    for candidate in sorted(seen.candidates, key=lambda each: each.target.address):
        address = candidate.target.address
        target = candidate.after(old.get(address))
        if target is None or address in taken:
            continue
        new = address not in old
        if new and nothing_new:
            left[address] = "may belong to a pipeline of which nobody can read what it found"
        elif candidate.because and (other := holders.who_covers(pipeline, candidate, new=new)):
            left[address] = f"is covered by pipeline `{other}`"
        elif (holder := holders.holder(pipeline, target)) is None:
            targets[address] = target
        elif candidate.otherwise:
            targets[address] = candidate.otherwise
        else:
            left[address] = f"belongs to pipeline `{holder}`"
    if over := over_limit(selection, len(targets), len(before.targets), first=before.since is None):
        return _followed(selection, then, old, left, (*seen.errors, over), before.since)
    # What could not be looked at yet may have most of it: until then each time is the first.
    since = before.since or (None if seen.unseen else now)
    return _followed(selection, then, targets, left, seen.errors, since)


def over_limit(selection: Selection, count: int, before: int, *, first: bool) -> OverLimit | None:
    """Why so many are not followed, None where they are. before: how many were found then; first:
    whether nothing ever was."""
    allowed = selection.limit or (AT_FIRST if first else 2 * before + MORE)
    if count <= allowed:
        return None
    why = (
        "its `limit`"
        if selection.limit
        else "the most at first"
        if first
        else f"where {before} were found before"
    )
    return OverLimit(
        f"it finds {count}, and {allowed} is {why}"
        if selection.limit or first
        else f"it finds {count} {why}, and {allowed} would be the most",
        where=str(selection),
        next=f"What was found before stays, and nothing new is taken. Look at `certrail plan`; if "
        f"all of them are meant, set `limit: {count}`",
    )


def _followed(
    selection: Selection,
    then: Set[str],
    targets: Mapping[str, Target],
    left: Mapping[str, str],
    errors: tuple[CertrailError, ...],
    since: datetime | None,
) -> Followed:
    """then: addresses of what it found before and the pipeline does not reach otherwise."""
    return Followed(
        selection=selection,
        targets=tuple(targets[address] for address in sorted(targets)),
        new=tuple(sorted(targets.keys() - then)),
        gone={
            address: left.get(address, "is found no more")
            for address in sorted(then - targets.keys())
        },
        left={address: left[address] for address in sorted(left.keys() - then)},
        errors=errors,
        since=since,
    )
