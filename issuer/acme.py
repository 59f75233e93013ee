"""A thin ACME client (RFC 8555) over the `acme` library's signatures, nonces and messages.

What the library leaves out is here: a bad nonce is retried until it passes, `Retry-After` is
honoured wherever the CA sends it, a lost connection or an overloaded CA is tried again, the CA's
problem documents are kept word for word, and an order is polled instead of each authorization.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests
from acme import challenges, messages
from acme import errors as acme_errors
from acme.client import ClientNetwork
from cryptography import x509
from josepy.errors import Error as JoseError
from josepy.interfaces import JSONDeSerializable
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from certrail.errors import AcmeRefused, CertrailError, DeadlinePassed, IssueError, raise_together
from issuer.clock import Backoff, Clock, retry_after

USER_AGENT = "certrail"
# One request is tried again for this long where the CA does not answer, answers 5xx, or is busy.
# After that the schedule's next attempt is cheaper than a function that waits.
PATIENCE = timedelta(minutes=2)
# So many bad nonces in a row are no accident any more, and the next tries are paced.
BAD_NONCES = 10
REQUEST_TIMEOUT = 30.0
# How long the other names may take to be judged once one has failed, to report them together.
STRAGGLERS = timedelta(seconds=10)

Body = TypeVar("Body", messages.Order, messages.Authorization)

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
BUSY = {408, 429, 500, 502, 503, 504}

NEXT = {
    "accountDoesNotExist": "The CA no longer has this account: delete accounts/<issuer>.json from "
    "the bucket, and the next run makes a new one",
    "caa": "Allow this CA in the CAA records of the name",
    "externalAccountRequired": "Use a CA that asks for no external account",
    "invalidContact": "Correct the issuer's `email`, or leave it out",
    "invalidProfile": "Choose one of the directory's profiles, or leave `profile` out",
    "rejectedIdentifier": "Leave the name out, or use another issuer",
    "unsupportedContact": "Leave the issuer's `email` out",
    "userActionRequired": "Visit the page the CA names, then run `certrail issue`",
}
VALIDATING = dict.fromkeys(
    ("dns", "unauthorized"),
    "Check that the name is delegated to the nameservers of its Route 53 zone",
)


@dataclass(frozen=True)
class Authorization:
    """What the CA wants proven for one name.

    name: as ordered, with its `*.`. challenge: the dns-01 one, None where the CA offers none.
    """

    url: str
    name: str
    status: messages.Status
    challenge: messages.ChallengeBody | None
    problem: messages.Error | None


@dataclass(frozen=True)
class Order:
    """One order as the CA told it last. retry_at: when it wants to be asked again."""

    url: str
    status: messages.Status
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str | None
    problem: messages.Error | None
    retry_at: datetime | None


class Unreachable(IssueError):
    """The CA gave no answer, or none that can be understood."""

    retryable = True


class Network(ClientNetwork):
    """HTTP towards one CA. `requests` reads REQUESTS_CA_BUNDLE for a CA with a root of its own."""

    def __init__(self, host: str, key: JWKEC, clock: Clock) -> None:
        super().__init__(key, alg=ES256, user_agent=USER_AGENT)
        self.host = host
        self.clock = clock
        self.new_nonce = ""

    def fetch(self, url: str, doing: str) -> requests.Response:
        """GET, which only the directory is read by."""
        return self._until_answered(
            lambda: self._send_request("GET", url, timeout=self._timeout), doing
        )

    def signed(self, url: str, payload: JSONDeSerializable | None, doing: str) -> requests.Response:
        """POST with the account's signature; without a payload it is a POST-as-GET (6.3).

        doing: what the CA is asked, as it stands in an error: "the CA refused {doing}".
        """
        # acme's type leaves out that None is how it is asked for an empty payload.
        body: Any = payload

        def send() -> requests.Response:
            if not self._nonces:
                answer = self._send_request("HEAD", self.new_nonce, timeout=self._timeout)
                if not answer.ok:
                    return answer
                self._add_nonce(answer)
            return self._send_request(
                "POST",
                url,
                data=self._wrap_in_jws(body, self._nonces.pop(), url),
                headers={"Content-Type": self.JOSE_CONTENT_TYPE},
                timeout=self._timeout,
            )

        return self._until_answered(send, doing)

    def _keep_nonce(self, answer: requests.Response) -> None:
        if self.REPLAY_NONCE_HEADER in answer.headers:
            self._add_nonce(answer)

    @property
    def _timeout(self) -> float:
        return max(1.0, min(REQUEST_TIMEOUT, self.clock.left))

    def _until_answered(
        self, send: Callable[[], requests.Response], doing: str
    ) -> requests.Response:
        """Send until the CA has said yes or no.

        Everything may be repeated: a new account is found again by its key (7.3), an order that got
        lost expires unused, and a second finalize is refused without harm. Raises AcmeRefused,
        Unreachable, DeadlinePassed.
        """
        backoff = Backoff(self.clock, "the CA to answer", first=0.2, longest=15.0)
        give_up = self.clock.now() + PATIENCE
        bad_nonces = 0
        while True:
            wait_until = None
            try:
                answer = send()
            except (requests.RequestException, acme_errors.NonceError) as error:
                failure: IssueError = Unreachable(
                    f"the CA gave no answer when asked {doing} ({_innermost(error)})",
                    where=self.host,
                    next="Check that the CA is up and can be reached from here",
                )
                failure.__cause__ = error
                if isinstance(error, ValueError | requests.exceptions.SSLError):
                    # A URL that is none, a certificate that is not trusted: the same each time.
                    raise failure from error
            else:
                if answer.ok:
                    self._keep_nonce(answer)
                    return answer
                problem = _problem(answer)
                bad_nonce = _type(problem) == "badNonce"
                if bad_nonce:
                    # The answer brings a fresh one (6.5); the older ones are as suspect as this.
                    self._nonces.clear()
                self._keep_nonce(answer)
                if bad_nonce:
                    bad_nonces += 1
                    if bad_nonces >= BAD_NONCES or self.clock.left <= 0:
                        backoff.pause()
                    continue
                wait_until = retry_after(answer.headers.get("Retry-After"), self.clock.now())
                busy = answer.status_code in BUSY
                failure = refused(
                    problem, doing, self.host, retryable=busy or None, retry_at=wait_until
                )
                if not busy:
                    raise failure
            if (wait_until or self.clock.now()) >= min(give_up, self.clock.deadline):
                raise failure
            try:
                backoff.pause(wait_until)
            except DeadlinePassed:
                # What the CA said, or that it said nothing, is the better news.
                raise failure from failure.__cause__


class Client:
    """One CA, one account. Not to be shared between threads: its nonces are not.

    account: its URI, empty until it is made.
    """

    def __init__(
        self, directory: str, key: JWKEC, clock: Clock, account: str | None = None
    ) -> None:
        self.directory_url: Final = directory
        self._clock = clock
        self._key = key
        self._host = urlsplit(directory).netloc
        self._network = Network(self._host, key, clock)
        self.account = account or ""
        if account:
            self._network.account = _registration(account)
        self._directory: messages.Directory | None = None

    # The account

    def new_account(self, email: str | None) -> str:
        """The URI of the key's account, which is made where the CA has none for the key (7.3).

        Agrees to the CA's terms of service: to name a CA in pipelines.yaml is to accept them.
        """
        message = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True)
        answer = self._network.signed(self._at("newAccount"), message, "to make an account")
        self.account = _location(answer)
        self._network.account = _registration(self.account)
        return self.account

    # The order

    def new_order(self, domains: Sequence[str], profile: str | None) -> Order:
        names = [messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=name) for name in domains]
        message = messages.NewOrder(identifiers=names, profile=profile)
        doing = f"to take an order for {_several(domains)}"
        answer = self._network.signed(self._at("newOrder"), message, doing)
        return self._order(_location(answer), answer)

    def order(self, url: str) -> Order:
        """The order as it stands now."""
        self._at("newOrder")
        return self._order(url, self._network.signed(url, None, "to say how an order stands"))

    def authorizations(self, order: Order) -> tuple[Authorization, ...]:
        return tuple(self._authorization(url) for url in order.authorizations)

    def txt(self, challenge: messages.ChallengeBody) -> str:
        """The text of the challenge's record (8.4)."""
        return str(challenge.chall.validation(self._key))

    def respond(self, authorization: Authorization) -> None:
        """Tell the CA that the record is there."""
        assert authorization.challenge is not None  # noqa: S101  the caller has placed its record
        challenge = authorization.challenge
        doing = f"to validate {authorization.name}"
        try:
            self._network.signed(challenge.uri, challenge.chall.response(self._key), doing)
        except AcmeRefused:
            # An earlier try arrived although its answer did not: the CA is at it, or done.
            again = self._authorization(authorization.url)
            if again.challenge is None or again.challenge.status == messages.STATUS_PENDING:
                raise

    def validated(self, order: Order) -> Order:
        """Wait until every name of the order is proven. One request a poll, whatever the number of
        names. Raises AcmeRefused, with each failed name's own problem."""
        backoff = Backoff(self._clock, "the CA to validate the names")
        while True:
            if order.status == messages.STATUS_INVALID:
                raise_together("the CA did not validate every name", self._invalid(order))
            if order.status != messages.STATUS_PENDING:
                return order
            backoff.pause(order.retry_at)
            order = self.order(order.url)

    def issued(self, order: Order, csr: bytes, domains: Sequence[str]) -> Order:
        """Finalize a ready order, and wait until it is valid. Goes by what the order says, so that
        it may be called again for an order that was finalized before.

        csr: PEM. domains: for the words of an error.
        """
        message = messages.CertificateRequest(csr=x509.load_pem_x509_csr(csr))
        doing = f"to issue for {_several(domains)}"
        backoff = Backoff(self._clock, "the CA to issue the certificate")
        while order.status != messages.STATUS_VALID or order.certificate is None:
            if order.status == messages.STATUS_INVALID:
                raise refused(order.problem, doing, self._host)
            if order.status == messages.STATUS_READY:
                try:
                    answer = self._network.signed(order.finalize, message, doing)
                    order = self._order(order.url, answer)
                    continue
                except AcmeRefused as error:
                    # An earlier try arrived although its answer did not: the order tells.
                    if error.type != "orderNotReady":
                        raise
            backoff.pause(order.retry_at)
            order = self.order(order.url)
        return order

    def certificate(self, order: Order) -> str:
        """The certificate and its chain, PEM (7.4.2). The alternate chains of the same answer are
        its `Link` headers with the relation `alternate`."""
        assert order.certificate is not None  # noqa: S101  `issued` has seen to it
        answer = self._network.signed(order.certificate, None, "to hand out the certificate")
        return answer.content.decode("ascii", "replace")

    # What the CA answers

    def _at(self, name: str) -> str:
        """The URL of one of the directory's resources (7.1.1), read once."""
        if self._directory is None:
            answer = self._network.fetch(self.directory_url, "to show its directory")
            try:
                self._directory = messages.Directory.from_json(answer.json())
                self._network.new_nonce = str(self._directory["newNonce"])
            except (ValueError, KeyError, TypeError, AttributeError, JoseError) as error:
                raise IssueError(
                    "this is no ACME directory",
                    where=self.directory_url,
                    next="Give the issuer the URL of the CA's directory",
                ) from error
        try:
            return str(self._directory[name])
        except KeyError as error:
            raise IssueError(f"the directory has no {name}", where=self.directory_url) from error

    def _order(self, url: str, answer: requests.Response) -> Order:
        body = _parsed(answer, messages.Order)
        return Order(
            url=url,
            status=body.status,
            authorizations=tuple(body.authorizations or ()),
            finalize=body.finalize,
            certificate=body.certificate,
            problem=body.error,
            retry_at=retry_after(answer.headers.get("Retry-After"), self._clock.now()),
        )

    def _authorization(self, url: str) -> Authorization:
        answer = self._network.signed(url, None, "to say what it wants proven")
        body = _parsed(answer, messages.Authorization)
        offered = {challenge.chall.typ: challenge for challenge in body.challenges}
        problems = (challenge.error for challenge in body.challenges if challenge.error)
        return Authorization(
            url=url,
            name=f"*.{body.identifier.value}" if body.wildcard else str(body.identifier.value),
            status=body.status,
            challenge=offered.get(challenges.DNS01.typ),
            problem=next(problems, None),
        )

    def _invalid(self, order: Order) -> list[CertrailError]:
        """Why an order became invalid: by name, once every name is judged."""
        backoff = Backoff(self._clock, "the CA to judge the other names")
        until = min(self._clock.now() + STRAGGLERS, self._clock.deadline)
        while True:
            found = self.authorizations(order)
            undecided = any(each.status == messages.STATUS_PENDING for each in found)
            if not undecided or self._clock.now() >= until:
                break
            try:
                backoff.pause()
            except DeadlinePassed:
                break
        failures: list[CertrailError] = [
            refused(each.problem, f"to validate {each.name}", self._host, validating=True)
            for each in found
            if each.status not in (messages.STATUS_VALID, messages.STATUS_PENDING)
        ]
        return failures or [refused(order.problem, "to go on with the order", self._host)]


