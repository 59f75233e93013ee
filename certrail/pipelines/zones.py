"""`zones` of pipelines.yaml: where the challenge records of a domain are written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from certrail.pipelines.domains import normalise
from certrail.pipelines.entry import Entry, Filled, SecretArn
from certrail.target import Wrong


def _zone(text: str) -> str:
    if text.startswith("*."):
        raise Wrong(f"`{text}`: a zone stands for all names below it", f"write `{text[2:]}`")
    front, _, rest = text.partition(".")
    if front.startswith("_") and rest:
        # `_acme-challenge.example.com` is often a zone of its own.
        return f"{front.lower()}.{_zone(rest)}"
    return normalise(text)


ZoneName = Annotated[str, AfterValidator(_zone)]
SECRET = ["arn:aws:secretsmanager:eu-central-1:111111111111:secret:dns-AbCdEf"]


class ZoneEntry(Entry):
    """A domain, and how records are written there."""

    provider: str
    zone: ZoneName = Field(
        description="The domain this entry is about, with all names below it. Of several entries "
        "the longest counts. A name whose `_acme-challenge` is a CNAME is where that points to.",
        examples=["example.com"],
    )


class Route53Zone(ZoneEntry):
    """Zones in another account, or a zone chosen by its id."""

    provider: Literal["route53"] = Field(description="Amazon Route 53.")
    account: str | None = Field(
        default=None,
        description="Name of an entry of `accounts`, whose role writes there; left out, the "
        "account certrail runs in.",
    )
    zone_id: Annotated[str, Field(pattern=r"^Z[A-Z0-9]{1,31}$")] | None = Field(
        default=None,
        description="Id of the hosted zone; left out, the public one with the longest name.",
        examples=["Z0123456789EXAMPLE"],
    )


class Rfc2136Zone(ZoneEntry):
    """Zones of a name server that takes dynamic updates (RFC 2136), signed with TSIG (RFC 8945)."""

    provider: Literal["rfc2136"] = Field(description="Dynamic updates (RFC 2136).")
    server: Filled = Field(
        description="Host name or address of the primary name server, with `:port` where it is "
        "not 53.",
        examples=["ns1.example.com"],
    )
    key_name: Filled = Field(
        description="Name of the TSIG key, as the server knows it.", examples=["certrail."]
    )
    key_algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = Field(
        default="hmac-sha256", description="Algorithm of the key; left out, `hmac-sha256`."
    )
    key_secret: SecretArn = Field(
        description="ARN of the secret or parameter that holds the key, in base64.",
        examples=SECRET,
    )


class LexiconZone(ZoneEntry):
    """Zones of any provider of the package dns-lexicon."""

    provider: Literal["lexicon"] = Field(description="A provider of dns-lexicon.")
    name: Filled = Field(description="The provider's name in dns-lexicon.", examples=["cloudflare"])
    credentials: SecretArn = Field(
        description="ARN of the secret or parameter that holds the provider's options as one JSON "
        'object, like `{"auth_token": "…"}`.',
        examples=SECRET,
    )


# By the `provider` they have in the file.
ZONES: dict[str, type[ZoneEntry]] = {
    "route53": Route53Zone,
    "rfc2136": Rfc2136Zone,
    "lexicon": LexiconZone,
}

AnyZone = Annotated[Route53Zone | Rfc2136Zone | LexiconZone, Field(discriminator="provider")]


def zone_of(name: str, zones: tuple[Any, ...]) -> Any | None:
    """The entry with the longest domain that `name` is, or is below; None where there is none."""
    around = [each for each in zones if name == each.zone or name.endswith(f".{each.zone}")]
    return max(around, key=lambda each: len(each.zone), default=None)
