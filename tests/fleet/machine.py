"""A machine on which `certrail-install` runs as somebody would run it: as a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates

from certrail.bundle import Bundle
from fleet import certrail_install
from tests.certrail.bundles import HOUR, NOW, make_bundle
from tests.deployers.cloud import DOMAINS, Cloud
from tests.fleet import killing

SECRET = "tls/shop/bundle"
PEM_FILES = {"cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"}
# In seconds: a run that hangs.
TOO_LONG = 120


@dataclass(frozen=True)
class Ran:
    """What came of one run. said: the line on stdout."""

    code: int
    said: dict[str, Any]
    stderr: str

    @classmethod
    def of(cls, code: int, stdout: str, stderr: str) -> Ran:
        (line,) = stdout.splitlines()
        return cls(code, json.loads(line), stderr)

    @property
    def outcome(self) -> str:
        outcome: str = self.said["outcome"]
        return outcome

    @property
    def error(self) -> str:
        error: str = self.said["error"]
        return error


@dataclass
class Machine:
    """folder: where its files are. seen: keys of all secrets, which no output may have in it."""

    cloud: Cloud
    folder: Path
    seen: list[str] = field(default_factory=list)

    # The secret

    def publish(self, begins: datetime = NOW - HOUR, **more: Any) -> Bundle:
        """A certificate, newer or older by when it begins, that the secret has now."""
        made = make_bundle(DOMAINS, age=NOW - begins, **more)
        self.put(document(made))
        return made

    def put(self, what: Any, **more: Any) -> None:
        """What the secret has: text, or what becomes JSON."""
        text = what if isinstance(what, str) else json.dumps(what)
        self.seen.append(text)
        secrets = self.cloud.client("secretsmanager")
        with suppress(secrets.exceptions.ResourceExistsException):
            secrets.create_secret(Name=SECRET)
        secrets.put_secret_value(SecretId=SECRET, SecretString=text, **more)

    # The installer

    @property
    def directory(self) -> Path:
        return self.folder / "certrail/web"

    @property
    def live(self) -> Path:
        return self.directory / "live"

    def command(self, *options: object, python: Sequence[str] = (sys.executable,)) -> list[str]:
        return [*python, certrail_install.__file__, *self.arguments(*options)]

    def arguments(self, *options: object) -> list[str]:
        return ["--secret", SECRET, "--directory", str(self.directory), *map(str, options)]

    def install(
        self,
        *options: object,
        python: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        umask: int = 0o077,
    ) -> Ran:
        """By this Python, as a shell starts it; left out, in a process that is forked from one that
        has loaded boto3 already. The umask is that of the agent's script."""
        if not python:
            return self._forked(self.arguments(*options), environment or {}, umask)
        done = subprocess.run(
            self.command(*options, python=python),
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TOO_LONG,
            umask=umask,
        )
        self.check_silent(done.stdout + done.stderr)
        return Ran.of(done.returncode, done.stdout, done.stderr)

    def _forked(self, arguments: list[str], environment: Mapping[str, str], umask: int) -> Ran:
        with TemporaryDirectory() as folder:
            stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
            code = killing.run(
                arguments, {**os.environ, **environment}, (stdout, stderr), umask=umask
            )
            said = stdout.read_text(), stderr.read_text()
        self.check_silent("".join(said))
        return Ran.of(code, *said)

    def start(
        self, *options: object, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*options),
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def check_silent(self, output: str) -> None:
        """No key material, whatever happened."""
        for text in self.seen:
            for line in text.replace("\\n", "\n").splitlines():
                assert len(line) < 40 or line not in output

    # What is there

    @property
    def fingerprint(self) -> str:
        """Of the pair that is live, seen to be one that is whole."""
        pair = Pair.read(self.live)
        assert pair.matches
        return pair.fingerprint

    def tree(self) -> dict[str, tuple[int, int, int]]:
        """Everything below the folder: inode, and when it was written and changed."""
        return {
            str(path.relative_to(self.folder)): (about.st_ino, about.st_mtime_ns, about.st_ctime_ns)
            for path in sorted(self.folder.rglob("*"))
            for about in [path.lstat()]
        }

    @property
    def versions(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "versions").iterdir())


@dataclass(frozen=True)
class Pair:
    fingerprint: str
    matches: bool

    @classmethod
    def read(cls, folder: Path) -> Pair:
        """One that a service would read."""

        # Through the link once: as it is now.
        folder = folder.resolve()
        leaf = load_pem_x509_certificates((folder / "fullchain.pem").read_bytes())[0]
        key = load_pem_private_key((folder / "privkey.pem").read_bytes(), None)
        return cls(leaf.fingerprint(SHA256()).hex(), key.public_key() == leaf.public_key())


def ended_as(run: subprocess.Popen[str]) -> Ran:
    stdout, stderr = run.communicate(timeout=TOO_LONG)
    return Ran.of(run.returncode, stdout, stderr)


def document(bundle: Bundle) -> dict[str, str]:
    """As certrail writes it into a secret."""
    return {
        "certificate": bundle.certificate,
        "chain": bundle.chain,
        "private_key": bundle.private_key.reveal(),
    }


class Gate:
    """A reload that says when it is reached, and waits until it may go on."""

    def __init__(self, folder: Path) -> None:
        self._reached, self._go_on = folder / "reached", folder / "go-on"
        folder.mkdir(exist_ok=True)
        os.mkfifo(self._reached)
        os.mkfifo(self._go_on)

    @property
    def command(self) -> str:
        return shlex.join(["sh", "-c", f"echo > {self._reached}; read line < {self._go_on}"])

    def wait(self) -> None:
        self._reached.read_text()

    def open(self) -> None:
        self._go_on.write_text("\n")
