from __future__ import annotations

from datetime import timedelta

import pytest

from certrail.errors import PipelinesInvalid
from certrail.keys import KeyType
from certrail.pipelines import Opaque, Pipelines, load
from certrail.pipelines.authorities import AUTHORITIES, NO_LIMITS, Rate
from certrail.pipelines.model import Incoming, Validation
from certrail.pipelines.zones import zone_of
from tests.pipelines.kinds import AnyKind, Box, Edge, File, Vault

FULL = """\
issuers:
  one: {directory: "https://one.example/dir", email: ops@example.com, profile: short}
  two: {directory: "https://two.example/dir", key_type: rsa-2048}
accounts:
  edge: {role_arn: "arn:aws:iam::222222222222:role/certrail", external_id: abc}
defaults: {issuer: one, region: eu-central-1, key_type: ecdsa-p384}
pipelines:
  - name: shop
    domains: [shop.example.com, "*.Shop.example.com"]
    targets:
      - type: vault
      - {type: vault, region: us-east-1, account: edge}
      - {type: box, name: tls/shop, copies: [eu-west-1]}
  - name: site
    domains: [bücher.example]
    issuer: two
    profile: tlsserver
    targets:
      - {type: edge, site: E1}
  - name: kept
    domains: [kept.example.com]
    key_type: rsa-4096
"""


def test_defaults_are_filled_in() -> None:
    pipelines = load(FULL, "pipelines.yaml", File)
    shop, site, kept = pipelines.pipelines
    (one,) = shop.issuers
    assert (one.name, one.directory, one.profile) == ("one", "https://one.example/dir", "short")
    assert shop.key_type is KeyType.ECDSA_P384
    assert shop.domains == ("shop.example.com", "*.shop.example.com")
    assert shop.targets == (
        Vault(region="eu-central-1"),
        Vault(region="us-east-1", account="edge"),
        Box(name="tls/shop", region="eu-central-1", copies=("eu-west-1",)),
    )
    (two,) = site.issuers
    assert (two.name, two.profile, site.key_type) == ("two", "tlsserver", KeyType.RSA_2048)
    assert site.domains == ("xn--bcher-kva.example",)
    assert site.targets == (Edge(site="E1"),)
    assert (kept.key_type, kept.targets) == (KeyType.RSA_4096, ())
    assert pipelines.accounts["edge"].external_id == "abc"


MUCH = """\
issuers:
  le: {ca: letsencrypt, profile: tlsserver, preferred_chain: ISRG Root X1}
  raised: {ca: letsencrypt, limits: {orders: 600, certificates: 100}}
  zero:
    ca: zerossl
    external_account:
      key_id: kid-1
      secret: arn:aws:secretsmanager:eu-central-1:111111111111:secret:zerossl-AbCdEf
  acm:
    ca: aws-acm
    directory: https://acme.example/mine
    external_account: {key_id: k, secret: "arn:aws:ssm:eu-central-1:111111111111:parameter/mac"}
  own: {directory: "https://own.example/dir", validation: dns-persist-01}
accounts:
  dns: {role_arn: "arn:aws:iam::222222222222:role/certrail"}
zones:
  - {provider: route53, zone: Example.com, account: dns, zone_id: Z0123456789EXAMPLE}
  - provider: rfc2136
    zone: _acme-challenge.corp.example
    server: ns1.corp.example:5353
    key_name: certrail.
    key_secret: arn:aws:ssm:eu-central-1:111111111111:parameter/dns/tsig
  - provider: lexicon
    zone: bücher.example
    name: cloudflare
    credentials: arn:aws:secretsmanager:eu-central-1:111111111111:secret:dns-AbCdEf
defaults: {issuer: [le, zero], region: eu-central-1}
pipelines:
  - name: shop
    domains: [shop.example.com]
    key_type: [ecdsa-p256, rsa-2048]
    renew_before: 20 d
    targets:
      - {type: vault}
      - {type: box, name: tls/shop}
      - {type: vault, key_type: rsa-2048}
  - name: site
    domains: [site.example.com]
    issuer: [own, raised]
    renew_before: 36h
"""


def test_several_issuers_are_tried_in_their_order_each_with_its_own_settings() -> None:
    shop, _, site = load(MUCH, "pipelines.yaml", File).pipelines
    le, zero = shop.issuers
    assert (le.name, le.directory, le.profile, le.preferred_chain) == (
        "le",
        "https://acme-v02.api.letsencrypt.org/directory",
        "tlsserver",
        "ISRG Root X1",
    )
    assert (zero.name, zero.directory, zero.profile) == (
        "zero",
        "https://acme.zerossl.com/v2/DV90",
        None,
    )
    assert zero.external_account
    assert zero.external_account.key_id == "kid-1"
    assert [each.name for each in site.issuers] == ["own", "raised"]
    assert site.issuers[0].validation is Validation.DNS_PERSIST_01


def test_limits_are_the_known_ones_where_nothing_else_is_said() -> None:
    issuers = load(MUCH, "pipelines.yaml", File).issuers
    known = AUTHORITIES["letsencrypt"].limits
    assert issuers["le"].limits == known
    raised = issuers["raised"].limits
    assert raised.orders == Rate(600, timedelta(hours=3))
    assert raised.certificates == Rate(100, timedelta(days=7))
    assert (raised.duplicates, raised.failures) == (known.duplicates, known.failures)
    assert issuers["own"].limits == NO_LIMITS
    assert issuers["acm"].directory == "https://acme.example/mine"


