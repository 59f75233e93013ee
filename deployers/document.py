"""The document: what is pushed to who reads certificate and key itself, and the shapes it takes.

One document, written in one call: a reader never sees a certificate with another one's key.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator

from certrail.bundle import Bundle
from certrail.errors import TargetRefused
from certrail.secret import Secret
from certrail.target import Wrong

# What `shape` is tried on when the file is read, so that a wrong one is found there.
SPECIMEN: dict[str, Any] = {
    "certificate": "-----BEGIN CERTIFICATE-----",
    "chain": "-----BEGIN CERTIFICATE-----",
    "fullchain": "-----BEGIN CERTIFICATE-----",
    "private_key": "-----BEGIN PRIVATE KEY-----",
    "fingerprint": "0" * 64,
    "not_before": "2026-01-01T00:00:00Z",
    "not_after": "2026-04-01T00:00:00Z",
    "domains": ["example.com"],
    "serial": "1",
    "issuer": "CN=Example",
}
FIELDS = f"the document has {', '.join(SPECIMEN)}"


def _shape(text: str) -> str:
    try:
        value = jmespath.search(text, SPECIMEN)
    except JMESPathError as error:
        reason = str(error).splitlines()[0].removeprefix("Invalid jmespath expression: ")
        raise Wrong(
            f"`{text}` is not a JMESPath expression for the document ({reason.rstrip(':')})", FIELDS
        ) from None
    if value is None or not isinstance(value, dict | str):
        raise Wrong(f"`{text}` makes neither an object nor a text", FIELDS)
    if isinstance(value, dict) and (empty := [key for key in value if value[key] is None]):
        raise Wrong(f"`{text}` finds nothing for `{'`, `'.join(empty)}`", FIELDS)
    return text


# As a target's field: the JMESPath expression that makes the value from the document.
Shape = Annotated[str, AfterValidator(_shape)]


def document(bundle: Bundle) -> dict[str, Any]:
    """What a shape is applied to. Only what the bundle itself says: the same bundle always gives
    the same bytes, and so the same version."""
    facts = bundle.facts
    return {
        "certificate": bundle.certificate,
        "chain": bundle.chain,
        "fullchain": bundle.fullchain,
        "private_key": bundle.private_key.reveal(),
        "fingerprint": facts.fingerprint,
        "not_before": stamp(facts.not_before),
        "not_after": stamp(facts.not_after),
        "domains": list(facts.domains),
        "serial": facts.serial,
        "issuer": facts.issuer,
    }


def shaped(
    bundle: Bundle, shape: str | None, *, limit: int, where: str, instead: str = ""
) -> Secret:
    """The value itself: JSON, or the text that the shape makes. limit: in bytes, of the service.
    where, instead: the target's address, and what else it could do, for the error. Raises
    TargetRefused."""
    value: Any = document(bundle)
    if shape:
        try:
            value = jmespath.search(shape, value)
        except JMESPathError as error:
            # Its text may quote what it was applied to: the private key.
            raise TargetRefused(
                f"`shape` cannot be applied to the document ({type(error).__name__})",
                where=where,
                next="The document's fields are in docs/targets/secretsmanager.md",
            ) from None
    if not isinstance(value, dict | str) or not value:
        raise TargetRefused(
            f"`shape` makes {type(value).__name__}, not an object or a text",
            where=where,
            next="The document's fields are in docs/targets/secretsmanager.md",
        )
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if (size := len(text.encode())) > limit:
        raise TargetRefused(
            f"the value has {size:,} bytes, and AWS takes {limit:,}",
            where=where,
            next="Leave out with `shape` what no reader needs: "
            f"`{{crt: fullchain, key: private_key}}` has each certificate once{instead}",
        )
    return Secret(text)


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
