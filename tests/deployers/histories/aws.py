"""An AWS inside this process, on a clock of its own, whose calls meet mishaps.

It is moto with the sandbox's rules, asked as moto's own decorator asks it: in botocore's
`before-send`, so nothing between boto3 and the service is left out but the network.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ReadTimeoutError
from botocore.handlers import BUILTIN_HANDLERS
from moto import backends
from moto.core.base_backend import BackendDict
from moto.core.botocore_stubber import MockRawResponse
from moto.core.request import normalize_request
from moto.s3.models import s3_backends

from sandbox import rules
from sandbox.calls import READS
from sandbox.rules.acm import import_limit
from tests.deployers.cloud import ACCOUNT

T = TypeVar("T")

# moto's name of a service where it is not botocore's.
MOTO = {
    "api-gateway": "apigateway",
    "eventbridge": "events",
    "elastic-load-balancing-v2": "elbv2",
    "resource-groups-tagging-api": "resourcegroupstaggingapi",
    "secrets-manager": "secretsmanager",
}

# Between two calls of a run.
TICK = timedelta(milliseconds=50)


@dataclass
class Clock:
    now: datetime

    def passes(self, time: timedelta) -> None:
        self.now += time


# What can happen to a run, at one of its calls (`at`: the first is 1), or, where it makes fewer, to
# one of those after it.


@dataclass(frozen=True)
class Dies:
    """The process ends: no call comes after it. after: the call itself had its effect."""

    at: int
    after: bool


@dataclass(frozen=True)
class Interrupted:
    """Somebody presses Ctrl-C: what the program still does on its way out, it does."""

    at: int


@dataclass(frozen=True)
class Refused:
    """AWS says no, `times` in a row: botocore tries five times, where it helps."""

    at: int
    how: str
    times: int


@dataclass(frozen=True)
class Unanswered:
    """The call has its effect, and its answer is lost; botocore repeats it. `times` in a row."""

    at: int
    times: int


@dataclass(frozen=True)
class Meanwhile:
    """Before the call, somebody else does something, to its end."""

    at: int
    what: str


Mishap = Dies | Interrupted | Refused | Unanswered | Meanwhile

HOW = {
    "throttled": {"s3": ("SlowDown", 503), "json": ("ThrottlingException", 400)},
    "failing": {"s3": ("InternalError", 500), "json": ("InternalServerError", 500)},
    "forbidden": {"s3": ("AccessDenied", 403), "json": ("AccessDeniedException", 400)},
}
QUERY = {"throttled": "Throttling", "failing": "InternalFailure", "forbidden": "AccessDenied"}


class Died(BaseException):
    """Raised in a process that is no more."""


class Stopped(BaseException):
    """Ctrl-C."""


@dataclass
class Run:
    """One process at work. ours: certrail's, not somebody's at the console."""

    ours: bool
    mishap: Mishap | None = None
    calls: int = 0
    dead: bool = False


@dataclass
class LocalAws:
    """As a context manager, the AWS of every boto3 client made inside.

    meanwhile: does what a `Meanwhile` names. after_write: is told of each write that had an effect.
    sqs: answers the calls to queues. to_come: what no run has met yet.
    """

    clock: Clock
    meanwhile: Callable[[str], None] = lambda what: None
    after_write: Callable[[str, str, AWSPreparedRequest, bool], None] = lambda *_: None
    sqs: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda operation, request: {}
    happened: Counter[str] = field(default_factory=Counter)
    to_come: Mishap | None = None
    _runs: list[Run] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[LocalAws]:
        rules.install()
        entries: list[Any] = [
            ("request-created", self._between_calls),
            ("before-send", self._send),
        ]
        BUILTIN_HANDLERS.extend(entries)
        with pytest.MonkeyPatch.context() as patch:
            # Of a server that other tests started.
            patch.delenv("AWS_ENDPOINT_URL", raising=False)
            for module in ("moto.acm.models", "moto.cloudwatch.models", "sandbox.rules.acm"):
                patch.setattr(f"{module}.utcnow", lambda: self.clock.now.replace(tzinfo=None))
            patch.setattr(import_limit, "clock", lambda: self.clock.now.timestamp())
            # botocore's own retries, without their waiting and without a memory of other histories.
            backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
            patch.setattr(backoff, lambda *_: 0.0)
            patch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda *_: True)
            try:
                yield self
            finally:
                for entry in entries:
                    BUILTIN_HANDLERS.remove(entry)

    def run(self, act: Callable[[], T], mishap: Mishap | None = None, *, ours: bool = True) -> T:
        """Let a process do something. Raises Died, Stopped where that happened to it."""
        if ours:
            mishap, self.to_come = self.to_come or mishap, None
        run = Run(ours, mishap)
        self._runs.append(run)
        try:
            # Nothing of another process is known in it.
            return Context().run(act)
        finally:
            self._runs.pop()
            # Only of `certrail apply` somebody waits for the end.
            if mishap and mishap.at > run.calls and not isinstance(mishap, Interrupted):
                self.to_come = replace(mishap, at=mishap.at - run.calls)

    def _between_calls(self, **_: Any) -> None:
        run = self._runs[-1]
        mishap = run.mishap
        if isinstance(mishap, Meanwhile) and mishap.at == run.calls + 1:
            self.happened[f"meanwhile: {mishap.what}"] += 1
            self.meanwhile(mishap.what)

    def _send(self, request: AWSPreparedRequest, event_name: str, **_: Any) -> AWSResponse:
        service, operation = event_name.split(".")[1:]
        run = self._runs[-1]
        if run.dead:
            raise Died
        run.calls += 1
        self.happened["calls"] += 1
        self.clock.passes(TICK)
        mishap = run.mishap
        if isinstance(mishap, Interrupted) and mishap.at == run.calls:
            self.happened["interrupted"] += 1
            raise Stopped
        if isinstance(mishap, Dies) and mishap == Dies(run.calls, after=False):
            self.happened["died before a call"] += 1
            run.dead = True
            raise Died
        if isinstance(mishap, Refused) and 0 <= run.calls - mishap.at < mishap.times:
            self.happened[mishap.how] += 1
            return _refusal(request, service, mishap.how)
        answer = self._answer(request, service, operation)
        if answer.status_code < 300 and not READS.match(operation):
            self.happened["writes"] += service != "sqs"
            self.after_write(service, operation, request, run.ours)
        if isinstance(mishap, Dies) and mishap == Dies(run.calls, after=True):
            self.happened["died after a call"] += 1
            run.dead = True
            raise Died
        if isinstance(mishap, Unanswered) and 0 <= run.calls - mishap.at < mishap.times:
            self.happened["answers lost"] += 1
            raise ReadTimeoutError(endpoint_url=request.url)
        return answer

    def _answer(self, request: AWSPreparedRequest, service: str, operation: str) -> AWSResponse:
        if service == "sqs":
            said = self.sqs(operation, json.loads(body_of(request)))
            return _response(request, 200, "application/x-amz-json-1.0", json.dumps(said))
        if operation == "GetObject":
            return _object(request)
        asked = normalize_request(request)
        for pattern, answers in _urls(service):
            if pattern.match(request.url.partition("?")[0]):
                status, headers, body = answers(asked, asked.raw_url, asked.headers)
                raw: Any = MockRawResponse(body)
                return AWSResponse(request.url, status, headers, raw)
        raise NotImplementedError(request.url)


def _object(request: AWSPreparedRequest) -> AWSResponse:
    """An object as moto keeps it, without moto's way there: of ten calls eight are this one."""
    url = urlsplit(request.url)
    bucket = s3_backends[ACCOUNT]["aws"].buckets[url.netloc.partition(".")[0]]
    held = bucket.keys.get(unquote(url.path).removeprefix("/"))
    if held is None:
        return _response(request, 404, "application/xml", "<Error><Code>NoSuchKey</Code></Error>")
    headers: Any = {"ETag": held.etag, "Content-Length": str(held.size)}
    raw: Any = MockRawResponse(held.value)
    return AWSResponse(request.url, 200, headers, raw)


