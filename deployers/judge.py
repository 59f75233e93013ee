"""What was seen, and what follows from it: pure functions of the state and the time.

`looked` makes a target's next record from what clients got. `judged` makes a pipeline's next
rollout from the records and the alarms, wave by wave:

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
from certrail.records import Check, Record, Rollout, State
from certrail.store import Current
from certrail.target import Endpoint, Node
from certrail.waves import ONE_WAVE, Wave
from deployers.seen import Seen, Verdict

# When to look again at what is not served yet, after each look; in the end every hourly run does.
LADDER = (
    timedelta(seconds=30),
    timedelta(minutes=1),
    timedelta(minutes=2),
    timedelta(minutes=5),
    timedelta(minutes=10),
    timedelta(minutes=15),
    timedelta(minutes=30),
)
# What was served is looked at again after this long; what failed with every hourly run, so that who
# mends it need not wait.
AGAIN = timedelta(days=1)
# One look that shows something else than the last is not believed: so long it must stay so.
GRACE = timedelta(minutes=10)
# What a queue can hold back a message for (API_SendMessage, DelaySeconds).
SOON = timedelta(minutes=15)
HOUR = timedelta(hours=1)
# How often alarms are looked at: in a wave's first hour, and later.
POLL, POLL_LATER = timedelta(minutes=5), timedelta(minutes=15)
# How many of the things seen are told, and how many machines are named; the record names all.
TOLD = 3
NAMED = 20

NOT_REACHED = (
    "Open the way to it, or set `verify: false` for what cannot be reached from where certrail runs"
)
NOT_LOOKED_AT = (
    "It has more addresses and names than there is time for, or they answer too slowly: divide its "
    "pipeline's targets among several pipelines, or set `verify: false` for it"
)
NOT_TRUSTED = (
    "The chain that was published does not lead to a root that clients have; where yours trust the "
    "CA all the same, give the issuer its root as `trust`"
)
NOT_TAKEN = (
    "Mend what these machines say, or remove them; they try again by themselves, and serve the "
    "certificate before until then"
)
NOT_THERE = (
    "Start a machine with the target's tags that Systems Manager manages, correct `instances`, or "
    "set `verify: false` for a fleet that may be empty"
)
NOT_ASKED = "Let the watcher ask them: docs/targets/fleet.md has the policy"
NOT_SHOWN = "Look at what else serves these names there; a certificate that fits better wins"


# Looks


def watched(record: Record, current: Current) -> bool:
    """Whether clients of this target are looked at now and then."""
    return (
        record.check is not None
        and record.generation == current.generation
        and record.state is not State.DEPLOYING
        and (record.state is not State.FAILED or record.check.failed)
    )


def is_due(record: Record, current: Current, now: datetime) -> bool:
    return (
        watched(record, current)
        and record.check is not None
        and record.check.next is not None
        and record.check.next <= now
    )


def looked(record: Record, seen: Mapping[Endpoint, Sequence[Seen]], now: datetime) -> Record:
    """The record after a look. seen: at each of its endpoints, after `now`.

    Addresses that cannot be reached say nothing; a name that was seen at none of them is not served
    yet. What was not looked at for want of time is not served yet either, and where that never ends
    it is a failure that says so: a little later than others, as another look may have the time.
    """
    check = record.check
    if check is None:
        return record
    every = [each for there in seen.values() for each in there]
    wrong = [each for each in every if each.verdict is Verdict.UNTRUSTED]
    other = [each for each in every if each.verdict in {Verdict.OTHER, Verdict.REFUSED}]
    away = [each for each in every if each.verdict is Verdict.UNREACHABLE]
    skipped = [each for each in every if each.verdict is Verdict.SKIPPED]
    if skipped and check.failed and not wrong:
        return replace(record, check=replace(check, next=now + HOUR))
    check = replace(
        check,
        looks=check.looks + 1,
        saw=_said(wrong + other or skipped + away),
        # Of what was not looked at, nothing is known against the certificate.
        reached=bool(wrong or other) or (not skipped and len(away) < len(every)),
    )
    if skipped and check.looks == 1:
        # It is looked at late, and closely for a while.
        check = replace(check, until=max(check.until, now + GRACE))
    shown = not skipped and all(_all_good(*each) for each in seen.items())
    return _after(
        record,
        check,
        now,
        good=shown and not wrong and not other,
        wrong=bool(wrong),
        again=AGAIN,
        # Another look may have the time.
        patience=GRACE if skipped and not other else timedelta(0),
        remedy=_remedy(check, untrusted=bool(wrong), skipped=bool(skipped)),
    )


def asked(record: Record, nodes: Sequence[Node], tolerated: int, now: datetime) -> Record:
    """The record after the target's machines were asked, at `now`.

    tolerated: how many may fail. Those that are offline hold nothing up: they fetch it when they
    come back.
    """
    check = record.check
    if check is None:
        return record
    serve = [each for each in nodes if _serves(each, record)]
    rest = [each for each in nodes if each not in serve]
    away = [each for each in rest if not each.online]
    here = [each for each in rest if each.online]
    # Where machines come and go, there is nearly always one that has not got to it yet.
    young = [
        each
        for each in here
        if each.since and each.since > now - GRACE and not each.fingerprint and not each.error
    ]
    late = [each for each in here if each not in young]
    failed = [each for each in late if each.error]
    silent = [each for each in late if not each.error]
    check = replace(
        check,
        looks=check.looks + 1,
        saw=_said_by(len(nodes), failed, silent, away),
        reached=bool(serve or late),
        nodes={each.id: _outcome(each, record) for each in nodes},
        tolerated=0 < len(late) <= tolerated,
    )
    return _after(
        record,
        check,
        now,
        good=bool(serve) and not late,
        wrong=len(failed) > tolerated,
        again=HOUR if away or young else AGAIN,
        remedy=NOT_TAKEN if late else NOT_THERE,
    )


def not_asked(record: Record, why: str, now: datetime) -> Record:
    """The record after the target's machines could not be asked."""
    check = record.check
    if check is None:
        return record
    check = replace(check, looks=check.looks + 1, saw=why, reached=False, tolerated=False)
    return _after(record, check, now, good=False, wrong=False, again=AGAIN, remedy=NOT_ASKED)


