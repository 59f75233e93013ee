"""The generated parts of the documentation are what the models say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from certrail.pipelines import Pipelines, load
from certrail.pipelines.zones import ZONES
from cli.reference import field_table, pages, schema
from deployers.kinds.all import KINDS, AnyTarget
from tests.pipelines.kinds import Box, Edge, File
from tests.pipelines.test_load import FULL, MUCH

ROOT = Path(__file__).parents[2]


def test_what_is_in_docs_is_what_make_docs_writes() -> None:
    for page, text in pages(ROOT, Pipelines[AnyTarget]).items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name}: run `make docs`"


def test_every_part_of_the_file_has_its_table() -> None:
    text = (ROOT / "docs/pipelines.md").read_text(encoding="utf-8")
    parts = ["file", "issuer", "external_account", "limits", "account", "defaults", "pipeline"]
    for part in [*parts, *(f"zone-{provider}" for provider in ZONES)]:
        assert f"<!-- fields: {part} -->\n\n| key |" in text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_page_with_its_table_and_its_policy(kind: str) -> None:
    text = (ROOT / f"docs/targets/{kind}.md").read_text(encoding="utf-8")
    assert f"<!-- fields: {kind} -->\n\n| key |" in text
    assert f"<!-- iam: {kind} -->\n\n```json" in text


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_explained(kind: str) -> None:
    for name, info in KINDS[kind].model_fields.items():
        assert info.description or name == "type", f"`{name}` of {kind} has no description"


def test_the_schema_takes_the_sample_and_refuses_what_it_does_not_know() -> None:
    validator = Draft202012Validator(json.loads(schema(Pipelines[AnyTarget])))
    text = (ROOT / "pipelines.yaml").read_text(encoding="utf-8")
    assert not list(validator.iter_errors(yaml.safe_load(text)))
    wrong = yaml.safe_load(text.replace("distribution:", "distributoin:"))
    assert list(validator.iter_errors(wrong))


def test_the_schema_takes_what_loads() -> None:
    load(MUCH, "pipelines.yaml", File)
    validator = Draft202012Validator(json.loads(schema(File)))
    assert not list(validator.iter_errors(yaml.safe_load(MUCH)))
    for right, wrong in {
        "key_type: [ecdsa-p256,": "key_type: [ecdsa,",
        "renew_before: 20 d": "renew_before: 20 days",
        "ca: zerossl": "ca: zerossel",
        "provider: rfc2136": "provider: rfc2137",
        "zone_id:": "zoneid:",
    }.items():
        assert list(validator.iter_errors(yaml.safe_load(MUCH.replace(right, wrong)))), wrong


def test_the_schema_lets_defaults_fill_a_region() -> None:
    load(FULL, "pipelines.yaml", File)
    whole = json.loads(schema(File))
    assert whole["$defs"]["Box"]["required"] == ["type", "name"]
    assert whole["$defs"]["Edge"]["required"] == ["type", "site"]
    assert not list(Draft202012Validator(whole).iter_errors(yaml.safe_load(FULL)))


def test_a_table() -> None:
    assert field_table(Edge).splitlines() == [
        "| key | value | default | what it is |",
        "|---|---|---|---|",
        "| `type` | `edge` | *needed* | The kind of target. |",
        "| `account` | text |  | Name of an entry of `accounts`; left out, the account certrail "
        "runs in. |",
        "| `key_type` | `ecdsa-p256`, `ecdsa-p384`, `rsa-2048`, `rsa-3072`, `rsa-4096` |  | Which "
        "certificate, where the pipeline's `key_type` lists several; left out, the first. |",
        "| `wave` | text |  | Wave of the pipeline's `waves` in which it gets a new certificate; "
        "left out, the last. |",
        "| `site` | text, like `E1EXAMPLE` | *needed* | Id of the site. |",
        "| `default` | `true` or `false` | `false` | Whether it is the default one. |",
    ]
    assert "| `region` | text, like `eu-central-1` | `defaults.region` |" in field_table(Box)
    assert "| `copies` | list of text |" in field_table(Box)


def test_a_page_is_written_between_its_marks(tmp_path: Path) -> None:
    (tmp_path / "docs/targets").mkdir(parents=True)
    page = tmp_path / "docs/targets/edge.md"
    page.write_text(
        "# Edge\n<!-- fields: edge -->\nold\n<!-- /fields -->\nmore\n", encoding="utf-8"
    )
    written = pages(tmp_path, File)
    assert written[page] == (
        f"# Edge\n<!-- fields: edge -->\n\n{field_table(Edge)}\n<!-- /fields -->\nmore\n"
    )
    assert written[tmp_path / "docs/pipelines.schema.json"] == schema(File)
    page.write_text(written[page], encoding="utf-8")
    assert pages(tmp_path, File) == written
