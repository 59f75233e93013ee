"""A pipeline's state, as the bucket has it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from certrail.errors import CertrailError
from certrail.pipelines import Pipeline
from certrail.records import Record
from certrail.store import Current, Store, record_key
from certrail.target import with_needs

# Records are small objects, many of them: reading them is waiting.
READERS = 16


@dataclass(frozen=True)
class View:
    """What is current, and what is recorded of each target. records, unreadable: by address."""

    current: Current | None
    records: Mapping[str, Record]
    unreadable: Mapping[str, CertrailError]


def look_at(store: Store, pipeline: Pipeline[Any], readers: ThreadPoolExecutor) -> View:
    """Raises StateError, AwsError where the pipeline itself cannot be read."""

    def read(address: str) -> Record | CertrailError | None:
        try:
            seen = store.read(record_key(pipeline.name, address), Record)
        except CertrailError as error:
            # One target's, not its neighbours'.
            return error
        return seen.value if seen else None

    addresses = list(with_needs(pipeline.targets))
    found = dict(zip(addresses, readers.map(read, addresses), strict=True))
    return View(
        store.current(pipeline.name),
        {address: seen for address, seen in found.items() if isinstance(seen, Record)},
        {address: seen for address, seen in found.items() if isinstance(seen, CertrailError)},
    )
