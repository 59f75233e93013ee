"""What somebody else brings: through each layout, in any order, whole or broken."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from certrail.aws import Aws
from certrail.bundle import Bundle, short
from certrail.errors import (
    AwsError,
    BundleBroken,
    Incomplete,
    StateError,
    Superseded,
)
from certrail.keys import KeyType
from certrail.pipelines.model import Incoming
from certrail.pipelines.resolved import Pipeline
from certrail.store import Current, Rollback, Store, current_key, incoming_prefix
from issuer import lease
from issuer.clock import Clock
from issuer.incoming import LARGEST, PATIENCE, receive
from sandbox import Sandbox, resources
from tests.buckets import make_bucket
from tests.certrail.bundles import Authority, authority, make_bundle
from tests.issuer.conftest import Told
from tests.issuer.foreign import certbot, node_lambda, pkcs12

NAMES = ("shop.example", "*.shop.example")
Layout = Literal["certbot", "json", "pkcs12", "acm"]
LAYOUTS: tuple[Layout, ...] = ("certbot", "json", "pkcs12", "acm")
REGION: Literal["eu-central-1"] = "eu-central-1"


@dataclass
class Intake:
    """One pipeline whose certificate comes from elsewhere, and a clock that can be set."""

    aws: Aws
    store: Store
    pipeline: Pipeline[object]
    told: Told = field(default_factory=lambda: Told([], []))
    later: timedelta = timedelta(0)

    def put(self, name: str, body: bytes) -> None:
        key = f"{incoming_prefix(self.pipeline.name)}{name}"
        self.aws.s3().put_object(Bucket=self.store.bucket, Key=key, Body=body)

    def bring(self, layout: Layout, bundle: Bundle) -> None:
        match layout:
            case "certbot":
                for name, body in certbot(bundle).items():
                    self.put(name, body)
            case "json":
                self.put("shop.example.json", node_lambda(bundle))
            case "pkcs12":
                password = "a pass phrase"
                arn = self.aws.secretsmanager(REGION).create_secret(
                    Name=uuid.uuid4().hex, SecretString=password
                )["ARN"]
                self.says(password_secret=arn)
                self.put("shop.p12", pkcs12(bundle, password.encode()))
            case "acm":
                self.says(certificate_arn=exported(bundle))

    def says(self, **incoming: str) -> None:
        self.pipeline = replace(
            self.pipeline, incoming=Incoming(**incoming), configuration=str(incoming)
        )

    def look(self, *, asked: bool = False) -> Current | None:
        def now() -> datetime:
            return datetime.now(UTC) + self.later

        clock = Clock(now, lambda seconds: None, now() + timedelta(minutes=5))
        return receive(self.pipeline, self.store, self.aws, clock, self.told, asked=asked)

    @property
    def current(self) -> Current | None:
        return self.store.current(self.pipeline.name)

    @property
    def progress(self) -> lease.Progress:
        found = lease.read(self.store, self.pipeline.name)
        assert found
        return found

    def held(self) -> tuple[str, str, str]:
        """Certificate, chain and key as they are published."""
        assert self.current
        bundle = self.store.bundle(self.current)
        return bundle.certificate, bundle.chain, bundle.private_key.reveal()


def exported(bundle: Bundle, arn: str | None = None) -> str:
    return resources.exportable_certificate(
        bundle.certificate.encode(),
        bundle.private_key.reveal().encode(),
        # As ACM does for a private CA, with its root.
        (bundle.chain + authority().root).encode(),
        arn=arn,
    )


def parts(bundle: Bundle) -> tuple[str, str, str]:
    return bundle.certificate, bundle.chain, bundle.private_key.reveal()


@pytest.fixture
def intake(sandbox: Sandbox) -> Intake:
    aws = Aws()
    store = make_bucket(f"bucket-{uuid.uuid4().hex}", aws)
    return Intake(
        aws,
        store,
        Pipeline("shop", "shop", NAMES, (), KeyType.ECDSA_P256, (), incoming=Incoming()),
    )


def current_of(intake: Intake) -> Current:
    assert intake.current
    return intake.current


class TestInAndOut:
    """The issue's own words: the same bundle in and out through each of the four layouts."""

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("key_type", [KeyType.ECDSA_P256, KeyType.RSA_2048])
    def test_byte_by_byte(self, intake: Intake, layout: Layout, key_type: KeyType) -> None:
        bundle = make_bundle(NAMES, key_type)
        intake.pipeline = replace(intake.pipeline, key_type=key_type)
        intake.bring(layout, bundle)
        current = intake.look()
        assert current
        assert current.fingerprint == bundle.fingerprint
        assert intake.held() == parts(bundle)
        assert current.issued.issuer == "incoming"
        assert current.facts.domains == NAMES
        assert intake.told.certificates == [current]

    def test_one_bundle_through_all_of_them_is_one_bundle(self, intake: Intake) -> None:
        bundle = make_bundle(NAMES)
        for layout in LAYOUTS:
            intake.bring(layout, bundle)
            intake.look()
            assert intake.held() == parts(bundle)
        assert current_of(intake).generation == 1
        assert len(intake.told.certificates) == 1

    def test_what_was_published_goes_in_again(self, intake: Intake) -> None:
        intake.bring("json", make_bundle(NAMES))
        first = intake.look()
        assert first
        before = intake.held()
        intake.bring("certbot", intake.store.bundle(first))
        assert intake.look() is None
        assert intake.held() == before


