"""What pipelines.yaml says. What it means: `certrail.pipelines.resolved`.

The pydantic models are the file: `docs/pipelines.schema.json` and the tables of the documentation
are made from their fields and descriptions. They are generic over the target, so that the issuer,
which deploys nothing, needs no kinds.
"""

from __future__ import annotations

import re
import ssl
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from certrail.keys import KeyType
from certrail.pipelines.domains import NAMES_LIMIT, normalise
from certrail.pipelines.entry import Entry, Filled, Lead, OneOrMore, SecretArn, as_list
from certrail.pipelines.waves import WaveEntry
from certrail.pipelines.zones import AnyZone
from certrail.target import Region, Rotation, Wrong

T = TypeVar("T")

# For who has no business with targets: `Pipelines[Opaque]` takes any mapping as one.
Opaque = dict[str, Any]

# A pipeline's name is part of object keys, tags and queue groups; an issuer's of object keys; an
# account's of addresses, where `:` and `/` separate.
PIPELINE_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_][A-Za-z0-9._-]*")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NAME_LIMIT = 100
EMAIL = re.compile(r"[^@\s,;<>:]+@[^@\s,;<>:]+\.[^@\s,;<>:]+", re.ASCII)
CERTIFICATE_ARN = re.compile(
    r"arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[\w-]+", re.ASCII
)
ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+", re.ASCII)
# docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)

# The issuer of who brings certificates of his own: an entry of `issuers` cannot be called that.
INCOMING = "incoming"


def _pipeline_name(text: str) -> str:
    if not PIPELINE_NAME.fullmatch(text) or len(text) > NAME_LIMIT:
        raise Wrong(
            f"`{text}` cannot name a pipeline",
            f"up to {NAME_LIMIT} letters, digits, `.`, `-` and `_`; `*.` only in front",
        )
    return text


def _name(text: str) -> str:
    if not NAME.fullmatch(text) or len(text) > NAME_LIMIT:
        raise Wrong(
            f"`{text}` cannot be a name here",
            f"up to {NAME_LIMIT} letters, digits, `.`, `-` and `_`, a letter or digit in front",
        )
    return text


def _directory(text: str) -> str:
    try:
        url = urlsplit(text)
        https = url.scheme == "https" and bool(url.hostname)
    except ValueError:
        https = False
    if not https or text != text.strip():
        raise Wrong(
            f"`{text}` is not an https URL",
            "give the CA's directory, like `https://acme-v02.api.letsencrypt.org/directory`",
        )
    return text


def _email(text: str) -> str:
    bare = text.removeprefix("mailto:").strip()
    if not EMAIL.fullmatch(text):
        raise Wrong(
            f"`{text}` is not an e-mail address",
            f"write `{bare}`" if EMAIL.fullmatch(bare) else "one address, like `ops@example.com`",
        )
    return text


def _role(text: str) -> str:
    if not ROLE.fullmatch(text):
        raise Wrong(
            f"`{text}` is not the ARN of a role",
            "it looks like `arn:aws:iam::222222222222:role/certrail`",
        )
    return text


def _external_id(text: str) -> str:
    if not EXTERNAL_ID.fullmatch(text):
        raise Wrong(
            f"`{text}` cannot be an external id",
            "2 to 1224 letters, digits and `+=,.@:/-_`, as in the role's trust policy",
        )
    return text


def _certificate_arn(text: str) -> str:
    if not CERTIFICATE_ARN.fullmatch(text):
        raise Wrong(
            f"`{text}` is not the ARN of a certificate in ACM",
            "it looks like `arn:aws:acm:us-east-1:111111111111:certificate/…`",
        )
    return text


def _root(text: str) -> str:
    return _certificate("root", text)


def _trust(text: str) -> str:
    return _certificate("trust", text)


def _certificate(key: str, text: str) -> str:
    try:
        # What the client that has to believe it reads it with.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError, TypeError):
        raise Wrong(
            "this is no certificate in PEM",
            f"write `{key}: |` and below it the certificate, from `-----BEGIN CERTIFICATE-----` on",
        ) from None
    return text


Name = Annotated[str, AfterValidator(_name)]
Domain = Annotated[str, AfterValidator(normalise)]
Issuers = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(as_list), OneOrMore()]
KeyTypes = Annotated[
    tuple[KeyType, ...], Field(min_length=1), BeforeValidator(as_list), OneOrMore()
]


class Validation(StrEnum):
    """How control over a name is proved."""

    DNS_01 = "dns-01"
    DNS_PERSIST_01 = "dns-persist-01"


