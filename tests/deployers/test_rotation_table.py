"""Every way of a rotation, with a client that connects all the time: the table of bench/rotation.

All 320 combinations take minutes, and are run by `python -m bench.rotation`; here is each reason
for each user once, and some of their mixtures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bench.rotation import CASES, DISTRIBUTION, KEPT, Case, User, World, bundle_after
from certrail.keys import KeyType
from certrail.target import Endpoint, Rotation, Succession
from sandbox.propagation import propagation
from sandbox.visitor import Visitor

EC, RSA = KeyType.ECDSA_P256, KeyType.RSA_2048
# Users whose names certrail can know.
NAMED = {User.CLOUDFRONT, User.API_GATEWAY}


def plain(user: User) -> Case:
    return Case(EC, EC, False, False, False, user, Rotation.IN_PLACE)


SOME = [
    *(plain(user) for user in User),
    *(replace(plain(user), rotation=Rotation.REPLACE) for user in User),
    *(replace(plain(user), name_lost=True) for user in User),
    *(replace(plain(user), after=RSA) for user in User),
    *(replace(plain(user), usage_lost=True) for user in (User.CLOUDFRONT, User.NLB)),
    *(replace(plain(user), extended_lost=True) for user in (User.ALB, User.API_GATEWAY)),
    Case(RSA, EC, False, False, False, User.NLB, Rotation.IN_PLACE),
    Case(RSA, RSA, True, False, False, User.ALB, Rotation.IN_PLACE),
    Case(RSA, EC, True, True, True, User.CLOUDFRONT, Rotation.REPLACE),
]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as made:
        yield made


def told(case: Case) -> str:
    user = f"{case.user}-{case.rotation}-{case.before}-{case.after}"
    lost = [what for what in ("usage_lost", "extended_lost", "name_lost") if getattr(case, what)]
    return "-".join([user, *lost]).replace(" ", "")


@pytest.mark.parametrize("case", SOME, ids=told)
def test_nobody_is_ever_without_a_valid_certificate(world: World, case: Case) -> None:
    outcome = world.rotate(case)

    assert outcome.wrong == ()
    used = case.user is not User.NOTHING
    assert (outcome.visits > 0) is used
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
    assert set(SOME) < set(CASES)


def test_the_client_sees_what_certrail_avoids(world: World) -> None:
    """What AWS lets pass: a reimport that loses a name which a distribution serves."""
    case = replace(plain(User.CLOUDFRONT), name_lost=True)
    world.rotate(plain(User.CLOUDFRONT))
    cloudfront = world.client("cloudfront")
    there = cloudfront.get_distribution(Id=DISTRIBUTION)["Distribution"]
    arn = there["DistributionConfig"]["ViewerCertificate"]["ACMCertificateArn"]
    endpoint = Endpoint(there["DomainName"], 443, (KEPT, "api.example.com"))
    bundle = bundle_after(case)
    propagation.reset()
    with Visitor(world.edge.address, world.nameserver.address, [endpoint]) as visitor:
        world.client("acm", "us-east-1").import_certificate(
            CertificateArn=arn,
            Certificate=bundle.certificate.encode(),
            PrivateKey=bundle.private_key.reveal().encode(),
            CertificateChain=bundle.chain.encode(),
        )
        visitor.a_round()
    assert {visit.server_name for visit in visitor.wrong} == {"api.example.com"}
