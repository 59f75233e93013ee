"""Preflight: how a certificate can take the place of an import, known before anything is written.

In place where AWS lets it and nobody loses a name: the ARN stays, and so does all that points to
it. Else as a new import, to which everybody is moved. Else not at all, with the reasons.
https://docs.aws.amazon.com/acm/latest/userguide/import-reimport.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from certrail.bundle import Facts, covers
from certrail.keys import KeyType
from certrail.target import Mover, Preflight, Rotation, Succession

# ACM's names, with the separator it uses in answers unified.
ALGORITHM = {
    KeyType.ECDSA_P256: "EC_prime256v1",
    KeyType.ECDSA_P384: "EC_secp384r1",
    KeyType.RSA_2048: "RSA_2048",
    KeyType.RSA_3072: "RSA_3072",
    KeyType.RSA_4096: "RSA_4096",
}
# "You must renew or reimport at least 24 hours before": until then CloudFront may serve what was
# there before.
# https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cnames-and-https-requirements.html
CLOUDFRONT_LAG = timedelta(days=1)


@dataclass(frozen=True)
class Import:
    """What DescribeCertificate says of an import.

    algorithm, key_usages, extended_key_usages: in ACM's names, separators unified.
    names: lower case. in_use_by: ARNs of load balancers, distributions and the like; those behind
    API Gateway and other services belong to accounts of AWS's.
    """

    arn: str
    algorithm: str
    key_usages: frozenset[str]
    extended_key_usages: frozenset[str]
    names: frozenset[str]
    not_after: datetime
    in_use_by: tuple[str, ...]

    @property
    def on_cloudfront(self) -> bool:
        return any(":cloudfront:" in arn for arn in self.in_use_by)


@dataclass(frozen=True)
class User:
    """What points to an import. who: for people.

    job: as `as_job` makes it; None for what certrail cannot point elsewhere. stuck: why it cannot.
    names: what it serves and the certificate must cover; None where nobody can know.
    key_types: what it can serve. stays: why it cannot follow, whatever the certificate.
    """

    who: str
    job: dict[str, Any] | None = None
    stuck: str = ""
    names: tuple[str, ...] | None = ()
    key_types: frozenset[KeyType] = field(default=frozenset(KeyType))
    stays: str = ""


def must_know_users(present: Import, facts: Facts, rotation: Rotation, now: datetime) -> bool:
    """Whether it depends on who uses the import. For a plain renewal it does not, and nobody is
    asked."""
    if not present.in_use_by:
        return False
    return (
        rotation is Rotation.REPLACE
        or any(refusals(present, facts))
        or bool(_lost(present, facts))
        or _too_late_for_cloudfront(present, now)
    )


def decide(
    present: Import,
    facts: Facts,
    users: Sequence[User],
    *,
    rotation: Rotation,
    now: datetime,
    adopted: bool,
    chained: bool,
) -> Preflight:
    """How a certificate takes the import's place.

    users: all there are, where `must_know_users`; else none. adopted: whether the file names this
    import, which is then never left. chained: whether the certificate comes with intermediates.
    """
    if not chained and present.on_cloudfront:
        return Preflight(
            Succession.REFUSED,
            ("it comes without intermediates, and CloudFront takes none without its chain",),
        )
    needed = [*refusals(present, facts), *_lost_names(present, facts, users)]
    hurried = _hurry(present, now)
    wished = ["the file says `rotation: replace`"] if rotation is Rotation.REPLACE else []
    reasons = tuple(needed + wished + hurried)
    if not reasons:
        return Preflight(Succession.IN_PLACE)
    kept = [f"{user.who} would stay behind: {user.stuck}" for user in users if user.job is None]
    if adopted:
        kept.insert(0, "the file says with `certificate_arn` that this import is not left")
    if not kept:
        return Preflight(Succession.REPLACE, reasons, tuple(_movers(facts, users)))
    if needed or wished:
        return Preflight(Succession.REFUSED, (*reasons, *kept))
    # In place may be too late for some edges; not at all would be too late for everybody.
    return Preflight(Succession.IN_PLACE, (*reasons, *kept))


def refusals(present: Import, facts: Facts) -> Iterator[str]:
    """What AWS would refuse to reimport."""
    algorithm = ALGORITHM[facts.key_type]
    if present.algorithm != algorithm:
        yield f"the key would change from {present.algorithm} to {algorithm}"
    usages = set(present.key_usages) - set(facts.key_usages)
    if algorithm.startswith("EC_"):
        # RFC 5480 has no such usage for these keys, and ACM lets it go.
        usages.discard("KEY_ENCIPHERMENT")
    if usages:
        yield f"the key usages {', '.join(sorted(usages))} would be lost"
    extended = set(present.extended_key_usages) - {
        *facts.extended_key_usages,
        # Public CAs no longer issue it, and ACM lets it go.
        "TLS_WEB_CLIENT_AUTHENTICATION",
        # ACM's word for a certificate without the extension.
        "NONE",
    }
    if extended:
        yield f"the extended key usages {', '.join(sorted(extended))} would be lost"
    if present.names.isdisjoint(name.lower() for name in facts.domains):
        yield "none of its names would stay"


def _lost(present: Import, facts: Facts) -> list[str]:
    return sorted(name for name in present.names if not covers(facts.domains, name))


def _lost_names(present: Import, facts: Facts, users: Sequence[User]) -> Iterator[str]:
    """What ACM would allow, and what would then be served with a certificate that does not have
    the name."""
    lost = _lost(present, facts)
    if not lost:
        return
    for user in users:
        if user.names is None:
            yield f"{', '.join(lost)} would be lost, and {user.who} may serve it"
        elif bare := _bare(user.names, facts, present.names):
            yield f"{', '.join(bare)} would be lost, and {user.who} serves it"


def _bare(names: Sequence[str], facts: Facts, before: frozenset[str]) -> list[str]:
    """The names that are covered now and would not be any more."""
    return [name for name in names if covers(before, name) and not covers(facts.domains, name)]


def _too_late_for_cloudfront(present: Import, now: datetime) -> bool:
    return present.on_cloudfront and present.not_after - now < CLOUDFRONT_LAG


def _hurry(present: Import, now: datetime) -> list[str]:
    if not _too_late_for_cloudfront(present, now):
        return []
    return [
        f"what CloudFront serves ends at {present.not_after:%Y-%m-%d %H:%M} UTC, and it may go on "
        "to serve that for a day after a reimport"
    ]


def _movers(facts: Facts, users: Sequence[User]) -> Iterator[Mover]:
    for user in users:
        if user.job is None:
            continue
        bare = [name for name in user.names or () if not covers(facts.domains, name)]
        if bare:
            yield Mover(user.job, f"the certificate does not cover {', '.join(bare)}")
        elif facts.key_type not in user.key_types:
            yield Mover(user.job, f"it cannot serve {facts.key_type} keys")
        else:
            yield Mover(user.job, user.stays)
