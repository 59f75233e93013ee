"""One certificate, from reason to publication."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from acme import messages

from certrail.bundle import short
from certrail.errors import AcmeRefused, CertrailError, IssueError, raise_together
from certrail.pipelines.model import Pipeline
from certrail.store import Current, Issued, Store, current_key, order_key
from issuer import account, keys
from issuer.acme import Authorization, Client, words
from issuer.checks import checked
from issuer.clock import Clock
from issuer.dns import Provider, Token, challenge_name
from issuer.due import due, wanted
from issuer.lease import leased

log = logging.getLogger(__name__)


def issue(
    pipeline: Pipeline[Any],
    store: Store,
    dns: Provider,
    clock: Clock,
    *,
    asked: int | None = None,
) -> Current | None:
    """Issue the pipeline's certificate where it is due, and publish it.

    asked: issue in any case, unless something newer than this generation is published by now; 0
    where there is none yet. Returns what is current after it, None where nothing was due.

    What was published before stays as it is until the last step. Raises Busy where another run is
    at it, and every kind of IssueError, StateError and AwsError, all of them written to
    `orders/<pipeline>.json` first, except Busy.
    """
    about = {"pipeline": pipeline.name}
    with leased(store, pipeline.name, wanted(pipeline), clock) as lease:
        # Read under the lease: another run may have published between the schedule and now.
        before = store.read(current_key(pipeline.name), Current)
        reason = due(pipeline, before.value if before else None, clock.now(), asked=asked)
        if reason is None:
            log.info("nothing to do: the certificate is current", extra=about)
            lease.succeeded()
            return None
        log.info("issuing: %s", reason.text, extra=about)

        # What needs no order is found out first: a failed one counts against the CA's limits.
        store.require_kms(order_key(pipeline.name))
        dns.locate(challenge_name(name) for name in pipeline.domains)
        client = account.connect(
            store, pipeline.issuer_name, pipeline.issuer.directory, pipeline.issuer.email, clock
        )
        order = client.new_order(pipeline.domains, pipeline.profile)
        lease.ordered(order.url)
        log.info("ordered: %s", order.url, extra=about)

        to_prove = _unproven(client.authorizations(order))
        with dns.presenting(_tokens(client, to_prove), clock):
            for authorization in to_prove:
                client.respond(authorization)
            order = client.validated(order)
            log.info(
                "validated: %d names, %d anew",
                len(order.authorizations),
                len(to_prove),
                extra=about,
            )

            key = keys.generate(pipeline.key_type)
            order = client.issued(order, keys.csr(key, pipeline.domains), pipeline.domains)
            try:
                bundle = checked(
                    client.certificate(order),
                    keys.pem(key),
                    domains=pipeline.domains,
                    key_type=pipeline.key_type,
                    now=clock.now(),
                )
                issued = Issued(
                    issuer=pipeline.issuer_name,
                    directory=pipeline.issuer.directory,
                    account=client.account,
                    profile=pipeline.profile,
                    key_type=pipeline.key_type,
                    domains=pipeline.domains,
                )
                current = store.publish(
                    pipeline.name, bundle, issued, after=before, now=clock.now()
                )
            except CertrailError as error:
                # The CA has counted this certificate, five a week for the same names at Let's
                # Encrypt: whatever went wrong, the next one is not ordered before tomorrow.
                error.retryable = False
                raise
            log.info(
                "published: generation %d, %s",
                current.generation,
                short(current.fingerprint),
                extra=about
                | {"fingerprint": current.fingerprint, "generation": current.generation},
            )
        lease.succeeded()
        return current


def _unproven(authorizations: Sequence[Authorization]) -> list[Authorization]:
    """Those that need a record. Earlier proofs that the CA still accepts need none (RFC 8555,
    7.1.4)."""
    pending = [each for each in authorizations if each.status != messages.STATUS_VALID]
    failures: list[CertrailError] = []
    for each in pending:
        if each.status != messages.STATUS_PENDING:
            failures.append(
                AcmeRefused(
                    f"the CA's authorization of {each.name} is {each.status.name}: "
                    f"{words(each.problem)}",
                    retryable=True,
                )
            )
        elif each.challenge is None:
            failures.append(IssueError(f"the CA does not offer to validate {each.name} by dns-01"))
    raise_together("not every name can be validated", failures)
    return pending


def _tokens(client: Client, authorizations: Sequence[Authorization]) -> list[Token]:
    return [
        Token(challenge_name(each.name), client.txt(each.challenge))
        for each in authorizations
        if each.challenge
    ]
