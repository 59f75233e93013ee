"""Waves as pipelines.yaml has them; what they mean is in `certrail.waves`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from certrail.pipelines.entry import Entry
from certrail.target import Wrong

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
BAKE = re.compile(r"([1-9][0-9]{0,3}) ?([mhd])")
UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
# docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
ALARM = re.compile(
    r"arn:aws[a-z-]*:cloudwatch:[a-z0-9-]+:[0-9]{12}:alarm:.{1,255}|(?!arn:).{1,255}"
)


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise Wrong(f"`{text}` cannot name a wave", "letters, digits, `.`, `-` and `_`")
    return text


def _bake(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    match = BAKE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        said = f"`{value}`" if isinstance(value, str | int | float) else "this"
        raise Wrong(f"{said} is not a time", "write minutes, hours or days, like `30m`, `2h`, `1d`")
    return int(match[1]) * UNITS[match[2]]


def _alarm(text: str) -> str:
    if not ALARM.fullmatch(text):
        raise Wrong(
            f"`{text}` is neither the name nor the ARN of a CloudWatch alarm",
            "it looks like `arn:aws:cloudwatch:eu-central-1:111111111111:alarm:shop-5xx`",
        )
    return text


class WaveEntry(Entry):
    """Targets that get a new certificate together."""

    name: Annotated[str, AfterValidator(_name)] = Field(
        description="What targets call it in `wave`.", examples=["canary"]
    )
    bake: Annotated[
        timedelta,
        BeforeValidator(_bake),
        WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,3} ?[mhd]$"}),
    ] = Field(
        default=timedelta(0),
        description="How long all of it must have been served before the next wave begins; left "
        "out, it begins at once.",
        examples=["30m"],
    )
    alarms: tuple[Annotated[str, AfterValidator(_alarm)], ...] = Field(
        default=(),
        description="CloudWatch alarms, by name or ARN, that must not ring: before the wave, and "
        "until its bake is over. One that begins to ring meanwhile rolls the pipeline back.",
        examples=[["shop-5xx"]],
    )
