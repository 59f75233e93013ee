"""Each thing that goes wrong is told clearly on the record and in `certrail status`, harms no other
target, loses nothing, and is made good once the cause is."""

from __future__ import annotations

import pytest

from certrail.bundle import fingerprint
from certrail.errors import PipelinesInvalid
from certrail.records import State
from cli.status import PipelineStatus, TargetStatus
from sandbox import resources
from tests.end_to_end.conftest import World


def only_failure(status: PipelineStatus) -> TargetStatus:
    """The one target that failed; the others are deployed, and served where clients are looked
    at."""
    failed = [target for target in status.targets if target.failed]
    for target in status.targets:
        looked_at = target.record is not None and target.record.check is not None
        assert target.failed or target.state == ("served" if looked_at else "deployed")
    (failure,) = failed
    return failure


def error_of(target: TargetStatus) -> str:
    assert target.record
    assert target.record.error
    return target.record.error


def test_an_alias_that_the_certificate_does_not_cover(world: World) -> None:
    alias = f"other-{world.domain}"
    resources.distribution(
        world.distribution,
        [alias],
        session=world.sandbox.session(),
        endpoint=world.sandbox.endpoint,
    )
    text = world.everything()
    world.furnish(text)
    mark = world.sandbox.server.calls.mark()
    world.push(text)
    failure = only_failure(world.status())
    assert failure.address == f"cloudfront/{world.distribution}"
    assert f"does not cover {alias}" in error_of(failure)
    assert "Add the names to the pipeline's `domains`" in error_of(failure)
    assert world.sandbox.server.calls.writes("cloudfront", since=mark) == []

    world.push(text.replace(f"[{world.domain}]", f"[{world.domain}, {alias}]"))
    assert world.current.facts.domains == (world.domain, alias)
    assert not world.status().failed
    assert set(world.held().values()) == {world.current.fingerprint}


def test_a_name_that_is_dropped_while_a_distribution_serves_it(world: World) -> None:
    alias = f"other-{world.domain}"
    resources.distribution(
        world.distribution,
        [world.domain, alias],
        session=world.sandbox.session(),
        endpoint=world.sandbox.endpoint,
    )
    text = world.everything().replace(f"[{world.domain}]", f"[{world.domain}, {alias}]")
    world.furnish(text)
    world.push(text)
    before = world.current
    address = f"cloudfront/{world.distribution}"
    served = world.record(address).held
    assert served

    world.push(world.everything())
    assert world.current.facts.domains == (world.domain,)
    failure = only_failure(world.status())
    assert failure.address == address
    assert f"does not cover {alias}" in error_of(failure)
    config = world.client("cloudfront").get_distribution_config(Id=world.distribution)
    arn = config["DistributionConfig"]["ViewerCertificate"]["ACMCertificateArn"]
    assert arn == served.resource
    still = world.client("acm", "us-east-1").get_certificate(CertificateArn=arn)["Certificate"]
    assert fingerprint(still) == before.fingerprint

    world.push(text)
    assert not world.status().failed
    assert set(world.held().values()) == {world.current.fingerprint}


def test_access_denied(world: World) -> None:
    text = world.everything()
    world.furnish(text)
    with world.sandbox.server.refuse(
        "secretsmanager:CreateSecret",
        code="AccessDeniedException",
        message="User: certrail is not authorized to perform: secretsmanager:CreateSecret",
    ):
        world.push(text)
    failure = only_failure(world.status())
    assert failure.address.startswith("secretsmanager/")
    assert "is not authorized to perform: secretsmanager:CreateSecret" in error_of(failure)
    assert "Allow secretsmanager:CreateSecret" in error_of(failure)
    world.push(text)
    assert not world.status().failed


