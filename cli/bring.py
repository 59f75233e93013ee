"""`certrail bring`: a bundle from files here to `incoming/`, once it is known to be taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from certrail import credentials
from certrail.errors import BundleBroken
from certrail.store import CONFIG_KEY
from cli.workspace import BadInput, Workspace
from issuer.checks import checked
from issuer.layouts import CERTBOT, PKCS12, bundles, misfit, opened


def bring(workspace: Workspace, name: str, paths: Sequence[Path]) -> Iterator[str]:
    """Check a bundle as the receiver will, put it under `incoming/`, and tell each key.

    paths: files of one layout, or folders with them. Raises BadInput where they are not; and
    BundleBroken, StateError, AwsError.
    """
    file = workspace.local()
    pipeline = file.named(name)
    if pipeline is None:
        (pipeline, *_) = workspace.called(file, name)
    if pipeline.incoming is None or pipeline.incoming.certificate_arn is not None:
        raise BadInput(
            "nothing is taken in for this pipeline from the bucket",
            where=pipeline.name,
            next="Set `issuer: incoming`, without `certificate_arn`, and push the file",
        )
    files = {path.name: path.read_bytes() for path in _files(paths)}
    found = bundles(files)
    if len(found) != 1 or len(found[0]) != len(files):
        raise BadInput(
            f"{len(found)} bundles are in {', '.join(files) or 'no file'}",
            next=f"Give one: {', '.join(CERTBOT)}, or one file that ends in .json, .p12 or .pfx",
        )
    if found[0][0] in CERTBOT and (why := misfit(files, "")):
        raise BundleBroken(why, next=f"Give {', '.join(CERTBOT)} of one certificate")
    secret = pipeline.incoming.password_secret
    is_pkcs12 = found[0][0].endswith(PKCS12)
    password = credentials.fetch(workspace.aws, secret) if secret and is_pkcs12 else None
    foreign = opened(files, password, "")
    checked(
        foreign.fullchain,
        foreign.private_key,
        domains=pipeline.domains,
        key_type=pipeline.key_type,
        now=datetime.now(UTC),
    )
    if workspace.store.pushed_at() is None:
        raise BadInput("nobody would take it in: nothing is pushed yet", next="Run `certrail push`")
    workspace.store.require_kms(CONFIG_KEY)
    for each, body in files.items():
        yield workspace.store.bring(pipeline.name, each, body)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Of a folder only what is of a layout: certbot puts a README into its own."""
    for path in paths:
        if path.is_dir():
            there = {each.name: each for each in sorted(path.iterdir())}
            yield from (there[name] for names in bundles(there) for name in names)
        elif path.is_file():
            yield path
        else:
            raise BadInput("there is no such file", where=str(path))
