"""Every kind there is: for who reads pipelines.yaml. A deployer imports only its own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from certrail.pipelines.selection import SelectedBy
from certrail.target import Target
from deployers.kinds.acm import Acm
from deployers.kinds.apigateway import Apigateway
from deployers.kinds.cloudfront import Cloudfront
from deployers.kinds.fleet import Fleet
from deployers.kinds.listener import Listener
from deployers.kinds.parameterstore import Parameterstore
from deployers.kinds.secretsmanager import Secretsmanager
from deployers.selections.all import SELECTIONS

AnyTarget = Annotated[
    Acm | Apigateway | Cloudfront | Fleet | Listener | Parameterstore | Secretsmanager,
    Field(discriminator="type"),
    SelectedBy(tuple(SELECTIONS.values())),
]

KINDS: dict[str, type[Target]] = {
    kind.__module__.rpartition(".")[2]: kind
    for kind in (Acm, Apigateway, Cloudfront, Fleet, Listener, Parameterstore, Secretsmanager)
}
