"""How `certrail-install` comes by the secret, and whom it tells."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.certrail.bundles import make_bundle
from tests.deployers.cloud import ACCOUNT, DOMAINS, REGION, Cloud
from tests.fleet.instances import instance, state_manager
from tests.fleet.machine import SECRET, Machine, Ran, document

ALONE = (sys.executable, "-I", "-S")
READ = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}


def test_an_encrypted_key(machine: Machine) -> None:
    bundle = make_bundle(DOMAINS)
    key = load_pem_private_key(bundle.private_key.reveal().encode(), None)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        pem = key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")).decode()
        machine.put(document(bundle) | {"private_key": pem})
        ran = machine.install()
        assert (ran.code, ran.error) == (1, "the secret's key has a password")


def test_bytes(machine: Machine) -> None:
    machine.publish()
    secrets = machine.cloud.client("secretsmanager")
    secrets.put_secret_value(SecretId=SECRET, SecretBinary=b"{}")
    ran = machine.install()
    assert (ran.code, ran.error) == (1, "the secret has no text")


def test_no_such_secret(machine: Machine) -> None:
    ran = machine.install()
    assert (ran.code, ran.outcome) == (1, "refused")
    assert "ResourceNotFoundException" in ran.error
    assert ran.said["next"].startswith("Compare name, region and stage")


def test_a_role_with_its_external_id(machine: Machine) -> None:
    cloud = machine.cloud
    bundle = machine.publish()
    arn = cloud.role(ACCOUNT, [READ]).role_arn
    without = machine.install("--role", arn)
    assert (without.code, without.outcome) == (1, "refused")
    assert "AssumeRole" in without.error
    assert "AccessDenied" in without.error
    assert machine.install("--role", arn, "--external-id", "abc").outcome == "installed"
    assert machine.fingerprint == bundle.fingerprint

    cloud.forbid(ACCOUNT)
    denied = machine.install("--role", arn, "--external-id", "abc")
    assert (denied.code, denied.outcome) == (1, "refused")
    assert denied.said["fingerprint"] == bundle.fingerprint
    assert denied.said["next"].startswith("Allow GetSecretValue")


def test_an_arn_has_the_region(machine: Machine) -> None:
    machine.publish()
    arn = machine.cloud.client("secretsmanager").describe_secret(SecretId=SECRET)["ARN"]
    elsewhere = {"AWS_DEFAULT_REGION": "us-east-1"}
    assert machine.install(environment=elsewhere).code == 1
    assert machine.install("--secret", arn, environment=elsewhere).outcome == "installed"


def test_without_boto3_the_aws_cli_is_asked(machine: Machine) -> None:
    bundle = machine.publish()
    arn = machine.cloud.role(ACCOUNT, [READ]).role_arn
    # Where this Python has its programs, `aws` is the real one.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = machine.install(python=ALONE, environment={"PATH": path})
    assert (ran.code, ran.outcome) == (0, "installed"), ran.error
    assert machine.fingerprint == bundle.fingerprint
    role = ("--role", arn, "--external-id", "abc")
    assert machine.install(*role, python=ALONE, environment={"PATH": path}).outcome == "unchanged"
    machine.cloud.forbid(ACCOUNT)
    denied = machine.install(*role, python=ALONE, environment={"PATH": path})
    assert "AccessDenied" in denied.error


def test_neither_boto3_nor_the_aws_cli(machine: Machine, tmp_path: Path) -> None:
    ran = machine.install(python=ALONE, environment={"PATH": str(tmp_path)})
    assert (ran.code, ran.error) == (1, "there is neither boto3 nor the AWS CLI")


def test_an_aws_cli_that_answers_something_else(machine: Machine, tmp_path: Path) -> None:
    program = tmp_path / "bin/aws"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho Welcome!\n")
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    ran = machine.install(python=ALONE, environment={"PATH": path})
    assert (ran.code, ran.error) == (1, f"GetSecretValue failed: {program} answered no JSON")


# The inventory


@pytest.fixture
def ours(machine: Machine) -> str:
    here = instance(1)
    state_manager(machine.cloud).launch(here)
    return here.id


def inventory(cloud: Cloud, name: str) -> dict[str, str]:
    said = state_manager(cloud).inventory[name, "Custom:certrail"]["Content"]
    (content,) = (each for each in said if each["Fleet"] == "web")
    return dict(content)


def test_it_says_in_the_inventory_what_happened(machine: Machine, ours: str) -> None:
    bundle = machine.publish()
    options = ("--report", "web", "--instance-id", ours)
    ran = machine.install(*options)
    assert ran.said["reported"] is True
    assert inventory(machine.cloud, ours) == {
        "Fleet": "web",
        "Wanted": "",
        "Outcome": "installed",
        "Fingerprint": bundle.fingerprint,
        "Error": "",
        "Version": ran.said["version"],
    }
    machine.put("not JSON")
    machine.install(*options)
    said = inventory(machine.cloud, ours)
    assert (said["Outcome"], said["Fingerprint"]) == ("refused", bundle.fingerprint)
    assert said["Error"] == "the secret is not JSON"

    # An instance may be in two fleets, and says all of it each time.
    machine.install("--report", "other", "--instance-id", ours)
    assert inventory(machine.cloud, ours) == said
    everything = state_manager(machine.cloud).inventory[ours, "Custom:certrail"]["Content"]
    assert [each["Fleet"] for each in everything] == ["other", "web"]


def test_a_dry_run_tells_nobody(machine: Machine, ours: str) -> None:
    machine.publish()
    ran = machine.install("--report", "web", "--instance-id", ours, "--dry-run")
    assert (ran.outcome, ran.said["reported"]) == ("would-install", None)
    assert state_manager(machine.cloud).inventory == {}


def test_a_report_that_fails_is_said_and_changes_nothing_else(machine: Machine) -> None:
    bundle = machine.publish()
    ran = machine.install("--report", "web", "--instance-id", "i-00000000000000099")
    assert (ran.code, ran.outcome, ran.said["reported"]) == (0, "installed", False)
    assert "certrail-install: not reported: PutInventory failed" in ran.stderr
    assert machine.fingerprint == bundle.fingerprint


# The command line


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--format", "pfx"], "--format: there is no pfx"),
        (["--format", "jks"], "--format pkcs12 and jks need --password-file"),
        (["--fields", "cert=crt"], "--fields: there is no cert"),
        (["--connect", "localhost"], "--connect wants HOST:PORT"),
        (["--connect", "localhost:65536"], "--connect wants HOST:PORT"),
        (["--server-name", "a..b"], "--server-name wants a host name"),
        (["--fingerprint", "ab12"], "--fingerprint wants a SHA-256 in hexadecimal"),
        (["--reload", "sh -c 'true"], "--reload: no closing quotation"),
        (["--secret", "tls/..", "--directory", ""], "the secret's name has no last part"),
        (["--lock-wait", "long"], "argument --lock-wait: invalid float value: 'long'"),
    ],
)
def test_what_is_wrong_with_the_options(machine: Machine, options: list[str], error: str) -> None:
    ran: Ran = machine.install(*options)
    assert (ran.code, ran.outcome) == (2, "usage")
    assert ran.error.startswith(error)
    assert list(machine.folder.iterdir()) == []


def test_a_fault_of_its_own_still_says_one_line(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/boto3.py").write_text("raise RuntimeError('not a boto3')\n")
    ran = machine.install(
        python=(sys.executable,), environment={"PYTHONPATH": str(tmp_path / "broken")}
    )
    assert (ran.code, ran.outcome) == (1, "failed")
    assert ran.error == "a fault of certrail-install: RuntimeError"
    assert "RuntimeError: not a boto3" in ran.stderr


def test_the_region_can_be_said(machine: Machine) -> None:
    machine.publish()
    environment = {"AWS_DEFAULT_REGION": "us-east-1"}
    assert machine.install("--region", REGION, environment=environment).outcome == "installed"
