"""CloudWatch: alarms and log groups."""

from sandbox.cloudformation.resource import Properties, Resource, holds, refuse, tag_map


class Alarm(Resource):
    type = "AWS::CloudWatch::Alarm"
    name_property = "AlarmName"
    fixed = ("AlarmName",)
    attribute_names = ("Arn",)

    def put(self, properties: Properties) -> None:
        api = self.api("cloudwatch")
        properties.pop("AlarmName", None)
        api.put_metric_alarm(AlarmName=self.name, **properties)
        arn = f"arn:aws:cloudwatch:{self.region}:{self.account}:alarm:{self.name}"
        self.attributes = {"Arn": arn}
        told = api.describe_alarms(AlarmNames=[self.name])["MetricAlarms"][0]
        told["Tags"] = properties.get("Tags")
        refuse(self.type, {k for k, v in properties.items() if not holds(told.get(k), v)})

    def remove(self) -> None:
        self.api("cloudwatch").delete_alarms(AlarmNames=[self.name])


class LogGroup(Resource):
    type = "AWS::Logs::LogGroup"
    name_property = "LogGroupName"
    fixed = ("LogGroupName",)
    attribute_names = ("Arn",)

    def put(self, properties: Properties) -> None:
        logs = self.api("logs")
        properties.pop("LogGroupName", None)
        days = properties.pop("RetentionInDays", None)
        key = properties.pop("KmsKeyId", None)
        tags = tag_map(properties.pop("Tags", []))
        refuse(self.type, properties)
        if not self.exists:
            extra = {"kmsKeyId": key} if key else {}
            logs.create_log_group(logGroupName=self.name, tags=tags, **extra)
            arn = f"arn:aws:logs:{self.region}:{self.account}:log-group:{self.name}:*"
            self.attributes = {"Arn": arn}
        if days is None:
            logs.delete_retention_policy(logGroupName=self.name)
        else:
            logs.put_retention_policy(logGroupName=self.name, retentionInDays=days)

    def remove(self) -> None:
        self.api("logs").delete_log_group(logGroupName=self.name)
