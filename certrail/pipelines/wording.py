"""pydantic's errors, said for somebody who has never heard of pydantic."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from certrail.errors import Fault
from certrail.keys import KeyType
from certrail.pipelines.authorities import AUTHORITIES
from certrail.pipelines.forms import LOOKS, Forms
from certrail.pipelines.model import (
    Account,
    Defaults,
    ExternalAccount,
    Incoming,
    IssuerEntry,
    LimitsEntry,
    PipelineEntry,
    PipelinesFile,
)
from certrail.pipelines.source import Path, Source
from certrail.pipelines.waves import WaveEntry
from certrail.pipelines.zones import ZONES
from certrail.target import FromDefaults, Wrong

WANTED = {
    "string_type": "text",
    "bool_type": "`true` or `false`",
    "bool_parsing": "`true` or `false`",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "tuple_type": "a list",
    "list_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping of keys and values",
    "model_type": "a mapping of keys and values",
    "model_attributes_type": "a mapping of keys and values",
}


def nearest(name: str, names: Iterable[str]) -> str:
    """What would be right instead of `name`: the one that looks like it, or all there are."""
    names = sorted(names)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"there is {listed(names)}" if names else ""


def listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def as_written(value: object) -> str:
    """A value as it may stand in the file."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def spoken(errors: Iterable[ErrorDetails], source: Source, forms: Forms) -> Iterator[Fault]:
    """The faults of the file that a validation found.

    source: what was validated, before defaults were filled in; an error at something that was
    filled in is left out, as it is told where it was written.
    """
    located = [(_path(error["loc"], source, forms), error) for error in errors]
    misspelt = {
        (*path[:-1], close)
        for path, error in located
        if error["type"] == "extra_forbidden" and (close := _close_key(path, source, forms))
    }
    for path, error in located:
        if error["type"] == "missing":
            # A misspelt key is one fault, not an unknown key and a missing one.
            if path not in misspelt:
                yield _missing(path, source, forms)
        elif error["type"] == "too_short" and error["input"]:
            continue  # pydantic counts the valid items only, and told of the others
        elif not _was_filled_in(path, source):
            yield _fault(path, error, source, forms)


def _was_filled_in(path: Path, source: Source) -> bool:
    """Whether it stands in a key that a target has from `defaults`, where it is told."""
    match path:
        case ("pipelines", _, "targets", _, str(key), *_) if key != "[key]":
            return path[:5] not in source.lines
    return False


def _path(loc: Path, source: Source, forms: Forms) -> Path:
    """Where it stands in the file. Of several kinds, pydantic puts the one it took after the item's
    number; and it numbers the one item that stands for a list."""
    if loc[2:3] == ("targets",) and len(loc) > 4 and loc[4] in forms.tags:
        loc = (*loc[:4], *loc[5:])
    if loc[:1] == ("zones",) and len(loc) > 2 and loc[2] in ZONES:
        loc = (*loc[:2], *loc[3:])
    if loc not in source.lines and loc[-1:] == (0,) and loc[:-1] in source.lines:
        return loc[:-1]
    return loc


def _at(path: Path, data: Any) -> Any:
    for step in path:
        data = data[step]
    return data


def _model(path: Path, source: Source, forms: Forms) -> type[BaseModel] | None:
    """The model of the mapping at `path`."""
    match path:
        case ():
            return PipelinesFile
        case ("issuers", _):
            return IssuerEntry
        case ("issuers", _, "external_account"):
            return ExternalAccount
        case ("issuers", _, "limits"):
            return LimitsEntry
        case ("zones", _):
            return ZONES.get(str(_at(path, source.data).get("provider")))
        case ("accounts", _):
            return Account
        case ("defaults",):
            return Defaults
        case ("pipelines", _):
            return PipelineEntry
        case ("pipelines", _, "incoming"):
            return Incoming
        case ("pipelines", _, "waves", _) | ("defaults", "waves", _):
            return WaveEntry
        case ("pipelines", _, "targets", _):
            return forms.of(_at(path, source.data))
    return None


