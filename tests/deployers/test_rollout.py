"""The planner: a pure function, so it is tried on thousands of histories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.keys import KeyType
from certrail.records import Check, Record, Rollout, State
from certrail.store import Current, Issued
from certrail.target import Deployed, Target, with_needs
from certrail.waves import Wave
from deployers.deploy import LEASE
from deployers.kinds.acm import Acm
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.listener import Listener
from deployers.kinds.secretsmanager import Secretsmanager
from deployers.rollout import HOLDS, Action, Gates, Step, gates, plan
from tests.certrail.bundles import NOW, make_bundle
from tests.deployers.contract.worlds import ALB

HOME = Acm(region="us-east-1")
EDGE = Cloudfront(distribution="E1")
SECRET = Secretsmanager(name="tls/shop", region="eu-central-1")
TARGETS: tuple[Target, ...] = (EDGE, Listener(listener=ALB), SECRET)
ALL = with_needs(TARGETS)
FACTS = make_bundle(["shop.example.com"]).facts


def current(generation: int) -> Current:
    return Current(
        pipeline="shop",
        generation=generation,
        facts=replace(FACTS, fingerprint=f"{generation:064x}"),
        issued=Issued("ca", "https://ca", "https://ca/1", None, KeyType.ECDSA_P256, ()),
        files={},
        published_at=NOW,
    )


def record(target: Target, generation: int = 1, state: State = State.DEPLOYED) -> Record:
    fingerprint = f"{generation:064x}"
    return Record(
        pipeline="shop",
        address=target.address,
        kind=target.type,
        state=state,
        generation=generation,
        fingerprint=fingerprint,
        spec=target.spec,
        at=NOW,
        needs={need.address: f"arn:{need.address}" for need in target.needs},
        held=Deployed(fingerprint, f"arn:{target.address}"),
    )


def only(steps: list[Step], target: Target) -> Step:
    (step,) = [step for step in steps if step.target == target]
    return step


def records(*each: Record) -> dict[str, Record]:
    return {one.address: one for one in each}


# One state, one answer


def test_before_the_first_certificate_all_wait() -> None:
    steps = plan(TARGETS, None, {}, NOW)
    assert {step.action for step in steps} == {Action.WAIT}
    assert {step.reason for step in steps} == {"waiting for the first certificate"}


def test_what_others_need_comes_first() -> None:
    steps = plan(TARGETS, current(1), {}, NOW)
    assert [(step.target.address, step.action) for step in steps] == [
        ("acm/us-east-1", Action.CREATE),
        ("cloudfront/E1", Action.WAIT),
        ("acm/eu-central-1", Action.CREATE),
        (TARGETS[1].address, Action.WAIT),
        (SECRET.address, Action.CREATE),
    ]
    assert only(steps, EDGE).reason == "waiting for acm/us-east-1"


def one(target: Target, now: datetime = NOW, generation: int = 1, **changes: object) -> Step:
    base = replace(record(target), **changes)  # type: ignore[arg-type]
    there = records(base, *(record(need, generation) for need in target.needs))
    return only(plan([target], current(generation), there, now), target)


@pytest.mark.parametrize(
    ("step", "action", "reason"),
    [
        (one(SECRET), Action.NONE, "holds 000000000000"),
        (one(EDGE), Action.NONE, "holds"),
        (one(SECRET, generation=2), Action.UPDATE, "is current"),
        (one(EDGE, generation=2), Action.UPDATE, "is current"),
        (one(SECRET, spec="other"), Action.CHANGE, "its entry in the pipelines file changed"),
        (one(EDGE, needs={HOME.address: "arn:old"}), Action.RELINK, "acm/us-east-1 is another"),
        (one(SECRET, held=None, spec="other"), Action.CREATE, "never deployed"),
        (one(SECRET, generation=2, held=None), Action.CREATE, "never deployed"),
        (
            one(SECRET, state=State.DEPLOYING, until=NOW + LEASE),
            Action.BUSY,
            "in progress since",
        ),
        (
            one(SECRET, state=State.DEPLOYING, until=NOW),
            Action.RETRY,
            "never ended",
        ),
        (one(SECRET, state=State.FAILED, error="No."), Action.FAILED, "No."),
        (
            one(SECRET, state=State.FAILED, error="No.", next_attempt=NOW + LEASE),
            Action.WAIT,
            "next attempt at",
        ),
        (
            one(SECRET, state=State.FAILED, error="No.", attempts=3, next_attempt=NOW),
            Action.RETRY,
            "failed 3 times: No.",
        ),
        (one(SECRET, state=State.FAILED, generation=2, error="No."), Action.UPDATE, "is current"),
    ],
)
def test_each_state_has_its_reason(step: Step, action: Action, reason: str) -> None:
    assert (step.action, reason in step.reason) == (action, True), step


def test_an_older_generation_waits_for_ever() -> None:
    steps = plan([SECRET], current(1), records(record(SECRET, 2)), NOW, reconcile=True)
    assert only(steps, SECRET).action is Action.WAIT


@pytest.mark.parametrize("state", [State.FAILED, State.DEPLOYING])
def test_a_need_that_is_not_there_holds_back_its_dependents_only(state: State) -> None:
    there = records(record(HOME, state=state), record(EDGE), record(SECRET))
    steps = plan([EDGE, SECRET], current(1), there, NOW, reconcile=True)
    assert only(steps, EDGE).action is Action.WAIT
    assert ("failed" in only(steps, EDGE).reason) == (state is State.FAILED)
    assert only(steps, SECRET).action is Action.CHECK


def test_reconciling_looks_at_everything_and_tries_again() -> None:
    failed = replace(record(SECRET), state=State.FAILED, error="No.")
    steps = plan([EDGE, SECRET], current(1), records(record(HOME), record(EDGE), failed), NOW)
    assert [step.action for step in steps] == [Action.NONE, Action.NONE, Action.FAILED]
    steps = plan(
        [EDGE, SECRET],
        current(1),
        records(record(HOME), record(EDGE), failed),
        NOW,
        reconcile=True,
    )
    assert [step.action for step in steps] == [Action.CHECK, Action.CHECK, Action.RETRY]


# Waves

CANARY = SECRET.model_copy(update={"name": "tls/canary", "wave": "canary"})


@pytest.mark.parametrize(
    ("gates", "closed"),
    [
        (Gates({CANARY.address: 0, SECRET.address: 1}, ["canary", "rest"]), [SECRET]),
        (Gates({CANARY.address: 0, SECRET.address: 1}, ["canary", "rest"], 1), []),
        (
            Gates({CANARY.address: 0, SECRET.address: 1}, ["canary", "rest"], begun=False),
            [CANARY, SECRET],
        ),
        (
            Gates({CANARY.address: 0, SECRET.address: 1}, ["canary", "rest"], 1, begun=False),
            [SECRET],
        ),
        (
            Gates({CANARY.address: 0, SECRET.address: 1}, ["canary", "rest"], stopped="no"),
            [CANARY, SECRET],
        ),
    ],
)
def test_a_gate_keeps_a_new_bundle_back_and_nothing_else(
    gates: Gates, closed: list[Target]
) -> None:
    old = records(record(CANARY), record(SECRET))
    steps = plan([CANARY, SECRET], current(2), old, NOW, gates=gates)
    assert [step.target for step in steps if step.action is Action.WAIT] == closed
    # What has the bundle is looked after whatever the gate says.
    steps = plan([CANARY, SECRET], current(1), old, NOW, gates=gates, reconcile=True)
    assert {step.action for step in steps} == {Action.CHECK}


def test_when_all_have_it_the_file_may_name_other_waves() -> None:
    """A target that comes later waits for nobody."""
    over = Rollout("shop", 2, f"{2:064x}", NOW, NOW, passed=1, done_at=NOW)
    waves = (Wave("canary", alarms=("errors",)), Wave("rest"))
    open_gates = gates(waves, [CANARY, SECRET], current(2), over)
    steps = plan([CANARY, SECRET], current(2), records(record(CANARY, 2)), NOW, gates=open_gates)
    assert [step.action for step in steps] == [Action.NONE, Action.CREATE]


def test_what_is_not_served_holds_the_bundle_all_the_same() -> None:
    """It is not deployed again every day, and what needs it may go on."""
    check = Check(NOW, NOW, saw="another", failed=True)
    away = replace(record(SECRET), state=State.FAILED, error="not served", check=check)
    (step,) = plan([SECRET], current(1), records(away), NOW)
    assert (step.action, step.reason) == (Action.FAILED, "not served")
    (step,) = plan([SECRET], current(1), records(away), NOW, reconcile=True)
    assert step.action is Action.CHECK
    (step,) = plan([SECRET], current(2), records(away), NOW)
    assert step.action is Action.UPDATE
    home = replace(record(HOME), state=State.FAILED, error="not served", check=check)
    steps = plan([EDGE], current(1), records(home), NOW)
    assert only(steps, EDGE).action is Action.CREATE


# Any state

STATES = st.sampled_from(State)
GENERATIONS = st.integers(1, 3)


@st.composite
def any_record(draw: st.DrawFn, target: Target) -> Record | None:
    state = draw(st.none() | STATES)
    if state is None:
        return None
    made = record(target, draw(GENERATIONS), state)
    soon = st.sampled_from([-LEASE, timedelta(0), LEASE])
    return replace(
        made,
        spec=draw(st.sampled_from([made.spec, "other"])),
        needs=draw(st.sampled_from([made.needs, {}, dict.fromkeys(made.needs, "arn:old")])),
        held=made.held if state in HOLDS else draw(st.sampled_from([None, made.held])),
        until=NOW + draw(soon) if state is State.DEPLOYING else None,
        attempts=draw(st.integers(0, 9)),
        next_attempt=draw(st.none() | soon.map(lambda delay: NOW + delay)),
    )


ANY = st.fixed_dictionaries({address: any_record(target) for address, target in ALL.items()}).map(
    lambda drawn: {address: one for address, one in drawn.items() if one}
)


@given(ANY, GENERATIONS, st.booleans())
def test_nothing_is_ready_before_what_it_needs(
    there: Mapping[str, Record], generation: int, reconcile: bool
) -> None:
    for step in plan(TARGETS, current(generation), there, NOW, reconcile=reconcile):
        mine = there.get(step.target.address)
        assert step.reason
        if not step.ready:
            continue
        assert mine is None or mine.generation <= generation
        assert not (mine and mine.state is State.DEPLOYING and mine.until and mine.until > NOW)
        for need in step.target.needs:
            held = there[need.address]
            assert (held.state in HOLDS, held.generation) == (True, generation)
            assert step.needs[need.address] == f"arn:{need.address}"


@given(ANY, st.data())
def test_it_converges(there: dict[str, Record], data: st.DataObject) -> None:
    """Whatever the state and in whatever order the jobs run, with some lost: in the end every
    target holds the current bundle, and then nothing is left to do."""
    newest = current(3)
    now = NOW + LEASE  # every claim has expired
    for _ in range(2 * len(ALL)):
        steps = [step for step in plan(TARGETS, newest, there, now, reconcile=True) if step.ready]
        todo = [step for step in steps if step.action is not Action.CHECK]
        if not todo:
            break
        ran = data.draw(st.lists(st.sampled_from(todo), min_size=1, unique_by=id))
        for step in ran:
            there[step.target.address] = replace(
                record(step.target, newest.generation), needs=dict(step.needs)
            )
    assert there.keys() == ALL.keys()
    assert {each.generation for each in there.values()} == {3}
    assert {step.action for step in plan(TARGETS, newest, there, now)} == {Action.NONE}


@given(ANY, GENERATIONS, st.booleans())
def test_the_same_state_has_the_same_answer(
    there: Mapping[str, Record], generation: int, reconcile: bool
) -> None:
    first, second = (
        plan(TARGETS, current(generation), there, NOW, reconcile=reconcile) for _ in range(2)
    )
    assert first == second
    assert [step.target.address for step in first] == list(ALL)