def refused(
    problem: messages.Error | None,
    doing: str,
    host: str,
    *,
    retryable: bool | None = None,
    retry_at: datetime | None = None,
    validating: bool = False,
) -> AcmeRefused:
    """The CA's problem document as an error, in its own words.

    validating: a name's validation, which may fail "unauthorized" only because one of the CA's
    resolvers had not yet seen the record.
    """
    kind = _type(problem)
    passing, remedies = PASSING, NEXT
    if validating:
        passing, remedies = PASSING | {"unauthorized"}, VALIDATING | NEXT
    return AcmeRefused(
        f"the CA refused {doing}: {words(problem)}",
        where=host,
        next=remedies.get(kind, ""),
        retryable=kind in passing if retryable is None else retryable,
        type=kind,
        retry_at=retry_at,
    )


def words(problem: messages.Error | None) -> str:
    """A problem document on one line, each subproblem with its name (RFC 8555, 6.7.1)."""
    if problem is None:
        return "it gave no reason"
    said = problem.detail or problem.title or "it gave no reason"
    kind = _type(problem)
    text = f"{said} ({kind})" if kind else said
    below = [
        f"{each.identifier.value}: {words(each)}" if each.identifier else words(each)
        for each in problem.subproblems or ()
    ]
    return "; ".join([text, *below])


