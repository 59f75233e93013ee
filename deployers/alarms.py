"""CloudWatch alarms: whether those that waves name are quiet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime

from certrail.aws import Aws
from certrail.errors import AwsError
from certrail.grants import Grant
from certrail.pipelines import Account
from deployers.judge import Alarm

# What DescribeAlarms takes at once
# (docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html).
AT_ONCE = 100


def grants(names: Iterable[str]) -> list[Grant]:
    """What IAM has to allow to look at these, all in one account. A narrower resource would hide
    composite alarms (the page above)."""
    regions = {region or "*" for region, _, _ in map(_place, names)}
    return [Grant("SeeAlarms", ("cloudwatch:DescribeAlarms",), regions=tuple(sorted(regions)))]


def read(names: Iterable[str], accounts: Mapping[str, Account], aws: Aws) -> dict[str, Alarm]:
    """The alarms of these names and ARNs, by what they are called here.

    A name is of the region and account certrail runs in. An ARN may be of another account, where a
    role of `accounts` looks at it. Raises AwsError where a retry may help; what does not exist or
    may not be seen is `unknown`.
    """
    found: dict[str, Alarm] = {}
    there: dict[tuple[str | None, str | None], dict[str, str]] = defaultdict(dict)
    for called in dict.fromkeys(names):
        region, account, name = _place(called)
        there[region, account][name] = called
    for (region, account), wanted in there.items():
        seen: dict[str, datetime | None] = {}
        why: str | None = None
        try:
            client = _in(account, accounts, aws).cloudwatch(region)
            asked = list(wanted)
            for first in range(0, len(asked), AT_ONCE):
                # Composite ones are left out of the answer unless they are asked for.
                pages = client.get_paginator("describe_alarms").paginate(
                    AlarmNames=asked[first : first + AT_ONCE],
                    AlarmTypes=["MetricAlarm", "CompositeAlarm"],
                )
                for page in pages:
                    for each in [*page["MetricAlarms"], *page["CompositeAlarms"]]:
                        rings = each["StateValue"] == "ALARM"
                        since = each.get("StateTransitionedTimestamp")
                        seen[each["AlarmName"]] = (
                            (since or each["StateUpdatedTimestamp"]) if rings else None
                        )
        except AwsError as error:
            if error.retryable:
                raise
            why = str(error)
        for name, called in wanted.items():
            missing = (
                why or f"there is no alarm {called}; create it, or correct the wave's `alarms`"
            )
            found[called] = (
                Alarm(called, seen[name]) if name in seen else Alarm(called, unknown=missing)
            )
    return found


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