class TestNothingNew:
    def test_nothing_there(self, intake: Intake) -> None:
        assert intake.look() is None
        assert lease.read(intake.store, "shop") is None

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_looked_at_twice_is_taken_once(
        self, intake: Intake, layout: Layout, sandbox: Sandbox
    ) -> None:
        intake.bring(layout, make_bundle(NAMES))
        assert intake.look()
        mark = sandbox.server.calls.mark()
        assert intake.look() is None
        assert not list(sandbox.server.calls.writes("s3", since=mark))
        assert sandbox.server.calls.count(since=mark)["acm:ExportCertificate"] == 0

    def test_the_same_written_again_changes_nothing(self, intake: Intake) -> None:
        bundle = make_bundle(NAMES)
        for _ in range(2):
            intake.bring("certbot", bundle)
            intake.look()
        assert current_of(intake).generation == 1

    def test_other_files_are_nobody_s_business(self, intake: Intake) -> None:
        intake.put("README", b"This directory contains your keys and certificates.")
        intake.put("archive/cert1.pem", b"")
        assert intake.look() is None


class TestCertbot:
    @pytest.mark.parametrize(
        "order", list(itertools.permutations(certbot(make_bundle(NAMES))))[::5]
    )
    def test_in_any_order(self, intake: Intake, order: tuple[str, ...]) -> None:
        bundle = make_bundle(NAMES)
        files = certbot(bundle)
        for number, name in enumerate(order, start=1):
            intake.put(name, files[name])
            if number < len(order):
                with pytest.raises(Incomplete, match="missing"):
                    intake.look()
                assert intake.progress.error is None
                assert intake.progress.waits_for
        assert intake.look()
        assert intake.held() == parts(bundle)
        assert intake.progress.waits_for is None

    def test_a_renewal_is_taken_when_all_of_it_is_there(self, intake: Intake) -> None:
        first, second = make_bundle(NAMES), make_bundle(NAMES)
        intake.bring("certbot", first)
        intake.look()
        for name in ("privkey.pem", "fullchain.pem"):
            intake.put(name, certbot(second)[name])
            with pytest.raises(Incomplete):
                intake.look()
            assert intake.held() == parts(first)
        intake.put("cert.pem", certbot(second)["cert.pem"])
        assert intake.look()
        assert intake.held() == parts(second)

    def test_what_stays_half_is_an_error_after_an_hour(self, intake: Intake) -> None:
        intake.put("cert.pem", certbot(make_bundle(NAMES))["cert.pem"])
        with pytest.raises(Incomplete):
            intake.look()
        # Not before its time, and with no write.
        assert intake.look() is None
        intake.later = PATIENCE + timedelta(minutes=1)
        with pytest.raises(BundleBroken, match=r"privkey\.pem are missing, and nothing came"):
            intake.look()
        progress = intake.progress
        assert progress.error
        assert "Upload all of" in progress.error
        assert progress.waits_for is None
        # Told once, and then daily.
        assert intake.look() is None
        intake.later += timedelta(days=1)
        with pytest.raises(BundleBroken):
            intake.look()


