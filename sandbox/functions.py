"""Runs the functions of the deployed stack from their own queues, rules and schedules.

Nothing is wired here: event source mappings, queues, schedules, environments, roles and timeouts
are read from what the template created. The roles do the polling, too.

Where Lambda waits for minutes the sandbox waits `patience` seconds at most: for a queue's
visibility timeout after a failure, between tries of an asynchronous invocation.

Sources:
  SQS            https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
  event          https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
  asynchronous   https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
  environment    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
  schedules      https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-targets.html
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.awslambda.models import EventSourceMapping, LambdaFunction, lambda_backends
from moto.scheduler.models import Schedule, scheduler_backends

from certrail.errors import CertrailError
from sandbox import permissions, queues
from sandbox.events import Events
from sandbox.part import Part
from sandbox.queues import changed
from sandbox.runtime import Child, Result, Spec
from sandbox.stack import Stack

LAMBDA = "lambda.amazonaws.com"
SCHEDULER = "scheduler.amazonaws.com"
LOG_TAIL = 4096
# How long a batching window stays open at most: here nothing crosses a network, and a burst is over
# sooner.
BURST = 0.2
# What ReceiveMessage and DeleteMessageBatch take at once.
SQS_BATCH = 10
RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
NO_RETRIES = Config(retries={"total_max_attempts": 1})


class FunctionsBroken(CertrailError):
    """The functions cannot go on: a role may not read its queue, or does not exist."""


class NotIdle(CertrailError, TimeoutError):
    """Work was still going on when the time was over; says which."""


@dataclass(frozen=True)
class Failure:
    """An invocation that ended in an error. `payload` is the event it was given."""

    function: str
    request_id: str
    type: str
    message: str
    payload: Any

    def __str__(self) -> str:
        return f"{self.function}: {self.type}: {self.message}"


class Functions(Part):
    """The running functions of a stack; `with` starts and ends them.

    directory: where the handlers' modules are. environment: added to every function's own.
    concurrency: how many invocations of one function one queue starts at a time, at most.
    schedules: also fire the stack's schedules, once at the start and then by their rate.
    verbose: what the functions log goes to stderr as well.

    failures: every invocation that ended in an error, retried or not.
    """

    def __init__(
        self,
        stack: Stack,
        endpoint: str,
        directory: Path,
        *,
        events: Events,
        account: str = "123456789012",
        environment: Mapping[str, str] | None = None,
        concurrency: int = 2,
        patience: float = 1.0,
        schedules: bool = False,
        verbose: bool = False,
    ) -> None:
        self.stack = stack
        self.failures: list[Failure] = []
        self._endpoint = endpoint
        self._directory = directory
        self._events = events
        self._account = account
        self._environment = dict(environment or {})
        self._concurrency = concurrency
        self._patience = patience
        self._schedules = schedules
        self._verbose = verbose
        self._logs: dict[str, list[str]] = defaultdict(list)
        self._children: dict[str, list[Child]] = defaultdict(list)
        self._every_child: set[Child] = set()
        self._children_lock = Lock()
        self._credentials: dict[str, permissions.Session] = {}
        self._clients: dict[tuple[str, str], Any] = {}
        self._clients_lock = Lock()
        self._session = boto3.Session(region_name=stack.region)
        self._turns: dict[str, Lock] = defaultdict(Lock)
        self._polled: set[str] = set()
        self._threads: list[Thread] = []
        self._stopping = Event()
        # Both are changed and read with `changed` held.
        self._at_work: dict[str, int] = defaultdict(int)
        self._broken: list[FunctionsBroken] = []

    # Life.

    def start(self) -> None:
        _entered.append(self)
        install()
        self._events.invoke = self.invoke_later
        self._start_pollers()
        if self._schedules:
            with changed:
                self._at_work["schedules"] += 1
            self._thread(self._fire_by_rate, "schedules")

    def stop(self) -> None:
        self._stopping.set()
        with changed:
            changed.notify_all()
        # An invocation in progress ends with its child, and its thread after it.
        self._stop_children()
        for thread in self._threads:
            thread.join()
        self._stop_children()
        _entered.remove(self)

    def update(self, stack: Stack) -> None:
        """The stack was deployed again: poll what is new. Changed functions start afresh."""
        self.stack = stack
        self._start_pollers()

    def warm(self) -> None:
        """Start a child for every function now, all at once, and do not wait for them."""
        for name in self.stack.functions.values():
            function = self._function(name)
            child = self._start(self._spec(function))
            with self._children_lock:
                self._children[name].append(child)

    def _stop_children(self) -> None:
        with self._children_lock:
            children, self._every_child = self._every_child, set()
            self._children.clear()
        for child in children:
            child.stop()

    def _thread(self, work: Callable[..., None], name: str, *arguments: Any) -> None:
        thread = Thread(target=work, args=arguments, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    # What a user of the sandbox asks.

    def idle(self, timeout: float) -> None:
        """Wait until every queue is empty and nothing runs. Raises NotIdle, FunctionsBroken.

        Queues are those that a function reads: dead letters may stay. Events that a test holds
        back do not count, nor do messages that a queue delays: they are for later.
        """
        with changed:
            over = changed.wait_for(lambda: self._broken or not self._unfinished(), timeout)
            if self._broken:
                raise self._broken[0]
            if not over:
                raise NotIdle(
                    f"not idle after {timeout} s: {', '.join(self._unfinished())}",
                    next="The functions' logs and `failures` say what they do",
                )

    def logs(self, name: str) -> list[str]:
        """The lines a function has written, by its logical id or name. The last ones may come a
        little after the invocation's end; `queues.changed` is notified of each."""
        return list(self._logs[self._name(name)])

    def invoke(self, name: str, payload: Any = None) -> Result:
        """Invoke and wait, by logical id, name or ARN; `payload` is any JSON."""
        function = self._function(self._name(name))
        return self._run(function, json.dumps({} if payload is None else payload).encode())

    def invoke_later(self, name: str, payload: str) -> None:
        """Invoke asynchronously with a JSON text: tried again where it fails, as Lambda does."""
        function = self._function(self._name(name))
        with changed:
            if self._stopping.is_set():
                return
            self._at_work[function.function_name] += 1
        self._thread(self._run_later, f"{name} later", function, payload.encode())

    def fire_schedule(self, name: str) -> None:
        """Fire a schedule now, by its logical id or name, with the role it has for that.

        KeyError, with the names there are, if it does not exist.
        """
        self._fire(self._schedule(self.stack.resources.get(name, name)))

    def _unfinished(self) -> list[str]:
        at_work = [f"{name} runs" for name, count in self._at_work.items() if count]
        for mapping in self._mappings():
            if mapping.enabled and mapping.uuid in self._polled:
                with suppress(KeyError):
                    queue = queues.queue(mapping.event_source_arn)
                    if there := sum(not message.delayed for message in queue._messages):
                        at_work.append(f"{there} in {queue.name}")
        return at_work

    # What the template created.

    def _name(self, name: str) -> str:
        return self.stack.functions.get(name, name.rsplit(":", 1)[-1])

    def _function(self, name: str) -> LambdaFunction:
        backend = lambda_backends[self._account][self.stack.region]
        found: LambdaFunction = backend.get_function(name)
        return found

    def _mappings(self) -> list[EventSourceMapping]:
        backend = lambda_backends[self._account][self.stack.region]
        return list(backend._event_source_mappings.values())

    def _schedule(self, name: str) -> Schedule:
        groups = scheduler_backends[self._account][self.stack.region].schedule_groups
        schedules = {
            name: each for group in groups.values() for name, each in group.schedules.items()
        }
        if name not in schedules:
            raise KeyError(f"no schedule {name}; there are {', '.join(sorted(schedules))}")
        return schedules[name]

    # Invocations.

    def _run(self, function: LambdaFunction, payload: bytes) -> Result:
        child = self._child(function)
        try:
            result = child.invoke(payload)
        finally:
            self._return(child)
        if result.error and not self._stopping.is_set():
            document = result.json()
            self.failures.append(
                Failure(
                    function=function.function_name,
                    request_id=result.request_id,
                    type=document.get("errorType", ""),
                    message=document.get("errorMessage", ""),
                    payload=json.loads(payload),
                )
            )
        return result

    def _run_later(self, function: LambdaFunction, payload: bytes) -> None:
        name = function.function_name
        try:
            tries = 1 + _retries(function)
            for number in range(tries):
                if number and self._stopping.wait(self._patience):
                    return
                if not self._run(function, payload).error:
                    return
        except FunctionsBroken as error:
            self._break(error, name)
        finally:
            with changed:
                self._at_work[name] -= 1
                changed.notify_all()

    def _child(self, function: LambdaFunction) -> Child:
        """A warm child if there is one that was started from the function as it is now."""
        spec = self._spec(function)
        with self._children_lock:
            idle = self._children[spec.name]
            while idle:
                child = idle.pop()
                if child.spec == spec and not child.ended.is_set():
                    return child
                self._every_child.discard(child)
                child.stop()
        return self._start(spec)

    def _start(self, spec: Spec) -> Child:
        child = Child(spec, lambda line: self._logged(spec.name, line))
        with self._children_lock:
            self._every_child.add(child)
        if self._stopping.is_set():
            child.stop()
        return child

    def _return(self, child: Child) -> None:
        with self._children_lock:
            if not child.ended.is_set() and child in self._every_child:
                self._children[child.spec.name].append(child)
                return
            self._every_child.discard(child)
        child.stop()

    def _logged(self, name: str, line: str) -> None:
        with changed:
            self._logs[name].append(line)
            changed.notify_all()
        if self._verbose:
            sys.stderr.write(f"{name}: {line}\n")

    def _spec(self, function: LambdaFunction) -> Spec:
        name = function.function_name
        configuration = function.get_configuration()
        logs = configuration["LoggingConfig"]
        credentials = self._role(function.role, LAMBDA)
        environment = {
            **function.environment_vars,
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "_HANDLER": str(function.handler),
            "LAMBDA_TASK_ROOT": str(self._directory),
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.run_time}",
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_FORMAT": logs["LogFormat"],
            "AWS_LAMBDA_LOG_GROUP_NAME": logs["LogGroup"],
            "AWS_LAMBDA_LOG_STREAM_NAME": "sandbox",
            "AWS_REGION": function.region,
            "AWS_DEFAULT_REGION": function.region,
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret,
            "AWS_SESSION_TOKEN": credentials.token,
            "AWS_ENDPOINT_URL": self._endpoint,
            # Nothing of the user's own AWS configuration.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            **self._environment,
            # What an operator sets stays; what the template leaves empty is filled in.
            **{key: value for key, value in function.environment_vars.items() if value},
        }
        if "ApplicationLogLevel" in logs:
            environment["AWS_LAMBDA_LOG_LEVEL"] = logs["ApplicationLogLevel"]
        return Spec(
            name=name,
            arn=function.function_arn,
            handler=str(function.handler),
            timeout=float(function.timeout),
            directory=self._directory,
            environment=environment,
        )

    def _role(self, arn: str, service: str) -> permissions.Session:
        with self._clients_lock:
            if arn not in self._credentials:
                try:
                    self._credentials[arn] = permissions.session(arn, service)
                except permissions.NoSuchRole as error:
                    raise FunctionsBroken(str(error), where=arn) from error
            return self._credentials[arn]

    def _client(self, service: Any, role: str, principal: str) -> Any:
        """A client with a role's credentials, made once."""
        credentials = self._role(role, principal)
        with self._clients_lock:
            if (service, role) not in self._clients:
                self._clients[service, role] = self._session.client(
                    service,
                    endpoint_url=self._endpoint,
                    aws_access_key_id=credentials.access_key,
                    aws_secret_access_key=credentials.secret,
                    aws_session_token=credentials.token,
                    config=NO_RETRIES,
                )
            return self._clients[service, role]

    def _break(self, error: Exception, where: str = "") -> None:
        """Let whoever waits for the functions know that they cannot go on."""
        if self._stopping.is_set():
            return
        if not isinstance(error, FunctionsBroken):
            cause, error = error, FunctionsBroken(str(error), where=where)
            error.__cause__ = cause
        with changed:
            self._broken.append(error)
            changed.notify_all()

    # Queues.

    def _start_pollers(self) -> None:
        for mapping in self._mappings():
            if mapping.uuid in self._polled:
                continue
            if mapping.filter_criteria:
                raise FunctionsBroken(
                    "the sandbox does not implement FilterCriteria", where=mapping.event_source_arn
                )
            self._polled.add(mapping.uuid)
            limit = (mapping.scaling_config or {}).get("MaximumConcurrency", self._concurrency)
            reserved = self._function(self._name(mapping.function_arn)).reserved_concurrency
            for _ in range(min(self._concurrency, limit, int(reserved or limit))):
                self._thread(self._poll, mapping.function_arn, mapping)

    def _poll(self, mapping: EventSourceMapping) -> None:
        """One of the mapping's pollers: batch after batch, as long as there is the mapping."""
        try:
            while True:
                with self._turns[mapping.uuid]:
                    messages = self._receive(mapping)
                if messages is None:
                    return
                try:
                    if messages:
                        self._handle(mapping, messages)
                finally:
                    with changed:
                        self._at_work[self._name(mapping.function_arn)] -= 1
                        changed.notify_all()
        except (ClientError, FunctionsBroken) as error:
            self._break(error, f"{mapping.function_arn} reading {mapping.event_source_arn}")

    def _receive(self, mapping: EventSourceMapping) -> list[dict[str, Any]] | None:
        """Wait for messages and take a batch; None when there will be no more.

        From here on the function counts as at work: its caller must take that back.
        """
        name = self._name(mapping.function_arn)
        with changed:
            while True:
                if self._stopping.is_set() or mapping not in self._mappings():
                    return None
                try:
                    queue = queues.queue(mapping.event_source_arn)
                except KeyError:
                    return None
                if mapping.enabled and queues.waiting(queue):
                    break
                changed.wait(queues.next_visible(queue))
            window = min(mapping.max_batch_window or 0, BURST)
            changed.wait_for(
                lambda: self._stopping.is_set() or queues.waiting(queue) >= mapping.batch_size,
                window,
            )
            self._at_work[name] += 1
        client = self._client("sqs", self._function(name).role, LAMBDA)
        messages: list[dict[str, Any]] = []
        try:
            while len(messages) < mapping.batch_size:
                more = client.receive_message(
                    QueueUrl=queue.physical_resource_id,
                    MaxNumberOfMessages=min(SQS_BATCH, mapping.batch_size - len(messages)),
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                ).get("Messages", [])
                messages += more
                if len(more) < SQS_BATCH:
                    break
        except BaseException:
            with changed:
                self._at_work[name] -= 1
                changed.notify_all()
            raise
        return messages

    def _handle(self, mapping: EventSourceMapping, messages: list[dict[str, Any]]) -> None:
        function = self._function(self._name(mapping.function_arn))
        event = {"Records": [_record(message, mapping) for message in messages]}
        result = self._run(function, json.dumps(event).encode())
        failed = _failed(result, mapping, {message["MessageId"] for message in messages})
        done = [message for message in messages if message["MessageId"] not in failed]
        queue = queues.queue(mapping.event_source_arn)
        client = self._client("sqs", function.role, LAMBDA)
        for start in range(0, len(done), SQS_BATCH):
            client.delete_message_batch(
                QueueUrl=queue.physical_resource_id,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                    for number, message in enumerate(done[start : start + SQS_BATCH])
                ],
            )
        queues.make_visible_within(queue, failed, self._patience)

    # Schedules.

    def _fire(self, schedule: Schedule) -> None:
        target = schedule.target
        arn, role = target["Arn"], target["RoleArn"]
        moment = datetime.now(UTC)
        payload = _schedule_input(schedule, moment, self._account, self.stack.region)
        service = arn.split(":")[2]
        if service == "lambda":
            answer = self._client("lambda", role, SCHEDULER).invoke(
                FunctionName=arn, InvocationType="Event", Payload=payload.encode()
            )
            answer["Payload"].close()
        elif service == "sqs":
            group = target.get("SqsParameters", {}).get("MessageGroupId")
            self._client("sqs", role, SCHEDULER).send_message(
                QueueUrl=queues.queue(arn).physical_resource_id,
                MessageBody=payload,
                **({"MessageGroupId": group} if group else {}),
            )
        else:
            raise FunctionsBroken("the sandbox fires schedules at Lambda and SQS only", where=arn)

    def _fire_by_rate(self) -> None:
        groups = scheduler_backends[self._account][self.stack.region].schedule_groups.values()
        enabled = [s for g in groups for s in g.schedules.values() if s.state == "ENABLED"]
        began = time.monotonic()
        due = []
        try:
            for schedule in enabled:
                self._fire(schedule)
                if period := _period(schedule.schedule_expression):
                    due.append((began + period, period, schedule))
        except (ClientError, FunctionsBroken) as error:
            self._break(error)
        finally:
            with changed:
                self._at_work["schedules"] -= 1
                changed.notify_all()
        while due:
            moment, period, schedule = due.pop(due.index(min(due, key=lambda each: each[0])))
            if self._stopping.wait(max(0.0, moment - time.monotonic())):
                return
            try:
                self._fire(schedule)
            except (ClientError, FunctionsBroken) as error:
                self._break(error)
            due.append((moment + period, period, schedule))


