"""What can happen: each rule is one step of a history.

What can not: that a call is under way for longer than what is left of the lease on a target's
record, half a minute.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from datetime import timedelta
from typing import Any, ClassVar

from botocore.exceptions import ClientError
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from certrail.errors import CertrailError
from certrail.store import Current, Issued, Versioned, current_key
from deployers import handler, router, watcher
from deployers.deploy import deploy_target
from deployers.rollback import find, roll_back
from deployers.rollout import plan
from deployers.view import look_at
from tests.deployers.cloud import REGION
from tests.deployers.histories.aws import (
    Died,
    Dies,
    Interrupted,
    Meanwhile,
    Mishap,
    Refused,
    Stopped,
    Unanswered,
)
from tests.deployers.histories.console import EDITS, edit
from tests.deployers.histories.promises import Promises
from tests.deployers.histories.queues import HIDDEN, Look, Message
from tests.deployers.histories.world import (
    DOMAINS,
    SHAPES,
    InTurn,
    World,
    bundle,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# Within so many daily runs everything is as it should be, whatever happened before.
DAYS = 4
# In an hour, not more often is anything given to anybody.
ROUNDS = 200
# Enough of them: each new one tags the keys of all that were before.
PUBLICATIONS = 12

# What else may be done, to its end, while a process is between two calls.
BESIDE = (
    "the same job",
    "apply",
    "issue and apply",
    "it sleeps, and is overtaken",
    "the next job",
    "publish",
    "roll back",
    "hourly",
    "a look",
    "half a minute",
    "the alarm rings",
)

# More than the longest runs make, so that all calls have their turn.
at = st.integers(1, 40)
pipelines = st.sampled_from(sorted(DOMAINS))
mishaps: st.SearchStrategy[Mishap | None] = st.one_of(
    st.none(),
    st.builds(Dies, at, after=st.booleans()),
    st.builds(
        Refused, at, st.sampled_from(["throttled", "failing", "forbidden"]), st.sampled_from([1, 5])
    ),
    st.builds(Unanswered, at, st.sampled_from([1, 5])),
    st.builds(Meanwhile, at, st.sampled_from(BESIDE)),
    st.builds(Meanwhile, at, st.sampled_from(EDITS)),
)
ctrl_c = mishaps | st.builds(Interrupted, at)


class Minute:
    """What Lambda hands to a function that has a minute left, and some more."""

    def get_remaining_time_in_millis(self) -> int:
        return 100_000


class Histories(RuleBasedStateMachine):
    """One history. world: set by the test that runs them; it is built once.

    happened: how often what happened, in all histories.
    """

    world: ClassVar[World]
    happened: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        world = self.world
        self.promises = Promises(world)
        world.aws.after_write = self.promises.after_write
        world.aws.meanwhile = self._meanwhile
        world.aws.sqs = world.queues.answer
        self._published = 0
        self._message: Message | None = None
        self._applying: tuple[str, int] | None = None
        world.reset()
        world.events.waiting.clear()

    # How a history begins

    @initialize(settled=st.booleans())
    def first_certificates(self, settled: bool) -> None:
        for pipeline in DOMAINS:
            self._publish(pipeline, "ecdsa", None)
        if settled:
            self._an_hour_passes()

    # The issuer, and who rolls back

    @precondition(lambda self: self._published < PUBLICATIONS)
    @rule(pipeline=pipelines, shape=st.sampled_from(SHAPES), mishap=mishaps)
    def publish(self, pipeline: str, shape: str, mishap: Mishap | None) -> None:
        self._publish(pipeline, shape, mishap)

    @rule(pipeline=pipelines, back=st.integers(1, 3), mishap=mishaps)
    def roll_back(self, pipeline: str, back: int, mishap: Mishap | None) -> None:
        self._roll_back(pipeline, back, mishap)

    # Events and the router

    @precondition(lambda self: self.world.events.waiting)
    @rule(
        which=st.lists(st.integers(0, 30), min_size=1, max_size=4, unique=True),
        again=st.booleans(),
        mishap=mishaps,
    )
    def events_arrive(self, which: list[int], again: bool, mishap: Mishap | None) -> None:
        """Some of them, in any order. again: SQS delivers them a second time, later."""
        waiting = self.world.events.waiting
        ids = list(waiting)
        chosen = {ids[each % len(ids)]: waiting[ids[each % len(ids)]] for each in which}
        self._events_arrive(chosen, again, mishap)

    @rule(daily=st.booleans(), mishap=mishaps)
    def scheduled_run(self, daily: bool, mishap: Mishap | None) -> None:
        self._route({"reconcile": True} if daily else {}, mishap)

    # The deployers

    @precondition(lambda self: self.world.queues.ready())
    @rule(which=st.integers(0, 12), again=st.booleans(), mishap=mishaps)
    def a_job_arrives(self, which: int, again: bool, mishap: Mishap | None) -> None:
        """The first of any group. again: SQS delivers it once more, though it is done."""
        ready = self.world.queues.ready()
        message = ready[which % len(ready)]
        note(f"# {message}")
        self._work(message, mishap, again=again)

    @precondition(lambda self: self.world.queues.due())
    @rule(which=st.integers(0, 5), again=st.booleans(), mishap=mishaps)
    def the_watcher_looks(self, which: int, again: bool, mishap: Mishap | None) -> None:
        due = self.world.queues.due()
        self._look([due[which % len(due)]], mishap, again=again)

    @rule(rounds=st.integers(1, 3))
    def quiet_minutes(self, rounds: int) -> None:
        """What is under way arrives, and what follows from it."""
        for _ in range(rounds):
            if self.world.events.waiting:
                self._events_arrive(dict(self.world.events.waiting), False, None)
            for message in self.world.queues.ready():
                self._work(message, None)
            if due := self.world.queues.due():
                self._look(due, None)

    @precondition(lambda self: self.world.events.waiting or self.world.queues.waiting)
    @rule(which=st.integers(0, 30), job=st.booleans())
    def something_is_lost(self, which: int, job: bool) -> None:
        """An event that EventBridge did not deliver; a job in a queue that somebody purged."""
        events, jobs = self.world.events.waiting, self.world.queues.waiting
        if job and jobs:
            jobs.pop(which % len(jobs))
            self.happened["jobs lost"] += 1
        elif events:
            events.pop(list(events)[which % len(events)])
            self.happened["events lost"] += 1

    @rule(pipeline=pipelines, which=st.integers(0, 9), mishap=ctrl_c)
    def apply(self, pipeline: str, which: int, mishap: Mishap | None) -> None:
        """`certrail apply`, as far as one of the targets that are ready."""
        self._apply(pipeline, which, mishap)

    # Others

    @rule(what=st.sampled_from(EDITS), pipeline=pipelines)
    def edit_by_hand(self, what: str, pipeline: str) -> None:
        self._edit(what, pipeline)

    @rule(time=st.sampled_from([timedelta(seconds=30), timedelta(minutes=7), HOUR, DAY]))
    def time_passes(self, time: timedelta) -> None:
        self.world.clock.passes(time)

    @rule(rings=st.booleans())
    def the_alarm(self, rings: bool) -> None:
        self._alarm(rings)

    # What must hold

    def teardown(self) -> None:
        """However it went, in the end it is as it should be, and then nothing is written."""
        if self.promises.broken:
            return
        self.world.aws.to_come = None
        self._alarm(False)
        days = next((day for day in range(1, DAYS + 1) if not self._a_day_changes_something()), 0)
        assert days, f"something still changes on day {DAYS}"
        self.happened[f"at rest on day {days}"] += 1
        wrong = self.world.aws.run(self.promises.at_rest, ours=False)
        assert not wrong, "\n".join(wrong)
        self.happened["histories"] += 1

    def _a_day_changes_something(self) -> bool:
        self._an_hour_passes()
        self.world.clock.passes(DAY)
        before = self.promises.changes
        self._route({"reconcile": True}, None)
        self._an_hour_passes()
        return self.promises.changes > before

    # How it is done

    def _publish(self, pipeline: str, shape: str, mishap: Mishap | None) -> None:
        new = bundle(pipeline, shape, self._published)
        self._published += 1
        self.promises.bundles[new.fingerprint] = new
        facts = new.facts
        issued = Issued(
            issuer="ca",
            directory="https://ca.example/directory",
            account="https://ca.example/account/1",
            profile=None,
            key_type=facts.key_type,
            domains=facts.domains,
        )

        def act() -> None:
            after = self._current(pipeline)
            self.world.store.publish(pipeline, new, issued, after=after, now=self.world.clock.now)

        self._run("publications", act, mishap)

    def _roll_back(self, pipeline: str, back: int, mishap: Mishap | None) -> None:
        """`certrail rollback`."""
        newest = self.promises.newest(pipeline)
        if newest <= back:
            return
        to = self.promises.fingerprint_of(pipeline, newest - back)

        def act() -> None:
            after = self._current(pipeline)
            assert after
            store, now = self.world.store, self.world.clock.now
            way = find(store, after.value, to, timedelta(0), now)
            roll_back(store, after, way.to, "a test", "a test", now)
            self.happened["rollbacks"] += 1

        self._run("attempts to roll back", act, mishap)

    def _current(self, pipeline: str) -> Versioned[Current] | None:
        return self.world.store.read(current_key(pipeline), Current)

    def _events_arrive(self, chosen: dict[str, str], again: bool, mishap: Mishap | None) -> None:
        event = {
            "Records": [{"messageId": each, "body": _event(key)} for each, key in chosen.items()]
        }
        failed = self._route(event, mishap)
        self.happened["events"] += len(chosen)
        for each in chosen.keys() - failed:
            if again:
                self.happened["events doubled"] += 1
            else:
                self.world.events.waiting.pop(each, None)

    def _route(self, event: dict[str, Any], mishap: Mishap | None) -> set[str]:
        """Returns the messages that come again."""
        answers: list[dict[str, list[dict[str, str]]]] = []
        self._run("runs of the router", lambda: answers.append(router.handle(event, None)), mishap)
        if not answers:
            return {record["messageId"] for record in event.get("Records", [])}
        return {each["itemIdentifier"] for each in answers[0].get("batchItemFailures", [])}

    def _work(self, message: Message, mishap: Mishap | None, *, again: bool = False) -> None:
        queues = self.world.queues
        if not queues.receive(message):
            return
        before, self._message = self._message, message
        for _ in range(2 if again else 1):
            done = self._handle(message, mishap)
        self.happened["jobs doubled"] += again
        self._message = before
        if done:
            queues.delete(message)

    def _handle(self, message: Message, mishap: Mishap | None) -> bool:
        """Whether it is done with."""
        os.environ["CERTRAIL_KIND"] = message.kind
        answers: list[object] = []
        self._run(
            "runs of a deployer",
            lambda: answers.append(handler.handle(message.event, None)),
            mishap,
        )
        return answers == [{"batchItemFailures": []}]

    def _apply(self, pipeline: str, which: int, mishap: Mishap | None) -> None:
        before, self._applying = self._applying, (pipeline, which)
        self._run("runs of apply", lambda: self._apply_one(pipeline, which), mishap)
        self._applying = before

    def _apply_one(self, pipeline: str, which: int) -> bool:
        """Whether there was something to do."""
        world = self.world
        view = look_at(world.store, world.pipeline(pipeline), InTurn(1))
        steps = plan(view.targets, view.current, view.records, world.clock.now, gates=view.gates)
        ready = [step.target for step in steps if step.ready]
        if not ready or view.current is None:
            return False
        target = ready[which % len(ready)]
        note(f"# {pipeline}: {target.address}")
        deploy_target(
            world.store,
            target,
            pipeline,
            role=None,
            aws=handler._aws(),
            now=world.clock.now,
            rotation=world.pipeline(pipeline).rotation,
            generation=view.current.generation,
            by="a test",
        )
        return True

    def _look(self, due: list[Look], mishap: Mishap | None, *, again: bool = False) -> None:
        event = {"Records": [{"messageId": each.id, "body": each.body} for each in due]}
        answers: list[dict[str, list[dict[str, str]]]] = []

        def act() -> None:
            answers.append(watcher.handle(event, Minute()))

        self._run("runs of the watcher", act, mishap)
        self.happened["looks doubled"] += again
        failed = answers[0]["batchItemFailures"] if answers else event["Records"]
        failures = {next(iter(each.values())) for each in failed}
        looks = self.world.queues.looks
        for look in due:
            if look.id in failures:
                look.visible = self.world.clock.now + HIDDEN
            elif not again and look in looks:
                looks.remove(look)

    def _alarm(self, rings: bool) -> None:
        self.happened["the alarm rings"] += rings
        state = "ALARM" if rings else "OK"
        self.world.aws.run(lambda: self.world.alarm_is(state), ours=False)

    def _run(self, what: str, act: Callable[[], object], mishap: Mishap | None) -> None:
        """A process of certrail, and what its log must not tell."""
        self.happened[what] += 1
        log = io.StringIO()
        with redirect_stdout(log):
            try:
                self.world.aws.run(act, mishap)
            except CertrailError as error:
                self.happened[f"ended in {type(error).__name__}"] += 1
                log.write(str(error))
            except (Died, Stopped) as end:
                self.happened[f"{what} that {type(end).__name__.lower()}"] += 1
        self.promises.no_private_key(log.getvalue(), "the log")
        self._promises_hold()

    def _promises_hold(self) -> None:
        assert not self.promises.broken, "\n".join(self.promises.broken)

    def _meanwhile(self, what: str) -> None:
        pipeline = "shop"
        if self._message:
            pipeline = self._message.job.pipeline
        elif self._applying:
            pipeline = self._applying[0]
        match what:
            case "the same job":
                if self._message:
                    self._handle(self._message, None)
            case "the next job":
                for message in self.world.queues.ready()[:1]:
                    note(f"# meanwhile {message}")
                    self._work(message, None)
            case "apply" if self._applying:
                self._apply(*self._applying, None)
            case "apply":
                self._apply(pipeline, 0, None)
            case "issue and apply" | "it sleeps, and is overtaken":
                # Ctrl-Z, a laptop that is closed: no Lambda function is given so much time.
                sleeps = what != "issue and apply"
                self.world.clock.passes(timedelta(minutes=7 if sleeps else 0))
                self._publish(pipeline, "ecdsa", None)
                for _ in self.world.targets(pipeline):
                    self._apply(pipeline, 0, None)
            case "publish":
                self._publish(pipeline, "ecdsa", None)
            case "roll back":
                self._roll_back(pipeline, 1, None)
            case "hourly":
                self._route({}, None)
            case "a look":
                self._look(self.world.queues.due()[:1], None)
            case "the alarm rings":
                self._alarm(True)
            case "half a minute":
                self.world.clock.passes(timedelta(seconds=30))
            case _:
                self._edit(what, pipeline)

    def _an_hour_passes(self) -> None:
        """All that is under way arrives in its time, and what follows from it, and comes again."""
        world = self.world
        end = world.clock.now + HOUR
        for _ in range(ROUNDS):
            soonest = world.queues.soonest()
            # In the order in which the fewest runs have the most to do.
            if ready := world.queues.ready():
                for message in ready:
                    self._work(message, None)
            elif world.events.waiting:
                self._events_arrive(dict(world.events.waiting), False, None)
            elif due := world.queues.due():
                self._look(due, None)
            elif soonest and soonest <= end:
                world.clock.passes(soonest - world.clock.now)
            else:
                world.clock.passes(max(end - world.clock.now, timedelta(0)))
                return
        raise AssertionError("there is no end of events and jobs")

    def _edit(self, what: str, pipeline: str) -> None:
        self.happened[f"by hand: {what}"] += 1
        with suppress(ClientError):
            held = self.promises.import_of(pipeline, REGION)
            home, replaced = (held.resource, held.superseded) if held else (None, ())
            self.world.aws.run(lambda: edit(self.world, what, pipeline, home, replaced), ours=False)
        self._promises_hold()


def _event(key: str) -> str:
    return json.dumps({"detail": {"object": {"key": key}}})
