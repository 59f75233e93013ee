"""What is known of the targets that have all there is to have: where clients were seen to get it,
and where it was deployed and nobody looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from certrail.records import Record, State
from certrail.store import Current
from deployers.judge import is_done

# Of the targets that lack it at a few machines; `certrail status` names all.
NAMED = 3


@dataclass(frozen=True)
class Reached:
    """served: addresses at which clients were seen to get it. deployed: those that nobody looks at.
    tolerated: those where a few machines that may fail lack it."""

    served: tuple[str, ...]
    deployed: tuple[str, ...]
    tolerated: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.served) + len(self.deployed) + len(self.tolerated)

    @property
    def looked_at(self) -> bool:
        """Whether clients were seen to get it at any of them."""
        return bool(self.served or self.tolerated)

    def __str__(self) -> str:
        """How the certificate `is`: "served at 2 targets, deployed at 1 that nobody looks at"."""
        said = []
        if self.served:
            said.append(f"served at {_targets(len(self.served), self.count)}")
        if self.tolerated:
            but = "" if self.served else "served "
            said.append(f"{but}at {_named(self.tolerated)} but for a few machines, which may fail")
        if len(self.deployed) == self.count:
            said.append(f"deployed at {_targets(self.count, self.count)}, which nobody looks at")
        elif self.deployed:
            said.append(f"deployed at {len(self.deployed)} that nobody looks at")
        return ", ".join(said)


def reached(addresses: Iterable[str], records: Mapping[str, Record], current: Current) -> Reached:
    """records: by address. What lacks it is left out."""
    done = [
        record
        for address in addresses
        if (record := records.get(address)) and is_done(record, current)
    ]
    return Reached(
        tuple(each.address for each in done if each.state is State.SERVED),
        tuple(each.address for each in done if each.state is State.DEPLOYED),
        tuple(each.address for each in done if each.state is State.FAILED),
    )


def _targets(some: int, of: int) -> str:
    if some == of:
        return f"all {some} targets" if some > 1 else "its target"
    return f"{some} targets" if some > 1 else "1 target"


def _named(addresses: tuple[str, ...]) -> str:
    more = len(addresses) - NAMED
    return ", ".join(addresses[:NAMED]) + (f" and {more} more" if more > 0 else "")
