"""Records of dns-persist-01: set once for a name, by hand, and never removed
(draft-ietf-acme-dns-persist)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """A TXT record. name: without a trailing dot. value: without quotes."""

    name: str
    value: str

    def __str__(self) -> str:
        return f'{self.name} TXT "{self.value}"'


def record_for(domain: str, ca: str, account: str) -> Record:
    """The record that proves a name, and the wildcard below it where `domain` is one, for as long
    as it stands. ca: what the CA calls itself. account: the ACME account's URI."""
    policy = "; policy=wildcard" if domain.startswith("*.") else ""
    name = f"_validation-persist.{domain.removeprefix('*.')}"
    return Record(name, f"{ca}; accounturi={account}{policy}")


def records_for(cas: Mapping[str, str], account: str) -> list[Record]:
    """The records that prove these names, in the order of the names; a wildcard's proves the name
    itself as well. cas: what the CA of each name calls itself."""
    needed = {
        domain: ca
        for domain, ca in sorted(cas.items(), key=lambda each: each[0].removeprefix("*."))
        if f"*.{domain}" not in cas
    }
    return [record_for(domain, ca, account) for domain, ca in needed.items()]
