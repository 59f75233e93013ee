"""listener: add, then the default, then take away what we superseded, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from certrail.errors import TargetMissing, TargetRefused
from certrail.keys import KeyType
from certrail.records import State
from certrail.target import Endpoint, with_needs
from deployers.deploy import Result, drift
from deployers.kinds.acm import Acm
from deployers.kinds.listener import Listener
from deployers.rollout import Action
from sandbox import resources
from tests.certrail.bundles import NOW
from tests.deployers.cloud import PIPELINE, REGION, Cloud
from tests.deployers.contract.worlds import ALB, LISTENERS, NLB

HOME = Acm(region=REGION)
IN_LIST = Listener(listener=ALB)
AS_DEFAULT = Listener(listener=ALB, default=True)


def make(cloud: Cloud, arn: str = ALB, **more: Any) -> str:
    """Returns the ARN of the listener's first default."""
    resources.listener(arn, session=cloud.session, endpoint=cloud.endpoint, **more)
    default, _ = held(cloud, arn)
    return default


def held(cloud: Cloud, arn: str = ALB) -> tuple[str, list[str]]:
    """The default, and the list."""
    pages = cloud.client("elbv2").get_paginator("describe_listener_certificates")
    rows = [row for page in pages.paginate(ListenerArn=arn) for row in page["Certificates"]]
    defaults = [row["CertificateArn"] for row in rows if row["IsDefault"]]
    return "".join(defaults), [row["CertificateArn"] for row in rows if not row["IsDefault"]]


def list_(cloud: Cloud, certificate: str, arn: str = ALB) -> None:
    cloud.client("elbv2").add_listener_certificates(
        ListenerArn=arn, Certificates=[{"CertificateArn": certificate}]
    )


def home_arn(cloud: Cloud, pipeline: str = PIPELINE) -> str:
    there = cloud.recorded(HOME, pipeline=pipeline).held
    assert there is not None
    return there.resource


def writes(calls: Any) -> list[str]:
    return [call.action.removeprefix("elasticloadbalancing:") for call in calls if call.writes]


@pytest.mark.parametrize("arn", [ALB, NLB])
def test_into_the_list_only(cloud: Cloud, arn: str) -> None:
    default = make(cloud, arn)
    cloud.publish()
    assert cloud.settle(Listener(listener=arn)) == {}
    assert held(cloud, arn) == (default, [home_arn(cloud)])


@pytest.mark.parametrize("arn", [ALB, NLB])
def test_into_the_defaults_place_and_the_list(cloud: Cloud, arn: str) -> None:
    make(cloud, arn)
    cloud.publish()
    cloud.deploy(HOME)
    with cloud.journal() as calls:
        cloud.deploy(Listener(listener=arn, default=True))
    assert held(cloud, arn) == (home_arn(cloud), [home_arn(cloud)])
    assert writes(calls) == ["AddListenerCertificates", "ModifyListener"]


def test_what_others_put_there_stays(cloud: Cloud) -> None:
    """A listener made in the console has its default in the list as well."""
    foreign = make(cloud)
    list_(cloud, foreign)
    cloud.publish()
    assert cloud.settle(AS_DEFAULT) == {}
    assert held(cloud) == (home_arn(cloud), [foreign, home_arn(cloud)])


@pytest.mark.parametrize("target", [IN_LIST, AS_DEFAULT])
def test_renewals_take_no_write(cloud: Cloud, target: Listener) -> None:
    make(cloud)
    cloud.publish()
    cloud.settle(target)
    before = held(cloud)
    second = cloud.publish()
    with cloud.journal() as calls:
        assert cloud.settle(target) == {}
    assert writes(calls) == ["acm:ImportCertificate"]
    assert held(cloud) == before
    assert cloud.recorded(target).fingerprint == second.fingerprint


@pytest.mark.parametrize("target", [IN_LIST, AS_DEFAULT])
def test_a_new_arn_takes_the_old_ones_place(cloud: Cloud, target: Listener) -> None:
    first_default = make(cloud)
    foreign = resources.imported_certificate(["x.example.com"], region=REGION)
    list_(cloud, foreign)
    cloud.publish()
    cloud.settle(target)
    cloud.publish(key_type=KeyType.RSA_2048)
    cloud.deploy(HOME)
    with cloud.journal() as calls:
        cloud.deploy(target)
    new = home_arn(cloud)
    assert held(cloud) == (new if target.default else first_default, [foreign, new])
    modify = ["ModifyListener"] if target.default else []
    assert writes(calls) == [
        "AddListenerCertificates",
        *modify,
        "RemoveListenerCertificates",
    ]