def _thing(path: Path, source: Source) -> str:
    """What the mapping at `path` is called: pipeline `shop`, target `acm`, issuer `letsencrypt`."""
    match path:
        case ():
            return "the file"
        case ("issuers", name):
            return f"issuer `{name}`"
        case ("accounts", name):
            return f"account `{name}`"
        case ("zones", int(number)):
            name = _at(path, source.data).get("zone")
            return f"zone `{name}`" if isinstance(name, str) else f"zone {number + 1}"
        case ("pipelines", int(number)):
            name = _at(path, source.data).get("name")
            return f"pipeline `{name}`" if isinstance(name, str) else f"pipeline {number + 1}"
        case ("pipelines", _, "waves", int(number)) | ("defaults", "waves", int(number)):
            name = _at(path, source.data).get("name")
            return f"wave `{name}`" if isinstance(name, str) else f"wave {number + 1}"
        case ("pipelines", _, "targets", int(number)):
            entry = _at(path, source.data)
            kind = entry.get("type")
            said = "selection" if any(key in entry for key in LOOKS) else "target"
            return f"{said} `{kind}`" if isinstance(kind, str) else f"{said} {number + 1}"
    return f"`{path[-1]}`"


def _subject(path: Path) -> str:
    """What the value at `path` is called."""
    match path:
        case ():
            return "the file"
        case ("zones", int(number)):
            return f"zone {number + 1}"
        case ("pipelines", int(number)):
            return f"pipeline {number + 1}"
        case ("pipelines", _, "targets", int(number)):
            return f"target {number + 1}"
        case ("pipelines", _, "waves", int(number)) | ("defaults", "waves", int(number)):
            return f"wave {number + 1}"
        case (*_, str(name), int(number)):
            return f"`{name}`, item {number + 1},"
    return f"`{path[-1]}`"


def _unused_keys(path: Path, source: Source, forms: Forms) -> list[str]:
    """The keys that the mapping at `path` may have and has not."""
    model = _model(path, source, forms)
    present = _at(path, source.data)
    return [key for key in model.model_fields if key not in present] if model else []


def _close_key(path: Path, source: Source, forms: Forms) -> str | None:
    candidates = _unused_keys(path[:-1], source, forms)
    return next(iter(difflib.get_close_matches(str(path[-1]).lower(), candidates, n=1)), None)


def _missing(path: Path, source: Source, forms: Forms) -> Fault:
    *above, key = path
    around = tuple(above)
    what = f"{_thing(around, source)} has no `{key}`"
    model = _model(around, source, forms)
    info = model.model_fields.get(str(key)) if model else None
    right = (
        f"add `{key}: {as_written(info.examples[0])}`"
        if info and info.examples
        else f"add `{key}:`"
    )
    for mark in info.metadata if info else ():
        if isinstance(mark, FromDefaults):
            right += f", or set `defaults.{mark.key or key}`"
    return source.fault(around, what, right)


