"""How many requests a certificate costs at the CA."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from issuer.account import Accounts
from sandbox import Sandbox
from sandbox.pebble import Options, Pebble
from tests.issuer.conftest import World
from tests.issuer.proxy import Answer, Proxy
from tests.issuer.situations import proxied

# Of a CA that takes longer than the first poll waits: nobody's fault, but no busy loop either.
UNFINISHED = 4


@pytest.fixture(scope="module", params=[0, 100], ids=["anew", "still valid"])
def polite(request: pytest.FixtureRequest, sandbox: Sandbox) -> Iterator[Pebble]:
    """It reuses none of the valid authorizations, or all."""
    with Pebble(sandbox.dns, Options(reuse=request.param)) as running:
        yield running


def counting(proxy: Proxy, patch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many requests there were since it was asked last, without the polls that the CA answered
    with an order it had not finished."""
    forward, unfinished = proxy.forward, list[str]()

    def watched(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        answer = forward(method, path, headers, body)
        if path.startswith("/my-order/") and answer.status == 200:
            status = json.loads(answer.body)["status"]
            if status in {"pending", "processing"}:
                unfinished.append(status)
        return answer

    def count() -> int:
        assert len(unfinished) <= UNFINISHED
        seen = len(proxy.seen) - len(unfinished)
        proxy.seen.clear()
        unfinished.clear()
        return seen

    patch.setattr(proxy, "forward", watched)
    return count


def test_requests_of_a_certificate(
    world: World,
    polite: Pebble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with proxied(world, polite, tmp_path, monkeypatch) as (there, proxy):
        count = counting(proxy, monkeypatch)
        process = Accounts(there.store, there.aws)
        assert there.issue(accounts=process) is not None
        first = count()
        other = there.pipeline(there.zone, name="other")
        assert there.issue(other, accounts=process) is not None
        warm = count()
        assert there.issue(there.pipeline(name="another")) is not None
        cold = count()
    reused = polite.options.reuse == 100
    with capsys.disabled():
        names = "a name still valid" if reused else "a fresh name"
        sys.stdout.write(
            f"\nrequests to the CA for a certificate of {names}: {warm} in a warm process, {cold} "
            f"in a cold one, {first} with a new account and a fresh name\n"
        )
    # newOrder, authorization, challenge, poll, finalize, poll, certificate.
    assert warm <= (5 if reused else 7)
    # And the directory and a nonce.
    assert cold <= (6 if reused else 9)
    assert first <= 10
