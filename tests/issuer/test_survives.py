"""Killed after every single step of an issuance, then run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from certrail.pipelines.resolved import Issuer
from certrail.store import Store, order_key
from issuer.account import Accounts
from issuer.lease import Progress
from sandbox import Sandbox
from sandbox.pebble import Options, Pebble
from tests.buckets import make_bucket
from tests.issuer.conftest import World, make_zone, within

ROOT = Path(__file__).parents[2]
# A lease ends a minute after its run's deadline, which is a minute after its start.
LATER = 300
AT_ONCE = 4


@dataclass(frozen=True)
class Place:
    """A bucket and a zone of one history."""

    store: Store
    zone: str
    ca: Pebble

    def run(self, *, later: int = 0, killed_at: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.issuer.one_run", self.store.bucket, self.zone]
        return subprocess.run(
            [*command, self.ca.directory, str(later), str(killed_at)],
            cwd=ROOT,
            env=os.environ | {"REQUESTS_CA_BUNDLE": str(self.ca.ca_bundle)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def make_place(world: World, ca: Pebble, number: int) -> Place:
    zone = f"s{number}-{world.zone}"
    make_zone(world.aws, zone)
    return Place(make_bucket(f"{world.store.bucket[:40]}-{number}", world.aws), zone, ca)


@pytest.fixture(scope="module")
def polite(sandbox: Sandbox) -> Iterator[Pebble]:
    """A Pebble that is asked the same number of times each time."""
    with Pebble(sandbox.dns, Options()) as running:
        yield running


@pytest.mark.timeout(600)
def test_a_run_killed_after_any_step_is_finished_by_the_next(
    world: World,
    polite: Pebble,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One certificate, one order, no record left, whatever the step."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(polite.ca_bundle))
    whole = make_place(world, polite, 0).run()
    assert whole.returncode == 0, whole.stderr
    steps = whole.stdout.split("\n")[:-1]

    def history(number: int) -> str:
        place = make_place(world, polite, number)
        killed = place.run(killed_at=number)
        assert killed.returncode == -signal.SIGKILL, (number, killed.stderr)
        again = place.run(later=LATER)
        assert again.returncode == 0, (number, killed.stdout, again.stderr)
        return "; ".join(wrong(world, place))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        numbers = range(1, len(steps) + 1)
        found = dict(zip(numbers, pool.map(history, numbers), strict=True))
    assert {f"{n} {steps[n - 1]}": said for n, said in found.items() if said} == {}
    assert world.texts() == []
    with capsys.disabled():
        kinds = Counter("CA" if step.split()[0].isupper() else "AWS" for step in steps)
        sys.stdout.write(
            f"\nkilled after each of {len(steps)} steps "
            f"({kinds['CA']} requests to the CA, {kinds['AWS']} calls of AWS): "
            f"{len(found)} certificates, one order each, no record left\n"
        )


def wrong(world: World, place: Place) -> list[str]:
    """What is not as it should be after the second run."""
    said = []
    current = place.store.current("shop")
    if current is None or current.generation != 1:
        return [f"published: {current}"]
    place.store.bundle(current)
    orders = orders_of(world, place)
    if len(orders) != 1:
        said.append(f"{len(orders)} orders")
    progress = place.store.read(order_key("shop"), Progress)
    if progress is None or progress.value != Progress(progress.value.wanted):
        said.append(f"left: {progress}")
    return said


def orders_of(world: World, place: Place) -> list[str]:
    """The orders of the account of this place, as the CA lists them (RFC 8555, 7.1.2.1)."""
    client = Accounts(place.store, world.aws).connect(
        Issuer("test-ca", place.ca.directory), within(30)
    )
    return client.orders()
