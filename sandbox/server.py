"""The sandbox's AWS endpoint: moto behind a gate that records, refuses and decides.

Every request passes, in this order: what a test wants to happen before it (`before`), a refusal
that a test asked for (`refuse`), IAM (`permissions`), moto with AWS's rules (`rules`), the journal
(`calls`), what a test wants to happen after it (`after`).
"""

from __future__ import annotations

import io
import json
import logging
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from threading import Event, Lock, RLock, Thread
from typing import Any, NamedTuple
from urllib.parse import unquote
from uuid import uuid4
from xml.etree.ElementTree import Element, tostring

from moto.core.request import (
    PRESERVED_HEADER_NAMES_ENVIRON_KEY,
    determine_request_protocol,
    should_preserve_original_header_name,
)
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from sandbox import permissions
from sandbox.calls import Call, Journal, queue_name, read
from sandbox.part import Part
from sandbox.propagation import propagation

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
# How long a client that waits for a message may wait for one that came meanwhile, in seconds.
POLL = 0.05
# Services whose calls may be answered while another of theirs is: an invocation runs a function,
# which makes calls of its own.
AT_ONCE = {"lambda"}

# HTTP status by error code, where botocore's model of the service does not say.
STATUS = {
    "AccessDenied": 403,
    "ConditionalRequestConflict": 409,
    "InternalError": 500,
    "InternalFailure": 500,
    "InternalServiceError": 500,
    "InvalidClientTokenId": 403,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NotImplemented": 501,
    "PreconditionFailed": 412,
    "ServiceUnavailable": 503,
    "SlowDown": 503,
}


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class Refusal:
    """Calls of `action` (wildcards allowed) get this error, `left` times or until it is taken back.

    `hits` are the calls that got it.
    """

    action: str
    code: str
    message: str
    status: int | None
    left: int | None
    when: Callable[[Call], bool]
    hits: list[Call]


