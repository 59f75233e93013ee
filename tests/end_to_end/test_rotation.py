"""A new ARN, up to the deleted import, with the template's own functions and roles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moto.acm.models import acm_backends

from certrail.records import Record
from certrail.store import record_key
from deployers.kinds.acm import RETIRE_AFTER
from sandbox import resources
from sandbox.resources import ACCOUNT
from tests.end_to_end.conftest import World

EARLIER = 2 * RETIRE_AFTER


def test_who_no_file_names_moves_and_the_old_imports_go(world: World) -> None:
    homes = ("acm/eu-central-1", "acm/us-east-1")
    text = world.text("- {type: acm}\n- {type: acm, region: us-east-1}")
    world.furnish(text)
    world.push(text)
    old = {home: resource(world, home) for home in homes}
    attach(world, *old.values())

    world.push(text.replace("    targets:", "    rotation: replace\n    targets:"))
    renewed = world.renew()
    world.settle()
    new = {home: resource(world, home) for home in homes}
    assert set(old.values()).isdisjoint(new.values())
    assert users(world) == {
        "listener": {new["acm/eu-central-1"]},
        "domain name": {new["acm/eu-central-1"]},
        "distribution": {new["acm/us-east-1"]},
    }
    assert set(world.held().values()) == {renewed.fingerprint}
    assert len(world.held()) == 5
    assert not world.status().failed

    for home in homes:
        a_day_passes(world, home, old[home], new[home])
    world.sandbox.functions.fire_schedule("RouterDaily")
    world.settle()
    for home in homes:
        held = world.record(home).held
        assert held
        assert (held.superseded, held.retired) == ((), (old[home],))
        assert old[home] not in backend(home)._certificates
    assert world.sandbox.functions.failures == []


def resource(world: World, home: str) -> str:
    held = world.record(home).held
    assert held
    return held.resource


def attach(world: World, regional: str, edge: str) -> None:
    """Somebody else uses the imports: a listener, a domain name, a distribution."""
    where: Any = {"session": world.sandbox.session(), "endpoint": world.sandbox.endpoint}
    resources.listener(world.listener, **where)
    elb = world.client("elbv2")
    certificate = [{"CertificateArn": regional}]
    elb.modify_listener(ListenerArn=world.listener, Certificates=certificate)
    elb.add_listener_certificates(ListenerArn=world.listener, Certificates=certificate)
    resources.domain_name(world.domain, region="eu-central-1", **where)
    world.client("apigateway").update_domain_name(
        domainName=world.domain,
        patchOperations=[{"op": "replace", "path": "/regionalCertificateArn", "value": regional}],
    )
    resources.distribution(world.distribution, [world.domain], **where)
    cloudfront = world.client("cloudfront")
    there = cloudfront.get_distribution_config(Id=world.distribution)
    viewer = {
        "ACMCertificateArn": edge,
        "SSLSupportMethod": "sni-only",
        "MinimumProtocolVersion": "TLSv1.2_2021",
    }
    cloudfront.update_distribution(
        Id=world.distribution,
        IfMatch=there["ETag"],
        DistributionConfig={**there["DistributionConfig"], "ViewerCertificate": viewer},
    )


def users(world: World) -> dict[str, set[str]]:
    listed = world.client("elbv2").describe_listener_certificates(ListenerArn=world.listener)
    domain = world.client("apigateway").get_domain_name(domainName=world.domain)
    config = world.client("cloudfront").get_distribution_config(Id=world.distribution)
    return {
        "listener": {each["CertificateArn"] for each in listed["Certificates"]},
        "domain name": {domain["regionalCertificateArn"]},
        "distribution": {
            config["DistributionConfig"]["ViewerCertificate"]["ACMCertificateArn"],
        },
    }


def backend(home: str) -> Any:
    return acm_backends[ACCOUNT][home.partition("/")[2]]


def a_day_passes(world: World, home: str, *arns: str) -> None:
    """The functions have the time of the machine: so everything was earlier."""
    for arn in arns:
        backend(home)._certificates[arn].created_at -= EARLIER
    key = record_key(world.name, home)
    seen = world.store.read(key, Record)
    assert seen
    assert seen.value.held
    assert seen.value.held.since
    held = replace(seen.value.held, since=seen.value.held.since - EARLIER)
    world.store.write(key, replace(seen.value, held=held), Record, seen.etag)
