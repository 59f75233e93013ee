"""The CA's problem documents (RFC 8555, 6.7) as errors, in the CA's own words."""

from __future__ import annotations

from datetime import datetime

import requests
from acme import messages
from josepy.errors import Error as JoseError

from certrail.errors import AcmeRefused

URN = "urn:ietf:params:acme:error:"
# RFC 8555, 6.7: what may end differently when it is only tried again.
PASSING = {
    "badNonce",
    "connection",
    "dns",
    "incorrectResponse",
    "orderNotReady",
    "rateLimited",
    "serverInternal",
    "tls",
}

NEXT = {
    "accountDoesNotExist": "The CA no longer has this account: delete accounts/<issuer>.json from "
    "the bucket, and the next run makes a new one",
    "caa": "Allow this CA in the CAA records of the name",
    "externalAccountRequired": "Give the issuer its `external_account`",
    "invalidContact": "Correct the issuer's `email`, or leave it out",
    "invalidProfile": "Choose one of the directory's profiles, or leave `profile` out",
    "rejectedIdentifier": "Leave the name out, or use another issuer",
    "unsupportedContact": "Leave the issuer's `email` out",
    "userActionRequired": "Visit the page the CA names, then run `certrail issue`",
}
VALIDATING = dict.fromkeys(
    ("dns", "unauthorized"),
    "Check that the name is delegated to the name servers of its zone",
)


def is_busy(status: int | None) -> bool:
    """Whether an HTTP answer says that another time may do: 429, or any failure of the server or of
    what stands before it."""
    return status is not None and (status in (408, 429) or status >= 500)


def refused(
    problem: messages.Error | None,
    doing: str,
    host: str,
    *,
    retryable: bool | None = None,
    retry_at: datetime | None = None,
    status: int | None = None,
    validating: str = "",
) -> AcmeRefused:
    """The CA's problem document as an error, in its own words.

    status: of the HTTP answer, where the problem was one. retry_at: when the CA wants to be asked
    again.
    validating: the name whose validation failed, perhaps "unauthorized" only because one of the
    CA's resolvers had not yet seen the record.
    """
    kind = kind_of(problem)
    passing, remedies = PASSING, NEXT
    if validating:
        passing, remedies = PASSING | {"unauthorized"}, VALIDATING | NEXT
    return AcmeRefused(
        f"the CA refused {doing}: {words(problem)}",
        where=host,
        next=remedies.get(kind, ""),
        retryable=kind in passing if retryable is None else retryable,
        type=kind,
        status=status,
        retry_at=retry_at,
        name=validating,
    )


def words(problem: messages.Error | None) -> str:
    """A problem document on one line, each subproblem with its name (RFC 8555, 6.7.1)."""
    if problem is None:
        return "it gave no reason"
    said = problem.detail or problem.title or "it gave no reason"
    kind = kind_of(problem)
    text = f"{said} ({kind})" if kind else said
    below = [
        f"{each.identifier.value}: {words(each)}" if each.identifier else words(each)
        for each in problem.subproblems or ()
    ]
    return "; ".join([text, *below])


def kind_of(problem: messages.Error | None) -> str:
    typ = problem.typ if problem else ""
    return "" if typ == "about:blank" else typ.removeprefix(URN)


def read(answer: requests.Response) -> messages.Error:
    try:
        problem: messages.Error = messages.Error.from_json(answer.json())
    except (ValueError, TypeError, AttributeError, JoseError):
        # No problem document: a proxy in front of the CA, perhaps. Its page is not for a log.
        page = {"detail": f"HTTP {answer.status_code} {answer.reason}".strip()}
        problem = messages.Error.from_json(page)
    return problem
