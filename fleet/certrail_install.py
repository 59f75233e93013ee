#!/usr/bin/env python3
"""Install on this machine a certificate that certrail keeps in Secrets Manager.

Needs Python 3.8 or newer, and boto3 or the AWS CLI; nothing else of certrail. What it makes:

    /etc/certrail/NAME/
        live -> versions/000002-3f2a…   the link that services read through
        versions/000002-3f2a…/          cert.pem chain.pem fullchain.pem privkey.pem
            unconfirmed                 removed when it was seen to work
            manifest.json               written last of these: the version is complete
        versions/000001-9bc1…/          the one before, to go back to
        lock

    read the secret → check it → write a new version → exchange `live` by one rename
      → test the service's configuration → reload → connect and compare → confirm
      → where any of that fails: `live` as it was, and reload again

A version is complete before `live` leads to it: a reader gets the old pair or the new one, also
when this is killed. The next run sees by `unconfirmed` what is left to do.

On stdout: one line of JSON that says what happened. On stderr: the same for people. Exit codes:
0 installed, unchanged, or would install; 1 refused or failed, and what was there before is there;
2 usage; 3 another run has the lock; 4 failed, and so did the way back: a person is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import grp
import hashlib
import importlib
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from http.client import HTTPException
from typing import IO, Any, NamedTuple, NoReturn

# In seconds.
COMMAND_TIMEOUT = 60
CONNECT_TIMEOUT = 5
# Until old workers have let go of the port.
SERVED_AFTER = 20
BETWEEN_LOOKS = 0.1
# An old worker may still take a connection.
IN_A_ROW = 3
METADATA_TIMEOUT = 2
# A certificate that ends sooner than this is replaced by whatever is newer.
WAITS_UNTIL = timedelta(days=1)
# In characters: of a child's output, and of an error in the inventory.
OUTPUT_LIMIT = 600
REPORT_LIMIT = 512
FINGERPRINT = re.compile(r"[0-9a-f]{64}")
HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*", re.ASCII)
VERSION = re.compile(r"(\d{6,})-[0-9a-f]{16}")
PEM = re.compile(r"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]+-----END CERTIFICATE-----", re.ASCII)
FIELDS = ("certificate", "chain", "private_key")
FORMATS = ("haproxy", "pkcs12", "jks")
METADATA = "http://169.254.169.254/latest"


class Problem(Exception):
    """What went wrong, and what to do next. outcome: `refused` where nothing was touched."""

    def __init__(self, what: str, remedy: str, outcome: str = "failed", code: int = 1) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.outcome = outcome
        self.code = code


def refused(what: str, remedy: str) -> Problem:
    return Problem(what, remedy, "refused")


class Service(NamedTuple):
    """units: of systemd, the first that is there. test, reload: where no systemd has it."""

    units: tuple[str, ...]
    test: tuple[str, ...]
    reload: tuple[str, ...]


SERVICES = {
    "nginx": Service(("nginx",), ("nginx", "-t"), ("nginx", "-s", "reload")),
    # Debian's and Red Hat's names.
    "apache": Service(("apache2", "httpd"), ("apachectl", "configtest"), ("apachectl", "graceful")),
    # The master process reloads on USR2: https://docs.haproxy.org/2.6/management.html#4
    "haproxy": Service(
        ("haproxy",),
        ("haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"),
        ("sh", "-c", 'kill -USR2 "$(cat /run/haproxy.pid)"'),
    ),
    "none": Service((), (), ()),
}


@dataclass
class Result:
    """The line on stdout. fingerprint: of what is live now; before: of what was. served: whether
    the port showed it, null where nobody looked. reported: whether the inventory says so."""

    secret: str = ""
    outcome: str = "failed"
    fingerprint: str | None = None
    before: str | None = None
    version: str | None = None
    served: bool | None = None
    reported: bool | None = None
    error: str | None = None
    next: str | None = None
    seconds: float = 0.0


def main(argv: Sequence[str] | None = None) -> int:
    started = time.monotonic()
    result = Result()
    try:
        code = attempt(sys.argv[1:] if argv is None else argv, result)
    except Exception as error:
        result.error = f"a fault of certrail-install: {type(error).__name__}"
        result.next = "Report it, with what is on stderr"
        say(result, started)
        raise
    say(result, started)
    return code


def say(result: Result, started: float) -> None:
    result.seconds = round(time.monotonic() - started, 3)
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    sys.stdout.flush()
    said = [result.outcome, result.fingerprint, result.error, result.next]
    sys.stderr.write("certrail-install: " + ". ".join(each for each in said if each) + "\n")


def attempt(argv: Sequence[str], result: Result) -> int:
    """The exit code; `result` says what happened."""
    code = 0
    with Signals() as signals:
        options = None
        try:
            options = parse(argv)
            result.secret = options.secret
            install(options, result, signals)
        except Problem as problem:
            code = problem.code
            result.outcome, result.error = problem.outcome, problem.what
            result.next = problem.remedy
        except OSError as error:
            code = 1
            result.error = described(error)
            result.next = "Mend that, and run it again; what was live before is live"
        signals.hold()
        # Whoever has the lock reports; a dry run changes nothing, there neither.
        if options and options.report and not options.dry_run and result.outcome != "busy":
            result.reported = report(options, result)
    return code


def described(error: OSError) -> str:
    where = error.filename2 or error.filename
    about = f" ({where})" if where else ""
    return f"{error.strerror or error}{about}"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Problem(message, f"{self.prog} --help", "usage", 2)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Raises Problem."""
    parser = Parser(
        prog="certrail-install", description="Install a certificate from Secrets Manager."
    )
    add = parser.add_argument
    add("--secret", required=True, metavar="NAME", help="name or ARN of the secret")
    add("--region", help="of the secret; left out, that of its ARN or of the environment")
    add("--stage", default="AWSCURRENT", help="version stage to read (AWSCURRENT)")
    add("--role", metavar="ARN", help="role to assume for reading it")
    add("--external-id", metavar="ID", help="what the role's trust policy asks for")
    add("--fields", default="", metavar="OURS=THEIRS,…", help="where the secret has another shape")
    add("--fingerprint", metavar="SHA256", help="the one that is wanted, even if it is older")
    add("--directory", metavar="PATH", help="left out, /etc/certrail/ and the secret's last part")
    add("--owner", metavar="USER", help="whose the files are")
    add("--group", metavar="GROUP", help="group that may read them, the key too")
    add("--format", default="", metavar="F,…", help="besides PEM: " + ", ".join(FORMATS))
    add("--password-file", metavar="PATH", help="has the keystores' password")
    add("--service", choices=SERVICES, default="none", help="what serves it (none)")
    add("--test", metavar="COMMAND", help="instead of the service's own configuration test")
    add("--reload", metavar="COMMAND", help="instead of the service's own reload")
    add("--connect", metavar="HOST:PORT", help="where to see that it is served")
    add("--server-name", metavar="NAME", help="what to ask for there")
    add("--report", metavar="NAME", help="say in this instance's inventory what happened")
    add("--instance-id", metavar="ID", help="left out, what the instance's metadata says")
    add("--lock-wait", type=float, default=60, metavar="SECONDS", help="for another run (60)")
    add("--dry-run", action="store_true", help="say what would be done, and do nothing")
    options = parser.parse_args(argv)
    options.formats = [each for each in options.format.split(",") if each]
    if unknown := set(options.formats) - set(FORMATS):
        parser.error("--format: there is no {}".format(", ".join(sorted(unknown))))
    if {"pkcs12", "jks"} & set(options.formats) and not options.password_file:
        parser.error("--format pkcs12 and jks need --password-file")
    if options.connect and not (
        re.fullmatch(r".+:\d{1,5}", options.connect, re.ASCII)
        and int(options.connect.rpartition(":")[2]) < 65536
    ):
        parser.error("--connect wants HOST:PORT")
    if options.server_name and not HOST.fullmatch(options.server_name):
        parser.error("--server-name wants a host name")
    if options.fingerprint:
        # As `openssl x509 -fingerprint` writes it, too.
        options.fingerprint = options.fingerprint.replace(":", "").lower()
        if not FINGERPRINT.fullmatch(options.fingerprint):
            parser.error("--fingerprint wants a SHA-256 in hexadecimal")
    for name in ("test", "reload"):
        command = getattr(options, name)
        try:
            setattr(options, name, None if command is None else shlex.split(command))
        except ValueError as error:
            parser.error(f"--{name}: {error}".lower())
    pairs = dict(each.partition("=")[::2] for each in options.fields.split(",") if each)
    if unknown := set(pairs) - set(FIELDS):
        parser.error("--fields: there is no {}".format(", ".join(sorted(unknown))))
    options.fields = {name: pairs.get(name, name) for name in FIELDS}
    name = re.sub(r"-[A-Za-z0-9]{6}$", "", options.secret) if ":" in options.secret else ""
    last = re.split(r"[/:]", name or options.secret)[-1]
    if not options.directory and last in ("", ".", ".."):
        parser.error("the secret's name has no last part to name --directory after")
    options.directory = options.directory or "/etc/certrail/" + last
    return options


