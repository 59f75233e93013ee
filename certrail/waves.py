"""Waves: in which order a pipeline's targets get a new certificate, and what must be quiet before
the next ones do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from certrail.target import Target, with_needs


@dataclass(frozen=True)
class Wave:
    """Targets that get a new certificate together. A pipeline without waves has one, without a
    name.

    bake: how long all of it must have been served before the next begins. alarms: of CloudWatch,
    by name or ARN, that must not ring before it and until its bake is over.
    """

    name: str = ""
    bake: timedelta = timedelta(0)
    alarms: tuple[str, ...] = ()


ONE_WAVE = (Wave(),)


def wave_numbers(targets: Iterable[Target], waves: Sequence[Wave]) -> Mapping[str, int]:
    """The wave of each target and of what it needs, by address: the first is 0. What several need
    belongs to the first of theirs. A target that names no wave belongs to the last."""
    numbers = {wave.name: number for number, wave in enumerate(waves)}
    last = len(waves) - 1
    found: dict[str, int] = {}
    for target in targets:
        number = numbers.get(target.wave, last) if target.wave else last
        for address in with_needs([target]):
            found[address] = min(number, found.get(address, last))
    return found
