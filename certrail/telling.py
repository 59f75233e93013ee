"""What certrail says without being asked: metrics, and events.

Metrics are log lines in CloudWatch's embedded format: no call, no permission
(docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).

Events go to the account's default EventBridge bus, `source` certrail. The detail of each says whose
it is (`bucket`: an account may have several installations) and has a `summary`, one sentence for
people. One that EventBridge does not take is counted in
`EventsNotSent`, which has an alarm; what it tells of goes on.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from certrail.aws import Aws
from certrail.errors import AwsError

log = logging.getLogger(__name__)

NAMESPACE = "certrail"
SOURCE = "certrail"

# What somebody reads on a telephone; the whole error stands in the event's `error`. Slack takes
# 3,000 characters, and each may be written as five (`&amp;`).
LONGEST_SUMMARY = 600
# An input transformer puts a value into its template as it is
# (docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html): these would end
# the text there, and EventBridge would deliver nothing.
PLAIN = str.maketrans({'"': "'", "\\": "/"})

# By name: the value, and its unit as CloudWatch calls it.
Units = Mapping[str, tuple[float, str]]


def put_metrics(
    now: datetime, values: Units, dimensions: Sequence[Sequence[str]], **about: str
) -> None:
    """Write a line that CloudWatch makes metrics of.

    dimensions: each a set of names that are in `about`; an empty one is the metric over all.
    """
    line = {
        "_aws": {
            "Timestamp": int(now.timestamp() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": NAMESPACE,
                    "Dimensions": dimensions,
                    "Metrics": [{"Name": name, "Unit": unit} for name, (_, unit) in values.items()],
                }
            ],
        },
        **{name: value for name, (value, _) in values.items()},
        **about,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def put_event(aws: Aws, now: datetime, kind: str, detail: Mapping[str, Any]) -> bool:
    """Tell the default bus, and say whether it took it. Needs `events:PutEvents`.

    kind: the event's detail type. detail: `bucket`, of the installation that tells; `pipeline`;
    `summary`, one sentence, which is made plain here; and what programs read.
    """
    said = {**detail, "summary": plain(detail["summary"])}
    try:
        answer = aws.events().put_events(
            Entries=[
                {"Source": SOURCE, "DetailType": kind, "Time": now, "Detail": json.dumps(said)}
            ]
        )
    except AwsError as error:
        why = str(error)
    else:
        # PutEvents answers 200 also where it took nothing.
        refused = [each for each in answer["Entries"] if "ErrorCode" in each]
        if not refused:
            return True
        why = "; ".join(f"{each['ErrorCode']}: {each['ErrorMessage']}" for each in refused)
    pipeline = detail["pipeline"]
    log.error("not told on the event bus: %s: %s", kind, why, extra={"pipeline": pipeline})
    put_metrics(now, {"EventsNotSent": (1, "Count")}, [[]], Pipeline=pipeline, why=why)
    return False


def plain(text: str) -> str:
    """On one line, and without what would need to be escaped in JSON."""
    lines = []
    for line in text.splitlines():
        shown = "".join(letter for letter in line if letter.isprintable() or letter.isspace())
        lines += [" ".join(shown.split())] if shown.strip() else []
    line = "; ".join(lines).translate(PLAIN)
    return line if len(line) <= LONGEST_SUMMARY else line[: LONGEST_SUMMARY - 1] + "…"
