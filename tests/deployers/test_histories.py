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

STEPS = 40
# Seeds, and how many histories are made of each: a few in every run, 2,000 by the command.
SEEDS = [
    *((number, 10) for number in range(2)),
    *(pytest.param(number, 50, marks=pytest.mark.thorough) for number in range(2, 42)),
]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World().running() as running:
        yield running


# A history that fails is made shorter, for five minutes at most.
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("lambda_logs")
@pytest.mark.parametrize(("number", "histories"), SEEDS)
def test_the_newest_generation_comes_through_and_nothing_is_lost(
    number: int, histories: int, world: World, record_property: Callable[[str, object], None]
) -> None:
    happened: Counter[str] = Counter()
    world.aws.happened = world.queues.happened = happened

    class These(Histories):
        pass

    These.world, These.happened = world, happened
    run_state_machine_as_test(
        seed(number)(These),
        settings=settings(
            max_examples=histories,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert happened["histories"] >= histories
    record_property("happened", dict(happened))
