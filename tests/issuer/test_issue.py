"""One certificate, from reason to publication, against Pebble and Route 53."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certrail.errors import (
    AcmeRefused,
    Busy,
    CertrailError,
    DeadlinePassed,
    DnsError,
    FailedTogether,
    StateError,
)
from certrail.keys import KeyType
from certrail.pipelines.resolved import Pipeline
from certrail.store import Current, Store, account_key, order_key
from issuer import keys, lease
from issuer.acme import Unreachable
from issuer.clock import Clock
from issuer.due import wanted
from issuer.lease import DAILY, DELAYS, leased
from sandbox.dns import NameServer
from sandbox.pebble import Pebble, free_ports
from tests.buckets import make_bucket
from tests.issuer.conftest import ISSUER, World, make_zone, within


def document(store: Store, key: str) -> dict[str, Any]:
    body = store._s3.get_object(Bucket=store.bucket, Key=key)["Body"].read()
    found: dict[str, Any] = json.loads(body)
    return found


def test_a_first_certificate(world: World) -> None:
    pipeline = world.pipeline(world.zone, f"*.{world.zone}")
    current = world.issue(pipeline)
    assert current is not None
    assert current.generation == 1
    assert set(current.facts.domains) == set(pipeline.domains)
    assert current.issued.domains == pipeline.domains
    assert current.issued.account == document(world.store, account_key(ISSUER))["uri"]
    assert world.store.current("shop") == current
    bundle = world.store.bundle(current)
    assert keys.key_type(keys.load(bundle.private_key)) is KeyType.ECDSA_P256
    progress = lease.read(world.store, "shop")
    assert progress is not None
    assert progress == lease.Progress(wanted(pipeline))
    assert world.texts() == []


def test_a_second_run_has_nothing_to_do(world: World) -> None:
    assert world.issue() is not None
    assert world.issue() is None


@pytest.mark.parametrize("key_type", [KeyType.ECDSA_P384, KeyType.RSA_2048])
def test_other_keys(world: World, key_type: KeyType) -> None:
    current = world.issue(world.pipeline(key_type=key_type))
    assert current is not None
    assert current.facts.key_type is key_type


def test_a_changed_file_and_a_wish(world: World) -> None:
    assert world.issue() is not None
    wider = world.pipeline(world.zone, f"www.{world.zone}")
    second = world.issue(wider)
    assert second is not None
    assert second.generation == 2
    third = world.issue(wider, asked=2)
    assert third is not None
    assert third.generation == 3
    assert third.previous == second.fingerprint
    # The same wish again: answered already.
    assert world.issue(wider, asked=2) is None


def test_a_hundred_names(world: World) -> None:
    names = [world.zone, f"*.{world.zone}", *(f"n{n:02}.{world.zone}" for n in range(98))]
    current = world.issue(world.pipeline(*names), clock=within(120))
    assert current is not None
    assert set(current.facts.domains) == set(names)
    assert world.texts() == []


def at_once(*runs: Callable[[], Current | None]) -> list[Current | Exception | None]:
    start = threading.Barrier(len(runs))

    def run(one: Callable[[], Current | None]) -> Current | Exception | None:
        start.wait()
        try:
            return one()
        except CertrailError as error:
            return error

    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(run, runs))


def test_two_first_runs_at_once(world: World) -> None:
    ended = at_once(world.issue, world.issue)
    (current,) = [each for each in ended if isinstance(each, Current)]
    (other,) = [each for each in ended if each is not current]
    assert other is None or isinstance(other, Busy)
    assert world.store.current("shop") == current
    # Four files, as what they were published, the pointer, and the key that the order's was.
    assert len(list(world.store.keys("certificates/shop/"))) == 7


def test_first_runs_of_two_pipelines_make_one_account(world: World) -> None:
    first, second = (world.pipeline(name=name) for name in ("one", "two"))
    ended = at_once(lambda: world.issue(first), lambda: world.issue(second))
    accounts = {each.issued.account for each in ended if isinstance(each, Current)}
    assert len(accounts) == 1
    assert all(isinstance(each, Current) for each in ended)
    assert list(world.store.keys("accounts/")) == [account_key(ISSUER)]


def test_the_same_names_at_once(world: World) -> None:
    """Four pipelines with one name, as for certificates with different keys."""
    names = (world.zone, f"*.{world.zone}")
    pipelines = [world.pipeline(*names, name=f"p{number}") for number in range(4)]
    ended = at_once(*((lambda p=p: world.issue(p)) for p in pipelines))
    assert all(isinstance(each, Current) for each in ended)
    assert world.texts() == []


def failure(world: World, pipeline: Pipeline[object] | None = None, **how: Any) -> CertrailError:
    """The error of a run, which is also the text in its document. Checks what every failure leaves:
    no record in DNS, nothing in the place of what was there, the lease released."""
    pipeline = pipeline or world.pipeline()
    before = world.store.current(pipeline.name)
    with pytest.raises(CertrailError) as caught:
        world.issue(pipeline, **how)
    assert world.texts() == []
    assert world.store.current(pipeline.name) == before
    progress = lease.read(world.store, pipeline.name)
    assert progress is not None
    assert progress.error == str(caught.value)
    assert progress.holder is None
    assert progress.attempts == 1
    assert progress.permanent is not caught.value.retryable
    return caught.value


def test_no_zone(world: World) -> None:
    names = (world.zone, "shop.nowhere.example", "www.elsewhere.example")
    error = failure(world, world.pipeline(*names))
    assert isinstance(error, FailedTogether)
    assert not error.retryable
    assert [type(each) for each in error.failures] == [DnsError, DnsError]
    assert world.zone in str(error)
    assert "shop.nowhere.example" in str(error)
    # The CA was not even asked.
    assert list(world.store.keys("accounts/")) == []


def test_one_name_of_ten_is_not_validated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CA asks another nameserver than we do: one that lags behind."""
    names = [f"n{number}.{world.zone}" for number in range(10)]
    with (
        NameServer() as lagging,
        lagging.hide(f"_acme-challenge.n7.{world.zone}"),
        Pebble(lagging.address) as ca,
    ):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.ca_bundle))
        error = failure(world, world.pipeline(*names, directory=ca.directory))
    assert isinstance(error, AcmeRefused)
    assert error.retryable
    assert error.type == "unauthorized"
    assert f"refused to validate n7.{world.zone}: Error retrieving TXT records" in str(error)
    assert "n6" not in str(error)


