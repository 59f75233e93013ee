"""A CA that is busy, forgetful or gone, and an AWS that says no: a proxy in front of each."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from certrail.errors import AccessDenied, AcmeRefused, AwsError, CertrailError
from certrail.keys import KeyType
from certrail.pipelines.authorities import AUTHORITIES
from certrail.pipelines.resolved import Issuer
from certrail.store import budget_key, renewal_key
from issuer import lease
from issuer.acme import PATIENCE, Unreachable
from issuer.clock import Clock
from issuer.due import Why
from issuer.survey import survey
from sandbox.calls import Call
from sandbox.pebble import Pebble
from sandbox.server import Server
from tests.issuer.conftest import ISSUER, World, within
from tests.issuer.proxy import Answer, Proxy, once, problem


@pytest.mark.parametrize("part", ["sign-me-up", "order-plz", "authZ", "chalZ", "finalize", "certZ"])
def test_every_step_survives_a_busy_ca(proxied: World, proxy: Proxy, part: str) -> None:
    proxy.instead = once(part, Answer(503, {"Retry-After": "0"}, b"<html>busy</html>"), times=2)
    assert proxied.issue() is not None
    assert proxied.texts() == []


@pytest.mark.parametrize("part", ["sign-me-up", "order-plz", "authZ", "chalZ", "finalize", "certZ"])
def test_every_step_survives_a_lost_answer(proxied: World, proxy: Proxy, part: str) -> None:
    """The CA has done it, and the connection breaks before it can say so."""
    proxy.after = once(part, Answer(0))
    current = proxied.issue()
    assert current is not None
    assert current.generation == 1
    assert proxied.texts() == []


def test_five_bad_nonces_in_a_row(proxied: World, proxy: Proxy) -> None:
    proxy.instead = once("order-plz", problem(400, "badNonce", "no"), times=5)
    assert proxied.issue() is not None


def test_nothing_but_bad_nonces(proxied: World, proxy: Proxy) -> None:
    proxy.instead = once("order-plz", problem(400, "badNonce", "no"), times=10**4)
    with pytest.raises(Exception, match="time allowed"):
        proxied.issue(clock=within(2))
    assert len(proxy.seen) < 60


@pytest.mark.parametrize("by_date", [False, True])
def test_retry_after_is_waited_for(proxied: World, proxy: Proxy, by_date: bool) -> None:
    # Half a second is added to what a date, in whole seconds, may round away.
    moment = datetime.now(UTC) + timedelta(seconds=2.5)
    header = format_datetime(moment, usegmt=True) if by_date else "2"
    proxy.instead = once("order-plz", problem(429, "rateLimited", "slowly", Retry_After=header))
    started = time.monotonic()
    assert proxied.issue() is not None
    assert time.monotonic() - started > 1.4


def test_an_order_that_is_processing_after_finalize(
    proxied: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let's Encrypt issues after it has answered, and says when to ask."""
    forward, asked = proxy.forward, list[float]()

    def slow(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        answer = forward(method, path, headers, body)
        about_it = "finalize" in path or ("my-order" in path and asked)
        if not about_it or answer.status != 200:
            return answer
        asked.append(time.monotonic())
        if len(asked) > 2:
            return answer
        order = {**json.loads(answer.body), "status": "processing"}
        order.pop("certificate", None)
        return Answer(200, answer.headers | {"Retry-After": "1"}, json.dumps(order).encode())

    monkeypatch.setattr(proxy, "forward", slow)
    assert proxied.issue() is not None
    first, second, third = asked[:3]
    assert second - first >= 1
    assert third - second >= 1


def test_a_rate_limit_longer_than_the_run(proxied: World, proxy: Proxy) -> None:
    answer = problem(429, "rateLimited", "too many certificates already issued", Retry_After="7200")
    proxy.instead = once("order-plz", answer, times=10**4)
    started = datetime.now(UTC)
    with pytest.raises(AcmeRefused, match="too many certificates already issued") as caught:
        proxied.issue()
    assert caught.value.type == "rateLimited"
    assert caught.value.retryable
    progress = lease.read(proxied.store, "shop")
    assert progress is not None
    assert progress.next_attempt is not None
    # The CA's moment, not the schedule's one minute. One request, not one a second.
    assert progress.next_attempt >= started + timedelta(seconds=7200)
    assert sum("order-plz" in path for _, path in proxy.seen) <= 10


def test_patience_with_a_ca_that_is_down(proxied: World, proxy: Proxy) -> None:
    """Tried again for two minutes, not for the fifteen that a function has."""
    proxy.instead = lambda method, path: Answer(502)
    moment = datetime.now(UTC)
    started = moment

    def sleep(seconds: float) -> None:
        nonlocal moment
        moment += timedelta(seconds=seconds)

    clock = Clock(lambda: moment, sleep, moment + timedelta(minutes=15))
    with pytest.raises(AcmeRefused, match="HTTP 502") as caught:
        proxied.issue(clock=clock)
    assert caught.value.retryable
    assert PATIENCE <= moment - started < 1.2 * PATIENCE


def test_a_ca_that_hangs_up(proxied: World, proxy: Proxy) -> None:
    proxy.instead = lambda method, path: Answer(0)
    with pytest.raises(Unreachable, match="gave no answer when asked to show its directory"):
        proxied.issue(clock=within(1))


def test_an_answer_that_makes_no_sense(proxied: World, proxy: Proxy) -> None:
    headers = {"Location": "x", "Replay-Nonce": "eA"}
    proxy.after = once("order-plz", Answer(201, headers, b"[]"))
    with pytest.raises(Unreachable, match="makes no sense"):
        proxied.issue()
    assert proxied.texts() == []


def test_an_invalid_authorization_that_says_nothing(proxied: World, proxy: Proxy) -> None:
    order = b"""{"status": "invalid", "identifiers": [], "finalize": "", "authorizations":
        ["https://localhost:%d/authZ/1"]}""" % (proxy.port,)
    silent = b"""{"status": "invalid", "identifier": {"type": "dns", "value": "x.example"},
        "challenges": [{"type": "dns-01", "status": "invalid", "url": "u",
        "token": "dG9rZW4tdG9rZW4tdG9rZW4"}]}"""
    nonce = {"Replay-Nonce": "eA", "Location": f"https://localhost:{proxy.port}/my-order/1"}

    def fault(method: str, path: str) -> Answer | None:
        if path == "/order-plz":
            return Answer(201, nonce, order)
        return Answer(200, nonce, silent) if path == "/authZ/1" else None

    proxy.instead = fault
    with pytest.raises(AcmeRefused, match=r"x\.example is invalid: it gave no reason"):
        proxied.issue()


def test_subproblems_are_told_by_name(proxied: World, proxy: Proxy) -> None:
    body = {
        "type": "urn:ietf:params:acme:error:compound",
        "detail": "two things",
        "subproblems": [
            {
                "type": f"urn:ietf:params:acme:error:{kind}",
                "detail": detail,
                "identifier": {"type": "dns", "value": name},
            }
            for kind, detail, name in (
                ("caa", "CAA forbids it", "a.example"),
                ("rejectedIdentifier", "we do not like it", "b.example"),
            )
        ],
    }
    answer = Answer(403, {"Content-Type": "application/problem+json"}, json.dumps(body).encode())
    proxy.instead = once("order-plz", answer)
    with pytest.raises(AcmeRefused) as caught:
        proxied.issue()
    assert (
        "two things (compound); a.example: CAA forbids it (caa); b.example: we do not like it"
        in (str(caught.value))
    )


def test_what_a_certificate_costs(proxied: World, proxy: Proxy) -> None:
    """Requests to the CA that are not polls and not Pebble's bad nonces."""
    assert proxied.issue() is not None
    sent = {path.split("/")[1] for _, path in proxy.seen}
    assert sent == {
        "dir", "nonce-plz", "sign-me-up", "order-plz", "authZ", "chalZ", "my-order",
        "finalize-order", "certZ",
    }  # fmt: skip


@pytest.mark.parametrize(
    "action",
    ["route53:ListHostedZones", "route53:ChangeResourceRecordSets", "route53:GetChange"],
)
def test_route_53_denies(world: World, server: Server, action: str) -> None:
    with server.refuse(action, "AccessDenied"), pytest.raises(AccessDenied) as caught:
        world.issue()
    assert caught.value.action == action
    assert f"Allow {action}" in str(caught.value)
    assert not caught.value.retryable
    assert world.texts() == []
    progress = lease.read(world.store, "shop")
    assert progress is not None
    assert progress.permanent


@pytest.mark.parametrize("code", ["Throttling", "PriorRequestNotComplete"])
def test_route_53_is_busy(world: World, server: Server, code: str) -> None:
    with server.refuse("route53:ChangeResourceRecordSets", code, times=2, status=400) as refused:
        assert world.issue() is not None
    assert len(refused) == 2
    assert world.texts() == []


def test_cleaning_up_is_denied_after_the_certificate_is_there(world: World, server: Server) -> None:
    def deletes(call: Call) -> bool:
        return "DELETE" in str(call.params)

    with (
        server.refuse("route53:ChangeResourceRecordSets", "AccessDenied", when=deletes),
        pytest.raises(CertrailError, match="could not be removed"),
    ):
        world.issue()
    # Published nevertheless, and the error says which record to delete.
    assert world.store.current("shop") is not None
    progress = lease.read(world.store, "shop")
    assert progress is not None
    assert f"_acme-challenge.{world.zone}" in str(progress.error)


def test_a_certificate_that_cannot_be_published_is_published_later(
    world: World, server: Server
) -> None:
    """Let's Encrypt counts it, whatever became of it: the next run goes on with the same order."""

    def bundles(call: Call) -> bool:
        return "cert.pem" in str(call.params)

    with (
        server.refuse("s3:PutObject", "InternalError", when=bundles),
        pytest.raises(AwsError, match="InternalError"),
    ):
        world.issue()
    assert world.texts() == []
    progress = lease.read(world.store, "shop")
    assert progress is not None
    (order,) = progress.orders.values()
    current = world.issue()
    assert current is not None
    assert current.issued.order == order
    assert world.store.bundle(current).fingerprint == current.fingerprint


def test_records_that_cannot_be_removed_hold_up_no_certificate(
    world: World, server: Server
) -> None:
    """Of a role that may write and not delete: told each time, and issued all the same."""

    def deletes(call: Call) -> bool:
        return "DELETE" in str(call.params)

    with server.refuse("route53:ChangeResourceRecordSets", "AccessDenied", when=deletes):
        for generation in (1, 2):
            with pytest.raises(CertrailError, match="could not be removed"):
                world.issue(asked=generation - 1)
            current = world.store.current("shop")
            assert current is not None
            assert current.generation == generation
            # Longer each time, as after any failure: the message would use itself up.
            progress = lease.read(world.store, "shop")
            assert progress is not None
            assert progress.attempts == generation
    progress = lease.read(world.store, "shop")
    assert progress is not None
    assert len(progress.records) == 2
    assert sorted(world.texts()) == [f"_acme-challenge.{world.zone}."] * 2
    # Mended, the next run removes what all the others have left, and orders nothing.
    (standing,) = survey(world.store, [world.pipeline()], {})
    reason = standing.due(datetime.now(UTC))
    assert reason is not None
    assert reason.why is Why.RECORDS
    assert world.issue() is None
    assert world.texts() == []
    assert lease.read(world.store, "shop") == lease.Progress(progress.wanted)


def test_records_that_cannot_be_removed_keep_nobody_from_the_next_issuer(
    proxied: World, proxy: Proxy, ca: Pebble, server: Server
) -> None:
    def deletes(call: Call) -> bool:
        return "DELETE" in str(call.params)

    pipeline = proxied.pipeline()
    second = Issuer("second", ca.directory, root=ca.ca_bundle.read_text())
    both = replace(pipeline, issuers=(*pipeline.issuers, second))
    refusal = problem(403, "unauthorized", "not today")
    proxy.instead = lambda method, path: refusal if path.startswith("/chalZ") else None
    with (
        server.refuse("route53:ChangeResourceRecordSets", "AccessDenied", when=deletes),
        pytest.raises(CertrailError, match="could not be removed"),
    ):
        proxied.issue(both)
    current = proxied.store.current("shop")
    assert current is not None
    assert current.issued.issuer == "second"
    assert "not today" in current.issued.instead_of[ISSUER]


def test_another_key_type_while_an_order_is_open(world: World, server: Server) -> None:
    """The CA may hand the same order out again, and the key that was kept for it is another."""

    def certificates(call: Call) -> bool:
        return "cert.pem" in str(call.params)

    with (
        server.refuse("s3:PutObject", "InternalError", when=certificates),
        pytest.raises(AwsError, match="InternalError"),
    ):
        world.issue()
    current = world.issue(world.pipeline(key_type=KeyType.RSA_2048))
    assert current is not None
    assert current.facts.key_type is KeyType.RSA_2048


@pytest.mark.parametrize("key", [renewal_key("shop"), budget_key(ISSUER)])
def test_a_broken_document_that_can_be_made_anew(world: World, key: str) -> None:
    world.aws.s3().put_object(Bucket=world.store.bucket, Key=key, Body=b"?")
    pipeline = world.pipeline()
    counted = replace(pipeline.issuers[0], limits=AUTHORITIES["letsencrypt"].limits)
    assert world.issue(replace(pipeline, issuers=(counted,))) is not None


def test_a_wait_without_end_is_not_kept(proxied: World, proxy: Proxy) -> None:
    """Of a proxy before the CA that says three years."""
    answer = Answer(503, {"Retry-After": "99999999"}, b"busy")
    proxy.instead = lambda method, path: answer if path == "/order-plz" else None
    with pytest.raises(AcmeRefused, match="HTTP 503"):
        proxied.issue()
    progress = lease.read(proxied.store, "shop")
    assert progress is not None
    assert progress.next_attempt is not None
    assert progress.next_attempt < datetime.now(UTC) + timedelta(days=9)


@pytest.mark.parametrize("status", [500, 501, 507, 521, 526])
def test_whatever_the_server_s_failure_is_it_may_pass(
    proxied: World, proxy: Proxy, status: int
) -> None:
    proxy.instead = lambda method, path: Answer(status) if path == "/order-plz" else None
    with pytest.raises(AcmeRefused, match=f"HTTP {status}") as caught:
        proxied.issue(clock=within(1))
    assert caught.value.retryable
