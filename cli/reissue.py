"""`certrail reissue`: new certificates before the old ones are due, as fast as the CA lets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from certrail.errors import raise_together
from certrail.pipelines import Pipeline
from cli.workspace import BadInput, Workspace
from deployers.kinds.all import AnyTarget
from issuer.reissue import Asked, ask
from issuer.survey import Standing, survey


@dataclass(frozen=True)
class Reissue:
    """How far a reissue is. next_attempt: of those that wait, the first."""

    done: Sequence[str]
    waiting: Sequence[str]
    failed: Sequence[tuple[str, str]]
    next_attempt: datetime | None

    @property
    def total(self) -> int:
        return len(self.done) + len(self.waiting) + len(self.failed)

    def as_json(self) -> dict[str, Any]:
        return {
            "done": list(self.done),
            "waiting": list(self.waiting),
            "failed": dict(self.failed),
            "next_attempt": self.next_attempt.isoformat() if self.next_attempt else None,
        }


def choose(
    workspace: Workspace, names: Sequence[str], issuer: str | None, *, every: bool
) -> list[Pipeline[AnyTarget]]:
    """The pipelines meant: exactly one of the three ways to say it. Raises BadInput."""
    if [bool(names), issuer is not None, every].count(True) != 1:
        raise BadInput("say which ones", next="Give one of --all, --issuer and --pipeline")
    file = workspace.pushed()
    if issuer is None:
        chosen = workspace.chosen(file, names)
        ours = [each for each in chosen if each.incoming is None]
        if not ours or (names and ours != chosen):
            raise BadInput(
                "this certificate is not ours to issue",
                next="Have it issued anew where it comes from; what is brought is taken in",
            )
        return ours
    workspace.issuer(file, issuer)
    chosen = [
        each.pipeline
        for each in _readable(survey(workspace.store, file.pipelines, {}))
        if each.issuer and each.issuer.name == issuer
    ]
    if not chosen:
        raise BadInput(f"no current certificate is from `{issuer}`")
    return chosen


def begin(
    workspace: Workspace, chosen: Sequence[Pipeline[AnyTarget]], why: str, now: datetime
) -> dict[str, Asked]:
    """Write down what is wanted; the Lambda functions take it from there. Returns the wishes."""
    wishes = {
        standing.pipeline.name: Asked(
            standing.current.generation if standing.current else 0, why, now
        )
        for standing in _readable(survey(workspace.store, chosen, {}))
    }
    ask(workspace.store, wishes)
    return wishes


def _readable(standings: Sequence[Standing]) -> Sequence[Standing]:
    """Raises, together, why some cannot be read: what they have is not known."""
    raise_together(
        "not every pipeline can be read", [each.error for each in standings if each.error]
    )
    return standings


def follow(
    workspace: Workspace,
    chosen: Sequence[Pipeline[AnyTarget]],
    wishes: dict[str, Asked],
    sleep: Callable[[], None],
) -> Iterator[Reissue]:
    """How far it is, again and again until nothing waits any more."""
    while True:
        state = _state(survey(workspace.store, chosen, {}), wishes)
        yield state
        if not state.waiting:
            return
        sleep()


def _state(standings: Sequence[Standing], wishes: dict[str, Asked]) -> Reissue:
    done: list[str] = []
    waiting: list[str] = []
    failed: list[tuple[str, str]] = []
    attempts: list[datetime] = []
    for standing in standings:
        name, progress = standing.pipeline.name, standing.progress
        wish = wishes[name]
        if standing.error:
            failed.append((name, str(standing.error)))
            continue
        if standing.current and standing.current.generation > wish.generation:
            done.append(name)
            continue
        failed_since = progress and progress.ended_at and progress.ended_at >= wish.at
        if progress and failed_since and progress.permanent:
            failed.append((name, progress.error or ""))
            continue
        waiting.append(name)
        if progress and progress.next_attempt:
            attempts.append(progress.next_attempt)
    return Reissue(done, waiting, failed, min(attempts, default=None))
