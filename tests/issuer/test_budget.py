"""No order is made that the CA would refuse, and none waits longer than it must."""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certrail.aws import Aws
from certrail.errors import AwsError, Superseded
from certrail.pipelines.authorities import AUTHORITIES, NO_LIMITS, Limits, Rate
from certrail.store import Store, budget_key
from issuer import budget
from issuer.budget import (
    FORGOTTEN,
    GRACE,
    Kind,
    Ledger,
    Order,
    ended,
    left,
    pruned,
    registered_domain,
    reserved,
)
from sandbox import Sandbox
from tests.buckets import make_bucket

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LETS_ENCRYPT = AUTHORITIES["letsencrypt"].limits


def fresh(*names: str) -> Order:
    return Order(frozenset(names), Kind.FRESH)


def renewal(*names: str) -> Order:
    return Order(frozenset(names), Kind.RENEWAL)


def ari(*names: str) -> Order:
    return Order(frozenset(names), Kind.ARI)


# A CA that counts tokens


@dataclass
class Bucket:
    """Tokens, and fractions of them, that come back as time passes."""

    rate: Rate
    seen: datetime
    tokens: Fraction

    def has_one(self, at: datetime) -> bool:
        self._refill(at)
        return self.tokens >= 1

    def take(self, at: datetime) -> None:
        """As far as there is one."""
        if self.has_one(at):
            self.tokens -= 1

    def _refill(self, at: datetime) -> None:
        assert at >= self.seen, "time runs forward"
        passed = Fraction((at - self.seen) // timedelta(microseconds=1))
        period = Fraction(self.rate.period // timedelta(microseconds=1))
        self.tokens += passed * self.rate.burst / period
        self.tokens = min(self.tokens, Fraction(self.rate.burst))
        self.seen = at


@dataclass
class CA:
    """Looks and counts where Boulder does. domain: the last two labels, enough for .example."""

    limits: Limits
    buckets: dict[tuple[str, object], Bucket] = field(default_factory=dict)

    def accepts(self, order: Order, at: datetime) -> bool:
        """A new order; counted, if it is accepted."""
        if order.kind is Kind.ARI:
            return True
        wanted = [self._duplicates(order), *self._failures(order.names)]
        if order.kind is Kind.FRESH:
            wanted += [self._orders(), *self._certificates(order)]
        if not all(bucket.has_one(at) for bucket in wanted):
            return False
        if order.kind is Kind.FRESH:
            self._orders().take(at)
        return True

    def issues(self, order: Order, at: datetime) -> None:
        for bucket in self._certificates(order) if order.kind is Kind.FRESH else []:
            bucket.take(at)
        self._duplicates(order).take(at)

    def fails(self, names: Iterable[str], at: datetime) -> None:
        for bucket in self._failures(names):
            bucket.take(at)

    def _orders(self) -> Bucket:
        return self._bucket(self.limits.orders, "orders", None)

    def _certificates(self, order: Order) -> list[Bucket]:
        domains = {tuple(name.split(".")[-2:]) for name in order.names}
        return [self._bucket(self.limits.certificates, "domain", each) for each in domains]

    def _duplicates(self, order: Order) -> Bucket:
        return self._bucket(self.limits.duplicates, "set", order.names)

    def _failures(self, names: Iterable[str]) -> list[Bucket]:
        return [self._bucket(self.limits.failures, "name", name) for name in names]

    def _bucket(self, rate: Rate | None, kind: str, what: object) -> Bucket:
        assert rate is not None
        return self.buckets.setdefault((kind, what), Bucket(rate, NOW - DAY, Fraction(rate.burst)))


# Nobody is refused


@dataclass(frozen=True)
class Story:
    """What one pipeline goes through, all times in seconds.

    wants: when it first asks. late: after each moment it was given. to_order: from being told until
    the CA has the order. to_end: from then until it ends. to_tell: from then until the ledger hears
    of it. crashes: how many runs die before they made their order. fails: its validation does.
    """

    order: Order
    wants: int
    late: int
    to_order: int
    to_end: int
    to_tell: int
    crashes: int
    fails: bool


NAMES = ["a.example", "b.example", "www.a.example", "www.b.example", "c.example"]
ORDERS = st.one_of(
    st.sampled_from(NAMES).map(fresh),
    st.builds(
        Order,
        st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=3),
        st.sampled_from([Kind.FRESH, Kind.RENEWAL]),
    ),
    # An ARI renewal asks nobody, so the CA may give it a token for the same names that another was
    # told to take: those are two pipelines for the same names, of which one has no ARI.
    st.just(ari("ari.a.example")),
)
SECONDS = int(GRACE.total_seconds())
STORIES = st.builds(
    Story,
    order=ORDERS,
    wants=st.integers(0, 3 * SECONDS),
    late=st.sampled_from([0, 0, 1, 40, SECONDS, 4 * SECONDS]),
    to_order=st.sampled_from([0, 0, 3, SECONDS]),
    to_end=st.sampled_from([0, 1, 60, SECONDS, 20 * SECONDS]),
    to_tell=st.sampled_from([0, 1, 10 * SECONDS]),
    crashes=st.integers(0, 1),
    fails=st.booleans(),
)
RATES = st.builds(
    lambda burst, refill: Rate(burst, burst * timedelta(seconds=refill)),
    st.integers(1, 5),
    st.sampled_from([36, 400, SECONDS, 5000]),
)
LIMITS = st.builds(Limits, RATES, RATES, RATES, RATES)


class Simulation:
    """Pipelines, a ledger and a CA, on one line of time."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.ca = CA(limits)
        self.ledger = Ledger()
        self.made: dict[str, datetime] = {}
        self.promised: dict[str, datetime] = {}
        self._due: list[tuple[datetime, int, Callable[[datetime], None]]] = []
        self._count = 0

    def run(self, stories: list[Story]) -> None:
        for number, story in enumerate(stories):
            self._at(NOW, story.wants, self._ask, str(number), story)
        while self._due:
            moment, _, act = heapq.heappop(self._due)
            # Who waits for an order that is being made asks once for each refill.
            assert self._count < 1000 * len(stories), "somebody is told to wait for ever"
            act(moment)
            self.ledger = pruned(self.ledger, moment)

    def _at(
        self,
        start: datetime,
        seconds: int,
        act: Callable[[str, Story, datetime], None],
        holder: str,
        story: Story,
    ) -> None:
        self._count += 1
        event = (
            start + timedelta(seconds=seconds),
            self._count,
            lambda now: act(holder, story, now),
        )
        heapq.heappush(self._due, event)

    def _ask(self, holder: str, story: Story, now: datetime) -> None:
        self.ledger, moment = reserved(self.ledger, self.limits, story.order, holder, now)
        self.promised.setdefault(holder, moment)
        if moment > now:
            self._at(moment, story.late, self._ask, holder, story)
        elif story.crashes:
            again = replace(story, crashes=story.crashes - 1)
            self._at(now, SECONDS + 1 + story.late, self._ask, holder, again)
        else:
            self._at(now, story.to_order, self._order, holder, story)

    def _order(self, holder: str, story: Story, now: datetime) -> None:
        assert self.ca.accepts(story.order, now)
        self.made[holder] = now
        self._at(now, story.to_end, self._end, holder, story)

    def _end(self, holder: str, story: Story, now: datetime) -> None:
        if story.fails:
            self.ca.fails(story.order.names, now)
            # A failure is looked at by whoever comes next, so it has to be told at once.
            self._told(holder, story, now)
        else:
            self.ca.issues(story.order, now)
            self._at(now, story.to_tell, self._told, holder, story)

    def _told(self, holder: str, story: Story, now: datetime) -> None:
        self.ledger = ended(
            self.ledger,
            self.limits,
            story.order,
            holder,
            now,
            issued=not story.fails,
            failed=story.order.names if story.fails else (),
        )


@settings(max_examples=300, deadline=None)
@given(LIMITS, st.lists(STORIES, min_size=2, max_size=12))
def test_the_ca_never_refuses(limits: Limits, stories: list[Story]) -> None:
    # A name that fails after another was told to order it is refused to that one, and nobody could
    # have known: so those that fail are for other names, and fail as soon as they are told.
    simulation = Simulation(limits)
    apart = [
        replace(story, order=fresh(f"x{number % 3}.fails.example"), to_order=0, to_end=0)
        if story.fails
        else story
        for number, story in enumerate(stories)
    ]
    simulation.run(apart)
    assert len(simulation.made) == len(stories)


# Nobody waits for nothing


@dataclass(frozen=True)
class Punctual:
    """An order that somebody asks for after so many seconds, and makes when it may."""

    order: Order
    wants: int

    @property
    def story(self) -> Story:
        return Story(
            self.order, self.wants, late=0, to_order=0, to_end=0, to_tell=0, crashes=0, fails=False
        )


FEW_TOKENS = st.builds(
    lambda burst, refill: Rate(burst, burst * timedelta(seconds=refill)),
    st.integers(1, 3),
    st.sampled_from([1, 2, 5, 13]),
)


def first_possible(limits: Limits, asked: list[Punctual]) -> dict[str, datetime]:
    """By trial: for each in turn, the first second at which the CA would accept its order and still
    all those that have a second already."""
    seconds: dict[str, int] = {}
    for holder, each in sorted(
        ((str(number), each) for number, each in enumerate(asked)), key=lambda pair: pair[1].wants
    ):
        seconds[holder] = each.wants
        while not all_accepted(limits, asked, seconds):
            seconds[holder] += 1
    return {holder: NOW + timedelta(seconds=second) for holder, second in seconds.items()}


def all_accepted(limits: Limits, asked: list[Punctual], seconds: dict[str, int]) -> bool:
    ca = CA(limits)
    for holder, second in sorted(seconds.items(), key=lambda pair: pair[1]):
        order, moment = asked[int(holder)].order, NOW + timedelta(seconds=second)
        if not ca.accepts(order, moment):
            return False
        ca.issues(order, moment)
    return True


# Often both the account and some domain are short of tokens, and others wait for one of the two.
@settings(max_examples=400, deadline=None)
@given(
    st.builds(Limits, FEW_TOKENS, FEW_TOKENS, FEW_TOKENS, st.just(Rate(5, HOUR))),
    st.lists(st.builds(Punctual, ORDERS, st.sampled_from([0, 0, 1, 3, 8])), min_size=5, max_size=8),
)
def test_each_gets_the_first_moment_that_is_free(limits: Limits, asked: list[Punctual]) -> None:
    simulation = Simulation(limits)
    simulation.run([each.story for each in asked])
    assert simulation.promised == first_possible(limits, asked)
    assert simulation.made == simulation.promised


def test_many_pipelines_of_one_domain() -> None:
    """All ask at once; the limit on certificates of a domain gives the pace, and no token idles."""
    ledger, moments = Ledger(), []
    for number in range(120):
        ledger, moment = reserved(
            ledger, LETS_ENCRYPT, fresh(f"{number}.example.com"), f"p{number}", NOW
        )
        moments.append(moment)
    pace = timedelta(days=7) / 50
    assert moments == [NOW] * 50 + [NOW + number * pace for number in range(1, 71)]


def test_who_waits_for_one_domain_is_not_in_the_way_of_others() -> None:
    limits = replace(LETS_ENCRYPT, orders=Rate(2, 2 * MINUTE), certificates=Rate(1, 7 * DAY))
    ledger, _ = reserved(Ledger(), limits, fresh("a.example.com"), "first", NOW)
    ledger, waits = reserved(ledger, limits, fresh("b.example.com"), "second", NOW)
    assert waits == NOW + 7 * DAY
    ledger, moment = reserved(ledger, limits, fresh("a.example.org"), "other", NOW)
    assert moment == NOW


def test_one_moment_for_all_domains_of_an_order() -> None:
    limits = replace(LETS_ENCRYPT, certificates=Rate(1, DAY))
    names = [f"www.{number}.example" for number in range(100)]
    ledger = Ledger()
    for each in ("a.0.example", "b.0.example", "a.1.example"):
        ledger, _ = reserved(ledger, limits, fresh(each), each, NOW)
    ledger, moment = reserved(ledger, limits, fresh(*names), "all", NOW)
    assert moment == NOW + 2 * DAY
    assert reserved(ledger, limits, fresh("b.5.example"), "late", NOW)[1] == NOW


def test_who_comes_between_leaves_their_tokens_to_all_who_wait() -> None:
    """Two wait for the same moment, and both tokens of the account will be needed then."""
    limits = Limits(orders=Rate(2, 2 * HOUR), certificates=Rate(1, 10 * HOUR))
    full = {"certificates/a.example": NOW + 10 * HOUR, "certificates/b.example": NOW + 10 * HOUR}
    ledger = Ledger(full)
    for domain in ("a.example", "b.example"):
        ledger, moment = reserved(ledger, limits, fresh(domain), domain, NOW)
        assert moment == NOW + 10 * HOUR
    _, moment = reserved(ledger, limits, fresh("c.example"), "c", NOW + 9 * HOUR)
    assert moment == NOW + 9 * HOUR
    _, moment = reserved(ledger, limits, fresh("c.example"), "c", NOW + 9 * HOUR + MINUTE)
    assert moment == NOW + 11 * HOUR
    ledger = replace(ledger, full={**full, "certificates/c.example": NOW + 9 * HOUR + MINUTE})
    _, moment = reserved(ledger, limits, fresh("c.example"), "c", NOW)
    assert moment == NOW + 11 * HOUR


def test_who_is_late_keeps_the_turn_for_a_while() -> None:
    limits = Limits(orders=Rate(1, HOUR))
    ledger = ended(Ledger(), limits, fresh("a.example"), "first", NOW, issued=True)
    ledger, _ = reserved(ledger, limits, fresh("b.example"), "late", NOW)
    now = NOW + HOUR + MINUTE
    assert reserved(ledger, limits, fresh("c.example"), "new", now)[1] == now + HOUR
    assert reserved(ledger, limits, fresh("b.example"), "late", now)[1] == now


# What counts for what


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("example.com", "example.com"),
        ("a.b.example.com", "example.com"),
        ("*.example.co.uk", "example.co.uk"),
        ("www.example.co.uk", "example.co.uk"),
        ("a.bucket.s3.amazonaws.com", "bucket.s3.amazonaws.com"),
        ("shop.somebody.github.io", "somebody.github.io"),
        ("github.io", "github.io"),
        ("www.xn--85x722f.xn--55qx5d.cn", "xn--85x722f.xn--55qx5d.cn"),
        ("host.corp.unlisted", "corp.unlisted"),
    ],
)
def test_registered_domains(name: str, domain: str) -> None:
    assert registered_domain(name) == domain


def issue(ledger: Ledger, order: Order, holder: str, now: datetime = NOW) -> Ledger:
    ledger, moment = reserved(ledger, LETS_ENCRYPT, order, holder, now)
    assert moment == now
    return ended(ledger, LETS_ENCRYPT, order, holder, now, issued=True)


def wait(ledger: Ledger, order: Order, now: datetime = NOW) -> timedelta:
    return reserved(ledger, LETS_ENCRYPT, order, "asks", now)[1] - now


def test_a_renewal_needs_neither_orders_nor_the_domain_but_is_a_duplicate() -> None:
    ledger = Ledger({"orders": NOW + 3 * HOUR, "certificates/example.com": NOW + 7 * DAY})
    names = ("example.com", "www.example.com")
    assert wait(ledger, fresh(*names)) == timedelta(days=7) / 50
    for number in range(5):
        ledger = issue(ledger, renewal(*names), f"p{number}")
    assert wait(ledger, renewal(*names)) == timedelta(days=7) / 5
    assert wait(ledger, renewal(names[0])) == timedelta(), "another set of names"
    assert ledger.full["orders"] == NOW + 3 * HOUR
    assert ledger.full["certificates/example.com"] == NOW + 7 * DAY


def test_an_ari_renewal_waits_for_nothing_but_is_a_duplicate_to_others() -> None:
    ledger = Ledger()
    for number in range(5):
        ledger = issue(ledger, ari("example.com"), f"p{number}")
    ledger = ended(
        ledger, LETS_ENCRYPT, fresh("x"), "x", NOW, issued=False, failed=["example.com"] * 5
    )
    assert wait(ledger, ari("example.com")) == timedelta()
    assert wait(ledger, renewal("example.com")) == timedelta(days=7) / 5


def test_five_failures_of_a_name_and_then_one_each_twelve_minutes() -> None:
    ledger, order = Ledger(), renewal("example.com", "*.example.com")
    for _ in range(5):
        assert wait(ledger, order) == timedelta()
        ledger = ended(
            ledger, LETS_ENCRYPT, order, "p", NOW, issued=False, failed=["*.example.com"]
        )
    # Of orders made together more may fail than are counted.
    ledger = ended(ledger, LETS_ENCRYPT, order, "q", NOW, issued=False, failed=["*.example.com"])
    assert wait(ledger, order) == 12 * MINUTE
    assert wait(ledger, order, NOW + 5 * MINUTE) == 7 * MINUTE
    assert wait(ledger, renewal("example.com")) == timedelta(), "the other name has not failed"


def test_an_order_that_came_to_nothing_is_an_order_and_no_certificate() -> None:
    order = fresh("example.com")
    ledger, _ = reserved(Ledger(), LETS_ENCRYPT, order, "shop", NOW)
    assert left(ledger, LETS_ENCRYPT, NOW).certificates == {"example.com": 49}
    ledger = ended(ledger, LETS_ENCRYPT, order, "shop", NOW, issued=False)
    assert left(ledger, LETS_ENCRYPT, NOW).certificates == {}
    assert left(ledger, LETS_ENCRYPT, NOW).orders == 299


# The same again, and not at all


def test_asking_again_changes_nothing_before_the_moment_and_lets_go_after_it() -> None:
    limits = Limits(orders=Rate(1, HOUR))
    ledger, _ = reserved(Ledger(), limits, fresh("a.example"), "first", NOW)
    ledger, moment = reserved(ledger, limits, fresh("b.example"), "second", NOW)
    assert moment == NOW + HOUR
    for later in (NOW, NOW + MINUTE, moment - MINUTE):
        assert reserved(ledger, limits, fresh("b.example"), "second", later) == (ledger, moment)
    ledger = ended(ledger, limits, fresh("a.example"), "first", NOW, issued=True)
    ledger, again = reserved(ledger, limits, fresh("b.example"), "second", moment)
    assert again == moment
    # Told to go: for as long as its run may take, the same answer, for the same token.
    assert reserved(ledger, limits, fresh("b.example"), "second", moment + GRACE) == (ledger, again)


def test_a_run_that_died_may_have_made_its_order() -> None:
    limits = Limits(orders=Rate(1, HOUR))
    ledger, _ = reserved(Ledger(), limits, fresh("a.example"), "shop", NOW)
    later = NOW + GRACE + MINUTE
    _, moment = reserved(ledger, limits, fresh("a.example"), "shop", later)
    assert moment == NOW + GRACE + HOUR


def test_what_others_took_since_a_run_died_stays_taken() -> None:
    limits = Limits(orders=Rate(1, HOUR))
    ledger, _ = reserved(Ledger(), limits, fresh("a.example"), "died", NOW)
    now = NOW + 3 * HOUR
    ledger = ended(ledger, limits, fresh("b.example"), "blog", now, issued=True)
    _, moment = reserved(ledger, limits, fresh("a.example"), "died", now + MINUTE)
    assert moment >= now + HOUR


def test_an_order_that_goes_on_for_hours_was_counted_as_an_order_long_ago() -> None:
    limits = Limits(orders=Rate(1, HOUR))
    ledger, _ = reserved(Ledger(), limits, fresh("a.example"), "shop", NOW)
    for later in (GRACE + HOUR, 5 * HOUR):
        assert reserved(ledger, limits, fresh("b.example"), "blog", NOW + later)[1] == NOW + later


def test_what_a_dead_run_held_comes_back() -> None:
    """It made no order that ended, so the domain's only token is still there."""
    limits = Limits(certificates=Rate(1, 7 * DAY))
    ledger, _ = reserved(Ledger(), limits, fresh("a.example"), "gone", NOW)
    _, moment = reserved(ledger, limits, fresh("b.a.example"), "shop", NOW + MINUTE)
    assert moment == NOW + MINUTE + 7 * DAY
    forgotten = pruned(ledger, NOW + FORGOTTEN + MINUTE)
    _, moment = reserved(forgotten, limits, fresh("b.a.example"), "shop", NOW + FORGOTTEN + MINUTE)
    assert moment == NOW + FORGOTTEN + MINUTE


@pytest.mark.parametrize("other", [fresh("c.example"), renewal("b.example")])
def test_another_order_of_the_same_holder_gives_up_the_place_of_the_first(other: Order) -> None:
    limits = Limits(orders=Rate(1, HOUR), duplicates=Rate(5, HOUR))
    ledger, _ = reserved(Ledger(), limits, fresh("a.example"), "first", NOW)
    ledger, _ = reserved(ledger, limits, fresh("b.example"), "second", NOW)
    ledger, _ = reserved(ledger, limits, other, "second", NOW)
    _, moment = reserved(ledger, limits, fresh("d.example"), "third", NOW)
    assert moment == NOW + (2 * HOUR if other.kind is Kind.FRESH else HOUR)


def test_an_order_that_ends_late_leaves_the_place_of_the_next_one() -> None:
    limits = Limits(orders=Rate(2, 2 * HOUR))
    ledger, _ = reserved(Ledger(), limits, fresh("a.example"), "shop", NOW)
    ledger, _ = reserved(ledger, limits, fresh("b.example"), "shop", NOW)
    after = ended(ledger, limits, fresh("a.example"), "shop", NOW, issued=True)
    assert after.places == ledger.places


def test_what_is_left() -> None:
    ledger, order = Ledger(), fresh("example.com", "www.example.org")
    assert left(ledger, NO_LIMITS, NOW).orders is None
    ledger = issue(ledger, order, "shop")
    ledger = issue(ledger, fresh("a.example.com"), "blog")
    ledger, _ = reserved(ledger, LETS_ENCRYPT, fresh("b.example.com"), "being made", NOW)
    found = left(ledger, LETS_ENCRYPT, NOW)
    assert (found.orders, found.certificates) == (297, {"example.com": 47, "example.org": 49})
    ledger = replace(ledger, full={**ledger.full, "orders": NOW + 3 * HOUR - MINUTE})
    ledger, moment = reserved(ledger, LETS_ENCRYPT, fresh("c.example.com"), "waits", NOW)
    assert left(ledger, LETS_ENCRYPT, NOW).waiting == {"waits": moment}
    assert left(ledger, LETS_ENCRYPT, NOW).orders == 0
    assert left(ledger, LETS_ENCRYPT, NOW + 2 * HOUR).orders == 200


# In the bucket


@pytest.fixture
def store(sandbox: Sandbox) -> Store:
    return make_bucket(f"bucket-{uuid.uuid4().hex}", Aws())


def test_eight_at_once_lose_nothing(store: Store) -> None:
    limits = Limits(orders=Rate(3, 3 * HOUR))
    start = Barrier(8)

    def ask(number: int) -> datetime:
        mine = Store(store.bucket, Aws())
        start.wait()
        return budget.reserve(mine, "le", limits, fresh(f"{number}.example"), str(number), NOW)

    with ThreadPoolExecutor(8) as threads:
        moments = sorted(threads.map(ask, range(8)))
    assert moments == [NOW] * 3 + [NOW + number * HOUR for number in range(1, 6)]
    assert len(budget.read(store, "le").places) == 8


def test_a_whole_life(sandbox: Sandbox, store: Store) -> None:
    limits, order = Limits(certificates=Rate(1, DAY), failures=Rate(1, HOUR)), fresh("a.example")
    assert budget.reserve(store, "le", limits, order, "shop", NOW) == NOW
    with sandbox.server.refuse("s3:PutObject", "AccessDenied"):
        assert budget.reserve(store, "le", limits, order, "shop", NOW + MINUTE) == NOW
    budget.failed(store, "le", limits, order, "shop", NOW + MINUTE, iter(["a.example"]))
    moment = budget.reserve(store, "le", limits, order, "shop", NOW + 2 * MINUTE)
    assert moment == NOW + MINUTE + HOUR
    assert budget.reserve(store, "le", limits, order, "shop", moment) == moment
    budget.issued(store, "le", limits, order, "shop", moment + MINUTE)
    assert budget.read(store, "le") == Ledger({"certificates/a.example": moment + MINUTE + DAY})
    # Another issuer is another ledger.
    assert budget.reserve(store, "other", limits, order, "shop", moment) == moment


def test_without_limits_nothing_is_written(store: Store) -> None:
    assert budget.reserve(store, "le", NO_LIMITS, fresh("a.example"), "shop", NOW) == NOW
    budget.issued(store, "le", NO_LIMITS, fresh("a.example"), "shop", NOW)
    budget.failed(store, "le", NO_LIMITS, fresh("a.example"), "shop", NOW, ["a.example"])
    assert list(store.keys("")) == []


def test_the_document_stays_small(store: Store) -> None:
    full = {f"certificates/{number}.example": NOW for number in range(500)}
    ledger = Ledger(full)
    for number in range(100):
        order = fresh(f"www.{number}.example")
        ledger, _ = reserved(ledger, LETS_ENCRYPT, order, f"old{number}", NOW - 3 * DAY)
    store.write(budget_key("le"), ledger, Ledger, None)
    budget.reserve(store, "le", LETS_ENCRYPT, fresh("new.example"), "new", NOW)
    after = budget.read(store, "le")
    assert (after.full, list(after.places)) == ({}, ["new"])


@pytest.mark.parametrize("code", ["PreconditionFailed", "ConditionalRequestConflict"])
def test_who_was_slower_tries_again_and_not_for_ever(
    sandbox: Sandbox, store: Store, code: str
) -> None:
    order = fresh("a.example")
    with sandbox.server.refuse("s3:PutObject", code, times=budget.TRIES - 1):
        assert budget.reserve(store, "le", LETS_ENCRYPT, order, "shop", NOW) == NOW
    with (
        sandbox.server.refuse("s3:PutObject", code),
        pytest.raises((Superseded, AwsError)) as raised,
    ):
        budget.issued(store, "le", LETS_ENCRYPT, order, "shop", NOW)
    assert raised.value.retryable
    assert list(budget.read(store, "le").places) == ["shop"]


def test_another_error_is_not_tried_again(sandbox: Sandbox, store: Store) -> None:
    with (
        sandbox.server.refuse("s3:PutObject", "AccessDenied") as refused,
        pytest.raises(AwsError),
    ):
        budget.reserve(store, "le", LETS_ENCRYPT, fresh("a.example"), "shop", NOW)
    assert len(refused) == 1
