"""The queues between router and deployers, as SQS keeps them, on the histories' clock.

docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html
docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from certrail.store import CONFIG_KEY
from certrail.target import from_job
from deployers.job import Job
from deployers.kinds.all import KINDS
from tests.deployers.histories.aws import Clock
from tests.deployers.queues import as_event

# As in template.yaml.
HIDDEN = timedelta(minutes=6)
RECEIVES = 5
# For how long SQS remembers a deduplication id.
REMEMBERED = timedelta(minutes=5)
WATCH_QUEUE = "https://sqs/watch"


@dataclass
class Message:
    kind: str
    id: str
    group: str
    body: str
    visible: datetime
    receives: int = 0

    @property
    def event(self) -> dict[str, Any]:
        """What Lambda makes of it."""
        return as_event(
            self.kind, {"MessageId": self.id, "ReceiptHandle": self.id, "Body": self.body}
        )

    @property
    def job(self) -> Job:
        return Job.from_json(self.body)

    @property
    def address(self) -> str:
        return from_job(KINDS[self.kind], self.job.target).address

    def __str__(self) -> str:
        return f"{self.job.pipeline}: {self.address}, generation {self.job.generation}"


@dataclass
class Look:
    """A message to the watcher: `{"pipeline": …}`."""

    id: str
    body: str
    visible: datetime


@dataclass
class Queues:
    """A FIFO queue per kind, and the watcher's. `answer` is what SQS answers to a call."""

    clock: Clock
    happened: Counter[str]
    waiting: list[Message] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    sent: dict[tuple[str, str], datetime] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=count)

    @property
    def urls(self) -> dict[str, str]:
        return {kind: f"https://sqs/{kind}.fifo" for kind in KINDS}

    def heads(self) -> list[Message]:
        """The first of each group. What is behind it waits until it is gone, in flight or not."""
        first: dict[tuple[str, str], Message] = {}
        for message in self.waiting:
            first.setdefault((message.kind, message.group), message)
        return list(first.values())

    def ready(self) -> list[Message]:
        """What a deployer can be given now."""
        return [message for message in self.heads() if message.visible <= self.clock.now]

    def due(self) -> list[Look]:
        """What the watcher can be given now."""
        return [look for look in self.looks if look.visible <= self.clock.now]

    def soonest(self) -> datetime | None:
        """When something can be given to somebody; None where there is nothing."""
        waiting: list[Message | Look] = [*self.heads(), *self.looks]
        return min((each.visible for each in waiting), default=None)

    def receive(self, message: Message) -> bool:
        """Hide it. False where it was received too often: it is a dead letter then."""
        message.receives += 1
        if message.receives > RECEIVES:
            self.waiting.remove(message)
            self.happened["dead letters"] += 1
            return False
        message.visible = self.clock.now + HIDDEN
        return True

    def delete(self, message: Message) -> None:
        if message in self.waiting:
            self.waiting.remove(message)

    def answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        match operation:
            case "SendMessageBatch":
                entries = request["Entries"]
                for entry in entries:
                    if request["QueueUrl"] == WATCH_QUEUE:
                        self._ask_to_look(entry)
                    else:
                        self._send(_kind(request["QueueUrl"]), entry)
                return {
                    "Successful": [
                        {"Id": entry["Id"], "MessageId": entry["Id"], "MD5OfMessageBody": ""}
                        for entry in entries
                    ],
                    "Failed": [],
                }
            case "GetQueueUrl":
                return {"QueueUrl": f"https://sqs/{request['QueueName']}"}
            case "ChangeMessageVisibility":
                time = timedelta(seconds=request["VisibilityTimeout"])
                for message in self.waiting:
                    if message.id == request["ReceiptHandle"]:
                        message.visible = self.clock.now + time
                return {}
            case _:
                raise NotImplementedError(operation)

    def _ask_to_look(self, entry: dict[str, Any]) -> None:
        then = self.clock.now + timedelta(seconds=entry["DelaySeconds"])
        self.looks.append(Look(f"l{next(self._numbers)}", entry["MessageBody"], then))

    def _send(self, kind: str, entry: dict[str, Any]) -> None:
        once = (kind, entry["MessageDeduplicationId"])
        now = self.clock.now
        if once in self.sent and now < self.sent[once] + REMEMBERED:
            self.happened["jobs that SQS had already"] += 1
            return
        self.sent[once] = now
        self.happened["jobs"] += 1
        self.waiting.append(
            Message(
                kind, f"m{next(self._numbers)}", entry["MessageGroupId"], entry["MessageBody"], now
            )
        )


@dataclass
class Events:
    """The router's queue: a key of the bucket for each event, by the message's id."""

    waiting: dict[str, str] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=count)

    def written(self, key: str) -> None:
        """What the rule of template.yaml lets through."""
        if (
            key == CONFIG_KEY
            or key.endswith("/current.json")
            or key.startswith(("deployments/", "rollouts/", "found/"))
        ):
            self.waiting[f"e{next(self._numbers)}"] = key


def _kind(url: str) -> str:
    return url.rpartition("/")[2].removesuffix(".fifo")
