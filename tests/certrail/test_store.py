"""The bucket's promises, against S3 as the sandbox enforces it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certrail.aws import Aws
from certrail.bundle import Bundle
from certrail.errors import AwsError, BundleBroken, NothingPushed, StateError, Superseded
from certrail.keys import KeyType
from certrail.records import Rollout
from certrail.store import (
    KEPT_TAG,
    SUPERSEDED_TAG,
    Current,
    Issued,
    Rollback,
    Store,
    Versioned,
    current_key,
    order_key,
    record_key,
    rollout_key,
)
from sandbox import Sandbox
from sandbox.calls import Call
from tests.buckets import make_bucket
from tests.certrail.bundles import NOW, make_bundle

BUCKET = "certrail-store"
ISSUED = Issued(
    issuer="sandbox",
    directory="https://localhost/dir",
    account="https://localhost/acct/1",
    profile=None,
    key_type=KeyType.ECDSA_P256,
    domains=("shop.example.com",),
)


@pytest.fixture
def aws(sandbox: Sandbox) -> Aws:
    return Aws(sandbox.session())


@pytest.fixture
def store(aws: Aws) -> Store:
    return make_bucket(BUCKET, aws)


def bundle(days: float = 90) -> Bundle:
    return make_bundle(["shop.example.com"], days=days)


def publish(store: Store, made: Bundle) -> Current:
    after = store.read(current_key("shop"), Current)
    return store.publish("shop", made, ISSUED, after=after, now=NOW)


def test_what_is_published_is_read_back_whole(store: Store) -> None:
    made = bundle()
    current = publish(store, made)
    assert store.current("shop") == current
    assert store.bundle(current) == made
    assert (current.generation, current.previous) == (1, None)
    assert sorted(current.files) == ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"]


def test_the_generation_only_grows(store: Store) -> None:
    first, second = bundle(), bundle()
    publish(store, first)
    current = publish(store, second)
    assert (current.generation, current.previous) == (2, first.fingerprint)
    again = publish(store, first)
    assert (again.generation, again.previous) == (3, second.fingerprint)
    assert store.bundle(again) == first


def test_of_two_writers_that_read_the_same_state_one_wins(store: Store) -> None:
    start = Barrier(2)

    def write(made: Bundle) -> Current | Superseded:
        start.wait()
        try:
            return store.publish("shop", made, ISSUED, after=None, now=NOW)
        except Superseded as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(write, [bundle(), bundle()]))
    (won,) = [result for result in results if isinstance(result, Current)]
    assert store.current("shop") == won
    assert sum(isinstance(result, Superseded) for result in results) == 1


def test_a_write_over_a_stale_version_changes_nothing(store: Store) -> None:
    publish(store, bundle())
    stale = store.read(current_key("shop"), Current)
    newest = publish(store, bundle())
    with pytest.raises(Superseded, match="Nothing was overwritten"):
        store.publish("shop", bundle(), ISSUED, after=stale, now=NOW)
    assert store.current("shop") == newest


def test_publishing_again_after_a_crash_before_the_pointer(store: Store, aws: Aws) -> None:
    made = bundle()
    publish(store, made)
    aws.s3().delete_object(Bucket=BUCKET, Key=current_key("shop"))
    assert store.current("shop") is None
    assert publish(store, made).fingerprint == made.fingerprint


def test_a_repeated_write_that_had_succeeded_is_no_conflict(store: Store) -> None:
    etag = store.write(order_key("shop"), {"a": "1"}, dict[str, str], None)
    assert store.write(order_key("shop"), {"a": "1"}, dict[str, str], None) == etag
    with pytest.raises(Superseded):
        store.write(order_key("shop"), {"a": "2"}, dict[str, str], None)


@pytest.mark.parametrize("name", ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"])
def test_a_file_that_is_not_what_was_published_is_refused(
    store: Store, aws: Aws, name: str
) -> None:
    current = publish(store, bundle())
    other = bundle()
    publish(store, other)
    key = f"certificates/shop/{current.fingerprint}/{name}"
    body = (
        aws.s3()
        .get_object(Bucket=BUCKET, Key=f"certificates/shop/{other.fingerprint}/{name}")["Body"]
        .read()
    )
    aws.s3().put_object(Bucket=BUCKET, Key=key, Body=body + b"\n")
    with pytest.raises(BundleBroken, match=f"{name} is not what was published"):
        store.bundle(current)
    aws.s3().delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(BundleBroken, match=f"{name} is missing"):
        store.bundle(current)


def test_a_file_under_a_known_fingerprint_is_never_overwritten(store: Store, aws: Aws) -> None:
    made = bundle()
    key = f"certificates/shop/{made.fingerprint}/privkey.pem"
    aws.s3().put_object(Bucket=BUCKET, Key=key, Body=b"somebody else's")
    with pytest.raises(BundleBroken, match="left as it is"):
        publish(store, made)
    assert aws.s3().get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"somebody else's"
    assert store.current("shop") is None


def test_no_private_key_goes_to_a_bucket_without_kms(aws: Aws) -> None:
    store = make_bucket(BUCKET, aws, encrypted=False)
    with pytest.raises(StateError, match="does not encrypt with KMS"):
        publish(store, bundle())
    assert not [key for key in store.keys("") if key.endswith("privkey.pem")]


def test_only_the_key_of_two_generations_back_is_superseded(store: Store, aws: Aws) -> None:
    made = [bundle() for _ in range(4)]
    for one in made:
        publish(store, one)
    tags = [
        aws.s3().get_object_tagging(
            Bucket=BUCKET, Key=f"certificates/shop/{one.fingerprint}/privkey.pem"
        )["TagSet"]
        for one in made
    ]
    superseded = [{"Key": "certrail-superseded", "Value": "true"}]
    assert tags == [superseded, superseded, [], []]


def test_a_certificate_is_published_whatever_the_rollout_says(store: Store, aws: Aws) -> None:
    made = [bundle() for _ in range(3)]
    for one in made[:2]:
        publish(store, one)
    aws.s3().put_object(Bucket=BUCKET, Key=rollout_key("shop"), Body=b"{")
    publish(store, made[2])
    # What is needed cannot be told, so all keys stay.
    assert [tags(aws, one) for one in made] == [[], [], []]


def test_the_key_of_the_last_one_that_had_passed_all_waves_stays(store: Store, aws: Aws) -> None:
    proven, *hasty = [bundle() for _ in range(4)]
    publish(store, proven)
    rollout = Rollout("shop", 1, proven.fingerprint, NOW, began_at=NOW, done_at=NOW)
    store.write(rollout_key("shop"), rollout, Rollout, None)
    for number, one in enumerate(hasty, 2):
        publish(store, one)
        found = store.read(rollout_key("shop"), Rollout)
        assert found
        begun = Rollout("shop", number, one.fingerprint, NOW, NOW, proven=proven.fingerprint)
        store.write(rollout_key("shop"), begun, Rollout, found.etag)
    assert [tags(aws, one) for one in (proven, *hasty)] == [[], [SUPERSEDED_TAG], [], []]


# Going back


def roll_back(store: Store, to: Bundle) -> Current:
    after = store.read(current_key("shop"), Current)
    before = store.published_as("shop", to.fingerprint)
    assert after
    assert before
    why = Rollback(after.value.fingerprint, after.value.generation, "no", "me", NOW)
    return store.roll_back(before, why, after=after, now=NOW)


def tags(aws: Aws, made: Bundle) -> list[Any]:
    key = f"certificates/shop/{made.fingerprint}/privkey.pem"
    found: list[Any] = aws.s3().get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]
    return found


def test_an_earlier_bundle_becomes_a_new_generation(store: Store) -> None:
    first, second = bundle(), bundle()
    publish(store, first)
    publish(store, second)
    back = roll_back(store, first)
    assert store.current("shop") == back
    assert store.bundle(back) == first
    assert (back.generation, back.previous) == (3, second.fingerprint)
    assert back.rollback
    assert (back.rollback.of, back.rollback.issued) == (second.fingerprint, ISSUED)
    after = publish(store, bundle())
    assert (after.generation, after.previous, after.rollback) == (4, first.fingerprint, None)


def test_of_a_rollback_and_a_publication_one_wins(store: Store) -> None:
    first = bundle()
    publish(store, first)
    publish(store, bundle())
    stale = store.read(current_key("shop"), Current)
    before = store.published_as("shop", first.fingerprint)
    newest = publish(store, bundle())
    assert stale
    assert before
    why = Rollback(stale.value.fingerprint, 2, "no", "me", NOW)
    with pytest.raises(Superseded):
        store.roll_back(before, why, after=stale, now=NOW)
    assert store.current("shop") == newest


def test_the_key_that_is_rolled_back_to_stays_when_the_next_is_published(
    store: Store, aws: Aws
) -> None:
    made = [bundle() for _ in range(3)]
    for one in made:
        publish(store, one)
    assert tags(aws, made[0]) == [SUPERSEDED_TAG]
    assert store.is_superseded("shop", made[0].fingerprint)
    roll_back(store, made[0])
    store.keep_privkey("shop", made[0].fingerprint)
    assert not store.is_superseded("shop", made[0].fingerprint)
    publish(store, bundle())
    assert [tags(aws, one) for one in made] == [[KEPT_TAG], [SUPERSEDED_TAG], [SUPERSEDED_TAG]]


def test_who_rolls_back_while_keys_are_tagged_keeps_the_key(
    store: Store, aws: Aws, sandbox: Sandbox
) -> None:
    """Between the pointer of a publication and its last tag."""
    made = [bundle() for _ in range(3)]
    for one in made[:2]:
        publish(store, one)

    def meanwhile(call: Call) -> None:
        if call.action == "s3:PutObjectTagging":
            sandbox.server.before.clear()
            roll_back(store, made[0])
            store.keep_privkey("shop", made[0].fingerprint)

    sandbox.server.before.append(meanwhile)
    publish(store, made[2])
    current = store.current("shop")
    assert current
    assert current.fingerprint == made[0].fingerprint
    assert tags(aws, made[0]) == [KEPT_TAG]


def test_whether_a_key_is_there_is_seen_without_reading_it(
    store: Store, aws: Aws, sandbox: Sandbox
) -> None:
    made = bundle()
    publish(store, made)
    assert store.fingerprints("shop") == [made.fingerprint]
    mark = sandbox.server.calls.mark()
    assert store.has_privkey("shop", made.fingerprint)
    assert sandbox.server.calls.of("s3:GetObject", since=mark) == []
    key = f"certificates/shop/{made.fingerprint}/privkey.pem"
    aws.s3().delete_object(Bucket=BUCKET, Key=key)
    assert not store.has_privkey("shop", made.fingerprint)


def test_a_document_of_another_shape_is_told_without_its_content(store: Store, aws: Aws) -> None:
    body = json.dumps({"pipeline": "shop", "generation": "the secret"})
    aws.s3().put_object(Bucket=BUCKET, Key=current_key("shop"), Body=body.encode())
    with pytest.raises(StateError, match="generation: Input should be a valid integer") as caught:
        store.current("shop")
    assert "the secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_read_that_fails_is_not_an_absence(store: Store) -> None:
    with pytest.raises(AwsError, match="NoSuchBucket") as caught:
        Store("another-bucket", Aws()).current("shop")
    assert caught.value.action == "s3:GetObject"


def test_no_pipelines_file_says_what_to_do(store: Store) -> None:
    with pytest.raises(NothingPushed, match="Run `certrail push`"):
        store.pipelines_text()
    store.put_pipelines_text("pipelines: []\n")
    assert store.pipelines_text() == "pipelines: []\n"


def test_a_file_that_is_gone_is_no_new_bucket(store: Store) -> None:
    publish(store, bundle())
    with pytest.raises(StateError, match="nothing in it is renewed") as caught:
        store.pipelines_text()
    assert not isinstance(caught.value, NothingPushed)


def test_wildcards_are_spelled() -> None:
    assert current_key("*.example.com") == "certificates/_wildcard.example.com/current.json"
    assert record_key("shop", "cloudfront/E1") == "deployments/shop/cloudfront/E1.json"


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.sampled_from(["publish", "stale"]), max_size=6))
def test_whatever_writers_do_a_reader_sees_one_whole_bundle(
    store: Store, aws: Aws, steps: list[str]
) -> None:
    for key in store.keys("certificates/"):
        aws.s3().delete_object(Bucket=BUCKET, Key=key)
    seen: list[Versioned[Current] | None] = [None]
    generation = 0
    for step in steps:
        made = bundle()
        after = seen[-1] if step != "stale" else seen[0]
        try:
            store.publish("shop", made, ISSUED, after=after, now=NOW)
        except Superseded:
            assert step == "stale"
        seen.append(store.read(current_key("shop"), Current))
        current = store.current("shop")
        assert current is not None
        assert current.generation >= generation
        generation = current.generation
        assert store.bundle(current).fingerprint == current.fingerprint