@cache
def _urls(service: str) -> list[tuple[re.Pattern[str], Callable[..., Any]]]:
    """What moto answers with, by URL; moto's own decorator makes this list at every request."""
    found: Any = backends.get_backend(MOTO.get(service, service))  # type: ignore[call-overload]
    regions = found[ACCOUNT] if isinstance(found, BackendDict) else found
    backend = regions["us-east-1"] if "us-east-1" in regions else regions["aws"]
    return [(re.compile(url), answers) for url, answers in backend.urls.items()]


def body_of(request: AWSPreparedRequest) -> bytes:
    """Of a request whose body is no stream."""
    body = request.body or b""
    assert isinstance(body, str | bytes)
    return body.encode() if isinstance(body, str) else body


def clock_of(clock: Clock) -> type[datetime]:
    """`datetime` for a module that asks it what time it is."""

    class Now(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return clock.now.astimezone(tz or UTC)

    return Now


def _refusal(request: AWSPreparedRequest, service: str, how: str) -> AWSResponse:
    """An error as this service words it (https://smithy.io/2.0/aws/protocols/index.html)."""
    if service in {"elastic-load-balancing-v2", "cloudfront"}:
        error = f"<Error><Type>Sender</Type><Code>{QUERY[how]}</Code><Message>No.</Message></Error>"
        status = {"throttled": 400, "failing": 500, "forbidden": 403}[how]
        return _response(request, status, "text/xml", f"<ErrorResponse>{error}</ErrorResponse>")
    if service == "s3":
        code, status = HOW[how]["s3"]
        text = f"<Error><Code>{code}</Code><Message>No.</Message></Error>"
        return _response(request, status, "application/xml", text)
    code, status = HOW[how]["json"]
    text = json.dumps({"__type": code, "message": "No."})
    return _response(request, status, "application/x-amz-json-1.1", text)


def _response(request: AWSPreparedRequest, status: int, kind: str, text: str) -> AWSResponse:
    headers: Any = {"Content-Type": kind, "Content-Length": str(len(text))}
    raw: Any = MockRawResponse(text)
    return AWSResponse(request.url, status, headers, raw)
