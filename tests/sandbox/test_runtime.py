"""How the sandbox's functions start and end, and what happens when they cannot."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import psutil
import pytest
from botocore.exceptions import ClientError

from sandbox.events import Events
from sandbox.functions import Functions, FunctionsBroken
from sandbox.stack import Stack, deploy
from tests.sandbox.cloud import Cloud, cloud
from tests.sandbox.template import TEMPLATE

HANDLERS = Path(__file__).parent / "handlers"


@pytest.fixture(scope="module")
def aws() -> Iterator[Cloud]:
    with cloud() as aws:
        yield aws


@pytest.fixture(scope="module")
def stack(aws: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    file = tmp_path_factory.mktemp("stack") / "template.yaml"
    file.write_text(TEMPLATE)
    return deploy(file, aws.endpoint, {}, session=aws.session)


def test_every_child_ends_with_the_functions(aws: Cloud, stack: Stack) -> None:
    me = psutil.Process()
    before = set(me.children())
    with Events() as events:
        with Functions(stack, aws.endpoint, HANDLERS, events=events) as functions:
            functions.warm()
            # One is busy when the end comes.
            thread = Thread(target=functions.invoke, args=("Step", {"Records": [{"body": "{}"}]}))
            thread.start()
            assert len(set(me.children()) - before) >= 3
        thread.join()
    assert set(me.children()) == before


def test_schedules_fire_at_the_start(aws: Cloud, stack: Stack) -> None:
    with (
        Events() as events,
        Functions(stack, aws.endpoint, HANDLERS, events=events, schedules=True) as functions,
    ):
        functions.idle(20)
        assert functions.logs("Wake") == ['{"woken": {"scheduled": true}}']


def test_a_role_that_may_not_read_its_queue_is_said(aws: Cloud, stack: Stack) -> None:
    iam, role = aws.client("iam"), stack.resources["WorkRole"]
    arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaSQSQueueExecutionRole"
    iam.detach_role_policy(RoleName=role, PolicyArn=arn)
    try:
        with (
            Events() as events,
            Functions(stack, aws.endpoint, HANDLERS, events=events) as functions,
        ):
            aws.client("sqs").send_message(QueueUrl=stack.resources["Jobs"], MessageBody="{}")
            with pytest.raises(FunctionsBroken, match="ReceiveMessage"):
                functions.idle(20)
    finally:
        iam.attach_role_policy(RoleName=role, PolicyArn=arn)
        aws.client("sqs").purge_queue(QueueUrl=stack.resources["Jobs"])


def test_without_functions_nothing_is_invoked(aws: Cloud, stack: Stack) -> None:
    with pytest.raises(ClientError, match="no functions run"):
        aws.client("lambda").invoke(FunctionName=stack.functions["Wake"])


PARENT = """
import sys, time
from pathlib import Path
from sandbox.runtime import Child, Spec
child = Child(
    Spec("f", "arn", "functions.wake", 60, Path(sys.argv[1]), {"PATH": "/usr/bin:/bin"}),
    # Two threads that print may share a line.
    lambda line: None,
)
child.invoke(b"{}")
print(child.pid, flush=True)
child.invoke(b'{"do": "sleep"}')
"""


def test_a_child_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(HANDLERS)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout
        pid = next(int(line) for line in parent.stdout if line.strip().isdigit())
        child = psutil.Process(pid)
        os.kill(parent.pid, signal.SIGKILL)
        child.wait(10)
