"""Preflight: the way is known before the first write, and it is the one that AWS allows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from moto.acm.exceptions import AWSValidationException
from moto.acm.models import CertBundle

from certrail.bundle import Facts
from certrail.keys import API_GATEWAY, CLOUDFRONT, NLB, KeyType
from certrail.target import Preflight, Rotation, Succession
from deployers.kinds import acm
from deployers.preflight import CLOUDFRONT_LAG, Import, User, decide, must_know_users, refusals
from issuer.checks import facts
from sandbox.rules.acm import describe, may_replace
from tests.certrail.bundles import NOW, make_bundle
from tests.deployers.cloud import ACCOUNT, REGION
from tests.sandbox.rules.issuance import Authority, Issued, usages

FACTS = make_bundle(["shop.example.com", "www.example.com"]).facts
EDGE = f"arn:aws:cloudfront::{ACCOUNT}:distribution/E1"
PRESENT = Import(
    arn=f"arn:aws:acm:us-east-1:{ACCOUNT}:certificate/1",
    algorithm="EC_prime256v1",
    key_usages=frozenset({"DIGITAL_SIGNATURE"}),
    extended_key_usages=frozenset({"TLS_WEB_SERVER_AUTHENTICATION"}),
    names=frozenset(FACTS.domains),
    not_after=NOW + timedelta(days=20),
    in_use_by=(EDGE,),
)
DISTRIBUTION = User(
    "cloudfront/E1",
    {"type": "cloudfront", "distribution": "E1"},
    names=("shop.example.com",),
    key_types=CLOUDFRONT,
)
BALANCER = User("listener/net/a/b", {"type": "listener"}, key_types=NLB)
APPSYNC = User("a distribution of AWS's own", stuck="nobody can move it", names=None)


def way(
    present: Import = PRESENT,
    bundle: Facts = FACTS,
    users: Sequence[User] = (DISTRIBUTION,),
    **changes: Any,
) -> Preflight:
    given = {"rotation": Rotation.IN_PLACE, "now": NOW, "adopted": False, "chained": True}
    return decide(present, bundle, users, **{**given, **changes})


# What AWS allows


AUTHORITY = Authority()
ISSUED: list[Issued] = [
    AUTHORITY.issue(*names, key=key, usage=usage, extended=extended)
    for key, names, usage, extended in itertools.product(
        ["EC_prime256v1", "EC_secp384r1", "RSA_2048"],
        [["a.example.com", "b.example.com"], ["a.example.com"], ["c.example.com"]],
        [
            usages("digital_signature"),
            usages("digital_signature", "key_encipherment"),
            usages("digital_signature", "key_agreement"),
        ],
        [
            [ExtendedKeyUsageOID.SERVER_AUTH],
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING],
        ],
    )
]
TYPES = {
    "EC_prime256v1": KeyType.ECDSA_P256,
    "EC_secp384r1": KeyType.ECDSA_P384,
    "RSA_2048": KeyType.RSA_2048,
}


def test_in_place_is_what_acm_would_take() -> None:
    """Each of 81 certificates in the place of each other: preflight says what the rules say."""
    bundles = [
        CertBundle(ACCOUNT, each.certificate, each.private_key, chain=each.chain, region=REGION)
        for each in ISSUED
    ]
    presents = [acm._read(boto_like(bundle)) for bundle in bundles]
    known = [
        facts(each.parsed, TYPES[present.algorithm])
        for each, present in zip(ISSUED, presents, strict=True)
    ]
    differ = [
        (before, after)
        for before, after in itertools.product(range(len(bundles)), repeat=2)
        if taken(bundles[before], bundles[after]) is any(refusals(presents[before], known[after]))
    ]
    assert differ == []


def boto_like(bundle: CertBundle) -> Any:
    return {**describe(bundle)["Certificate"], "NotAfter": NOW}


def taken(present: CertBundle, new: CertBundle) -> bool:
    try:
        may_replace(present, new)
    except AWSValidationException:
        return False
    return True


def test_a_plain_renewal_asks_nobody_and_is_in_place() -> None:
    assert not must_know_users(PRESENT, FACTS, Rotation.IN_PLACE, NOW)
    assert way(users=()) == Preflight(Succession.IN_PLACE)


@pytest.mark.parametrize(
    ("present", "bundle", "rotation"),
    [
        (replace(PRESENT, algorithm="RSA_2048"), FACTS, Rotation.IN_PLACE),
        (replace(PRESENT, names=PRESENT.names | {"api.example.com"}), FACTS, Rotation.IN_PLACE),
        (replace(PRESENT, not_after=NOW + timedelta(hours=23)), FACTS, Rotation.IN_PLACE),
        (PRESENT, FACTS, Rotation.REPLACE),
    ],
    ids=["key", "name", "little time", "asked for"],
)
def test_who_uses_it_is_asked_where_it_matters(
    present: Import, bundle: Facts, rotation: Rotation
) -> None:
    assert must_know_users(present, bundle, rotation, NOW)
    unused = replace(present, in_use_by=())
    assert not must_know_users(unused, bundle, rotation, NOW)


# The ways


def test_what_aws_refuses_is_a_new_arn_and_everybody_moves() -> None:
    found = way(replace(PRESENT, algorithm="RSA_2048"), users=[DISTRIBUTION, BALANCER])
    assert found.way is Succession.REPLACE
    assert found.reasons == ("the key would change from RSA_2048 to EC_prime256v1",)
    assert [(mover.job["type"], mover.stays) for mover in found.movers] == [
        ("cloudfront", ""),
        ("listener", ""),
    ]


def test_a_name_that_is_served_is_not_lost_and_one_that_is_not_may_go() -> None:
    wider = replace(PRESENT, names=PRESENT.names | {"api.example.com"})
    assert way(wider).way is Succession.IN_PLACE
    serving = replace(DISTRIBUTION, names=("shop.example.com", "api.example.com"))
    found = way(wider, users=[serving, BALANCER])
    assert found.way is Succession.REPLACE
    assert found.reasons == ("api.example.com would be lost, and cloudfront/E1 serves it",)
    assert [mover.stays for mover in found.movers] == [
        "the certificate does not cover api.example.com",
        "",
    ]


def test_a_name_that_was_never_covered_is_not_lost_now() -> None:
    wrong = replace(DISTRIBUTION, names=("shop.example.com", "never.example.net"))
    wider = replace(PRESENT, names=PRESENT.names | {"api.example.com"})
    assert way(wider, users=[wrong]).way is Succession.IN_PLACE


@pytest.mark.parametrize(
    ("key_type", "stay"),
    [
        (KeyType.RSA_2048, []),
        (KeyType.RSA_3072, ["apigateway"]),
        (KeyType.RSA_4096, ["apigateway", "cloudfront", "listener"]),
        (KeyType.ECDSA_P384, ["apigateway", "cloudfront"]),
    ],
)
def test_who_cannot_serve_the_key_stays(key_type: KeyType, stay: list[str]) -> None:
    gateway = User("apigateway/x", {"type": "apigateway"}, key_types=API_GATEWAY)
    found = way(bundle=replace(FACTS, key_type=key_type), users=[gateway, DISTRIBUTION, BALANCER])
    assert found.way is Succession.REPLACE
    kept = {mover.job["type"]: mover.stays for mover in found.movers if mover.stays}
    assert kept == dict.fromkeys(stay, f"it cannot serve {key_type} keys")


def test_who_cannot_follow_for_a_reason_of_its_own_stays() -> None:
    found = way(
        users=[replace(DISTRIBUTION, stays="a reason"), BALANCER], rotation=Rotation.REPLACE
    )
    assert found.way is Succession.REPLACE
    assert [mover.stays for mover in found.movers] == ["a reason", ""]


@pytest.mark.parametrize(
    ("present", "rotation"),
    [(replace(PRESENT, algorithm="RSA_2048"), Rotation.IN_PLACE), (PRESENT, Rotation.REPLACE)],
)
def test_what_cannot_be_moved_holds_it(present: Import, rotation: Rotation) -> None:
    found = way(present, users=[DISTRIBUTION, APPSYNC], rotation=rotation)
    assert found.way is Succession.REFUSED
    assert found.reasons[-1] == (
        "a distribution of AWS's own would stay behind: nobody can move it"
    )
    assert found.movers == ()


def test_what_may_serve_a_lost_name_holds_it() -> None:
    wider = replace(PRESENT, names=PRESENT.names | {"api.example.com"})
    assert way(wider, users=[APPSYNC]).way is Succession.REFUSED


def test_an_adopted_import_is_never_left() -> None:
    found = way(replace(PRESENT, algorithm="RSA_2048"), adopted=True)
    assert found.way is Succession.REFUSED
    assert "certificate_arn" in found.reasons[-1]
    assert way(adopted=True).way is Succession.IN_PLACE


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (CLOUDFRONT_LAG, Succession.IN_PLACE),
        (CLOUDFRONT_LAG - timedelta(seconds=1), Succession.REPLACE),
        (-timedelta(days=1), Succession.REPLACE),
    ],
)
def test_with_little_time_cloudfront_gets_a_new_arn(left: timedelta, expected: Succession) -> None:
    late = replace(PRESENT, not_after=NOW + left)
    assert way(late).way is expected
    elsewhere = (f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:loadbalancer/app/a/1",)
    assert way(replace(late, in_use_by=elsewhere), users=[BALANCER]).way is Succession.IN_PLACE


@pytest.mark.parametrize("held", [{"adopted": True}, {"users": [DISTRIBUTION, APPSYNC]}])
def test_with_little_time_late_is_better_than_never(held: dict[str, Any]) -> None:
    late = replace(PRESENT, not_after=NOW + timedelta(hours=1))
    found = way(late, **held)
    assert found.way is Succession.IN_PLACE
    assert len(found.reasons) == 2
    assert "for a day after a reimport" in found.reasons[0]


def test_cloudfront_takes_nothing_without_its_chain() -> None:
    assert way(chained=False).way is Succession.REFUSED
    assert way(replace(PRESENT, in_use_by=()), users=(), chained=False).way is Succession.IN_PLACE
