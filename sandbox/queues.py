"""SQS where moto's differs: waiting, deduplication, and who receives.

Every change of any queue is told through `changed`, so that whoever waits for messages, or for
there being none, waits for exactly that.

Sources:
  deduplication  https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html
  long polling   https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html
"""

import time
from threading import Condition, RLock
from typing import Any

from moto.core.utils import unix_time_millis
from moto.sqs.models import DEDUPLICATION_TIME_IN_SECONDS, Message, Queue, SQSBackend, sqs_backends

# Held during every change of a queue, notified after it.
changed = Condition(RLock())

_moto_receive = SQSBackend.receive_message
_moto_delete = SQSBackend.delete_message
_moto_change_visibility = SQSBackend.change_message_visibility
_moto_purge = SQSBackend.purge_queue


def add_message(self: Queue, message: Message) -> None:
    """Without moto's own invocation of the functions that are mapped to the queue.

    A deduplication id is remembered for its five minutes even when the message is long gone; moto
    looks only at the messages that are still there.
    """
    with changed:
        if self.fifo_queue and message.deduplication_id:
            scope = message.group_id if self.deduplication_scope == "messageGroup" else None  # type: ignore[attr-defined]
            seen: dict[tuple[str | None, str], float] = self.__dict__.setdefault("seen", {})
            known = seen.get((scope, message.deduplication_id))
            now = time.monotonic()
            if known is not None and now - known < DEDUPLICATION_TIME_IN_SECONDS:
                return
            seen[scope, message.deduplication_id] = now
        self._messages.append(message)
        changed.notify_all()


def receive_message(
    self: SQSBackend,
    queue_name: str,
    count: int,
    wait_seconds_timeout: int,
    visibility_timeout: int,
    message_attribute_names: list[str] | None = None,
) -> list[Message]:
    end = time.monotonic() + wait_seconds_timeout
    with changed:
        while True:
            queue = self.get_queue(queue_name)
            before = len(queue._messages)
            received = _moto_receive(
                self, queue_name, count, 0, visibility_timeout, message_attribute_names
            )
            if received or len(queue._messages) != before:
                # Some may have gone to the dead-letter queue instead.
                changed.notify_all()
            left = end - time.monotonic()
            if received or left <= 0:
                return received
            changed.wait(min(left, next_visible(queue) or left))


def delete_message(self: SQSBackend, queue_name: str, receipt_handle: str) -> None:
    with changed:
        _moto_delete(self, queue_name, receipt_handle)
        changed.notify_all()


def change_message_visibility(
    self: SQSBackend, queue_name: str, receipt_handle: str, visibility_timeout: int
) -> None:
    with changed:
        _moto_change_visibility(self, queue_name, receipt_handle, visibility_timeout)
        changed.notify_all()


def purge_queue(self: SQSBackend, queue_name: str) -> None:
    with changed:
        _moto_purge(self, queue_name)
        changed.notify_all()


def queue(arn: str) -> Queue:
    """The queue with this ARN. Raises KeyError."""
    _, _, _, region, account, name = arn.split(":", 5)
    found: Queue = sqs_backends[account][region].queues[name]
    return found


def waiting(queue: Queue) -> int:
    """How many messages a receive could get now. Hold `changed`.

    In a FIFO queue a group with a message in flight gives none.
    """
    messages = queue.messages
    if not queue.fifo_queue:
        return len(messages)
    busy = {m.group_id for m in queue.pending_messages if not m.visible}
    return sum(message.group_id not in busy for message in messages)


def next_visible(queue: Queue) -> float | None:
    """Seconds until a message that is delayed or in flight can be received; None without any."""
    now = unix_time_millis()
    times = [max(m.visible_at, m.delayed_until) for m in queue._messages]
    later = [at for at in times if at >= now]
    # moto's visibility is in milliseconds, and over only when they have passed.
    return (min(later) - now) / 1000 + 0.002 if later else None


def make_visible_within(queue: Queue, message_ids: set[str], seconds: float) -> None:
    """The messages can be received again after at most `seconds`."""
    with changed:
        soonest = unix_time_millis() + seconds * 1000
        for message in queue._messages:
            if message.id in message_ids and message.visible_at > soonest:
                message.visible_at = soonest
        changed.notify_all()


REPLACED: dict[Any, dict[str, Any]] = {
    Queue: {"add_message": add_message},
    SQSBackend: {
        "receive_message": receive_message,
        "delete_message": delete_message,
        "change_message_visibility": change_message_visibility,
        "purge_queue": purge_queue,
    },
}


def install() -> None:
    """Put these in moto's place. Again changes nothing."""
    for owner, methods in REPLACED.items():
        for name, method in methods.items():
            setattr(owner, name, method)
