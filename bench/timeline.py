"""Simulated time for code that knows nothing of it.

Every run of a function is a thread, and one of all threads runs at a time: the one whose moment is
the earliest. Wherever the code would take time (a call, a pause), it gives the word away until its
moment has come.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable


class Timeline:
    """now: seconds since the beginning."""

    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._quiet = threading.Event()
        self._failure: BaseException | None = None

    def at(self, moment: float, act: Callable[[], None]) -> None:
        """Do this then. It must not take time itself."""
        heapq.heappush(self._waiting, (moment, next(self._order), act))

    def start(self, moment: float, run: Callable[[], None]) -> None:
        """Begin a run then, which may take time."""
        self.at(moment, lambda: self._begin(run))

    def take(self, seconds: float) -> None:
        """Called in a run: let this much time pass."""
        mine = threading.Event()

        def go_on() -> None:
            self._quiet.clear()
            mine.set()
            self._quiet.wait()

        self.at(self.now + seconds, go_on)
        self._quiet.set()
        mine.wait()

    def run(self) -> None:
        """Until nothing is left to happen. Raises what a run raised."""
        while self._waiting and self._failure is None:
            self.now, _, act = heapq.heappop(self._waiting)
            act()
        if self._failure:
            raise self._failure

    def _begin(self, run: Callable[[], None]) -> None:
        def body() -> None:
            try:
                run()
            except BaseException as error:  # noqa: BLE001 (raised again by `run`)
                self._failure = error
            finally:
                self._quiet.set()

        self._quiet.clear()
        threading.Thread(target=body, daemon=True).start()
        self._quiet.wait()
