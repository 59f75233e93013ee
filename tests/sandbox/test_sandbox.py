"""All parts together: a certificate by way of AWS, DNS and CA; and that nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from cryptography import x509

from sandbox import Sandbox, find_pebble, resources
from sandbox.find_pebble import PebbleMissing
from tests.sandbox.issuance import account, issue

TEMPLATE = Path(__file__).parents[2] / "template.yaml"

# Deploys the template, starts all its functions, and ends as it is told; says what is there
# while it runs and what is left.
PROGRAM = """
import json, psutil, signal, sys, tempfile, threading, time
from pathlib import Path
from sandbox import Sandbox

# Whoever is started in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def say():
    children = psutil.Process().children(recursive=True)
    here = Path(tempfile.gettempdir()).iterdir()
    print(json.dumps({
        "children": [child.pid for child in children],
        "threads": [thread.name for thread in threading.enumerate()],
        "files": sorted(file.name for file in here),
    }), flush=True)

try:
    with Sandbox() as sandbox:
        sandbox.deploy(Path(sys.argv[1]))
        sandbox.functions.warm()
        say()
        while True:  # not signal.pause(): a signal just before it would be heard after it
            time.sleep(1)
except KeyboardInterrupt:
    say()
"""


def test_a_certificate_over_dns_01(sandbox: Sandbox) -> None:
    names = ["shop.example.com", "*.shop.example.com"]
    zone = resources.hosted_zone(
        "example.com", session=sandbox.session(), endpoint=sandbox.endpoint
    )
    route53 = sandbox.session().client("route53")

    def publish(name: str, value: str) -> None:
        record: Any = {
            "Name": name,
            "Type": "TXT",
            "TTL": 30,
            "SetIdentifier": value,
            "MultiValueAnswer": True,
            "ResourceRecords": [{"Value": f'"{value}"'}],
        }
        route53.change_resource_record_sets(
            HostedZoneId=zone,
            ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]},
        )

    issued = issue(account(sandbox.directory, sandbox.ca_bundle), names, publish)

    leaf, intermediate = (x509.load_pem_x509_certificate(each.encode()) for each in issued.chain)
    leaf.verify_directly_issued_by(intermediate)
    root = x509.load_pem_x509_certificate(sandbox.ca.root().encode())
    intermediate.verify_directly_issued_by(root)
    extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert set(extension.value.get_values_for_type(x509.DNSName)) == set(names)


def test_the_ca_looks_for_the_proof(sandbox: Sandbox) -> None:
    resources.hosted_zone("example.com", session=sandbox.session(), endpoint=sandbox.endpoint)
    client = account(sandbox.directory, sandbox.ca_bundle)
    with pytest.raises(Exception, match=r"DNS lookup .* unsuccessful"):
        issue(client, ["shop.example.com"], lambda name, value: None)


def test_sessions_go_to_the_sandbox_whatever_the_environment_says(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in sandbox.environment:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREAL")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    session = sandbox.session()
    assert session.region_name == "eu-central-1"
    assert sandbox.session(region="us-east-1").region_name == "us-east-1"
    identity = session.client("sts").get_caller_identity()
    assert identity["Account"] == "123456789012"


def test_accounts_are_apart(sandbox: Sandbox) -> None:
    other = sandbox.session(account="222222222222")
    assert other.client("sts").get_caller_identity()["Account"] == "222222222222"
    other.client("secretsmanager").create_secret(Name="theirs", SecretString="x")
    assert len(other.client("secretsmanager").list_secrets()["SecretList"]) == 1
    assert sandbox.session().client("secretsmanager").list_secrets()["SecretList"] == []


def test_the_environment_makes_another_process_a_client(sandbox: Sandbox) -> None:
    program = (
        "import boto3, os, requests, ssl\n"
        "print(boto3.client('sts').get_caller_identity()['Account'])\n"
        "print(boto3.Session().region_name)\n"
        "requests.get(os.environ['DIRECTORY']).raise_for_status()\n"
        "print(len(ssl.create_default_context().get_ca_certs()))"
    )
    users = {"AWS_SESSION_TOKEN": "stale", "AWS_REGION": "us-west-2", "PATH": os.environ["PATH"]}
    environment = users | sandbox.environment | {"DIRECTORY": sandbox.directory}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    # Of all roots it trusts the sandbox's CA only.
    assert done.stdout.split() == ["123456789012", "eu-central-1", "1"]
    assert sandbox.environment["CERTRAIL_NAMESERVERS"] == "{}:{}".format(*sandbox.dns)
    assert sandbox.environment["CERTRAIL_PROXY"] == "{}:{}".format(*sandbox.edge.address)


def test_this_process_is_a_client_too(sandbox: Sandbox) -> None:
    boto3.client("s3").list_buckets()
    assert sandbox.server.calls.count() == {"s3:ListBuckets": 1}


def test_reset_leaves_an_empty_aws(sandbox: Sandbox) -> None:
    client = sandbox.session().client("secretsmanager")
    client.create_secret(Name="mine", SecretString="x")
    sandbox.reset()
    assert sandbox.server.calls.all() == []
    assert client.list_secrets()["SecretList"] == []
    assert not sandbox.is_deployed
    with pytest.raises(RuntimeError, match=r"call deploy\(\) first"):
        _ = sandbox.functions


def test_a_start_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(find_pebble, "FETCHES", ())
    children = psutil.Process().children(recursive=True)
    threads = set(threading.enumerate())
    with pytest.raises(PebbleMissing):
        Sandbox().start()
    assert psutil.Process().children(recursive=True) == children
    assert set(threading.enumerate()) <= threads


@pytest.fixture
def running(tmp_path: Path) -> subprocess.Popen[str]:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(TEMPLATE)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(scratch)},
    )


def test_ctrl_c_leaves_no_process_thread_or_file(running: subprocess.Popen[str]) -> None:
    with running:
        assert running.stdout is not None
        before = json.loads(running.stdout.readline())
        # Pebble and one child for each function.
        assert len(before["children"]) > 5
        assert len(before["threads"]) > 5
        running.send_signal(signal.SIGINT)
        after = json.loads(running.stdout.readline())
    assert after == {"children": [], "threads": ["MainThread"], "files": []}
    assert running.returncode == 0
    assert not [pid for pid in before["children"] if psutil.pid_exists(pid)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends Pebble with its parent")
def test_children_end_even_when_the_sandbox_is_killed(running: subprocess.Popen[str]) -> None:
    with running:
        assert running.stdout is not None
        before = json.loads(running.stdout.readline())
        children = [psutil.Process(pid) for pid in before["children"]]
        running.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