def test_a_crash_before_the_removal_is_made_good(cloud: Cloud) -> None:
    make(cloud)
    cloud.publish()
    cloud.settle(AS_DEFAULT)
    old = home_arn(cloud)
    cloud.publish(key_type=KeyType.RSA_2048)
    cloud.deploy(HOME)
    cloud.refuse("RemoveListenerCertificates", "Whatever", "No.")
    assert AS_DEFAULT.address in cloud.settle(AS_DEFAULT)
    assert held(cloud) == (home_arn(cloud), [old, home_arn(cloud)])
    assert cloud.settle(AS_DEFAULT) == {}
    (step,) = [s for s in cloud.plan(AS_DEFAULT, reconcile=True) if s.target == AS_DEFAULT]
    assert step.action is Action.RETRY
    cloud.deploy(AS_DEFAULT)
    assert held(cloud) == (home_arn(cloud), [home_arn(cloud)])


def test_the_default_stays_where_the_file_no_longer_asks_for_it(cloud: Cloud) -> None:
    make(cloud)
    cloud.publish()
    cloud.settle(AS_DEFAULT)
    old = home_arn(cloud)
    cloud.publish()
    assert cloud.settle(IN_LIST) == {}
    assert held(cloud) == (old, [old])
    # It is ours, and would end where it is: with the import it goes.
    cloud.publish(key_type=KeyType.RSA_2048)
    assert cloud.settle(IN_LIST) == {}
    assert held(cloud) == (home_arn(cloud), [home_arn(cloud)])


def test_two_pipelines_share_a_listener(cloud: Cloud) -> None:
    default = make(cloud)
    for pipeline in ("shop", "mail"):
        cloud.publish(pipeline=pipeline)
        assert cloud.settle(IN_LIST, pipeline=pipeline) == {}
    both = [home_arn(cloud, "shop"), home_arn(cloud, "mail")]
    assert held(cloud) == (default, both)
    cloud.publish(pipeline="shop", key_type=KeyType.RSA_2048)
    assert cloud.settle(IN_LIST, pipeline="shop") == {}
    assert held(cloud) == (default, [both[1], home_arn(cloud, "shop")])


def test_a_listener_edited_by_hand_is_repaired(cloud: Cloud) -> None:
    default = make(cloud)
    cloud.publish()
    cloud.settle(AS_DEFAULT)
    cloud.client("elbv2").modify_listener(
        ListenerArn=ALB, Certificates=[{"CertificateArn": default}]
    )
    there = cloud.observe(AS_DEFAULT)
    assert there is not None
    assert there.fingerprint == ""
    cloud.deploy(AS_DEFAULT)
    assert held(cloud)[0] == home_arn(cloud)


@pytest.mark.parametrize("target", [IN_LIST, AS_DEFAULT])
@pytest.mark.parametrize("place", ["the list", "the default"])
def test_a_replaced_import_that_is_put_back_is_taken_out_again(
    cloud: Cloud, target: Listener, place: str
) -> None:
    """As Terraform does it, whose file has the old ARN."""
    make(cloud)
    cloud.publish()
    cloud.settle(target)
    old = home_arn(cloud)
    cloud.publish(key_type=KeyType.RSA_2048)
    assert cloud.settle(target) == {}
    if place == "the list":
        list_(cloud, old)
    else:
        cloud.client("elbv2").modify_listener(
            ListenerArn=ALB, Certificates=[{"CertificateArn": old}]
        )
    assert cloud.deploy(target).repaired == f"{old} was in its place"
    assert old not in {held(cloud)[0], *held(cloud)[1]}
    assert cloud.deploy(target).result is Result.UNCHANGED


def test_what_waits_for_its_wave_is_not_changed_by_hand(cloud: Cloud) -> None:
    make(cloud)
    cloud.publish()
    cloud.settle(IN_LIST)
    old = cloud.recorded(IN_LIST)
    cloud.publish(key_type=KeyType.RSA_2048)
    cloud.deploy(HOME)
    assert drift(old, cloud.observe(IN_LIST)) is None


