"""What pipelines.yaml says, and what it means.

The pydantic models are the file: `docs/pipelines.schema.json` and the tables of the documentation
are made from their fields and descriptions. `Pipelines` and `Pipeline` are what the rest of
certrail works with: every default is filled in.

Both are generic over the target, so that the issuer, which deploys nothing, needs no kinds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from certrail.keys import KeyType
from certrail.pipelines.domains import NAMES_LIMIT, normalise
from certrail.target import Region, Wrong

T = TypeVar("T")

# For who has no business with targets: `Pipelines[Opaque]` takes any mapping as one.
Opaque = dict[str, Any]

# A pipeline's name is part of object keys, tags and queue groups; an issuer's of object keys; an
# account's of addresses, where `:` and `/` separate.
PIPELINE_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_][A-Za-z0-9._-]*")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NAME_LIMIT = 100
EMAIL = re.compile(r"[^@\s,;<>:]+@[^@\s,;<>:]+\.[^@\s,;<>:]+", re.ASCII)
ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+", re.ASCII)
# docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)


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


def _filled(text: str) -> str:
    if not text.strip():
        raise Wrong("the value is empty", "give it a value, or remove the key")
    return text


Name = Annotated[str, AfterValidator(_name)]
Domain = Annotated[str, AfterValidator(normalise)]
Filled = Annotated[str, AfterValidator(_filled)]


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def model_parametrized_name(cls, params: tuple[type[Any], ...]) -> str:
        """The schema calls it the same whatever the targets are."""
        return cls.__name__


class Issuer(Entry):
    """A CA and the account certrail has there."""

    directory: Annotated[str, AfterValidator(_directory)] = Field(
        description="URL of the CA's ACME directory.",
        examples=["https://acme-v02.api.letsencrypt.org/directory"],
    )
    email: Annotated[str, AfterValidator(_email)] | None = Field(
        default=None,
        description="Contact of the ACME account, for CAs that write to it.",
        examples=["ops@example.com"],
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


class Account(Entry):
    """Another AWS account, and the role to assume there."""

    role_arn: Annotated[str, AfterValidator(_role)] = Field(
        description="Role that the deployers assume there.",
        examples=["arn:aws:iam::222222222222:role/certrail"],
    )
    external_id: Annotated[str, AfterValidator(_external_id)] | None = Field(
        default=None, description="External id that the role's trust policy asks for."
    )


class Defaults(Entry):
    """What a pipeline or target leaves out."""

    issuer: str | None = Field(
        default=None,
        description="Issuer of pipelines that name none. Not needed where there is only one.",
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
    issuer: str | None = Field(
        default=None,
        description="Name of an entry of `issuers`; left out, `defaults.issuer`, or the only one.",
        examples=["letsencrypt"],
    )
    key_type: KeyType | None = Field(
        default=None,
        description=f"Key of the certificate; left out, the issuer's, then `defaults.key_type`, "
        f"then `{KeyType.ECDSA_P256}`.",
    )
    profile: Filled | None = Field(
        default=None,
        description="Profile of the CA to order with; left out, the issuer's.",
        examples=["tlsserver"],
    )
    targets: tuple[T, ...] = Field(
        default=(),
        description="Where the certificate goes. Without targets it is kept in the bucket only.",
    )


class PipelinesFile(Entry, Generic[T]):
    """pipelines.yaml, whole."""

    issuers: dict[Name, Issuer] = Field(
        min_length=1, description="The CAs certificates come from, by a name of your choice."
    )
    accounts: dict[Name, Account] = Field(
        default={}, description="Other AWS accounts to deploy to, by a name of your choice."
    )
    defaults: Defaults = Field(
        default=Defaults(), description="What holds where a pipeline or a target says nothing."
    )
    pipelines: tuple[PipelineEntry[T], ...] = Field(
        min_length=1, description="The certificates, each with its targets."
    )


@dataclass(frozen=True)
class Pipeline(Generic[T]):
    """One certificate and its targets, with every default filled in.

    domains: lower case, A-labels, in the order of the file.
    issuer: `issuer_name` is its key in `issuers` and in the bucket.
    profile: of the CA; None leaves the choice to it.
    """

    name: str
    domains: tuple[str, ...]
    issuer_name: str
    issuer: Issuer
    key_type: KeyType
    profile: str | None
    targets: tuple[T, ...]


@dataclass(frozen=True)
class Pipelines(Generic[T]):
    """The file as it is meant. Iterate `pipelines`, in the order of the file."""

    issuers: Mapping[str, Issuer]
    accounts: Mapping[str, Account]
    pipelines: tuple[Pipeline[T], ...]

    def named(self, name: str) -> Pipeline[T] | None:
        """The pipeline of that name, None where the file has none (any more)."""
        return next((pipeline for pipeline in self.pipelines if pipeline.name == name), None)


def resolve(file: PipelinesFile[T]) -> Pipelines[T]:
    """Fill in the defaults of a file without faults."""
    defaults = file.defaults
    return Pipelines(
        issuers=file.issuers,
        accounts=file.accounts,
        pipelines=tuple(
            Pipeline(
                name=entry.name,
                domains=entry.domains,
                issuer_name=(name := issuer_name(entry.issuer, defaults.issuer, file.issuers)),
                issuer=(issuer := file.issuers[name]),
                key_type=key_type(entry.key_type, issuer.key_type, defaults.key_type),
                profile=entry.profile or issuer.profile,
                targets=entry.targets,
            )
            for entry in file.pipelines
        ),
    )


def issuer_name(own: str | None, default: str | None, issuers: Mapping[str, object]) -> str:
    """The issuer of a pipeline. Raises Wrong where nothing decides."""
    if name := own or default:
        return name
    if len(issuers) == 1:
        return next(iter(issuers))
    raise Wrong(
        f"there are {len(issuers)} issuers, and nothing says which one to use",
        "add `issuer:` here, or set `defaults.issuer` for all",
    )


def key_type(own: KeyType | None, issuer: KeyType | None, default: KeyType | None) -> KeyType:
    return own or issuer or default or KeyType.ECDSA_P256
