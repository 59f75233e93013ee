"""The order for a certificate: the one that an earlier run left, or a new one that the CA's limits
have room for."""

from __future__ import annotations

from collections.abc import Sequence

from certrail.errors import AcmeRefused, IssueError, OverBudget
from certrail.pipelines.resolved import Issuer
from issuer import budget
from issuer.acme import Client, Order
from issuer.acme.problems import is_busy
from issuer.renewal import certificate_id, window
from issuer.run import Run

INTERNAL_ERROR = 500


def resumed(run: Run, client: Client) -> Order | None:
    """The order that an earlier run left, if it can still become a certificate with a key that we
    have; None where there is none."""
    order = _left(run, client)
    if order is None:
        return None
    if not order.is_open and not order.is_finalized:
        dropped(run, client, order.url, f"it is {order.status.name}")
        return None
    kept = run.store.order_privkey(run.pipeline.name, order.url, run.pipeline.key_type)
    if order.is_finalized and kept is None:
        # The CA may hand the same order to two pipelines with the same names.
        dropped(run, client, order.url, "it was finalized with a key that is not ours")
        return None
    run.info("going on with the order of an earlier run: %s", order.url)
    return order


def _left(run: Run, client: Client) -> Order | None:
    url = run.lease.progress.orders.get(client.issuer.name)
    if url is not None:
        try:
            return client.order(url)
        except AcmeRefused as error:
            if error.retryable:
                raise
            dropped(run, client, url, str(error))
    elif run.lease.took_over and (order := client.lost_order(run.pipeline.domains)):
        # That run died before it could write down what it had ordered.
        run.lease.ordered(client.issuer.name, order.url)
        return order
    return None


def dropped(run: Run, client: Client, url: str, why: str) -> None:
    """Forget an order that can come to nothing any more."""
    run.info("this order is over (%s): %s", why, url)
    run.store.forget_order_privkeys(run.pipeline.name, url)
    run.lease.dropped(client.issuer.name)


def ordered(run: Run, client: Client) -> Order:
    """A new order. Raises OverBudget, AcmeRefused, IssueError."""
    issuer, domains = client.issuer, run.pipeline.domains
    _require_profile(client)
    kind, replaces = _kind(run, client)
    _await_room(run, issuer, kind)
    try:
        order = client.new_order(domains, issuer.profile, replaces)
    except AcmeRefused as error:
        if replaces is None or (is_busy(error.status) and error.status != INTERNAL_ERROR):
            raise
        # 409, 404, 403, 400, and a 500 that lasts: whatever the CA has against it, the certificate
        # is worth more (docs/decisions.md, 23).
        run.teller.replaces_refused(run.pipeline.name, str(error))
        _await_room(run, issuer, _plain(run, issuer))
        order = client.new_order(domains, issuer.profile)
    run.lease.ordered(issuer.name, order.url)
    run.info("ordered: %s", order.url)
    return order


def _require_profile(client: Client) -> None:
    wanted, offered = client.issuer.profile, client.profiles or {}
    if wanted is not None and wanted not in offered:
        raise IssueError(
            f"the CA has no profile `{wanted}`",
            where=client.issuer.name,
            next=f"Choose one of {', '.join(offered)}" if offered else "Leave `profile` out",
        )


# What it is to the CA's limits


def _kind(run: Run, client: Client) -> tuple[budget.Kind, str | None]:
    """What the order is to the CA's limits, and the certificate it replaces, by its identifier:
    only towards the CA and the account that issued that one, and only with a name in common."""
    current, issuer = run.current, client.issuer
    plain = _plain(run, issuer)
    if (
        current is None
        or (current.issued.directory, current.issued.account) != (issuer.directory, client.account)
        or set(run.pipeline.domains).isdisjoint(current.facts.domains)
        or not client.has_renewal_info
    ):
        return plain, None
    when = window(current, run.renewal, run.pipeline.renew_before)
    in_window = when.by_ca and when.start <= run.clock.now() < when.end
    exempt = in_window and plain is budget.Kind.RENEWAL
    return budget.Kind.ARI if exempt else plain, certificate_id(current.facts)


def _plain(run: Run, issuer: Issuer) -> budget.Kind:
    """What an order is without renewal information."""
    current = run.current
    renews = (
        current is not None
        and current.issued.directory == issuer.directory
        and set(current.facts.domains) == set(run.pipeline.domains)
    )
    return budget.Kind.RENEWAL if renews else budget.Kind.FRESH


def _await_room(run: Run, issuer: Issuer, kind: budget.Kind) -> None:
    """Raise OverBudget where the CA's limits have no room for the order yet."""
    now = run.clock.now()
    order = budget.Order(frozenset(run.pipeline.domains), kind)
    name = run.pipeline.name
    moment = budget.reserve(run.store, issuer.name, issuer.limits, order, name, now)
    if moment > now:
        raise OverBudget(
            f"the limits of the CA have room for this order from {moment:%Y-%m-%d %H:%M} UTC on",
            where=issuer.name,
            next="Nothing needs doing: the place is reserved",
            retry_at=moment,
        )


def count(run: Run, client: Client, failed: Sequence[str] | None = None) -> None:
    """Write down what the CA has counted: a certificate, or, with which the order is over, the
    names that were not validated."""
    kind, _ = _kind(run, client)
    order = budget.Order(frozenset(run.pipeline.domains), kind)
    issuer, name, now = client.issuer, run.pipeline.name, run.clock.now()
    if failed is None:
        budget.issued(run.store, issuer.name, issuer.limits, order, name, now)
    else:
        budget.failed(run.store, issuer.name, issuer.limits, order, name, now, failed)
