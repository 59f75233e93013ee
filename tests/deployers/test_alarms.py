"""Alarms as CloudWatch shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest
from moto.cloudwatch.models import cloudwatch_backends

from deployers import alarms
from deployers.judge import Alarm
from tests.deployers.cloud import ACCOUNT, REGION, Cloud, put_alarm


def put(cloud: Cloud, name: str, *states: str) -> None:
    put_alarm(cloud.client("cloudwatch"), name, *states)


def rings(cloud: Cloud, name: str) -> datetime | None:
    alarm = alarms.read([name], {}, cloud.aws, None)[name]
    assert alarm.unknown is None
    return alarm.rings_since


@pytest.mark.parametrize("states", [["OK"], ["INSUFFICIENT_DATA"], []])
def test_quiet(cloud: Cloud, states: list[str]) -> None:
    put(cloud, "errors", *states)
    assert rings(cloud, "errors") is None


def test_since_when_it_rings_and_not_since_when_it_was_told_last(cloud: Cloud) -> None:
    put(cloud, "errors", "ALARM")
    since = rings(cloud, "errors")
    assert since
    assert since.tzinfo
    put(cloud, "errors", "ALARM")
    assert rings(cloud, "errors") == since


def test_what_rang_and_is_quiet_again_is_told_where_somebody_asks_since_when(
    cloud: Cloud,
) -> None:
    put(cloud, "errors", "OK")
    began = datetime.now(UTC)
    read = partial(alarms.read, ["errors"], {}, cloud.aws, began)
    assert read() == {"errors": Alarm("errors")}
    # It comes and goes with its data.
    put(cloud, "errors", "INSUFFICIENT_DATA", "OK")
    assert read() == {"errors": Alarm("errors")}
    put(cloud, "errors", "ALARM", "OK")
    rang_at = read()["errors"].rang_at
    assert rang_at
    assert began < rang_at < datetime.now(UTC)
    assert alarms.read(["errors"], {}, cloud.aws, datetime.now(UTC)) == {"errors": Alarm("errors")}
    # Nobody asks for the history of what is as it was.
    assert len(cloud.server.calls.of("cloudwatch:DescribeAlarmHistory")) == 2


def test_a_composite_alarm(cloud: Cloud) -> None:
    put(cloud, "all", "ALARM")
    # moto has no PutCompositeAlarm; what makes an alarm one is its rule.
    cloudwatch_backends[ACCOUNT][REGION].alarms["all"].rule = "ALARM(errors)"
    assert cloud.client("cloudwatch").describe_alarms()["MetricAlarms"] == []
    assert rings(cloud, "all")


def test_one_call_for_many(cloud: Cloud) -> None:
    names = [f"errors-{number:03}" for number in range(101)]
    for name in names[::50]:
        put(cloud, name, "OK")
    found = alarms.read([*names, names[0]], {}, cloud.aws, None)
    assert list(found) == names
    assert [name for name, each in found.items() if not each.unknown] == names[::50]
    assert len(cloud.server.calls.of("cloudwatch:DescribeAlarms")) == 2
    assert alarms.read([], {}, cloud.aws, None) == {}


def test_another_accounts_alarm_is_not_looked_for_among_our_own(cloud: Cloud) -> None:
    arns = [f"arn:aws:cloudwatch:{REGION}:222222222222:alarm:{name}" for name in ("a", "b")]
    for name in ("a", "b"):
        put(cloud, name, "OK")
    said = [each.unknown for each in alarms.read(arns, {}, cloud.aws, None).values()]
    assert said == [f"{arn} is in an account that `accounts` does not have" for arn in arns]


def test_by_its_arn_in_our_own_account(cloud: Cloud) -> None:
    arn = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:errors: of the shop"
    put(cloud, "errors: of the shop", "ALARM")
    assert alarms.read([arn], {}, cloud.aws, None)[arn].rings_since
