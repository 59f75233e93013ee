"""From the text of pipelines.yaml to `Pipelines`, or to every fault it has."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from certrail.errors import Fault, PipelinesInvalid
from certrail.pipelines.check import check
from certrail.pipelines.forms import Forms, forms_of
from certrail.pipelines.model import PipelinesFile
from certrail.pipelines.resolved import Pipelines, resolve
from certrail.pipelines.source import parse
from certrail.pipelines.wording import spoken
from certrail.target import FromDefaults

T = TypeVar("T")

START = "start it with `issuers:` and `pipelines:`"


def load(text: str | bytes, file: str, model: type[Pipelines[T]]) -> Pipelines[T]:
    """Read pipelines.yaml.

    file: its name, for the faults. model: `Pipelines[…]` of the targets to expect: a kind, a union
    of kinds told apart by `type`, with or without selections, or `Opaque`. Raises PipelinesInvalid
    with all faults at once.
    """
    (target,) = get_args(model)
    forms = forms_of(target)
    source = parse(text, file)
    if source.data is None:
        raise PipelinesInvalid([Fault(file, 1, "the file is empty", START)])
    if not isinstance(source.data, dict):
        shape = "a list" if isinstance(source.data, list) else "one piece of text"
        raise PipelinesInvalid([source.fault((), f"the file is {shape} at the top", START)])
    data = _with_defaults(source.data, forms)
    faults = [*source.faults, *check(source, data, forms.adapter)]
    try:
        read = file_model(target).model_validate(data)
    except ValidationError as error:
        faults += spoken(error.errors(include_url=False), source, forms)
        raise PipelinesInvalid(dict.fromkeys(faults)) from None
    if faults:
        raise PipelinesInvalid(dict.fromkeys(faults))
    return resolve(read)


def file_model(target: Any) -> type[PipelinesFile[Any]]:
    """The model of the whole file for a type of target."""
    whole: type[PipelinesFile[Any]] = PipelinesFile.__class_getitem__(forms_of(target).entry)  # type: ignore[assignment]
    return whole


def _with_defaults(data: dict[str, Any], forms: Forms) -> dict[str, Any]:
    """The file with what its targets leave to `defaults` written into them."""
    defaults = data.get("defaults")
    pipelines = data.get("pipelines")
    if not isinstance(defaults, dict) or not isinstance(pipelines, list):
        return data

    def filled(target: Any) -> Any:
        model = forms.of(target)
        if model is None:
            return target
        left_out = {
            name: defaults[key]
            for name, info in model.model_fields.items()
            if name not in target
            for mark in info.metadata
            if isinstance(mark, FromDefaults)
            if defaults.get(key := mark.key or name) is not None
        }
        return target | left_out

    def with_targets(entry: Any) -> Any:
        if not isinstance(entry, dict) or not isinstance(entry.get("targets"), list):
            return entry
        return entry | {"targets": [filled(target) for target in entry["targets"]]}

    return data | {"pipelines": [with_targets(entry) for entry in pipelines]}
