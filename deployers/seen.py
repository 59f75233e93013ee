"""What one connection of a client showed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    GOOD = "good"
    OTHER = "other"  # a certificate that is not the wanted one
    UNTRUSTED = "untrusted"  # the wanted one, and a client does not believe it
    REFUSED = "refused"  # something answers, and the handshake fails
    UNREACHABLE = "unreachable"  # nothing answers: nothing is known
    SKIPPED = "skipped"  # the time was over before its turn came


@dataclass(frozen=True)
class Seen:
    """What a client got at one address (`198.18.0.4:443`) for one name; for an endpoint that has no
    address, its host. text: a half sentence that goes on from there. fingerprint: of the
    certificate that was shown, empty where none was. believed: whether a client takes that one.
    """

    address: str
    server_name: str
    verdict: Verdict
    text: str
    fingerprint: str = ""
    believed: bool = False

    def __str__(self) -> str:
        return f"{self.address}, {self.server_name or 'asked without a name'}: {self.text}"