class TestRefused:
    def refused(
        self, intake: Intake, error: type[StateError] = BundleBroken, asked: bool = False
    ) -> StateError:
        before = intake.current
        with pytest.raises(error) as caught:
            intake.look(asked=asked)
        assert intake.current == before
        assert caught.value.next
        assert intake.progress.error == str(caught.value)
        assert not caught.value.retryable
        return caught.value

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_without_a_name_of_the_pipeline(self, intake: Intake, layout: Layout) -> None:
        intake.bring(layout, make_bundle(["*.shop.example"]))
        error = self.refused(intake)
        assert error.what == "the certificate lacks shop.example"
        assert "`domains`" in error.next

    def test_a_wildcard_covers_what_is_below_it(self, intake: Intake) -> None:
        intake.pipeline = replace(intake.pipeline, domains=("www.shop.example",))
        intake.bring("json", make_bundle(NAMES))
        assert intake.look()

    def test_expired(self, intake: Intake) -> None:
        intake.bring("json", make_bundle(NAMES, days=-0.01))
        assert "is valid from" in self.refused(intake).what

    def test_with_another_type_of_key(self, intake: Intake) -> None:
        intake.bring("json", make_bundle(NAMES, KeyType.RSA_2048))
        error = self.refused(intake)
        assert error.what == "the key is rsa-2048, not ecdsa-p256"
        assert "`key_type`" in error.next

    def test_of_a_ca(self, intake: Intake) -> None:
        intake.bring("json", authority().of_its_own)
        assert "is the certificate of a CA" in self.refused(intake).what

    def test_with_the_chain_of_somebody_else(self, intake: Intake) -> None:
        other = Authority().bundle(NAMES)
        intake.bring("json", replace(make_bundle(NAMES), chain=other.chain))
        assert "is not part of the leaf's chain" in self.refused(intake).what

    def test_too_large(self, intake: Intake) -> None:
        intake.put("shop.json", b" " * (LARGEST + 1))
        error = self.refused(intake)
        assert error.what == f"it is {LARGEST + 1} bytes long, and a bundle has at most {LARGEST}"
        assert error.where.endswith("/incoming/shop/shop.json")

    def test_older_than_the_current_one(self, intake: Intake) -> None:
        old = make_bundle(NAMES, age=timedelta(days=2))
        new = make_bundle(NAMES)
        intake.bring("json", new)
        intake.look()
        intake.bring("json", old)
        error = self.refused(intake, Superseded)
        assert short(new.fingerprint) in error.what
        assert "certrail rollback shop" in error.next
        # What is newer ends it.
        intake.bring("json", make_bundle(NAMES))
        assert intake.look()
        assert intake.progress.error is None

    def test_into_a_bucket_without_kms(self, intake: Intake) -> None:
        intake.store = make_bucket(f"bucket-{uuid.uuid4().hex}", intake.aws, encrypted=False)
        intake.bring("json", make_bundle(NAMES))
        assert "does not encrypt with KMS" in self.refused(intake, StateError).what

    def test_until_the_file_says_something_else(self, intake: Intake) -> None:
        intake.bring("json", make_bundle(["shop.example"]))
        self.refused(intake)
        assert intake.look() is None
        intake.pipeline = replace(
            intake.pipeline, domains=("shop.example",), configuration="another"
        )
        assert intake.look()
        assert intake.progress.error is None

    def test_a_name_that_was_added_is_missed(self, intake: Intake) -> None:
        intake.bring("json", make_bundle(NAMES))
        intake.look()
        intake.pipeline = replace(
            intake.pipeline, domains=(*NAMES, "other.example"), configuration="another"
        )
        assert self.refused(intake).what == "the certificate lacks other.example"

    def test_until_what_was_wrong_is_taken_away(self, intake: Intake) -> None:
        intake.put("shop.json", b"{}")
        self.refused(intake)
        key = f"{incoming_prefix('shop')}shop.json"
        intake.aws.s3().delete_object(Bucket=intake.store.bucket, Key=key)
        assert intake.look() is None
        assert intake.progress.error is None


