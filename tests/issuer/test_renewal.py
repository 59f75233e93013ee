"""Renewal information (RFC 9773), from the CA's window to the order that replaces."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.pipelines.resolved import Issuer
from certrail.store import Current, current_key, order_key, renewal_key
from issuer import lease
from issuer.acme import RenewalInfo
from issuer.due import Why, due
from issuer.renewal import (
    LATEST,
    LOOK,
    SOONEST,
    UNTOLD,
    Renewal,
    _told,
    certificate_id,
    renew_at,
    wants_look,
    window,
)
from issuer.survey import Standing, ask_the_cas, survey
from sandbox.pebble import Pebble
from tests.issuer.conftest import World, age, hurried
from tests.issuer.proxy import Answer, Proxy, problem
from tests.issuer.test_due import NOW, PIPELINE
from tests.issuer.test_due import current as a_current

moments = st.datetimes(
    min_value=datetime(2026, 1, 1), max_value=datetime(2030, 1, 1), timezones=st.just(UTC)
)
NEVER = datetime(2099, 1, 1, tzinfo=UTC)
spans = st.timedeltas(min_value=timedelta(minutes=1), max_value=timedelta(days=30))


# The window, and the moment in it


def test_the_identifier_of_the_rfc() -> None:
    """RFC 9773, 4.1: its example, whose serial number has its first bit set."""
    facts = replace(
        a_current().facts,
        authority_key_id="69885b6b87464041e1b37b847ba0ae2cde01c8d4",
        serial="87654321",
    )
    assert certificate_id(facts) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
    assert certificate_id(replace(facts, serial="7f")) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.fw"
    assert certificate_id(replace(facts, authority_key_id=None)) is None


@given(moments, spans, st.text(alphabet="0123456789abcdef", min_size=64, max_size=64))
def test_the_moment_is_in_the_window_and_is_seen_before_its_end(
    start: datetime, span: timedelta, fingerprint: str
) -> None:
    told = RenewalInfo(start, start + span, None, None)
    known = _told(Renewal(fingerprint), told, NEVER, start)
    assert known.moment is not None
    assert told.start <= known.moment <= told.end
    if span > LOOK:
        assert known.moment + LOOK <= told.end
    # Whoever looks finds the same, and so does the next look.
    assert (
        _told(Renewal(fingerprint), told, NEVER, start + timedelta(days=1)).moment == known.moment
    )
    assert _told(known, told, NEVER, start + timedelta(hours=6)).moment == known.moment


@given(moments, spans, st.timedeltas(timedelta(hours=-1), timedelta(days=30)))
def test_the_moment_is_before_the_end_of_the_certificate(
    start: datetime, span: timedelta, left: timedelta
) -> None:
    """Though the window may go on after it."""
    not_after = start + max(left, timedelta(minutes=1))
    known = _told(Renewal("ab"), RenewalInfo(start, start + span, None, None), not_after, start)
    assert known.moment is not None
    assert start <= known.moment < not_after


def test_moments_spread_over_the_window() -> None:
    told = RenewalInfo(NOW, NOW + timedelta(hours=43), None, None)
    found = [_told(Renewal(f"{n:064x}"), told, NEVER, NOW).moment for n in range(400)]
    parts = sorted((each - NOW) / (timedelta(hours=43) - LOOK) for each in found if each)
    assert len(parts) == 400
    for quarter in range(1, 4):
        assert abs(parts[100 * quarter] - quarter / 4) < 0.1


def test_a_chosen_moment_stays_until_the_window_changes() -> None:
    told = RenewalInfo(NOW, NOW + timedelta(days=2), None, None)
    chosen = NOW + timedelta(hours=7)
    known = replace(_told(Renewal("ab"), told, NEVER, NOW), moment=chosen, told_at_risk=True)
    again = _told(known, told, NEVER, NOW + timedelta(hours=6))
    assert again.moment == chosen
    assert again.told_at_risk
    moved = _told(known, replace(told, end=told.end - timedelta(hours=30)), NEVER, NOW)
    assert moved.moment != chosen
    assert not moved.told_at_risk


@given(st.none() | st.timedeltas(timedelta(days=-1), timedelta(days=90)))
def test_the_next_look_is_between_a_minute_and_a_day(wait: timedelta | None) -> None:
    told = RenewalInfo(NOW, NOW + timedelta(days=2), None, NOW + wait if wait else None)
    known = _told(Renewal("ab"), told, NEVER, NOW)
    assert known.next_look is not None
    assert SOONEST <= known.next_look - NOW <= LATEST
    if not wait:
        assert known.next_look - NOW == UNTOLD


@given(
    st.timedeltas(timedelta(hours=4), timedelta(days=200)),
    st.none() | st.timedeltas(timedelta(hours=1), timedelta(days=300)),
    st.floats(0, 1),
)
def test_without_a_window_it_is_a_part_of_the_life(
    life: timedelta, lead: timedelta | None, part: float
) -> None:
    held = a_current(life=life, age=life * part)
    when = window(held, None, lead)
    assert not when.by_ca
    assert held.facts.not_before < when.start < when.end <= held.facts.not_after
    # A lead as long as the life would never end: it is not heard.
    heard = lead is not None and lead < life
    assert (held.facts.not_after - when.start == lead) or not heard
    found = due(replace(PIPELINE, renew_before=lead), held, NOW)
    assert (found is not None) == (when.moment <= NOW)


def known_window(held: Current, opens: timedelta, lasts: timedelta) -> Renewal:
    start = NOW + opens
    return Renewal(held.fingerprint, start, start + lasts, start + lasts / 2)


def test_never_before_the_window_opens() -> None:
    """Though two thirds of its life, and even its last day, have come."""
    for days in (61, 89):
        held = a_current(age=timedelta(days=days))
        known = known_window(held, timedelta(hours=1), timedelta(hours=4))
        assert due(PIPELINE, held, NOW, renewal=known) is None
        later = due(PIPELINE, held, NOW + timedelta(hours=3), renewal=known)
        assert later is not None
        assert later.why is Why.WINDOW


def test_a_window_in_the_past_is_now() -> None:
    """What a CA does when it must revoke."""
    held = a_current(age=timedelta(days=1))
    known = known_window(held, timedelta(days=-3), timedelta(days=1))
    found = due(PIPELINE, held, NOW, renewal=known)
    assert found is not None
    assert found.why is Why.WINDOW


def test_what_was_said_of_another_certificate_or_after_its_end_is_not_heard() -> None:
    held = a_current(age=timedelta(days=10))
    past = known_window(held, timedelta(days=-3), timedelta(days=1))
    assert due(PIPELINE, held, NOW, renewal=replace(past, fingerprint="other")) is None
    never = known_window(held, timedelta(days=100), timedelta(days=1))
    assert window(held, never).end <= held.facts.not_after
    assert renew_at(held.facts.not_before, held.facts.not_after) == window(held, never).moment


# The CA's own words


def looked_at(world: World, world_now: datetime | None = None) -> Standing:
    """How `shop` stands after a look of the schedule."""
    standings = survey(world.store, [world.pipeline()], {})
    clock = hurried(timedelta(minutes=4), world_now)
    (standing,), unwritten = ask_the_cas(world.store, standings, clock)
    assert unwritten == []
    return standing


def suggest(
    world: World, ca: Pebble, opens: timedelta, lasts: timedelta, page: str | None = None
) -> datetime:
    """Let the CA have a window for the current certificate, which is some days old; returns the
    window's start."""
    age(world, timedelta(days=5))
    held = world.store.current("shop")
    assert held is not None
    start = datetime.now(UTC).replace(microsecond=0) + opens
    ca.suggest_renewal(world.store.bundle(held).certificate, start, start + lasts, page)
    return start