def _after(
    record: Record,
    check: Check,
    now: datetime,
    *,
    good: bool,
    wrong: bool,
    again: timedelta,
    remedy: str,
    patience: timedelta = timedelta(0),
) -> Record:
    """What follows from a look. wrong: no time betters it. again: when to look at what is good.
    patience: how much longer than AWS's own time it may take."""
    if good:
        served_at = check.served_at or now
        check = replace(check, looks=0, failed=False, next=now + again, served_at=served_at)
        well = record.fingerprint
        return replace(record, state=State.SERVED, error=None, good=well, missed=False, check=check)
    if record.state is State.SERVED and check.looks == 1:
        # It was served a day ago: this may pass, and is looked at closely for a while.
        check = replace(check, until=max(check.until, now + GRACE))
    over = check.until + patience
    if check.failed or wrong or now >= over:
        check = replace(check, failed=True, next=now + HOUR)
        new = short(record.fingerprint)
        error = f"{record.address}: clients do not get {new}: {check.saw}. {remedy}"
        # What is not served any more is not what to go back to: it was not the new one's fault.
        lost = check.reached and not check.tolerated and record.good == record.fingerprint
        still = None if lost else record.good
        return replace(
            record, state=State.FAILED, error=error, good=still, missed=True, check=check
        )
    step = LADDER[min(check.looks, len(LADDER)) - 1]
    return replace(record, check=replace(check, next=min(now + step, over)))


def _all_good(endpoint: Endpoint, seen: Sequence[Seen]) -> bool:
    good = {each.server_name for each in seen if each.verdict is Verdict.GOOD}
    return good.issuperset(endpoint.server_names)


def _remedy(check: Check, *, untrusted: bool, skipped: bool) -> str:
    if check.reached:
        return NOT_TRUSTED if untrusted else NOT_SHOWN
    return NOT_LOOKED_AT if skipped else NOT_REACHED


def _said(seen: Sequence[Seen]) -> str:
    more = f"; and {len(seen) - TOLD} more" if len(seen) > TOLD else ""
    return "; ".join(str(each) for each in seen[:TOLD]) + more


