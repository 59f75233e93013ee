"""`certrail rollback`: what is said before, and what then happens."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from certrail.aws import Aws
from certrail.bundle import short
from certrail.records import Rollout, State
from certrail.store import KEPT_TAG, SUPERSEDED_TAG, Current, Revoked, Store, rollout_key
from sandbox import Sandbox, resources
from sandbox.calls import Call
from tests.cli.conftest import BUCKET, Certrail

SECRET = "tls/fleet/bundle"


@pytest.fixture
def generations(certrail: Certrail, file: Path, store: Store) -> list[Current]:
    """Three certificates of `fleet`, each deployed."""
    assert certrail("push").code == 0
    made = []
    for _ in range(3):
        assert certrail("issue", "fleet").code == 0
        applied = certrail("apply", "fleet")
        assert applied.code == 0, applied.err
        current = store.current("fleet")
        assert current
        made.append(current)
    return made


def stages(sandbox: Sandbox) -> dict[str, list[str]]:
    client = sandbox.session().client("secretsmanager", endpoint_url=sandbox.endpoint)
    found: dict[str, list[str]] = client.describe_secret(SecretId=SECRET)["VersionIdsToStages"]
    return found


def tags(current: Current) -> Any:
    key = f"certificates/fleet/{current.fingerprint}/privkey.pem"
    return Aws().s3().get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]


def test_the_one_before_is_current_again_and_the_secrets_stage_moves_back(
    certrail: Certrail, store: Store, sandbox: Sandbox, generations: list[Current]
) -> None:
    before = stages(sandbox)
    mark = sandbox.server.calls.mark()
    result = certrail("rollback", "fleet", "--yes", "--why", "the new one breaks old phones")
    assert result.code == 0, result.err
    second, third = generations[1:]
    assert f"from {short(third.fingerprint)} back to {short(second.fingerprint)}" in result.err
    current = store.current("fleet")
    assert current
    assert (current.generation, current.fingerprint) == (4, second.fingerprint)
    assert current.rollback
    assert current.rollback.reason == "the new one breaks old phones"
    assert current.rollback.by.startswith("certrail rollback (")

    applied = certrail("apply", "fleet")
    assert applied.code == 0, applied.err
    after = stages(sandbox)
    assert before.keys() == after.keys()
    moved = [version for version in after if "AWSCURRENT" in after[version]]
    assert moved == [version for version in before if "AWSPREVIOUS" in before[version]]
    written = sandbox.server.calls.writes("secretsmanager", since=mark)
    # The first finds the content there already, and moves nothing.
    assert [call.action.partition(":")[2] for call in written] == [
        "PutSecretValue",
        "UpdateSecretVersionStage",
        "TagResource",
    ]


def test_status_says_that_it_is_rolled_back_and_holds_the_renewal(
    certrail: Certrail, store: Store, generations: list[Current]
) -> None:
    assert certrail("rollback", "fleet", "--yes").code == 0
    assert certrail("apply", "fleet").code == 0
    shown = certrail("status", "fleet")
    assert shown.code == 0
    assert "  rolled back, generation 4" in shown.out
    third = short(generations[2].fingerprint)
    assert f"  rolled back from {third} at " in shown.out
    assert "  not renewed before " in shown.out
    (status,) = certrail("status", "--json", "fleet").json()
    assert status["state"] == "rolled back"
    assert status["rolled_back"]["from"] == generations[2].fingerprint
    assert status["due"] is None


def test_what_was_left_is_not_gone_back_to_unless_it_is_named(
    certrail: Certrail, store: Store, generations: list[Current]
) -> None:
    """After a rollback, the certificate before is the one that was left."""
    bad = generations[2].fingerprint
    assert certrail("rollback", "fleet", "--yes", "--why", "it breaks old phones").code == 0
    left = store.current("fleet")
    assert left
    assert left.previous == bad
    refused = certrail("rollback", "fleet", "--yes")
    assert refused.code == 1
    assert f"the one before is {short(bad)}, which was left at " in refused.err
    assert ": it breaks old phones. " in refused.err
    assert f"`--to {short(bad)}` goes back to this one all the same" in refused.err
    assert store.current("fleet") == left
    assert certrail("rollback", "fleet", "--yes", "--to", short(bad)).code == 0
    current = store.current("fleet")
    assert current
    assert (current.generation, current.fingerprint) == (5, bad)


def test_a_key_that_is_about_to_be_removed_is_kept(
    certrail: Certrail, store: Store, generations: list[Current]
) -> None:
    first = generations[0]
    assert tags(first) == [SUPERSEDED_TAG]
    result = certrail("rollback", "fleet", "--yes", "--to", first.fingerprint[:8].upper())
    assert result.code == 0, result.err
    assert "Its private key is about to be removed; it will be kept." in result.err
    assert tags(first) == [KEPT_TAG]
    assert certrail("apply", "fleet").code == 0
    # And stays when the next one is published; the others do not.
    assert certrail("issue", "fleet").code == 0
    assert [tags(each) for each in generations] == [
        [KEPT_TAG],
        [SUPERSEDED_TAG],
        [SUPERSEDED_TAG],
    ]


def test_a_key_that_is_tagged_meanwhile_is_kept(
    certrail: Certrail, sandbox: Sandbox, generations: list[Current]
) -> None:
    """A publication tags keys between two looks at the pointer."""
    first = generations[0]
    key = f"certificates/fleet/{first.fingerprint}/privkey.pem"

    def meanwhile(call: Call) -> None:
        if call.action == "s3:PutObject" and call.params and "current.json" in call.params["Key"]:
            sandbox.server.before.remove(meanwhile)
            s3 = sandbox.session().client("s3", endpoint_url=sandbox.endpoint)
            s3.put_object_tagging(Bucket=BUCKET, Key=key, Tagging={"TagSet": [SUPERSEDED_TAG]})

    sandbox.server.before.append(meanwhile)
    result = certrail("rollback", "fleet", "--to", first.fingerprint[:12], "--yes", "--why", "x")
    assert result.code == 0, result.err
    assert meanwhile not in sandbox.server.before
    assert tags(first) == [KEPT_TAG]


def test_nothing_is_done_without_a_yes(
    certrail: Certrail,
    store: Store,
    generations: list[Current],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    result = certrail("rollback", "fleet")
    assert result.code == 1
    assert "to every target at once, as generation 4" in result.err
    assert store.current("fleet") == generations[2]


def test_what_it_cannot_mean(certrail: Certrail, store: Store, generations: list[Current]) -> None:
    current = generations[2]
    for start, said in {
        "zz": "no certificates of this pipeline begin with zz",
        "": "3 certificates of this pipeline begin with",
        current.fingerprint: "is the current certificate",
    }.items():
        result = certrail("rollback", "fleet", "--yes", "--to", start)
        assert result.code == 1
        assert said in result.err
    assert store.current("fleet") == current


def test_the_first_certificate(certrail: Certrail, file: Path, store: Store) -> None:
    assert certrail("push").code == 0
    assert "`fleet` has no certificate yet" in certrail("rollback", "fleet", "--yes").err
    assert certrail("issue", "fleet").code == 0
    assert "it is the pipeline's first certificate" in certrail("rollback", "fleet", "--yes").err


def test_what_is_in_the_way_is_said_before(
    certrail: Certrail, store: Store, generations: list[Current]
) -> None:
    s3 = Aws().s3()
    second = generations[1]
    folder = f"certificates/fleet/{second.fingerprint}"
    document = store.published_as("fleet", second.fingerprint)
    assert document

    s3.delete_object(Bucket=BUCKET, Key=f"{folder}/privkey.pem")
    gone = certrail("rollback", "fleet", "--yes")
    assert gone.code == 1
    assert f"the private key of {short(second.fingerprint)} is gone" in gone.err
    assert "delete the delete marker" in gone.err

    s3.delete_object(Bucket=BUCKET, Key=f"{folder}/bundle.json")
    assert "was published before certrail kept" in certrail("rollback", "fleet", "--yes").err

    ended = replace(document.facts, not_after=datetime.now(UTC) - timedelta(days=1))
    store.write(f"{folder}/bundle.json", replace(document, facts=ended), Current, None)
    assert "has ended" in certrail("rollback", "fleet", "--yes").err

    store.mark_revoked("fleet", second.fingerprint, Revoked("keyCompromise", datetime.now(UTC)))
    assert "was revoked (keyCompromise, " in certrail("rollback", "fleet", "--yes").err
    assert store.current("fleet") == generations[2]


def test_how_long_aws_may_take_is_said_of_what_a_selection_found_too(
    certrail: Certrail, store: Store, file: Path, sandbox: Sandbox, generations: list[Current]
) -> None:
    at: Any = {"session": sandbox.session(), "endpoint": sandbox.endpoint}
    resources.distribution("E1FOUND", ["mail.example.org"], **at)
    text = file.read_text()
    listed = "      - {type: secretsmanager, name: tls/fleet/bundle}\n"
    file.write_text(text.replace(listed, f"{listed}      - {{type: cloudfront, covers: true}}\n"))
    assert certrail("push").code == 0
    applied = certrail("apply", "fleet")
    assert "cloudfront/E1FOUND" in applied.err
    second = generations[1].fingerprint
    document = store.published_as("fleet", second)
    assert document
    soon = replace(document.facts, not_after=datetime.now(UTC) + timedelta(hours=5))
    key = f"certificates/fleet/{second}/bundle.json"
    Aws().s3().delete_object(Bucket=BUCKET, Key=key)
    store.write(key, replace(document, facts=soon), Current, None)
    result = certrail("rollback", "fleet", "--yes", "--json")
    assert "AWS may take 24 hours until every client gets it" in " ".join(result.json()["notes"])


def test_what_acm_does_not_take_under_the_same_arn_is_said_before(
    certrail: Certrail, store: Store, file: Path
) -> None:
    assert certrail("push").code == 0
    assert certrail("issue", "fleet").code == 0
    names = "domains: [mail.example.org, new.example.org]"
    text = file.read_text().replace(
        "domains: [mail.example.org]", f"{names}\n    key_type: rsa-2048"
    )
    file.write_text(text)
    assert certrail("push").code == 0
    assert certrail("issue", "fleet").code == 0
    result = certrail("rollback", "fleet", "--yes", "--json")
    assert result.code == 0, result.err
    notes = " ".join(result.json()["notes"])
    assert "does not cover new.example.org" in notes
    assert "Its key is ecdsa-p256, and the current one's rsa-2048" in notes
    assert "so it gets another" in notes


def test_what_cannot_go_back_is_said_before(
    certrail: Certrail, store: Store, file: Path, sandbox: Sandbox
) -> None:
    """An import of somebody's own keeps its ARN, and ACM the type of its key."""
    text = file.read_text()
    names = "domains: [mail.example.org]"
    file.write_text(text.replace(names, f"{names}\n    key_type: rsa-2048"))
    assert certrail("push").code == 0
    assert certrail("issue", "fleet").code == 0
    arn = resources.imported_certificate(["mail.example.org"], region="eu-central-1")
    listed = "      - {type: secretsmanager, name: tls/fleet/bundle}\n"
    own = f"      - {{type: acm, certificate_arn: '{arn}'}}\n"
    file.write_text(text.replace(listed, listed + own))
    assert certrail("push").code == 0
    assert certrail("issue", "fleet").code == 0
    assert certrail("apply", "fleet").code == 0
    result = certrail("rollback", "fleet", "--yes", "--json")
    assert result.code == 0, result.err
    (said,) = [note for note in result.json()["notes"] if "stays on the current one" in note]
    assert said == (
        "acm/eu-central-1 stays on the current one: the key would change from EC_prime256v1 to "
        "RSA_2048; the file says with `certificate_arn` that this import is not left."
    )