def test_the_window_of_the_ca_is_kept(world: World, ca: Pebble) -> None:
    assert world.issue() is not None
    start = suggest(world, ca, timedelta(days=3), timedelta(hours=3), "https://ca.example/why")
    standing = looked_at(world)
    known = standing.known
    assert known is not None
    assert (known.start, known.end) == (start, start + timedelta(hours=3))
    assert known.explanation == "https://ca.example/why"
    assert known.next_look is not None
    held = world.store.read(renewal_key("shop"), Renewal)
    assert held is not None
    assert held.value == known
    # Nothing is due, and the CA is not asked again before it wants to be.
    assert standing.due(datetime.now(UTC)) is None
    assert standing.current is not None
    assert not wants_look(standing.current, known, datetime.now(UTC))
    assert wants_look(standing.current, known, known.next_look)
    assert world.issue() is None


def test_a_window_that_moved_is_found_at_the_next_look(world: World, ca: Pebble) -> None:
    first = world.issue()
    assert first is not None
    suggest(world, ca, timedelta(days=30), timedelta(days=2))
    known = looked_at(world).known
    assert known is not None
    assert known.next_look is not None
    suggest(world, ca, timedelta(days=-2), timedelta(days=1), "https://ca.example/incident")
    assert looked_at(world).known == known
    moved = looked_at(world, known.next_look)
    found = moved.due(datetime.now(UTC))
    assert found is not None
    assert found.why is Why.WINDOW
    second = world.issue()
    assert second is not None
    assert second.generation == 2
    assert world.told.refusals == []


