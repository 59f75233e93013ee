"""The template's functions run from their own queues, rules and schedules, as Lambda runs them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.events import Events
from sandbox.functions import Functions, NotIdle
from sandbox.queues import changed
from sandbox.stack import Stack, deploy
from tests.sandbox.cloud import Cloud, cloud
from tests.sandbox.template import TEMPLATE

HANDLERS = Path(__file__).parent / "handlers"
ENVIRONMENT = {"CERTRAIL_NAMESERVERS": "127.0.0.1:5353"}


@pytest.fixture(scope="module")
def aws() -> Iterator[Cloud]:
    with cloud() as aws:
        yield aws


@pytest.fixture(scope="module")
def stack(aws: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    file = tmp_path_factory.mktemp("stack") / "template.yaml"
    file.write_text(TEMPLATE)
    return deploy(file, aws.endpoint, {}, session=aws.session)


@pytest.fixture(scope="module")
def running(aws: Cloud, stack: Stack) -> Iterator[Functions]:
    with (
        Events() as events,
        Functions(
            stack, aws.endpoint, HANDLERS, events=events, environment=ENVIRONMENT, patience=0.05
        ) as functions,
    ):
        yield functions


@pytest.fixture
def functions(running: Functions) -> Functions:
    running.failures.clear()
    return running


def send(aws: Cloud, url: str, body: dict[str, Any], group: str | None = None) -> None:
    extra = {"MessageGroupId": group, "MessageDeduplicationId": body["id"]} if group else {}
    aws.client("sqs").send_message(QueueUrl=url, MessageBody=json.dumps(body), **extra)


def received(aws: Cloud, url: str) -> list[dict[str, Any]]:
    messages = aws.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    for message in messages.get("Messages", []):
        aws.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return [json.loads(message["Body"]) for message in messages.get("Messages", [])]


def lines(
    functions: Functions,
    name: str,
    field: str,
    until: Callable[[list[dict[str, Any]]], bool],
) -> list[dict[str, Any]]:
    """What a function has logged with this field, as soon as `until` holds of it: a log comes a
    little after the answer."""

    def parsed() -> list[dict[str, Any]]:
        found = []
        for line in functions.logs(name):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if field in entry:
                found.append(entry)
        return found

    with changed:
        changed.wait_for(lambda: until(parsed()), 10)
    return parsed()


def woken(functions: Functions, until: Callable[[Any], bool]) -> Any:
    """What Wake was last woken with."""
    return lines(
        functions, "Wake", "woken", lambda found: bool(found) and until(found[-1]["woken"])
    )[-1]["woken"]


def test_an_upload_travels_to_a_function(aws: Cloud, stack: Stack, functions: Functions) -> None:
    before = len(functions.logs("Work"))
    aws.client("s3").put_object(
        Bucket=stack.outputs["BucketName"], Key="certificates/a/current.json", Body=b"{}"
    )
    functions.idle(20)
    assert functions.logs("Work")[before:] == ["worked on 1"]
    assert functions.failures == []


def test_a_rule_invokes_a_function(aws: Cloud, stack: Stack, functions: Functions) -> None:
    aws.client("s3").put_object(
        Bucket=stack.outputs["BucketName"], Key="config/pipelines.yaml", Body=b"-"
    )
    functions.idle(20)
    event = woken(functions, lambda event: "detail" in event)
    assert event["detail"]["object"]["key"] == "config/pipelines.yaml"


def test_a_schedule_fires_on_demand(functions: Functions) -> None:
    functions.fire_schedule("WakeHourly")
    functions.idle(20)
    expected = {"scheduled": True}
    assert woken(functions, lambda event: event == expected) == expected


def test_messages_that_fail_go_back_and_the_others_are_done(
    aws: Cloud, stack: Stack, functions: Functions
) -> None:
    send(aws, stack.resources["Jobs"], {"do": "once"})
    send(aws, stack.resources["Jobs"], {"do": "nothing"})
    functions.idle(20)
    assert received(aws, stack.resources["DeadLetters"]) == []
    assert functions.failures == []


@pytest.mark.parametrize("how", ["fail", "raise"])
def test_what_keeps_failing_becomes_a_dead_letter(
    aws: Cloud, stack: Stack, functions: Functions, how: str
) -> None:
    send(aws, stack.resources["Jobs"], {"do": how})
    functions.idle(20)
    assert received(aws, stack.resources["DeadLetters"]) == [{"do": how}]
    if how == "raise":
        assert [str(failure) for failure in functions.failures] == [
            f"{stack.functions['Work']}: ValueError: as asked"
        ] * 3


def test_groups_run_in_order_and_beside_each_other(
    aws: Cloud, stack: Stack, functions: Functions
) -> None:
    # The first takes longer than any other needs to start.
    for name, seconds in (("a1", 3.0), ("a2", 0.0), ("b1", 0.0)):
        send(aws, stack.resources["Ordered"], {"id": name, "seconds": seconds}, group=name[0])
    functions.idle(20)
    ended = lines(functions, "Step", "began", lambda ran: {"a2", "b1"} <= {e["id"] for e in ran})
    ran = {entry["id"]: entry for entry in ended}
    assert ran["a1"]["ended"] <= ran["a2"]["began"]
    assert ran["b1"]["began"] < ran["a1"]["ended"]


def test_a_failing_message_blocks_its_group_until_it_is_dead(
    aws: Cloud, stack: Stack, functions: Functions
) -> None:
    send(aws, stack.resources["Ordered"], {"id": "bad", "do": "raise"}, group="c")
    send(aws, stack.resources["Ordered"], {"id": "good"}, group="c")
    functions.idle(20)
    assert [failure.message for failure in functions.failures] == ["bad", "bad"]
    assert [body["id"] for body in received(aws, stack.resources["OrderedDead"])] == ["bad"]
    ran = lines(functions, "Step", "began", lambda ran: "good" in {e["id"] for e in ran})
    assert ran[-1]["id"] == "good"


def test_a_fifo_queue_remembers_what_it_has_seen(
    aws: Cloud, stack: Stack, functions: Functions
) -> None:
    for _ in range(2):
        send(aws, stack.resources["Ordered"], {"id": "only-once"}, group="d")
        functions.idle(20)
    ran = lines(functions, "Step", "began", lambda ran: "only-once" in {e["id"] for e in ran})
    assert [entry["id"] for entry in ran].count("only-once") == 1


def test_a_function_sees_lambda_and_nothing_of_its_parent(
    stack: Stack, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "x")
    seen = functions.invoke("Wake", {"do": "environment"}).json()
    assert "SECRET_OF_THE_PARENT" not in seen
    assert "HOME" not in seen
    assert seen["BUCKET"] == stack.outputs["BucketName"]
    assert seen["CERTRAIL_NAMESERVERS"] == "127.0.0.1:5353"
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == stack.functions["Wake"]
    assert seen["AWS_REGION"] == "eu-central-1"
    assert seen["AWS_EXECUTION_ENV"] == "AWS_Lambda_python3.13"
    assert seen["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert seen["AWS_SESSION_TOKEN"]


def test_a_function_may_do_what_its_role_may(stack: Stack, functions: Functions) -> None:
    """Work's role may write to the bucket, Wake's may not."""
    result = functions.invoke("Wake", {"do": "put", "key": "mine"})
    assert result.error == "Unhandled"
    assert "AccessDenied" in result.json()["errorMessage"]


def test_a_child_stays_warm(functions: Functions) -> None:
    first = functions.invoke("Wake", {"do": "process"}).json()
    second = functions.invoke("Wake", {"do": "process"}).json()
    assert first["pid"] == second["pid"]
    assert 0 < second["remaining"] <= 1000


@pytest.mark.parametrize(
    ("do", "kind", "message"),
    [
        ("raise", "LookupError", "nothing there"),
        ("exit", "Runtime.ExitError", "Runtime exited with error: exit status 3"),
        ("sleep", "Sandbox.Timedout", "Task timed out after 1.00 seconds"),
        ("large", "Function.ResponseSizeTooLarge", "exceeded maximum allowed payload size"),
    ],
)
def test_errors_are_reported_as_lambda_does(
    functions: Functions, do: str, kind: str, message: str
) -> None:
    result = functions.invoke("Wake", {"do": do})
    assert result.error == "Unhandled"
    assert result.json()["errorType"] == kind
    assert message in result.json()["errorMessage"]
    [failure] = functions.failures
    assert (failure.type, failure.payload) == (kind, {"do": do})
    assert functions.invoke("Wake", {}).error is None, "the next invocation has a child again"


def test_lambda_invoke_runs_it(aws: Cloud, stack: Stack, functions: Functions) -> None:
    client, name = aws.client("lambda"), stack.functions["Wake"]
    answer = client.invoke(FunctionName=name, Payload=b'{"do": "raise"}', LogType="Tail")
    assert answer["FunctionError"] == "Unhandled"
    assert json.loads(answer["Payload"].read())["errorType"] == "LookupError"
    answer = client.invoke(FunctionName=name, Payload=b'{"later": 1}', InvocationType="Event")
    assert answer["StatusCode"] == 202
    answer["Payload"].close()
    functions.idle(20)
    expected = {"later": 1}
    assert woken(functions, lambda event: event == expected) == expected


def test_asynchronous_invocations_are_tried_again(functions: Functions) -> None:
    functions.invoke_later("Wake", '{"do": "raise"}')
    functions.idle(20)
    # The template says MaximumRetryAttempts: 1.
    assert len(functions.failures) == 2


def test_not_idle_says_what_goes_on(aws: Cloud, stack: Stack, functions: Functions) -> None:
    send(aws, stack.resources["Ordered"], {"id": "slow", "seconds": 1}, group="e")
    with pytest.raises(NotIdle, match="1 in certrail-Ordered"):
        functions.idle(0.1)
    functions.idle(20)


def test_what_a_queue_delays_is_for_later(aws: Cloud, stack: Stack, functions: Functions) -> None:
    aws.client("sqs").send_message(
        QueueUrl=stack.resources["Jobs"], MessageBody='{"do": "nothing"}', DelaySeconds=900
    )
    functions.idle(20)
    aws.client("sqs").purge_queue(QueueUrl=stack.resources["Jobs"])


def test_a_changed_stack_starts_its_functions_afresh(
    aws: Cloud, stack: Stack, functions: Functions, tmp_path: Path
) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(TEMPLATE.replace("Timeout: 1", "Timeout: 2"))
    before = functions.invoke("Wake", {"do": "process"}).json()
    functions.update(deploy(file, aws.endpoint, {}, session=aws.session))
    after = functions.invoke("Wake", {"do": "process"}).json()
    assert after["pid"] != before["pid"]
    assert after["remaining"] > 1000
    file.write_text(TEMPLATE)
    functions.update(deploy(file, aws.endpoint, {}, session=aws.session))
