"""The folders that become Lambda functions: built, looked into, and invoked, each on its own.

They are built for this machine and this Python, by the make targets that `sam build` runs, and
invoked through AWS's runtime client in an environment that has nothing else: what is missing in a
folder is missing here.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from certrail.store import CONFIG_KEY
from fleet.document import as_text, document
from sandbox.runtime import Child, Spec
from tests.sandbox.cloud import REGION, Cloud, cloud

ROOT = Path(__file__).parents[2]
# The Python that builds; `invoke` puts another one in its place for the functions.
PYTHON = sys.executable
OURS = {"certrail", "issuer", "deployers", "fleet", "cli", "sandbox"}
HANDLERS = {
    "IssuerScheduler": "issuer.handler.schedule",
    "IssuerWorker": "issuer.handler.work",
    "Receiver": "issuer.receiver.handle",
    "Router": "deployers.router.handle",
    "Finder": "deployers.finder.handle",
    "AcmDeployer": "deployers.handler.handle",
    "ApigatewayDeployer": "deployers.handler.handle",
    "CloudfrontDeployer": "deployers.handler.handle",
    "FleetDeployer": "deployers.handler.handle",
    "ListenerDeployer": "deployers.handler.handle",
    "ParameterstoreDeployer": "deployers.handler.handle",
    "SecretsmanagerDeployer": "deployers.handler.handle",
    "Watcher": "deployers.watcher.handle",
    "Notifier": "deployers.notifier.handle",
}
LISTENER = (
    "arn:aws:elasticloadbalancing:eu-central-1:111122223333:"
    "listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2"
)
# By deployer: a target of its kind, and the kinds it carries.
TARGETS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "AcmDeployer": ({"type": "acm", "region": REGION}, {"acm"}),
    "ApigatewayDeployer": (
        {"type": "apigateway", "domain_name": "api.example.com", "region": REGION},
        {"acm", "apigateway"},
    ),
    "CloudfrontDeployer": (
        {"type": "cloudfront", "distribution": "E1A2B3C4D5E6F7"},
        {"acm", "cloudfront"},
    ),
    "FleetDeployer": (
        {
            "type": "fleet",
            "name": "web",
            "region": REGION,
            "instances": {"certrail": "web"},
            "secret": "tls/shop/bundle",
        },
        {"fleet", "secretsmanager"},
    ),
    "ListenerDeployer": ({"type": "listener", "listener": LISTENER}, {"acm", "listener"}),
    "ParameterstoreDeployer": (
        {"type": "parameterstore", "name": "/tls/shop/bundle", "region": REGION},
        {"parameterstore"},
    ),
    "SecretsmanagerDeployer": (
        {"type": "secretsmanager", "name": "tls/shop/bundle", "region": REGION},
        {"secretsmanager"},
    ),
}
BUCKET = "certrail"
PIPELINES = """\
issuers:
  staging: {directory: "https://localhost:14000/dir"}
pipelines:
  - name: shop
    domains: [shop.example.com]
    targets:
      - {type: acm, region: eu-central-1}
      - {type: cloudfront, covers: true}
"""
# What awslambdaric needs to run: Lambda has it beside the function, not in it.
RUNTIME = ("awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function's folder, built when it is first asked for."""
    folder = tmp_path_factory.mktemp("functions")

    def build(name: str) -> Path:
        if not (folder / name).exists():
            here = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
            make(name, folder / name, here, "{}.{}".format(*sys.version_info))
        return folder / name

    return build


def make(name: str, folder: Path, architecture: str, python: str, *more: str) -> None:
    runtime = [f"ARCHITECTURE={architecture}", f"PYTHON_VERSION={python}", *more]
    places = [f"ARTIFACTS_DIR={folder}", f"PYTHON={PYTHON}"]
    makefile = ["make", "-s", "-C", str(ROOT / "functions")]
    subprocess.run([*makefile, f"build-{name}", *places, *runtime], check=True)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the runtime client and not one package more."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in RUNTIME:
        spec = find_spec(name)
        assert spec
        assert spec.origin
        origin = Path(spec.origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, packages / name)
        else:
            shutil.copy(origin, packages)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def aws() -> Iterator[Cloud]:
    """A bucket with a pipelines file, and the issuer's queue."""
    with cloud() as aws:
        s3, sqs = aws.client("s3"), aws.client("sqs")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket=BUCKET, Key=CONFIG_KEY, Body=PIPELINES.encode())
        sqs.create_queue(QueueName="issue.fifo", Attributes={"FifoQueue": "true"})
        sqs.create_queue(QueueName="told")
        # Where nobody listens.
        aws.client("ssm").put_parameter(Name="webhook", Value="https://127.0.0.1:1", Type="String")
        yield aws


