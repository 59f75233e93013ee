"""The queues between router and deployers, and who takes from them."""

from __future__ import annotations

import json
from typing import Any

from certrail.store import current_key
from certrail.target import from_job
from deployers import handler, router
from deployers.job import Job
from deployers.kinds.all import KINDS
from tests.deployers.cloud import ACCOUNT, PIPELINE, REGION, Cloud

PIPELINES = """\
issuers: {ca: {directory: https://ca.example/directory}}
accounts: {edge: {role_arn: "arn:aws:iam::222222222222:role/certrail", external_id: abc}}
defaults: {region: eu-central-1}
pipelines:
  - name: shop
    domains: [shop.example.com, "*.shop.example.com"]
    targets:
      - {type: acm}
      - {type: cloudfront, distribution: E2QWRUHEXAMPLE}
      - {type: secretsmanager, name: tls/shop/bundle}
  - name: mail
    domains: [mail.example.com]
    targets:
      - {type: secretsmanager, name: tls/mail/bundle}
"""


class Queues:
    """A FIFO queue per kind, the watcher's queue, and a pipelines file in the bucket."""

    def __init__(self, cloud: Cloud, text: str = PIPELINES) -> None:
        self.cloud = cloud
        self._sqs = cloud.client("sqs")
        self.urls: dict[str, str] = {
            kind: self._sqs.create_queue(
                QueueName=f"{kind}.fifo",
                # A message in flight comes back at once, so that a test need not wait for it.
                Attributes={"FifoQueue": "true", "VisibilityTimeout": "0"},
            )["QueueUrl"]
            for kind in KINDS
        }
        self.looks: str = self._sqs.create_queue(QueueName="watch")["QueueUrl"]
        cloud.store.put_pipelines_text(text)

    def take(self, kind: str) -> list[Any]:
        """The messages of a kind, which stay in the queue."""
        found = self._sqs.receive_message(
            QueueUrl=self.urls[kind], MaxNumberOfMessages=10, AttributeNames=["All"]
        )
        messages: list[Any] = found.get("Messages", [])
        return messages

    def jobs(self) -> list[str]:
        """The addresses that there are jobs for, by pipeline."""
        return sorted(
            f"{job.pipeline}: {from_job(KINDS[kind], job.target).address}"
            for kind in KINDS
            for job in (Job.from_json(message["Body"]) for message in self.take(kind))
        )

    def work(self, monkeypatch: Any) -> int:
        """Let every deployer function take what is in its queue. Returns how many jobs it was."""
        done = 0
        for kind, url in self.urls.items():
            monkeypatch.setenv("CERTRAIL_KIND", kind)
            for message in self.take(kind):
                if handler.handle(as_event(kind, message), None) == {"batchItemFailures": []}:
                    self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                done += 1
        return done


def as_event(kind: str, *messages: Any) -> dict[str, Any]:
    """What Lambda makes of messages from the queue of a kind."""
    return {
        "Records": [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "eventSourceARN": queue_arn(kind),
            }
            for message in messages
        ]
    }


def queue_arn(kind: str) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{kind}.fifo"


def event(key: str = current_key(PIPELINE)) -> dict[str, Any]:
    """What EventBridge makes of a PUT to the bucket."""
    return {
        "version": "0",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "detail": {"bucket": {"name": "certrail-test"}, "object": {"key": key}},
    }


def batch(*keys: str) -> dict[str, Any]:
    """Events as they come from the router's queue; the message ids are `0`, `1`, …"""
    records = [
        {"messageId": str(index), "body": json.dumps(event(key))} for index, key in enumerate(keys)
    ]
    return {"Records": records}


def route(*keys: str) -> Any:
    return router.handle(batch(*keys), None)
