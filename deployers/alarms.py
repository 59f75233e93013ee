"""CloudWatch alarms: whether those that waves name are quiet."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from certrail.aws import Aws
from certrail.errors import AwsError
from certrail.grants import Grant
from certrail.pipelines import Account
from deployers.judge import Alarm

if TYPE_CHECKING:
    from types_boto3_cloudwatch import CloudWatchClient
    from types_boto3_cloudwatch.literals import AlarmTypeType
    from types_boto3_cloudwatch.type_defs import CompositeAlarmTypeDef, MetricAlarmTypeDef

    AnyAlarm = MetricAlarmTypeDef | CompositeAlarmTypeDef

# What DescribeAlarms takes at once
# (docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html).
AT_ONCE = 100
# Composite ones are left out of an answer unless they are asked for.
TYPES: Sequence[AlarmTypeType] = ("MetricAlarm", "CompositeAlarm")


def grants(names: Iterable[str]) -> list[Grant]:
    """What IAM has to allow to look at these, all in one account. A narrower resource would hide
    composite alarms (the page above)."""
    regions = tuple(sorted({region or "*" for region, _, _ in map(_place, names)}))
    look = ("cloudwatch:DescribeAlarmHistory", "cloudwatch:DescribeAlarms")
    return [Grant("SeeAlarms", look, regions=regions)]


def read(
    names: Iterable[str], accounts: Mapping[str, Account], aws: Aws, since: datetime | None
) -> dict[str, Alarm]:
    """The alarms of these names and ARNs, by what they are called here.

    A name is of the region and account certrail runs in. An ARN may be of another account, where a
    role of `accounts` looks at it. since: from when on one that is quiet again is told, too; None
    for never. Raises AwsError where a retry may help; what does not exist or may not be seen is
    `unknown`.
    """
    found: dict[str, Alarm] = {}
    there: dict[tuple[str | None, str | None], dict[str, str]] = defaultdict(dict)
    for called in dict.fromkeys(names):
        region, account, name = _place(called)
        there[region, account][name] = called
    for (region, account), wanted in there.items():
        seen: dict[str, Alarm] = {}
        why: str | None = None
        try:
            client = _in(account, accounts, aws).cloudwatch(region)
            asked = list(wanted)
            for first in range(0, len(asked), AT_ONCE):
                pages = client.get_paginator("describe_alarms").paginate(
                    AlarmNames=asked[first : first + AT_ONCE],
                    AlarmTypes=TYPES,
                )
                for page in pages:
                    some: list[AnyAlarm] = [*page["MetricAlarms"], *page["CompositeAlarms"]]
                    for each in some:
                        called = wanted[each["AlarmName"]]
                        if called in {each["AlarmName"], each["AlarmArn"]}:
                            seen[called] = _as_seen(called, each, client, since)
                        else:
                            elsewhere = f"{called} is in an account that `accounts` does not have"
                            seen[called] = Alarm(called, unknown=elsewhere)
        except AwsError as error:
            if error.retryable:
                raise
            why = str(error)
        for called in wanted.values():
            missing = (
                why or f"there is no alarm {called}; create it, or correct the wave's `alarms`"
            )
            found[called] = seen.get(called) or Alarm(called, unknown=missing)
    return found


def _as_seen(
    called: str, alarm: AnyAlarm, client: CloudWatchClient, since: datetime | None
) -> Alarm:
    changed = alarm.get("StateTransitionedTimestamp") or alarm["StateUpdatedTimestamp"]
    if alarm["StateValue"] == "ALARM":
        return Alarm(called, rings_since=changed)
    if since is None or changed <= since:
        return Alarm(called)
    # It was something else meanwhile; most come and go between OK and INSUFFICIENT_DATA.
    pages = client.get_paginator("describe_alarm_history").paginate(
        AlarmName=alarm["AlarmName"],
        AlarmTypes=TYPES,
        HistoryItemType="StateUpdate",
        StartDate=since,
        ScanBy="TimestampAscending",
    )
    for page in pages:
        for item in page["AlarmHistoryItems"]:
            if json.loads(item["HistoryData"])["newState"]["stateValue"] == "ALARM":
                return Alarm(called, rang_at=item["Timestamp"])
    return Alarm(called)


def account_of(called: str) -> str | None:
    """The number of the account that has an alarm; None for one that is called by its name only."""
    return _place(called)[1]


def _place(called: str) -> tuple[str | None, str | None, str]:
    """Region, account and name of an alarm; the first two of an ARN only."""
    if not called.startswith("arn:"):
        return None, None, called
    _, _, _, region, account, _, name = called.split(":", 6)
    return region, account, name


def _in(account: str | None, accounts: Mapping[str, Account], aws: Aws) -> Aws:
    """Acting in that account: with the role the file has there, else as who certrail is."""
    roles = (each for each in accounts.values() if each.role_arn.split(":")[4] == account)
    role = next(roles, None)
    return aws.acting_as(role.role_arn, role.external_id) if role else aws
