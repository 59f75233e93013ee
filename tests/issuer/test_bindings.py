"""CAs that make accounts only for their customers: external account binding (RFC 8555, 7.3.4)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from certrail.errors import AcmeRefused, AwsError, CertrailError, IssueError, StateError
from certrail.pipelines.model import ExternalAccount
from certrail.pipelines.resolved import Pipeline
from certrail.store import account_key, order_key
from sandbox import Sandbox
from sandbox.pebble import Options, Pebble
from tests.issuer.conftest import ISSUER, REGION, World
from tests.issuer.situations import asking, at, document, proxied, told

Keep = Callable[[World, str], str]

KEY_ID = "kid-1"
# 32 bytes: both characters that base64url has of its own, and one `=` where it is padded.
MAC_KEY = "-_8gYmluZGluZyBrZXkgb2YgYSBjdXN0b21lciAtLS0"


@pytest.fixture(scope="module")
def strict(sandbox: Sandbox) -> Iterator[Pebble]:
    with Pebble(sandbox.dns, Options(account_bindings={KEY_ID: MAC_KEY})) as running:
        yield running


@pytest.fixture
def bound(world: World, strict: Pebble, monkeypatch: pytest.MonkeyPatch) -> World:
    return at(world, strict, monkeypatch)


def secret(world: World, text: str) -> str:
    answer = world.aws.secretsmanager(REGION).create_secret(Name="zerossl", SecretString=text)
    return answer["ARN"]


def parameter(world: World, text: str) -> str:
    world.aws.ssm(REGION).put_parameter(Name="/ca/zerossl", Value=text, Type="SecureString")
    return f"arn:aws:ssm:{REGION}:123456789012:parameter/ca/zerossl"


def binding(world: World, arn: str, key_id: str = KEY_ID) -> Pipeline[object]:
    return asking(world.pipeline(), external_account=ExternalAccount(key_id=key_id, secret=arn))


def failure(world: World, pipeline: Pipeline[object]) -> CertrailError:
    with pytest.raises(CertrailError) as caught:
        world.issue(pipeline)
    assert document(world.store, account_key(ISSUER))["uri"] is None
    return caught.value


@pytest.mark.parametrize("keep", [secret, parameter])
@pytest.mark.parametrize("text", [MAC_KEY, f"{MAC_KEY}=", f"{MAC_KEY}\n"])
def test_the_key_is_read_where_it_is_kept(bound: World, keep: Keep, text: str) -> None:
    current = bound.issue(binding(bound, keep(bound, text)))
    assert current is not None
    assert current.issued.account == document(bound.store, account_key(ISSUER))["uri"]


@pytest.mark.parametrize("keep", [secret, parameter])
def test_the_secret_is_needed_once(bound: World, keep: Keep) -> None:
    pipeline = binding(bound, keep(bound, MAC_KEY))
    assert bound.issue(pipeline) is not None
    if keep is secret:
        bound.aws.secretsmanager(REGION).delete_secret(
            SecretId="zerossl", ForceDeleteWithoutRecovery=True
        )
    else:
        bound.aws.ssm(REGION).delete_parameter(Name="/ca/zerossl")
    assert bound.issue(pipeline, asked=1) is not None


@pytest.mark.parametrize(
    ("mac_key", "key_id", "said"),
    [
        (MAC_KEY[::-1], KEY_ID, "external account"),
        (MAC_KEY, "kid-of-another", "not known to the acme server"),
    ],
)
def test_the_ca_refuses_the_binding(
    bound: World, caplog: pytest.LogCaptureFixture, mac_key: str, key_id: str, said: str
) -> None:
    caplog.set_level(logging.DEBUG)
    error = failure(bound, binding(bound, secret(bound, mac_key), key_id))
    assert isinstance(error, AcmeRefused)
    assert not error.retryable
    assert said in str(error).lower()
    assert "the CA refused to make an account" in str(error)
    everything = told(caplog, error, document(bound.store, order_key("shop")))
    assert mac_key not in everything


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "=",
        "not a key: three words!",
        # What the console's "key/value" makes of it.
        f'{{"mac_key": "{MAC_KEY}"}}',
        # base64, but not base64url.
        MAC_KEY.replace("-", "+").replace("_", "/"),
        f"{MAC_KEY[:20]} {MAC_KEY[20:]}",
        f"{MAC_KEY}ü",
        MAC_KEY[:-2],
    ],
)
def test_a_key_that_is_no_base64url(
    world: World,
    strict: Pebble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    with proxied(world, strict, tmp_path, monkeypatch) as (bound, proxy):
        arn = secret(bound, text)
        error = failure(bound, binding(bound, arn))
        assert [path for method, path in proxy.seen if method == "POST"] == []
    assert isinstance(error, StateError)
    assert not error.retryable
    assert "is not base64url" in str(error)
    assert arn in str(error)
    everything = told(caplog, error, document(bound.store, order_key("shop")))
    for word in [*text.split(" "), MAC_KEY[:20]]:
        assert len(word) < 6 or word not in everything


def test_no_binding_at_a_ca_that_wants_one(
    world: World, strict: Pebble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(world, strict, tmp_path, monkeypatch) as (bound, proxy):
        error = failure(bound, bound.pipeline())
        assert [path for method, path in proxy.seen if method == "POST"] == []
    assert isinstance(error, IssueError)
    assert not error.retryable
    assert "only with an external account binding" in error.what
    assert "external_account" in error.next


@pytest.mark.parametrize("service", ["secretsmanager", "ssm"])
def test_a_secret_that_is_not_there(bound: World, service: str) -> None:
    kind = "secret:gone-AbCdEf" if service == "secretsmanager" else "parameter/gone"
    arn = f"arn:aws:{service}:{REGION}:123456789012:{kind}"
    error = failure(bound, binding(bound, arn))
    assert isinstance(error, AwsError)
    assert not error.retryable
    assert arn in str(error)
    assert error.action in {"secretsmanager:GetSecretValue", "ssm:GetParameter"}
