"""One run of the issuer for one pipeline: what it works with, and what it writes down."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Protocol

from certrail.errors import CertrailError
from certrail.pipelines.resolved import Pipeline
from certrail.store import Current, Store, Versioned
from issuer.account import Accounts
from issuer.clock import Clock
from issuer.dns.challenges import Dns
from issuer.lease import Lease
from issuer.renewal import Renewal

log = logging.getLogger("issuer")


class Teller(Protocol):
    """Who hears of what happens. Everything may be told twice. Raises nothing: what was done is
    done, whoever hears of it."""

    def issued(self, current: Current) -> None: ...

    def replaces_refused(self, pipeline: str, why: str) -> None: ...


@dataclass(frozen=True)
class Run:
    """before: the pointer as it was when the run began. renewal: what the CA said of the
    certificate that is current. troubles: what went wrong beside the certificate, and is raised
    when that is done."""

    pipeline: Pipeline[Any]
    store: Store
    dns: Dns
    clock: Clock
    accounts: Accounts
    teller: Teller
    lease: Lease
    before: Versioned[Current] | None
    renewal: Renewal | None
    troubles: list[CertrailError] = field(default_factory=list)

    @property
    def current(self) -> Current | None:
        return self.before.value if self.before else None

    def info(self, what: str, *about: object, **fields: object) -> None:
        log.info(what, *about, extra={"pipeline": self.pipeline.name} | fields)
