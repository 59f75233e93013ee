"""The forms of an entry of `targets`: a target of some kind, or a selection that finds some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property, reduce
from operator import or_
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, Discriminator, Tag, TypeAdapter

from certrail.pipelines.selection import SelectedBy, Selection
from certrail.target import Target

# The keys that make an entry a selection.
LOOKS = ("select", "covers")


@dataclass(frozen=True)
class Forms:
    """kinds, selections: by the `type` they have in the file; none where targets are opaque.
    entry: the type of an entry, for pydantic."""

    kinds: Mapping[str, type[Target]]
    selections: Mapping[str, type[Selection]]
    entry: Any

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Reads one entry."""
        return TypeAdapter(self.entry)

    def of(self, entry: object) -> type[BaseModel] | None:
        """The model of an entry as the file has it, None where there is none of its type."""
        if not isinstance(entry, dict):
            return None
        name = str(entry.get("type"))
        return self.selections.get(name) if self.is_selection(entry) else self.kinds.get(name)

    def is_selection(self, entry: Mapping[str, Any]) -> bool:
        return str(entry.get("type")) in self.selections and any(key in entry for key in LOOKS)

    @property
    def tags(self) -> frozenset[str]:
        """What pydantic calls the forms where it tells of an error."""
        several = len(self.kinds) + len(self.selections) > 1
        tags = {*self.kinds, *map(_tag, self.selections)}
        return frozenset(tags) if several else frozenset()


@cache
def forms_of(target: Any) -> Forms:
    """The forms in a type of target, as `load` takes it. Always the same ones, so that pydantic
    makes its models of them once: the router reads the file at each event."""
    kinds = _kinds(target)
    selections = {
        _type_of(selection): selection
        for mark in getattr(target, "__metadata__", ())
        if isinstance(mark, SelectedBy)
        for selection in mark.selections
    }
    if not selections:
        return Forms(kinds, {}, target)

    def tag(entry: Any) -> str | None:
        if not isinstance(entry, dict):
            # Any form says that it wants a mapping.
            return next(iter(kinds))
        if "type" not in entry:
            return None
        return _tag(str(entry["type"])) if forms.is_selection(entry) else str(entry["type"])

    models: dict[str, Any] = kinds | {_tag(name): each for name, each in selections.items()}
    union = reduce(or_, (Annotated[model, Tag(name)] for name, model in models.items()))
    forms = Forms(kinds, selections, Annotated[union, Discriminator(tag)])
    return forms


def _kinds(target: Any) -> dict[str, type[Target]]:
    if get_origin(target) is Annotated:
        target = get_args(target)[0]
    members = get_args(target) if get_origin(target) is not dict else ()
    return {
        _type_of(kind): kind
        for kind in members or (target,)
        if isinstance(kind, type) and issubclass(kind, Target)
    }


def _type_of(model: type[BaseModel]) -> str:
    name: str = get_args(model.model_fields["type"].annotation)[0]
    return name


def _tag(name: str) -> str:
    return f"{name} selection"
