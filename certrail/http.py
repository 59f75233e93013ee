"""What HTTP's answers say, whoever gives them."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after(header: str | None, now: datetime) -> datetime | None:
    """The moment a `Retry-After` header names, by seconds or by date (RFC 9110, 10.2.3); aware,
    UTC. None where there is no header or it makes no sense: then it is as if it were not there."""
    if header is None:
        return None
    header = header.strip()
    if header.isascii() and header.isdigit():
        # More than ten years is no answer, and overflows datetime.
        seconds = min(int(header[:12]), 10 * 365 * 86400)
        return datetime.fromtimestamp(now.timestamp() + seconds, UTC)
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, IndexError, OverflowError):
        return None
    # A date without a zone is in GMT: HTTP knows no other.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
