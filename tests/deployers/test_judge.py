"""What follows from what was seen: pure functions, so they are tried on thousands of histories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.records import Check, Record, Rollout, State
from certrail.store import Current, Rollback
from certrail.target import Deployed, Endpoint, Node
from certrail.waves import ONE_WAVE, Wave
from deployers.judge import SOON, Alarm, Judgement, WayBack, attention, judged
from deployers.looks import AGAIN, GRACE, HOUR, LADDER, asked, is_due, looked, not_asked
from deployers.rollout import gates
from deployers.seen import Seen, Verdict
from tests.certrail.bundles import NOW
from tests.deployers.test_rollout import current as current_of

ENDPOINT = Endpoint("lb.example", 443, ("shop.example.com", ""))
MINUTE = timedelta(minutes=1)
UNTIL = NOW + 30 * MINUTE
FRESH = Check(UNTIL, NOW)
CURRENT = replace(current_of(2), previous=f"{1:064x}")
BEFORE = current_of(1)
GOOD_BEFORE = BEFORE.fingerprint


def record(
    address: str = "listener/a",
    state: State = State.DEPLOYED,
    *,
    generation: int = 2,
    endpoints: tuple[Endpoint, ...] = (ENDPOINT,),
    check: Check | None = FRESH,
    **more: object,
) -> Record:
    fingerprint = f"{generation:064x}"
    made = Record(
        pipeline="shop",
        address=address,
        kind="listener",
        state=state,
        generation=generation,
        fingerprint=fingerprint,
        spec="",
        at=NOW,
        held=Deployed(fingerprint, "arn", endpoints=endpoints),
        check=check,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def served(address: str = "listener/a", generation: int = 2) -> Record:
    check = Check(UNTIL, NOW + AGAIN, served_at=NOW)
    good = f"{generation:064x}"
    return record(address, State.SERVED, generation=generation, check=check, good=good)


def failed(address: str = "listener/a", **more: object) -> Record:
    check = Check(UNTIL, NOW + AGAIN, saw="no", failed=True)
    made = record(address, State.FAILED, check=check, error=f"{address}: no")
    return replace(made, **more)  # type: ignore[arg-type]


def seen(*verdicts: Verdict) -> dict[Endpoint, list[Seen]]:
    """Each at an address of its own, for every name."""
    return {
        ENDPOINT: [
            Seen(f"198.18.0.{number}:443", name, verdict, str(verdict))
            for number, verdict in enumerate(verdicts)
            for name in ENDPOINT.server_names
        ]
    }


GOOD, OTHER, UNTRUSTED = Verdict.GOOD, Verdict.OTHER, Verdict.UNTRUSTED
REFUSED, AWAY, SKIPPED = Verdict.REFUSED, Verdict.UNREACHABLE, Verdict.SKIPPED


# One look


@pytest.mark.parametrize(
    ("verdicts", "at", "state"),
    [
        ([GOOD], NOW, State.SERVED),
        ([GOOD, GOOD], UNTIL + AGAIN, State.SERVED),
        # An address that cannot be reached, such as IPv6 from where there is none, says nothing.
        ([GOOD, AWAY], NOW, State.SERVED),
        # Not yet …
        ([GOOD, OTHER], NOW, State.DEPLOYED),
        ([REFUSED], NOW, State.DEPLOYED),
        ([AWAY], NOW, State.DEPLOYED),
        # … and wrong.
        ([GOOD, OTHER], UNTIL, State.FAILED),
        ([REFUSED], UNTIL, State.FAILED),
        ([AWAY], UNTIL, State.FAILED),
        # At once, as time does not heal it.
        ([GOOD, UNTRUSTED], NOW, State.FAILED),
        # What nobody looked at is nobody's fault.
        ([GOOD, SKIPPED], UNTIL + AGAIN, State.DEPLOYED),
        ([SKIPPED, UNTRUSTED], NOW, State.FAILED),
    ],
)
def test_not_yet_and_wrong_differ(verdicts: list[Verdict], at: datetime, state: State) -> None:
    after = looked(record(), None, seen(*verdicts), at)
    assert after.state is state
    assert after.check
    assert after.check.failed == (state is State.FAILED)
    assert (after.good == after.fingerprint) == (state is State.SERVED)
    assert (after.check.served_at == at) == (state is State.SERVED)


def test_a_name_must_be_seen_somewhere() -> None:
    half = [
        Seen("198.18.0.1:443", "shop.example.com", GOOD, "well"),
        Seen("198.18.0.1:443", "", AWAY, "cannot be reached"),
    ]
    assert looked(record(), None, {ENDPOINT: half}, NOW).state is State.DEPLOYED


def test_a_host_without_an_address_is_one_thing_seen() -> None:
    after = looked(record(), None, {ENDPOINT: [Seen("lb.example", "", AWAY, "no address")]}, UNTIL)
    assert after.state is State.FAILED
    assert after.check
    assert not after.check.reached
    assert after.error
    assert "lb.example" in after.error
    assert "`verify: false`" in after.error


def test_the_error_says_what_clients_get_and_what_to_do() -> None:
    after = looked(record(), None, seen(UNTRUSTED), NOW)
    assert after.error
    assert after.error.startswith("listener/a: clients do not get 000000000000: 198.18.0.0:443")
    assert "`trust`" in after.error
    many = looked(record(), None, seen(*[OTHER] * 9), UNTIL)
    assert many.error
    assert "; and 15 more" in many.error


def test_looks_become_rarer_and_the_last_is_when_the_time_is_over() -> None:
    now, one = NOW, record()
    times = []
    while one.state is State.DEPLOYED:
        one = looked(one, None, seen(OTHER), now)
        assert one.check
        assert one.check.next
        times.append(one.check.next - now)
        now = one.check.next
    assert times[:5] == list(LADDER[:5])
    # At 30 minutes exactly, and from then on with every hourly run.
    assert sum(times[:-1], timedelta(0)) == UNTIL - NOW
    assert times[-1] == HOUR
    assert one.state is State.FAILED


def test_what_was_served_is_looked_at_closely_before_it_is_called_wrong() -> None:
    now = NOW + AGAIN
    one = looked(served(), None, seen(OTHER), now)
    assert one.state is State.SERVED
    assert looked(one, None, seen(GOOD), now + MINUTE).state is State.SERVED
    ends = now + GRACE
    while one.state is State.SERVED:
        assert one.check
        assert one.check.next
        assert now < one.check.next <= ends
        now = one.check.next
        one = looked(one, None, seen(OTHER), now)
    assert now == ends
    assert one.state is State.FAILED
    # And recovers.
    well = looked(one, None, seen(GOOD), now + AGAIN)
    assert (well.state, well.error) == (State.SERVED, None)
    assert well.check
    assert not well.check.failed


def test_what_is_not_served_any_more_is_nothing_to_go_back_to() -> None:
    """Somebody's certificate wins over ours: no certificate of ours will be seen, and to issue one
    and go back, day after day, would help nobody."""
    assert looked(failed(good=f"{2:064x}"), None, seen(AWAY), UNTIL).good == f"{2:064x}"
    lost = looked(failed(good=f"{2:064x}"), None, seen(OTHER), UNTIL)
    assert lost.good is None
    new = looked(record(generation=3, good=lost.good), None, seen(OTHER), UNTIL)
    begun = Rollout("shop", 3, new.fingerprint, NOW, NOW)
    judgement = judge(begun, new, current=current_of(3), way_back=WayBack(CURRENT))
    assert judgement.back is None
    assert judgement.rollout.failed
    # While one that fails first keeps what was well before it.
    assert looked(record(good=GOOD_BEFORE), None, seen(OTHER), UNTIL).good == GOOD_BEFORE


STRANGE = f"{9:064x}"


@pytest.mark.parametrize(
    ("shown", "believed", "previous", "shadowed"),
    [
        ([STRANGE, STRANGE], True, None, True),
        ([STRANGE, STRANGE], False, None, False),
        # It was ours once, so it may be what is late to go.
        ([STRANGE, STRANGE], True, STRANGE, False),
        ([GOOD_BEFORE, GOOD_BEFORE], True, None, False),
        ([STRANGE, GOOD_BEFORE], True, None, False),
        ([STRANGE, ""], True, None, False),
    ],
)
def test_what_others_put_there_is_not_the_certificates_fault(
    shown: list[str], believed: bool, previous: str | None, shadowed: bool
) -> None:
    there = [
        Seen(f"{each}:443", name, OTHER if each else REFUSED, "", each, bool(each) and believed)
        for each in shown
        for name in ENDPOINT.server_names
    ]
    after = looked(record(good=GOOD_BEFORE), previous, {ENDPOINT: there}, UNTIL)
    assert after.state is State.FAILED
    assert after.check
    assert after.check.shadowed is shadowed
    judgement = judge(BEGUN, after, way_back=WayBack(BEFORE))
    assert (judgement.back is None) is shadowed
    if shadowed:
        assert judgement.rollout.failed
        assert "Not rolled back: clients believe what they get there" in judgement.rollout.failed


def test_a_failure_stays_until_it_is_seen_well() -> None:
    one = failed()
    for verdict in (AWAY, OTHER, UNTRUSTED, SKIPPED):
        one = looked(one, None, seen(verdict), NOW + AGAIN)
        assert one.state is State.FAILED
        assert one.check
        assert one.check.failed
        assert one.check.next
        assert one.check.next > NOW + AGAIN


def test_what_there_is_never_the_time_for_is_a_failure_that_says_so() -> None:
    """Nothing is known against the certificate, so it is no reason to go back."""
    later = NOW + AGAIN
    for one, begins, ends in (
        (record(good=GOOD_BEFORE), NOW, UNTIL + GRACE),
        (served(), later, later + 2 * GRACE),
    ):
        now, looks = begins, 0
        while one.state is not State.FAILED:
            one = looked(one, None, seen(GOOD, SKIPPED), now)
            assert one.check
            assert one.check.next
            failed_at, now, looks = now, one.check.next, looks + 1
        assert (failed_at, looks <= 8) == (ends, True)
        assert one.error
        assert "198.18.0.1:443" in one.error
        assert "`verify: false`" in one.error
        assert one.good
        judgement = judge(BEGUN, one, way_back=WayBack(BEFORE))
        assert (judgement.back, judgement.rollout.failed is None) == (None, False)


def test_one_look_without_time_is_no_failure() -> None:
    for one in (record(), served()):
        late = looked(one, None, seen(GOOD, SKIPPED), UNTIL + AGAIN)
        assert late.state is one.state
        assert looked(late, None, seen(GOOD, GOOD), UNTIL + AGAIN + MINUTE).state is State.SERVED
    still = looked(failed(), None, seen(GOOD, SKIPPED), UNTIL + AGAIN)
    assert (still.state, still.error) == (State.FAILED, failed().error)


VERDICTS = st.lists(st.sampled_from(Verdict), min_size=1, max_size=3)
STEPS = st.lists(st.tuples(VERDICTS, st.timedeltas(timedelta(0), 2 * AGAIN)), max_size=12)


@given(STEPS)
def test_whatever_is_seen_there_is_a_next_look_and_no_failure_too_early(
    steps: list[tuple[list[Verdict], timedelta]],
) -> None:
    one, now = record(), NOW
    for verdicts, later in steps:
        now += later
        before, one = one, looked(one, None, seen(*verdicts), now)
        assert one.check
        assert one.check.next
        assert now < one.check.next <= now + AGAIN
        if one.state is State.FAILED and before.state is not State.FAILED:
            assert UNTRUSTED in verdicts or now >= UNTIL
            assert set(verdicts) - {GOOD}
        if one.state is State.SERVED and before.state is not State.SERVED:
            assert GOOD in verdicts
            assert not set(verdicts) & {OTHER, UNTRUSTED, REFUSED, SKIPPED}


# Waves

CANARY, REST = Wave("canary", 30 * MINUTE), Wave("rest")
NUMBERS = {"listener/a": 0, "listener/b": 1}
NOWHERE = WayBack(None, "it is the pipeline's first certificate")


def judge(
    rollout: Rollout | None,
    *records: Record,
    waves: tuple[Wave, ...] = (CANARY, REST),
    alarms: Mapping[str, Alarm] | None = None,
    way_back: WayBack = NOWHERE,
    current: Current = CURRENT,
    now: datetime = NOW,
) -> Judgement:
    return judged(
        rollout,
        current,
        waves,
        {address: min(number, len(waves) - 1) for address, number in NUMBERS.items()},
        {each.address: each for each in records},
        alarms or {},
        lambda _: way_back,
        now,
    )


def old(address: str) -> Record:
    return served(address, 1)


def test_a_wave_after_the_other() -> None:
    first = judge(None, old("listener/a"), old("listener/b")).rollout
    assert (first.passed, first.began_at, first.served_at) == (0, NOW, None)
    deployed = judge(first, record("listener/a"), old("listener/b")).rollout
    assert deployed.served_at is None
    bakes = judge(first, served("listener/a"), old("listener/b")).rollout
    assert bakes.served_at == NOW
    assert bakes.next == NOW + SOON
    early = judge(bakes, served("listener/a"), old("listener/b"), now=NOW + 29 * MINUTE).rollout
    assert (early.passed, early.next) == (0, NOW + 30 * MINUTE)
    over = NOW + 30 * MINUTE
    second = judge(early, served("listener/a"), old("listener/b"), now=over).rollout
    assert (second.passed, second.began_at, second.served_at) == (1, over, None)
    done = judge(second, served("listener/a"), served("listener/b"), now=over + HOUR).rollout
    assert (done.passed, done.done_at, done.next) == (2, over + HOUR, None)


def test_where_nobody_can_look_deployed_is_all_there_is() -> None:
    both = [record(address, check=None, endpoints=()) for address in NUMBERS]
    assert judge(None, *both, waves=ONE_WAVE).rollout.done_at == NOW


def test_a_wave_begins_only_while_its_alarms_are_quiet() -> None:
    wave = replace(CANARY, alarms=("errors",))
    rings = {"errors": Alarm("errors", NOW - HOUR)}
    waits = judge(None, old("listener/a"), waves=(wave, REST), alarms=rings).rollout
    assert waits.began_at is None
    assert waits.waits_for
    assert "the alarm errors rings since" in waits.waits_for
    closed = gates((wave, REST), [], CURRENT, waits).closed_to("listener/a", None)
    assert closed is not None
    later = NOW + HOUR
    quiet = {"errors": Alarm("errors")}
    begun = judge(waits, old("listener/a"), waves=(wave, REST), alarms=quiet, now=later).rollout
    assert (begun.began_at, begun.waits_for) == (later, None)


def test_the_first_wave_with_alarms_is_closed_until_somebody_looked_at_them() -> None:
    wave = replace(CANARY, alarms=("errors",))
    assert not gates((wave, REST), [], CURRENT, None).begun
    assert gates((CANARY, REST), [], CURRENT, None).begun


RINGS = {"errors": Alarm("errors", NOW + MINUTE)}
ALARMED = (replace(CANARY, alarms=("errors",)), REST)
BEGUN = Rollout("shop", 2, CURRENT.fingerprint, NOW, began_at=NOW, proven=BEFORE.fingerprint)


@pytest.mark.parametrize(
    "target",
    [
        old("listener/a"),
        record("listener/a", before=BEFORE.fingerprint),
        replace(served("listener/a"), before=BEFORE.fingerprint),
    ],
)
def test_an_alarm_that_begins_to_ring_rolls_back(target: Record) -> None:
    judgement = judge(BEGUN, target, waves=ALARMED, alarms=RINGS, way_back=WayBack(BEFORE))
    assert judgement.back
    assert judgement.back.to == BEFORE
    assert "the alarm errors rings since" in judgement.back.why


def test_what_rings_long_after_all_have_it_is_not_about_it() -> None:
    """A distribution that is gone keeps the wave from its end, for weeks."""
    gone = record("listener/b", State.FAILED, check=None, error="it is gone", held=None)
    one_wave = (Wave("all", timedelta(hours=2), ("errors",)),)
    there = replace(served("listener/a"), before=BEFORE.fingerprint)
    for rang, goes_back in [(NOW + 2 * HOUR, True), (NOW + 3 * HOUR, False)]:
        judgement = judged(
            BEGUN,
            CURRENT,
            one_wave,
            dict.fromkeys(NUMBERS, 0),
            {"listener/a": there, "listener/b": gone},
            {"errors": Alarm("errors", rang)},
            lambda _: WayBack(BEFORE),
            rang + MINUTE,
        )
        assert (judgement.back is not None) is goes_back
        assert judgement.rollout.done_at is None


def test_during_the_bake_alarms_are_looked_at_every_few_minutes() -> None:
    quiet = {"errors": Alarm("errors")}
    bakes = judge(BEGUN, served("listener/a"), waves=ALARMED, alarms=quiet).rollout
    assert bakes.next == NOW + 5 * MINUTE
    judgement = judge(
        bakes,
        served("listener/a"),
        waves=ALARMED,
        alarms=RINGS,
        way_back=WayBack(BEFORE),
        now=NOW + 5 * MINUTE,
    )
    assert judgement.back


def test_an_alarm_that_does_not_exist_stops_it_until_it_does() -> None:
    gone = {"errors": Alarm("errors", unknown="there is no alarm errors; create it")}
    stops = judge(None, old("listener/a"), waves=ALARMED, alarms=gone, way_back=WayBack(BEFORE))
    assert stops.back is None
    assert stops.rollout.failed == "wave `canary`: there is no alarm errors; create it"
    there = {"errors": Alarm("errors")}
    goes_on = judge(stops.rollout, old("listener/a"), waves=ALARMED, alarms=there).rollout
    assert (goes_on.failed, goes_on.began_at) == (None, NOW)


@pytest.mark.parametrize(
    ("target", "back"),
    [
        pytest.param(failed(good=GOOD_BEFORE), True, id="not served, the one before was"),
        pytest.param(failed(), False, id="not served, and nothing ever was"),
        pytest.param(
            failed(
                good=GOOD_BEFORE,
                check=Check(UNTIL, NOW, saw="away", failed=True, reached=False),
            ),
            False,
            id="nothing was reached",
        ),
        pytest.param(
            record(
                state=State.FAILED,
                refused=True,
                check=None,
                error="ACM refused it",
                held=Deployed(GOOD_BEFORE, "arn"),
            ),
            True,
            id="the service refused the bundle",
        ),
    ],
)
def test_who_fails_goes_back_to_what_was_well_there(target: Record, back: bool) -> None:
    judgement = judge(BEGUN, target, way_back=WayBack(BEFORE))
    assert (judgement.back is not None) is back
    if not back:
        assert judgement.rollout.failed
        assert "Not rolled back: " in judgement.rollout.failed
        assert gates((CANARY, REST), [], CURRENT, judgement.rollout).stopped


def test_a_deployment_that_fails_for_itself_only_waits() -> None:
    gone = record(state=State.FAILED, check=None, error="there is no listener", good=GOOD_BEFORE)
    judgement = judge(BEGUN, gone, way_back=WayBack(BEFORE))
    assert judgement == Judgement(BEGUN)


def test_why_there_is_no_way_back_is_told_and_stays_until_it_is_well() -> None:
    bad = failed(good=GOOD_BEFORE)
    stopped = judge(BEGUN, bad, way_back=WayBack(None, "it ends too soon")).rollout
    assert stopped.failed == "wave `canary`: listener/a: no. Not rolled back: it ends too soon"
    assert judge(stopped, bad, way_back=WayBack(None, "it ends too soon")).rollout == stopped
    later = NOW + HOUR
    well = judge(stopped, served(), now=later).rollout
    assert (well.failed, well.began_at, well.served_at) == (None, later, later)


def test_after_the_last_wave_a_failure_is_told_and_nothing_more() -> None:
    done = replace(BEGUN, passed=2, done_at=NOW)
    assert judge(done, failed(good=GOOD_BEFORE), way_back=WayBack(BEFORE)) == Judgement(done)


WHY = Rollback(of=f"{2:064x}", generation=2, reason="no", by="me", at=NOW)
# Generation 3 has the bundle of the first one.
BACK = replace(current_of(3), facts=BEFORE.facts, rollback=WHY)


def test_what_all_waves_had_passed_with_goes_back_everywhere_at_once() -> None:
    for proves in (BEGUN, Rollout("shop", 1, BEFORE.fingerprint, NOW, NOW, done_at=NOW)):
        assert gates((CANARY, REST), [], BACK, proves).closed_to("listener/b", None) is None
        begun = judge(proves, *map(old, NUMBERS), current=BACK, waves=ALARMED, alarms=RINGS)
        assert (begun.back, begun.rollout.failed) == (None, None)
        both = [replace(served(address, 3), fingerprint=f"{1:064x}") for address in NUMBERS]
        assert judge(begun.rollout, *both, current=BACK, waves=ALARMED).rollout.done_at == NOW


def test_what_was_never_everywhere_goes_back_to_where_it_was_left() -> None:
    """Generation 1 had just begun when 2 was published: the last wave still has what was before."""
    begun = replace(BEGUN, proven=f"{9:064x}")
    closed = gates((CANARY, REST), [], BACK, begun).closed_to
    assert closed("listener/a", record("listener/a")) is None
    assert closed("listener/a", old("listener/a")) is None
    before = served("listener/b", 1)
    before = replace(before, generation=0, held=Deployed(f"{9:064x}", "arn"))
    assert closed("listener/b", before) == "waiting for wave `canary`"
    waits = judge(begun, old("listener/a"), before, current=BACK, waves=ALARMED, alarms=RINGS)
    assert waits.rollout.waits_for


def test_a_rollback_is_not_rolled_back() -> None:
    bad = failed(generation=3, good=GOOD_BEFORE)
    nowhere = WayBack(None, "generation 3 is itself a rollback")
    begun = replace(BEGUN, generation=3, proven=f"{9:064x}")
    stops = judge(begun, bad, current=BACK, way_back=nowhere)
    assert stops.back is None
    assert stops.rollout.failed
    assert stops.rollout.failed.endswith("Not rolled back: generation 3 is itself a rollback")


def test_where_the_bundle_before_was_never_well_the_last_proven_one_is_gone_back_to() -> None:
    asked: list[str] = []

    def way_back(fingerprint: str) -> WayBack:
        asked.append(fingerprint)
        return WayBack(BEFORE if fingerprint == BEFORE.fingerprint else current_of(5))

    hasty = replace(CURRENT, previous=f"{5:064x}")
    seen_bad: list[tuple[Record, Mapping[str, Alarm]]] = [
        (failed(good=GOOD_BEFORE), {}),
        (replace(served("listener/a"), before=GOOD_BEFORE), RINGS),
    ]
    for target, alarms in seen_bad:
        judgement = judged(
            BEGUN, hasty, ALARMED, NUMBERS, {"listener/a": target}, alarms, way_back, NOW
        )
        assert judgement.back
        assert judgement.back.to == BEFORE
    assert asked == [f"{5:064x}", BEFORE.fingerprint] * 2


def test_what_somebody_left_is_no_more_what_is_gone_back_to() -> None:
    """Generation 2 had passed all waves; he went back to the one before, and 4 was published."""
    left = Rollout("shop", 2, CURRENT.fingerprint, NOW, NOW, done_at=NOW)
    back = judge(left, *map(old, NUMBERS), current=BACK, waves=ALARMED, alarms=RINGS).rollout
    assert (back.generation, back.proven) == (3, None)


def test_a_stop_stays_while_it_is_tried_again() -> None:
    refused = record("listener/a", State.FAILED, check=None, error="its chain", refused=True)
    stopped = judge(BEGUN, refused, way_back=WayBack(None, "it is the first")).rollout
    assert stopped.failed
    again = replace(refused, state=State.DEPLOYING, refused=False)
    assert judge(stopped, again) == Judgement(stopped)
    assert judge(stopped, record("listener/a")).rollout.failed is None


def test_a_newer_rollout_is_left_to_who_sees_its_certificate() -> None:
    newer = replace(BEGUN, generation=9)
    assert judge(newer, failed(), way_back=WayBack(BEFORE)) == Judgement(newer)


# Any state

MOMENTS = st.sampled_from([-HOUR, -MINUTE, timedelta(0), MINUTE, HOUR]).map(lambda at: NOW + at)
RECORDS = st.sampled_from(
    [
        lambda address: old(address),
        lambda address: record(address),
        lambda address: record(address, State.DEPLOYING, check=None),
        lambda address: record(address, check=None, endpoints=()),
        lambda address: served(address),
        lambda address: failed(address),
        lambda address: failed(address, good=GOOD_BEFORE),
        lambda address: record(address, State.FAILED, check=None, error="gone"),
        lambda address: record(address, State.FAILED, check=None, error="no", refused=True),
    ]
)
ROLLOUTS = st.none() | st.builds(
    Rollout,
    pipeline=st.just("shop"),
    generation=st.sampled_from([1, 2]),
    fingerprint=st.just(CURRENT.fingerprint),
    at=st.just(NOW - HOUR),
    began_at=st.none() | MOMENTS,
    passed=st.integers(0, 2),
    served_at=st.none() | MOMENTS,
    next=st.none() | MOMENTS,
    done_at=st.none(),
    failed=st.none() | st.just("it was stopped"),
)
ALARM = st.builds(
    Alarm, st.just("errors"), st.none() | MOMENTS, st.none() | st.just("there is no such alarm")
)
WAYS_BACK = st.sampled_from([WayBack(BEFORE), NOWHERE])


@given(ROLLOUTS, RECORDS, RECORDS, ALARM, WAYS_BACK, MOMENTS)
def test_the_same_state_gets_the_same_answer_and_a_second_run_writes_nothing(
    rollout: Rollout | None, a: object, b: object, alarm: Alarm, way_back: WayBack, now: datetime
) -> None:
    there = (a("listener/a"), b("listener/b"))  # type: ignore[operator]

    def run(before: Rollout | None) -> Judgement:
        alarms = {"errors": alarm}
        return judge(before, *there, waves=ALARMED, alarms=alarms, way_back=way_back, now=now)

    first = run(rollout)
    assert run(rollout) == first
    if first.back is None:
        assert run(first.rollout) == first
    before = rollout if rollout and rollout.generation == 2 else None
    after = first.rollout
    assert after.passed >= (before.passed if before else 0)
    # The second wave never begins before the first is served and quiet.
    if after.passed and not (before and before.passed):
        first = there[0]
        assert first.generation == CURRENT.generation
        nobody_looks = first.state is State.DEPLOYED and first.check is None
        few = first.check is not None and first.check.tolerated
        assert first.state is State.SERVED or nobody_looks or few
        assert alarm.rings_since is None
        assert alarm.unknown is None
    if first.back:
        assert way_back.to
        assert after.done_at is None


@given(ROLLOUTS, RECORDS, RECORDS, MOMENTS)
def test_whatever_is_to_be_done_somebody_is_called_to_do(
    rollout: Rollout | None, a: object, b: object, now: datetime
) -> None:
    """Without alarms: where a run would write something, the router sends one now; and where a run
    has written, what lies within the hour is looked at in time."""
    there = {each.address: each for each in (a("listener/a"), b("listener/b"))}  # type: ignore[operator]
    waves = (CANARY, REST)

    def when(before: Rollout | None) -> datetime | None:
        return attention(before, CURRENT, waves, NUMBERS, there, now)

    judgement = judge(rollout, *there.values(), waves=waves, now=now)
    stands = judgement.rollout
    before = replace(rollout, next=None) if rollout else None
    if before is None or replace(stands, next=None, failed=None) != replace(before, failed=None):
        then = when(rollout)
        assert then is not None
        assert then <= now or (rollout is not None and rollout.next is not None)
    after = when(stands)
    if stands.served_at and not stands.done_at and not stands.failed:
        assert after is not None
        assert after <= stands.served_at + CANARY.bake or after <= now + SOON
    if any(is_due(each, CURRENT, now) for each in there.values()):
        assert after is not None
        assert after <= now


def test_before_there_is_anything_nobody_is_called() -> None:
    assert attention(None, None, ONE_WAVE, NUMBERS, {}, NOW) is None
    assert attention(None, CURRENT, ONE_WAVE, {}, {}, NOW) is None


def test_when_all_is_served_the_next_look_is_tomorrow() -> None:
    both = {address: served(address) for address in NUMBERS}
    done = judge(None, *both.values(), waves=ONE_WAVE).rollout
    assert done.done_at == NOW
    numbers = dict.fromkeys(NUMBERS, 0)
    assert attention(done, CURRENT, ONE_WAVE, numbers, both, NOW) == NOW + AGAIN


def test_who_waits_for_an_alarm_is_called_when_it_was_agreed_and_not_before() -> None:
    rings = {"errors": Alarm("errors", NOW - HOUR)}
    waits = judge(None, old("listener/a"), waves=ALARMED, alarms=rings).rollout
    there = {"listener/a": old("listener/a")}
    assert attention(waits, CURRENT, ALARMED, NUMBERS, there, NOW) == waits.next
    assert waits.next == NOW + SOON


# Machines that say themselves what they serve

WANTED, OLD = f"{2:064x}", f"{1:064x}"
nodes = st.lists(
    st.builds(
        Node,
        st.integers(0, 99).map(lambda number: f"i-{number:017x}"),
        st.booleans(),
        fingerprint=st.sampled_from(["", OLD, WANTED]),
        error=st.sampled_from(["", "nginx: [emerg] unexpected end of file"]),
    ),
    max_size=30,
    unique_by=lambda node: node.id,
)


def laggards(machines: list[Node]) -> list[Node]:
    return [each for each in machines if each.online and not serves(each)]


def serves(machine: Node) -> bool:
    return machine.fingerprint == WANTED and not machine.error


@given(nodes, st.integers(0, 10))
def test_a_fleet_is_served_when_all_that_are_online_say_so(
    machines: list[Node], tolerated: int
) -> None:
    after = asked(record(check=Check(UNTIL, NOW)), machines, tolerated, NOW)
    serve = [each for each in machines if serves(each)]
    assert (after.state is State.SERVED) == (bool(serve) and not laggards(machines))
    assert after.check is not None
    assert after.check.nodes.keys() == {each.id for each in machines}
    assert after.check.next is not None
    assert after.check.next > NOW


@given(nodes, st.integers(0, 10))
def test_more_failures_than_are_tolerated_need_no_time(
    machines: list[Node], tolerated: int
) -> None:
    broken = [each for each in laggards(machines) if each.error]
    after = asked(record(check=Check(UNTIL, NOW)), machines, tolerated, NOW)
    assert (after.state is State.FAILED) == (len(broken) > tolerated)


@given(nodes, st.integers(0, 10))
def test_after_an_hour_every_laggard_is_named_and_few_do_not_condemn(
    machines: list[Node], tolerated: int
) -> None:
    before = record(check=Check(UNTIL, NOW), good=OLD, by="FleetDeployer")
    after = asked(before, machines, tolerated, UNTIL)
    late = laggards(machines)
    if not late and any(serves(each) for each in machines):
        assert after.state is State.SERVED
        return
    assert after.state is State.FAILED
    assert after.check is not None
    assert all(each.id in (after.error or "") for each in late)
    assert all(after.check.nodes[each.id] != "serves it" for each in late)
    back = WayBack(BEFORE)
    judgement = judged(
        None,
        CURRENT,
        ONE_WAVE,
        {after.address: 0},
        {after.address: after},
        {},
        lambda _: back,
        UNTIL,
    )
    assert (judgement.back is not None) == (len(late) > tolerated)


def test_a_fleet_with_machines_offline_is_asked_every_hour() -> None:
    machines = [Node("i-1", online=True, fingerprint=WANTED), Node("i-2", online=False)]
    after = asked(record(), machines, 0, NOW)
    assert after.check is not None
    assert (after.state, after.check.next) == (State.SERVED, NOW + HOUR)
    assert after.check.saw == "offline: i-2"
    assert after.check.nodes == {"i-1": "serves it", "i-2": "offline"}


@pytest.mark.parametrize("error", ["", "there is no nginx"])
def test_a_machine_that_is_new_is_given_an_hour(error: str) -> None:
    """What is to serve it there may not even be installed; it tries again twice in that time."""
    there = [Node("i-1", online=True, fingerprint=WANTED)]
    new = Node("i-2", online=True, error=error)
    well = asked(record(), there, 0, NOW)
    tomorrow = NOW + AGAIN
    more = asked(well, [*there, new], 0, tomorrow)
    assert more.state is State.SERVED
    assert more.check is not None
    assert more.check.next == tomorrow + HOUR
    late = asked(more, [*there, new], 0, tomorrow + HOUR)
    assert late.check is not None
    if not error:
        assert late.state is State.SERVED
        late = asked(late, [*there, new], 0, late.check.until)
    assert late.state is State.FAILED
    assert f"i-2{f': {error}' if error else ' said nothing of it yet'}" in (late.error or "")


def test_what_was_there_at_the_first_look_is_not_new() -> None:
    there = [Node("i-1", online=True, fingerprint=WANTED), Node("i-2", online=True, error="no")]
    assert asked(record(), there, 0, NOW).state is State.FAILED


def test_a_fleet_where_machines_come_and_go_is_served() -> None:
    there = Node("i-0", online=True, fingerprint=WANTED)
    after = asked(record(), [there], 0, NOW)
    for hour in range(1, 30):
        young = Node(f"i-{hour}", online=True)
        after = asked(after, [there, young], 0, NOW + hour * HOUR)
        assert after.check is not None
        assert (after.state, after.check.came) == (State.SERVED, {young.id: NOW + hour * HOUR})


def test_a_few_that_fail_hold_up_no_wave() -> None:
    well = [Node(f"i-{number}", online=True, fingerprint=WANTED) for number in range(9)]
    broken = Node("i-9", online=True, fingerprint=OLD, error="nginx: no")
    after = asked(record("fleet/a", by="x"), [*well, broken], 1, UNTIL)
    assert after.state is State.FAILED
    waves = (Wave("first"), Wave("rest"))
    numbers = {"fleet/a": 0, "listener/b": 1}
    judgement = judged(
        None, CURRENT, waves, numbers, {"fleet/a": after}, {}, lambda _: WayBack(BEFORE), UNTIL
    )
    assert judgement.back is None
    assert judgement.rollout.passed == 1
    assert judgement.rollout.failed is None


def test_who_cannot_be_asked_says_nothing_against_it() -> None:
    after = not_asked(record(good=OLD), "AccessDenied: no", UNTIL)
    assert (after.state, after.good) == (State.FAILED, OLD)
    assert after.check is not None
    assert not after.check.reached
    assert "AccessDenied: no" in (after.error or "")