def _said_by(
    count: int, failed: Sequence[Node], silent: Sequence[Node], away: Sequence[Node]
) -> str:
    """What is not as it should be with the machines of a target, by their ids."""
    if not count:
        return "there is none"
    said = [f"{each.id}: {each.error}" for each in failed[:TOLD]]
    if more := failed[TOLD:]:
        said.append(f"{_ids(more)} failed, too")
    if silent:
        said.append(f"{_ids(silent)} said nothing of it yet")
    if away:
        said.append(f"offline: {_ids(away)}")
    return "; ".join(said)


def _ids(nodes: Sequence[Node]) -> str:
    more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
    return ", ".join(each.id for each in nodes[:NAMED]) + more


def _serves(node: Node, record: Record) -> bool:
    return node.fingerprint == record.fingerprint and not node.error


def _outcome(node: Node, record: Record) -> str:
    if _serves(node, record):
        return "serves it"
    had = f"; has {short(node.fingerprint)}" if node.fingerprint else ""
    if not node.online:
        return f"offline{had}"
    return (f"failed: {node.error}" if node.error else "said nothing of it yet") + had


# Waves


@dataclass(frozen=True)
class Alarm:
    """An alarm that a wave names. rings_since: None while it is quiet; one without data is quiet.
    unknown: why nobody can tell, None where it is known."""

    name: str
    rings_since: datetime | None = None
    unknown: str | None = None


@dataclass(frozen=True)
class WayBack:
    """to: the bundle before, None where there is no way back to it. why_not: the reason."""

    to: Current | None
    why_not: str = ""


@dataclass(frozen=True)
class Judgement:
    """rollout: as it is to be written. back: why the bundle before is to be current again, None
    where it is not."""

    rollout: Rollout
    back: str | None = None


def judged(
    rollout: Rollout | None,
    current: Current,
    waves: Sequence[Wave],
    numbers: Mapping[str, int],
    records: Mapping[str, Record],
    alarms: Mapping[str, Alarm],
    way_back: Callable[[], WayBack],
    now: datetime,
) -> Judgement:
    """How far the current generation has come.

    numbers: the wave of every target and of what it needs, by address. records: by address. alarms:
    those that the waves from this one on name, read after `now`. way_back: asked only where
    something fails. A rollout that is newer than `current` is left to who sees that.
    """
    if current.rollback:
        # Everywhere at once: `deployers.rollout.gates`.
        waves, numbers = ONE_WAVE, dict.fromkeys(numbers, 0)
    if rollout is None and came_before_rollouts(current, numbers, records):
        waves = ()
    if rollout is None or rollout.generation < current.generation:
        rollout = Rollout(
            current.pipeline, current.generation, current.fingerprint, at=now, began_at=None
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
        if judgement := _failed(rollout, wave, current, members, ringing, way_back, now):
            return judgement
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


def _failed(
    rollout: Rollout,
    wave: Wave,
    current: Current,
    members: Iterable[Record | None],
    ringing: Sequence[Alarm],
    way_back: Callable[[], WayBack],
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
    began = [
        each
        for each in ringing
        if rollout.began_at and each.rings_since and each.rings_since > rollout.began_at
    ]
    reasons = [each.error or each.address for each in refused + not_served]
    if began:
        reasons.append(f"{_named(began)}, after wave `{wave.name}` had begun")
    if not reasons:
        return None
    reason = "; ".join(reasons)
    seen = [each for each in not_served if each.check and each.check.reached]
    if not (began or refused or seen):
        if not wave.name:
            # There is no later wave to spare, and the others' certificates end, too.
            return None
        why_not = "where nobody could look, nothing is known against the certificate"
        return Judgement(_stopped(rollout, wave, f"{reason}. Not rolled back: {why_not}", now))
    back = way_back()
    if back.to is None:
        why_not = back.why_not
    elif began or any(_had(each, back.to.fingerprint) for each in refused + seen):
        return Judgement(rollout, back=reason)
    else:
        why_not = f"{short(back.to.fingerprint)}, the one before, was not served there either"
    return Judgement(_stopped(rollout, wave, f"{reason}. Not rolled back: {why_not}", now))


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


def _named(ringing: Sequence[Alarm]) -> str:
    return ", ".join(
        f"the alarm {each.name} rings since {each.rings_since:%Y-%m-%d %H:%M} UTC"
        for each in ringing
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
        then = judged(rollout, current, waves, numbers, records, {}, lambda: nowhere, now).rollout
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
