"""What the issuer says without being asked: metrics, and events.

Metrics are log lines in CloudWatch's embedded format
(docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html),
over all pipelines: a metric for each would cost more than its certificate. The lines name the
pipeline, so Logs Insights tells them apart.

Events go to the account's default EventBridge bus, `source` certrail. Each may come twice. One
that EventBridge does not take is counted in `EventsNotSent`, which has an alarm; what it tells of
goes on.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from certrail.aws import Aws
from certrail.errors import AwsError, CertrailError
from certrail.store import Current
from issuer.renewal import Window

log = logging.getLogger(__name__)

NAMESPACE = "certrail"
SOURCE = "certrail"

ISSUED = "Certificate Issued"
FAILED = "Certificate Issuance Failed"
AT_RISK = "Certificate At Risk"

Units = Mapping[str, tuple[float, str]]


@dataclass(frozen=True)
class Telling:
    """Tells CloudWatch and EventBridge. Needs `events:PutEvents` on the default bus."""

    aws: Aws
    now: datetime

    def issued(self, current: Current) -> None:
        self._event(
            ISSUED,
            current.pipeline,
            {
                "generation": current.generation,
                "fingerprint": current.fingerprint,
                "domains": list(current.facts.domains),
                "notAfter": current.facts.not_after.isoformat(),
                "issuer": current.issued.issuer,
                "insteadOf": dict(current.issued.instead_of),
            },
        )

    def replaces_refused(self, pipeline: str, why: str) -> None:
        self._metrics(pipeline, {"ReplacesRefused": (1, "Count")}, why=why)

    def failed(self, pipeline: str, error: CertrailError, next_attempt: datetime | None) -> None:
        self._metrics(pipeline, {"IssuesFailed": (1, "Count")}, by_pipeline=True)
        self._event(
            FAILED,
            pipeline,
            {
                "error": str(error),
                "retryable": error.retryable,
                "nextAttempt": next_attempt.isoformat() if next_attempt else None,
            },
        )

    def at_risk(self, current: Current, when: Window, why: str) -> bool:
        """The window is over and the certificate is not renewed. Whether it could be told."""
        return self._event(
            AT_RISK,
            current.pipeline,
            {
                "fingerprint": current.fingerprint,
                "notAfter": current.facts.not_after.isoformat(),
                "windowEnd": when.end.isoformat(),
                "reason": why,
            },
        )

    def standing(self, current: Current, when: Window) -> None:
        """How one certificate stands, every hour. `HoursPastWindow` is what the alarm looks at."""
        day, hour = 86400, 3600
        self._metrics(
            current.pipeline,
            {
                "DaysLeft": ((current.facts.not_after - self.now).total_seconds() / day, "None"),
                "DaysSinceIssued": (
                    (self.now - current.published_at).total_seconds() / day,
                    "None",
                ),
                "HoursPastWindow": (
                    max(0.0, (self.now - when.end).total_seconds() / hour),
                    "None",
                ),
            },
        )

    def _metrics(
        self, pipeline: str, values: Units, *, by_pipeline: bool = False, **about: str
    ) -> None:
        line = {
            "_aws": {
                "Timestamp": int(self.now.timestamp() * 1000),
                "CloudWatchMetrics": [
                    {
                        "Namespace": NAMESPACE,
                        # In all, for the alarm; by pipeline only what is rare.
                        "Dimensions": [[], ["Pipeline"]] if by_pipeline else [[]],
                        "Metrics": [
                            {"Name": name, "Unit": unit} for name, (_, unit) in values.items()
                        ],
                    }
                ],
            },
            "Pipeline": pipeline,
            **{name: value for name, (value, _) in values.items()},
            **about,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def _event(self, kind: str, pipeline: str, detail: Mapping[str, Any]) -> bool:
        entry = {
            "Source": SOURCE,
            "DetailType": kind,
            "Time": self.now,
            "Detail": json.dumps({"pipeline": pipeline, **detail}),
        }
        try:
            answer = self.aws.events().put_events(Entries=[entry])  # type: ignore[list-item]
        except AwsError as error:
            why = str(error)
        else:
            # PutEvents answers 200 also where it took nothing.
            refused = [each for each in answer["Entries"] if "ErrorCode" in each]
            if not refused:
                return True
            why = "; ".join(f"{each['ErrorCode']}: {each['ErrorMessage']}" for each in refused)
        log.error("not told on the event bus: %s: %s", kind, why, extra={"pipeline": pipeline})
        self._metrics(pipeline, {"EventsNotSent": (1, "Count")}, why=why)
        return False
