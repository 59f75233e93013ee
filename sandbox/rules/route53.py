"""Route 53: what ChangeResourceRecordSets enforces, and when a change is in sync.

Sources:
  change   https://docs.aws.amazon.com/Route53/latest/APIReference/API_ChangeResourceRecordSets.html
  zone     https://docs.aws.amazon.com/Route53/latest/APIReference/API_CreateHostedZone.html
  get      https://docs.aws.amazon.com/Route53/latest/APIReference/API_GetChange.html
  list     https://docs.aws.amazon.com/Route53/latest/APIReference/API_ListResourceRecordSets.html
  types    https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/ResourceRecordTypes.html
  routing  https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/routing-policy-multivalue.html
  limits   https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/DNSLimitations.html

Not as AWS: names come back as they were sent, `*` not as `\\052`.
"""

import re
from collections.abc import Callable, Iterable
from threading import RLock
from typing import Any, cast

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.moto_api._internal import mock_random
from moto.route53.exceptions import (
    InvalidActionValue,
    InvalidInput,
    Route53ClientError,
)
from moto.route53.models import FakeZone, RecordSet, Route53Backend
from moto.route53.responses import Route53
from moto.route53.utils import validate_domain_name

CHANGES = 1000
PAGE = 300
ROUTING = ("weight", "region", "failover", "geo_location", "multi_value_answer")
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"(?:\s+"(?:[^"\\]|\\.)*")*')
CHARACTER_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
CHARACTER_STRING_BYTES = 255

_one_at_a_time = RLock()


class Propagation:
    """Which changes are still PENDING.

    Get: a change is PENDING until it has propagated to all Route 53 name servers, then INSYNC
    ("generally within 60 seconds"). Here it is PENDING for the first `polls` calls of GetChange.
    """

    def __init__(self, polls: int = 1) -> None:
        self.polls = polls
        self._asked: dict[str, int] = {}
        self._submitted: dict[str, Any] = {}

    def submit(self) -> dict[str, Any]:
        """A ChangeInfo for a change made now."""
        change = f"C{mock_random.get_random_string(length=20).upper()}"
        self._asked[change] = 0
        self._submitted[change] = utcnow()
        return self._info(change, "PENDING")

    def poll(self, change: str) -> dict[str, Any]:
        if change not in self._asked:
            raise Route53ClientError("NoSuchChange", f"Could not find resource with ID: {change}")
        self._asked[change] += 1
        return self._info(change, "PENDING" if self._asked[change] <= self.polls else "INSYNC")

    def _info(self, change: str, status: str) -> dict[str, Any]:
        return {
            "Id": f"/change/{change}",
            "Status": status,
            "SubmittedAt": self._submitted[change],
        }


propagation = Propagation()


class InvalidChangeBatch(Route53ClientError):
    def __init__(self, *problems: str) -> None:
        super().__init__("InvalidChangeBatch", f"[{', '.join(problems)}]")


# One record set.


def canonical(name: str) -> str:
    return name.lower().rstrip(".") + "."


def described(record: RecordSet) -> str:
    return f"[name='{record.name}', type='{record.type}'{identified(record)}]"


def identified(record: RecordSet) -> str:
    return f", set-identifier='{record.set_identifier}'" if record.set_identifier else ""


def place(record: RecordSet) -> tuple[str, Any, Any]:
    """What makes a record set that one and no other."""
    return canonical(record.name), record.type, record.set_identifier


def content(record: RecordSet) -> dict[str, Any]:
    return {
        "values": sorted(record.records or ()),
        "ttl": None if record.ttl is None else int(record.ttl),
        "alias": record.alias_target,
        "health": record.health_check_id,
        **{each: getattr(record, each) for each in ROUTING},
    }


def policy(record: RecordSet) -> str | None:
    """The record set's routing policy; None is simple routing."""
    return next((each for each in ROUTING if getattr(record, each) not in (None, "", False)), None)


def parse(submitted: dict[str, Any]) -> RecordSet:
    values = [each["Value"] for each in submitted.get("ResourceRecords") or []]
    # moto leaves two CloudFormation methods of this class abstract that it never calls.
    return RecordSet(  # type: ignore[abstract]
        {**submitted, "Name": canonical(submitted["Name"]), "ResourceRecords": values}
    )


# The rules for one record set by itself.


def complete(action: str, record: RecordSet) -> None:
    """Change: TTL and ResourceRecords or an AliasTarget; a routing policy and a SetIdentifier."""
    where = (
        f"Change with [Action={action}, Name={record.name}, Type={record.type}, "
        f"SetIdentifier={record.set_identifier or 'null'}]"
    )
    if not record.alias_target and (record.ttl is None or not record.records):
        raise InvalidInput(
            "Invalid request: Expected exactly one of [AliasTarget, all of [TTL, and "
            f"ResourceRecords], or TrafficPolicyInstanceId], but found none in {where}"
        )
    if policy(record) and not record.set_identifier:
        raise InvalidInput(f"Invalid request: Missing field 'SetIdentifier' in {where}")
    if record.set_identifier and not policy(record):
        raise InvalidInput(
            "Invalid request: Expected exactly one of [Weight, Region, Failover, GeoLocation, or "
            f"MultiValueAnswer], but found none in {where}"
        )


def inside_zone(record: RecordSet, zone: FakeZone) -> Iterable[str]:
    """Change: the name is the zone's own or ends in a dot and the zone's name."""
    zone_name = canonical(zone.name)
    if record.name != zone_name and not record.name.endswith("." + zone_name):
        yield f"RRSet with DNS name {record.name} is not permitted in zone {zone_name}"


def quoted_text(record: RecordSet) -> Iterable[str]:
    """Types: TXT values are strings in quotation marks, each of at most 255 characters."""
    if record.type != "TXT":
        return
    for value in record.records or ():
        if not QUOTED.fullmatch(value):
            yield (
                "Invalid Resource Record: 'FATAL problem: InvalidCharacterString (Value should be "
                f"enclosed in quotation marks) encountered with '{value}''"
            )
        elif any(len(each) > CHARACTER_STRING_BYTES for each in CHARACTER_STRING.findall(value)):
            yield (
                "Invalid Resource Record: 'FATAL problem: CharacterStringTooLong (Value is too "
                f"long) encountered with '{value}''"
            )


def distinct_values(record: RecordSet) -> Iterable[str]:
    """A record set holds each value once."""
    values = record.records or []
    for value in sorted({each for each in values if values.count(each) > 1}):
        yield f"Duplicate Resource Record: '{value}'"


# The rules for a record set among the others.


def cname_alone(record: RecordSet, others: list[RecordSet], zone: FakeZone) -> Iterable[str]:
    """Types: no other record set may have the name of a CNAME."""
    for other in others:
        namesake = canonical(other.name) == record.name and other.type != record.type
        if namesake and "CNAME" in (other.type, record.type):
            yield (
                f"RRSet of type {record.type} with DNS name {record.name} is not permitted "
                f"because a conflicting RRSet of type {other.type} with the same DNS name "
                f"already exists in zone {canonical(zone.name)}"
            )
            return


def same_policy(record: RecordSet, others: list[RecordSet]) -> Iterable[str]:
    """Routing: record sets of one name and type all have the same policy, or one is alone."""
    for other in others:
        if place(other)[:2] == place(record)[:2] and policy(other) != policy(record):
            yield (
                f"RRSet with DNS name {record.name}, type {record.type}, SetIdentifier "
                f"{record.set_identifier or 'null'} cannot be created as other RRSets exist "
                "with the same name and type."
            )
            return


# The batch.


def applied(
    action: str, record: RecordSet, records: list[RecordSet], zone: FakeZone
) -> tuple[list[RecordSet], list[str]]:
    """The record sets after one change, and what is wrong with it."""
    existing = next((each for each in records if place(each) == place(record)), None)
    others = [each for each in records if each is not existing]
    if action == "DELETE":
        if existing is None:
            return records, [
                f"Tried to delete resource record set {described(record)} but it was not found"
            ]
        if content(existing) != content(record):
            return records, [
                f"Tried to delete resource record set {described(record)} but the values provided "
                "do not match the current values"
            ]
        return others, []
    problems = [
        *inside_zone(record, zone),
        *quoted_text(record),
        *distinct_values(record),
        *cname_alone(record, others, zone),
        *same_policy(record, others),
    ]
    if action == "CREATE" and existing is not None:
        problems.append(
            f"Tried to create resource record set {described(record)} but it already exists"
        )
    return [*others, record], problems


def change_resource_record_sets(
    self: Route53Backend, zoneid: str, change_list: list[dict[str, Any]]
) -> None:
    """Change: "Route 53 makes all of the changes or none of the changes in a change batch"."""
    zone = self.get_hosted_zone(zoneid)
    if len(change_list) > CHANGES:
        raise InvalidChangeBatch(f"Number of records limit of {CHANGES} exceeded.")
    with _one_at_a_time:
        records, problems = list(zone.rrsets), list[str]()
        for change in change_list:
            action = change["Action"]
            if action not in ("CREATE", "UPSERT", "DELETE"):
                raise InvalidActionValue(action)
            validate_domain_name(change["ResourceRecordSet"]["Name"], code="InvalidChangeBatch")
            record = parse(change["ResourceRecordSet"])
            complete(action, record)
            records, found = applied(action, record, records, zone)
            problems += found
        if problems:
            raise InvalidChangeBatch(*problems)
        zone.rrsets = records


def record_order(record: RecordSet) -> tuple[list[str], str, str]:
    """List: by name with the labels reversed, then type, then set identifier."""
    labels = canonical(record.name).rstrip(".").split(".")[::-1]
    return labels, str(record.type), record.set_identifier or ""


def list_resource_record_sets(self: Route53) -> ActionResult:
    """List: pages of at most 300, continued by name, type and set identifier.

    moto's own pages forget the identifier, and so cut a group of multivalue record sets short.
    """
    zone = self.backend.get_hosted_zone(self._get_param("HostedZoneId"))
    name, kind, identifier = (
        self._get_param(f"StartRecord{part}") for part in ("Name", "Type", "Identifier")
    )
    if (kind and not name) or (identifier and not kind):
        raise InvalidInput("The input is not valid")
    size = min(self._get_int_param("MaxItems", PAGE), PAGE)
    records = sorted(zone.rrsets, key=record_order)
    if name:
        start = (canonical(name).rstrip(".").split(".")[::-1], kind or "", identifier or "")
        records = [each for each in records if record_order(each) >= start]
    page, rest = records[:size], records[size:]
    result = {"ResourceRecordSets": page, "IsTruncated": bool(rest), "MaxItems": size}
    if rest:
        result["NextRecordName"] = rest[0].name
        result["NextRecordType"] = rest[0].type
        result["NextRecordIdentifier"] = rest[0].set_identifier
    return ActionResult(result)


# Changes and zones.


_moto_zone = Route53Backend.create_hosted_zone


def create_hosted_zone(self: Route53Backend, *args: Any, **kwargs: Any) -> FakeZone:
    """The SOA record is a string: moto stores a structure, which reads as Python's repr. An id
    begins with Z, as in all of AWS's examples (zone)."""
    zone = _moto_zone(self, *args, **kwargs)
    del self.zones[zone.resource_id]
    zone.resource_id = f"Z{zone.resource_id[1:]}"
    self.zones[zone.resource_id] = zone
    for record in zone.rrsets:
        record.records = [
            each["Value"] if isinstance(each, dict) else each for each in record.records
        ]
    return zone


def with_change_info(moto_method: Callable[[Route53], ActionResult]) -> Callable[..., ActionResult]:
    """Answer with a change of its own instead of moto's constant, always INSYNC, id."""

    def answer(self: Route53) -> ActionResult:
        result = cast(dict[str, Any], moto_method(self).result)
        return ActionResult({**result, "ChangeInfo": propagation.submit()})

    return answer


def get_change(self: Route53) -> ActionResult:
    return ActionResult({"ChangeInfo": propagation.poll(self._get_param("Id"))})


REPLACED: dict[type, dict[str, Callable[..., Any]]] = {
    Route53Backend: {
        "change_resource_record_sets": change_resource_record_sets,
        "create_hosted_zone": create_hosted_zone,
    },
    Route53: {
        "list_resource_record_sets": list_resource_record_sets,
        "change_resource_record_sets": with_change_info(Route53.change_resource_record_sets),
        "create_hosted_zone": with_change_info(Route53.create_hosted_zone),
        "delete_hosted_zone": with_change_info(Route53.delete_hosted_zone),
        "get_change": get_change,
    },
}
