"""What follows from a look: a target's next record, a pure function of what was seen and the time.

`looked`: from what clients got at its endpoints. `asked`: from what its machines said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from certrail.bundle import short
from certrail.records import Check, Record, State
from certrail.store import Current
from certrail.target import Endpoint, Node
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
HOUR = timedelta(hours=1)
# One look that shows something else than the last is not believed: so long it must stay so.
GRACE = timedelta(minutes=10)
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
SILENT = "said nothing of it yet"
NOT_SHOWN = "Look at what else serves these names there; a certificate that fits better wins"


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


def looked(
    record: Record,
    previous: str | None,
    seen: Mapping[Endpoint, Sequence[Seen]],
    now: datetime,
) -> Record:
    """The record after a look. previous: fingerprint of the pipeline's bundle before this one.
    seen: at each of its endpoints, after `now`.

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
    ours = {record.before, record.good, previous}
    strange = [each for each in other if each.believed and each.fingerprint not in ours]
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
        shadowed=bool(strange) and not wrong and len(strange) == len(other),
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
    # Where machines come and go, there is nearly always one that has not got to it yet, or where
    # what is to serve it is not even installed. It tries again twice within the hour.
    came = _came(check, nodes, now)
    young = [each for each in here if each.id in came]
    late = [each for each in here if each not in young]
    failed = [each for each in late if each.error]
    silent = [each for each in late if not each.error]
    check = replace(
        check,
        looks=check.looks + 1,
        saw=_said_by(len(nodes), failed, silent, away),
        reached=bool(serve or late),
        nodes={each.id: _outcome(each, record) for each in nodes},
        came=came,
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
        said.append(f"{_ids(silent)} {SILENT}")
    if away:
        said.append(f"offline: {_ids(away)}")
    return "; ".join(said)


def _ids(nodes: Sequence[Node]) -> str:
    more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
    return ", ".join(each.id for each in nodes[:NAMED]) + more


def _serves(node: Node, record: Record) -> bool:
    return node.fingerprint == record.fingerprint and not node.error


def _came(check: Check, nodes: Sequence[Node], now: datetime) -> dict[str, datetime]:
    """When each was seen first of those that came within the hour. What was there at the first look
    is nothing new."""
    if not check.nodes and not check.looks:
        return {}
    first = {
        each.id: check.came.get(each.id, now)
        for each in nodes
        if each.id in check.came or each.id not in check.nodes
    }
    return {id: since for id, since in first.items() if since > now - HOUR}


def _outcome(node: Node, record: Record) -> str:
    if _serves(node, record):
        return "serves it"
    had = f"; has {short(node.fingerprint)}" if node.fingerprint else ""
    if not node.online:
        return f"offline{had}"
    return (f"failed: {node.error}" if node.error else SILENT) + had
