"""From the text of pipelines.yaml to `Pipelines`, or to every fault it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from certrail.errors import Fault, PipelinesInvalid
from certrail.pipelines.check import check
from certrail.pipelines.model import Pipelines, PipelinesFile, resolve
from certrail.pipelines.source import parse
from certrail.pipelines.wording import spoken
from certrail.target import FromDefaults, Target

T = TypeVar("T")

START = "start it with `issuers:` and `pipelines:`"


def load(text: str | bytes, file: str, model: type[Pipelines[T]]) -> Pipelines[T]:
    """Read pipelines.yaml.

    file: its name, for the faults. model: `Pipelines[…]` of the targets to expect: a kind, a union
    of kinds told apart by `type`, or `Opaque`. Raises PipelinesInvalid with all faults at once.
    """
    (target,) = get_args(model)
    kinds = kinds_of(target)
    source = parse(text, file)
    if source.data is None:
        raise PipelinesInvalid([Fault(file, 1, "the file is empty", START)])
    if not isinstance(source.data, dict):
        shape = "a list" if isinstance(source.data, list) else "one piece of text"
        raise PipelinesInvalid([source.fault((), f"the file is {shape} at the top", START)])
    data = _with_defaults(source.data, kinds)
    faults = [*source.faults, *check(source, data, TypeAdapter(target))]
    try:
        read = file_model(target).model_validate(data)
    except ValidationError as error:
        faults += spoken(error.errors(include_url=False), source, kinds)
        raise PipelinesInvalid(dict.fromkeys(faults)) from None
    if faults:
        raise PipelinesInvalid(dict.fromkeys(faults))
    return resolve(read)


def file_model(target: Any) -> type[PipelinesFile[Any]]:
    """The model of the whole file for a type of target."""
    return PipelinesFile[target]


def kinds_of(target: Any) -> dict[str, type[Target]]:
    """The kinds in a type of target, by the `type` they have in the file; none in `Opaque`."""
    if get_origin(target) is Annotated:
        target = get_args(target)[0]
    members = get_args(target) if get_origin(target) is not dict else ()
    return {
        get_args(kind.model_fields["type"].annotation)[0]: kind
        for kind in members or (target,)
        if isinstance(kind, type) and issubclass(kind, Target)
    }


def _with_defaults(data: dict[str, Any], kinds: Mapping[str, type[Target]]) -> dict[str, Any]:
    """The file with what its targets leave to `defaults` written into them."""
    defaults = data.get("defaults")
    pipelines = data.get("pipelines")
    if not isinstance(defaults, dict) or not isinstance(pipelines, list):
        return data

    def filled(target: Any) -> Any:
        kind = kinds.get(str(target.get("type"))) if isinstance(target, dict) else None
        if kind is None:
            return target
        left_out = {
            name: defaults[name]
            for name, info in kind.model_fields.items()
            if name not in target
            and defaults.get(name) is not None
            and any(isinstance(mark, FromDefaults) for mark in info.metadata)
        }
        return target | left_out

    def with_targets(entry: Any) -> Any:
        if not isinstance(entry, dict) or not isinstance(entry.get("targets"), list):
            return entry
        return entry | {"targets": [filled(target) for target in entry["targets"]]}

    return data | {"pipelines": [with_targets(entry) for entry in pipelines]}