class Server(Part):
    """moto's server on 127.0.0.1, as a context manager; port 0 is any free one.

    calls: the journal of all signed requests.
    before, after: functions that are given each call, before moto sees it and once it is answered.
    They may make calls of their own, for which they are called again.
    """

    def __init__(self, port: int = 0) -> None:
        self.calls = Journal()
        self.before: list[Callable[[Call], None]] = []
        self.after: list[Callable[[Call], None]] = []
        self._port = port
        self._refusals: list[Refusal] = []
        self._refusals_lock = Lock()
        self._locks: defaultdict[str, RLock] = defaultdict(RLock)
        self._stopping = Event()
        self._moto = _Moto(create_backend_app)
        self._listener: _Listener | None = None
        self._thread: Thread | None = None

    def start(self) -> None:
        """Answer requests from now on. OSError if the port is taken."""
        from sandbox import rules

        rules.install()
        permissions.install()
        self._stopping.clear()
        self._listener = _Listener(self._port, self._answer)
        self._thread = Thread(target=self._listener.serve_forever, args=(0.05,), name="moto")
        self._thread.start()

    def stop(self) -> None:
        """End every connection and thread; calls in progress are answered first."""
        if self._listener is None or self._thread is None:
            return
        self._stopping.set()
        self._listener.shutdown()
        self._thread.join()
        self._listener.close_connections()
        self._listener.server_close()
        self._listener = self._thread = None

    @property
    def port(self) -> int:
        if self._listener is None:
            raise RuntimeError("the sandbox's AWS server is not running")
        port: int = self._listener.server_address[1]
        return port

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def reset(self) -> None:
        """Everything as it was at the start: no resources, no journal, no refusals, no hooks,
        no delays."""
        from moto.moto_api._internal.models import moto_api_backend

        from sandbox.rules.acm import import_limit

        moto_api_backend.reset()
        import_limit.refill()
        propagation.reset()
        self.calls.clear()
        self.before.clear()
        self.after.clear()
        with self._refusals_lock:
            self._refusals.clear()

    @contextmanager
    def refuse(
        self,
        action: str,
        code: str,
        message: str = "refused by the sandbox",
        *,
        status: int | None = None,
        times: int | None = None,
        when: Callable[[Call], bool] = lambda call: True,
    ) -> Iterator[list[Call]]:
        """Within the block, calls of `action` fail as AWS fails: `code` in the service's format.

        action: "acm:ImportCertificate", with wildcards if need be ("s3:Put*").
        status: HTTP status; if not given, what the service has for the code.
        times: how often, at most. when: which calls. Gives the list of the calls that failed.
        """
        refusal = Refusal(action, code, message, status, times, when, [])
        with self._refusals_lock:
            self._refusals.append(refusal)
        try:
            yield refusal.hits
        finally:
            with self._refusals_lock:
                self._refusals = [each for each in self._refusals if each is not refusal]

    def _answer(self, environ: dict[str, Any], body: bytes) -> Answer:
        call = read(environ, body)
        if call is None:
            # Not signed: moto's own pages, or somebody who is nobody.
            return self._ask_moto(environ, body)
        call = replace(call, caller=permissions.caller(call).arn)
        for hook in list(self.before):
            hook(call)
        call, answer = self._gate(call, environ, body)
        call = replace(call, status=answer.status)
        self.calls.add(call)
        for hook in list(self.after):
            hook(call)
        return answer

    def _gate(self, call: Call, environ: dict[str, Any], body: bytes) -> tuple[Call, Answer]:
        refusal = self._refusal(call)
        if refusal is not None:
            return call, _error(call, environ, refusal.code, refusal.message, refusal.status)
        try:
            call = permissions.decide(call)
        except permissions.Denied as denied:
            call = replace(call, decisions=denied.decisions)
            return call, _error(call, environ, denied.code, denied.message)
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = call.account
        try:
            if call.action == "sqs:ReceiveMessage":
                return call, self._receive(call, environ, body)
            return call, self._ask_in_turn(call, environ, body)
        except NotImplementedError as missing:
            message = f"moto does not implement {call.action}: {missing}"
            return call, _error(call, environ, "NotImplemented", message, 501)
        except Exception as failure:
            # A fault in moto or in our rules is AWS's internal failure; the log has the cause.
            log.exception("moto failed in %s", call.action)
            message = f"{type(failure).__name__} in moto: {failure}"
            return call, _error(call, environ, "InternalFailure", message, 500)

    def _refusal(self, call: Call) -> Refusal | None:
        with self._refusals_lock:
            for refusal in self._refusals:
                if (
                    refusal.left != 0
                    and fnmatchcase(call.action, refusal.action)
                    and refusal.when(call)
                ):
                    if refusal.left is not None:
                        refusal.left -= 1
                    refusal.hits.append(call)
                    return refusal
        return None

    def _ask_in_turn(self, call: Call, environ: dict[str, Any], body: bytes) -> Answer:
        """One call of a service at a time: AWS's are atomic, moto's look first and write later."""
        if call.service in AT_ONCE:
            return self._ask_moto(environ, body)
        with self._locks[call.service]:
            return self._ask_moto(environ, body)

    def _receive(self, call: Call, environ: dict[str, Any], body: bytes) -> Answer:
        """Long polling, which in moto would hold the queue and could not be ended."""
        from moto.sqs.models import sqs_backends

        if call.params is None or "QueueUrl" not in call.params or not body.startswith(b"{"):
            return self._ask_in_turn(call, environ, body)
        wait = call.params.get("WaitTimeSeconds")
        if wait is None:
            queues = sqs_backends[call.account][call.region].queues
            queue = queues.get(queue_name(call.params["QueueUrl"]))
            wait = int(getattr(queue, "receive_message_wait_time_seconds", 0))
        if not 0 < wait <= 20:
            return self._ask_in_turn(call, environ, body)
        asked = json.dumps(json.loads(body) | {"WaitTimeSeconds": 0}).encode()
        end = time.monotonic() + wait
        while True:
            answer = self._ask_in_turn(call, environ, asked)
            done = answer.status != 200 or json.loads(answer.body).get("Messages")
            if done or time.monotonic() >= end or self._stopping.wait(POLL):
                return answer

    def _ask_moto(self, environ: dict[str, Any], body: bytes) -> Answer:
        asked = environ | {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], object]:
            started.append((status, headers))
            return lambda data: None

        chunks = self._moto(asked, start_response)
        try:
            content = b"".join(chunks)
        finally:
            close = getattr(chunks, "close", None)
            if close:
                close()
        status, headers = started[-1]
        return Answer(int(status.split()[0]), headers, content)


class _Moto(DomainDispatcherApplication):
    """moto, which looks for the service of a host in its source folder at every request."""

    def __init__(self, create_app: Callable[[Any], Any]) -> None:
        super().__init__(create_app)
        self._services: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        if host not in self._services:
            self._services[host] = super().get_backend_for_host(host)
        return self._services[host]


