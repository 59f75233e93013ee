"""Waves and the way back, by the template's own functions with their own roles."""

from __future__ import annotations

from certrail.records import State
from certrail.store import Current, current_key
from sandbox.visitor import Visitor
from tests.certrail.bundles import Authority
from tests.deployers.cloud import put_alarm
from tests.end_to_end.conftest import World


def publish_bad(world: World) -> Current:
    """A certificate whose chain builds, and leads to a root that no client has."""
    store = world.store
    after = store.read(current_key(world.name), Current)
    assert after
    bundle = Authority().bundle([world.domain])
    issued, now = after.value.issued, after.value.published_at
    return store.publish(world.name, bundle, issued, after=after, now=now)


def test_a_bad_bundle_is_stopped_at_the_first_wave_and_rolled_back(world: World) -> None:
    alarm = f"{world.name}-errors"
    cloudwatch = world.client("cloudwatch")
    put_alarm(cloudwatch, alarm)
    text = world.text(
        f"""
        - {{type: listener, listener: '{world.listener}', wave: canary}}
        - {{type: cloudfront, distribution: {world.distribution}}}
        - {{type: secretsmanager, name: {world.secret}}}
        """
    ).replace(
        "    targets:",
        f"    waves: [{{name: canary, alarms: [{alarm}]}}, {{name: rest}}]\n    targets:",
    )
    world.furnish(text)
    world.push(text)
    good = world.current
    status = world.status()
    assert status.state == "served"
    assert [wave.state for wave in status.waves] == ["passed", "passed"]

    rest = world.record(f"cloudfront/{world.distribution}")
    assert rest.held
    sandbox = world.sandbox
    mark = sandbox.server.calls.mark()
    with Visitor(
        sandbox.edge.address, sandbox.dns, rest.held.endpoints, roots=[sandbox.ca.root()]
    ) as client:
        bad = publish_bad(world)
        world.settle()
        client.a_round()
        assert client.wrong == []
        assert client.fingerprints == [good.fingerprint]
    current = world.current
    assert (current.generation, current.fingerprint) == (3, good.fingerprint)
    assert current.rollback
    assert current.rollback.of == bad.fingerprint
    assert f"clients do not get {bad.fingerprint[:12]}" in current.rollback.reason
    assert set(world.held().values()) == {good.fingerprint}
    assert world.status().state == "rolled back"
    assert world.record(f"cloudfront/{world.distribution}").state is State.SERVED
    # The canary's import, there and back; nothing anywhere else.
    writes = sandbox.server.calls.writes(
        "acm", "cloudfront", "elasticloadbalancing", "secretsmanager", since=mark
    )
    assert [(call.action, call.region) for call in writes] == [
        ("acm:ImportCertificate", "eu-central-1"),
        ("acm:ImportCertificate", "eu-central-1"),
    ]
    # Nobody renews it at once, though it could.
    sandbox.functions.fire_schedule("IssuerHourly")
    world.settle()
    assert world.current.generation == 3


def test_a_secrets_canary_comes_first_and_its_other_readers_never_see_a_bad_bundle(
    world: World,
) -> None:
    text = world.text(
        f"""
        - {{type: listener, listener: '{world.listener}', wave: canary}}
        - {{type: secretsmanager, name: {world.secret}, stage: CANARY, wave: canary}}
        - {{type: secretsmanager, name: {world.secret}}}
        """
    ).replace("    targets:", "    waves: [{name: canary}, {name: rest}]\n    targets:")
    world.furnish(text)
    world.push(text)
    good = world.current
    labels = world.client("secretsmanager").describe_secret(SecretId=world.secret)
    (version,) = labels["VersionIdsToStages"]
    assert sorted(labels["VersionIdsToStages"][version]) == ["AWSCURRENT", "CANARY"]

    mark = world.sandbox.server.calls.mark()
    bad = publish_bad(world)
    world.settle()
    current = world.current
    assert current.rollback
    assert (current.fingerprint, current.rollback.of) == (good.fingerprint, bad.fingerprint)
    # The bad one was the canary's; AWSCURRENT was not touched, there or back.
    moved = [
        (call.operation, call.params["VersionStages"])
        if call.operation == "PutSecretValue"
        else (call.operation, call.params["VersionStage"])
        for call in world.sandbox.server.calls.writes("secretsmanager", since=mark)
        if call.params and call.operation != "TagResource"
    ]
    assert moved == [
        ("PutSecretValue", ["CANARY"]),
        ("PutSecretValue", ["CANARY"]),
        ("UpdateSecretVersionStage", "CANARY"),
    ]
    after = world.client("secretsmanager").describe_secret(SecretId=world.secret)
    assert sorted(after["VersionIdsToStages"][version]) == ["AWSCURRENT", "CANARY"]
