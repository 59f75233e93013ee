"""Every sort of selection there is: for who reads pipelines.yaml."""

from __future__ import annotations

from certrail.pipelines.selection import Selection
from deployers.selections.cloudfront import CloudfrontSelection
from deployers.selections.listener import ListenerSelection
from deployers.selections.secretsmanager import SecretsmanagerSelection

SELECTIONS: dict[str, type[Selection]] = {
    "cloudfront": CloudfrontSelection,
    "listener": ListenerSelection,
    "secretsmanager": SecretsmanagerSelection,
}
