"""Route 53: hosted zones and the records in them."""

import re
from collections.abc import Mapping
from typing import Any

from sandbox.authorization.request import last, modelled, request_context
from sandbox.calls import Call
from sandbox.policies import Need

WHOLE = {
    "CreateHostedZone",
    "GetHostedZoneCount",
    "ListHostedZones",
    "ListHostedZonesByName",
}
ZONE = {
    "ChangeResourceRecordSets": "HostedZoneId",
    "DeleteHostedZone": "Id",
    "GetHostedZone": "Id",
    "ListResourceRecordSets": "HostedZoneId",
    "ListTagsForResource": "ResourceId",
}


def needs(call: Call, params: Mapping[str, Any]) -> list[Need]:
    context = request_context(call)
    if call.operation in WHOLE:
        return [Need(call.action, "*", context)]
    if call.operation == "GetChange":
        change = last(params.get("Id", ""))
        return [Need(call.action, f"arn:aws:route53:::change/{change}", context)]
    modelled(call, set(ZONE))
    zone = last(params.get(ZONE[call.operation], ""))
    changes = params.get("ChangeBatch", {}).get("Changes", [])
    if changes:
        sets = [change["ResourceRecordSet"] for change in changes]
        kind = "route53:ChangeResourceRecordSets"
        context[f"{kind}NormalizedRecordNames"] = tuple(_normalized(s["Name"]) for s in sets)
        context[f"{kind}RecordTypes"] = tuple(s["Type"] for s in sets)
        context[f"{kind}Actions"] = tuple(change["Action"] for change in changes)
    return [Need(call.action, f"arn:aws:route53:::hostedzone/{zone}", context)]


def _normalized(name: str) -> str:
    """Lower case, no dot at the end, anything unusual as an octal escape.

    https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/specifying-rrset-conditions.html
    """
    plain = name.lower().removesuffix(".")
    return re.sub(r"[^a-z0-9._\\-]", lambda found: f"\\{ord(found[0]):03o}", plain)