def _type(problem: messages.Error | None) -> str:
    typ = problem.typ if problem else ""
    return "" if typ == "about:blank" else typ.removeprefix(URN)


def _problem(answer: requests.Response) -> messages.Error:
    try:
        problem: messages.Error = messages.Error.from_json(answer.json())
    except (ValueError, TypeError, AttributeError, JoseError):
        # No problem document: a proxy in front of the CA, perhaps. Its page is not for a log.
        page = {"detail": f"HTTP {answer.status_code} {answer.reason}".strip()}
        problem = messages.Error.from_json(page)
    return problem


def _parsed(answer: requests.Response, kind: type[Body]) -> Body:
    try:
        body: Body = kind.from_json(answer.json())
        if not body.status:
            raise ValueError("no status")
    except (ValueError, TypeError, AttributeError, JoseError) as error:
        raise _unreadable(answer, str(error)) from error
    return body


def _location(answer: requests.Response) -> str:
    try:
        return str(answer.headers["Location"])
    except KeyError:
        raise _unreadable(answer, "no Location header") from None


def _unreadable(answer: requests.Response, why: str) -> Unreachable:
    return Unreachable(f"the CA's answer makes no sense ({why})", where=answer.url)


def _registration(uri: str) -> messages.RegistrationResource:
    return messages.RegistrationResource(uri=uri, body=messages.Registration())


def _several(domains: Sequence[str]) -> str:
    shown = ", ".join(domains[:3])
    return f"{shown} and {len(domains) - 3} more" if len(domains) > 3 else shown


def _innermost(error: BaseException) -> str:
    """`Connection refused` rather than the five exceptions around it."""
    seen: BaseException = error
    while inner := getattr(seen, "reason", None) or seen.__cause__ or seen.__context__:
        if not isinstance(inner, BaseException):
            break
        seen = inner
    return f"{type(seen).__name__}: {seen}"
