"""What no single value can tell: names that must exist, and things that must not be there twice.

Works on whatever part of the file makes sense by itself, so that these faults are told together
with the others, in one go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from certrail.errors import Fault
from certrail.keys import KeyType
from certrail.pipelines.domains import covered_by, normalise
from certrail.pipelines.model import issuer_name, key_type
from certrail.pipelines.source import Path, Source
from certrail.pipelines.wording import listed, nearest
from certrail.store import spell
from certrail.target import Target, Wrong, with_needs


def check(source: Source, data: Mapping[str, Any], target: TypeAdapter[Any]) -> Iterator[Fault]:
    """data: as in `source`, with defaults filled in."""
    entries = list(_mappings(data.get("pipelines")))
    yield from _repeated_names(source, entries)
    for path, entry in entries:
        yield from _domains(source, path, entry)
    yield from _issuers(source, data, entries)
    placed = [
        Placed(path, entry, index, value)
        for path, entry in entries
        for index, item in _mappings(entry.get("targets"), (*path, "targets"))
        if isinstance(value := _valid(target, item), Target)
    ]
    yield from _accounts(source, data, placed)
    yield from _claims(source, placed)
    yield from _key_types(source, data, placed)


@dataclass(frozen=True)
class Placed:
    """A target that is valid by itself. pipeline, path: where its pipeline and itself stand."""

    pipeline: Path
    entry: Mapping[str, Any]
    path: Path
    target: Target


def _mappings(value: object, path: Path = ("pipelines",)) -> Iterator[tuple[Path, dict[str, Any]]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield (*path, index), item


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _valid(kind: TypeAdapter[Any], value: object) -> Any:
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None


def _repeated_names(source: Source, entries: list[tuple[Path, dict[str, Any]]]) -> Iterator[Fault]:
    first: dict[str, Path] = {}
    for path, entry in entries:
        name = entry.get("name")
        if not isinstance(name, str):
            continue
        here = (*path, "name")
        if (seen := first.setdefault(spell(name), here)) != here:
            line = source.lines[seen]
            yield source.fault(
                here,
                f"the name `{name}` is taken by the pipeline on line {line}",
                "every pipeline has a name of its own",
            )


def _domains(source: Source, path: Path, entry: dict[str, Any]) -> Iterator[Fault]:
    names: dict[str, Path] = {}
    listing = entry.get("domains")
    for index, text in enumerate(listing if isinstance(listing, list) else []):
        here = (*path, "domains", index)
        try:
            name = normalise(text) if isinstance(text, str) else None
        except Wrong:
            name = None
        if name is None:
            continue
        if (seen := names.setdefault(name, here)) != here:
            said = f"`{text}` is `{name}`, which" if text != name else f"`{name}`"
            yield source.fault(
                here, f"{said} is listed twice, first on line {source.lines[seen]}", "remove one"
            )
    for name, here in names.items():
        if wildcard := covered_by(name, tuple(names)):
            yield source.fault(
                here,
                f"`{name}` is covered by `{wildcard}` of the same certificate",
                "remove it: Let's Encrypt refuses an order with both",
            )


def _issuers(
    source: Source, data: Mapping[str, Any], entries: list[tuple[Path, dict[str, Any]]]
) -> Iterator[Fault]:
    issuers = _mapping(data.get("issuers"))
    default = _mapping(data.get("defaults")).get("issuer")
    named: list[tuple[Path, Any]] = [(("defaults", "issuer"), default)]
    named += [((*path, "issuer"), entry.get("issuer")) for path, entry in entries]
    for path, name in named:
        if isinstance(name, str) and name not in issuers:
            yield source.fault(path, f"there is no issuer `{name}`", nearest(name, issuers))
    for path, entry in entries:
        own = entry.get("issuer")
        try:
            if issuers and own is None:
                issuer_name(None, default, issuers)
        except Wrong as wrong:
            yield source.fault(path, wrong.what, wrong.right)


def _accounts(source: Source, data: Mapping[str, Any], placed: list[Placed]) -> Iterator[Fault]:
    accounts = _mapping(data.get("accounts"))
    for place in placed:
        name = place.target.account
        if name is not None and name not in accounts:
            yield source.fault(
                (*place.path, "account"),
                f"there is no account `{name}`",
                nearest(name, accounts) or "add it under `accounts:` at the top",
            )


def _claims(source: Source, placed: list[Placed]) -> Iterator[Fault]:
    addresses: dict[tuple[Path, str], Path] = {}
    claims: dict[str, Placed] = {}
    for place in placed:
        address, claim = place.target.address, place.target.claim
        seen = addresses.setdefault((place.pipeline, address), place.path)
        if seen != place.path:
            yield source.fault(
                place.path,
                f"`{address}` is a target of this pipeline already, on line {source.lines[seen]}",
                "remove one of the two",
            )
        elif claim is not None and (holder := claims.setdefault(claim, place)) is not place:
            name, line = holder.entry.get("name"), source.lines[holder.path]
            yield source.fault(
                place.path,
                f"`{claim}` belongs to pipeline `{name}`, on line {line}",
                "two certificates cannot be in the same place: choose one",
            )


def _key_types(source: Source, data: Mapping[str, Any], placed: list[Placed]) -> Iterator[Fault]:
    issuers = _mapping(data.get("issuers"))
    defaults = _mapping(data.get("defaults"))
    for place in placed:
        try:
            name = issuer_name(place.entry.get("issuer"), defaults.get("issuer"), issuers)
        except Wrong:
            name = ""
        wanted = key_type(
            _key_type(place.entry),
            _key_type(_mapping(issuers.get(name) if isinstance(name, str) else None)),
            _key_type(defaults),
        )
        possible = frozenset(KeyType).intersection(
            *(target.key_types for target in with_needs([place.target]).values())
        )
        if wanted not in possible:
            ordered = [kind for kind in KeyType if kind in possible]
            yield source.fault(
                place.path,
                f"`{place.target.address}` cannot serve a key of type `{wanted}`",
                f"set this pipeline's `key_type` to one of {listed(ordered)}",
            )


def _key_type(mapping: Mapping[str, Any]) -> KeyType | None:
    name = mapping.get("key_type")
    return KeyType(name) if isinstance(name, str) and name in set(KeyType) else None