class ExternalAccount(Entry):
    """The account at the CA's own site that the ACME account is bound to (RFC 8555, 7.3.4)."""

    key_id: Filled = Field(description="Key id that the CA gave you.", examples=["kid-1"])
    secret: SecretArn = Field(
        description="ARN of the secret or parameter that holds the MAC key, in base64url, as the "
        "CA gave it to you.",
        examples=["arn:aws:secretsmanager:eu-central-1:111111111111:secret:zerossl-AbCdEf"],
    )


class LimitsEntry(Entry):
    """Limits of the CA that were raised for your account."""

    orders: int | None = Field(
        default=None, ge=1, description="New orders of the account in three hours."
    )
    certificates: int | None = Field(
        default=None, ge=1, description="Certificates of a registered domain in seven days."
    )


class IssuerEntry(Entry):
    """A CA and the account certrail has there."""

    ca: (
        Literal[
            "letsencrypt",
            "letsencrypt-staging",
            "zerossl",
            "google",
            "sslcom-ecc",
            "sslcom-rsa",
            "actalis",
            "aws-acm",
        ]
        | None
    ) = Field(
        default=None,
        description="A CA that certrail knows. `aws-acm` needs the `directory` of your endpoint, "
        "the others have theirs.",
        examples=["letsencrypt"],
    )
    directory: Annotated[str, AfterValidator(_directory)] | None = Field(
        default=None,
        description="URL of the ACME directory of any other CA.",
        examples=["https://ca.corp.example/acme/directory"],
    )
    root: Annotated[str, AfterValidator(_root)] | None = Field(
        default=None,
        description="Certificate, in PEM, that the directory's own TLS certificate chains to, for "
        "a CA of your own; left out, the public roots.",
    )
    trust: Annotated[str, AfterValidator(_trust)] | None = Field(
        default=None,
        description="Root, in PEM, that your clients trust for the certificates of a CA of your "
        "own: whether they are served is checked with it; left out, the public roots.",
    )
    email: Annotated[str, AfterValidator(_email)] | None = Field(
        default=None,
        description="Contact of the ACME account, for CAs that write to it.",
        examples=["ops@example.com"],
    )
    external_account: ExternalAccount | None = Field(
        default=None,
        description="Binds the ACME account to yours at the CA. ZeroSSL, Google, SSL.com, Actalis "
        "and AWS want it.",
    )
    profile: Filled | None = Field(
        default=None,
        description="Profile of the CA to order with; left out, the CA chooses.",
        examples=["tlsserver"],
    )
    key_type: KeyType | None = Field(
        default=None,
        description="Key of the certificates from this issuer, before `defaults.key_type`.",
    )
    preferred_chain: Filled | None = Field(
        default=None,
        description="Common name of the root, or of any issuer, in the chain to take where the CA "
        "offers several; left out or not offered, the CA's first.",
        examples=["ISRG Root X1"],
    )
    validation: Validation = Field(
        default=Validation.DNS_01,
        description="How names are proved. `dns-persist-01` writes no records: you set one for "
        "each domain, once (`certrail account records`). A draft that few CAs offer.",
    )
    limits: LimitsEntry | None = Field(
        default=None, description="Limits of the CA that were raised for your account."
    )


class Account(Entry):
    """Another AWS account, and the role to assume there."""

    role_arn: Annotated[str, AfterValidator(_role)] = Field(
        description="Role that deployers and issuer assume there.",
        examples=["arn:aws:iam::222222222222:role/certrail"],
    )
    external_id: Annotated[str, AfterValidator(_external_id)] | None = Field(
        default=None, description="External id that the role's trust policy asks for."
    )


class Defaults(Entry):
    """What a pipeline or target leaves out."""

    issuer: Issuers | None = Field(
        default=None,
        description="Issuer of pipelines that name none, or several in the order to try them. Not "
        "needed where there is only one.",
        examples=["letsencrypt"],
    )
    region: Region | None = Field(
        default=None,
        description="Region of targets that name none.",
        examples=["eu-central-1"],
    )
    key_type: KeyType | None = Field(
        default=None,
        description=f"Key of certificates where neither pipeline nor issuer says; left out, "
        f"`{KeyType.ECDSA_P256}`.",
    )
    rotation: Rotation = Field(
        default=Rotation.IN_PLACE, description="Of pipelines that say nothing about it."
    )
    waves: tuple[WaveEntry, ...] = Field(
        default=(), description="Of pipelines that say nothing about them."
    )