class Signals:
    """What ends this politely lets it put things back first; while it does, and afterwards, it is
    held: what is begun is ended."""

    NUMBERS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def __enter__(self) -> Signals:
        self._held = False
        self._before = {each: signal.signal(each, self._end) for each in self.NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def hold(self) -> None:
        # Not SIG_IGN, which the service's commands would inherit.
        self._held = True

    def _end(self, number: int, _: Any) -> None:
        if not self._held:
            self._held = True
            raise Problem(f"ended by {signal.Signals(number).name}", "Run it again")


# The way of a certificate


def install(options: argparse.Namespace, result: Result, signals: Signals) -> None:
    place = Place(options.directory)
    place.check()
    if options.dry_run:
        # It writes nothing, not even a lock: it says what is so now.
        consider(options, result, place)
        return
    place.make()
    with place.locked(options.lock_wait):
        plan = consider(options, result, place)
        if plan is None:
            # Where a run was killed at its very end, something is left to remove.
            place.clean()
            return
        live, before = plan.live, plan.before
        # The same: an earlier run was killed after the exchange, or the service lost it.
        new = live if live and plan.same else place.write(plan, options)
        # What such a run told the service, nobody knows.
        told = live is not None and not live.confirmed
        try:
            place.exchange(new.name)
            result.fingerprint = new.fingerprint
            test_configuration(options)
            told = True
            reload_and_look(options, new.fingerprint)
            signals.hold()
        except BaseException as error:
            signals.hold()
            result.fingerprint = place.fingerprint_of(before)
            put_back(options, place, before, told, error)
            raise
        place.confirm(new.name)
        result.outcome = "installed"
        result.served = True if options.connect else None
        place.clean()


class Plan(NamedTuple):
    """same: the pair is what is live, and made the same way. before: what to go back to."""

    pair: Pair
    settings: dict[str, Any]
    live: Version | None
    same: bool
    before: str | None


def consider(options: argparse.Namespace, result: Result, place: Place) -> Plan | None:
    """What is to be done, None for nothing. Writes nothing. Raises Problem."""
    live = place.live()
    result.before = live.fingerprint if live else None
    # What was never confirmed is not known to be served.
    result.fingerprint = result.before if live and live.confirmed else None
    text, result.version = read_secret(options)
    pair = Pair.of(text, options)
    check_match(pair)
    settings = place.settings(options)
    if live and live.confirmed and not_wanted_yet(pair, live, options.fingerprint):
        result.outcome = "unchanged"
        result.next = "The secret has another certificate than the one that is wanted here"
        return None
    known = live is not None and live.fingerprint == pair.fingerprint
    same = live is not None and known and live.settings == settings
    if not known:
        check_age(pair, live, options.fingerprint)
    if same and live and live.confirmed and is_served(options, pair.fingerprint):
        result.outcome = "unchanged"
        result.served = True if options.connect else None
        return None
    result.outcome = "would-install" if options.dry_run else "failed"
    before = None
    if live:
        before = live.name if live.confirmed else live.before
    return Plan(pair, settings, live, same, before)


def not_wanted_yet(pair: Pair, live: Version, wanted: str | None) -> bool:
    """Whether the secret has a newer one for others, whose turn comes first. A certificate that is
    about to end does not wait for its turn."""
    if wanted in (None, pair.fingerprint) or live.fingerprint == pair.fingerprint:
        return False
    if pair.not_before < live.not_before:
        return False
    return live.not_after - datetime.now(timezone.utc) > WAITS_UNTIL


def check_age(pair: Pair, live: Version | None, wanted: str | None) -> None:
    now = datetime.now(timezone.utc)
    if pair.not_after <= now:
        raise refused(
            f"the certificate in the secret ended at {pair.not_after.isoformat()}",
            "See `certrail status` for why there is no newer one",
        )
    if live is None or pair.fingerprint == wanted or pair.not_before >= live.not_before:
        return
    began, installed = pair.not_before.isoformat(), live.not_before.isoformat()
    raise refused(
        f"the certificate in the secret began at {began}, and the installed one at {installed}",
        f"If the older one is wanted, say so: --fingerprint {pair.fingerprint}",
    )


def test_configuration(options: argparse.Namespace) -> None:
    """Raises Problem."""
    test, _ = commands(options)
    if test:
        run(test, "the configuration test")


def reload_and_look(options: argparse.Namespace, fingerprint: str) -> None:
    """Raises Problem."""
    _, reload_ = commands(options)
    if reload_:
        run(reload_, "the reload")
    if options.connect:
        look(options, fingerprint, SERVED_AFTER)


def put_back(
    options: argparse.Namespace, place: Place, before: str | None, told: bool, why: BaseException
) -> None:
    """`live` as it was, and the service with it, where it was told of another. Raises Problem."""
    fingerprint = place.fingerprint_of(before)
    try:
        if told and before and not place.leads_to(before):
            # Who is killed before the reload must not find it confirmed.
            place.doubt(before)
        place.exchange(before)
        place.clean()
        if not told or before is None or fingerprint is None:
            return
        test_configuration(options)
        reload_and_look(options, fingerprint)
        place.confirm(before)
    except (Problem, OSError) as again:
        if options.connect and before and fingerprint and is_served(options, fingerprint):
            # Its configuration is broken, and it was before: it goes on with what it has.
            place.confirm(before)
            return
        said = described(again) if isinstance(again, OSError) else again.what
        raise Problem(
            f"{why}; and the way back failed, too: {said}",
            "The service may not serve the certificate before: look at it now",
            code=4,
        ) from why


def commands(options: argparse.Namespace) -> tuple[Sequence[str], Sequence[str]]:
    """The configuration test and the reload."""
    service = SERVICES[options.service]
    reload_: Sequence[str] = service.reload
    if os.path.isdir("/run/systemd/system"):
        for unit in service.units:
            shown = subprocess.run(
                ["systemctl", "show", "--property=LoadState", unit],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=False,
            )
            if b"=loaded" in shown.stdout:
                # A service that could not start, as it had no certificate yet, is started.
                reload_ = ["systemctl", "reload-or-restart", unit]
                break
    test = service.test if options.test is None else options.test
    return test, reload_ if options.reload is None else options.reload


def run(command: Sequence[str], what: str) -> None:
    """Raises Problem, with what the command said."""
    # No pipe: a daemon that the command starts would keep it open.
    with tempfile.TemporaryFile() as output:
        try:
            status = run_to_its_end(command, output)
        except FileNotFoundError:
            raise Problem(
                f"{what} could not run: there is no {command[0]}",
                "Install what has it, or name another command or --service",
            ) from None
        except subprocess.TimeoutExpired:
            raise Problem(
                f"{what} took more than {COMMAND_TIMEOUT} s", "Run it by hand, and see why"
            ) from None
        output.seek(0)
        text = output.read().decode(errors="replace")
    said = " ".join(text.split())[-OUTPUT_LIMIT:]
    if "PRIVATE KEY" in text:
        said = "what it said has a private key in it, and is not told"
    if status != 0:
        raise Problem(
            f"{what} failed ({shlex.join(command)}): {said}",
            "Mend what it says; the certificate before serves until then",
        )


def run_to_its_end(command: Sequence[str], output: IO[bytes]) -> int:
    """Its exit status. A signal that ends this ends the command first: from its start until it is
    known here, signals have to wait, or it would go on beside the way back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, Signals.NUMBERS)

    def let_them_come() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        with subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Else the command would never hear of them. There is one thread.
            preexec_fn=let_them_come,
        ) as process:
            try:
                let_them_come()
                return process.wait(COMMAND_TIMEOUT)
            except BaseException:
                process.kill()
                raise
    finally:
        let_them_come()


# What is served


def is_served(options: argparse.Namespace, fingerprint: str) -> bool:
    """Whether a client gets it now; where nobody can look, it is believed."""
    if not options.connect:
        return True
    try:
        return shows(options, fingerprint) is None
    except OSError:
        return False


def look(options: argparse.Namespace, fingerprint: str, patience: float) -> None:
    """Connect until it is served, and nothing else any more. Raises Problem."""
    end = time.monotonic() + patience
    good = 0
    while True:
        try:
            other = shows(options, fingerprint)
            saw = f"shows {other}"
        except OSError as error:
            other, saw = "", f"does not answer ({error})"
        good = good + 1 if other is None else 0
        if good == IN_A_ROW:
            return
        if time.monotonic() >= end:
            raise Problem(
                f"{options.connect} {saw} after {round(patience)} s, and not {fingerprint}",
                "See that the service reads its certificate from "
                f"{options.directory}/live, and listens there",
            )
        time.sleep(BETWEEN_LOOKS)


def shows(options: argparse.Namespace, fingerprint: str) -> str | None:
    """None where the port shows it, else what it shows. Raises OSError.

    A service that has an RSA and an ECDSA certificate shows one of them; a client that knows only
    the other kind of key gets the other.
    """
    first = handshake(options, "")
    if first == fingerprint:
        return None
    for kind in ("aECDSA", "aRSA"):
        with contextlib.suppress(OSError):
            if handshake(options, kind) == fingerprint:
                return None
    return first


def handshake(options: argparse.Namespace, kind: str) -> str:
    """The fingerprint of what the port shows. kind: of key, as OpenSSL names it, that the client
    knows only; empty for any. Raises OSError."""
    host, _, port = options.connect.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Which certificate it is, and not whether it is believed, is the question here.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if kind:
        # In TLS 1.3 a key's kind is no part of the cipher.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+" + kind)
    there = (host.strip("[]"), int(port))
    with socket.create_connection(there, CONNECT_TIMEOUT) as connection, context.wrap_socket(
        connection, server_hostname=options.server_name
    ) as tls:
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


# The secret


def read_secret(options: argparse.Namespace) -> tuple[str, str]:
    """Its text, and its version's id. Raises Problem."""
    asked = {"SecretId": options.secret, "VersionStage": options.stage}
    answer = aws(options, "secretsmanager", "GetSecretValue", asked, options.role)
    if "SecretString" not in answer:
        raise refused("the secret has no text", "Name the secret that certrail writes")
    return answer["SecretString"], answer["VersionId"]


def aws(
    options: argparse.Namespace,
    service: str,
    operation: str,
    asked: dict[str, Any],
    role: str | None = None,
) -> dict[str, Any]:
    """One call, by boto3 or by the AWS CLI. Raises Problem."""
    region = options.region if service != "ssm" else os.environ.get("AWS_SSM_REGION_NAME")
    if not region and options.secret.startswith("arn:"):
        region = options.secret.split(":")[3]
    credentials: dict[str, str] = {}
    if role:
        whom = {"RoleArn": role, "RoleSessionName": "certrail-install"}
        if options.external_id:
            whom["ExternalId"] = options.external_id
        credentials = aws(options, "sts", "AssumeRole", whom)["Credentials"]
    try:
        boto3: Any = importlib.import_module("boto3")
    except ImportError:
        return by_cli(service, operation, asked, region, credentials)
    return by_boto3(boto3, service, operation, asked, region, credentials)


def by_boto3(
    boto3: Any,
    service: str,
    operation: str,
    asked: dict[str, Any],
    region: str | None,
    credentials: dict[str, str],
) -> dict[str, Any]:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    more = {
        "aws_access_key_id": credentials.get("AccessKeyId"),
        "aws_secret_access_key": credentials.get("SecretAccessKey"),
        "aws_session_token": credentials.get("SessionToken"),
    }
    try:
        patience = Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 2})
        client = boto3.client(service, region_name=region, config=patience, **more)
        method = re.sub("(?<!^)(?=[A-Z])", "_", operation).lower()
        answer: dict[str, Any] = getattr(client, method)(**asked)
        return answer
    except (BotoCoreError, ClientError, ValueError) as error:
        raise unanswered(operation, str(error)) from None


