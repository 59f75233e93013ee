"""One entry, a certificate for each key type."""

from __future__ import annotations

import pytest

from certrail.errors import PipelinesInvalid
from certrail.keys import KeyType
from certrail.pipelines import Opaque, Pipelines, load
from tests.pipelines.kinds import Box, File, Vault

FULL = """\
issuers:
  one: {directory: "https://one.example/dir"}
pipelines:
  - name: shop
    domains: [shop.example.com, "*.shop.example.com"]
    key_type: [ecdsa-p256, rsa-2048]
    targets:
      - {type: vault, region: eu-central-1}
      - {type: vault, region: us-east-1, key_type: rsa-2048}
      - {type: box, name: tls, region: eu-central-1, key_type: ecdsa-p256}
  - name: kept
    domains: [kept.example.com]
"""


def test_a_pipeline_for_each_key_type() -> None:
    file = load(FULL, "pipelines.yaml", File)
    shop, rsa, kept = file.pipelines
    assert [(each.name, each.entry, each.key_type) for each in (shop, rsa, kept)] == [
        ("shop", "shop", KeyType.ECDSA_P256),
        ("shop.rsa-2048", "shop", KeyType.RSA_2048),
        ("kept", "kept", KeyType.ECDSA_P256),
    ]
    assert shop.domains == rsa.domains
    assert shop.issuers == rsa.issuers
    assert file.named("shop.rsa-2048") is rsa


def test_a_target_belongs_to_the_first_or_to_the_one_it_names() -> None:
    shop, rsa, _ = load(FULL, "pipelines.yaml", File).pipelines
    assert shop.targets == (
        Vault(region="eu-central-1"),
        Box(name="tls", region="eu-central-1", key_type=KeyType.ECDSA_P256),
    )
    assert rsa.targets == (Vault(region="us-east-1", key_type=KeyType.RSA_2048),)


def test_the_first_of_the_list_has_the_entrys_name() -> None:
    text = FULL.replace("[ecdsa-p256, rsa-2048]", "[rsa-2048, ecdsa-p256]")
    rsa, ecdsa, _ = load(text, "pipelines.yaml", File).pipelines
    assert (rsa.name, rsa.key_type) == ("shop", KeyType.RSA_2048)
    assert (ecdsa.name, ecdsa.key_type) == ("shop.ecdsa-p256", KeyType.ECDSA_P256)
    assert Vault(region="eu-central-1") in rsa.targets


def test_one_key_type_in_a_list_is_one_pipeline() -> None:
    text = FULL.replace("[ecdsa-p256, rsa-2048]", "[rsa-2048]").replace(
        ", key_type: ecdsa-p256", ""
    )
    shop, _ = load(text, "pipelines.yaml", File).pipelines
    assert (shop.name, shop.key_type, len(shop.targets)) == ("shop", KeyType.RSA_2048, 3)


def test_an_issuer_has_the_same_pipelines_without_the_targets() -> None:
    both = load(FULL, "pipelines.yaml", File)
    opaque = load(FULL, "pipelines.yaml", Pipelines[Opaque])
    assert [(each.name, each.key_type) for each in opaque.pipelines] == [
        (each.name, each.key_type) for each in both.pipelines
    ]


def test_a_target_with_a_key_that_the_pipeline_does_not_have() -> None:
    text = FULL.replace("us-east-1, key_type: rsa-2048", "us-east-1, key_type: rsa-4096")
    with pytest.raises(PipelinesInvalid) as caught:
        load(text, "pipelines.yaml", File)
    assert [fault.line for fault in caught.value.faults] == [9]
    assert "rsa-4096" in str(caught.value)


def test_a_name_that_another_entry_gets_by_its_key_type() -> None:
    text = FULL.replace("name: kept", "name: shop.rsa-2048")
    with pytest.raises(PipelinesInvalid) as caught:
        load(text, "pipelines.yaml", File)
    assert [fault.line for fault in caught.value.faults] == [11]
    assert "shop.rsa-2048" in str(caught.value)
