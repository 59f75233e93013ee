"""When a certificate is due, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.bundle import Facts
from certrail.keys import KeyType
from certrail.pipelines.model import Incoming
from certrail.pipelines.resolved import Issuer, Pipeline
from certrail.store import Current, Issued, Rollback
from issuer.dns import Token
from issuer.due import Due, Why, due, waits, wanted
from issuer.lease import Progress
from issuer.reissue import Asked
from issuer.renewal import awaited, renew_at

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DIRECTORY = "https://ca.example/dir"
OTHER = "https://other.example/dir"
PIPELINE: Pipeline[object] = Pipeline(
    name="shop",
    entry="shop",
    domains=("shop.example", "*.shop.example"),
    issuers=(Issuer("ca", DIRECTORY, profile="tlsserver"),),
    key_type=KeyType.ECDSA_P256,
    targets=(),
)

lives = st.timedeltas(min_value=timedelta(hours=1), max_value=timedelta(days=400))


def current(
    *, life: timedelta = timedelta(days=90), age: timedelta = timedelta(0), generation: int = 3
) -> Current:
    facts = Facts(
        fingerprint="ab" * 32,
        domains=PIPELINE.domains,
        not_before=NOW - age,
        not_after=NOW - age + life,
        serial="1",
        issuer="CN=x",
        key_type=KeyType.ECDSA_P256,
        key_usages=(),
        extended_key_usages=(),
    )
    issued = Issued(
        issuer="ca",
        directory=DIRECTORY,
        account="https://ca.example/1",
        profile="tlsserver",
        key_type=KeyType.ECDSA_P256,
        domains=PIPELINE.domains,
    )
    return Current("shop", generation, facts, issued, {}, NOW - age)


def why(pipeline: Pipeline[object], held: Current | None, asked: int | None = None) -> Why | None:
    wish = None if asked is None else Asked(asked, "asked for", NOW)
    found = due(pipeline, held, NOW, asked=wish)
    return found.why if found else None


def test_without_a_certificate() -> None:
    assert why(PIPELINE, None) is Why.FIRST


def test_a_fresh_one_is_not_due() -> None:
    assert why(PIPELINE, current()) is None


@given(lives, st.floats(min_value=0, max_value=2))
def test_by_age(life: timedelta, part: float) -> None:
    """A third of the life left, half where it is shorter than ten days."""
    share = 0.5 if life < timedelta(days=10) else 2 / 3
    age = life * part
    distance = abs(age - life * share)
    found = why(PIPELINE, current(life=life, age=age))
    # Rounding of microseconds at the very moment is nobody's business.
    if distance > timedelta(seconds=1):
        assert found is (Why.AGE if part > share else None)


@given(lives)
def test_the_moment_is_within_the_life(life: timedelta) -> None:
    assert NOW < renew_at(NOW, NOW + life) < NOW + life


def test_an_expired_one_is_due() -> None:
    assert why(PIPELINE, current(age=timedelta(days=100))) is Why.AGE


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (replace(PIPELINE, domains=("shop.example",)), "domains"),
        (replace(PIPELINE, key_type=KeyType.RSA_2048), "key type"),
        (replace(PIPELINE, issuers=(Issuer("ca", DIRECTORY),)), "profile"),
        (replace(PIPELINE, issuers=(Issuer("ca", OTHER, profile="tlsserver"),)), "issuer"),
        (
            replace(
                PIPELINE,
                issuers=(Issuer("ca", DIRECTORY, profile="tlsserver", preferred_chain="X1"),),
            ),
            "preferred chain",
        ),
    ],
)
def test_by_a_changed_file(changed: Pipeline[object], told: str) -> None:
    found = due(changed, current(), NOW)
    assert found is not None
    assert found.why is Why.CHANGED
    assert told in found.text
    assert wanted(changed) != wanted(PIPELINE)


@given(st.permutations(PIPELINE.domains))
def test_the_order_of_the_names_is_no_change(domains: list[str]) -> None:
    pipeline = replace(PIPELINE, domains=tuple(domains))
    assert why(pipeline, current()) is None
    assert wanted(pipeline) == wanted(PIPELINE)


def test_an_address_for_the_ca_s_letters_is_no_change() -> None:
    letters = replace(PIPELINE.issuers[0], email="ops@shop.example")
    pipeline = replace(PIPELINE, issuers=(letters,))
    assert why(pipeline, current()) is None


def test_asked_for_counts_until_something_newer_is_there() -> None:
    assert why(PIPELINE, current(generation=3), asked=3) is Why.ASKED
    assert why(PIPELINE, current(generation=4), asked=3) is None


def test_a_failure_waits_for_its_next_attempt() -> None:
    pipeline = replace(PIPELINE, configuration="as it was")
    failed = Progress(
        wanted(pipeline),
        "as it was",
        attempts=1,
        error="no",
        ended_at=NOW,
        next_attempt=NOW + timedelta(minutes=1),
    )
    old = Due("shop", Why.WINDOW, "due", NOW - timedelta(hours=1))
    assert waits(pipeline, failed, NOW, None)
    assert waits(pipeline, failed, NOW, old)
    assert not waits(pipeline, failed, NOW + timedelta(minutes=1), old)
    # Whatever in the file changed may be what repairs it: a zone, a root, a secret's ARN.
    assert not waits(replace(pipeline, configuration="repaired"), failed, NOW, old)
    # A window of the CA's that has opened since, or a new wish.
    assert not waits(pipeline, failed, NOW, replace(old, since=NOW + timedelta(seconds=1)))
    assert not waits(pipeline, None, NOW, old)
    assert not waits(pipeline, Progress(wanted(pipeline), "as it was"), NOW, old)


def test_the_issuer_of_a_certificate_is_known_by_its_name() -> None:
    """Two accounts at one CA, of which the second has issued."""
    first = Issuer("main", DIRECTORY, profile="tlsserver")
    pipeline = replace(PIPELINE, issuers=(first, Issuer("backup", DIRECTORY)))
    held = current()
    by_backup = replace(held, issued=replace(held.issued, issuer="backup", profile=None))
    assert why(pipeline, by_backup) is None
    # One that was renamed since is known by its CA.
    renamed = replace(held, issued=replace(held.issued, issuer="gone"))
    assert why(pipeline, renamed) is None


# After a rollback


def rolled_back(at: datetime = NOW, **issued: object) -> Current:
    """To a certificate that is long due, from one that was ordered as the file says."""
    old = current(life=timedelta(days=90), age=timedelta(days=80))
    asked = replace(old.issued, **issued)  # type: ignore[arg-type]
    return replace(old, rollback=Rollback("cd" * 32, 2, "no", "the watcher", at, asked))


def test_nothing_is_renewed_for_a_day_after_a_rollback() -> None:
    back = rolled_back()
    for hours in (0, 1, 23):
        assert due(PIPELINE, back, NOW + timedelta(hours=hours)) is None
    again = due(PIPELINE, back, NOW + timedelta(days=1))
    assert again
    assert again.why is Why.AGE


def test_nor_for_more_than_half_of_what_is_left() -> None:
    back = rolled_back()
    left = back.facts.not_after - NOW
    short = replace(back, facts=replace(back.facts, not_after=NOW + timedelta(hours=4)))
    assert left > timedelta(days=2)
    assert due(PIPELINE, short, NOW + timedelta(hours=1)) is None
    assert due(PIPELINE, short, NOW + timedelta(hours=2))


def test_what_is_asked_for_is_issued_at_once() -> None:
    back = rolled_back()
    now = NOW + timedelta(minutes=1)
    asked = due(PIPELINE, back, now, asked=Asked(back.generation, "again", now))
    assert asked
    assert asked.why is Why.ASKED


def test_a_file_that_was_changed_since_is_issued_at_once() -> None:
    """The certificate that is current again was ordered for other names than the file has; what
    counts is whether the file still is what the failed one was ordered for."""
    names = ("other.example",)
    back = rolled_back()
    before = replace(back, issued=replace(back.issued, domains=names))
    assert due(PIPELINE, before, NOW) is None
    changed = due(PIPELINE, rolled_back(domains=names), NOW)
    assert changed
    assert changed.why is Why.CHANGED
    late = due(PIPELINE, before, NOW + timedelta(days=1))
    assert late
    assert late.why is Why.CHANGED


def test_records_that_a_run_left_are_removed_all_the_same() -> None:
    progress = Progress("", records=(Token("_acme-challenge.shop.example", "abc"),))
    left = due(PIPELINE, rolled_back(), NOW, progress=progress)
    assert left
    assert left.why is Why.RECORDS


@pytest.mark.parametrize("held", [None, current(), current(age=timedelta(days=89))])
def test_what_comes_from_elsewhere_is_never_due(held: Current | None) -> None:
    foreign = replace(PIPELINE, issuers=(), incoming=Incoming())
    assert due(foreign, held, NOW, asked=Asked(9, "asked for", NOW)) is None


def test_what_came_from_elsewhere_is_due_when_it_is_ours_to_issue() -> None:
    held = current()
    came = replace(held.issued, issuer="incoming", directory="s3://bucket/incoming/shop/")
    assert why(PIPELINE, replace(held, issued=came)) is Why.CHANGED


@pytest.mark.parametrize(
    ("life", "renews", "before"),
    [
        pytest.param(198, 45, None, id="ACM, public"),
        pytest.param(395, 60, None, id="ACM, private"),
        pytest.param(90, 30, None, id="certbot"),
        pytest.param(90, 21, timedelta(days=20), id="as the file says"),
    ],
)
def test_the_next_is_awaited_after_those_who_issue_renew(
    life: int, renews: int, before: timedelta | None
) -> None:
    held = current(life=timedelta(days=life))
    end = awaited(held, before).end
    assert held.facts.not_after - timedelta(days=renews) < end < held.facts.not_after
