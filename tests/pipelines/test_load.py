from __future__ import annotations

import pytest

from certrail.errors import PipelinesInvalid
from certrail.keys import KeyType
from certrail.pipelines import Opaque, Pipelines, load
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
    assert (shop.issuer_name, shop.issuer.directory) == ("one", "https://one.example/dir")
    assert (shop.key_type, shop.profile) == (KeyType.ECDSA_P384, "short")
    assert shop.domains == ("shop.example.com", "*.shop.example.com")
    assert shop.targets == (
        Vault(region="eu-central-1"),
        Vault(region="us-east-1", account="edge"),
        Box(name="tls/shop", region="eu-central-1", copies=("eu-west-1",)),
    )
    assert (site.issuer_name, site.key_type, site.profile) == ("two", KeyType.RSA_2048, "tlsserver")
    assert site.domains == ("xn--bcher-kva.example",)
    assert site.targets == (Edge(site="E1"),)
    assert (kept.key_type, kept.targets) == (KeyType.RSA_4096, ())
    assert pipelines.accounts["edge"].external_id == "abc"


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
    assert (pipeline.issuer_name, pipeline.key_type) == ("one", KeyType.ECDSA_P256)
    assert pipeline.issuer.email is None


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
