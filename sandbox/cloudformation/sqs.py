"""SQS: queues and their policies."""

import json

from sandbox.cloudformation.resource import Properties, Resource, refuse, tag_map

QUEUE_DEFAULTS = {
    "DelaySeconds": "0",
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "RedrivePolicy": "",
    "VisibilityTimeout": "30",
}


class Queue(Resource):
    type = "AWS::SQS::Queue"
    name_property = "QueueName"
    fixed = ("QueueName", "FifoQueue")
    attribute_names = ("Arn", "QueueName", "QueueUrl")

    def put(self, properties: Properties) -> None:
        sqs = self.api("sqs")
        fifo = properties.get("FifoQueue") in (True, "true")
        name = properties.pop("QueueName", self.name + (".fifo" if fifo else ""))[:80]
        tags = tag_map(properties.pop("Tags", []))
        for policy in ("RedrivePolicy", "RedriveAllowPolicy"):
            if policy in properties:
                properties[policy] = json.dumps(properties[policy])
        if "RedriveAllowPolicy" in properties:
            # moto would take it and forget it.
            refuse(self.type, {"RedriveAllowPolicy"})
        attributes = {
            key: str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in properties.items()
        }
        if self.exists:
            attributes.pop("FifoQueue", None)
            for gone in self.properties.keys() - properties.keys() & QUEUE_DEFAULTS.keys():
                attributes[gone] = QUEUE_DEFAULTS[gone]
            sqs.set_queue_attributes(QueueUrl=self.physical_resource_id, Attributes=attributes)
        else:
            url = sqs.create_queue(QueueName=name, Attributes=attributes, tags=tags)["QueueUrl"]
            self.physical_resource_id = url
            self.attributes = {
                "Arn": f"arn:aws:sqs:{self.region}:{self.account}:{name}",
                "QueueName": name,
                "QueueUrl": url,
            }
        told = sqs.get_queue_attributes(QueueUrl=self.physical_resource_id, AttributeNames=["All"])
        refuse(
            self.type,
            {name for name in attributes if attributes[name] and name not in told["Attributes"]},
        )

    def remove(self) -> None:
        self.api("sqs").delete_queue(QueueUrl=self.physical_resource_id)


class QueuePolicy(Resource):
    type = "AWS::SQS::QueuePolicy"
    fixed = ("Queues",)

    def put(self, properties: Properties) -> None:
        self.queues = properties.pop("Queues")
        document = json.dumps(properties.pop("PolicyDocument"))
        refuse(self.type, properties)
        for url in self.queues:
            self.api("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": document})

    def remove(self) -> None:
        for url in self.queues:
            self.api("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
