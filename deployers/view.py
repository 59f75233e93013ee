"""A pipeline's state, as the bucket has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from certrail.errors import CertrailError, StateError
from certrail.pipelines import Pipeline
from certrail.records import Found, Record, Rollout
from certrail.store import Current, Store, found_key, record_key, rollout_key
from certrail.target import Link, Target, with_needs
from deployers.kinds.all import AnyTarget
from deployers.rollout import Gates, gates, is_over

# Records are small objects, many of them: reading them is waiting.
READERS = 16
TARGET: TypeAdapter[Target] = TypeAdapter(AnyTarget)


@dataclass(frozen=True)
class View:
    """What is current, which targets there are, and what is recorded of each.

    targets: those of the file, those that its selections found, and those that follow an import
    which was replaced. records, unreadable: by address. gates: which targets may get what is
    current. found: what the selections found, None where nobody has looked.
    """

    current: Current | None
    targets: Sequence[Target]
    records: Mapping[str, Record]
    unreadable: Mapping[str, CertrailError]
    rollout: Rollout | None
    gates: Gates
    found: Found | None = None

    @property
    def done(self) -> bool:
        """Whether what is current has come everywhere it was to go."""
        return self.current is not None and is_over(self.rollout, self.current)


def look_at(
    store: Store,
    pipeline: Pipeline[Any],
    readers: ThreadPoolExecutor,
    found: Found | None = None,
) -> View:
    """found: what its selections find, where that is known better than the bucket knows it. Raises
    StateError, AwsError where the pipeline itself cannot be read."""
    records: dict[str, Record] = {}
    unreadable: dict[str, CertrailError] = {}

    def read(address: str) -> Record | CertrailError | None:
        try:
            seen = store.read(record_key(pipeline.name, address), Record)
        except CertrailError as error:
            # One target's, not its neighbours'.
            return error
        return seen.value if seen else None

    def read_all(addresses: Sequence[str]) -> None:
        for address, seen in zip(addresses, readers.map(read, addresses), strict=True):
            if isinstance(seen, Record):
                records[address] = seen
            elif seen is not None:
                unreadable[address] = seen

    if found is None and pipeline.selections:
        written = store.read(found_key(pipeline.name), Found)
        found = written.value if written else None
    targets = with_found(pipeline, found)
    read_all(list(with_needs(targets)))
    more = [
        each
        for each in followers(records.values(), targets)
        # What another pipeline is to hold is not moved by this one.
        if pipeline.claims.get(each.address, pipeline.name) == pipeline.name
    ]
    read_all([each.address for each in more])
    targets += more
    # The records before the pointer: none is newer than the pointer read after it.
    current = store.current(pipeline.name)
    seen = store.read(rollout_key(pipeline.name), Rollout)
    rollout = seen.value if seen else None
    return View(
        current,
        targets,
        records,
        unreadable,
        rollout,
        gates(pipeline.waves, targets, current, rollout),
        found,
    )


def with_found(pipeline: Pipeline[Any], found: Found | None) -> list[Target]:
    """The targets that the file names, and after them those that its selections found.

    The file may say something else by now: what it names itself, for this pipeline or for another,
    and what is in an account that no selection names any more, is left out. Raises StateError.
    """
    targets: dict[str, Target] = {target.address: target for target in pipeline.targets}
    accounts = {name for each in pipeline.selections for name in each.account_names}
    for selected in found.selections if found and pipeline.selections else ():
        for job in selected.targets:
            try:
                target = TARGET.validate_python(job)
            except ValidationError as error:
                raise StateError(
                    f"a target that was found cannot be read ({error.errors()[0]['msg']})",
                    where=found_key(pipeline.name),
                    next="Delete the object; what is found is written anew within the hour",
                ) from None
            holder = pipeline.claims.get(target.claim or "", pipeline.name)
            if target.account in accounts and holder == pipeline.name:
                targets.setdefault(target.address, target)
    return list(targets.values())


def followers(records: Iterable[Record], named: Iterable[Target]) -> list[Link]:
    """The targets that are to follow a replaced import, besides those that are named already."""
    there = set(with_needs(named))
    found: dict[str, Link] = {}
    for record in records:
        for job in record.held.followers if record.held else ():
            target = TARGET.validate_python(job)
            if target.address not in there and isinstance(target, Link):
                found[target.address] = target.as_follower()
    return list(found.values())
