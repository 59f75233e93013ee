"""Everything that can happen to deployments, in any order, and what holds all the same.

`make histories` runs 2,000 of them and counts what happened in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.deployers.histories.machine import Histories
from tests.deployers.histories.world import World

# So many histories have one seed, with so many steps each.
HISTORIES, STEPS = 20, 40
IN_CI, IN_FULL = 2, 100
SEEDS = [
    pytest.param(number, marks=[] if number < IN_CI else [pytest.mark.thorough])
    for number in range(IN_FULL)
]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World().running() as running:
        yield running


# A history that fails is made shorter, for five minutes at most.
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("lambda_logs")
@pytest.mark.parametrize("number", SEEDS)
def test_the_newest_generation_comes_through_and_nothing_is_lost(
    number: int, world: World, record_property: Callable[[str, object], None]
) -> None:
    happened: Counter[str] = Counter()
    world.aws.happened = world.queues.happened = happened

    class These(Histories):
        pass

    These.world, These.happened = world, happened
    run_state_machine_as_test(
        seed(number)(These),
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert happened["histories"] >= HISTORIES
    record_property("happened", dict(happened))
