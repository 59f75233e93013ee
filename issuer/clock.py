"""Time as the issuer sees it: handed in, so that a test can hold it still."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from certrail.errors import DeadlinePassed


@dataclass(frozen=True)
class Clock:
    """now: aware, UTC. sleep: takes seconds. deadline: aware; nothing is waited for beyond it."""

    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    deadline: datetime

    @property
    def left(self) -> float:
        """Seconds until the deadline, negative after it."""
        return (self.deadline - self.now()).total_seconds()

    def pause(self, seconds: float, awaiting: str) -> None:
        """Sleep. Raises DeadlinePassed at once where the sleep would end after the deadline: the
        time that is left is worth more for cleaning up."""
        if seconds >= self.left:
            raise DeadlinePassed(
                f"the time allowed for this run ended while waiting for {awaiting}",
                next="The next run tries again",
            )
        self.sleep(seconds)


class Backoff:
    """Pauses that grow by half each time."""

    def __init__(
        self, clock: Clock, awaiting: str, *, first: float = 0.1, longest: float = 5.0
    ) -> None:
        self._clock = clock
        self._awaiting = awaiting
        self._next = first
        self._longest = longest

    def pause(self, until: datetime | None = None) -> None:
        """The next pause, or the one until `until` where that is longer. Raises DeadlinePassed."""
        asked = (until - self._clock.now()).total_seconds() if until else 0.0
        self._clock.pause(max(self._next, asked), self._awaiting)
        self._next = min(self._next * 1.5, self._longest)