def test_a_long_list_is_read_to_its_end(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.rules.elbv2.PAGE", 2)
    make(cloud)
    for number in range(5):
        name = f"{number}.example.com"
        list_(cloud, resources.imported_certificate([name], region=REGION))
    cloud.publish()
    cloud.settle(IN_LIST)
    there = cloud.observe(IN_LIST)
    assert there is not None
    assert there.resource == home_arn(cloud)


def test_a_full_load_balancer_is_said(cloud: Cloud) -> None:
    make(cloud)
    for number in range(25):
        name = f"{number}.example.com"
        list_(cloud, resources.imported_certificate([name], region=REGION))
    cloud.publish()
    (error,) = cloud.settle(IN_LIST).values()
    assert isinstance(error, TargetRefused)
    assert "no room" in str(error)
    assert not error.retryable
    assert len(held(cloud)[1]) == 25


def test_a_listener_that_is_not_there(cloud: Cloud) -> None:
    make(cloud)
    gone = Listener(listener=f"{LISTENERS}/app/shop/50dc6c495c0c9188/aaaaaaaaaaaaaaaa")
    cloud.publish()
    failures = cloud.settle(gone, IN_LIST)
    assert list(failures) == [gone.address]
    assert isinstance(failures[gone.address], TargetMissing)
    assert cloud.recorded(IN_LIST).state is State.DEPLOYED


@pytest.mark.parametrize(("arn", "protocol"), [(ALB, "HTTP"), (NLB, "TCP")])
def test_a_listener_without_tls(cloud: Cloud, arn: str, protocol: str) -> None:
    make(cloud, arn, protocol=protocol)
    cloud.publish()
    cloud.deploy(HOME)
    with cloud.journal() as calls, pytest.raises(TargetRefused, match=protocol):
        cloud.deploy(Listener(listener=arn))
    assert writes(calls) == []


def test_a_certificate_not_known_yet_is_tried_again(cloud: Cloud) -> None:
    make(cloud)
    cloud.publish()
    cloud.deploy(HOME)
    cloud.refuse("AddListenerCertificates", "CertificateNotFound")
    with pytest.raises(TargetRefused) as caught:
        cloud.deploy(IN_LIST)
    assert caught.value.retryable
    assert (cloud.recorded(IN_LIST).next_attempt or NOW) > NOW


def test_a_key_the_load_balancer_cannot_use(cloud: Cloud) -> None:
    make(cloud, NLB)
    cloud.publish(key_type=KeyType.RSA_4096)
    (error,) = cloud.settle(Listener(listener=NLB)).values()
    assert isinstance(error, TargetRefused)
    assert "key_type" in error.next


def test_what_its_arn_says() -> None:
    assert IN_LIST.key_types == set(KeyType)
    assert Listener(listener=NLB).key_types == set(KeyType) - {KeyType.RSA_4096}
    assert list(with_needs([Listener(listener=NLB, account="edge")])) == [
        "acm/edge:eu-central-1",
        "listener/net/mail/60dc6c495c0c9188/e2f7dc8efc522ab2",
    ]
    assert IN_LIST.claim is None
    assert AS_DEFAULT.claim == f"{AS_DEFAULT.address}/default"


@pytest.mark.parametrize(
    "arn",
    [
        "shop",
        ALB.replace("listener/", "loadbalancer/"),
        ALB.replace("/app/", "/gwy/"),
        f"{ALB}/9683b2d02a6cabee",
    ],
)
def test_what_is_no_listener(arn: str) -> None:
    with pytest.raises(ValidationError, match="not the ARN of a listener"):
        Listener(listener=arn)


# Where clients find it


def endpoints(cloud: Cloud, target: Listener) -> tuple[Endpoint, ...]:
    held = cloud.recorded(target).held
    assert held
    return held.endpoints


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (IN_LIST, ("shop.example.com", "certrail-check.shop.example.com")),
        # The default is for clients that ask for no name.
        (AS_DEFAULT, ("shop.example.com", "certrail-check.shop.example.com", "")),
    ],
)
def test_clients_are_looked_at_where_the_load_balancer_is(
    cloud: Cloud, target: Listener, names: tuple[str, ...]
) -> None:
    make(cloud)
    cloud.publish()
    cloud.settle(target)
    (balancer,) = cloud.client("elbv2").describe_load_balancers()["LoadBalancers"]
    assert endpoints(cloud, target) == (Endpoint(balancer["DNSName"], 443, names),)


@pytest.mark.parametrize(
    ("target", "more"),
    [(IN_LIST, {"internal": True}), (Listener(listener=ALB, verify=False), {})],
)
def test_where_nobody_can_look_there_is_no_check(
    cloud: Cloud, target: Listener, more: dict[str, Any]
) -> None:
    make(cloud, **more)
    cloud.publish()
    cloud.settle(target)
    assert endpoints(cloud, target) == ()
    assert cloud.recorded(target).check is None


def test_to_know_where_takes_two_calls_once_and_then_one(cloud: Cloud) -> None:
    make(cloud)
    cloud.publish()
    cloud.settle(HOME)
    with cloud.journal() as first:
        cloud.deploy(AS_DEFAULT)
    cloud.publish()
    cloud.settle(HOME)
    with cloud.journal() as renewal:
        cloud.deploy(AS_DEFAULT)
    with cloud.journal() as daily:
        cloud.deploy(AS_DEFAULT)
    with cloud.journal() as plan:
        cloud.observe(AS_DEFAULT)
    reads = {
        name: [call.action.removeprefix("elasticloadbalancing:Describe") for call in calls]
        for name, calls in {"renewal": renewal, "daily": daily, "plan": plan}.items()
    }
    assert reads == {
        "renewal": ["ListenerCertificates", "Listeners"],
        "daily": ["ListenerCertificates", "Listeners"],
        "plan": ["ListenerCertificates"],
    }
    assert [call.action for call in first].count("elasticloadbalancing:DescribeLoadBalancers") == 1


def test_verify_is_no_reason_to_deploy_where_the_file_says_nothing() -> None:
    assert Listener(listener=ALB).spec == Listener(listener=ALB, verify=True).spec
    assert Listener(listener=ALB).spec != Listener(listener=ALB, verify=False).spec
