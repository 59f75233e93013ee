"""HTTP towards one CA: signed, patient, and sure of its nonces (RFC 8555, 6.2 to 6.6)."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import requests
from acme import errors as acme_errors
from acme.client import ClientNetwork
from josepy.jwa import ES256
from josepy.jwk import JWK

from certrail.errors import DeadlinePassed, IssueError
from certrail.http import retry_after
from issuer.acme import problems
from issuer.acme.problems import is_busy, refused
from issuer.clock import Backoff, Clock

USER_AGENT = "certrail"
# One request is tried again for this long where the CA does not answer, answers 5xx, or is busy.
# After that the schedule's next attempt is cheaper than a function that waits.
PATIENCE = timedelta(minutes=2)
# An error inside the CA is less likely to pass than an overload or a failed connection.
ERROR_PATIENCE = timedelta(seconds=10)
# So many bad nonces in a row are no accident any more, and the next tries are paced.
BAD_NONCES = 10
REQUEST_TIMEOUT = 30.0


class Payload(Protocol):
    """What is signed: a message of acme's or josepy's."""

    def json_dumps(self, *, indent: int) -> str: ...


class Unreachable(IssueError):
    """The CA gave no answer, or none that can be understood."""

    retryable = True


class Network(ClientNetwork):
    """HTTP towards one CA. `root`, PEM, is who vouches for the CA's own TLS certificate; without it
    `requests` goes by the public roots, or by REQUESTS_CA_BUNDLE."""

    def __init__(
        self, host: str, key: JWK, clock: Clock, root: str | None = None, alg: Any = ES256
    ) -> None:
        super().__init__(key, alg=alg, user_agent=USER_AGENT)
        # acme's type leaves out that requests takes a file here.
        self.verify_ssl = trusting(root)  # type: ignore[assignment]
        self.host = host
        self.clock = clock
        self.new_nonce = ""

    def fetch(self, url: str, doing: str) -> requests.Response:
        """GET, which only the directory is read by."""
        return self._until_answered(
            lambda: self._send_request("GET", url, timeout=self._timeout), doing
        )

    def signed(self, url: str, payload: Payload | None, doing: str) -> requests.Response:
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
        began = self.clock.now()
        bad_nonces = 0
        while True:
            wait_until, patience = None, PATIENCE
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
                problem = problems.read(answer)
                bad_nonce = problems.kind_of(problem) == "badNonce"
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
                busy = is_busy(answer.status_code)
                failure = refused(
                    problem,
                    doing,
                    self.host,
                    retryable=busy or None,
                    retry_at=wait_until,
                    status=answer.status_code,
                )
                if not busy:
                    raise failure
                if answer.status_code == requests.codes.internal_server_error:
                    patience = ERROR_PATIENCE
            if (wait_until or self.clock.now()) >= min(began + patience, self.clock.deadline):
                raise failure
            try:
                backoff.pause(wait_until)
            except DeadlinePassed:
                # What the CA said, or that it said nothing, is the better news.
                raise failure from failure.__cause__


@cache
def trusting(root: str | None) -> str | bool:
    """What `requests` wants for `verify`."""
    if root is None:
        return True
    folder = tempfile.TemporaryDirectory(prefix="certrail-root-")
    atexit.register(folder.cleanup)
    file = Path(folder.name) / "root.pem"
    file.write_text(root)
    return str(file)


def _innermost(error: BaseException) -> str:
    """`Connection refused` rather than the five exceptions around it."""
    seen: BaseException = error
    while inner := getattr(seen, "reason", None) or seen.__cause__ or seen.__context__:
        if not isinstance(inner, BaseException):
            break
        seen = inner
    return f"{type(seen).__name__}: {seen}"
