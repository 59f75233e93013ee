"""Where the challenge's TXT records go: `Dns` in `challenges`, over one provider a module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from certrail.errors import CertrailError, RecordsLeft
from issuer.clock import Clock

if TYPE_CHECKING:
    from certrail.nameservers import Server


@dataclass(frozen=True)
class Token:
    """One TXT record that the CA will look for. name: without a trailing dot, like
    `_acme-challenge.example.com`; an apex and its wildcard share one. value: 43 characters of
    base64url (RFC 8555, 8.4)."""

    name: str
    value: str


class Provider(Protocol):
    """Where records are written. Names are those of the records: where a challenge's name is
    delegated, the one it leads to. One thread at a time calls it."""

    # How many records of one name its servers answer with; None where there is no limit.
    most: int | None

    def locate(self, names: Iterable[str]) -> Mapping[str, CertrailError]:
        """The names that have no zone here, each with what is wrong. Raises DnsError or AwsError
        where no name can be looked up."""

    def place(self, tokens: Sequence[Token], clock: Clock, placed: list[Token]) -> None:
        """Write the tokens, and return when the provider itself says that they are out.

        placed: gets what may be there from now on, also where this raises: each token before it is
        sent, because a call whose answer is lost may have been obeyed.
        Raises DnsError, AwsError, DeadlinePassed.
        """

    def remove(self, tokens: Sequence[Token]) -> list[RecordsLeft]:
        """Delete exactly these tokens; one that is not there is fine. Returns what failed."""

    def servers(self, name: str) -> Sequence[Server]:
        """The servers that answer for this name with authority. Raises DnsError, AwsError."""


def challenge_name(domain: str) -> str:
    """Where the CA looks for the proof of a name, or of the wildcard below it (RFC 8555, 8.4)."""
    return f"_acme-challenge.{domain.removeprefix('*.')}"


def left_behind(where: str, tokens: Sequence[Token], cause: CertrailError) -> RecordsLeft:
    """The failure to remove these records."""
    names = ", ".join(sorted({token.name for token in tokens}))
    left = RecordsLeft(
        f"challenge records could not be removed ({cause})",
        where=where,
        next=f"Delete the TXT records of {names}",
        retryable=cause.retryable,
    )
    left.__cause__ = cause
    return left
