"""Handlers for the tests of the sandbox; they run in children, as Lambda functions."""

import json
import os
import sys
import time
from typing import Any

import boto3

STARTED = {"invocations": 0}


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def put(key: str, body: Any) -> None:
    s3 = boto3.client("s3")
    s3.put_object(Bucket=os.environ["BUCKET"], Key=key, Body=json.dumps(body).encode())


def work(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Each body says what to do: fail, or be noted in the bucket."""
    failed = []
    for record in event["Records"]:
        body = json.loads(record["body"])
        if body.get("do") == "raise":
            raise ValueError("as asked")
        if body.get("do") == "fail":
            failed.append({"itemIdentifier": record["messageId"]})
        elif body.get("do") == "once":
            if record["attributes"]["ApproximateReceiveCount"] == "1":
                failed.append({"itemIdentifier": record["messageId"]})
        elif body.get("do") == "forward":
            boto3.client("sqs").send_message(
                QueueUrl=os.environ["ORDERED"],
                MessageBody=json.dumps(body),
                MessageGroupId=body["group"],
                MessageDeduplicationId=body["id"],
            )
    say(f"worked on {len(event['Records'])}")
    return {"batchItemFailures": failed}


def step(event: dict[str, Any], context: Any) -> None:
    """Notes when it ran, for which group."""
    [record] = event["Records"]
    body = json.loads(record["body"])
    began = time.time()
    if body.get("do") == "raise":
        raise RuntimeError(body["id"])
    time.sleep(body.get("seconds", 0))
    say(json.dumps({"id": body["id"], "began": began, "ended": time.time()}))


def wake(event: dict[str, Any], context: Any) -> Any:
    STARTED["invocations"] += 1
    match event.get("do"):
        case "environment":
            return dict(os.environ)
        case "sleep":
            time.sleep(60)
        case "exit":
            sys.exit(3)
        case "raise":
            raise LookupError("nothing there")
        case "large":
            return "x" * 7_000_000
        case "put":
            put(event["key"], event)
        case "process":
            return {"pid": os.getpid(), "remaining": context.get_remaining_time_in_millis()}
    say(json.dumps({"woken": event}))
    return STARTED["invocations"]
