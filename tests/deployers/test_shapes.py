"""The shapes that docs/targets/secretsmanager.md offers, on a real certificate."""

from __future__ import annotations

import json
import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from certrail.bundle import Bundle
from deployers.document import shaped
from deployers.kinds.parameterstore import Parameterstore
from deployers.kinds.secretsmanager import Secretsmanager
from tests.certrail.bundles import make_bundle
from tests.deployers.cloud import DOMAINS, REGION

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "targets" / "secretsmanager.md").read_text()
SECTION = PAGE.partition("## Shapes\n")[2].partition("\n## ")[0]
# By the first word of who reads it.
OFFERED = dict(re.findall(r"^\| ([A-Za-z]+)[^|]*\| `(.+?)` \|", SECTION, re.MULTILINE))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle(DOMAINS)


def made(bundle: Bundle, reader: str) -> Any:
    return shaped(bundle, OFFERED[reader], limit=65_536, where="here").reveal()


def test_these_are_offered() -> None:
    assert set(OFFERED) == {"nginx", "haproxy", "Kubernetes", "ECS", "Java"}


@pytest.mark.parametrize("reader", OFFERED)
def test_the_file_may_say_them(reader: str) -> None:
    shape = OFFERED[reader]
    assert Secretsmanager(name="tls/shop/bundle", region=REGION, shape=shape).shape == shape
    assert Parameterstore(name="/tls/shop/bundle", region=REGION, shape=shape).shape == shape


def test_nginx_gets_two_files(bundle: Bundle, tmp_path: Path) -> None:
    value = json.loads(made(bundle, "nginx"))
    assert value == {"crt": bundle.fullchain, "key": bundle.private_key.reveal()}
    crt, key = tmp_path / "crt", tmp_path / "key"
    crt.write_text(value["crt"])
    key.write_text(value["key"])
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(crt, key)


def test_haproxy_gets_the_chain_and_then_the_key(bundle: Bundle, tmp_path: Path) -> None:
    text = made(bundle, "haproxy")
    assert text == bundle.fullchain + bundle.private_key.reveal()
    assert re.findall("-----BEGIN (.+)-----", text) == ["CERTIFICATE", "CERTIFICATE", "PRIVATE KEY"]
    file = tmp_path / "pem"
    file.write_text(text)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(file)


def test_kubernetes_gets_the_keys_of_a_tls_secret(bundle: Bundle) -> None:
    value = json.loads(made(bundle, "Kubernetes"))
    assert value == {"tls.crt": bundle.fullchain, "tls.key": bundle.private_key.reveal()}


def test_ecs_finds_texts_by_their_keys(bundle: Bundle) -> None:
    """`valueFrom: <ARN>:<key>::` takes a key at the top whose value is a text.

    docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html
    """
    value = json.loads(made(bundle, "ECS"))
    assert value == {"TLS_CRT": bundle.fullchain, "TLS_KEY": bundle.private_key.reveal()}


def test_java_gets_leaf_and_intermediates_apart(bundle: Bundle) -> None:
    value = json.loads(made(bundle, "Java"))
    assert value["cert"] + value["ca"] == bundle.fullchain
