"""What `certrail status` says of documents that the functions have written."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certrail.bundle import short
from certrail.records import Record, Rollout
from certrail.store import (
    Current,
    Store,
    current_key,
    order_key,
    record_key,
    renewal_key,
    rollout_key,
)
from issuer.lease import Progress
from issuer.renewal import Renewal
from tests.cli.conftest import Certrail

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
ADDRESS = "secretsmanager/eu-central-1/tls/fleet/bundle"
WAITS = (
    "sandbox: the limits of the CA have room for this order from {} on. "
    "Nothing needs doing: the place is reserved"
)


def at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


@pytest.fixture
def current(certrail: Certrail, file: Path, store: Store) -> Current:
    """The certificate of `fleet`, issued and deployed ten days ago."""
    assert certrail("push").code == 0
    assert certrail("apply", "fleet").code == 0
    found = store.read(current_key("fleet"), Current)
    assert found
    aged = replace(found.value, published_at=found.value.published_at - 10 * DAY)
    store.write(current_key("fleet"), aged, Current, found.etag)
    return aged


def write_renewal(store: Store, current: Current, start: datetime, **more: object) -> Renewal:
    """What the CA said: a window of two days."""
    renewal = Renewal(current.fingerprint, start, start + 2 * DAY, start + DAY)
    renewal = replace(renewal, **more)  # type: ignore[arg-type]
    store.write(renewal_key("fleet"), renewal, Renewal, None)
    return renewal


def write_progress(store: Store, **about: object) -> None:
    found = store.read(order_key("fleet"), Progress)
    assert found
    store.write(order_key("fleet"), replace(found.value, **about), Progress, found.etag)  # type: ignore[arg-type]


def test_a_window_and_the_moment_chosen_in_it(
    certrail: Certrail, store: Store, current: Current
) -> None:
    page = "https://ca.example/why"
    window = write_renewal(store, current, NOW + 60 * DAY, explanation=page)
    assert window.start
    assert window.moment
    assert window.end
    shown = certrail("status", "fleet")
    assert shown.code == 0
    assert (
        f"  renewal {at(window.moment)}, in the CA's window from {at(window.start)} to "
        f"{at(window.end)}\n  the CA explains its window: {page}\n" in shown.out
    )
    assert shown.out.endswith("all is well\n")
    (status,) = certrail("status", "--json", "fleet").json()
    assert status["renewal"] == {
        "start": window.start.isoformat(),
        "end": window.end.isoformat(),
        "moment": window.moment.isoformat(),
        "by_ca": True,
        "explanation": page,
        "error": None,
        "past": False,
    }
    assert (status["issuer"], status["instead_of"], status["due"]) == ("sandbox", {}, None)


def test_a_ca_that_did_not_say_when(certrail: Certrail, store: Store, current: Current) -> None:
    why = "localhost: the CA gave no answer"
    renewal = Renewal(current.fingerprint, failures=3, error=why)
    store.write(renewal_key("fleet"), renewal, Renewal, None)
    facts = current.facts
    moment = facts.not_after - (facts.not_after - facts.not_before) / 3
    shown = certrail("status", "fleet")
    assert shown.code == 0
    assert f"  renewal {at(moment)}\n  the CA did not say when to renew: {why}\n" in shown.out, (
        shown.out
    )
    (status,) = certrail("status", "--json", "fleet").json()
    assert (status["renewal"]["by_ca"], status["renewal"]["error"]) == (False, why)


def test_a_certificate_that_is_due(certrail: Certrail, store: Store, current: Current) -> None:
    write_renewal(store, current, NOW - DAY - DAY / 2)
    shown = certrail("status", "fleet")
    assert shown.code == 0
    due = f"due since {at(NOW - DAY / 2)}, as the CA asks"
    assert f"  to be issued: {due}\n" in shown.out
    assert shown.out.endswith("nothing failed; 1 of 1 certificates are to be issued\n")
    (status,) = certrail("status", "--json", "fleet").json()
    assert status["due"] == due


def test_a_window_that_is_over_is_a_failure(
    certrail: Certrail, store: Store, current: Current
) -> None:
    window = write_renewal(store, current, NOW - 5 * DAY)
    assert window.end
    shown = certrail("status", "fleet")
    assert shown.code == 1
    assert f"  past its renewal window, which ended {at(window.end)}\n" in shown.out
    assert shown.out.endswith("1 of 1 pipelines failed\n")
    (status,) = certrail("status", "--json", "fleet").json()
    assert status["renewal"]["past"] is True


def test_what_is_waited_for_is_no_failure(
    certrail: Certrail, store: Store, current: Current
) -> None:
    write_renewal(store, current, NOW - DAY - DAY / 2)
    moment = NOW + timedelta(hours=3)
    waits = WAITS.format(at(moment))
    write_progress(store, waits_for=waits, next_attempt=moment)
    shown = certrail("status", "fleet")
    assert shown.code == 0
    assert f"  waits: {waits}\n  next attempt {at(moment)}\n" in shown.out
    (status,) = certrail("status", "--json", "fleet").json()
    assert status["issue_waits_for"] == waits
    assert status["issue_next_attempt"] == moment.isoformat()
    assert status["issue_error"] is None


def test_what_failed_and_when_it_is_tried_again(
    certrail: Certrail, store: Store, current: Current
) -> None:
    error = "no issuer issued the certificate\n  one: is down\n  two: says [no]"
    moment = NOW + DAY
    write_progress(store, error=error, attempts=3, ended_at=NOW, next_attempt=moment)
    shown = certrail("status", "fleet")
    assert shown.code == 1
    assert (
        "  not issued (3 times): no issuer issued the certificate\n"
        "      one: is down\n"
        "      two: says [no]\n"
        f"  next attempt {at(moment)}\n" in shown.out
    )
    (status,) = certrail("status", "--json", "fleet").json()
    assert (status["issue_error"], status["issue_attempts"]) == (error, 3)
    write_progress(store, next_attempt=NOW - DAY)
    assert "  next attempt any time now\n" in certrail("status", "fleet").out


def test_who_issued_instead_of_whom(certrail: Certrail, store: Store, current: Current) -> None:
    why = "ca.example: the CA gave no answer when asked to show its directory"
    found = store.read(current_key("fleet"), Current)
    assert found
    issued = replace(found.value.issued, instead_of={"first": why})
    changed = replace(found.value, issued=issued)
    store.write(current_key("fleet"), changed, Current, found.etag)
    shown = certrail("status", "fleet")
    assert shown.code == 0
    assert f"  issued by sandbox instead of first: {why}\n" in shown.out
    (status,) = certrail("status", "--json", "fleet").json()
    assert status["instead_of"] == {"first": why}


def test_what_somebody_asked_for(certrail: Certrail, store: Store, current: Current) -> None:
    why = "the key was in a mail"
    asked = certrail("reissue", "--pipeline", "fleet", "--why", why, "--no-wait")
    assert asked.code == 0
    assert f"  to be issued: {why}\n" in certrail("status", "fleet").out


def test_a_document_that_cannot_be_read_hides_no_other(
    certrail: Certrail, store: Store, current: Current
) -> None:
    store._s3.put_object(Bucket=store.bucket, Key=order_key("shop"), Body=b"{}")
    shown = certrail("status")
    assert shown.code == 1
    assert "orders/shop.json: not a valid document" in shown.out
    assert short(current.fingerprint) in shown.out


def test_what_the_ca_said_can_be_asked_again(
    certrail: Certrail, store: Store, current: Current
) -> None:
    """A document that is made anew at the next look is no failure."""
    store._s3.put_object(Bucket=store.bucket, Key=renewal_key("shop"), Body=b"{}")
    shown = certrail("status")
    assert "renewals/shop.json" in shown.err
    assert short(current.fingerprint) in shown.out


# Where a new certificate does not come to a target


def write_rollout(store: Store, **about: object) -> None:
    found = store.read(rollout_key("fleet"), Rollout)
    assert found
    store.write(rollout_key("fleet"), replace(found.value, **about), Rollout, found.etag)  # type: ignore[arg-type]


def test_what_a_wave_waits_for_and_that_what_is_held_soon_ends(
    certrail: Certrail, store: Store, file: Path, current: Current
) -> None:
    assert certrail("issue", "fleet").code == 0
    new = store.current("fleet")
    assert new
    why = "the alarm [errors] rings since yesterday must be quiet first"
    write_rollout(
        store,
        generation=2,
        fingerprint=new.fingerprint,
        began_at=None,
        done_at=None,
        passed=0,
        waits_for=why,
        waits_since=NOW - DAY,
    )
    shown = certrail("status", "fleet")
    assert shown.code == 0, "nothing has failed yet"
    assert f"  its next wave waits since {at(NOW - DAY)}: {why}\n" in shown.out
    assert "soon ends" not in shown.out

    key = record_key("fleet", ADDRESS)
    found = store.read(key, Record)
    assert found
    assert found.value.held
    ends = NOW + 6 * DAY
    held = replace(found.value.held, not_after=ends)
    store.write(key, replace(found.value, held=held), Record, found.etag)
    shown = certrail("status", "fleet")
    assert shown.code == 1
    old = current.fingerprint
    assert f"  soon ends: {ADDRESS} still holds {short(old)}, until {at(ends)}\n" in shown.out
    (status,) = certrail("status", "--json", "fleet").json()
    assert (status["waits_for"], status["waits_since"]) == (why, (NOW - DAY).isoformat())
    assert status["at_risk"] == {
        "target": ADDRESS,
        "holds": old,
        "not_after": ends.isoformat(),
        "others": 0,
    }
    # Whatever it is that holds it up.
    write_rollout(store, waits_for=None, waits_since=None, began_at=NOW)
    assert certrail("status", "fleet").code == 1
    assert certrail("apply", "fleet").code == 0
    assert certrail("status", "fleet").code == 0
