"""What no single value can tell: names that must exist, and things that must not be there twice.

Works on whatever part of the file makes sense by itself, so that these faults are told together
with the others, in one go.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import combinations
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from certrail.errors import Fault
from certrail.keys import KeyType
from certrail.pipelines.authorities import AUTHORITIES, Authority, Profile, authority
from certrail.pipelines.domains import NAMES_LIMIT, covered_by, normalise
from certrail.pipelines.entry import Lead, as_list
from certrail.pipelines.model import INCOMING, IssuerEntry, PipelinesFile
from certrail.pipelines.resolved import issuer_names, key_types, pipeline_name
from certrail.pipelines.selection import SELF, Selection
from certrail.pipelines.source import Path, Source
from certrail.pipelines.wording import listed, nearest
from certrail.pipelines.zones import ZoneName
from certrail.store import spell
from certrail.target import Link, Rotation, Target, Wrong, with_needs

T = TypeVar("T", Target, Selection)


def check(source: Source, data: Mapping[str, Any], target: TypeAdapter[Any]) -> Iterator[Fault]:
    """data: as in `source`, with defaults filled in."""
    entries = list(_mappings(data.get("pipelines")))
    yield from _repeated_names(source, entries)
    for path, entry in entries:
        yield from _domains(source, path, entry)
        yield from _repeated_keys(source, path, entry)
    yield from _cas(source, data)
    yield from _issuers(source, data, entries)
    yield from _incoming(source, data, entries)
    yield from _orders(source, data, entries)
    yield from _zones(source, data)
    placed: list[Placed[Target]] = []
    selecting: list[Placed[Selection]] = []
    for path, entry in entries:
        kinds = _kinds_of(data, entry)
        for index, item in _mappings(entry.get("targets"), (*path, "targets")):
            value = _valid(target, item)
            if isinstance(value, Target):
                placed.append(Placed(path, entry, kinds, index, value))
            elif isinstance(value, Selection):
                selecting.append(Placed(path, entry, kinds, index, value))
    yield from _accounts(source, data, placed, selecting)
    yield from _waves(source, data, entries, [*placed, *selecting])
    yield from _claims(source, placed)
    yield from _hidden(source, placed)
    yield from _repeated_selections(source, selecting)
    yield from _served_keys(source, [*placed, *selecting])


@dataclass(frozen=True)
class Placed(Generic[T]):
    """A target or a selection that is valid by itself. pipeline, path: where its pipeline and
    itself stand. kinds: the key types of the pipeline."""

    pipeline: Path
    entry: Mapping[str, Any]
    kinds: tuple[KeyType, ...]
    path: Path
    target: T

    @property
    def key_type(self) -> KeyType:
        """Of the certificate that is wanted here."""
        return self.target.key_type or self.kinds[0]

    @property
    def name(self) -> str:
        return self.target.address if isinstance(self.target, Target) else str(self.target)

    @property
    def needs(self) -> dict[str, Target]:
        """What must hold the bundle, by address: itself, where it is a target, and what it, or
        what it finds, needs."""
        return with_needs(
            self.target.homes if isinstance(self.target, Selection) else [self.target]
        )


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
        kinds = _key_types(entry)
        for each in [pipeline_name(name, kind, kinds) for kind in kinds] or [name]:
            if (seen := first.setdefault(spell(each), here)) != here:
                whose = "" if each == name else f"of its key `{each.removeprefix(name + '.')}` "
                yield source.fault(
                    here,
                    f"the name `{each}` {whose}is taken by the pipeline on line "
                    f"{source.lines[seen]}",
                    "every pipeline has a name of its own",
                )


def _names(entry: Mapping[str, Any]) -> dict[int, str]:
    """Its domains that are names, as the certificate has them, by where they stand."""
    listing = entry.get("domains")
    names: dict[int, str] = {}
    for index, text in enumerate(listing if isinstance(listing, list) else []):
        with suppress(Wrong):
            if isinstance(text, str):
                names[index] = normalise(text)
    return names


def _domains(source: Source, path: Path, entry: dict[str, Any]) -> Iterator[Fault]:
    names: dict[str, Path] = {}
    for index, name in _names(entry).items():
        here = (*path, "domains", index)
        text = entry["domains"][index]
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


def _repeated_keys(source: Source, path: Path, entry: dict[str, Any]) -> Iterator[Fault]:
    listing = entry.get("key_type")
    seen: set[str] = set()
    for index, kind in enumerate(listing if isinstance(listing, list) else []):
        if isinstance(kind, str) and kind in seen:
            yield source.fault(
                (*path, "key_type", index), f"key type `{kind}` is listed twice", "remove one"
            )
        elif isinstance(kind, str):
            seen.add(kind)


def _cas(source: Source, data: Mapping[str, Any]) -> Iterator[Fault]:
    """Which CA an issuer is at, and what that CA wants of an account."""
    for name, value in _mapping(data.get("issuers")).items():
        path, entry = ("issuers", name), _mapping(value)
        ca, directory = entry.get("ca"), entry.get("directory")
        known = _authority(entry)
        if known is None or not isinstance(value, dict):
            continue
        if ca is None and directory is None:
            if not _is_misspelt("directory", entry) and not _is_misspelt("ca", entry):
                yield source.fault(
                    path,
                    f"issuer `{name}` names no CA",
                    f"add `directory:`, or `ca:` with one of {listed(AUTHORITIES)}",
                )
        elif ca is not None and AUTHORITIES[ca].directory and directory is not None:
            yield source.fault(
                (*path, "directory"),
                f"`{ca}` has a directory of its own",
                "remove `directory:`, or `ca:` where another CA is meant",
            )
        elif ca is not None and not known.directory and directory is None:
            yield source.fault(
                path,
                f"`{ca}` has a directory for each customer",
                "add the `directory:` of yours",
            )
        missing = entry.get("external_account") is None
        if known.bound and missing and not _is_misspelt("external_account", entry):
            yield source.fault(
                path,
                f"the CA of `{name}` makes accounts only with an external account binding",
                "add `external_account:` with its `key_id` and the ARN of its `secret`",
            )


def _is_misspelt(
    key: str, entry: Mapping[str, Any], known: Iterable[str] = IssuerEntry.model_fields
) -> bool:
    """Whether an unknown key of a mapping looks like `key`: that is one fault, and told."""
    unknown = entry.keys() - set(known)
    return bool(difflib.get_close_matches(key, unknown, n=1))


def _authority(issuer: Mapping[str, Any]) -> Authority | None:
    """What is known of an issuer's CA; None where `ca` names none there is."""
    ca, directory = issuer.get("ca"), issuer.get("directory")
    if ca is not None and (not isinstance(ca, str) or ca not in AUTHORITIES):
        return None
    return authority(ca, directory if isinstance(directory, str) else None)


