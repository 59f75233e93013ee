"""`certrail-install` as a process: what it installs, what it refuses, and what it leaves alone."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from certrail.keys import KeyType
from fleet import certrail_install
from tests.certrail.bundles import HOUR, NOW, make_bundle
from tests.deployers.cloud import DOMAINS
from tests.fleet.machine import PEM_FILES, Machine, document

DAY = timedelta(days=1)
INSTALLER = Path(certrail_install.__file__)


# What is installed


def test_the_first_certificate(machine: Machine) -> None:
    bundle = machine.publish()
    ran = machine.install(python=(sys.executable,))
    assert (ran.code, ran.outcome) == (0, "installed")
    assert ran.said["fingerprint"] == machine.fingerprint == bundle.fingerprint
    assert ran.said["before"] is ran.said["served"] is ran.said["error"] is None
    assert ran.said["version"]
    assert ran.stderr == f"certrail-install: installed. {bundle.fingerprint}\n"
    files = {path.name: path.read_text() for path in machine.live.iterdir()}
    assert files.keys() == PEM_FILES | {"manifest.json"}
    assert files["cert.pem"] == bundle.certificate
    assert files["chain.pem"] == bundle.chain
    assert files["fullchain.pem"] == bundle.certificate + bundle.chain
    assert files["privkey.pem"] == bundle.private_key.reveal()


def test_the_same_again_writes_nothing(machine: Machine) -> None:
    machine.publish()
    machine.install()
    before = machine.tree()
    assert "certrail/web/live" in before
    ran = machine.install()
    assert (ran.code, ran.outcome) == (0, "unchanged")
    assert machine.tree() == before


def test_renewals_keep_the_one_before_and_no_more(machine: Machine) -> None:
    bundles = []
    for number in range(3):
        bundles.append(machine.publish(NOW - DAY + number * HOUR))
        ran = machine.install()
        assert ran.outcome == "installed"
    assert ran.said["before"] == bundles[1].fingerprint
    assert machine.fingerprint == bundles[2].fingerprint
    assert machine.versions == [
        f"{number:06d}-{bundles[number - 1].fingerprint[:16]}" for number in (2, 3)
    ]


def test_an_older_one_is_refused_unless_it_is_wanted(machine: Machine) -> None:
    older, newer = make_bundle(DOMAINS, age=DAY), machine.publish()
    machine.install()
    machine.put(document(older))
    before = machine.tree()
    for options in ((), ("--fingerprint", newer.fingerprint)):
        ran = machine.install(*options)
        assert (ran.code, ran.outcome) == (1, "refused")
        assert re.search("began at .*, and the installed one at ", ran.error)
        assert ran.said["fingerprint"] == newer.fingerprint
    assert machine.tree() == before
    assert ran.said["next"].endswith(f"--fingerprint {older.fingerprint}")

    # As `openssl x509 -fingerprint` writes it.
    written = ":".join(re.findall("..", older.fingerprint)).upper()
    assert machine.install("--fingerprint", written).outcome == "installed"
    assert machine.fingerprint == older.fingerprint


def test_a_newer_one_is_for_others_until_it_is_wanted_here(machine: Machine) -> None:
    wanted = machine.publish(NOW - DAY)
    machine.install()
    newer = machine.publish()
    before = machine.tree()
    ran = machine.install("--fingerprint", wanted.fingerprint)
    assert (ran.outcome, ran.said["fingerprint"]) == ("unchanged", wanted.fingerprint)
    assert "another certificate than the one that is wanted here" in ran.said["next"]
    assert machine.tree() == before
    assert machine.install("--fingerprint", newer.fingerprint).outcome == "installed"
    assert machine.fingerprint == newer.fingerprint


def test_what_ends_within_a_day_waits_for_nobody(machine: Machine) -> None:
    ending = machine.publish(NOW - DAY, days=0.5)
    machine.install()
    newer = machine.publish()
    assert machine.install("--fingerprint", ending.fingerprint).outcome == "installed"
    assert machine.fingerprint == newer.fingerprint


def test_a_machine_with_nothing_takes_what_is_there(machine: Machine) -> None:
    wanted = machine.publish(NOW - DAY)
    newer = machine.publish()
    assert machine.install("--fingerprint", wanted.fingerprint).outcome == "installed"
    assert machine.fingerprint == newer.fingerprint


@pytest.mark.parametrize("key_type", [KeyType.ECDSA_P384, KeyType.RSA_2048])
def test_other_keys(machine: Machine, key_type: KeyType) -> None:
    bundle = make_bundle(DOMAINS, key_type)
    machine.put(document(bundle))
    assert machine.install().outcome == "installed"
    assert machine.fingerprint == bundle.fingerprint


def test_a_secret_of_another_shape(machine: Machine) -> None:
    bundle = make_bundle(DOMAINS)
    shape = {
        # With the leaf in its chain, and Windows' line ends, as some have it.
        "crt": bundle.certificate + bundle.chain,
        "ca": (bundle.certificate + bundle.chain).replace("\n", "\r\n"),
        "key": bundle.private_key.reveal().rstrip(),
    }
    machine.put(shape)
    ran = machine.install()
    assert (ran.code, ran.error) == (1, "the secret has no certificate")
    assert "--fields certificate=crt" in ran.said["next"]
    fields = "certificate=crt,private_key=key"
    assert machine.install("--fields", fields).outcome == "installed"
    assert machine.fingerprint == bundle.fingerprint
    assert (machine.live / "chain.pem").read_text() == bundle.chain


def test_another_stage(machine: Machine) -> None:
    current = machine.publish()
    canary = make_bundle(DOMAINS)
    machine.put(document(canary), VersionStages=["CANARY"])
    machine.install("--stage", "CANARY")
    assert machine.fingerprint == canary.fingerprint
    machine.install("--fingerprint", current.fingerprint)
    assert machine.fingerprint == current.fingerprint


# What is refused


def test_a_key_of_another_certificate(machine: Machine) -> None:
    installed = machine.publish()
    machine.install()
    before = machine.tree()
    for key_type in (KeyType.ECDSA_P256, KeyType.RSA_2048):
        key = make_bundle(DOMAINS, key_type).private_key.reveal()
        machine.put(document(make_bundle(DOMAINS)) | {"private_key": key})
        for options in ((), ("--dry-run",)):
            ran = machine.install(*options)
            assert (ran.code, ran.outcome) == (1, "refused")
            assert ran.error == "the key in the secret is not the certificate's"
    assert machine.tree() == before
    assert machine.fingerprint == installed.fingerprint


GOOD = document(make_bundle(DOMAINS))
REFUSED = {
    "not JSON": ("-----BEGIN NOTHING-----", "the secret is not JSON"),
    "a list": ([GOOD], "the secret is no JSON object"),
    "no certificate": ({"private_key": GOOD["private_key"]}, "the secret has no certificate"),
    "no key": ({"certificate": GOOD["certificate"]}, "the secret has no private_key"),
    "a number": (GOOD | {"certificate": 1}, "the secret has no certificate"),
    "no PEM": (GOOD | {"certificate": "MIIB"}, "the secret's certificate is not PEM"),
    "a key that is none": (GOOD | {"private_key": "MIIB"}, "the secret's key is not PEM"),
    "half a character": (
        GOOD | {"private_key": GOOD["private_key"] + "\ud800"},
        "the secret's key is not PEM",
    ),
    "cut off": (
        GOOD | {"certificate": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"},
        "the secret's certificate cannot be read",
    ),
    "a key that is cut off": (
        GOOD | {"private_key": "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n"},
        "OpenSSL cannot use the secret's certificate and key",
    ),
    "ended": (document(make_bundle(DOMAINS, days=-0.01)), "the certificate in the secret ended at"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_secret_that_cannot_be_used(machine: Machine, what: str) -> None:
    secret, error = REFUSED[what]
    machine.put(secret)
    ran = machine.install()
    assert (ran.code, ran.outcome) == (1, "refused")
    assert ran.error.startswith(error)
    assert ran.said["next"]
    assert not machine.live.exists()
    assert machine.versions == []
