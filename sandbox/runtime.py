"""One execution environment of a Lambda function: a child under AWS's own runtime client.

The child speaks to a Runtime API of its own in this process. It stays warm between invocations and
ends with the sandbox: when it is stopped, and also when this process dies without a word.

Sources:
  Runtime API  https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
  lifecycle    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
  quotas       https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any
from uuid import uuid4

LIFELINE = Path(__file__).with_name("lifeline.py")
API = "/2018-06-01/runtime"
# Lambda's own time for the code outside the handler, in seconds.
INIT_LIMIT = 10.0
RESPONSE_LIMIT = 6 * 1024 * 1024


@dataclass(frozen=True)
class Spec:
    """What a child is started from. `timeout` in seconds; `directory` stands for /var/task."""

    name: str
    arn: str
    handler: str
    timeout: float
    directory: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Result:
    """How an invocation ended.

    payload: the function's JSON, or Lambda's error document. error: None, or "Unhandled".
    duration: seconds, without the start of the child.
    """

    request_id: str
    payload: bytes
    error: str | None = None
    duration: float = 0.0

    def json(self) -> Any:
        return json.loads(self.payload or b"null")


@dataclass
class _Invocation:
    payload: bytes
    id: str = field(default_factory=lambda: str(uuid4()))
    started: Event = field(default_factory=Event)
    done: Event = field(default_factory=Event)
    answer: bytes = b""
    error: str | None = None

    def end(self, answer: bytes, error: str | None) -> None:
        if not self.done.is_set():
            self.answer, self.error = answer, error
            self.started.set()
            self.done.set()


class Child:
    """A running execution environment. One invocation at a time; `log` gets each line it writes."""

    def __init__(self, spec: Spec, log: Callable[[str], None]) -> None:
        self.spec = spec
        self.ended = Event()
        self._log = log
        self._next: SimpleQueue[_Invocation | None] = SimpleQueue()
        self._current: _Invocation | None = None
        self._init_error: bytes | None = None
        self._lock = Lock()
        self._api = _RuntimeApi(self)
        Thread(target=self._api.serve_forever, args=(0.05,), daemon=True).start()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(LIFELINE), spec.handler],
            cwd=spec.directory,
            env={**spec.environment, "AWS_LAMBDA_RUNTIME_API": self._api.address},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal is for the sandbox, which then ends its children.
            start_new_session=True,
        )
        self._reader = Thread(target=self._read_log, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def invoke(self, payload: bytes) -> Result:
        """Run the handler once. Errors are in the result, as Lambda words them; none is raised."""
        invocation = _Invocation(payload)
        with self._lock:
            self._current = invocation
        if self.ended.is_set():
            self._report_end(invocation)
        self._next.put(invocation)
        if not invocation.started.wait(INIT_LIMIT + self.spec.timeout):
            self._time_out(invocation)
        began = time.monotonic()
        if not invocation.done.wait(self.spec.timeout):
            self._time_out(invocation)
        duration = time.monotonic() - began
        answer, error = invocation.answer, invocation.error
        if len(answer) > RESPONSE_LIMIT:
            error = "Unhandled"
            answer = _error_document(
                "Function.ResponseSizeTooLarge",
                f"Response payload size exceeded maximum allowed payload size "
                f"({RESPONSE_LIMIT} bytes).",
            )
        return Result(invocation.id, answer, error, duration)

    def stop(self) -> None:
        """End the child and all that it started; returns when it is gone."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._reader.join()
        self._next.put(None)
        self._api.close()

    # What the Runtime API tells.

    def _take(self) -> _Invocation | None:
        invocation = self._next.get()
        if invocation is not None:
            invocation.started.set()
        return invocation

    def _answered(self, request_id: str, answer: bytes, error: str | None) -> None:
        with self._lock:
            invocation = self._current
        if invocation is not None and invocation.id == request_id:
            invocation.end(answer, error)

    def _failed_to_start(self, answer: bytes) -> None:
        self._init_error = answer

    # How a child can end.

    def _read_log(self) -> None:
        if self._process.stdout:
            with self._process.stdout as lines:
                for line in lines:
                    self._log(line.decode(errors="replace").rstrip("\n"))
        self._process.wait()
        self.ended.set()
        with self._lock:
            invocation = self._current
        if invocation is not None:
            self._report_end(invocation)

    def _report_end(self, invocation: _Invocation) -> None:
        code = self._process.returncode
        if self._init_error is not None:
            invocation.end(self._init_error, "Unhandled")
            return
        if code == 0:
            reason = "Runtime exited without providing a reason"
        elif code < 0:
            reason = f"Runtime exited with error: signal: {signal.Signals(-code).name}"
        else:
            reason = f"Runtime exited with error: exit status {code}"
        message = f"RequestId: {invocation.id} Error: {reason}"
        invocation.end(_error_document("Runtime.ExitError", message), "Unhandled")

    def _time_out(self, invocation: _Invocation) -> None:
        message = f"Task timed out after {self.spec.timeout:.2f} seconds"
        self._log(f"{invocation.id} {message}")
        document = _error_document(
            "Sandbox.Timedout", f"RequestId: {invocation.id} Error: {message}"
        )
        invocation.end(document, "Unhandled")
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.ended.wait()


def _error_document(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


class _RuntimeApi(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, child: Child) -> None:
        self.child = child
        super().__init__(("127.0.0.1", 0), _Requests)
        self.address = f"127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A child that ends breaks its connection: that is no error."""


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave together, at once: otherwise each call waits 40 ms for an ACK.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _RuntimeApi

    def do_GET(self) -> None:
        if self.path != f"{API}/invocation/next":
            self._send(404, b"{}")
            return
        child = self.server.child
        invocation = child._take()
        if invocation is None:
            self.close_connection = True
            return
        deadline = int((time.time() + child.spec.timeout) * 1000)
        self._send(
            200,
            invocation.payload,
            {
                "Lambda-Runtime-Aws-Request-Id": invocation.id,
                "Lambda-Runtime-Deadline-Ms": str(deadline),
                "Lambda-Runtime-Invoked-Function-Arn": child.spec.arn,
            },
        )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        child = self.server.child
        match self.path.removeprefix(API).strip("/").split("/"):
            case ["invocation", request_id, "response"]:
                child._answered(request_id, body, None)
            case ["invocation", request_id, "error"]:
                child._answered(request_id, body, "Unhandled")
            case ["init", "error"]:
                child._failed_to_start(body)
            case _:
                self._send(404, b"{}")
                return
        self._send(202, b'{"status":"OK"}')

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """The Runtime API is not the function's business."""
