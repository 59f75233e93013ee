"""SNS: topics, their subscriptions and policies."""

import json

from sandbox.cloudformation.resource import Properties, Resource, refuse


class Topic(Resource):
    type = "AWS::SNS::Topic"
    name_property = "TopicName"
    fixed = ("TopicName", "FifoTopic")
    attribute_names = ("TopicArn", "TopicName")

    def put(self, properties: Properties) -> None:
        sns = self.api("sns")
        properties.pop("TopicName", None)
        subscriptions = properties.pop("Subscription", [])
        tags = properties.pop("Tags", [])
        if not self.exists:
            arn = sns.create_topic(Name=self.name, Tags=tags)["TopicArn"]
            self.physical_resource_id = arn
            self.attributes = {"TopicArn": arn, "TopicName": self.name}
        for name, value in properties.items():
            sns.set_topic_attributes(
                TopicArn=self.physical_resource_id, AttributeName=name, AttributeValue=str(value)
            )
        for subscription in subscriptions:
            sns.subscribe(TopicArn=self.physical_resource_id, **subscription)

    def remove(self) -> None:
        self.api("sns").delete_topic(TopicArn=self.physical_resource_id)


class Subscription(Resource):
    type = "AWS::SNS::Subscription"
    fixed = ("TopicArn", "Protocol", "Endpoint")

    def put(self, properties: Properties) -> None:
        if not self.exists:
            made = self.api("sns").subscribe(ReturnSubscriptionArn=True, **properties)
            self.physical_resource_id = made["SubscriptionArn"]

    def remove(self) -> None:
        self.api("sns").unsubscribe(SubscriptionArn=self.physical_resource_id)


class TopicPolicy(Resource):
    type = "AWS::SNS::TopicPolicy"
    fixed = ("Topics",)

    def put(self, properties: Properties) -> None:
        topics, document = properties.pop("Topics"), json.dumps(properties.pop("PolicyDocument"))
        refuse(self.type, properties)
        for arn in topics:
            self.api("sns").set_topic_attributes(
                TopicArn=arn, AttributeName="Policy", AttributeValue=document
            )

    def remove(self) -> None:
        """SNS has no call that takes a topic's policy away; it goes with the topic."""