class TestAcm:
    def test_its_renewal_is_exported(self, intake: Intake) -> None:
        first, second = make_bundle(NAMES), make_bundle(NAMES)
        arn = exported(first)
        intake.says(certificate_arn=arn)
        intake.look()
        exported(second, arn)
        assert intake.look()
        assert intake.held() == parts(second)

    def test_what_cannot_be_exported(self, intake: Intake) -> None:
        bundle = make_bundle(NAMES)
        arn = intake.aws.acm(REGION).import_certificate(
            Certificate=bundle.certificate.encode(),
            PrivateKey=bundle.private_key.reveal().encode(),
        )["CertificateArn"]
        intake.says(certificate_arn=arn)
        with pytest.raises(BundleBroken, match="ACM does not export this certificate") as caught:
            intake.look()
        assert "Export=ENABLED" in caught.value.next

    def test_what_is_not_issued_yet(self, intake: Intake) -> None:
        arn = intake.aws.acm(REGION).request_certificate(
            DomainName="shop.example", ValidationMethod="DNS", Options={"Export": "ENABLED"}
        )["CertificateArn"]
        intake.says(certificate_arn=arn)
        with pytest.raises(BundleBroken, match="is PENDING_VALIDATION in ACM"):
            intake.look()

    def test_what_is_not_there(self, intake: Intake) -> None:
        intake.says(certificate_arn=f"arn:aws:acm:{REGION}:123456789012:certificate/0")
        with pytest.raises(AwsError, match="certificate/0"):
            intake.look()
        assert intake.progress.error


class TestSecrets:
    def test_a_password_that_is_not_there(self, intake: Intake) -> None:
        arn = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:none-AbCdEf"
        intake.says(password_secret=arn)
        intake.put("shop.pfx", pkcs12(make_bundle(NAMES), b"x"))
        with pytest.raises(AwsError, match=arn):
            intake.look()

    def test_without_a_password(self, intake: Intake) -> None:
        bundle = make_bundle(NAMES)
        intake.put("shop.pfx", pkcs12(bundle))
        assert intake.look()
        assert intake.held() == parts(bundle)


class TestRollback:
    def test_what_was_rolled_back_from_is_not_taken_again(self, intake: Intake) -> None:
        first, second = make_bundle(NAMES), make_bundle(NAMES)
        for each in (first, second):
            intake.bring("certbot", each)
            intake.look()
        back(intake, first)
        intake.look()
        intake.bring("json", second)
        assert intake.look() is None
        assert intake.held() == parts(first)
        third = make_bundle(NAMES)
        intake.bring("json", third)
        assert intake.look()
        assert intake.held() == parts(third)


def back(intake: Intake, to: Bundle) -> None:
    after = intake.store.read(current_key("shop"), Current)
    earlier = intake.store.published_as("shop", to.fingerprint)
    assert after
    assert earlier
    now = datetime.now(UTC)
    why = Rollback(after.value.fingerprint, after.value.generation, "a test", "me", now)
    intake.store.roll_back(earlier, why, after=after, now=now)


def test_the_last_that_was_brought_is_meant(intake: Intake) -> None:
    """Whatever its layout, and whatever else lies there."""
    bundles = [make_bundle(NAMES) for _ in range(3)]
    layouts: Mapping[str, bytes] = {
        "a.json": node_lambda(bundles[0]),
        "b.pfx": pkcs12(bundles[1]),
        "c.json": node_lambda(bundles[2]),
    }
    for (name, body), bundle in zip(layouts.items(), bundles, strict=True):
        intake.put(name, body)
        intake.look()
        assert intake.held() == parts(bundle)
    assert current_of(intake).generation == 3
