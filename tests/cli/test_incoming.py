"""The command and certificates that come from elsewhere."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certrail.bundle import short
from certrail.store import Current, Store, current_key, incoming_prefix
from tests.certrail.bundles import make_bundle
from tests.cli.conftest import Certrail
from tests.issuer.foreign import certbot, node_lambda, pkcs12

NAMES = ["mail.example.org"]


@pytest.fixture
def foreign(certrail: Certrail, file: Path) -> Path:
    """`fleet` comes from elsewhere, and nothing has come yet."""
    text = file.read_text()
    file.write_text(text.replace("[mail.example.org]", "[mail.example.org]\n    issuer: incoming"))
    assert certrail("push").code == 0
    return file


def live(folder: Path) -> Path:
    """A folder as certbot leaves it."""
    folder.mkdir()
    (folder / "README").write_text("This directory contains your keys and certificates.")
    for name, body in certbot(make_bundle(NAMES)).items():
        (folder / name).write_bytes(body)
    return folder


class TestBring:
    def test_a_folder_of_certbot(
        self, certrail: Certrail, foreign: Path, store: Store, tmp_path: Path
    ) -> None:
        result = certrail("bring", "fleet", str(live(tmp_path / "live")))
        assert result.code == 0
        keys = [f"incoming/fleet/{name}" for name in sorted(certbot(make_bundle(NAMES)))]
        assert result.out.splitlines() == keys
        assert list(store.keys(incoming_prefix("fleet"))) == keys
        assert "generation 1" in certrail("issue", "fleet").out
        assert certrail("apply", "fleet").code == 0
        status = certrail("status", "fleet")
        assert "the next one is awaited by" in status.out
        assert status.code == 0

    @pytest.mark.parametrize("name", ["mail.example.org.json", "mail.p12", "mail.pfx"])
    def test_one_file(
        self, certrail: Certrail, foreign: Path, store: Store, tmp_path: Path, name: str
    ) -> None:
        bundle = make_bundle(NAMES)
        path = tmp_path / name
        path.write_bytes(node_lambda(bundle) if name.endswith("json") else pkcs12(bundle))
        assert certrail("bring", "fleet", str(path)).out == f"incoming/fleet/{name}\n"
        assert short(bundle.fingerprint) in certrail("issue", "fleet").out

    def test_nothing_that_would_not_be_taken(
        self, certrail: Certrail, foreign: Path, store: Store, tmp_path: Path
    ) -> None:
        other = tmp_path / "other.json"
        other.write_bytes(node_lambda(make_bundle(["other.example"])))
        half = tmp_path / "cert.pem"
        half.write_bytes(certbot(make_bundle(NAMES))["cert.pem"])
        strange = tmp_path / "shop.crt"
        strange.write_bytes(b"")
        for arguments, said in {
            ("fleet", str(other)): "the certificate lacks mail.example.org",
            ("fleet", str(half)): "chain.pem, fullchain.pem, privkey.pem are missing",
            ("fleet", str(strange)): "0 bundles are in shop.crt",
            ("fleet", str(half), str(other)): "2 bundles are in cert.pem, other.json",
            ("fleet", str(tmp_path / "none")): "there is no such file",
            ("shop", str(other)): "nothing is taken in for this pipeline",
        }.items():
            result = certrail("bring", *arguments)
            assert result.code
            assert said in result.err
        assert not list(store.keys("incoming/"))


def test_it_is_not_ours_to_issue_or_to_revoke(
    certrail: Certrail, foreign: Path, store: Store
) -> None:
    assert certrail("issue", "fleet").out == "fleet: nothing new came in\n"
    assert "not ours to issue" in certrail("reissue", "--pipeline", "fleet").err
    assert "not ours to revoke" in certrail("revoke", "fleet", "--reason", "superseded").err
    asked = certrail("reissue", "--all", "--no-wait", "--json")
    assert asked.json() == {"asked": ["shop"]}


def test_what_is_wrong_and_what_is_late_is_shown(
    certrail: Certrail, foreign: Path, store: Store
) -> None:
    store.bring("fleet", "fleet.json", node_lambda(make_bundle(NAMES)))
    assert certrail("issue", "fleet").code == 0
    store.bring("fleet", "fleet.json", node_lambda(make_bundle(["other.example"])))
    failed = certrail("issue", "fleet")
    assert failed.code == 1
    assert "the certificate lacks mail.example.org. Bring another one" in failed.err
    status = certrail("status", "fleet")
    assert "not taken in: s3://" in status.out
    assert status.code == 1
    # Two days before its end nothing newer is there.
    found = store.read(current_key("fleet"), Current)
    assert found
    facts = replace(found.value.facts, not_after=datetime.now(UTC) + timedelta(days=2))
    late = replace(found.value, facts=facts, published_at=datetime.now(UTC) - timedelta(days=80))
    facts = replace(facts, not_before=late.published_at)
    store.write(current_key("fleet"), replace(late, facts=facts), Current, found.etag)
    assert "nothing newer came in by" in certrail("status", "fleet").out
