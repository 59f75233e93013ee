"""Every way of a rotation, and what clients can get at every instant: the table of bench/rotation.

All 320 combinations take minutes (`make rotations`); always run are each reason for each user, and
some of their mixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench.rotation import (
    AT_ONCE,
    CASES,
    DELAYS,
    DISTRIBUTION,
    KEPT,
    OTHER,
    Case,
    Clock,
    User,
    World,
    bundle_after,
    main,
)
from certrail.errors import CertrailError
from certrail.keys import KeyType
from certrail.target import Rotation, Succession
from deployers.kinds.acm import Acm
from sandbox import resources
from sandbox.propagation import Delay, Service

EC, RSA = KeyType.ECDSA_P256, KeyType.RSA_2048
# Users whose names certrail can know.
NAMED = {User.CLOUDFRONT, User.API_GATEWAY}

Delays = Mapping[Service, Delay]
with_and_without_delays = pytest.mark.parametrize(
    "delays", [DELAYS, AT_ONCE], ids=["late", "at-once"]
)


def plain(user: User) -> Case:
    return Case(EC, EC, False, False, False, user, Rotation.IN_PLACE)


SOME = {
    *(plain(user) for user in User),
    *(replace(plain(user), rotation=Rotation.REPLACE) for user in User),
    *(replace(plain(user), name_lost=True) for user in User),
    *(replace(plain(user), after=RSA) for user in User),
    *(replace(plain(user), usage_lost=True) for user in (User.CLOUDFRONT, User.NLB)),
    *(replace(plain(user), extended_lost=True) for user in (User.ALB, User.API_GATEWAY)),
    Case(RSA, EC, False, False, False, User.NLB, Rotation.IN_PLACE),
    Case(RSA, RSA, True, False, False, User.ALB, Rotation.IN_PLACE),
    Case(RSA, EC, True, True, True, User.CLOUDFRONT, Rotation.REPLACE),
}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as made:
        yield made


def told(case: Case) -> str:
    user = f"{case.user}-{case.rotation}-{case.before}-{case.after}"
    lost = [what for what in ("usage_lost", "extended_lost", "name_lost") if getattr(case, what)]
    return "-".join([user, *lost]).replace(" ", "")


@with_and_without_delays
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=told(case), marks=() if case in SOME else pytest.mark.thorough)
        for case in CASES
    ],
)
def test_nobody_is_ever_without_a_valid_certificate(
    world: World, case: Case, delays: Delays
) -> None:
    outcome = world.rotate(case, delays)

    assert outcome.wrong == ()
    used = case.user is not User.NOTHING
    assert (outcome.visits > 0) is (outcome.instants > 0) is used
    # What a table in the documentation says, once more and in other words (docs/targets/acm.md).
    loses_a_name = case.name_lost and case.user in NAMED
    replaced = (
        case.before is not case.after
        or case.usage_lost
        or case.extended_lost
        or loses_a_name
        or case.rotation is Rotation.REPLACE
    )
    assert outcome.preflight.way is (Succession.REPLACE if replaced else Succession.IN_PLACE)
    assert outcome.arns == 1 + replaced
    assert outcome.retired is (replaced and not loses_a_name)
    assert ("does not cover api.example.com" in outcome.stays) is loses_a_name
    if used:
        assert outcome.serves == ("old" if loses_a_name else "new")


def test_the_table_has_all_combinations() -> None:
    assert len(set(CASES)) == len(CASES) == 2**3 * 2 * 2 * 5 * 2
    assert set(CASES) > SOME


def test_the_bench_prints_a_row_for_each_combination(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([plain(User.NLB)]) == 0
    said = capsys.readouterr().out
    assert "| kept | kept | kept | NLB | in-place | in place |" in said
    assert "1 combinations, each with AWS's delays and without" in said
    assert " 0 without a valid certificate" in said


# What the table is for must show in it: the same runs, with somebody who does it wrong.


class Wrong(World):
    """Does something else before what certrail does, and leaves nothing of it behind."""

    wrongly: Callable[[World, Case, str], None]

    def settle(
        self, home: Acm, case: Case, clock: Clock, *, reconcile: bool = False
    ) -> list[CertrailError]:
        if not reconcile and self._records(home):
            self.wrongly(self, case, self.resource(home))
        return super().settle(home, case, clock, reconcile=reconcile)


@pytest.fixture(scope="module")
def wrong() -> Iterator[Wrong]:
    with Wrong() as made:
        yield made


def empties_the_list_first(world: World, case: Case, old: str) -> None:
    elb = world.client("elbv2")
    (balancer,) = elb.describe_load_balancers()["LoadBalancers"]
    (listener,) = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    arn = listener["ListenerArn"]
    foreign = resources.imported_certificate(["other.example.net"], region=case.region)
    ours: Any = [{"CertificateArn": old}]
    elb.modify_listener(ListenerArn=arn, Certificates=[{"CertificateArn": foreign}])
    elb.remove_listener_certificates(ListenerArn=arn, Certificates=ours)
    elb.add_listener_certificates(ListenerArn=arn, Certificates=ours)
    elb.modify_listener(ListenerArn=arn, Certificates=ours)


def points_elsewhere_first(world: World, case: Case, old: str) -> None:
    foreign = resources.imported_certificate([KEPT, OTHER], region=case.region)
    client = world.client("cloudfront")
    for arn in (foreign, old):
        there = client.get_distribution_config(Id=DISTRIBUTION)
        config = there["DistributionConfig"]
        viewer = {
            "ACMCertificateArn": arn,
            "SSLSupportMethod": "sni-only",
            "MinimumProtocolVersion": "TLSv1.2_2021",
        }
        client.update_distribution(
            Id=DISTRIBUTION,
            IfMatch=there["ETag"],
            DistributionConfig={**config, "ViewerCertificate": viewer},
        )


@with_and_without_delays
@pytest.mark.parametrize(
    ("user", "wrongly", "names"),
    [
        (User.ALB, empties_the_list_first, {KEPT, OTHER, ""}),
        (User.NLB, empties_the_list_first, {KEPT, OTHER, ""}),
        (User.CLOUDFRONT, points_elsewhere_first, {KEPT, OTHER}),
    ],
)
def test_a_gap_between_two_calls_shows(
    wrong: Wrong,
    user: User,
    wrongly: Callable[[World, Case, str], None],
    names: set[str],
    delays: Delays,
) -> None:
    wrong.wrongly = staticmethod(wrongly)
    outcome = wrong.rotate(plain(user), delays)
    assert outcome.serves == "new"
    assert {visit.server_name for visit in outcome.wrong} == names
    # At every address, each of which gets it at its own time.
    assert len({visit.address for visit in outcome.wrong}) >= 2


@with_and_without_delays
def test_a_reimport_that_loses_a_name_shows(wrong: Wrong, delays: Delays) -> None:
    """AWS lets it pass, also where a distribution serves the name."""
    case = replace(plain(User.CLOUDFRONT), name_lost=True)
    before, after = bundle_after(replace(case, name_lost=False)), bundle_after(case)

    def reimports(world: World, case: Case, old: str) -> None:
        for bundle in (after, before):
            world.client("acm", case.region).import_certificate(
                CertificateArn=old,
                Certificate=bundle.certificate.encode(),
                PrivateKey=bundle.private_key.reveal().encode(),
                CertificateChain=bundle.chain.encode(),
            )

    wrong.wrongly = staticmethod(reimports)
    outcome = wrong.rotate(case, delays)
    assert {visit.server_name for visit in outcome.wrong} == {OTHER}
