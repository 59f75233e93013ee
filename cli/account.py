"""`certrail account`: the ACME accounts, seen and changed from here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from certrail.pipelines.authorities import NO_LIMITS
from certrail.pipelines.model import Validation
from cli.workspace import PATIENCE, BadInput, Workspace, clock_here
from issuer import budget
from issuer.dns.persist import record_for


@dataclass(frozen=True)
class Shown:
    """thumbprint: of the account's key, in hex. counted: whether the CA's limits are known."""

    account: str
    directory: str
    thumbprint: str
    profiles: Sequence[str]
    renewal_windows: bool
    left: budget.Left
    counted: bool

    def as_json(self) -> dict[str, Any]:
        waiting = {name: moment.isoformat() for name, moment in self.left.waiting.items()}
        return {
            "account": self.account,
            "directory": self.directory,
            "key": self.thumbprint,
            "profiles": list(self.profiles),
            "renewal_windows": self.renewal_windows,
            "orders_left": self.left.orders,
            "certificates_left": dict(self.left.certificates),
            "waiting": waiting,
        }


def show(workspace: Workspace, name: str, now: datetime) -> Shown:
    """The account, which is made where there is none yet, and what the limits leave."""
    issuer = workspace.issuer(workspace.pushed(), name)
    client = workspace.accounts.connect(issuer, clock_here(PATIENCE))
    return Shown(
        account=client.account,
        directory=issuer.directory,
        thumbprint=client.thumbprint.hex(),
        profiles=tuple(client.profiles or ()),
        renewal_windows=client.has_renewal_info,
        left=budget.left(budget.read(workspace.store, name), issuer.limits, now),
        counted=issuer.limits != NO_LIMITS,
    )


def roll_over(workspace: Workspace, name: str) -> str:
    issuer = workspace.issuer(workspace.pushed(), name)
    client = workspace.accounts.roll_over(issuer, clock_here(PATIENCE))
    return f"{name}: {client.account} has a new key, {client.thumbprint.hex()[:12]}"


def deactivate(workspace: Workspace, name: str, *, yes: bool) -> str:
    """Raises BadInput where it is not meant."""
    issuer = workspace.issuer(workspace.pushed(), name)
    if not yes:
        raise BadInput(
            f"this ends the account of `{name}` for good", next="Give --yes if that is meant"
        )
    uri = workspace.accounts.deactivate(issuer, clock_here(PATIENCE))
    return f"{name}: {uri} is deactivated"


def records(workspace: Workspace, name: str) -> Iterator[str]:
    """The records of every pipeline that has the issuer. Raises BadInput where it needs none."""
    file = workspace.pushed()
    issuer = workspace.issuer(file, name)
    if issuer.validation is not Validation.DNS_PERSIST_01:
        raise BadInput(
            f"`{name}` proves names by {issuer.validation}, for which certrail sets the records",
            next=f"Set `validation: {Validation.DNS_PERSIST_01}` to prove them by lasting ones",
        )
    client = workspace.accounts.connect(issuer, clock_here(PATIENCE))
    if not client.domains:
        raise BadInput(
            f"the CA of `{name}` does not say what it calls itself in records",
            where=issuer.directory,
            next="Look it up on the CA's site: its directory has no `caaIdentities`",
        )
    domains = {
        domain
        for pipeline in file.pipelines
        if any(each.name == name for each in pipeline.issuers)
        for domain in pipeline.domains
    }
    for domain in sorted(domains):
        yield str(record_for(domain, client.domains[0], client.account))
