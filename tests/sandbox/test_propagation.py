"""Whatever is changed and whenever one looks: what was changed long enough ago is served."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sandbox.propagation import Delay, Propagation

START = datetime(2026, 11, 1, tzinfo=UTC)
ARN = "arn:aws:acm:us-east-1:123456789012:certificate/1"
seconds = st.integers(0, 100)


@given(st.lists(st.tuples(seconds, seconds), max_size=8), seconds, st.sampled_from([0.5, 1.0]))
def test_nothing_is_served_that_was_over_for_longer_than_its_delay(
    changes: list[tuple[int, int]], look: int, share: float
) -> None:
    """changes: how long after the one before, and the delay at that time."""
    propagation = Propagation()
    now = START
    propagation.clock = lambda: now
    # When the value with this number ended to be what the ARN names, and is gone at last.
    over: list[datetime] = []
    for number, (after, delay) in enumerate(changes):
        now += timedelta(seconds=after)
        propagation.delays["cloudfront"] = Delay(reimport=timedelta(seconds=delay))
        propagation.replaced(ARN, number)
        over.append(now + timedelta(seconds=delay) * share)
    now += timedelta(seconds=look)

    served = propagation.served(ARN, len(changes), "cloudfront", "reimport", share)

    assert served == next((n for n, end in enumerate(over) if now < end), len(changes))
    everywhere = list(propagation.still_served(ARN, len(changes), "cloudfront", "reimport"))
    assert served in everywhere
    assert everywhere == sorted(everywhere)
    # Neither another service, nor another kind of change, nor another ARN waits.
    assert propagation.served(ARN, "now", "elbv2", "reimport", share) == "now"
    assert propagation.served(ARN, "now", "cloudfront", "relink", share) == "now"
    assert propagation.served("another", "now", "cloudfront", "reimport", share) == "now"


def test_a_delay_is_for_changes_from_then_on() -> None:
    propagation = Propagation()
    propagation.replaced(ARN, "first")
    propagation.delays["elbv2"] = Delay(relink=timedelta(hours=1))
    assert propagation.served(ARN, "second", "elbv2", "relink", 1.0) == "second"
    propagation.replaced(ARN, "second")
    assert propagation.served(ARN, "third", "elbv2", "relink", 1.0) == "second"


def test_after_a_reset_nothing_waits() -> None:
    propagation = Propagation()
    propagation.delays["elbv2"] = Delay(reimport=timedelta(hours=1))
    propagation.replaced(ARN, "first")
    propagation.reset()
    assert propagation.served(ARN, "second", "elbv2", "reimport", 1.0) == "second"
    assert propagation.delays == {}