def by_cli(
    service: str,
    operation: str,
    asked: dict[str, Any],
    region: str | None,
    credentials: dict[str, str],
) -> dict[str, Any]:
    program = shutil.which("aws")
    if program is None:
        raise Problem(
            "there is neither boto3 nor the AWS CLI", "Install one of them: `pip install boto3`"
        )
    command = [program, service, re.sub("(?<!^)(?=[A-Z])", "-", operation).lower()]
    # No key material is ever among what is asked.
    command += ["--cli-input-json", json.dumps(asked), "--output", "json"]
    command += ["--region", region] if region else []
    names = {
        "AWS_ACCESS_KEY_ID": "AccessKeyId",
        "AWS_SECRET_ACCESS_KEY": "SecretAccessKey",
        "AWS_SESSION_TOKEN": "SessionToken",
    }
    environment = {**os.environ, "AWS_PAGER": ""}
    environment.update({name: credentials[key] for name, key in names.items() if credentials})
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise unanswered(operation, f"no answer in {COMMAND_TIMEOUT} s") from None
    if done.returncode != 0:
        raise unanswered(operation, done.stderr.decode(errors="replace"))
    try:
        answer: dict[str, Any] = json.loads(done.stdout or b"{}")
    except ValueError:
        raise unanswered(operation, f"{program} answered no JSON") from None
    return answer