def test_a_ca_that_does_not_answer_is_asked_later(proxied: World, proxy: Proxy) -> None:
    assert proxied.issue() is not None

    def at(answer: Answer, known: Renewal | None = None) -> Renewal:
        proxy.instead = lambda method, path: answer if "renewalInfo" in path else None
        now = known.next_look if known else None
        found = looked_at(proxied, now).known
        assert found is not None
        return found

    pauses = []
    busy = known = at(Answer(503))
    for _ in range(3):
        assert known.next_look is not None
        before, known = known.next_look, at(Answer(503), known)
        assert known.next_look is not None
        pauses.append(round((known.next_look - before) / SOONEST))
    assert busy.failures == 1
    assert known.failures == 4
    assert "503" in str(known.error)
    # RFC 9773, 4.3.3: longer each time.
    assert pauses == sorted(set(pauses))
    assert known.next_look is not None
    asked = known.next_look
    lost = at(problem(404, "malformed", "never heard of it"), known)
    assert lost.next_look is not None
    assert asked + UNTOLD <= lost.next_look < asked + UNTOLD + SOONEST
    assert "never heard of it" in str(lost.error)
    assert lost.next_look is not None
    backwards = {
        "suggestedWindow": {"start": "2027-01-02T00:00:00Z", "end": "2027-01-01T00:00:00Z"}
    }
    odd = at(Answer(200, {}, json.dumps(backwards).encode()), lost)
    assert "ends before it starts" in str(odd.error)
    assert odd.start is None
    # The fallback goes on all the while.
    standing = survey(proxied.store, [proxied.pipeline()], {})[0]
    assert standing.window is not None
    assert not standing.window.by_ca
    proxy.instead = lambda method, path: None
    mended = looked_at(proxied, odd.next_look).known
    assert mended is not None
    assert mended.start is not None
    assert (mended.failures, mended.error) == (0, None)


@pytest.mark.parametrize("part", ["renewalInfo", ""])
def test_a_ca_that_is_down_is_asked_once_for_all(proxied: World, proxy: Proxy, part: str) -> None:
    """Whether it is all of the CA, or only what tells about renewals."""
    pipelines = [proxied.pipeline(name=f"p{number}") for number in range(4)]
    for pipeline in pipelines:
        assert proxied.issue(pipeline) is not None
    proxy.instead = lambda method, path: Answer(503) if part in path else None
    clock = hurried(timedelta(minutes=4))
    before = len(proxy.seen)
    found, _ = ask_the_cas(proxied.store, survey(proxied.store, pipelines, {}), clock)
    asked = {path for _, path in proxy.seen[before:] if path != "/dir" or not part}
    assert len(asked) == 1
    assert sum(each.known is not None for each in found) == 1


# The order that replaces


def order_payloads(proxy: Proxy) -> list[dict[str, object]]:
    return [
        payload
        for (_, path), payload in zip(proxy.seen, proxy.payloads, strict=True)
        if path == "/order-plz" and payload
    ]


def test_a_window_that_was_over_before_the_certificate_was_there(world: World, ca: Pebble) -> None:
    """A CA whose mistake would order again and again: once a day is enough."""
    assert world.issue() is not None
    suggest(world, ca, timedelta(hours=-3), timedelta(hours=1))
    assert looked_at(world).due(datetime.now(UTC)) is not None
    current = world.issue()
    assert current is not None
    assert current.generation == 2
    start = datetime.now(UTC) - timedelta(hours=3)
    certificate = world.store.bundle(current).certificate
    ca.suggest_renewal(certificate, start, start + timedelta(hours=1))
    standing = looked_at(world)
    assert standing.known is not None
    assert standing.due(datetime.now(UTC)) is None
    assert standing.due(current.published_at + timedelta(hours=23)) is None
    assert standing.due(current.published_at + timedelta(hours=25)) is not None


