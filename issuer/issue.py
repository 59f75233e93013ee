"""One certificate, from reason to publication.

Whatever can be lost with a run is written down before it is needed: the order's address, the
challenge records, the private key. So a run that dies is finished by the next one, with the same
order, and nothing stays behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from acme import messages

from certrail.bundle import Bundle, short
from certrail.errors import (
    AcmeRefused,
    BundleBroken,
    CertrailError,
    DnsError,
    FailedTogether,
    IssueError,
    NoIssuer,
    OverBudget,
    RecordsLeft,
    raise_together,
)
from certrail.pipelines.model import Validation
from certrail.pipelines.resolved import Pipeline
from certrail.store import Current, Issued, Store, current_key, order_key, renewal_key
from issuer import keys
from issuer.account import Accounts
from issuer.acme import Authorization, Client, Order, words
from issuer.checks import checked, is_of_another_key, leads_to
from issuer.clock import Clock
from issuer.dns import Token, challenge_name
from issuer.dns.challenges import Dns
from issuer.dns.persist import records_for
from issuer.due import Why, due, wanted
from issuer.lease import leased
from issuer.order import count, dropped, ordered, resumed
from issuer.reissue import Asked
from issuer.renewal import Renewal
from issuer.run import Run, Teller

# A certificate that ends this soon after its turn in the CA's limits is ordered elsewhere.
SLACK = timedelta(days=1)


def issue(
    pipeline: Pipeline[Any],
    store: Store,
    dns: Dns,
    clock: Clock,
    accounts: Accounts,
    teller: Teller,
    *,
    asked: Asked | None = None,
) -> Current | None:
    """Issue the pipeline's certificate where it is due, and publish it.

    asked: a wish for a newer one. Returns what is current after it, None where nothing was due.

    What was published before stays as it is until the last step. Raises Busy where another run is
    at it, OverBudget where the CA's limits are waited for, and every kind of IssueError, StateError
    and AwsError, all of them written to `orders/<pipeline>.json` first, except Busy. Records that
    cannot be removed are raised when the certificate is published.
    """
    name = pipeline.name
    with leased(store, name, wanted(pipeline), clock, pipeline.configuration) as lease:
        # Read under the lease: another run may have published between the schedule and now.
        before = store.read(current_key(name), Current)
        renewal = store.read_or(renewal_key(name), Renewal, Renewal("")).value
        run = Run(pipeline, store, dns, clock, accounts, teller, lease, before, renewal)
        if lease.progress.wanted != wanted(pipeline):
            _clean_up(run)
            lease.begin(wanted(pipeline))
        if run.current and _is_published(run, run.current):
            # An earlier run died between the publication and its last word.
            teller.issued(run.current)
            _clean_up(run)
            lease.begin(wanted(pipeline))
        reason = due(
            pipeline,
            run.current,
            clock.now(),
            renewal=renewal,
            progress=lease.progress,
            died=lease.took_over,
            asked=asked,
        )
        current = None
        if reason is None or reason.why is Why.RECORDS:
            run.info("nothing to do: the certificate is current")
            if not run.troubles:
                _clean_up(run)
        else:
            run.info("issuing: %s", reason.text)
            # What needs no order is found out first: a failed one counts against the CA's limits.
            store.require_kms(order_key(name))
            if any(issuer.validation is Validation.DNS_01 for issuer in pipeline.issuers):
                dns.locate(challenge_name(domain) for domain in pipeline.domains)
            current = _from_the_first_that_can(run)
            _forget_order_keys(run)
        lease.succeeded(troubled=bool(run.troubles))
        raise_together("challenge records were left behind", run.troubles)
        return current


def _from_the_first_that_can(run: Run) -> Current:
    """Ask the issuers in their order; the next where one is down or refuses."""
    passed_over: dict[str, CertrailError] = {}
    for number, issuer in enumerate(run.pipeline.issuers, start=1):
        following = len(run.pipeline.issuers) - number
        # One that only lets us wait is left in time for the others.
        share = timedelta(seconds=run.clock.left) / (following + 1)
        mine = replace(run, clock=replace(run.clock, deadline=run.clock.now() + share))
        try:
            client = run.accounts.connect(issuer, mine.clock)
        except CertrailError as error:
            # Without its account only this one is of no use.
            passed_over[issuer.name] = error
            continue
        try:
            return _issued(mine, client, passed_over)
        except CertrailError as error:
            passed_over[issuer.name] = error
            if isinstance(error, AcmeRefused) and run.accounts.is_outdated(client):
                # The account got another key while this run was under way.
                error.retryable = True
            if not _may_be_issued_elsewhere(run, error):
                break
            run.info("no certificate from %s: %s", issuer.name, error)
    failures = tuple(passed_over.values())
    raise failures[0] if len(failures) == 1 else NoIssuer(failures)


def _may_be_issued_elsewhere(run: Run, error: CertrailError) -> bool:
    if isinstance(error, OverBudget):
        # A certificate that lasts until then can wait for it.
        current = run.current
        return current is None or error.retry_at + SLACK >= current.facts.not_after
    if isinstance(error, FailedTogether):
        return all(_may_be_issued_elsewhere(run, each) for each in error.failures)
    return isinstance(error, IssueError) and not isinstance(error, DnsError)


def _issued(run: Run, client: Client, passed_over: Mapping[str, CertrailError]) -> Current:
    current = _published(run, client, resumed(run, client) or ordered(run, client), passed_over)
    # A CA may hand a pending order again to whoever asks for the same names, and the other pipeline
    # was faster: once more, with an order of our own.
    current = current or _published(run, client, ordered(run, client), passed_over)
    if current is None:
        raise IssueError(
            "the CA hands out orders that another pipeline has finished",
            where=client.issuer.name,
            next="Nothing needs doing: the next run orders anew",
            retryable=True,
        )
    return current


# From the order to the certificate


def _published(
    run: Run, client: Client, order: Order, passed_over: Mapping[str, CertrailError]
) -> Current | None:
    """What is published; None where the order became a certificate of another key."""
    with ExitStack() as placed:
        if order.is_proved:
            placed.callback(_remove_leftovers, run)
        else:
            order = _proved(run, client, order, placed)
        key = _key(run, order)
        order = client.issued(order, keys.csr(key, run.pipeline.domains), run.pipeline.domains)
        chain = _chain(client, order)
        if is_of_another_key(chain, key.public_key()):
            dropped(run, client, order.url, "another pipeline finished it")
            return None
        bundle = _bundle(run, client, order, chain, key)
        # Rather twice than not: the CA has counted it whatever comes.
        count(run, client)
        issued = Issued(
            issuer=client.issuer.name,
            directory=client.issuer.directory,
            account=client.account,
            profile=client.issuer.profile,
            key_type=run.pipeline.key_type,
            domains=run.pipeline.domains,
            preferred_chain=client.issuer.preferred_chain,
            order=order.url,
            instead_of={name: str(error) for name, error in passed_over.items()},
        )
        current = run.store.publish(
            run.pipeline.name, bundle, issued, after=run.before, now=run.clock.now()
        )
        run.info(
            "published: generation %d, %s",
            current.generation,
            short(current.fingerprint),
            fingerprint=current.fingerprint,
            generation=current.generation,
        )
        run.teller.issued(current)
    return current


def _proved(run: Run, client: Client, order: Order, placed: ExitStack) -> Order:
    """The order once every name is proven. The records are there until `placed` ends."""
    to_prove = _unproven(client, order)
    if client.issuer.validation is Validation.DNS_01:
        tokens = [
            Token(challenge_name(each.name), client.txt(each.challenge))
            for each in to_prove
            if each.challenge
        ]
        _remove_leftovers(run, but=tokens)
        if tokens:
            placed.enter_context(_presented(run, tokens))
    for authorization in to_prove:
        client.respond(authorization)
    try:
        order = client.validated(order)
    except CertrailError as error:
        each = error.failures if isinstance(error, FailedTogether) else (error,)
        names = [one.name for one in each if isinstance(one, AcmeRefused) and one.name]
        if names:
            try:
                count(run, client, failed=names)
            except CertrailError as uncounted:
                run.troubles.append(uncounted)
        failed = [each for each in to_prove if each.name in names and each.ca]
        if failed and client.issuer.validation is Validation.DNS_PERSIST_01:
            raise _with_records(client, failed, error) from error
        raise
    run.info("validated: %d names, %d anew", len(order.authorizations), len(to_prove))
    return order


def _unproven(client: Client, order: Order) -> list[Authorization]:
    """Those that need a proof. Earlier ones that the CA still accepts need none (RFC 8555, 7.4).
    Raises, together, for those that cannot be proven."""
    found = client.authorizations(order)
    pending = [each for each in found if each.status != messages.STATUS_VALID]
    failures: list[CertrailError] = []
    for each in pending:
        if each.status != messages.STATUS_PENDING:
            failures.append(
                AcmeRefused(
                    f"the CA's authorization of {each.name} is {each.status.name}: "
                    f"{words(each.problem)}",
                    retryable=True,
                    name=each.name,
                )
            )
        elif each.challenge is None:
            kind = client.issuer.validation
            failures.append(IssueError(f"the CA does not offer to validate {each.name} by {kind}"))
    raise_together("not every name can be validated", failures)
    return pending


@contextmanager
def _presented(run: Run, tokens: Sequence[Token]) -> Iterator[None]:
    """The records are written down before the first is placed, until all are gone. One that cannot
    be removed is a trouble beside the certificate."""
    before = run.lease.progress.records
    run.lease.placing(tokens)
    try:
        with run.dns.presenting(tokens, run.clock):
            yield
    except CertrailError as error:
        each = error.failures if isinstance(error, FailedTogether) else (error,)
        left = [one for one in each if isinstance(one, RecordsLeft)]
        run.troubles.extend(left)
        if not left:
            # What an earlier run has placed may be there still: this one need not have come to it.
            run.lease.cleaned([token for token in tokens if token not in before])
        raise_together(error.what, [one for one in each if one not in left])
    else:
        run.lease.cleaned(tokens)


def _with_records(
    client: Client, failed: Sequence[Authorization], error: CertrailError
) -> IssueError:
    """The failure of a validation by dns-persist-01, with the records that make it succeed."""
    cas = {each.name: each.ca[0] for each in failed}
    records = records_for(cas, client.account)
    what = "this TXT record" if len(records) == 1 else "these TXT records"
    remedy = f"Set {what}: {'; '.join(map(str, records))}"
    return IssueError(str(error), next=remedy, retryable=True)


def _key(run: Run, order: Order) -> keys.CertificateKey:
    """The certificate's key, kept before the CA binds it to the order."""
    name, kind = run.pipeline.name, run.pipeline.key_type
    kept = run.store.order_privkey(name, order.url, kind)
    if kept is not None:
        return keys.load_own(kept)
    key = keys.generate(kind)
    run.store.keep_order_privkey(name, order.url, kind, keys.pem(key))
    return key