def _retries(function: LambdaFunction) -> int:
    config = getattr(function, "event_invoke_config", None)
    for each in config or []:
        return int(each.config.get("MaximumRetryAttempts", 2))
    return 2


def _record(message: dict[str, Any], mapping: EventSourceMapping) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {
            name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": mapping.event_source_arn,
        "awsRegion": mapping.region,
    }


def _attribute(value: dict[str, Any]) -> dict[str, Any]:
    binary = value.get("BinaryValue")
    return {
        "stringValue": value.get("StringValue"),
        "binaryValue": base64.b64encode(binary).decode() if binary else None,
        "stringListValues": [],
        "binaryListValues": [],
        "dataType": value["DataType"],
    }


def _failed(result: Result, mapping: EventSourceMapping, ids: set[str]) -> set[str]:
    """The messages that go back to the queue. An answer Lambda cannot read fails the batch."""
    if result.error:
        return ids
    if "ReportBatchItemFailures" not in (mapping.function_response_types or []):
        return set()
    answer = result.json()
    if answer is None or answer == "":
        return set()
    try:
        failures = answer.get("batchItemFailures") or []
        failed = {failure["itemIdentifier"] for failure in failures}
    except (AttributeError, KeyError, TypeError):
        return ids
    return failed if failed <= ids else ids


