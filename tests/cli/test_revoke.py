from __future__ import annotations

from pathlib import Path

import pytest
import requests

from certrail.bundle import short
from certrail.store import Current, Store
from issuer.reissue import read
from sandbox import Sandbox
from tests.cli.conftest import Certrail


def status_at_the_ca(sandbox: Sandbox, current: Current) -> str:
    pebble = sandbox.ca
    url = f"{pebble.management}/cert-status-by-serial/{current.facts.serial}"
    answer = requests.get(url, verify=str(pebble.ca_bundle), timeout=10)
    answer.raise_for_status()
    return str(answer.json()["Status"])


@pytest.fixture
def current(certrail: Certrail, file: Path, store: Store) -> Current:
    assert certrail("push").code == 0
    assert certrail("issue", "fleet").code == 0
    found = store.current("fleet")
    assert found
    return found


def test_what_is_served_is_not_revoked_by_mistake(
    certrail: Certrail, store: Store, current: Current, sandbox: Sandbox
) -> None:
    first = short(current.fingerprint)
    for extra in ([], ["--fingerprint", first]):
        result = certrail("revoke", "fleet", "--reason", "superseded", *extra)
        assert result.code == 2
        assert f"fleet: {first} is current: clients would be served a revoked" in result.err
        assert "Run `certrail reissue --pipeline fleet` first" in result.err
        assert result.out == ""
    assert status_at_the_ca(sandbox, current) == "Valid"
    assert not read(store).asked


def test_with_now_another_is_asked_for_first(
    certrail: Certrail, store: Store, current: Current, sandbox: Sandbox
) -> None:
    result = certrail("revoke", "fleet", "--reason", "keyCompromise", "--now")
    assert result.code == 0, result.err
    assert result.out == (
        "fleet: a new certificate is asked for\n"
        f"fleet: {short(current.fingerprint)} is revoked at sandbox (keyCompromise)\n"
    )
    assert status_at_the_ca(sandbox, current) == "Revoked"
    assert read(store).asked["fleet"].why == "the current certificate is revoked (keyCompromise)"

    assert certrail("apply", "fleet").code == 0
    after = store.current("fleet")
    assert after
    assert (after.generation, after.fingerprint != current.fingerprint) == (2, True)


def test_an_earlier_one_by_the_start_of_its_fingerprint(
    certrail: Certrail, store: Store, current: Current, sandbox: Sandbox
) -> None:
    assert certrail("issue", "fleet").code == 0
    after = store.current("fleet")
    assert after
    start = ":".join(current.fingerprint[at : at + 2] for at in range(0, 12, 2)).upper()
    result = certrail("revoke", "fleet", "--reason", "superseded", "--fingerprint", start)
    assert result.code == 0, result.err
    assert result.out == (
        f"fleet: {short(current.fingerprint)} is revoked at sandbox (superseded)\n"
    )
    assert status_at_the_ca(sandbox, current) == "Revoked"
    assert status_at_the_ca(sandbox, after) == "Valid"
    assert not read(store).asked
    # Once more does no harm.
    again = certrail(
        "revoke", "fleet", "--reason", "superseded", "--fingerprint", current.fingerprint
    )
    assert again.code == 0


def test_what_is_not_there(certrail: Certrail, current: Current) -> None:
    nothing = certrail("revoke", "shop", "--reason", "superseded")
    assert nothing.code == 2
    assert "`shop` has no certificate yet" in nothing.err
    unknown = certrail("revoke", "fleet", "--reason", "superseded", "--fingerprint", "0")
    assert unknown.code == 2
    assert "there is no certificate `0` of fleet. Look under certificates/" in unknown.err or (
        current.fingerprint.startswith("0")
    )
    other = certrail("revoke", "fleet", "--reason", "why not")
    assert other.code == 2
    assert "keyCompromise" in other.err


def test_at_the_ca_that_issued_it_though_another_is_down(
    certrail: Certrail, file: Path, store: Store, sandbox: Sandbox
) -> None:
    # What answers there is no ACME directory.
    down = f"{sandbox.directory}/nowhere"
    text = file.read_text()
    text = text.replace("issuers:\n", f"issuers:\n  down: {{directory: '{down}'}}\n")
    file.write_text(text.replace("defaults: {", "defaults: {issuer: [down, sandbox], "))
    assert certrail("push").code == 0
    assert certrail("issue", "fleet").code == 0
    shown = certrail("status", "fleet")
    assert "  issued by sandbox instead of down: " in shown.out
    for extra in (["--now"], ["--fingerprint", ""]):
        current = store.current("fleet")
        assert current
        if extra[-1] == "":
            assert certrail("issue", "fleet").code == 0
            extra[-1] = current.fingerprint
        result = certrail("revoke", "fleet", "--reason", "superseded", *extra)
        assert result.code == 0, result.err
        assert "is revoked at sandbox (superseded)" in result.out
        assert status_at_the_ca(sandbox, current) == "Revoked"
        assert certrail("apply", "fleet").code == 0
