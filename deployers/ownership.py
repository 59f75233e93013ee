"""Whose a resource in AWS is: two tags say it, set in the same call that makes the resource."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from certrail.store import spell
from certrail.target import Context

OWNER, PIPELINE = "certrail:owner", "certrail:pipeline"


def identity(context: Context) -> Mapping[str, str]:
    """The tags by which an installation knows a pipeline's resource again."""
    return {OWNER: context.owner, PIPELINE: spell(context.pipeline)}


def tags_of(listed: Iterable[Any]) -> dict[str, str]:
    """listed: pairs of Key and Value, as services list tags."""
    return {tag["Key"]: tag.get("Value", "") for tag in listed}
