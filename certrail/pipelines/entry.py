"""What all mappings of pipelines.yaml are made of."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from certrail.target import Wrong

SECRET_ARN = re.compile(
    r"arn:aws[a-z-]*:(secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[\w/+=.@-]+"
    r"|ssm:[a-z0-9-]+:[0-9]{12}:parameter/[\w./-]+)",
    re.ASCII,
)
LEAD = re.compile(r"([1-9][0-9]{0,3}) ?([dh])")
UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1)}


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def model_parametrized_name(cls, params: tuple[type[Any], ...]) -> str:
        """The schema calls it the same whatever the targets are."""
        return cls.__name__


def _filled(text: str) -> str:
    if not text.strip():
        raise Wrong("the value is empty", "give it a value, or remove the key")
    return text


def _secret_arn(text: str) -> str:
    if not SECRET_ARN.fullmatch(text):
        raise Wrong(
            f"`{text}` is not the ARN of a secret or a parameter",
            "put it into Secrets Manager or Parameter Store, and give "
            "`arn:aws:secretsmanager:…:secret:…` or `arn:aws:ssm:…:parameter/…`",
        )
    return text


def _lead(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    match = LEAD.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        said = f"`{value}`" if isinstance(value, str | int | float) else "this"
        raise Wrong(f"{said} is not a time", "write days or hours, like `20d` or `36h`")
    return int(match[1]) * UNITS[match[2]]


Filled = Annotated[str, AfterValidator(_filled)]
# Never the secret itself: the file lies in a repository.
SecretArn = Annotated[str, AfterValidator(_secret_arn)]
Lead = Annotated[
    timedelta,
    BeforeValidator(_lead),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,3} ?[dh]$"}),
]


class OneOrMore:
    """Marks a list that may be written as its one item: `issuer: a` for `issuer: [a]`. Goes with
    `BeforeValidator(as_list)`."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        several = handler(core)
        return {"anyOf": [several["items"], several]}


def as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value