def test_apply_goes_wave_by_wave_and_says_what_is_left(
    certrail: Certrail, store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = file.read_text().replace(
        "  - name: fleet\n",
        "  - name: fleet\n    waves: [{name: canary, bake: 1h}, {name: rest}]\n",
    )
    canary = "{type: secretsmanager, name: tls/canary/bundle, wave: canary}"
    text = text.replace(
        "    targets:\n      - {type: secret",
        f"    targets:\n      - {canary}\n      - {{type: secret",
    )
    file.write_text(text)
    assert certrail("push").code == 0
    applied = certrail("apply", "fleet", "--json")
    assert applied.code == 0, applied.err
    outcomes = {each["what"]: each for each in applied.json()}
    assert outcomes["secretsmanager/eu-central-1/tls/canary/bundle"]["result"] == "deployed"
    rest = outcomes["secretsmanager/eu-central-1/tls/fleet/bundle"]
    assert (rest["result"], rest["note"]) == ("waiting", "waiting for wave `canary`")
    shown = certrail("status", "fleet")
    assert "baking   wave canary  1 of 1 deployed  baked " in shown.out
    assert "waiting  wave rest    0 of 1 done" in shown.out

    found = store.read(rollout_key("fleet"), Rollout)
    assert found
    assert found.value.served_at
    baked = replace(found.value, served_at=found.value.served_at - timedelta(hours=1), next=None)
    store.write(rollout_key("fleet"), baked, Rollout, found.etag)
    applied = certrail("apply", "fleet", "--json")
    assert applied.code == 0, applied.err
    (status,) = certrail("status", "--json", "fleet").json()
    # It is a secret: nobody looks at it.
    assert status["state"] == "deployed"
    assert [(wave["served"], wave["deployed"]) for wave in status["waves"]] == [(0, 1), (0, 1)]
    assert {wave["state"] for wave in status["waves"]} == {"passed"}
    assert {each["state"] for each in status["targets"]} == {State.DEPLOYED}

    # Back to one that had passed all waves, and to one that had only begun.
    assert certrail("issue", "fleet").code == 0
    assert certrail("apply", "fleet").code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    assert "to every target at once, as" in certrail("rollback", "fleet").err
    assert certrail("issue", "fleet").code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    said = certrail("rollback", "fleet").err
    assert "at once where the current one was, and in its waves where" in said


def test_apply_sees_whether_clients_get_it(
    certrail: Certrail, store: Store, file: Path, sandbox: Sandbox
) -> None:
    assert certrail("push").code == 0
    applied = certrail("apply", "shop", "--json")
    assert applied.code == 0, applied.err
    outcomes = {each["what"]: each["result"] for each in applied.json()}
    assert outcomes["cloudfront/E1SHOPEXAMPLE1"] == "served"
    shown = certrail("status", "shop")
    assert "served    cloudfront/E1SHOPEXAMPLE1" in shown.out
    (status,) = certrail("status", "--json", "shop").json()
    assert status["state"] == "served"


def test_apply_says_what_cannot_be_reached_and_waits_for_nothing(
    certrail: Certrail, store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERTRAIL_PROXY", "127.0.0.1:1")
    assert certrail("push").code == 0
    applied = certrail("apply", "shop", "--json")
    assert applied.code == 0, applied.err
    (note,) = [each["note"] for each in applied.json() if each["note"]]
    assert "not served yet: " in note
    assert "cannot be reached" in note
    assert "not served yet: " in certrail("status", "shop").out
