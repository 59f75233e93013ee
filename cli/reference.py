"""The generated parts of the documentation: the JSON Schema of pipelines.yaml, the tables of its
keys, and the IAM policies. `python -m cli.reference`, in the project's root, writes them; a test
compares."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from certrail.grants import EVERYWHERE, Grant, Scope
from certrail.pipelines import Account, Pipelines
from certrail.pipelines.forms import forms_of
from certrail.pipelines.load import file_model
from certrail.pipelines.model import (
    Defaults,
    ExternalAccount,
    Incoming,
    IssuerEntry,
    LimitsEntry,
    PipelineEntry,
    PipelinesFile,
)
from certrail.pipelines.selection import Selection
from certrail.pipelines.waves import WaveEntry
from certrail.pipelines.wording import as_written
from certrail.pipelines.zones import ZONES
from certrail.target import FromDefaults, Target
from deployers.kinds.all import AnyTarget
from issuer import incoming
from issuer.dns import route53

T = TypeVar("T")

SCHEMA = Path("docs/pipelines.schema.json")
TABLE = re.compile(r"(<!-- fields: (\S+) -->\n).*?(<!-- /fields -->)", re.DOTALL)
POLICY = re.compile(r"(<!-- iam: (\S+) -->\n).*?(<!-- /iam -->)", re.DOTALL)
# Whose policies the pages show.
READER = Scope("aws", "111111111111", "certrail-bucket")
TEXT = {"string": "text", "boolean": "`true` or `false`", "integer": "number", "number": "number"}


class _WithoutTitles(GenerateJsonSchema):
    """pydantic's titles repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schema(model: type[Pipelines[T]]) -> str:
    """The JSON Schema of a pipelines file with these targets, for editors."""
    (target,) = get_args(model)
    definition = file_model(target).model_json_schema(schema_generator=_WithoutTitles)
    forms = forms_of(target)
    for form in (*forms.kinds.values(), *forms.selections.values()):
        definition["$defs"][form.__name__]["required"] = ["type", *_needed(form)]
    whole = {"$schema": GenerateJsonSchema.schema_dialect} | definition
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def field_table(model: type[BaseModel]) -> str:
    """The keys of one mapping of the file as a table in Markdown."""
    definition = model.model_json_schema(schema_generator=_WithoutTitles)
    needed = _needed(model)
    rows = ["| key | value | default | what it is |", "|---|---|---|---|"]
    for name, field in definition["properties"].items():
        info = model.model_fields[name]
        if key := _from_defaults(model, name):
            default = f"`defaults.{key}`"
        elif name in needed or name == "type":
            default = "*needed*"
        else:
            default = _shown(info.default)
        value = _value(field, definition.get("$defs", {}))
        example = f", like `{as_written(info.examples[0])}`" if info.examples else ""
        what = info.description or "The kind of target."
        cells = [f"`{name}`", value + example, default, what]
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def pages(root: Path, model: type[Pipelines[T]]) -> dict[Path, str]:
    """Every page under `docs/` that has a marked part, and the schema, as they should be.

    A table stands between `<!-- fields: NAME -->` and `<!-- /fields -->`, where NAME is `file`,
    `issuer`, `external_account`, `limits`, `account`, `zone-` and a provider, `defaults`,
    `pipeline`, `incoming`, `wave`, or the type of a target, with `selection-` before it for its
    selection; a policy between `<!-- iam: NAME -->` and `<!-- /iam -->`, where NAME is `route53`,
    `incoming`, `bring`, `selections` or the type of a target.
    """
    (target,) = get_args(model)
    forms = forms_of(target)
    models: dict[str, type[BaseModel]] = {
        "file": PipelinesFile,
        "issuer": IssuerEntry,
        "external_account": ExternalAccount,
        "limits": LimitsEntry,
        **{f"zone-{provider}": zone for provider, zone in ZONES.items()},
        "account": Account,
        "defaults": Defaults,
        "pipeline": PipelineEntry,
        "incoming": Incoming,
        "wave": WaveEntry,
        **forms.kinds,
        **{f"selection-{kind}": selection for kind, selection in forms.selections.items()},
    }
    grants: dict[str, Sequence[Grant]] = {
        "selections": [
            grant
            for selection in forms.selections.values()
            for grant in selection.grants(READER, EVERYWHERE)
        ],
        "incoming": incoming.grants([READER.arn("acm", "us-east-1", "certificate/0a1b2c3d")]),
        "bring": incoming.grants_to_bring(
            READER, "eu-central-1", READER.arn("kms", "eu-central-1", "key/0a1b2c3d"), "shop"
        ),
        "route53": route53.grants(READER, [None], ["_acme-challenge.*"]),
        **{name: kind.grants(READER, everywhere=EVERYWHERE) for name, kind in forms.kinds.items()},
    }
    found = {root / SCHEMA: schema(model)}
    for page in sorted((root / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if TABLE.search(text) or POLICY.search(text):
            found[page] = _with_policies(_with_tables(text, models), grants)
    return found


def _with_tables(text: str, models: Mapping[str, type[BaseModel]]) -> str:
    return TABLE.sub(lambda match: f"{match[1]}\n{field_table(models[match[2]])}\n{match[3]}", text)


def _with_policies(text: str, grants: Mapping[str, Sequence[Grant]]) -> str:
    def block(match: re.Match[str]) -> str:
        policy = {
            "Version": "2012-10-17",
            "Statement": [grant.statement() for grant in grants[match[2]]],
        }
        return f"{match[1]}\n```json\n{json.dumps(policy, indent=2)}\n```\n\n{match[3]}"

    return POLICY.sub(block, text)


def _needed(model: type[BaseModel]) -> list[str]:
    """The keys that must stand in the file itself."""
    return [
        name
        for name, info in model.model_fields.items()
        if info.is_required() and not _from_defaults(model, name)
    ]


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return f"`{json.dumps(default)}`"
    return f"`{default}`" if isinstance(default, str) and default else ""


def _from_defaults(model: type[BaseModel], name: str) -> str | None:
    """The key of `defaults` that a target or a selection gets it from."""
    if not issubclass(model, Target | Selection):
        return None
    marks = model.model_fields[name].metadata
    return next((mark.key or name for mark in marks if isinstance(mark, FromDefaults)), None)


def _value(field: JsonSchemaValue, definitions: Mapping[str, JsonSchemaValue]) -> str:
    """The shape of a value in the words of the pages."""
    if "$ref" in field:
        return _value(definitions[field["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in field:
        shapes = [_value(part, definitions) for part in field["anyOf"] if part != {"type": "null"}]
        return " or ".join(shapes)
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type")
    if kind == "array":
        return f"list of {_value(field['items'], definitions)}".strip()
    if kind == "object" and "additionalProperties" in field and "properties" not in field:
        return f"by name: {_value(field['additionalProperties'], definitions)}"
    return TEXT.get(str(kind), "mapping")


def main() -> None:
    for path, text in pages(Path(), Pipelines[AnyTarget]).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
