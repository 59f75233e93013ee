"""Alarms have the states and times that AWS gives them, and are found as AWS finds them."""

import json
from datetime import datetime
from typing import Any

import pytest

from tests.sandbox.rules.conftest import Cloud, refused

ALARM: Any = {
    "Namespace": "n",
    "MetricName": "m",
    "Statistic": "Sum",
    "Period": 60,
    "EvaluationPeriods": 1,
    "Threshold": 1.0,
    "ComparisonOperator": "GreaterThanThreshold",
}


def put(cloud: Cloud, *names: str, **more: Any) -> None:
    for name in names:
        cloud.cloudwatch.put_metric_alarm(AlarmName=name, **ALARM | more)


def turn(cloud: Cloud, name: str, state: Any) -> None:
    cloud.cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="a test")


def found(cloud: Cloud, **filters: Any) -> list[str]:
    return [
        each["AlarmName"] for each in cloud.cloudwatch.describe_alarms(**filters)["MetricAlarms"]
    ]


def alarm(cloud: Cloud, name: str = "a") -> Any:
    (only,) = cloud.cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return only


def times(cloud: Cloud) -> tuple[datetime, datetime]:
    shown = alarm(cloud)
    return shown["StateUpdatedTimestamp"], shown["StateTransitionedTimestamp"]


def test_a_new_alarm_has_insufficient_data(cloud: Cloud) -> None:
    put(cloud, "a")
    assert alarm(cloud)["StateValue"] == "INSUFFICIENT_DATA"
    updated, transitioned = times(cloud)
    assert updated == transitioned


def test_a_transition_is_another_state_and_an_update_any(cloud: Cloud) -> None:
    put(cloud, "a")
    turn(cloud, "a", "ALARM")
    updated, transitioned = times(cloud)
    assert updated == transitioned
    turn(cloud, "a", "ALARM")
    again, same = times(cloud)
    assert (again > updated, same) == (True, transitioned)
    turn(cloud, "a", "OK")
    last, other = times(cloud)
    assert last == other > again


def test_an_alarm_that_is_put_again_keeps_its_state(cloud: Cloud) -> None:
    put(cloud, "a")
    turn(cloud, "a", "ALARM")
    before = alarm(cloud)
    put(cloud, "a", Threshold=2.0)
    after = alarm(cloud)
    assert after["Threshold"] == 2.0
    assert times(cloud) == (before["StateUpdatedTimestamp"], before["StateTransitionedTimestamp"])
    assert (after["StateValue"], after["StateReason"]) == ("ALARM", "a test")


def test_all_filters_count(cloud: Cloud) -> None:
    put(cloud, "web-a", "web-b", "else")
    turn(cloud, "web-a", "ALARM")
    turn(cloud, "else", "ALARM")
    assert found(cloud) == ["else", "web-a", "web-b"]
    assert found(cloud, AlarmNames=["web-b", "else", "gone"]) == ["else", "web-b"]
    assert found(cloud, AlarmNames=["web-b", "else"], StateValue="ALARM") == ["else"]
    assert found(cloud, AlarmNamePrefix="web-", StateValue="ALARM") == ["web-a"]
    with refused("InvalidParameterCombination"):
        found(cloud, AlarmNames=["web-a"], AlarmNamePrefix="web-")


def test_at_most_a_hundred_names(cloud: Cloud) -> None:
    names = [f"a-{number:03}" for number in range(101)]
    assert found(cloud, AlarmNames=names[:100]) == []
    with refused("ValidationError"):
        found(cloud, AlarmNames=names)


def test_pages(cloud: Cloud) -> None:
    names = [f"a-{number}" for number in range(5)]
    put(cloud, *names)
    pages = list(
        cloud.cloudwatch.get_paginator("describe_alarms").paginate(PaginationConfig={"PageSize": 2})
    )
    assert [len(page["MetricAlarms"]) for page in pages] == [2, 2, 1]
    assert [each["AlarmName"] for page in pages for each in page["MetricAlarms"]] == names


def test_setting_an_alarm_that_is_not_there(cloud: Cloud) -> None:
    with refused("ResourceNotFound", status=404):
        turn(cloud, "gone", "OK")
    put(cloud, "a")
    with refused("InvalidFormat"):
        cloud.cloudwatch.set_alarm_state(
            AlarmName="a", StateValue="OK", StateReason="a test", StateReasonData="no json"
        )
    cloud.cloudwatch.set_alarm_state(
        AlarmName="a", StateValue="OK", StateReason="a test", StateReasonData=json.dumps({})
    )


@pytest.mark.parametrize("types", [None, ["MetricAlarm"]])
def test_composite_alarms_only_where_asked_for(cloud: Cloud, types: Any) -> None:
    put(cloud, "a")
    filters: Any = {"AlarmTypes": types} if types else {}
    answer = cloud.cloudwatch.describe_alarms(**filters)
    assert [each["AlarmName"] for each in answer["MetricAlarms"]] == ["a"]
    assert answer["CompositeAlarms"] == []
    assert found(cloud, AlarmTypes=["CompositeAlarm"]) == []