def test_the_ca_refuses_a_name(world: World) -> None:
    zone = "blocked.example"
    make_zone(world.aws, zone)
    error = failure(world, world.pipeline(world.zone, f"shop.{zone}"))
    assert isinstance(error, AcmeRefused)
    assert error.type == "rejectedIdentifier"
    assert not error.retryable
    assert f"shop.{zone}" in error.what
    assert "Leave the name out" in str(error)


def test_an_unknown_profile(world: World) -> None:
    error = failure(world, world.pipeline(profile="no-such"))
    assert not error.retryable
    assert "has no profile `no-such`" in error.what
    assert "Choose one of classic" in error.next


def test_nothing_listens_at_the_ca(world: World) -> None:
    directory = f"https://localhost:{free_ports(1)[0]}/dir"
    started = time.monotonic()
    error = failure(world, world.pipeline(directory=directory), clock=within(2))
    assert isinstance(error, Unreachable)
    assert error.retryable
    assert "Connection refused" in str(error)
    # The deadline ends it, long before a CA's own patience does.
    assert time.monotonic() - started < 30


def test_no_directory_there(world: World) -> None:
    error = failure(world, world.pipeline(directory=world.directory.replace("/dir", "/nonce")))
    assert not error.retryable


def test_the_deadline(world: World) -> None:
    """It passes while the CA or Route 53 are waited for; cleaning up is done after it."""
    moment = datetime.now(UTC)

    def sleep(seconds: float) -> None:
        nonlocal moment
        moment += timedelta(minutes=5)

    clock = Clock(lambda: moment, sleep, moment + timedelta(minutes=1))
    error = failure(world, clock=clock)
    assert isinstance(error, DeadlinePassed)
    assert error.retryable


def test_a_failure_leaves_what_was_there(world: World) -> None:
    current = world.issue()
    assert current is not None
    failure(world, world.pipeline(profile="no-such"), asked=current.generation)
    assert world.store.bundle(current).fingerprint == current.fingerprint
    # Repaired, the next run issues, and forgets the failure.
    assert world.issue(asked=current.generation) is not None
    progress = lease.read(world.store, "shop")
    assert progress is not None
    assert progress.error is None


def test_the_account_of_another_ca(world: World) -> None:
    assert world.issue() is not None
    held = document(world.store, account_key(ISSUER))
    elsewhere = world.pipeline(name="other", directory="https://other.example/dir")
    error = failure(world, elsewhere)
    assert isinstance(error, StateError)
    assert not error.retryable
    assert "an issuer name of its own" in str(error)
    assert document(world.store, account_key(ISSUER)) == held