def unanswered(operation: str, said: str) -> Problem:
    text = " ".join(said.split())[:OUTPUT_LIMIT]
    remedy = "See that AWS can be reached from here, and that the machine has a role"
    if "AccessDenied" in text:
        remedy = f"Allow {operation} in the machine's role, and kms:Decrypt on the secret's key"
    elif "ResourceNotFound" in text:
        remedy = "Compare name, region and stage of the secret with `certrail status`"
    return Problem(f"{operation} failed: {text}", remedy, "refused")


# Certificate and key


@dataclass(frozen=True)
class Pair:
    """certificate, chain, key: PEM. fingerprint: SHA-256 of the leaf's DER."""

    certificate: str
    chain: str
    key: str
    fingerprint: str
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(cls, text: str, options: argparse.Namespace) -> Pair:
        """Of a secret's text. Raises Problem, which never quotes the text."""
        try:
            document = json.loads(text)
        except ValueError:
            raise refused(
                "the secret is not JSON", "Leave `shape` away, or make an object with it"
            ) from None
        if not isinstance(document, dict):
            raise refused("the secret is no JSON object", "Make an object with `shape`")
        found: dict[str, str] = {}
        for name, key in options.fields.items():
            value = document.get(key, "" if name == "chain" else None)
            if not isinstance(value, str):
                raise refused(
                    f"the secret has no {key}",
                    "Say with --fields what it is called: --fields certificate=crt,private_key=key",
                )
            found[name] = value
        leaf = PEM.findall(found["certificate"])
        if not leaf:
            raise refused("the secret's certificate is not PEM", "Publish the certificate again")
        key = found["private_key"].strip() + "\n"
        if "PRIVATE KEY-----" not in key or not key.isascii():
            raise refused("the secret's key is not PEM", "Publish the key again")
        certificate = leaf[0] + "\n"
        # Some repeat there what the certificate's field has.
        above = dict.fromkeys((*leaf[1:], *PEM.findall(found["chain"])))
        above.pop(leaf[0], None)
        chain = "".join(each + "\n" for each in above)
        try:
            der = ssl.PEM_cert_to_DER_cert(certificate)
            not_before, not_after = validity(der)
        except (ValueError, IndexError):
            raise refused(
                "the secret's certificate cannot be read", "Publish the certificate again"
            ) from None
        return cls(
            certificate,
            chain,
            key,
            hashlib.sha256(der).hexdigest(),
            not_before,
            not_after,
        )

    @property
    def fullchain(self) -> str:
        return self.certificate + self.chain


