"""How far a rotation may go: a pure function of the records, the alarms and the time.

`judged` makes a pipeline's next rollout, wave by wave:

    its alarms are quiet → the wave begins → its targets hold the certificate and serve it
      → it has baked, its alarms still quiet → it has passed, and the next one's turn comes
      → a client gets something wrong, the service refuses the bundle, an alarm begins to ring:
        back to the certificate before, or, where that would not do, no further

The same state gets the same answer, so a run may be repeated, doubled, late or killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from certrail.bundle import short
from certrail.records import Record, Rollout, State
from certrail.store import Current
from certrail.waves import ONE_WAVE, Wave
from deployers.looks import HOUR, watched
from deployers.rollout import at_once, holds

# What a queue can hold back a message for (API_SendMessage, DelaySeconds).
SOON = timedelta(minutes=15)
# How often alarms are looked at: in a wave's first hour, and later.
POLL, POLL_LATER = timedelta(minutes=5), timedelta(minutes=15)


@dataclass(frozen=True)
class Alarm:
    """An alarm that a wave names. rings_since: None while it is quiet; one without data is quiet.
    unknown: why nobody can tell, None where it is known. rang_at: when it rang since the wave
    began, where it is quiet again."""

    name: str
    rings_since: datetime | None = None
    unknown: str | None = None
    rang_at: datetime | None = None


@dataclass(frozen=True)
class WayBack:
    """to: an earlier bundle, None where there is no way back to it. why_not: the reason."""

    to: Current | None
    why_not: str = ""


@dataclass(frozen=True)
class GoBack:
    """to: the bundle that is to be current again. why: a sentence for people."""

    to: Current
    why: str


@dataclass(frozen=True)
class Judgement:
    """rollout: as it is to be written. back: what is to be done instead, None where it goes on."""

    rollout: Rollout
    back: GoBack | None = None


def judged(
    rollout: Rollout | None,
    current: Current,
    waves: Sequence[Wave],
    numbers: Mapping[str, int],
    records: Mapping[str, Record],
    alarms: Mapping[str, Alarm],
    way_back: Callable[[str], WayBack],
    now: datetime,
) -> Judgement:
    """How far the current generation has come.

    numbers: the wave of every target and of what it needs, by address. records: by address. alarms:
    those that the waves from this one on name, read after `now`. way_back: to a bundle of this
    fingerprint; asked only where something fails. A rollout that is newer than `current` is left to
    who sees that.
    """
    if at_once(current, rollout):
        waves, numbers = ONE_WAVE, dict.fromkeys(numbers, 0)
    if rollout is None and came_before_rollouts(current, numbers, records):
        waves = ()
    if rollout is None or rollout.generation < current.generation:
        proven = rollout.proven_before(current.generation) if rollout else None
        if current.rollback and proven == current.rollback.of:
            # Somebody left it, for a reason.
            proven = None
        rollout = Rollout(
            current.pipeline,
            current.generation,
            current.fingerprint,
            at=now,
            began_at=None,
            proven=proven,
        )
    if rollout.generation > current.generation:
        return Judgement(rollout)
    while rollout.done_at is None and rollout.passed < len(waves):
        wave = waves[rollout.passed]
        there = [alarms[name] for name in wave.alarms if name in alarms]
        if unknown := [each.unknown for each in there if each.unknown]:
            return Judgement(_stopped(rollout, wave, "; ".join(unknown), now))
        ringing = [each for each in there if each.rings_since]
        if rollout.began_at is None:
            if ringing:
                why = f"{_named(ringing)} must be quiet first"
                waits = replace(rollout, waits_for=why, failed=None)
                return Judgement(_again(waits, now + POLL_LATER, now))
            rollout = replace(
                rollout, began_at=now, waits_for=None, served_at=None, failed=None, next=None
            )
        members = [
            records.get(address) for address in numbers if numbers[address] == rollout.passed
        ]
        if judgement := _failed(rollout, wave, current, members, there, way_back, now):
            return judgement
        if rollout.failed and any(_is_tried(each, current) for each in members):
            return Judgement(rollout)
        if rollout.failed:
            # What made it fail is no more.
            rollout = replace(rollout, began_at=None, failed=None)
            continue
        if not all(is_done(record, current) for record in members):
            waits = replace(rollout, served_at=None)
            return Judgement(_again(waits, _poll(waits, now) if there else None, now))
        served_at = rollout.served_at or now
        over = served_at + wave.bake
        if now < over or ringing:
            bakes = replace(rollout, served_at=served_at)
            return Judgement(_again(bakes, _during_bake(bakes, over, now, polls=bool(there)), now))
        rollout = replace(
            rollout, passed=rollout.passed + 1, began_at=None, served_at=None, next=None
        )
    if rollout.done_at is None:
        rollout = replace(rollout, done_at=now, next=None, failed=None)
    return Judgement(rollout)


def came_before_rollouts(
    current: Current, numbers: Mapping[str, int], records: Mapping[str, Record]
) -> bool:
    """Whether all targets had this generation before there were rollouts, when records did not say
    who wrote them: it is everywhere, and no news."""
    had = [records.get(address) for address in numbers]
    return all(each and each.generation == current.generation and not each.by for each in had)


def is_done(record: Record | None, current: Current) -> bool:
    """Whether the target has all that there is to have: served, or deployed where nobody looks; or
    what it lacks is the fault of a few of its machines, of which people were told."""
    if record is None or record.generation != current.generation:
        return False
    match record.state:
        case State.SERVED:
            return True
        case State.DEPLOYED:
            return record.check is None
        case State.FAILED:
            return record.check is not None and record.check.failed and record.check.tolerated
        case _:
            return False


def _is_tried(record: Record | None, current: Current) -> bool:
    """Whether somebody is deploying it, which may end as it did before."""
    if record is None or record.generation != current.generation:
        return False
    return record.state is State.DEPLOYING


def _failed(
    rollout: Rollout,
    wave: Wave,
    current: Current,
    members: Iterable[Record | None],
    alarms: Sequence[Alarm],
    way_back: Callable[[str], WayBack],
    now: datetime,
) -> Judgement | None:
    """None where nothing has failed over this generation.

    A deployment that failed over something else, such as a distribution that is gone, is no reason:
    it is tried again, and the wave waits.
    """
    mine = [each for each in members if each and each.generation == current.generation]
    not_served = [
        each for each in mine if each.check and each.check.failed and not each.check.tolerated
    ]
    refused = [each for each in mine if each.refused]
    until = _its_alarms_count_until(rollout, wave, mine)
    began = [
        each
        for each in alarms
        if (at := each.rings_since or each.rang_at)
        and rollout.began_at
        and rollout.began_at < at <= (until or at)
    ]
    reasons = [each.error or each.address for each in refused + not_served]
    if began:
        reasons.append(f"{_named(began)}, after wave `{wave.name}` had begun")
    if not reasons:
        return None
    reason = "; ".join(reasons)
    shadowed = [each for each in not_served if each.check and each.check.shadowed]
    seen = [
        each for each in not_served if each.check and each.check.reached and not each.check.shadowed
    ]
    if not (began or refused or seen):
        if not wave.name:
            # There is no later wave to spare, and the others' certificates end, too.
            return None
        why_not = (
            "clients believe what they get there, which certrail never put there, and would get it "
            "in place of the one before, too"
            if shadowed
            else "where nobody could look, nothing is known against the certificate"
        )
        return Judgement(_stopped(rollout, wave, f"{reason}. Not rolled back: {why_not}", now))
    obstacles = []
    for fingerprint in dict.fromkeys((current.previous, rollout.proven)):
        if fingerprint is None:
            continue
        back = way_back(fingerprint)
        # Of an alarm nobody knows which target it is about.
        quiet = fingerprint == rollout.proven or any(each.before == fingerprint for each in mine)
        if back.to is None:
            obstacles.append(back.why_not)
        elif (began and quiet) or any(_had(each, fingerprint) for each in refused + seen):
            return Judgement(rollout, GoBack(back.to, reason))
        else:
            obstacles.append(f"{short(fingerprint)} was not served there either")
    why_not = "; ".join(dict.fromkeys(obstacles)) or "it is the pipeline's first certificate"
    return Judgement(_stopped(rollout, wave, f"{reason}. Not rolled back: {why_not}", now))


def _its_alarms_count_until(
    rollout: Rollout, wave: Wave, members: Sequence[Record]
) -> datetime | None:
    """A member may keep a wave from its end for weeks, and what rings then is not about what the
    others have served all the time: their bake is over, or an hour where that is shorter. None
    where nobody has the certificate yet."""
    since = [
        (each.check.served_at if each.check else None) or each.at for each in members if holds(each)
    ]
    if rollout.served_at:
        since.append(rollout.served_at)
    return max(since) + max(wave.bake, HOUR) if since else None


def _had(record: Record, fingerprint: str) -> bool:
    """Whether it was well with this bundle: clients got it, or it is what the target still holds,
    having refused another."""
    holds = record.held is not None and record.held.fingerprint == fingerprint
    return record.good == fingerprint or (record.refused and holds)


def _stopped(rollout: Rollout, wave: Wave, why: str, now: datetime) -> Rollout:
    text = f"wave `{wave.name}`: {why}" if wave.name else why
    return _again(replace(rollout, failed=text, served_at=None), now + HOUR, now)


def _again(rollout: Rollout, wanted: datetime | None, now: datetime) -> Rollout:
    """Looked at again then, or before, where that was agreed: of two runs at the same time, the
    second has nothing to write."""
    agreed = rollout.next
    if wanted and agreed and now < agreed <= wanted:
        return rollout
    return replace(rollout, next=wanted)


def _poll(rollout: Rollout, now: datetime) -> datetime:
    young = rollout.began_at is not None and now < rollout.began_at + HOUR
    return now + (POLL if young else POLL_LATER)


def _during_bake(rollout: Rollout, over: datetime, now: datetime, *, polls: bool) -> datetime:
    """What ends within the hour is written down every quarter of one, as no message waits longer.
    The hourly run sees to the rest."""
    if over <= now:
        # An alarm that rang before is waited for.
        return now + POLL_LATER
    wanted = over if over - now <= SOON or over - now > HOUR else now + SOON
    return min(wanted, _poll(rollout, now)) if polls else wanted


def _named(alarms: Sequence[Alarm]) -> str:
    return ", ".join(
        f"the alarm {each.name} rings since {each.rings_since:%Y-%m-%d %H:%M} UTC"
        if each.rings_since
        else f"the alarm {each.name} rang at {each.rang_at:%Y-%m-%d %H:%M} UTC"
        for each in alarms
    )


# When to look


def attention(
    rollout: Rollout | None,
    current: Current | None,
    waves: Sequence[Wave],
    numbers: Mapping[str, int],
    records: Mapping[str, Record],
    now: datetime,
) -> datetime | None:
    """When the watcher is to look at a pipeline next: a moment that may have passed, None where it
    need not. Whether alarms ring is for the watcher to see."""
    if current is None or not numbers:
        return None
    if rollout is None or rollout.generation != current.generation:
        return now
    moments = [
        record.check.next
        for record in records.values()
        if watched(record, current) and record.check and record.check.next
    ]
    if rollout.done_at is None:
        nowhere = WayBack(None)
        then = judged(rollout, current, waves, numbers, records, {}, lambda _: nowhere, now).rollout
        if (then.failed is None) != (rollout.failed is None):
            return now
        # Then only an alarm or the time can be what it waits for.
        waits = rollout.began_at is None or rollout.served_at is not None
        agreed = rollout.next is not None and rollout.next > now
        if _stands(then) != _stands(rollout) and not (waits and agreed):
            return now
        if rollout.next:
            moments.append(rollout.next)
    return min(moments, default=None)


def _stands(rollout: Rollout) -> tuple[object, ...]:
    begun, served = rollout.began_at is not None, rollout.served_at is not None
    return rollout.passed, begun, served, rollout.done_at is not None