def _error(
    call: Call, environ: dict[str, Any], code: str, message: str, status: int | None = None
) -> Answer:
    """An error as this service words it (https://smithy.io/2.0/aws/protocols/index.html)."""
    service = call.model.service_model if call.model else None
    protocol = determine_request_protocol(service, environ.get("CONTENT_TYPE")) if service else ""
    if status is None:
        modelled = {
            shape.metadata.get("error", {}).get("code", shape.name): shape.metadata.get("error", {})
            for shape in (service.error_shapes if service else ())
        }
        status = modelled.get(code, {}).get("httpStatusCode") or STATUS.get(code, 400)
    if call.service == "s3":
        return _xml(status, {"Error": {"Code": code, "Message": message}})
    if protocol in {"query", "rest-xml"}:
        kind = "Sender" if status < 500 else "Receiver"
        error = {"Type": kind, "Code": code, "Message": message}
        return _xml(status, {"ErrorResponse": {"Error": error, "RequestId": str(uuid4())}})
    if protocol == "rest-json" and code == "AccessDeniedException":
        status = 403
    headers = [
        ("Content-Type", environ.get("CONTENT_TYPE") or "application/json"),
        ("x-amzn-errortype", code),
    ]
    if service and service.is_query_compatible:
        # Services that once spoke query keep its codes, in a header.
        headers.append(("x-amzn-query-error", f"{code};Sender"))
    text = json.dumps({"__type": code, "message": message})
    return Answer(status, headers, text.encode())


def _xml(status: int, content: dict[str, Any]) -> Answer:
    def element(name: str, value: Any) -> Element:
        made = Element(name)
        if isinstance(value, dict):
            made.extend(element(*part) for part in value.items())
        else:
            made.text = value
        return made

    ((name, value),) = content.items()
    body = tostring(element(name, value), "utf-8", xml_declaration=True)
    return Answer(status, [("Content-Type", "text/xml")], body)


class _Listener(ThreadingMixIn, TCPServer):
    """A thread per connection; connections are kept open, as boto3 keeps them.

    werkzeug's own server closes each connection after one answer, and lingers 10 ms on it.
    """

    allow_reuse_address = True
    request_queue_size = 128
    block_on_close = True

    def __init__(self, port: int, answer: Callable[[dict[str, Any], bytes], Answer]) -> None:
        self.answer = answer
        self._connections: set[socket.socket] = set()
        self._connections_lock = Lock()
        super().__init__((HOST, port), _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client may hang up while it waits; anything else is a fault of this server.
        if not isinstance(sys.exception(), ConnectionError):
            log.exception("a request from %s could not be answered", client_address)

    def close_connections(self) -> None:
        """No connection gets another request in; an answer on its way still goes out."""
        with self._connections_lock:
            for connection in self._connections:
                connection.shutdown(socket.SHUT_RD)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave together, at once: Nagle and delayed acknowledgements cost 40 ms.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Listener

    def _respond(self) -> None:
        body = self._body()
        answer = self.server.answer(self._environ(), body)
        self.send_response_only(answer.status, _phrase(answer.status))
        sized = self.command == "HEAD"
        for name, value in answer.headers:
            if name.lower() == "content-length":
                if not sized:
                    continue
                sized = False
            self.send_header(name, value)
        if self.command != "HEAD" and answer.status not in {204, 304}:
            self.send_header("Content-Length", str(len(answer.body)))
        elif sized:
            self.send_header("Content-Length", "0")
        if "x-amzn-requestid" not in {name.lower() for name, _ in answer.headers}:
            self.send_header("x-amzn-RequestId", str(uuid4()))
        self.end_headers()
        if self.command != "HEAD" and answer.status not in {204, 304}:
            self.wfile.write(answer.body)
        self.wfile.flush()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _respond  # noqa: N815

    def handle_expect_100(self) -> bool:
        # The client waits a second for this line before it sends the body without it.
        self.send_response_only(HTTPStatus.CONTINUE)
        self.end_headers()
        self.wfile.flush()
        return True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _environ(self) -> dict[str, Any]:
        path, _, query = self.path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            # WSGI spells bytes as latin-1 (PEP 3333).
            "PATH_INFO": unquote(path, "latin-1"),
            "QUERY_STRING": query,
            "RAW_URI": self.path,
            "REQUEST_URI": self.path,
            "REMOTE_ADDR": self.client_address[0],
            "SERVER_NAME": HOST,
            "SERVER_PORT": str(self.server.server_address[1]),
            "SERVER_PROTOCOL": self.request_version,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        spelled = environ[PRESERVED_HEADER_NAMES_ENVIRON_KEY] = {}
        for name, value in self.headers.items():
            key = name.upper().replace("-", "_")
            if should_preserve_original_header_name(name):
                spelled[f"HTTP_{key}"] = name
            if key == "TRANSFER_ENCODING":
                continue
            if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
                key = f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in {each.value for each in HTTPStatus} else "Unknown"