def test_a_directory_that_is_known_has_its_limits_without_its_name() -> None:
    text = (
        "issuers: {one: {directory: 'https://acme-v02.api.letsencrypt.org/directory'}}\n"
        "pipelines: [{name: a, domains: [a.example.com]}]\n"
    )
    issuer = load(text, "pipelines.yaml", File).issuers["one"]
    assert issuer.limits == AUTHORITIES["letsencrypt"].limits


def test_each_key_type_has_a_certificate_and_its_targets() -> None:
    first, second, site = load(MUCH, "pipelines.yaml", File).pipelines
    assert [(each.name, each.entry, each.key_type) for each in (first, second)] == [
        ("shop", "shop", KeyType.ECDSA_P256),
        ("shop.rsa-2048", "shop", KeyType.RSA_2048),
    ]
    assert [target.type for target in first.targets] == ["vault", "box"]
    assert [target.type for target in second.targets] == ["vault"]
    assert first.renew_before == second.renew_before == timedelta(days=20)
    assert site.renew_before == timedelta(hours=36)
    assert site.key_type is KeyType.ECDSA_P256


def test_zones_are_found_by_the_longest_name() -> None:
    zones = load(MUCH, "pipelines.yaml", File).zones
    assert [each.zone for each in zones] == [
        "example.com",
        "_acme-challenge.corp.example",
        "xn--bcher-kva.example",
    ]
    assert zone_of("_acme-challenge.shop.example.com", zones) is zones[0]
    assert zone_of("_acme-challenge.corp.example", zones) is zones[1]
    assert zone_of("notexample.com", zones) is None


def test_pipelines_are_found_by_name() -> None:
    pipelines = load(FULL, "pipelines.yaml", File)
    assert pipelines.named("site") is pipelines.pipelines[1]
    assert pipelines.named("gone") is None


def test_the_only_issuer_and_p256_need_not_be_named() -> None:
    text = (
        "issuers: {one: {directory: 'https://one.example/dir'}}\n"
        "pipelines: [{name: a, domains: [a.example.com]}]\n"
    )
    (pipeline,) = load(text, "pipelines.yaml", File).pipelines
    (issuer,) = pipeline.issuers
    assert (issuer.name, pipeline.key_type) == ("one", KeyType.ECDSA_P256)
    assert issuer.email is None


def test_without_kinds_targets_are_taken_as_they_are() -> None:
    pipelines = load(FULL, "pipelines.yaml", Pipelines[Opaque])
    assert pipelines.pipelines[1].targets == ({"type": "edge", "site": "E1"},)
    text = FULL.replace("type: edge", "type: not-known-to-an-issuer")
    assert load(text, "pipelines.yaml", Pipelines[Opaque]).pipelines[1].domains


def test_one_kind_is_enough() -> None:
    text = (
        "issuers: {one: {directory: 'https://one.example/dir'}}\n"
        "pipelines: [{name: a, domains: [a.example.com], targets: [{type: edge, site: E1}]}]\n"
    )
    assert load(text, "pipelines.yaml", Pipelines[Edge]).pipelines[0].targets == (Edge(site="E1"),)


def test_bytes_are_utf_8() -> None:
    assert load(FULL.encode(), "pipelines.yaml", File) == load(FULL, "pipelines.yaml", File)
    assert load(b"\xef\xbb\xbf" + FULL.encode(), "p", File) == load(FULL, "p", File)


def test_the_faults_of_every_part_come_together() -> None:
    text = FULL.replace("https://one", "http://one").replace("site: E1", "site: x")
    text = text.replace("issuer: two", "issuer: too").replace("domains: [kept", "domains: [_kept")
    with pytest.raises(PipelinesInvalid) as caught:
        load(text, "pipelines.yaml", Pipelines[AnyKind])
    assert [fault.line for fault in caught.value.faults] == [2, 16, 19, 21]
    assert str(caught.value).startswith("4 faults in the pipelines file\n  pipelines.yaml:2: ")


def test_who_issues_elsewhere_needs_no_issuers() -> None:
    text = """
defaults: {issuer: incoming, key_type: rsa-2048}
pipelines:
  - {name: shop, domains: [shop.example.com]}
  - name: site
    domains: [site.example.com]
    key_type: [ecdsa-p256, rsa-3072]
    incoming: {password_secret: "arn:aws:ssm:eu-central-1:111111111111:parameter/p12"}
"""
    shop, site, rsa = load(text, "pipelines.yaml", File).pipelines
    assert shop.issuers == site.issuers == ()
    assert (shop.incoming, shop.key_type) == (Incoming(), KeyType.RSA_2048)
    assert site.incoming == rsa.incoming
    assert site.incoming
    assert site.incoming.password_secret
    assert (site.name, rsa.name) == ("site", "site.rsa-3072")


def test_what_is_issued_here_does_not_come_in() -> None:
    assert all(
        pipeline.incoming is None for pipeline in load(MUCH, "pipelines.yaml", File).pipelines
    )
