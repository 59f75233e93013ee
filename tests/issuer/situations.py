"""What several test modules of the issuer say in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from certrail.pipelines.resolved import Issuer, Pipeline
from certrail.store import Store
from sandbox.pebble import Pebble
from tests.issuer.conftest import World
from tests.issuer.proxy import Proxy, in_front_of


def asking(pipeline: Pipeline[object], **changes: Any) -> Pipeline[object]:
    """The pipeline, with an issuer that is different in some fields."""
    (issuer,) = pipeline.issuers
    return replace(pipeline, issuers=(replace(issuer, **changes),))


def issuer_of(world: World, **changes: Any) -> Issuer:
    (issuer,) = world.pipeline().issuers
    return replace(issuer, **changes)


def at(world: World, ca: Pebble, patch: pytest.MonkeyPatch) -> World:
    """The same world, with another CA."""
    patch.setenv("REQUESTS_CA_BUNDLE", str(ca.ca_bundle))
    return replace(world, directory=ca.directory)


@contextmanager
def proxied(
    world: World, ca: Pebble, folder: Path, patch: pytest.MonkeyPatch
) -> Iterator[tuple[World, Proxy]]:
    """The same world, with a CA behind a proxy."""
    with in_front_of(ca.directory, ca.ca_bundle, folder) as proxy:
        patch.setenv("REQUESTS_CA_BUNDLE", str(folder / "ca.pem"))
        yield replace(world, directory=f"https://localhost:{proxy.port}/dir"), proxy


def document(store: Store, key: str) -> dict[str, Any]:
    body = store._s3.get_object(Bucket=store.bucket, Key=key)["Body"].read()
    found: dict[str, Any] = json.loads(body)
    return found


def put_document(store: Store, key: str, value: dict[str, Any]) -> None:
    store._s3.put_object(Bucket=store.bucket, Key=key, Body=json.dumps(value).encode())


def told(caplog: pytest.LogCaptureFixture, *others: object) -> str:
    """All that was logged, and the printed forms of others. botocore's debugging, which nobody
    switches on in a function, has the bodies of the calls."""
    loud = ("botocore", "boto3")
    logged = [each.getMessage() for each in caplog.records if not each.name.startswith(loud)]
    return "\n".join([*logged, *(f"{each}\n{each!r}" for each in others)])
