"""Kinds for the tests of the pipelines file: what the real ones are like, without AWS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from certrail.bundle import Bundle
from certrail.grants import Grant, Scope
from certrail.keys import KeyType
from certrail.pipelines import Pipelines
from certrail.target import Context, Deployed, Region, Target, Wrong, place


class Nowhere(Target):
    @classmethod
    def grants(
        cls, scope: Scope, targets: Sequence[Self] = (), everywhere: Sequence[str] = ()
    ) -> Sequence[Grant]:
        return ()

    def observe(self, context: Context) -> Deployed | None:
        return context.held

    def deploy(self, bundle: Bundle, context: Context) -> Deployed:
        return Deployed(bundle.fingerprint, self.address)


class Vault(Nowhere):
    """Like ACM: regional, shared by many."""

    type: Literal["vault"] = "vault"
    region: Region = Field(description="Region of the vault.")
    tags: dict[str, str] = Field(default={}, description="Tags of the vault.")

    @property
    def address(self) -> str:
        return f"vault/{place(self.account, self.region)}"

    @property
    def claim(self) -> None:
        return None


class Edge(Nowhere):
    """Like CloudFront: few key types, needs a vault in one region."""

    type: Literal["edge"] = "edge"
    site: str = Field(
        description="Id of the site.", pattern=r"^E[A-Z0-9]+$", examples=["E1EXAMPLE"]
    )
    default: bool = Field(default=False, description="Whether it is the default one.")

    @property
    def key_types(self) -> frozenset[KeyType]:
        return frozenset({KeyType.ECDSA_P256, KeyType.RSA_2048, KeyType.RSA_3072})

    @property
    def address(self) -> str:
        return f"edge/{self.site}"

    @property
    def needs(self) -> tuple[Target, ...]:
        return (Vault(region="us-east-1", account=self.account),)


def _box_name(text: str) -> str:
    if not re.fullmatch(r"[a-z/]+", text):
        raise Wrong(f"a box cannot be named `{text}`", "letters a-z and `/`")
    return text


class Box(Nowhere):
    """Like Secrets Manager: a name with rules, lists of regions."""

    type: Literal["box"] = "box"
    name: Annotated[str, AfterValidator(_box_name)] = Field(description="Name of the box.")
    region: Region = Field(description="Region of the box.")
    copies: tuple[Region, ...] = Field(default=(), description="Other regions with a copy.")
    depth: int = Field(default=1, ge=1, description="Levels of the box.")

    @property
    def address(self) -> str:
        return f"box/{place(self.account, self.region)}/{self.name}"


AnyKind = Annotated[Vault | Edge | Box, Field(discriminator="type")]
File = Pipelines[AnyKind]
