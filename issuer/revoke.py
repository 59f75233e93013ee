"""The end of a certificate before its time (RFC 8555, 7.6)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import StrEnum

from certrail.bundle import short
from certrail.errors import CertrailError, IssueError, StateError, raise_together
from certrail.pipelines.resolved import Issuer
from certrail.store import Revoked, Store
from issuer import keys
from issuer.account import Accounts
from issuer.acme import reader
from issuer.clock import Clock

log = logging.getLogger(__name__)


class Reason(StrEnum):
    """Why, as a CRL says it (RFC 5280, 5.3.1); the others are not a subscriber's to give."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"


CODES = {
    Reason.UNSPECIFIED: 0,
    Reason.KEY_COMPROMISE: 1,
    Reason.AFFILIATION_CHANGED: 3,
    Reason.SUPERSEDED: 4,
    Reason.CESSATION_OF_OPERATION: 5,
}


def revoke(
    pipeline: str,
    fingerprint: str,
    reason: Reason,
    issuers: Sequence[Issuer],
    store: Store,
    accounts: Accounts,
    clock: Clock,
) -> str:
    """Revoke one of a pipeline's certificates, current or not, and return the issuer's name.

    issuers: those that may have issued it, the likeliest first. A compromised key is told by that
    key: only then Boulder blocks it, and whatever it signs counts as a compromise
    (`RevokeCertByKey` in Boulder's wfe2). All else is told by the account that ordered it.

    The bucket says so from then on, and no rollback takes it. Raises StateError where the bucket
    has no such certificate, IssueError and its kinds.
    """
    found = store.published(pipeline, fingerprint)
    if found is None:
        raise StateError(
            f"there is no certificate {short(fingerprint)}",
            where=pipeline,
            next="Give the whole fingerprint of one under certificates/ in the bucket",
        )
    certificate, private_key = found
    refusals: list[CertrailError] = []
    for issuer in issuers:
        try:
            if reason is Reason.KEY_COMPROMISE and private_key is not None:
                key = keys.load(private_key)
                reader(issuer, clock).revoke(certificate, CODES[reason], key)
            elif accounts.exists(issuer):
                accounts.connect(issuer, clock).revoke(certificate, CODES[reason])
            else:
                continue
        except CertrailError as error:
            # That one is down, or never saw it, says nothing about the others.
            refusals.append(error)
        else:
            log.info("revoked %s at %s", short(fingerprint), issuer.name)
            store.mark_revoked(pipeline, fingerprint, Revoked(reason, clock.now()))
            return issuer.name
    raise_together("no issuer revoked the certificate", refusals)
    raise IssueError(
        "no issuer of the file has an account that could revoke the certificate",
        where=pipeline,
        next=f"Give --reason {Reason.KEY_COMPROMISE}, for which its own key is enough",
    )
