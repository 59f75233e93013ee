"""CloudWatch: the state of alarms, and which of them DescribeAlarms shows.

Sources:
  put       https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
  set       https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_SetAlarmState.html
  describe  https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html
  history   https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarmHistory.html
  alarm     https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricAlarm.html

Not modelled: that metrics move an alarm. It is in the state that SetAlarmState gave it, where AWS
takes it back to what the metric says.
"""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from moto.cloudwatch.exceptions import InvalidParameterCombination, ValidationError
from moto.cloudwatch.models import Alarm, CloudWatchBackend
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult

NAMES = 100
# "If you omit this parameter, only metric alarms are returned" (describe).
DEFAULT_TYPES = ["MetricAlarm"]
PAGE, LARGEST_PAGE = 50, 100

_moto_put = CloudWatchBackend.put_metric_alarm


def put_metric_alarm(self: CloudWatchBackend, name: str, *args: Any, **kwargs: Any) -> Alarm:
    """ "When this operation creates an alarm, the alarm state is immediately set to
    INSUFFICIENT_DATA"; "when you update an existing alarm, its state is left unchanged" (put)."""
    before = self.alarms.get(name)
    alarm = _moto_put(self, name, *args, **kwargs)
    if before is None:
        alarm.state_value = "INSUFFICIENT_DATA"
        alarm.state_transitioned_timestamp = alarm.state_updated_timestamp  # type: ignore[attr-defined]
    else:
        for field in STATE:
            setattr(alarm, field, getattr(before, field))
    return alarm


STATE = (
    "history",
    "state_reason",
    "state_reason_data",
    "state_value",
    "state_updated_timestamp",
    "state_transitioned_timestamp",
)

_moto_update_state = Alarm.update_state


def update_state(self: Alarm, reason: str, reason_data: str, state_value: str) -> None:
    """StateTransitionedTimestamp is when StateValue "most recently changed" (alarm)."""
    changes = state_value != self.state_value
    _moto_update_state(self, reason, reason_data, state_value)
    if changes:
        self.state_transitioned_timestamp = self.state_updated_timestamp  # type: ignore[attr-defined]


def answer_describe_alarms(self: CloudWatchResponse) -> ActionResult:
    """What all the given filters let through, page by page."""
    names, prefix = self._get_param("AlarmNames", []), self._get_param("AlarmNamePrefix")
    if names and prefix:
        raise InvalidParameterCombination("AlarmNames and AlarmNamePrefix cannot both be given")
    if len(names) > NAMES:
        raise ValidationError(f"AlarmNames must have at most {NAMES} members")
    size = self._get_int_param("MaxRecords", PAGE)
    if not 1 <= size <= LARGEST_PAGE:
        raise ValidationError(f"MaxRecords must be between 1 and {LARGEST_PAGE}")
    types = self._get_param("AlarmTypes", []) or DEFAULT_TYPES
    state, action = self._get_param("StateValue"), self._get_param("ActionPrefix")
    after = self._get_param("NextToken") or ""
    matching = [
        alarm
        for name, alarm in sorted(self.cloudwatch_backend.alarms.items())
        if ("MetricAlarm" if alarm.rule is None else "CompositeAlarm") in types
        and name > after
        and (not names or name in names)
        and name.startswith(prefix or "")
        and state in (None, alarm.state_value)
        and (not action or any(each.startswith(action) for each in alarm.alarm_actions))
    ]
    page = matching[:size]
    return ActionResult(
        {
            "MetricAlarms": [alarm for alarm in page if alarm.rule is None],
            "CompositeAlarms": [alarm for alarm in page if alarm.rule is not None],
            "NextToken": page[-1].name if len(matching) > size else None,
        }
    )


def answer_describe_alarm_history(self: CloudWatchResponse) -> ActionResult:
    """The changes of state; what moto has no history of (configuration, actions) is not there.
    "If you omit this parameter, only metric alarms are returned" (history)."""
    wanted, types = self._get_param("AlarmName"), self._get_param("AlarmTypes", []) or DEFAULT_TYPES
    start, end = self._get_param("StartDate"), self._get_param("EndDate")
    if self._get_param("HistoryItemType") not in (None, "StateUpdate"):
        return ActionResult({"AlarmHistoryItems": []})
    items = [
        item
        for name, alarm in sorted(self.cloudwatch_backend.alarms.items())
        if wanted in (None, name)
        and ("MetricAlarm" if alarm.rule is None else "CompositeAlarm") in types
        for item in _changes_of_state(alarm)
        if (start is None or item["Timestamp"] >= start.replace(tzinfo=None))
        and (end is None or item["Timestamp"] <= end.replace(tzinfo=None))
    ]
    newest_first = self._get_param("ScanBy") != "TimestampAscending"
    items.sort(key=lambda item: item["Timestamp"], reverse=newest_first)
    size, after = self._get_int_param("MaxRecords", LARGEST_PAGE), self._get_param("NextToken")
    first = int(after or 0)
    more = str(first + size) if len(items) > first + size else None
    return ActionResult({"AlarmHistoryItems": items[first : first + size], "NextToken": more})


def _changes_of_state(alarm: Alarm) -> Iterator[dict[str, Any]]:
    now = (alarm.state_value, alarm.state_updated_timestamp)
    states = [*((value, at) for *_, value, at in alarm.history), now]
    for (old, _), (new, at) in pairwise(states):
        if old != new:
            data = {"oldState": {"stateValue": old}, "newState": {"stateValue": new}}
            yield {
                "AlarmName": alarm.name,
                "AlarmType": "MetricAlarm" if alarm.rule is None else "CompositeAlarm",
                "Timestamp": at,
                "HistoryItemType": "StateUpdate",
                "HistorySummary": f"Alarm updated from {old} to {new}",
                "HistoryData": json.dumps({"version": "1.0", **data}),
            }


REPLACED: dict[type, dict[str, Callable[..., Any]]] = {
    Alarm: {"update_state": update_state},
    CloudWatchBackend: {"put_metric_alarm": put_metric_alarm},
    CloudWatchResponse: {
        "describe_alarm_history": answer_describe_alarm_history,
        "describe_alarms": answer_describe_alarms,
    },
}