def _fault(path: Path, error: ErrorDetails, source: Source, forms: Forms) -> Fault:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if path[-1:] == ("[key]",):
        path = path[:-1]
    subject = _subject(path)
    match kind:
        case "extra_forbidden":
            close = _close_key(path, source, forms)
            unused = _unused_keys(path[:-1], source, forms)
            what = f"unknown key `{path[-1]}` in {_thing(path[:-1], source)}"
            if close:
                return source.fault(path, what, f"did you mean `{close}`?")
            return source.fault(
                path,
                what,
                f"remove it; the keys left are {listed(unused)}" if unused else "remove it",
            )
        case "union_tag_not_found":
            tag = "provider" if path[0] == "zones" else "type"
            what = f"{subject} has no `{tag}`"
            if meant := difflib.get_close_matches(tag, value, n=1):
                return source.fault((*path, meant[0]), what, f"write `{tag}:` for `{meant[0]}:`")
            choice = ZONES if path[0] == "zones" else forms.kinds
            return source.fault(path, what, f"add `{tag}:`, one of {listed(sorted(choice))}")
        case "union_tag_invalid":
            chosen = str(context["tag"])
            if path[0] == "zones":
                what, right = f"there is no provider `{chosen}`", nearest(chosen, ZONES)
                return source.fault((*path, "provider"), what, right)
            what = f"there is no target type `{chosen}`"
            return source.fault((*path, "type"), what, nearest(chosen, forms.kinds))
        case "enum" if "key_type" in path[-2:] and isinstance(value, list):
            what = f"{subject} is a list, where one is needed"
            return source.fault(path, what, "several are for a pipeline to list")
        case "literal_error" if path[-1:] == ("ca",) and isinstance(value, str):
            right = nearest(value, AUTHORITIES)
            return source.fault(
                path, f"there is no CA `{value}` here", f"{right}, or give its `directory:` instead"
            )
        case "enum" if "key_type" in path[-2:]:
            what = f"there is no key type `{value}`"
            return source.fault(path, what, nearest(str(value), KeyType))
        case "enum" | "literal_error":
            what = f"{subject} cannot be {_quoted(value)}"
            choice = context["expected"].replace("'", "`")
            return source.fault(path, what, f"it may be {choice}")
        case "value_error":
            reason = context["error"]
            if isinstance(reason, Wrong):
                return source.fault(path, reason.what, reason.right)
            what, _, right = str(reason).partition(" → ")
            return source.fault(path, what, right)
        case "too_short" | "string_too_short" if not value:
            return source.fault(path, f"{subject} is empty", _example(path, source, forms))
        case "too_long":
            what = f"{subject} has {context['actual_length']} entries"
            return source.fault(path, what, f"at most {context['max_length']} are possible")
        case "string_too_long":
            what = f"{subject} is {len(value)} characters long"
            return source.fault(path, what, f"at most {context['max_length']} are possible")
        case "string_pattern_mismatch":
            what = f"{subject} cannot be `{value}`"
            return source.fault(path, what, _example(path, source, forms))
    if kind in WANTED:
        what = f"{subject} is {_said(value)}, where {WANTED[kind]} is needed"
        return source.fault(path, what, _reshaped(kind, value))
    what, _, right = error["msg"].removeprefix("Input ").partition(" → ")
    return source.fault(path, f"{subject} {what}", right)


def _quoted(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else _said(value)


def _example(path: Path, source: Source, forms: Forms) -> str:
    model = _model(path[:-1], source, forms) if path else None
    info = model.model_fields.get(str(path[-1])) if model else None
    return (
        f"for example `{as_written(info.examples[0])}`"
        if info and info.examples
        else "write at least one"
    )


def _said(value: Any) -> str:
    match value:
        case None:
            return "left empty"
        case bool():
            return f"`{str(value).lower()}` to YAML"
        case int() | float():
            return f"the number `{value}`"
        case str():
            return f"the text `{value}`"
        case list():
            return "a list"
    return "a mapping of keys and values"


def _reshaped(kind: str, value: Any) -> str:
    """How the value at hand becomes what is needed."""
    wanted = WANTED[kind]
    match value:
        case None:
            return "give it a value, or remove the key"
        case bool() if wanted == "text":
            return "put it in quotes, as it was written"
        case int() | float() if wanted == "text":
            return f'put it in quotes: "{value}"'
        case str() if wanted.startswith("a mapping"):
            return "write `key: value`, one to a line"
        case str() if wanted == "a list":
            return f'write `["{value}"]`'
        case {"name": _} | {"type": _} if wanted == "a list":
            return "put `- ` before its first key"
        case [str(first)] if wanted == "text":
            return f"write `{first}`"
    return f"write {wanted}"