@pytest.fixture
def invoke(
    built: Callable[[str], Path], bare: Path, aws: Cloud, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Any], Any]:
    """Invoke a function as Lambda does, in a new execution environment, and return its answer."""
    queue = aws.client("sqs").get_queue_url(QueueName="issue.fifo")["QueueUrl"]
    monkeypatch.setattr(sys, "executable", str(bare))

    def invoke(name: str, event: Any) -> Any:
        environment = {
            "AWS_ENDPOINT_URL": aws.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "CERTRAIL_BUCKET": BUCKET,
            "CERTRAIL_ISSUE_QUEUE": queue,
            "CERTRAIL_QUEUES": "{}",
            "CERTRAIL_WATCH_QUEUE": "watch",
            "CERTRAIL_KIND": name.removesuffix("Deployer").lower(),
            "CERTRAIL_WEBHOOK_SECRET": f"arn:aws:ssm:{REGION}:123456789012:parameter/webhook",
            "CERTRAIL_WEBHOOK_SHAPE": "slack",
        }
        log: list[str] = []
        folder = built(name)
        child = Child(
            Spec(name, f"arn:{name}", HANDLERS[name], 20.0, folder, environment), log.append
        )
        try:
            result = child.invoke(json.dumps(event).encode())
        finally:
            child.stop()
        assert result.error is None, (result.payload, log)
        return result.json()

    return invoke


