"""SQS: queues, and the KMS keys their messages are encrypted with."""

from collections.abc import Mapping
from typing import Any

from moto.sqs.models import sqs_backends

from sandbox.authorization.kms import through
from sandbox.authorization.request import Unmodelled, request_context
from sandbox.calls import Call, queue_name
from sandbox.policies import Need

SINGLE = {
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
    "DeleteMessageBatch": "DeleteMessage",
    "SendMessageBatch": "SendMessage",
}


def needs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = request_context(call, params.get("tags"))
    if call.operation == "ListQueues":
        return [Need(call.action, "*", context)]
    action = f"sqs:{SINGLE.get(call.operation, call.operation)}"
    if "QueueUrl" in params:
        account, name = params["QueueUrl"].rstrip("/").split("/")[-2:]
    elif "QueueName" in params:
        account, name = params.get("QueueOwnerAWSAccountId", call.account), params["QueueName"]
    else:
        raise Unmodelled(f"the sandbox cannot tell which queue {call.action} needs")
    found = [Need(action, f"arn:aws:sqs:{call.region}:{account}:{name}", context)]
    kms_key = _queue_key(call, queue_name(name))
    if action == "sqs:SendMessage":
        found += through("sqs", "kms:GenerateDataKey", call, kms_key, {})
    if action in {"sqs:SendMessage", "sqs:ReceiveMessage"}:
        found += through("sqs", "kms:Decrypt", call, kms_key, {})
    return found


def _queue_key(call: Call, name: str) -> str | None:
    queue = sqs_backends[call.account][call.region].queues.get(name)
    return getattr(queue, "kms_master_key_id", None)
