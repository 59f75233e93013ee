"""KMS keys that a service uses in a deployer's name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from certrail.grants import Conditions, Grant, Scope


def grants(
    service: str,
    actions: tuple[str, ...],
    keys: Iterable[tuple[str, str]],
    scope: Scope,
    everywhere: Sequence[str],
) -> Iterator[Grant]:
    """Keys, each an id, ARN or alias and its region, used through the service only. By its alias a
    key is no resource for a policy; it can be asked for the aliases it has.

    https://docs.aws.amazon.com/kms/latest/developerguide/alias-authorization.html
    """
    arns = {(scope.arn("kms", region, "key/*"), region) for region in everywhere}
    aliases = set()
    for key, region in keys:
        if alias := re.search("alias/.+", key):
            aliases.add((alias[0], region))
        else:
            arn = key if ":" in key else scope.arn("kms", region, f"key/{key}")
            arns.add((arn, region))
    if arns:
        named, regions = zip(*sorted(arns), strict=True)
        yield Grant("UseKeys", actions, named, _through(service, regions))
    if aliases:
        named, regions = zip(*sorted(aliases), strict=True)
        yield Grant(
            "UseKeysByAlias",
            actions,
            tuple(scope.arn("kms", region, "key/*") for region in sorted(set(regions))),
            {
                **_through(service, regions),
                "ForAnyValue:StringEquals": {"kms:ResourceAliases": named},
            },
        )


def _through(service: str, regions: Iterable[str]) -> Conditions:
    services = (f"{service}.{region}.amazonaws.com" for region in sorted(set(regions)))
    return {"StringLike": {"kms:ViaService": tuple(services)}}


def same_key(wanted: str, present: str | None) -> bool:
    """The file may say `alias/tls` or an id, where AWS answers with the ARN."""
    return present is not None and (
        present == wanted or present.endswith((f":{wanted}", f"/{wanted}"))
    )
