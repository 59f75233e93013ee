"""Bundles that somebody else issued, from the bucket to where they are used."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from certrail.aws import Aws
from certrail.bundle import Bundle
from certrail.errors import AccessDenied
from certrail.grants import Scope
from certrail.store import Store, incoming_prefix
from issuer.incoming import grants_to_bring
from sandbox import Sandbox, resources
from tests.certrail.bundles import authority, make_bundle
from tests.end_to_end.conftest import TEMPLATE, World
from tests.issuer.foreign import certbot, node_lambda, pkcs12

LAYOUTS = ["certbot", "json", "pkcs12", "acm"]


@pytest.fixture(scope="module")
def deployed(sandbox: Sandbox) -> Iterator[Sandbox]:
    """With the two parameters that name what the receiver may read elsewhere."""
    sandbox.reset()
    sandbox.deploy(
        TEMPLATE,
        {
            "ExportableCertificateArns": "arn:aws:acm:*:123456789012:certificate/*",
            "IncomingSecretArns": "arn:aws:secretsmanager:*:123456789012:secret:p12/*",
        },
    )
    yield sandbox
    sandbox.reset()


def brought(world: World, incoming: dict[str, str] | None = None) -> str:
    """A pipelines file whose one certificate comes from elsewhere."""
    targets = [
        {"type": "listener", "listener": world.listener, "default": True},
        {"type": "secretsmanager", "name": world.secret},
    ]
    return (
        "defaults: {region: eu-central-1}\n"
        "pipelines:\n"
        f"  - name: {world.name}\n    domains: [{world.domain}]\n    issuer: incoming\n"
        f"    incoming: {json.dumps((incoming or {}) | {'trust': authority().root})}\n"
        f"    targets: {json.dumps(targets)}\n"
    )


def begin(world: World, text: str) -> None:
    world.furnish(text)
    world.push(text)


def put(world: World, name: str, body: bytes) -> None:
    """As somebody who knows nothing of certrail does."""
    key = f"{incoming_prefix(world.name)}{name}"
    world.client("s3").put_object(Bucket=world.store.bucket, Key=key, Body=body)


def deliver(world: World, layout: str, bundle: Bundle) -> str:
    """Bring a bundle, and return the file that says how."""
    match layout:
        case "certbot":
            for name, body in certbot(bundle).items():
                put(world, name, body)
        case "json":
            put(world, f"{world.domain}.json", node_lambda(bundle))
        case "pkcs12":
            password = "a pass phrase"
            arn = world.client("secretsmanager").create_secret(
                Name=f"p12/{world.name}", SecretString=password
            )["ARN"]
            put(world, "bundle.p12", pkcs12(bundle, password.encode()))
            return brought(world, {"password_secret": arn})
        case "acm":
            return brought(world, {"certificate_arn": in_acm(bundle)})
    return brought(world)


def in_acm(bundle: Bundle, arn: str | None = None) -> str:
    return resources.exportable_certificate(
        bundle.certificate.encode(),
        bundle.private_key.reveal().encode(),
        bundle.chain.encode(),
        arn=arn,
        region="eu-central-1",
    )


def published(world: World) -> tuple[str, str, str]:
    bundle = world.store.bundle(world.current)
    return bundle.certificate, bundle.chain, bundle.private_key.reveal()


def parts(bundle: Bundle) -> tuple[str, str, str]:
    return bundle.certificate, bundle.chain, bundle.private_key.reveal()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_checked_published_and_deployed_like_our_own(world: World, layout: str) -> None:
    bundle = make_bundle([world.domain])
    begin(world, deliver(world, layout, bundle))
    assert published(world) == parts(bundle)
    assert set(world.held().values()) == {bundle.fingerprint}
    status = world.status()
    assert (status.state, status.failed, status.due) == ("served", False, None)
    assert world.sandbox.functions.failures == []


def test_a_renewal_arrives_by_its_event(world: World) -> None:
    bundles = [make_bundle([world.domain]) for _ in range(3)]
    begin(world, deliver(world, "certbot", bundles[0]))
    for bundle in bundles[1:]:
        deliver(world, "certbot", bundle)
        world.settle()
        assert set(world.held().values()) == {bundle.fingerprint}
    assert world.current.generation == 3
    assert world.sandbox.functions.failures == []


def test_a_renewal_by_acm_arrives_by_its_event(world: World) -> None:
    first, second = (make_bundle([world.domain]) for _ in range(2))
    arn = in_acm(first)
    begin(world, brought(world, {"certificate_arn": arn}))
    in_acm(second, arn)
    world.sandbox.events.from_acm(arn, "RENEWAL")
    world.settle()
    assert published(world) == parts(second)
    assert set(world.held().values()) == {second.fingerprint}


def test_events_that_come_three_times_late_or_never(world: World) -> None:
    begin(world, brought(world))
    events = world.sandbox.events
    events.disturb(duplicate=3)
    bundle = make_bundle([world.domain])
    deliver(world, "certbot", bundle)
    world.settle()
    assert world.current.generation == 1
    events.disturb(hold=lambda delivery: delivery.key.startswith("incoming/"))
    renewed = make_bundle([world.domain])
    deliver(world, "certbot", renewed)
    world.settle()
    assert set(world.held().values()) == {bundle.fingerprint}
    world.sandbox.functions.fire_schedule("ReceiverHourly")
    world.settle()
    assert set(world.held().values()) == {renewed.fingerprint}
    events.calm()
    world.settle()
    assert world.current.generation == 2


def test_what_is_wrong_is_told_and_changes_nothing(world: World) -> None:
    bundle = make_bundle([world.domain])
    begin(world, deliver(world, "json", bundle))
    put(world, f"{world.domain}.json", node_lambda(make_bundle(["other.example"])))
    world.settle()
    assert set(world.held().values()) == {bundle.fingerprint}
    status = world.status()
    assert status.failed
    assert status.progress
    assert f"the certificate lacks {world.domain}" in str(status.progress.error)
    # A failure that is written down is not the function's.
    assert world.sandbox.functions.failures == []
    deliver(world, "json", bundle)
    world.settle()
    assert not world.status().failed


def test_what_is_not_whole_yet_waits(world: World) -> None:
    begin(world, brought(world))
    put(world, "cert.pem", certbot(make_bundle([world.domain]))["cert.pem"])
    world.settle()
    status = world.status()
    assert status.progress
    assert "missing" in str(status.progress.waits_for)
    assert not status.failed


def test_what_we_did_not_create_stays_as_it_is(world: World) -> None:
    begin(world, deliver(world, "certbot", make_bundle([world.domain])))
    s3, bucket = world.client("s3"), world.store.bucket
    versions = s3.list_object_versions(Bucket=bucket, Prefix=incoming_prefix(world.name))
    assert "DeleteMarkers" not in versions
    assert len(versions["Versions"]) == 4
    for each in versions["Versions"]:
        tags = s3.get_object_tagging(Bucket=bucket, Key=each["Key"])
        assert tags["TagSet"] == []


def test_who_brings_needs_what_the_page_says_and_no_more(world: World) -> None:
    stack = world.sandbox.stack
    owner = Scope("aws", "123456789012", world.store.bucket)
    granted = grants_to_bring(owner, "eu-central-1", stack.outputs["KeyArn"], world.name)
    begin(world, brought(world))
    for left_out in (None, *granted):
        role = resources.role(
            f"arn:aws:iam::123456789012:role/bringer-{left_out.sid if left_out else 'whole'}",
            [grant.statement() for grant in granted if grant is not left_out],
            session=world.sandbox.session(),
            endpoint=world.sandbox.endpoint,
        )
        bringer = Store(world.store.bucket, Aws(world.sandbox.session()).acting_as(role))
        if left_out:
            with pytest.raises(AccessDenied):
                bringer.bring(world.name, "a.json", b"{}")
            continue
        bringer.bring(world.name, "a.json", node_lambda(make_bundle([world.domain])))
        for elsewhere in (f"{world.name}-2", "../certificates"):
            with pytest.raises(AccessDenied):
                bringer.bring(elsewhere, "a.json", b"{}")
    world.settle()
    assert world.current.generation == 1
