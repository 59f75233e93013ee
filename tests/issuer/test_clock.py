"""Retry-After in all its forms, and a deadline that is never slept through."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.errors import DeadlinePassed
from certrail.http import retry_after
from issuer.clock import Backoff, Clock

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@given(st.integers(min_value=0, max_value=10**6))
def test_seconds(seconds: int) -> None:
    assert retry_after(str(seconds), NOW) == NOW + timedelta(seconds=seconds)


@given(
    st.datetimes(
        min_value=datetime(1971, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)
    )
)
def test_dates(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    assert retry_after(format_datetime(moment, usegmt=True), NOW) == moment


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Mon, 23 Nov 2026 12:00:30 GMT", NOW + timedelta(seconds=30)),
        ("Mon, 23 Nov 2026 07:00:30 -0500", NOW + timedelta(seconds=30)),
        ("Mon, 23 Nov 2026 12:00:30 -0000", NOW + timedelta(seconds=30)),
        ("Monday, 23-Nov-26 12:00:30 GMT", NOW + timedelta(seconds=30)),
        ("Mon Nov 23 12:00:30 2026", NOW + timedelta(seconds=30)),
    ],
)
def test_the_three_forms_of_a_date(header: str, expected: datetime) -> None:
    found = retry_after(header, NOW)
    assert found == expected
    assert found is not None
    assert found.tzinfo is UTC


@given(st.text())
def test_nonsense_is_as_if_not_there(header: str) -> None:
    found = retry_after(header, NOW)
    assert found is None or found.tzinfo is not None


def test_no_header() -> None:
    assert retry_after(None, NOW) is None


class Still:
    """A clock that moves only while somebody sleeps."""

    def __init__(self, seconds: float) -> None:
        self.moment = NOW
        self.slept: list[float] = []
        self.clock = Clock(lambda: self.moment, self.sleep, NOW + timedelta(seconds=seconds))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.moment += timedelta(seconds=seconds)


def test_backoff_grows_to_its_longest() -> None:
    still = Still(100)
    backoff = Backoff(still.clock, "it", first=1, longest=4)
    for _ in range(6):
        backoff.pause()
    assert still.slept == [1, 1.5, 2.25, 3.375, 4, 4]


def test_backoff_waits_as_long_as_it_is_told() -> None:
    still = Still(100)
    Backoff(still.clock, "it").pause(NOW + timedelta(seconds=30))
    assert still.slept == [30]


def test_the_deadline_is_known_before_the_sleep() -> None:
    still = Still(10)
    with pytest.raises(DeadlinePassed, match="waiting for the order"):
        Backoff(still.clock, "the order").pause(NOW + timedelta(seconds=11))
    assert still.slept == []


@given(st.floats(min_value=0, max_value=1000), st.integers(min_value=1, max_value=50))
def test_no_sleep_ends_after_the_deadline(seconds: float, pauses: int) -> None:
    still = Still(seconds)
    backoff = Backoff(still.clock, "it", first=0.5, longest=60)
    try:
        for _ in range(pauses):
            backoff.pause()
    except DeadlinePassed:
        pass
    assert still.moment <= still.clock.deadline
