"""EventBridge: rules with their targets, and the schedules of its Scheduler."""

import json

from sandbox.cloudformation.resource import Properties, Resource


class Rule(Resource):
    type = "AWS::Events::Rule"
    name_property = "Name"
    fixed = ("Name", "EventBusName")
    attribute_names = ("Arn",)

    def put(self, properties: Properties) -> None:
        events = self.api("events")
        properties.pop("Name", None)
        targets = properties.pop("Targets", [])
        self.bus = properties.get("EventBusName", "default")
        if "EventPattern" in properties:
            properties["EventPattern"] = json.dumps(properties["EventPattern"])
        arn = events.put_rule(Name=self.name, **properties)["RuleArn"]
        self.attributes = {"Arn": arn}
        self._remove_targets({target["Id"] for target in targets})
        if targets:
            events.put_targets(Rule=self.name, EventBusName=self.bus, Targets=targets)

    def remove(self) -> None:
        self._remove_targets(set())
        self.api("events").delete_rule(Name=self.name, EventBusName=self.bus)

    def _remove_targets(self, kept: set[str]) -> None:
        events = self.api("events")
        there = events.list_targets_by_rule(Rule=self.name, EventBusName=self.bus)["Targets"]
        gone = [target["Id"] for target in there if target["Id"] not in kept]
        if gone:
            events.remove_targets(Rule=self.name, EventBusName=self.bus, Ids=gone)


class Schedule(Resource):
    type = "AWS::Scheduler::Schedule"
    name_property = "Name"
    fixed = ("Name", "GroupName")
    attribute_names = ("Arn",)

    def put(self, properties: Properties) -> None:
        self.name = self.physical_resource_id = self.name[:64]
        self.group = properties.get("GroupName", "default")
        api = self.api("scheduler")
        write = api.update_schedule if self.exists else api.create_schedule
        self.attributes = {"Arn": write(**{**properties, "Name": self.name})["ScheduleArn"]}

    def remove(self) -> None:
        self.api("scheduler").delete_schedule(Name=self.name, GroupName=self.group)


class ScheduleGroup(Resource):
    type = "AWS::Scheduler::ScheduleGroup"
    name_property = "Name"
    fixed = ("Name",)
    attribute_names = ("Arn",)

    def put(self, properties: Properties) -> None:
        properties.pop("Name", None)
        if not self.exists:
            made = self.api("scheduler").create_schedule_group(Name=self.name, **properties)
            self.attributes = {"Arn": made["ScheduleGroupArn"]}

    def remove(self) -> None:
        self.api("scheduler").delete_schedule_group(Name=self.name)