def test_an_account_that_cannot_be_read_is_not_made_anew(world: World) -> None:
    for body in (
        b"",
        b"{",
        b'{"directory": "x", "uri": null, "key": {"kty": "EC", "d": "hidden"}}',
    ):
        world.aws.s3().put_object(Bucket=world.store.bucket, Key=account_key(ISSUER), Body=body)
        with pytest.raises(StateError) as caught:
            world.issue()
        assert "hidden" not in str(caught.value)
        answer = world.aws.s3().get_object(Bucket=world.store.bucket, Key=account_key(ISSUER))
        assert answer["Body"].read() == body


def test_a_bucket_without_kms_gets_no_account_key(world: World) -> None:
    bare = replace(world, store=make_bucket(f"bare-{world.zone}", world.aws, encrypted=False))
    with pytest.raises(StateError, match="does not encrypt with KMS"):
        bare.issue()
    assert list(bare.store.keys("")) == [order_key("shop")]
    progress = lease.read(bare.store, "shop")
    assert progress is not None
    assert progress.permanent
    assert "SSE-KMS" in str(progress.error)


def test_a_run_that_died_between_key_and_account(world: World) -> None:
    assert world.issue() is not None
    held = document(world.store, account_key(ISSUER))
    world.aws.s3().put_object(
        Bucket=world.store.bucket,
        Key=account_key(ISSUER),
        Body=json.dumps(held | {"uri": None}).encode(),
    )
    assert world.issue(world.pipeline(name="next")) is not None
    assert document(world.store, account_key(ISSUER)) == held


def test_the_delays_between_attempts(world: World) -> None:
    moment = datetime.now(UTC).replace(microsecond=0)
    clock = Clock(lambda: moment, time.sleep, moment + timedelta(minutes=5))
    for number, delay in enumerate([*DELAYS, DAILY, DAILY], start=1):
        with pytest.raises(DeadlinePassed), leased(world.store, "shop", "same", clock):
            raise DeadlinePassed("x")
        progress = lease.read(world.store, "shop")
        assert progress is not None
        assert progress.attempts == number
        assert progress.next_attempt == moment + delay
    with leased(world.store, "shop", "changed", clock) as changed:
        changed.begin("changed")
        changed.release()
    with pytest.raises(AcmeRefused), leased(world.store, "shop", "changed", clock):
        raise AcmeRefused("slow", retryable=True, retry_at=moment + timedelta(hours=5))
    progress = lease.read(world.store, "shop")
    assert progress is not None
    assert progress.attempts == 1
    assert progress.next_attempt == moment + timedelta(hours=5)


def test_a_lease_is_held_until_it_ends(world: World) -> None:
    clock = within(60)
    with leased(world.store, "shop", "x", clock):
        with pytest.raises(Busy, match="another run"), leased(world.store, "shop", "x", clock):
            pass
        later = replace(clock, now=lambda: clock.deadline + timedelta(minutes=2))
        with leased(world.store, "shop", "x", later) as taken:
            taken.succeeded(troubled=False)
    with pytest.raises(KeyboardInterrupt), leased(world.store, "shop", "x", clock):
        raise KeyboardInterrupt
    progress = lease.read(world.store, "shop")
    assert progress is not None
    assert progress == lease.Progress("x")


def test_an_order_is_remembered_as_soon_as_it_exists(world: World) -> None:
    error = failure(world, clock=within(0.4))
    assert isinstance(error, DeadlinePassed)
    order = document(world.store, order_key("shop"))["orders"][ISSUER]
    assert order.startswith(world.directory.removesuffix("/dir"))


def test_no_key_is_ever_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    current = world.issue()
    assert current is not None
    error = failure(world, world.pipeline(profile="no-such"), asked=1)
    bundle = world.store.bundle(current)
    secrets = [
        bundle.private_key.reveal().splitlines()[1],
        document(world.store, account_key(ISSUER))["key"]["d"],
        "PRIVATE KEY",
    ]
    assert "published" in caplog.text
    ours = [record for record in caplog.records if not record.name.startswith("botocore")]
    told = "\n".join(
        [
            *(record.getMessage() for record in ours),
            str(error),
            repr(error),
            repr(bundle),
            repr(current),
            json.dumps(document(world.store, order_key("shop"))),
        ]
    )
    for secret in secrets:
        assert secret not in told
