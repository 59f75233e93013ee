"""Every kind there is: for who reads pipelines.yaml. A deployer imports only its own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from certrail.target import Target
from deployers.kinds.acm import Acm
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.listener import Listener
from deployers.kinds.secretsmanager import Secretsmanager

AnyTarget = Annotated[
    Acm | Cloudfront | Listener | Secretsmanager,
    Field(discriminator="type"),
]

KINDS: dict[str, type[Target]] = {
    kind.__module__.rpartition(".")[2]: kind for kind in (Acm, Cloudfront, Listener, Secretsmanager)
}