def validity(der: bytes) -> tuple[datetime, datetime]:
    """Of a certificate (RFC 5280, 4.1). Raises ValueError, IndexError. Python's own parser is not
    public, and the `openssl` command is not everywhere."""
    _, certificate = element(der, 0)[:2]
    _, tbs = element(certificate, 0)[:2]
    at = 0
    tag, _, after = element(tbs, at)
    if tag == 0xA0:
        at = after
    # Serial number, signature, issuer.
    for _ in range(3):
        at = element(tbs, at)[2]
    _, times, _ = element(tbs, at)
    first, begins, at = element(times, 0)
    second, ends, _ = element(times, at)
    return moment(first, begins), moment(second, ends)


def element(der: bytes, at: int) -> tuple[int, bytes, int]:
    """Tag, content, and where the next one begins."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(der[start : start + count], "big")
        start += count
    if start + length > len(der):
        raise ValueError("cut off")
    return tag, der[start : start + length], start + length


def moment(tag: int, text: bytes) -> datetime:
    """UTCTime (two digits of the year, RFC 5280, 4.1.2.5.1) or GeneralizedTime."""
    digits = text.decode("ascii")
    if tag == 0x17:
        digits = ("19" if int(digits[:2]) >= 50 else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def check_match(pair: Pair) -> None:
    """Raises Problem where the key is another certificate's. Nothing of it is on a disk yet."""

    def no_password() -> str:
        # Without this, OpenSSL asks whoever sits at the terminal.
        raise refused("the secret's key has a password", "Publish the key without one")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with in_memory(pair.fullchain) as certificate, in_memory(pair.key) as key:
            context.load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        # The third: a key of another type, for which there is no certificate then.
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
            what = "the key in the secret is not the certificate's"
        else:
            what = f"OpenSSL cannot use the secret's certificate and key ({error.reason})"
        raise refused(what, "Publish certificate and key again, together") from None