def modules(folder: Path) -> set[str]:
    """Our modules in a folder."""
    return {
        ".".join(file.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for name in OURS
        for file in (folder / name).rglob("*.py")
    }


def run(bare: Path, folder: Path, code: str) -> str:
    """What a bare Python prints that has the folder's packages."""
    return subprocess.run(
        [str(bare), "-c", code],
        env={"PYTHONPATH": str(folder), "AWS_DEFAULT_REGION": REGION},
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


# Each answers an event


def test_the_scheduler_finds_what_is_due(invoke: Callable[[str, Any], Any]) -> None:
    assert invoke("IssuerScheduler", {})["due"].keys() == {"shop"}


def test_the_worker_leaves_what_is_no_longer_in_the_file(
    invoke: Callable[[str, Any], Any],
) -> None:
    message = {
        "messageId": "1",
        "receiptHandle": "of-no-queue",
        "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:gone.fifo",
        "body": '{"pipeline": "gone"}',
    }
    assert invoke("IssuerWorker", {"Records": [message]}) == {"batchItemFailures": []}


@pytest.mark.parametrize(
    ("event", "answer"), [({}, {}), ({"Records": []}, {"batchItemFailures": []})]
)
def test_the_router_waits_for_a_certificate(
    invoke: Callable[[str, Any], Any], event: Any, answer: Any
) -> None:
    assert invoke("Router", event) == answer


def test_the_finder_looks(invoke: Callable[[str, Any], Any]) -> None:
    assert invoke("Finder", {}) == {}


@pytest.mark.parametrize("name", TARGETS)
def test_a_deployer_waits_for_a_certificate(invoke: Callable[[str, Any], Any], name: str) -> None:
    target, _ = TARGETS[name]
    job = {"pipeline": "shop", "target": target, "account": None, "generation": 1}
    event = {"Records": [{"messageId": "1", "body": json.dumps(job)}]}
    assert invoke(name, event) == {"batchItemFailures": []}


def test_the_notifier_waits_for_its_webhook(aws: Cloud, invoke: Callable[[str, Any], Any]) -> None:
    sqs = aws.client("sqs")
    url = sqs.get_queue_url(QueueName="told")["QueueUrl"]
    told = {
        "detail-type": "Target Failed",
        "time": "2026-12-01T03:00:00Z",
        "account": "123456789012",
        "region": REGION,
        "detail": {"pipeline": "shop", "summary": "shop: it failed"},
    }
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(told))
    (received,) = sqs.receive_message(QueueUrl=url)["Messages"]
    message = {
        "messageId": received["MessageId"],
        "receiptHandle": received["ReceiptHandle"],
        "eventSourceARN": f"arn:aws:sqs:{REGION}:123456789012:told",
        "attributes": {"ApproximateReceiveCount": "1"},
        "body": received["Body"],
    }
    assert invoke("Notifier", {"Records": [message]}) == {
        "batchItemFailures": [{"itemIdentifier": received["MessageId"]}]
    }


# Each carries what it imports


@pytest.mark.parametrize("name", HANDLERS)
def test_carries_what_it_imports(built: Callable[[str], Path], bare: Path, name: str) -> None:
    folder = built(name)
    start = [HANDLERS[name].rpartition(".")[0]]
    if name in TARGETS:
        start.append(f"deployers.kinds.{TARGETS[name][0]['type']}")
    code = f"import sys, {', '.join(start)}; print(*sys.modules)"
    loaded = set(run(bare, folder, code).split())
    assert modules(folder) == {name for name in loaded if name.partition(".")[0] in OURS}


@pytest.mark.parametrize("name", TARGETS)
def test_a_deployer_carries_its_kind_only(built: Callable[[str], Path], name: str) -> None:
    folder = built(name)
    kinds = {file.stem for file in (folder / "deployers" / "kinds").glob("*.py")} - {"__init__"}
    assert kinds == TARGETS[name][1]
    assert not {"issuer", "cli", "sandbox", "yaml", "acme", "cryptography", "dns", "OpenSSL"} & {
        path.name for path in folder.iterdir()
    }


def test_the_notifier_carries_no_kind(built: Callable[[str], Path]) -> None:
    folder = built("Notifier")
    assert modules(folder) & {"deployers.kinds", "deployers.deploy", "certrail.pipelines"} == set()
    assert not {"yaml", "acme", "cryptography", "dns"} & {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["Router", "Finder"])
def test_who_reads_yaml_signs_nothing(built: Callable[[str], Path], name: str) -> None:
    there = {path.name for path in built(name).iterdir()}
    assert {"yaml", "deployers", "certrail"} <= there
    assert not {"issuer", "cli", "sandbox", "acme", "cryptography", "dns", "OpenSSL"} & there


@pytest.mark.parametrize("name", ["AcmDeployer", "IssuerWorker", "Router"])
def test_every_aws_service_that_certrail_calls_is_there(
    built: Callable[[str], Path], bare: Path, name: str
) -> None:
    folder = built(name)
    services = re.findall(r'_client\("([a-z0-9]+)"', (ROOT / "certrail" / "aws.py").read_text())
    assert len(services) >= 9
    code = f"import boto3\nfor name in {services}: boto3.client(name)"
    run(bare, folder, code)
    # And few others: botocore has more than 400.
    data = folder / "botocore" / "data"
    assert {path.name for path in data.iterdir() if path.is_dir()} == set(services)


def test_the_worker_carries_dns_providers_where_they_are_asked_for(
    built: Callable[[str], Path], bare: Path, tmp_path: Path
) -> None:
    code = "from importlib import import_module; import_module('lexicon._private.providers.gandi')"
    here = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
    python = "{}.{}".format(*sys.version_info)
    for name in ("IssuerWorker", "IssuerScheduler"):
        assert not (built(name) / "lexicon").exists()
        make(name, tmp_path / name, here, python, "CERTRAIL_EXTRAS=lexicon")
    run(bare, tmp_path / "IssuerWorker", code)
    assert unpinned(tmp_path / "IssuerWorker") == set()
    assert not (tmp_path / "IssuerScheduler" / "lexicon").exists()


def test_what_is_no_extra_of_a_function_is_refused(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        make("IssuerWorker", tmp_path, "arm64", "3.13", "CERTRAIL_EXTRAS=sandbox")


def test_is_compiled_where_the_python_is_the_functions(built: Callable[[str], Path]) -> None:
    folder = built("AcmDeployer")
    tag = f"cpython-{sys.version_info.major}{sys.version_info.minor}"
    for source in (folder / "certrail" / "aws.py", folder / "boto3" / "session.py"):
        compiled = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
        # PEP 552: 1 says that the source's hash is there, and not to be looked at.
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 1


def test_is_built_for_the_runtime_of_the_template(tmp_path: Path) -> None:
    make("AcmDeployer", tmp_path, "arm64", "3.13")
    native = {path.name for path in tmp_path.rglob("*.so")}
    assert native
    assert {name.partition(".")[2] for name in native} == {"cpython-313-aarch64-linux-gnu.so"}


def unpinned(folder: Path) -> set[str]:
    """The packages in a folder, with their versions, that `requirements.txt` does not name."""
    pins = (ROOT / "functions" / "requirements.txt").read_text().splitlines()
    pinned = {re.sub(r"[-_.]+", "_", line).lower() for line in pins if "==" in line}
    there = (info.name.removesuffix(".dist-info") for info in folder.glob("*.dist-info"))
    # The name of a folder: `beautifulsoup4-4.14.3.dist-info`.
    found = {re.sub(r"[-_.]+", "_", name.replace("-", "==")).lower() for name in there}
    return found - pinned


def test_only_pinned_versions_are_built_in(built: Callable[[str], Path]) -> None:
    assert set().union(*(unpinned(built(name)) for name in HANDLERS)) == set()


def test_the_versions_of_all_that_may_be_asked_for_are_pinned() -> None:
    pins = (ROOT / "functions" / "requirements.txt").read_text()
    assert {"publicsuffixlist", "dns-lexicon"} <= set(
        re.findall("^[^=#]+(?===)", pins, re.MULTILINE)
    )


def test_builds_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    """`sam build --parallel`, with nothing in the cache."""
    shutil.copytree(ROOT / "functions", tmp_path / "functions")
    for name in ("certrail", "deployers"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
    command = [PYTHON, str(tmp_path / "functions" / "build.py")]
    options = [f"--architecture={machine}", "--python={}.{}".format(*sys.version_info)]
    builds = [
        subprocess.Popen([*command, *options, f"--into={tmp_path / name}", "deployers.handler"])
        for name in ("one", "two")
    ]
    assert [build.wait() for build in builds] == [0, 0]
    assert (tmp_path / "one" / "boto3").is_dir()
    assert (tmp_path / "two" / "boto3").is_dir()
    assert len(list((tmp_path / ".cache" / "functions").iterdir())) == 1


def test_the_document_that_the_template_includes_is_built(tmp_path: Path) -> None:
    there = ROOT / "fleet/document.json"
    there.unlink(missing_ok=True)
    make("FleetDeployer", tmp_path, "arm64", "3.13")
    assert there.read_text() == as_text(document())
    assert "Location: fleet/document.json" in (ROOT / "template.yaml").read_text()
