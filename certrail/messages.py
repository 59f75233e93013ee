"""Messages of a queue, as Lambda hands them to a function."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from certrail.aws import Aws

# A message that waits holds up the ones behind it in its group, so it waits only for the short
# delays. What lies later is acknowledged, and left to the hourly schedule.
LONGEST_WAIT = timedelta(minutes=15)


def hold_back(aws: Aws, message: Mapping[str, str], wait: timedelta) -> None:
    """Let a message that is not acknowledged come back after `wait`, rather than after its queue's
    visibility timeout.

    message: an element of the event's `Records`. Needs `sqs:GetQueueUrl` and
    `sqs:ChangeMessageVisibility` on its queue. Raises AwsError.
    """
    _, _, _, _, account, queue = message["eventSourceARN"].split(":")
    url = aws.sqs().get_queue_url(QueueName=queue, QueueOwnerAWSAccountId=account)["QueueUrl"]
    # Rounded up: a second too early would be a receive for nothing.
    aws.sqs().change_message_visibility(
        QueueUrl=url,
        ReceiptHandle=message["receiptHandle"],
        VisibilityTimeout=max(0, int(wait.total_seconds()) + 1),
    )