def in_the_window(world: World, ca: Pebble) -> Current:
    """A certificate whose window is open and whose moment has come."""
    first = world.issue()
    assert first is not None
    start = suggest(world, ca, timedelta(hours=-2), timedelta(hours=3))
    known = looked_at(world).known
    assert known is not None
    assert known.start == start
    chosen = replace(known, moment=start)
    found = world.store.read(renewal_key("shop"), Renewal)
    assert found is not None
    world.store.write(renewal_key("shop"), chosen, Renewal, found.etag)
    return first


def test_a_renewal_says_what_it_replaces(proxied: World, proxy: Proxy, ca: Pebble) -> None:
    first = in_the_window(proxied, ca)
    second = proxied.issue()
    assert second is not None
    assert second.generation == 2
    fresh, renewal = order_payloads(proxy)[0], order_payloads(proxy)[-1]
    assert "replaces" not in fresh
    assert renewal["replaces"] == certificate_id(first.facts)
    assert proxied.told.refusals == []


def test_it_replaces_only_towards_the_same_ca_and_account(
    proxied: World, proxy: Proxy, ca: Pebble
) -> None:
    in_the_window(proxied, ca)
    pipeline = proxied.pipeline()
    elsewhere = replace(pipeline, issuers=(Issuer("other-account", proxied.directory),))
    assert proxied.issue(elsewhere) is not None
    assert "replaces" not in order_payloads(proxy)[-1]


def test_other_names_replace_nothing(proxied: World, proxy: Proxy, ca: Pebble) -> None:
    in_the_window(proxied, ca)
    assert proxied.issue(proxied.pipeline(f"other.{proxied.zone}")) is not None
    assert "replaces" not in order_payloads(proxy)[-1]


REFUSALS = {
    409: "alreadyReplaced",
    404: "malformed",
    403: "unauthorized",
    400: "malformed",
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refused_replaces_is_left_out_once(
    proxied: World, proxy: Proxy, ca: Pebble, status: int
) -> None:
    in_the_window(proxied, ca)
    answer = problem(status, REFUSALS[status], "Could not validate ARI 'replaces' field")

    def refuse(method: str, path: str) -> Answer | None:
        carries = "replaces" in (proxy.payloads[-1] or {})
        return answer if path == "/order-plz" and carries else None

    proxy.instead = refuse
    before = len(order_payloads(proxy))
    second = proxied.issue()
    assert second is not None
    assert second.generation == 2
    (refusal,) = proxied.told.refusals
    assert "Could not validate ARI" in refusal
    # Once with it and once without, but for the nonces that Pebble refuses.
    orders = ["replaces" in each for each in order_payloads(proxy)[before:]]
    assert [carries for carries, _ in groupby(orders)] == [True, False]


def test_the_ca_s_own_409(world: World, ca: Pebble) -> None:
    """Somebody restored an older current.json, whose certificate was replaced already."""
    first = in_the_window(world, ca)
    second = world.issue(asked=1)
    assert second is not None
    assert world.told.refusals == []
    found = world.store.read(current_key("shop"), Current)
    assert found is not None
    world.store.write(current_key("shop"), first, Current, found.etag)
    again = world.issue(asked=1)
    assert again is not None
    assert again.fingerprint not in {first.fingerprint, second.fingerprint}
    (refusal,) = world.told.refusals
    assert "alreadyReplaced" in refusal


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_ca_has_nothing_against_the_field(
    proxied: World, proxy: Proxy, ca: Pebble, status: int
) -> None:
    in_the_window(proxied, ca)
    before = len(order_payloads(proxy))
    busy = problem(status, "rateLimited", "later", Retry_After="7200")
    proxy.instead = lambda method, path: busy if path == "/order-plz" else None
    started = datetime.now(UTC)
    with pytest.raises(Exception, match="later"):
        proxied.issue()
    assert proxied.told.refusals == []
    asked = order_payloads(proxy)[before:]
    assert asked
    assert all("replaces" in each for each in asked)
    progress = lease.read(proxied.store, "shop")
    assert progress is not None
    assert progress.next_attempt is not None
    assert progress.next_attempt >= started + timedelta(hours=2)
    proxy.instead = lambda method, path: None
    assert proxied.issue() is not None
    assert proxied.store.read(order_key("shop"), lease.Progress) is not None
