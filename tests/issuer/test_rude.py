"""Pebble at its rudest: bad nonces, reused authorizations, chains of every length."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cryptography import x509

from certrail.store import Current
from sandbox.pebble import Options, Pebble
from tests.issuer.conftest import World, within

ISSUANCES = 200
AT_ONCE = 10


def test_no_issuance_is_lost(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done: list[Current | None] = []
    started = time.monotonic()
    for chain, reuse in ((1, 0), (2, 50), (3, 100)):
        options = Options(bad_nonces=15, reuse=reuse, intermediates=chain)
        with Pebble(world.sandbox.dns, options) as ca:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.ca_bundle))
            rude = replace(world, directory=ca.directory)

            def one(number: int, rude: World = rude, chain: int = chain) -> Current | None:
                names = (f"n{number % 40}.{rude.zone}", f"*.n{number % 40}.{rude.zone}")
                pipeline = rude.pipeline(*names, name=f"p{number}")
                issuer = replace(pipeline.issuers[0], name=f"chain-{chain}")
                pipeline = replace(pipeline, issuers=(issuer,))
                current = rude.issue(pipeline, clock=within(60))
                assert current is not None
                bundle = rude.store.bundle(current)
                assert len(x509.load_pem_x509_certificates(bundle.chain.encode())) == chain
                return current

            share = range(len(done), ISSUANCES * chain // 3)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                done += pool.map(one, share)
    assert len(done) == ISSUANCES
    assert world.texts() == []
    with capsys.disabled():
        took = time.monotonic() - started
        sys.stdout.write(f"\n{len(done)} of {ISSUANCES} issued in {took:.1f} s\n")
