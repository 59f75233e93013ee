"""What pipelines.yaml means: `Pipelines` and `Pipeline` are what the rest of certrail works with,
with every default filled in. What it says: `certrail.pipelines.model`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Generic

from certrail.keys import KeyType
from certrail.pipelines.authorities import DAY, HOUR, NO_LIMITS, Limits, Rate, authority
from certrail.pipelines.model import (
    INCOMING,
    Account,
    ExternalAccount,
    Incoming,
    IssuerEntry,
    LimitsEntry,
    PipelineEntry,
    PipelinesFile,
    T,
    Validation,
)
from certrail.pipelines.selection import Selection
from certrail.pipelines.waves import WaveEntry
from certrail.pipelines.zones import LexiconZone, Rfc2136Zone, Route53Zone
from certrail.target import Rotation, Target, Wrong, with_needs
from certrail.waves import ONE_WAVE, Wave


@dataclass(frozen=True)
class Issuer:
    """A CA, and what is asked of it. The fields are those of `IssuerEntry`, with what is known of
    the CA filled in. name: its key in `issuers` and in the bucket."""

    name: str
    directory: str
    root: str | None = None
    trust: str | None = None
    email: str | None = None
    external_account: ExternalAccount | None = None
    profile: str | None = None
    preferred_chain: str | None = None
    validation: Validation = Validation.DNS_01
    limits: Limits = NO_LIMITS


@dataclass(frozen=True)
class Pipeline(Generic[T]):
    """One certificate and its targets, with every default filled in.

    entry: its name in the file, where several pipelines come from one entry: one for each key type.
    domains: lower case, A-labels, in the order of the file. issuers: in the order to try them; none
    where it is not ours to issue, and `incoming` says how it comes in.
    renew_before: where the CA does not say when to renew; None for a part of the life.
    waves: at least one, in their order.
    selections: what else finds targets. claims: of all the file's targets, which pipeline holds
    what, by name.
    configuration: a digest of all that the file says about issuing it; empty where it is not from a
    file.
    """

    name: str
    entry: str
    domains: tuple[str, ...]
    issuers: tuple[Issuer, ...]
    key_type: KeyType
    targets: tuple[T, ...]
    renew_before: timedelta | None = None
    configuration: str = ""
    rotation: Rotation = Rotation.IN_PLACE
    waves: tuple[Wave, ...] = ONE_WAVE
    selections: tuple[Selection, ...] = ()
    claims: Mapping[str, str] = field(default_factory=dict)
    incoming: Incoming | None = None


@dataclass(frozen=True)
class Pipelines(Generic[T]):
    """The file as it is meant. Iterate `pipelines`, in the order of the file. region: of
    `defaults`."""

    issuers: Mapping[str, Issuer]
    accounts: Mapping[str, Account]
    pipelines: tuple[Pipeline[T], ...]
    zones: tuple[Route53Zone | Rfc2136Zone | LexiconZone, ...] = ()
    region: str | None = None

    def named(self, name: str) -> Pipeline[T] | None:
        """The pipeline of that name, None where the file has none (any more)."""
        return next((pipeline for pipeline in self.pipelines if pipeline.name == name), None)


def resolve(file: PipelinesFile[T]) -> Pipelines[T]:
    """Fill in the defaults of a file without faults."""
    issuers = {name: _issuer(name, entry) for name, entry in file.issuers.items()}
    pipelines = [
        pipeline for entry in file.pipelines for pipeline in _pipelines(entry, file, issuers)
    ]
    claims = {
        claim: pipeline.name
        for pipeline in pipelines
        # The issuer does not know the kinds. A fleet writes its secret, whether the file names that
        # or not.
        for target in with_needs(
            each for each in pipeline.targets if isinstance(each, Target)
        ).values()
        if (claim := target.claim)
    }
    return Pipelines(
        issuers=issuers,
        accounts=file.accounts,
        zones=file.zones,
        pipelines=tuple(replace(pipeline, claims=claims) for pipeline in pipelines),
        region=file.defaults.region,
    )


def _issuer(name: str, entry: IssuerEntry) -> Issuer:
    known = authority(entry.ca, entry.directory)
    raised = entry.limits or LimitsEntry()
    limits = known.limits
    if raised.orders:
        limits = replace(limits, orders=Rate(raised.orders, 3 * HOUR))
    if raised.certificates:
        limits = replace(limits, certificates=Rate(raised.certificates, 7 * DAY))
    return Issuer(
        name=name,
        directory=known.directory,
        root=entry.root,
        trust=entry.trust,
        email=entry.email,
        external_account=entry.external_account,
        profile=entry.profile,
        preferred_chain=entry.preferred_chain,
        validation=entry.validation,
        limits=limits,
    )


def _pipelines(
    entry: PipelineEntry[T], file: PipelinesFile[T], issuers: Mapping[str, Issuer]
) -> Iterator[Pipeline[T]]:
    """One for each key type. The first has the entry's name and the targets that ask for none."""
    names = issuer_names(entry.issuer, file.defaults.issuer, issuers)
    incoming = (entry.incoming or Incoming()) if names == (INCOMING,) else None
    first = None if incoming else file.issuers[names[0]].key_type
    kinds = key_types(entry.key_type, first, file.defaults.key_type)
    asked = tuple(
        replace(issuers[name], profile=entry.profile or issuers[name].profile)
        for name in names
        if incoming is None
    )
    for kind in kinds:
        says = (
            entry.domains,
            incoming or asked,
            kind,
            entry.renew_before,
            file.zones,
            file.accounts,
        )
        mine = [
            target
            for target in entry.targets
            if (getattr(target, "key_type", None) or kinds[0]) is kind
        ]
        yield Pipeline(
            name=pipeline_name(entry.name, kind, kinds),
            entry=entry.name,
            domains=entry.domains,
            issuers=asked,
            key_type=kind,
            targets=tuple(target for target in mine if not isinstance(target, Selection)),
            selections=tuple(target for target in mine if isinstance(target, Selection)),
            renew_before=entry.renew_before,
            configuration=hashlib.sha256(repr(says).encode()).hexdigest()[:16],
            rotation=entry.rotation or file.defaults.rotation,
            waves=waves_of(entry.waves, file.defaults.waves),
            incoming=incoming,
        )


def pipeline_name(entry: str, kind: KeyType, kinds: tuple[KeyType, ...]) -> str:
    """The name of the certificate with one of an entry's keys: `shop`, and `shop.rsa-2048`."""
    return entry if kind is kinds[0] else f"{entry}.{kind}"


def waves_of(own: tuple[WaveEntry, ...] | None, default: tuple[WaveEntry, ...]) -> tuple[Wave, ...]:
    listed = default if own is None else own
    return tuple(Wave(each.name, each.bake, each.alarms) for each in listed) or ONE_WAVE


def issuer_names(
    own: tuple[str, ...] | None, default: tuple[str, ...] | None, issuers: Mapping[str, object]
) -> tuple[str, ...]:
    """The issuers of a pipeline, or `incoming`. Raises Wrong where nothing decides."""
    if names := own or default:
        return names
    if len(issuers) == 1:
        return (next(iter(issuers)),)
    raise Wrong(
        f"there are {len(issuers)} issuers, and nothing says which one to use",
        "add `issuer:` here, or set `defaults.issuer` for all",
    )


def key_types(
    own: tuple[KeyType, ...] | None, issuer: KeyType | None, default: KeyType | None
) -> tuple[KeyType, ...]:
    return own or ((issuer or default or KeyType.ECDSA_P256),)
