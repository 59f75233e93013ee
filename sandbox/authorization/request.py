"""What a call says by itself, whichever service it is for."""

from collections.abc import Mapping
from typing import Any

from sandbox.calls import Call

Context = dict[str, str | tuple[str, ...]]


class Unmodelled(Exception):
    """The sandbox does not know what this call needs."""


def request_context(call: Call, tags: Any = None) -> Context:
    """The condition keys that every request has, and those of the tags it brings."""
    context: Context = {"aws:RequestedRegion": call.region, "aws:SecureTransport": "true"}
    found = _tags(tags)
    if found:
        context["aws:TagKeys"] = tuple(found)
        context |= {f"aws:RequestTag/{key}": value for key, value in found.items()}
    return context


def _tags(tags: Any) -> dict[str, str]:
    """Tags in any of the shapes AWS has for them, as one mapping."""
    if isinstance(tags, Mapping) and "Items" in tags:
        tags = tags["Items"]
    if isinstance(tags, Mapping):
        return {str(key): str(value) for key, value in tags.items()}
    return {str(tag["Key"]): str(tag.get("Value", "")) for tag in tags or ()}


def tagged(tags: Any, own: str | None = None) -> Context:
    """Condition keys of the tags a resource has. own: the prefix of a service that has such keys
    besides AWS's."""
    prefixes = ("aws", own) if own else ("aws",)
    return {f"{prefix}:ResourceTag/{k}": v for prefix in prefixes for k, v in _tags(tags).items()}


def here(call: Call, rest: str) -> str:
    return f"arn:aws:{call.service}:{call.region}:{call.account}:{rest}"


def modelled(call: Call, operations: set[str]) -> None:
    if call.operation not in operations:
        raise Unmodelled(f"the sandbox does not know which resource {call.action} needs")


def last(path: str) -> str:
    """The name at the end of a path or an ARN."""
    return path.rpartition("/")[2]