def _issuers(
    source: Source, data: Mapping[str, Any], entries: list[tuple[Path, dict[str, Any]]]
) -> Iterator[Fault]:
    issuers = _mapping(data.get("issuers"))
    default = _texts(_mapping(data.get("defaults")).get("issuer"))
    yield from _no_issuers(source, data, entries)
    if INCOMING in issuers:
        yield source.fault(
            ("issuers", INCOMING),
            f"`{INCOMING}` is the issuer of certificates that come from elsewhere",
            "choose another name for it",
        )
    named: list[tuple[Path, object]] = [
        (("defaults", "issuer"), _mapping(data.get("defaults")).get("issuer"))
    ]
    named += [((*path, "issuer"), entry.get("issuer")) for path, entry in entries]
    for path, value in named:
        names = _texts(value)
        for index, name in enumerate(names):
            here = (*path, index) if isinstance(value, list) else path
            if name == INCOMING and len(names) > 1:
                yield source.fault(
                    here,
                    f"`{INCOMING}` is no issuer to try among others",
                    "give it alone, or remove it",
                )
            elif name not in issuers and name != INCOMING:
                yield source.fault(here, f"there is no issuer `{name}`", nearest(name, issuers))
            elif name in names[:index]:
                yield source.fault(here, f"issuer `{name}` is listed twice", "remove one")
    for path, entry in entries:
        try:
            if issuers and entry.get("issuer") is None:
                issuer_names(None, default, issuers)
        except Wrong as wrong:
            yield source.fault(path, wrong.what, wrong.right)


def _no_issuers(
    source: Source, data: Mapping[str, Any], entries: list[tuple[Path, dict[str, Any]]]
) -> Iterator[Fault]:
    """Who issues nothing needs none."""
    if entries and all(_is_incoming(data, entry) for _, entry in entries):
        return
    if data.get("issuers") == {}:
        yield source.fault(("issuers",), "`issuers` is empty", "write at least one")
    elif "issuers" not in data and not _is_misspelt("issuers", data, PipelinesFile.model_fields):
        yield source.fault((), "the file has no `issuers`", "add `issuers:`")


