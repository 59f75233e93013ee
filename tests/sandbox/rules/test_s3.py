"""S3 refuses what AWS refuses; beside each refusal, the legal variant that passes."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.s3.models import FakeKey, S3Backend

from tests.sandbox.rules.conftest import Cloud, refused

BUCKET, KEY = "certrail-state", "certificates/shop/current.json"


@pytest.fixture(params=["Suspended", "Enabled"], ids=["plain", "versioned"])
def bucket(request: pytest.FixtureRequest, cloud: Cloud) -> str:
    cloud.s3.create_bucket(Bucket=BUCKET)
    cloud.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": request.param})
    return BUCKET


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write takes 5 ms, in which every other writer has time to look."""
    moto_put = S3Backend.put_object

    def slowly(self: S3Backend, *args: Any, **kwargs: Any) -> FakeKey:
        time.sleep(0.005)
        return moto_put(self, *args, **kwargs)

    monkeypatch.setattr(S3Backend, "put_object", slowly)


def put(cloud: Cloud, body: bytes, **more: Any) -> str:
    return cloud.s3.put_object(Bucket=BUCKET, Key=KEY, Body=body, **more)["ETag"]


def content(cloud: Cloud) -> bytes:
    return cloud.s3.get_object(Bucket=BUCKET, Key=KEY)["Body"].read()


def won(cloud: Cloud, body: bytes, **condition: str) -> bool:
    """Write under a condition; False if the condition did not hold."""
    try:
        put(cloud, body, **condition)
    except ClientError as error:
        if error.response["Error"]["Code"] != "PreconditionFailed":
            raise
        return False
    return True


class TestIfNoneMatch:
    def test_a_star_writes_once(self, cloud: Cloud, bucket: str) -> None:
        put(cloud, b"one", IfNoneMatch="*")
        with refused("PreconditionFailed", status=412):
            put(cloud, b"two", IfNoneMatch="*")
        assert content(cloud) == b"one"

    def test_a_deleted_object_is_absent(self, cloud: Cloud, bucket: str) -> None:
        put(cloud, b"one")
        cloud.s3.delete_object(Bucket=BUCKET, Key=KEY)
        put(cloud, b"two", IfNoneMatch="*")

    def test_an_etag_is_not_implemented(self, cloud: Cloud, bucket: str) -> None:
        etag = put(cloud, b"one")
        with refused("NotImplemented", status=501):
            put(cloud, b"two", IfNoneMatch=etag)
        assert content(cloud) == b"one"

    @pytest.mark.usefixtures("slow_disk")
    def test_of_many_writers_one_wins(self, cloud: Cloud, bucket: str) -> None:
        def write(number: int) -> bytes | None:
            body = str(number).encode()
            return body if won(cloud, body, IfNoneMatch="*") else None

        with ThreadPoolExecutor(8) as pool:
            winners = [body for body in pool.map(write, range(32)) if body]
        assert winners == [content(cloud)]


class TestIfMatch:
    def test_only_over_what_was_read(self, cloud: Cloud, bucket: str) -> None:
        first = put(cloud, b"one")
        second = put(cloud, b"two", IfMatch=first)
        assert second != first
        with refused("PreconditionFailed", status=412):
            put(cloud, b"three", IfMatch=first)
        assert content(cloud) == b"two"

    def test_nothing_there(self, cloud: Cloud, bucket: str) -> None:
        with refused("NoSuchKey", status=404):
            put(cloud, b"one", IfMatch='"d41d8cd98f00b204e9800998ecf8427e"')

    @pytest.mark.usefixtures("slow_disk")
    def test_of_many_writers_one_wins(self, cloud: Cloud, bucket: str) -> None:
        etag = put(cloud, b"start")

        def write(number: int) -> bool:
            return won(cloud, str(number).encode(), IfMatch=etag)

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(write, range(32))) == 1


def test_the_answers_etag_is_the_objects(cloud: Cloud, bucket: str) -> None:
    etag = put(cloud, b"one")
    assert cloud.s3.head_object(Bucket=BUCKET, Key=KEY)["ETag"] == etag
    assert cloud.s3.get_object(Bucket=BUCKET, Key=KEY)["ETag"] == etag
    assert cloud.s3.list_objects_v2(Bucket=BUCKET)["Contents"][0]["ETag"] == etag
    assert etag.startswith('"')
    assert etag.endswith('"')


class TestKmsKey:
    def test_one_that_is_not_there(self, cloud: Cloud, bucket: str) -> None:
        missing = "11111111-2222-3333-4444-555555555555"
        for key in (
            missing,
            f"arn:aws:kms:us-east-1:123456789012:key/{missing}",
            "alias/nobody",
        ):
            with refused("KMS.NotFoundException", status=400):
                put(cloud, b"one", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)

    def test_one_that_is(self, cloud: Cloud, bucket: str) -> None:
        kms = cloud.client("kms")
        key = kms.create_key()["KeyMetadata"]
        kms.create_alias(AliasName="alias/certrail", TargetKeyId=key["KeyId"])
        for name in (key["KeyId"], key["Arn"], "alias/certrail"):
            put(cloud, b"one", ServerSideEncryption="aws:kms", SSEKMSKeyId=name)