def _chain(client: Client, order: Order) -> str:
    """The certificate with the chain that the file prefers, or else the CA."""
    chains = client.chains(order)
    first = next(chains)
    preferred = client.issuer.preferred_chain
    if preferred is None or leads_to(first, preferred):
        return first
    return next((each for each in chains if leads_to(each, preferred)), first)


def _bundle(run: Run, client: Client, order: Order, chain: str, key: keys.CertificateKey) -> Bundle:
    try:
        return checked(
            chain,
            keys.pem(key),
            domains=run.pipeline.domains,
            key_type=run.pipeline.key_type,
            now=run.clock.now(),
        )
    except BundleBroken:
        # To be handed the same again would help nobody.
        dropped(run, client, order.url, "its certificate cannot be used")
        raise


# What is left


def _is_published(run: Run, current: Current) -> bool:
    """Whether the current certificate comes from an order that is still written down."""
    return current.issued.order in run.lease.progress.orders.values()


def _clean_up(run: Run) -> None:
    """Remove what a run left that did not come to its end."""
    _remove_leftovers(run)
    _forget_order_keys(run)


def _remove_leftovers(run: Run, but: Sequence[Token] = ()) -> None:
    """Remove the records of an earlier run, but those that are wanted. Where that fails they stay
    written down, and the certificate is not held up by it."""
    left = [each for each in run.lease.progress.records if each not in but]
    if not left:
        return
    try:
        run.dns.remove(left)
    except CertrailError as error:
        run.troubles.append(error)
    else:
        run.lease.cleaned(left)


def _forget_order_keys(run: Run) -> None:
    for url in run.lease.progress.orders.values():
        run.store.forget_order_privkeys(run.pipeline.name, url)
