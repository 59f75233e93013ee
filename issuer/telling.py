"""What the issuer says without being asked: metrics, and events, as certrail.telling sends them.

Metrics are over all pipelines: one for each would cost more than its certificate. The lines name
the pipeline, so Logs Insights tells them apart. Each event may come twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from certrail.aws import Aws
from certrail.bundle import short
from certrail.errors import CertrailError
from certrail.pipelines.model import INCOMING
from certrail.store import Current
from certrail.telling import Units, put_event, put_metrics
from issuer.renewal import Window

ISSUED = "Certificate Issued"
FAILED = "Certificate Issuance Failed"
AT_RISK = "Certificate At Risk"


@dataclass(frozen=True)
class Telling:
    """Tells CloudWatch and EventBridge. Needs `events:PutEvents` on the default bus. bucket: of the
    installation that tells."""

    aws: Aws
    bucket: str
    now: datetime

    def issued(self, current: Current) -> None:
        facts, issuer = current.facts, current.issued.issuer
        came = f"from {current.issued.directory} came" if issuer == INCOMING else f"{issuer} issued"
        self._event(
            ISSUED,
            current.pipeline,
            f"{came} {short(current.fingerprint)} for "
            f"{', '.join(facts.domains)}, valid until {facts.not_after:%Y-%m-%d}",
            {
                "generation": current.generation,
                "fingerprint": current.fingerprint,
                "domains": list(facts.domains),
                "notAfter": facts.not_after.isoformat(),
                "issuer": issuer,
                "insteadOf": dict(current.issued.instead_of),
            },
        )

    def replaces_refused(self, pipeline: str, why: str) -> None:
        self._metrics(pipeline, {"ReplacesRefused": (1, "Count")}, why=why)

    def failed(self, pipeline: str, error: CertrailError, next_attempt: datetime | None) -> None:
        self._metrics(pipeline, {"IssuesFailed": (1, "Count")}, by_pipeline=True)
        again = f" (next attempt {next_attempt:%Y-%m-%d %H:%M} UTC)" if next_attempt else ""
        self._event(
            FAILED,
            pipeline,
            f"no certificate{again}: {error}",
            {
                "error": str(error),
                "retryable": error.retryable,
                "nextAttempt": next_attempt.isoformat() if next_attempt else None,
            },
        )

    def at_risk(self, current: Current, when: Window, why: str) -> bool:
        """The window is over and the certificate is not renewed. Whether it could be told."""
        not_after = current.facts.not_after
        return self._event(
            AT_RISK,
            current.pipeline,
            f"{short(current.fingerprint)} should have been renewed by "
            f"{when.end:%Y-%m-%d %H:%M} UTC and ends on {not_after:%Y-%m-%d}: {why}",
            {
                "fingerprint": current.fingerprint,
                "notAfter": not_after.isoformat(),
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
        # In all, for the alarm; by pipeline only what is rare.
        dimensions = [[], ["Pipeline"]] if by_pipeline else [[]]
        put_metrics(self.now, values, dimensions, Pipeline=pipeline, **about)

    def _event(self, kind: str, pipeline: str, says: str, detail: Mapping[str, Any]) -> bool:
        said = {"bucket": self.bucket, "pipeline": pipeline, "summary": f"{pipeline}: {says}"}
        return put_event(self.aws, self.now, kind, {**said, **detail})