def _schedule_input(schedule: Schedule, moment: datetime, account: str, region: str) -> str:
    scheduled = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
    stated = schedule.target.get("Input")
    if stated is None:
        return json.dumps(
            {
                "version": "0",
                "id": str(uuid4()),
                "detail-type": "Scheduled Event",
                "source": "aws.scheduler",
                "account": account,
                "time": scheduled,
                "region": region,
                "resources": [schedule.arn],
                "detail": "{}",
            }
        )
    for word, value in (
        ("schedule-arn", schedule.arn),
        ("scheduled-time", scheduled),
        ("execution-id", str(uuid4())),
        ("attempt-number", "1"),
    ):
        stated = stated.replace(f"<aws.scheduler.{word}>", value)
    return str(stated)


def _period(expression: str) -> float:
    """Seconds between two firings of a rate; 0 for cron and at, which fire at the start only."""
    found = RATE.fullmatch(expression)
    return timedelta(**{f"{found[2]}s": int(found[1])}).total_seconds() if found else 0.0


# In moto's place: what lambda:Invoke reaches.

_entered: list[Functions] = []


def invoke(self: LambdaFunction, body: Any, request_headers: Any, response_headers: Any) -> bytes:
    if not _entered:
        raise NotImplementedError("no functions run in this sandbox")
    functions = _entered[-1]
    payload = body if isinstance(body, str) else (body or b"").decode()
    kind = request_headers.get("X-Amz-Invocation-Type", "RequestResponse")
    if kind == "DryRun":
        return b""
    if kind == "Event":
        functions.invoke_later(self.function_name, payload or "{}")
        return b""
    before = len(functions.logs(self.function_name))
    result = functions._run(self, (payload or "{}").encode())
    response_headers["X-Amz-Executed-Version"] = "$LATEST"
    if result.error:
        response_headers["x-amz-function-error"] = result.error
    tail = "\n".join(functions.logs(self.function_name)[before:]).encode()[-LOG_TAIL:]
    response_headers["x-amz-log-result"] = base64.b64encode(tail).decode()
    return result.payload


def install() -> None:
    """Put this in moto's place. Again changes nothing."""
    queues.install()
    LambdaFunction.invoke = invoke  # type: ignore[method-assign]
