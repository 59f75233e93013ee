"""Where the challenge's TXT records go: one provider a module."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from issuer.clock import Clock


@dataclass(frozen=True)
class Token:
    """One TXT record that the CA will look for. name: without a trailing dot, like
    `_acme-challenge.example.com`; an apex and its wildcard share one. value: 43 characters of
    base64url (RFC 8555, 8.4)."""

    name: str
    value: str


class Provider(Protocol):
    def locate(self, names: Iterable[str]) -> None:
        """Raise DnsError where a name has no zone here: asked before the CA is."""

    def presenting(self, tokens: Sequence[Token], clock: Clock) -> AbstractContextManager[None]:
        """All tokens are visible to the world while the block runs, and gone after it, however it
        ends. Raises DnsError, AwsError, DeadlinePassed; what fails in cleaning up is raised beside
        what failed before."""


def challenge_name(domain: str) -> str:
    """Where the CA looks for the proof of a name, or of the wildcard below it (RFC 8555, 8.4)."""
    return f"_acme-challenge.{domain.removeprefix('*.')}"
