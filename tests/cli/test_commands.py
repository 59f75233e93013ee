from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from certrail.bundle import short
from certrail.store import Store, current_key
from sandbox import Sandbox
from tests.cli.conftest import BUCKET, Certrail, Result

US = "{type: acm, region: us-east-1}"


def test_validate_counts_what_is_there(certrail: Certrail, file: Path) -> None:
    assert certrail("validate").out == f"{file}: 2 pipelines, 3 targets, no faults\n"
    assert certrail("validate", "--json").json() == []


def test_validate_lists_every_fault_with_its_line(certrail: Certrail, file: Path) -> None:
    file.write_text(file.read_text().replace("type: acm", "type: amc").replace("mail.", "mail_."))
    result = certrail("validate")
    assert result.code == 2
    assert f"{file}:8: " in result.err
    assert f"{file}:11: " in result.err
    assert result.out == ""
    faults = certrail("validate", "--json")
    assert faults.code == 2
    assert [fault["line"] for fault in faults.json()] == [8, 11]


def test_schema_is_the_one_in_the_docs(certrail: Certrail) -> None:
    committed = Path(__file__).parents[2] / "docs/pipelines.schema.json"
    assert certrail("schema").out == committed.read_text()


def test_without_a_bucket_it_says_where_to_find_its_name(
    certrail: Certrail, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CERTRAIL_BUCKET")
    result = certrail("plan")
    assert result.code == 2
    assert "CERTRAIL_BUCKET" in result.err


def test_a_file_that_is_not_there(certrail: Certrail) -> None:
    result = certrail("validate", "--file", "nowhere.yaml")
    assert result.code == 2
    assert "nowhere.yaml: cannot be read" in result.err


def test_a_profile_that_is_not_there(
    certrail: Certrail, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    result = certrail("status")
    assert result.code == 2
    assert "profile (nowhere) could not be found. Correct AWS_PROFILE" in result.err


def test_a_plan_that_could_not_look_does_not_say_that_nothing_would_change(
    certrail: Certrail, file: Path, store: Store
) -> None:
    assert certrail("apply", "fleet").code == 0
    store._s3.put_object(Bucket=BUCKET, Key=current_key("fleet"), Body=b"{}")
    result = certrail("plan", "fleet")
    assert result.code == 1
    assert "nothing would change" not in result.out
    assert "1 of 1 pipelines could not be read in full" in result.out


def test_an_unknown_pipeline_gets_the_nearest_name(certrail: Certrail, file: Path) -> None:
    result = certrail("issue", "shpo")
    assert result.code == 2
    assert "there is no pipeline `shpo`. There is shop" in result.err


def test_plan_reads_and_says_what_would_change(
    certrail: Certrail, file: Path, sandbox: Sandbox
) -> None:
    mark = sandbox.server.calls.mark()
    result = certrail("plan")
    assert result.code == 0
    assert "no certificate yet" in result.out
    assert "cloudfront/E1SHOPEXAMPLE1" in result.out
    assert "2 of 2 pipelines would change" in result.out
    assert certrail("plan", "--check").code == 3
    planned = certrail("plan", "--json", "shop").json()
    assert [plan["pipeline"] for plan in planned] == ["shop"]
    assert planned[0]["issue"] == "no certificate yet"
    assert sandbox.server.calls.writes(since=mark) == []


def test_apply_does_what_plan_says_and_then_nothing(
    certrail: Certrail, file: Path, sandbox: Sandbox, store: Store
) -> None:
    applied = certrail("apply", "--json")
    assert applied.code == 0, applied.err
    assert {outcome["result"] for outcome in applied.json()} == {"issued", "deployed", "served"}
    assert [outcome["what"] for outcome in applied.json() if outcome["pipeline"] == "shop"] == [
        "certificate",
        "acm/eu-central-1",
        "acm/us-east-1",
        "cloudfront/E1SHOPEXAMPLE1",
    ]
    assert "shop: certificate: issued" in applied.err

    checked = certrail("plan", "--check", "--json")
    assert checked.code == 0
    current = store.current("shop")
    assert current is not None
    assert {target["holds"] for target in checked.json()[0]["targets"]} == {current.fingerprint}

    mark = sandbox.server.calls.mark()
    again = certrail("apply", "--json")
    assert {outcome["result"] for outcome in again.json()} == {"unchanged"}
    written = sandbox.server.calls.writes(
        "acm", "cloudfront", "elasticloadbalancing", "secretsmanager", "route53", since=mark
    )
    assert written == []


def targets(planned: Result) -> dict[str, Any]:
    return {each["target"]: each for each in planned.json()[0]["targets"]}


def test_plan_says_by_which_way_and_who_has_to_move_and_apply_moves_them(
    certrail: Certrail, file: Path, sandbox: Sandbox
) -> None:
    assert certrail("apply", "shop").code == 0
    cloudfront = sandbox.session().client("cloudfront", endpoint_url=sandbox.endpoint)

    def points_to() -> str:
        config = cloudfront.get_distribution_config(Id="E1SHOPEXAMPLE1")["DistributionConfig"]
        return str(config["ViewerCertificate"]["ACMCertificateArn"])

    old = points_to()
    assert certrail("issue", "shop").code == 0
    planned = targets(certrail("plan", "--json", "shop"))
    assert [planned[f"acm/{region}"]["way"] for region in ("eu-central-1", "us-east-1")] == [
        "in place",
        "in place",
    ]
    # The distribution is in the file no more, and the import is to be replaced.
    text = file.read_text().replace("{type: cloudfront, distribution: E1SHOPEXAMPLE1}", US)
    file.write_text(text.replace("  - name: shop\n", "  - name: shop\n    rotation: replace\n"))
    planned = targets(certrail("plan", "--json", "shop"))
    home = planned["acm/us-east-1"]
    assert (home["way"], home["why"]) == ("new ARN", ["the file says `rotation: replace`"])
    assert home["moves"] == [{"target": "cloudfront/E1SHOPEXAMPLE1", "stays": None}]
    shown = certrail("plan", "shop").out
    assert "new ARN (the file says `rotation: replace`); cloudfront/E1SHOPEXAMPLE1 moves" in shown

    applied = certrail("apply", "--json", "shop")
    assert applied.code == 0, applied.err
    assert applied.json()[-1]["what"] == "cloudfront/E1SHOPEXAMPLE1"
    assert points_to() != old
    assert certrail("plan", "--check", "shop").code == 0


def test_plan_sees_what_was_changed_by_hand_and_apply_repairs_it(
    certrail: Certrail, file: Path, sandbox: Sandbox
) -> None:
    assert certrail("push").code == 0
    assert certrail("apply").code == 0
    secrets = sandbox.session().client("secretsmanager", endpoint_url=sandbox.endpoint)
    secrets.put_secret_value(SecretId="tls/fleet/bundle", SecretString="overwritten")
    planned = certrail("plan", "--check", "--json", "fleet")
    assert planned.code == 3
    (target,) = planned.json()[0]["targets"]
    assert target["action"] == "repair"
    assert target["reason"].startswith("somebody had written version ")
    assert certrail("apply", "fleet").code == 0
    (repaired,) = certrail("status", "--json", "fleet").json()[0]["targets"]
    caller = sandbox.session().client("sts", endpoint_url=sandbox.endpoint).get_caller_identity()
    assert repaired["by"] == f"certrail apply, {caller['Arn']}"
    assert repaired["from"] == repaired["to"] == target["wanted"]
    assert repaired["repaired"] == target["reason"]
    assert f", by {caller['Arn'].rpartition('/')[2]}; {target['reason']}" in (
        certrail("status", "fleet").out
    )
    assert certrail("plan", "--check").code == 0
    assert "BEGIN" in secrets.get_secret_value(SecretId="tls/fleet/bundle")["SecretString"]


def test_issue_renews_and_says_what_it_published(
    certrail: Certrail, file: Path, store: Store
) -> None:
    first = certrail("issue", "fleet")
    assert first.code == 0
    assert first.out.startswith("fleet: generation 1, ")
    assert "mail.example.org" in first.out
    (second,) = certrail("issue", "fleet", "--json").json()
    current = store.current("fleet")
    assert current is not None
    assert (second["generation"], second["fingerprint"]) == (2, current.fingerprint)


def test_issue_of_a_pipeline_with_two_keys_issues_both(
    certrail: Certrail, file: Path, store: Store
) -> None:
    file.write_text(
        file.read_text()
        .replace(
            "domains: [mail.example.org]",
            "domains: [mail.example.org]\n    key_type: [ecdsa-p256, rsa-2048]",
        )
        .replace("name: tls/fleet/bundle}", "name: tls/fleet/bundle, key_type: rsa-2048}")
    )
    assert certrail("push").out == f"{file}: 3 pipelines pushed to s3://{BUCKET}\n"
    issued = certrail("issue", "fleet")
    assert issued.code == 0, issued.err
    assert [line.partition(":")[0] for line in issued.out.splitlines()] == [
        "fleet",
        "fleet.rsa-2048",
    ]
    assert certrail("issue", "fleet.rsa-2048", "--json").json()[0]["generation"] == 2
    first, second = store.current("fleet"), store.current("fleet.rsa-2048")
    assert first
    assert second
    assert (first.facts.key_type, second.facts.key_type) == ("ecdsa-p256", "rsa-2048")

    assert certrail("apply", "fleet").code == 0
    statuses = {each["pipeline"]: each for each in certrail("status", "--json", "fleet").json()}
    assert statuses["fleet"]["targets"] == []
    assert [each["holds"] for each in statuses["fleet.rsa-2048"]["targets"]] == [second.fingerprint]


def test_push_uploads_a_good_file_and_no_other(
    certrail: Certrail, file: Path, store: Store
) -> None:
    good = file.read_text()
    assert certrail("push").out == f"{file}: 2 pipelines pushed to s3://{BUCKET}\n"
    assert store.pipelines_text() == good
    file.write_text(good.replace("cloudfront", "cloudfornt"))
    assert certrail("push").code == 2
    assert store.pipelines_text() == good


def test_push_keeps_a_file_back_whose_profile_the_ca_has_not(
    certrail: Certrail, file: Path, store: Store
) -> None:
    good = file.read_text()
    assert certrail("push").code == 0
    at_the_pipeline = good.replace(
        "domains: [mail.example.org]", "domains: [mail.example.org]\n    profile: clasic"
    )
    file.write_text(at_the_pipeline)
    refused = certrail("push")
    assert refused.code == 2
    assert (
        f"{file}:12: the CA of `sandbox` has no profile `clasic` → did you mean `classic`?"
        in refused.err
    )

    file.write_text(good.replace("}\ndefaults", ", profile: shortlived}\ndefaults", 1))
    refused = certrail("push")
    assert refused.code == 2
    assert (
        f"{file}:2: the CA of `sandbox` has no profile `shortlived` → there is `classic`"
        in refused.err
    )
    # Of two pipelines, and said once.
    assert "certrail: 1 fault" in refused.err
    assert store.pipelines_text() == good

    file.write_text(at_the_pipeline.replace("clasic", "classic"))
    assert certrail("push").code == 0
    assert store.pipelines_text() == file.read_text()


def test_push_goes_on_where_the_ca_cannot_be_asked(
    certrail: Certrail, file: Path, store: Store, sandbox: Sandbox
) -> None:
    # What answers there is no ACME directory.
    wrong = f"{sandbox.directory}/nowhere"
    text = file.read_text().replace(
        f"{{directory: {sandbox.directory}}}", f"{{directory: '{wrong}', profile: classic}}"
    )
    assert wrong in text
    file.write_text(text)
    pushed = certrail("push")
    assert pushed.code == 0, pushed.err
    assert "the profiles were not checked, the CA could not be asked: localhost" in pushed.err
    assert store.pipelines_text() == text


def test_status_shows_what_is_held_and_what_failed(
    certrail: Certrail, file: Path, store: Store
) -> None:
    assert certrail("push").code == 0
    before = certrail("status")
    assert before.code == 0
    assert "no certificate yet" in before.out

    wrong = file.read_text().replace("E1SHOPEXAMPLE1", "E0MISSING")
    file.write_text(wrong)
    assert certrail("push").code == 0
    assert certrail("apply").code == 1
    after = certrail("status")
    assert after.code == 1
    current = store.current("shop")
    assert current is not None
    assert short(current.fingerprint) in after.out
    assert "there is no distribution E0MISSING" in after.out
    assert "Remove the target from pipelines.yaml" in after.out
    statuses = {each["pipeline"]: each for each in certrail("status", "--json").json()}
    assert {target["state"] for target in statuses["fleet"]["targets"]} == {"deployed"}
    assert [target["state"] for target in statuses["shop"]["targets"]] == [
        "deployed",
        "deployed",
        "failed",
    ]


def test_nothing_that_is_printed_shows_a_key(certrail: Certrail, file: Path, store: Store) -> None:
    printed = [certrail(*command) for command in (["apply"], ["issue", "shop"], ["plan", "--json"])]
    current = store.current("fleet")
    assert current is not None
    key = store.bundle(current).private_key.reveal().splitlines()[1]
    assert not any(key in result.out + result.err for result in printed)
    assert not any("PRIVATE KEY" in result.out + result.err for result in printed)
