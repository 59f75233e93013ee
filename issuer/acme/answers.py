"""What the CA answers, as the client understands it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import requests
from acme import challenges, messages
from josepy.errors import Error as JoseError

from certrail.http import retry_after
from certrail.pipelines.model import Validation
from issuer.acme.network import Unreachable
from issuer.acme.newer import PERSISTENT

T = TypeVar("T")
Body = TypeVar("Body", messages.Order, messages.Authorization)


@dataclass(frozen=True)
class Authorization:
    """What the CA wants proven for one name.

    name: as ordered, with its `*.`. challenge: of the kind that the issuer is to use, None where
    the CA offers none. ca: what the CA calls itself in a record of
    dns-persist-01, where it offers that.
    """

    url: str
    name: str
    status: messages.Status
    challenge: messages.ChallengeBody | None
    problem: messages.Error | None
    ca: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """One order as the CA told it last. retry_at: when it wants to be asked again."""

    url: str
    status: messages.Status
    domains: frozenset[str]
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str | None
    problem: messages.Error | None
    retry_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether it can still be finalized."""
        return self.status in (messages.STATUS_PENDING, messages.STATUS_READY)

    @property
    def is_proved(self) -> bool:
        return self.status == messages.STATUS_READY or self.is_finalized

    @property
    def is_finalized(self) -> bool:
        """Whether a key was bound to it for good."""
        return self.status in (messages.STATUS_PROCESSING, messages.STATUS_VALID)


@dataclass(frozen=True)
class RenewalInfo:
    """When the CA wants a certificate to be renewed (RFC 9773, 4.2). All aware, UTC.

    retry_at: when it wants to be asked again, as it said it.
    """

    start: datetime
    end: datetime
    explanation: str | None
    retry_at: datetime | None


def order(url: str, answer: requests.Response, now: datetime) -> Order:
    """Raises Unreachable, as all here, where the answer makes no sense."""
    body = _parsed(answer, messages.Order)
    return Order(
        url=url,
        status=body.status,
        domains=frozenset(str(each.value) for each in body.identifiers or ()),
        authorizations=tuple(body.authorizations or ()),
        finalize=body.finalize,
        certificate=body.certificate,
        problem=body.error,
        retry_at=retry_after(answer.headers.get("Retry-After"), now),
    )


def authorization(url: str, answer: requests.Response, kind: Validation) -> Authorization:
    """kind: of the challenge to choose from those that are offered."""
    body = _parsed(answer, messages.Authorization)
    offered = {_type_of(challenge): challenge for challenge in body.challenges}
    persistent = offered.get(PERSISTENT)
    problems = (challenge.error for challenge in body.challenges if challenge.error)
    return Authorization(
        url=url,
        name=f"*.{body.identifier.value}" if body.wildcard else str(body.identifier.value),
        status=body.status,
        challenge=offered.get(kind),
        problem=next(problems, None),
        # The draft's word for it, which may change: no reason to fail where another is used.
        ca=tuple(persistent.chall.jobj.get("issuer-domain-names", ())) if persistent else (),
    )


def renewal_info(answer: requests.Response, now: datetime) -> RenewalInfo:
    try:
        document = answer.json()
        start, end = (
            datetime.fromisoformat(document["suggestedWindow"][side]).astimezone(UTC)
            for side in ("start", "end")
        )
        explanation = document.get("explanationURL")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(answer, f"{type(error).__name__}: {error}") from error
    if end <= start:
        raise _unreadable(answer, "its window ends before it starts")
    return RenewalInfo(
        start=start,
        end=end,
        explanation=str(explanation) if explanation else None,
        retry_at=retry_after(answer.headers.get("Retry-After"), now),
    )


def _parsed(answer: requests.Response, kind: type[Body]) -> Body:
    try:
        body: Body = kind.from_json(answer.json())
        if not body.status:
            raise ValueError("no status")
    except (ValueError, TypeError, AttributeError, JoseError) as error:
        raise _unreadable(answer, str(error)) from error
    return body


def member(answer: requests.Response, name: str, kind: type[T]) -> T | None:
    """A member of the answer's document, None where it has none of this type."""
    try:
        value = answer.json()[name]
    except (ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, kind) else None


def location(answer: requests.Response) -> str:
    try:
        return str(answer.headers["Location"])
    except KeyError:
        raise _unreadable(answer, "no Location header") from None


def _unreadable(answer: requests.Response, why: str) -> Unreachable:
    return Unreachable(f"the CA's answer makes no sense ({why})", where=answer.url)


def _type_of(challenge: messages.ChallengeBody) -> str:
    if isinstance(challenge.chall, challenges.UnrecognizedChallenge):
        return str(challenge.chall.jobj["type"])
    return str(challenge.chall.typ)


def pem(answer: requests.Response) -> str:
    return answer.content.decode("ascii", "replace")


def registration(uri: str) -> messages.RegistrationResource:
    return messages.RegistrationResource(uri=uri, body=messages.Registration())