class Incoming(Entry):
    """How certificates come in that somebody else issued."""

    certificate_arn: Annotated[str, AfterValidator(_certificate_arn)] | None = Field(
        default=None,
        description="An exportable certificate of ACM in this account: it is exported whenever ACM "
        "has renewed it. Left out, bundles are looked for under `incoming/` in the bucket.",
        examples=["arn:aws:acm:us-east-1:111111111111:certificate/0a1b2c3d"],
    )
    password_secret: SecretArn | None = Field(
        default=None,
        description="ARN of the secret or parameter with the password of the PKCS#12 files; left "
        "out, they have none.",
        examples=["arn:aws:secretsmanager:eu-central-1:111111111111:secret:p12-AbCdEf"],
    )
    trust: Annotated[str, AfterValidator(_trust)] | None = Field(
        default=None,
        description="Root, in PEM, that your clients trust for these certificates: whether they "
        "are served is checked with it; left out, the public roots.",
    )


class PipelineEntry(Entry, Generic[T]):
    """One certificate and the places it goes to."""

    name: Annotated[str, AfterValidator(_pipeline_name)] = Field(
        description="Names the certificate in the bucket, in commands and in logs. To rename is to "
        "start anew.",
        examples=["shop"],
    )
    domains: tuple[Domain, ...] = Field(
        min_length=1,
        max_length=NAMES_LIMIT,
        description=f"Names of the certificate, 1 to {NAMES_LIMIT}; `*.` in front stands for any "
        "one label. Names with other letters than a-z may be written as they are read.",
        examples=[["shop.example.com"]],
    )
    issuer: Issuers | None = Field(
        default=None,
        description="Name of an entry of `issuers`, or several: the next is tried where one is "
        "down or refuses. Left out, `defaults.issuer`, or the only one. `incoming` where somebody "
        "else issues, and puts what he gets into the bucket.",
        examples=["letsencrypt"],
    )
    incoming: Incoming | None = Field(
        default=None, description="How it comes in, with `issuer: incoming`."
    )
    key_type: KeyTypes | None = Field(
        default=None,
        description=f"Key of the certificate; left out, the issuer's, then `defaults.key_type`, "
        f"then `{KeyType.ECDSA_P256}`. Of several, each gets a certificate of its own, and a "
        "target says with `key_type` which one it wants, if not the first.",
    )
    profile: Filled | None = Field(
        default=None,
        description="Profile of the CA to order with; left out, the issuer's.",
        examples=["tlsserver"],
    )
    renew_before: Lead | None = Field(
        default=None,
        description="How long before its end the certificate is renewed, where the CA does not say "
        "when (RFC 9773); left out, with a third of its life left, half of one under ten days. "
        "With `issuer: incoming`, how long before it the next one should be there: it is told "
        "where it is not; left out, with an eighth of its life left.",
        examples=["20d"],
    )
    rotation: Rotation | None = Field(
        default=None,
        description="`in-place` imports a renewal into ACM under the ARN that is there, and "
        "whatever uses it goes on; where AWS does not allow it, and always with `replace`, it gets "
        "a new ARN, and what used the old one is made to point to it. Left out, "
        "`defaults.rotation`.",
    )
    waves: tuple[WaveEntry, ...] | None = Field(
        default=None,
        description="In which order the targets get a new certificate, which say with `wave` to "
        "which they belong; left out, `defaults.waves`, and without those all at once.",
    )
    targets: tuple[T, ...] = Field(
        default=(),
        description="Where the certificate goes: targets by their address, and selections, which "
        "find some. Without targets it is kept in the bucket only.",
    )


class PipelinesFile(Entry, Generic[T]):
    """pipelines.yaml, whole."""

    issuers: dict[Name, IssuerEntry] = Field(
        default={},
        description="The CAs certificates come from, by a name of your choice. Needed unless all "
        "of them come from elsewhere, with `issuer: incoming`.",
    )
    accounts: dict[Name, Account] = Field(
        default={},
        description="Other AWS accounts to deploy to or with DNS zones, by a name of your choice.",
    )
    zones: tuple[AnyZone, ...] = Field(
        default=(),
        description="Domains whose challenge records are not written to Route 53 in the account "
        "certrail runs in.",
    )
    defaults: Defaults = Field(
        default=Defaults(), description="What holds where a pipeline or a target says nothing."
    )
    pipelines: tuple[PipelineEntry[T], ...] = Field(
        min_length=1, description="The certificates, each with its targets."
    )