@contextlib.contextmanager
def in_memory(text: str) -> Iterator[str]:
    """A path under which this process can read it."""
    with os.fdopen(os.memfd_create("certrail-install"), "w") as file:
        file.write(text)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


# The directory


@dataclass(frozen=True)
class Version:
    """One that is complete. before: the version to go back to. settings: what it was made with."""

    name: str
    fingerprint: str
    not_before: datetime
    not_after: datetime
    settings: dict[str, Any]
    before: str | None
    confirmed: bool


class Place:
    """The directory, which has everything below it."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.versions = os.path.join(self.path, "versions")
        self.link = os.path.join(self.path, "live")

    def check(self) -> None:
        """Raises Problem where others could put something in the way."""
        # What is above the directory may be a link (`/var/run`): then both ways matter.
        above, last = os.path.split(self.path)
        for top in (self.path, os.path.join(os.path.realpath(above), last)):
            path = os.path.join(top, "versions")
            while path != os.path.dirname(path):
                self._check(path, ours=path.startswith(top))
                path = os.path.dirname(path)

    def _check(self, path: str, ours: bool) -> None:
        try:
            about = os.lstat(path)
        except FileNotFoundError:
            return
        is_link = stat.S_ISLNK(about.st_mode)
        if not stat.S_ISDIR(about.st_mode) and (ours or not is_link):
            raise refused(f"{path} is no directory", "Somebody put it there: look at it first")
        if about.st_uid not in (0, os.geteuid()):
            raise refused(
                f"{path} belongs to {user_named(about.st_uid)}",
                "Only root, or who runs this, may own it and what is above it",
            )
        # In `/tmp` and its like nobody can take away what is another's.
        shared = about.st_mode & stat.S_ISVTX and not ours
        if not is_link and about.st_mode & 0o022 and not shared:
            raise refused(f"others may write in {path}", f"chmod go-w {shlex.quote(path)}")

    def make(self) -> None:
        """What is missing of it, for all to read, whatever the umask. Raises Problem, OSError."""
        missing = []
        path = self.versions
        while not os.path.lexists(path):
            missing.append(path)
            path = os.path.dirname(path)
        for path in reversed(missing):
            # Another run may be at it.
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
                os.chmod(path, 0o755)
        self.check()

    @contextlib.contextmanager
    def locked(self, wait: float) -> Iterator[None]:
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        path = os.path.join(self.path, "lock")
        try:
            lock = os.open(path, flags, 0o600)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR):
                raise
            raise refused(f"{path} is no file", "Somebody put it there: look at it first") from None
        end = time.monotonic() + wait
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        raise Problem(
                            f"another run has the lock of {self.path}",
                            "It ends by itself",
                            "busy",
                            3,
                        ) from None
                    time.sleep(BETWEEN_LOOKS)
            yield
        finally:
            os.close(lock)

    # What is there

    def live(self) -> Version | None:
        """What the link leads to, None where there is none. Raises Problem."""
        try:
            leads_to = os.readlink(self.link)
        except FileNotFoundError:
            return None
        except OSError:
            raise refused(
                f"{self.link} is no link", "Move away what is there; it is not ours"
            ) from None
        folder, name = os.path.split(leads_to)
        version = self.version(name) if folder == "versions" else None
        if version is None:
            raise refused(
                f"{self.link} leads to {leads_to}, which this has not written",
                "Remove the link, or choose another --directory",
            )
        if not self.fingerprint_of(version.before):
            return replace(version, before=None)
        return version

    def version(self, name: str) -> Version | None:
        """One that is complete."""
        if not VERSION.fullmatch(name):
            return None
        try:
            with open(os.path.join(self.versions, name, "manifest.json")) as file:
                about = json.load(file)
            not_before, not_after = (
                datetime.strptime(about[name], "%Y-%m-%dT%H:%M:%S%z")
                for name in ("not_before", "not_after")
            )
            fingerprint, settings = about["fingerprint"], about["settings"]
            before = about["before"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        confirmed = not os.path.exists(os.path.join(self.versions, name, "unconfirmed"))
        return Version(name, fingerprint, not_before, not_after, settings, before, confirmed)

    def fingerprint_of(self, name: str | None) -> str | None:
        version = self.version(name) if name else None
        return version.fingerprint if version else None

    # What is written

    def settings(self, options: argparse.Namespace) -> dict[str, Any]:
        """What makes the same certificate another version. Raises Problem."""
        made: dict[str, Any] = {"formats": sorted(options.formats), "user": -1, "group": -1}
        try:
            if options.owner:
                made["user"] = pwd.getpwnam(options.owner).pw_uid
            if options.group:
                made["group"] = grp.getgrnam(options.group).gr_gid
        except KeyError as error:
            raise refused(
                f"there is no such user or group here: {error.args[0]}",
                "Create it, or correct --owner and --group",
            ) from None
        if options.password_file:
            # Keystores are made again when their password has changed.
            made["password"] = os.stat(options.password_file).st_mtime_ns
        return made

    def write(self, plan: Plan, options: argparse.Namespace) -> Version:
        """A complete version, to which nothing leads yet. Raises Problem, OSError."""
        pair, settings, before = plan.pair, plan.settings, plan.before
        numbers = [int(VERSION.fullmatch(each)[1]) for each in self._names()]  # type: ignore[index]
        name = f"{max(numbers, default=0) + 1:06d}-{pair.fingerprint[:16]}"
        folder = os.path.join(self.versions, name)
        os.mkdir(folder, 0o700)
        try:
            self._fill(folder, pair, options)
            for file in os.listdir(folder):
                self._hand_over(os.path.join(folder, file), settings)
            about = {
                "fingerprint": pair.fingerprint,
                "not_before": pair.not_before.isoformat(),
                "not_after": pair.not_after.isoformat(),
                "settings": settings,
                "before": before,
            }
            create(os.path.join(folder, "unconfirmed"), "")
            create(os.path.join(folder, "manifest.json"), json.dumps(about) + "\n", 0o644)
            os.chmod(folder, 0o755)
            sync(folder)
            sync(self.versions)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        began, ends = pair.not_before, pair.not_after
        return Version(name, pair.fingerprint, began, ends, settings, before, False)

    def _fill(self, folder: str, pair: Pair, options: argparse.Namespace) -> None:
        def path(file: str) -> str:
            return os.path.join(folder, file)

        create(path("cert.pem"), pair.certificate)
        create(path("chain.pem"), pair.chain)
        create(path("fullchain.pem"), pair.fullchain)
        create(path("privkey.pem"), pair.key)
        if "haproxy" in options.formats:
            # https://docs.haproxy.org/2.6/configuration.html#5.1-crt
            create(path("haproxy.pem"), pair.fullchain + pair.key)
        if {"pkcs12", "jks"} & set(options.formats):
            password = "file:" + options.password_file
            run(
                [
                    *("openssl", "pkcs12", "-export", "-name", "certrail"),
                    *("-in", path("fullchain.pem"), "-inkey", path("privkey.pem")),
                    *("-out", path("keystore.p12"), "-passout", password),
                ],
                "making the PKCS#12 keystore",
            )
        if "jks" in options.formats:
            run(
                [
                    *("keytool", "-importkeystore", "-noprompt", "-alias", "certrail"),
                    *("-srckeystore", path("keystore.p12"), "-srcstoretype", "PKCS12"),
                    *("-srcstorepass:file", options.password_file),
                    *("-destkeystore", path("keystore.jks"), "-deststoretype", "JKS"),
                    *("-deststorepass:file", options.password_file),
                ],
                "making the Java keystore",
            )
            if "pkcs12" not in options.formats:
                os.remove(path("keystore.p12"))
        for file in os.listdir(folder):
            sync(path(file))

    def _hand_over(self, path: str, settings: dict[str, Any]) -> None:
        public = os.path.basename(path) in ("cert.pem", "chain.pem", "fullchain.pem")
        try:
            os.chown(path, settings["user"], settings["group"])
        except PermissionError:
            raise refused(
                "only root may give the files to another user or group",
                "Run it as root, or leave --owner and --group away",
            ) from None
        secret = 0o640 if settings["group"] != -1 else 0o600
        os.chmod(path, 0o644 if public else secret)

    def exchange(self, name: str | None) -> None:
        """Let `live` lead there, by one rename; None for nowhere."""
        new = os.path.join(self.path, ".live")
        with contextlib.suppress(FileNotFoundError):
            os.remove(new)
        if name is None:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.link)
        elif not self.leads_to(name):
            os.symlink(os.path.join("versions", name), new)
            os.replace(new, self.link)
        sync(self.path)

    def leads_to(self, name: str) -> bool:
        there = self.live()
        return there is not None and there.name == name

    def confirm(self, name: str) -> None:
        # What a full disk cannot keep from being done.
        folder = os.path.join(self.versions, name)
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, "unconfirmed"))
        sync(folder)

    def doubt(self, name: str) -> None:
        folder = os.path.join(self.versions, name)
        with contextlib.suppress(FileExistsError):
            create(os.path.join(folder, "unconfirmed"), "", 0o644)
        sync(folder)

    def clean(self) -> None:
        """Remove what is neither live nor the one before: what is old, what never worked, and what
        runs that were killed left half written."""
        live = self.live()
        keep = {live.name, live.before} if live else set()
        for name in self._names():
            if name not in keep:
                shutil.rmtree(os.path.join(self.versions, name), ignore_errors=True)

    def _names(self) -> list[str]:
        return [each for each in os.listdir(self.versions) if VERSION.fullmatch(each)]


def create(path: str, text: str, mode: int = 0o600) -> None:
    """A file that was not there. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, mode), "w") as file:
            os.chmod(path, mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # What cannot be written to says no name by itself.
        error.filename = path
        raise


def sync(path: str) -> None:
    """Have on the disk what was written there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Not every file system syncs directories.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def user_named(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


# The inventory


def report(options: argparse.Namespace, result: Result) -> bool:
    """Say in the instance's inventory what is live here. Whether that worked.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/inventory-custom.html
    """
    content = {
        "Fleet": options.report,
        "Wanted": options.fingerprint or "",
        "Outcome": result.outcome,
        "Fingerprint": result.fingerprint or "",
        "Error": " ".join((result.error or "").split())[:REPORT_LIMIT],
        "Version": result.version or "",
    }
    try:
        instance = options.instance_id or from_metadata()
        item = {
            "TypeName": "Custom:certrail",
            "SchemaVersion": "1.0",
            "CaptureTime": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            # All of the type is replaced.
            "Content": remembered(os.path.dirname(os.path.abspath(options.directory)), content),
        }
        aws(options, "ssm", "PutInventory", {"InstanceId": instance, "Items": [item]})
    except (Problem, OSError, HTTPException) as problem:
        sys.stderr.write(f"certrail-install: not reported: {problem}\n")
        return False
    return True


def remembered(folder: str, content: dict[str, str]) -> list[dict[str, str]]:
    """With what was said last of other fleets, whose directories are beside this one. Raises
    OSError."""
    path = os.path.join(folder, ".certrail-inventory.json")
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "r+") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        try:
            known = json.load(kept)
        except ValueError:
            known = {}
        known[content["Fleet"]] = content
        kept.seek(0)
        kept.truncate()
        json.dump(known, kept)
    return [known[name] for name in sorted(known)]


def from_metadata() -> str:
    """This instance's id. Raises OSError.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
    """
    asks = urllib.request.Request(
        METADATA + "/api/token",
        method="PUT",
        headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"},
    )
    # No proxy: the address is the machine's own.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    token = direct.open(asks, timeout=METADATA_TIMEOUT).read().decode()
    asks = urllib.request.Request(
        METADATA + "/meta-data/instance-id", headers={"X-aws-ec2-metadata-token": token}
    )
    answer: str = direct.open(asks, timeout=METADATA_TIMEOUT).read().decode()
    return answer


if __name__ == "__main__":
    sys.exit(main())