def _is_incoming(data: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    default = _texts(_mapping(data.get("defaults")).get("issuer"))
    return (_texts(entry.get("issuer")) or default) == (INCOMING,)


def _incoming(
    source: Source, data: Mapping[str, Any], entries: list[tuple[Path, dict[str, Any]]]
) -> Iterator[Fault]:
    """What makes sense of certificates from elsewhere, and what of them only."""
    for path, entry in entries:
        own = _mapping(entry.get("incoming"))
        if not _is_incoming(data, entry):
            if "incoming" in entry:
                yield source.fault(
                    (*path, "incoming"),
                    "this pipeline's certificate is not from elsewhere",
                    f"set `issuer: {INCOMING}`, or remove `incoming:`",
                )
            continue
        if "profile" in entry:
            yield source.fault(
                (*path, "profile"),
                "a profile is for an order, and this certificate is not ordered here",
                "remove it",
            )
        if "certificate_arn" not in own:
            continue
        if "password_secret" in own:
            yield source.fault(
                (*path, "incoming", "password_secret"),
                "what is exported from ACM has no password of yours",
                "remove it, or `certificate_arn`",
            )
        if len(kinds := _key_types(entry)) > 1:
            yield source.fault(
                (*path, "key_type"),
                f"one certificate of ACM has one key, and here are {len(kinds)} types",
                "give the one that it has",
            )


def _orders(
    source: Source, data: Mapping[str, Any], entries: list[tuple[Path, dict[str, Any]]]
) -> Iterator[Fault]:
    """What the CAs that are known would refuse, or what could never be in time."""
    for path, entry in entries:
        names = _issuers_of(data, entry)
        own = entry.get("profile")
        if own is not None and len(names) > 1:
            yield source.fault(
                (*path, "profile"),
                f"a profile belongs to one CA, and this pipeline has {len(names)} issuers",
                "set `profile` on each issuer instead",
            )
            continue
        for name in names:
            issuer = _mapping(_mapping(data.get("issuers")).get(name))
            asked = own if isinstance(own, str) else issuer.get("profile")
            known = _profile(issuer, asked if isinstance(asked, str) else "")
            if known is not None:
                said = f"`{name}` with profile `{asked}`" if asked else f"`{name}`"
                yield from _too_many_names(source, path, entry, known, said)
                yield from _too_early(source, path, entry, known, said)


def _too_many_names(
    source: Source, path: Path, entry: dict[str, Any], known: Profile, said: str
) -> Iterator[Fault]:
    domains = entry.get("domains")
    count = len(domains) if isinstance(domains, list) else 0
    # More than that is too many for every CA, and told as such.
    if known.names < count <= NAMES_LIMIT:
        yield source.fault(
            (*path, "domains"),
            f"there are {count} names, and certificates from {said} have at most {known.names}",
            "split the pipeline, or choose another profile",
        )


def _too_early(
    source: Source, path: Path, entry: dict[str, Any], known: Profile, said: str
) -> Iterator[Fault]:
    lead = _valid(TypeAdapter(Lead), entry.get("renew_before"))
    if isinstance(lead, timedelta) and lead >= known.life:
        life = f"{known.life / timedelta(days=1):.3g} days"
        yield source.fault(
            (*path, "renew_before"),
            f"certificates from {said} live {life}: one would be due as soon as it is there",
            "give less than that, or leave it out",
        )


def _profile(issuer: Mapping[str, Any], asked: str) -> Profile | None:
    """The profile that an issuer's orders get, None where it is not known."""
    known = _authority(issuer)
    return known.profiles.get(asked) if known else None


def _issuers_of(data: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The issuers of a pipeline that are there."""
    issuers = _mapping(data.get("issuers"))
    default = _texts(_mapping(data.get("defaults")).get("issuer"))
    try:
        names = issuer_names(_texts(entry.get("issuer")), default, issuers)
    except Wrong:
        return ()
    return tuple(name for name in names if name in issuers)


def _zones(source: Source, data: Mapping[str, Any]) -> Iterator[Fault]:
    accounts = _mapping(data.get("accounts"))
    first: dict[str, Path] = {}
    for path, entry in _mappings(data.get("zones"), ("zones",)):
        zone = _valid(TypeAdapter(ZoneName), entry.get("zone"))
        account = entry.get("account") if entry.get("provider") == "route53" else None
        if isinstance(account, str) and account not in accounts:
            yield source.fault(
                (*path, "account"),
                f"there is no account `{account}`",
                nearest(account, accounts) or "add it under `accounts:` at the top",
            )
        if zone is not None and (seen := first.setdefault(zone, path)) != path:
            yield source.fault(
                path, f"zone `{zone}` is on line {source.lines[seen]} already", "remove one"
            )


def _accounts(
    source: Source,
    data: Mapping[str, Any],
    placed: list[Placed[Target]],
    selecting: list[Placed[Selection]],
) -> Iterator[Fault]:
    accounts = _mapping(data.get("accounts"))
    if SELF in accounts:
        yield source.fault(
            ("accounts", SELF),
            f"`{SELF}` is the account certrail runs in",
            "choose another name for it",
        )
    for place in placed:
        name = place.target.account
        if name is not None and name not in accounts:
            yield source.fault((*place.path, "account"), *_no_account(name, accounts))
    for selection in selecting:
        for index, name in enumerate(selection.target.accounts):
            here = (*selection.path, "accounts", index)
            if name != SELF and name not in accounts:
                yield source.fault(here, *_no_account(name, [*accounts, SELF]))


def _no_account(name: str, accounts: Iterable[str]) -> tuple[str, str]:
    return (
        f"there is no account `{name}`",
        nearest(name, accounts) or "add it under `accounts:` at the top",
    )


def _waves(
    source: Source,
    data: Mapping[str, Any],
    entries: list[tuple[Path, dict[str, Any]]],
    placed: Sequence[Placed[Any]],
) -> Iterator[Fault]:
    defaults = _mapping(data.get("defaults"))
    owners: list[tuple[Path, Mapping[str, Any]]] = [(("defaults",), defaults), *entries]
    for path, owner in owners:
        first: dict[str, Path] = {}
        for here, wave in _mappings(owner.get("waves"), (*path, "waves")):
            name = wave.get("name")
            if isinstance(name, str) and (seen := first.setdefault(name, here)) != here:
                yield source.fault(
                    here, f"wave `{name}` is on line {source.lines[seen]} already", "rename one"
                )
    for path, entry in entries:
        listed_waves = entry.get("waves", defaults.get("waves"))
        names = [str(wave.get("name")) for _, wave in _mappings(listed_waves)]
        mine = [place for place in placed if place.pipeline == path]
        for place in mine:
            if place.target.wave is not None and place.target.wave not in names:
                yield source.fault(
                    (*place.path, "wave"),
                    f"there is no wave `{place.target.wave}`",
                    nearest(place.target.wave, names)
                    or "add it under `waves:` of the pipeline, or of `defaults`",
                )
        if (entry.get("rotation") or defaults.get("rotation")) != Rotation.REPLACE:
            yield from _shared_between_waves(source, mine, names[-1:])
            continue
        for place in mine:
            if not place.target.replaceable:
                yield source.fault(
                    place.path,
                    f"`{place.target.address}` names a resource of yours, which is never left for "
                    "another",
                    "remove `certificate_arn`, or the pipeline's `rotation: replace`",
                )


def _shared_between_waves(
    source: Source, placed: Sequence[Placed[Any]], last: list[str]
) -> Iterator[Fault]:
    """What is imported again changes for all that use it at once: no wave can be the first."""
    first: dict[tuple[KeyType, str], Placed[Any]] = {}
    for place in placed:
        wave = place.target.wave or next(iter(last), None)
        for address in place.needs:
            holder = first.setdefault((place.key_type, address), place)
            theirs = holder.target.wave or next(iter(last), None)
            if theirs != wave:
                yield source.fault(
                    place.path,
                    f"`{place.name}` in wave `{wave}` and `{holder.name}` in wave `{theirs}` use "
                    f"the same import, `{address}`, whose content changes for both at once",
                    "set `rotation: replace` for the pipeline, or put both into one wave",
                )
                break


def _claims(source: Source, placed: list[Placed[Target]]) -> Iterator[Fault]:
    addresses: dict[tuple[Path, KeyType, str], Path] = {}
    claims: dict[str, Placed[Target]] = {}
    for place in placed:
        address = place.target.address
        seen = addresses.setdefault((place.pipeline, place.key_type, address), place.path)
        if seen != place.path:
            yield source.fault(
                place.path,
                f"`{address}` is a target of this pipeline already, on line {source.lines[seen]}",
                "remove one of the two",
            )
            continue
        # A fleet writes its secret, whether the file names that or not.
        for claim in (each.claim for each in place.needs.values() if each.claim is not None):
            holder = claims.setdefault(claim, place)
            if (holder.pipeline, holder.key_type) != (place.pipeline, place.key_type):
                name, line = holder.entry.get("name"), source.lines[holder.path]
                yield source.fault(
                    place.path,
                    f"`{claim}` belongs to pipeline `{name}`, on line {line}",
                    "two certificates cannot be in the same place: choose one",
                )


def _hidden(source: Source, placed: list[Placed[Target]]) -> Iterator[Fault]:
    """Of two certificates with the same kind of key, a load balancer shows the clients of a common
    name one, and the other is never seen served.
    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/https-listener-certificates.html
    """
    beside: dict[tuple[str, bool], list[Placed[Target]]] = {}
    for place in placed:
        if isinstance(place.target, Link):
            beside.setdefault((place.target.address, place.key_type.is_rsa), []).append(place)
    for one, other in (pair for there in beside.values() for pair in combinations(there, 2)):
        for hidden, shown in ((other, one), (one, other)):
            if name := _hidden_name(hidden, shown):
                yield source.fault(
                    hidden.path,
                    f"clients of `{name}` may be shown the certificate of the target on line "
                    f"{source.lines[shown.path]} here, whose key is of the same kind",
                    "take the name from one of the two pipelines, give one an RSA and the other "
                    "an ECDSA key, or set `verify: false` here",
                )
                break


def _hidden_name(hidden: Placed[Target], shown: Placed[Target]) -> str | None:
    """A name for which `hidden` is looked at and `shown` may be what is seen, in a place that may
    hold both."""
    same = (hidden.pipeline, hidden.key_type) == (shown.pipeline, shown.key_type)
    claimed = hidden.target.claim is not None and hidden.target.claim == shown.target.claim
    if same or claimed or not (isinstance(hidden.target, Link) and hidden.target.verify):
        return None
    theirs = tuple(_names(shown.entry).values())
    ours = _names(hidden.entry).values()
    return next((name for name in ours if name in theirs or covered_by(name, theirs)), None)


def _repeated_selections(source: Source, selecting: list[Placed[Selection]]) -> Iterator[Fault]:
    first: dict[tuple[Path, KeyType, str], Path] = {}
    for place in selecting:
        which = (place.pipeline, place.key_type, place.target.key)
        if (seen := first.setdefault(which, place.path)) != place.path:
            yield source.fault(
                place.path, f"this selection is on line {source.lines[seen]} already", "remove one"
            )


def _served_keys(source: Source, placed: Sequence[Placed[Any]]) -> Iterator[Fault]:
    for place in placed:
        wanted = place.key_type
        if wanted not in place.kinds:
            yield source.fault(
                (*place.path, "key_type"),
                f"the pipeline has no certificate with a key of type `{wanted}`",
                f"add it to the pipeline's `key_type`; there is {listed(place.kinds)}",
            )
            continue
        possible = frozenset(KeyType).intersection(
            place.target.key_types, *(target.key_types for target in place.needs.values())
        )
        if wanted not in possible:
            ordered = [kind for kind in KeyType if kind in possible]
            yield source.fault(
                place.path,
                f"`{place.name}` cannot serve a key of type `{wanted}`",
                f"set this pipeline's `key_type` to one of {listed(ordered)}",
            )


def _kinds_of(data: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[KeyType, ...]:
    """The key types of a pipeline."""
    first = next(iter(_issuers_of(data, entry)), "")
    issuer = _mapping(_mapping(data.get("issuers")).get(first))
    return key_types(
        _key_types(entry) or None,
        next(iter(_key_types(issuer)), None),
        next(iter(_key_types(_mapping(data.get("defaults")))), None),
    )


def _key_types(mapping: Mapping[str, Any]) -> tuple[KeyType, ...]:
    """Those of a mapping's `key_type` that there are."""
    known = set(KeyType)
    return tuple(KeyType(name) for name in _texts(mapping.get("key_type")) if name in known)


def _texts(value: object) -> tuple[str, ...]:
    several = as_list(value)
    if not isinstance(several, list):
        return ()
    return tuple(each for each in several if isinstance(each, str))