def test_a_deleted_distribution(world: World) -> None:
    text = world.everything()
    world.furnish(
        world.text(
            f"- {{type: listener, listener: '{world.listener}'}}\n"
            f"- {{type: apigateway, domain_name: {world.domain}}}"
        )
    )
    world.push(text)
    failure = only_failure(world.status())
    assert f"there is no distribution {world.distribution}" in error_of(failure)
    world.furnish(text)
    world.push(text)
    assert not world.status().failed


def test_a_secret_that_is_scheduled_for_deletion(world: World) -> None:
    text = world.everything()
    world.furnish(text)
    world.push(text)
    secrets = world.client("secretsmanager")
    secrets.delete_secret(SecretId=world.secret, RecoveryWindowInDays=7)
    world.renew()
    world.settle()
    failure = only_failure(world.status())
    assert "restore-secret" in error_of(failure)
    secrets.restore_secret(SecretId=world.secret)
    world.push(text)
    assert not world.status().failed
    assert set(world.held().values()) == {world.current.fingerprint}


def test_a_broken_bundle_in_the_bucket_is_deployed_nowhere(world: World) -> None:
    text = world.everything()
    world.furnish(text)
    world.push(text)
    good = world.current
    world.sandbox.events.disturb(hold=True)
    broken = world.renew()
    key = f"certificates/{world.name}/{broken.fingerprint}/privkey.pem"
    s3 = world.client("s3")
    s3.put_object(Bucket=world.store.bucket, Key=key, Body=b"not the key")
    world.sandbox.events.calm()
    world.settle()
    status = world.status()
    states = {target.address: target for target in status.targets}
    for address in ("acm/eu-central-1", f"secretsmanager/eu-central-1/{world.secret}"):
        assert "privkey.pem is not what was published" in error_of(states[address])
        held = world.record(address).held
        assert held
        assert held.fingerprint == good.fingerprint
    mended = world.renew()
    world.settle()
    assert not world.status().failed
    assert set(world.held().values()) == {mended.fingerprint}


def test_a_name_without_a_zone(world: World) -> None:
    text = world.text("- {type: acm}", domains=f"{world.name}.nowhere.test")
    world.push(text)
    progress = world.status().progress
    assert progress
    assert progress.error
    assert f"no public hosted zone for {world.name}.nowhere.test" in progress.error
    assert progress.next_attempt
    assert world.store.current(world.name) is None
    good = world.text("- {type: acm}")
    world.furnish(good)
    world.push(good)
    assert not world.status().failed


def test_a_wrong_file_in_the_bucket_loses_nothing(world: World) -> None:
    text = world.everything()
    world.furnish(text)
    world.push(text)
    before = world.held()
    failures = len(world.sandbox.functions.failures)
    world.push(text.replace("type: acm", "type: amc"))
    told = [str(failure) for failure in world.sandbox.functions.failures[failures:]]
    assert any("config/pipelines.yaml:8" in failure and "acm" in failure for failure in told)
    with pytest.raises(PipelinesInvalid):
        world.status()
    world.workspace.file.write_text(text)
    assert world.held() == before
    world.push(text)
    assert not world.status().failed


def test_no_key_material_in_any_log_or_record(world: World) -> None:
    text = world.everything()
    world.furnish(text)
    world.push(text)
    with world.sandbox.server.refuse(
        "secretsmanager:PutSecretValue", code="InternalServiceError", message="out of order"
    ):
        world.renew()
        world.settle()
    key = world.store.bundle(world.current).private_key.reveal().splitlines()[1]
    functions = world.sandbox.functions
    logs = [line for name in world.sandbox.stack.functions for line in functions.logs(name)]
    assert logs
    assert not any(key in line or "PRIVATE KEY" in line for line in logs)
    s3 = world.client("s3")
    for stored in world.store.keys(""):
        if not stored.endswith("privkey.pem"):
            body = s3.get_object(Bucket=world.store.bucket, Key=stored)["Body"].read().decode()
            assert key not in body, stored
    world.push(text)
    assert world.record(f"secretsmanager/eu-central-1/{world.secret}").state is State.DEPLOYED
