"""Logging, set up once by each entry point: JSON in Lambda, text on a terminal's stderr."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

FIELDS = ("pipeline", "target", "fingerprint", "generation", "action")


class JsonLines(logging.Formatter):
    """One JSON object a line, with the fields certrail passes in `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {field: getattr(record, field) for field in FIELDS if hasattr(record, field)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def to_lambda() -> None:
    """For the Lambda entry points: JSON lines on stdout, which is CloudWatch Logs there."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # botocore's own INFO lines (credentials found in …) say nothing an operator acts on.
    logging.getLogger("botocore").setLevel(logging.WARNING)


def to_terminal(*, verbose: bool) -> None:
    """For the command: text on stderr, warnings only unless asked."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.getLogger("botocore").setLevel(logging.WARNING)
